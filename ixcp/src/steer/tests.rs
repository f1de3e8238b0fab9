use super::*;

#[test]
fn groups_are_named_in_ranges() {
    let owners = [0, 0, 0, 1, 0, 2, 0, 0];
    assert_eq!(ranges(&owners, 0), "0-2 4 6-7");
    assert_eq!(ranges(&owners, 1), "3");
    assert_eq!(ranges(&owners, 3), "none");
    assert_eq!(ranges(&[], 0), "none");
}

#[test]
fn a_core_that_another_dataplane_has_is_shown_as_away_whatever_else_it_is() {
    let scene = crate::fake::scene(4);
    scene.page.store(header::ACTIVE, 0b0001);
    scene.page.store(header::BACKGROUND, 0b1000);
    scene.page.store(header::AWAY, 0b0100);
    let placement = placement(&scene.page).unwrap();
    let states: Vec<_> = placement.cores.iter().map(|core| (core.state, core.serves)).collect();
    let wanted = [("running", true), ("parked", false), ("away", false), ("background", false)];
    assert_eq!(states, wanted);
}

#[test]
fn the_busiest_groups_come_first() {
    let load = |group, frames_ps| GroupLoad {
        group,
        core: 1,
        frames: 5,
        busy_ns: 7,
        frames_ps,
        busy: 0.125,
    };
    assert_eq!(busiest(&[load(0, 0.0)]), "");
    let text = busiest(&[load(3, 10.0), load(4, 0.0), load(9, 2000.0)]);
    assert_eq!(
        text,
        "\nGROUP  CORE   FRAMES/s    BUSY\n    9     1       2000   12.5%\n    3     1         10   12.5%\n"
    );
    let many: Vec<_> = (0..20).map(|group| load(group, 1.0)).collect();
    assert!(busiest(&many).ends_with("and 12 more groups\n"), "{}", busiest(&many));
}

#[test]
fn who_sets_cores_against_a_daemon_is_warned() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    let kv = base.claim("kv").unwrap().instance;
    assert_eq!(overruled(&base, &kv, Some(2)), None, "no daemon");
    let daemon = |names: &[&str], setting: &str| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        let settings = crate::policy::config::setting(setting).unwrap();
        lock::take(&base, &lock::Task { names, settings }).unwrap()
    };
    let held = daemon(&[], "policy=latency");
    let text = overruled(&base, &kv, Some(2)).unwrap();
    assert!(text.contains("by policy latency") && text.contains("static.cores=2"), "{text}");
    let text = overruled(&base, &kv, None).unwrap();
    assert!(text.ends_with("`ixcp policy set static --name kv` keeps it"), "{text}");
    drop(held);
    let held = daemon(&["other"], "policy=latency");
    assert_eq!(overruled(&base, &kv, Some(2)), None, "it ignores kv");
    drop(held);
    let held = daemon(&[], "policy=static");
    assert_eq!(overruled(&base, &kv, Some(2)), None);
    drop(held);
    let _held = daemon(&[], "static.cores=3");
    assert_eq!(overruled(&base, &kv, Some(3)), None);
    assert!(overruled(&base, &kv, Some(2)).unwrap().contains("static with static.cores=3"));
    let text = overruled(&base, &kv, None).unwrap();
    let end = "static.cores=0 --name kv` keeps it (0: that policy leaves the cores alone)";
    assert!(text.ends_with(end), "{text}");
}
