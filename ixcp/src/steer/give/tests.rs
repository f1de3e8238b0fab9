//! Against a kernel played by a thread: what it answers, and what the page tells afterwards.
use super::*;
use crate::fake::{Kernel, Scene, scene};
use ix_abi::control::{BULK_BASE, REPLY_BASE};

const PATIENCE: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(40);
const GIFT: Gift<'_> = Gift { core: 2, to: None, patience: PATIENCE };
const TO_KVB: Gift<'_> = Gift { core: 2, to: Some("kvB"), patience: PATIENCE };

fn under_a_monitor() -> Scene {
    let scene = scene(4);
    scene.page.store(header::EXIT_COUNTERS, 80);
    scene.page.store(leaves_offset(2), 1 << 32 | 7);
    scene
}

/// A kernel that answers yes and lays kvB's name; then `after` happens.
fn kernel(scene: &Scene, after: impl Fn(&Page) + Send + 'static) -> Kernel {
    let page = Page::open(&scene.file).unwrap();
    Kernel::start(scene, move |code, core| {
        assert_eq!((code, core), (17, 2));
        page.store(REPLY_BASE, u64::from_le_bytes(*b"kvB\0\0\0\0\0"));
        after(&page);
        (Status::Ok, 1)
    })
}

fn given(scene: &Scene, gift: &Gift<'_>) -> (String, End) {
    carry_out(&scene.lock, &scene.page, gift).unwrap()
}

fn fails(scene: &Scene, gift: &Gift<'_>) -> String {
    carry_out(&scene.lock, &scene.page, gift).unwrap_err().to_string()
}

#[test]
fn a_core_has_gone_when_it_is_counted_whether_it_is_still_away_or_not() {
    let scene = under_a_monitor();
    let kernel = kernel(&scene, |page| page.store(leaves_offset(2), 1 << 32 | 8));
    assert_eq!(given(&scene, &GIFT), ("kvB".to_owned(), End::Asked));
    assert_eq!(scene.page.load(leaves_offset(2)), 1 << 32 | 8);
    assert_eq!(kernel.end(), [17]);
    assert_eq!(told(&GIFT, "kvB", End::Asked).unwrap(), "core 2 is given to kvB");
}

#[test]
fn the_name_goes_through_the_bulk_area_and_force_is_told() {
    let scene = under_a_monitor();
    let _kernel = kernel(&scene, |page| {
        assert_eq!(page.load(BULK_BASE), u64::from_le_bytes(*b"kvB\0\0\0\0\0"));
        page.store(header::AWAY, 0b100);
        page.store(leaves_offset(2), 2 << 32 | 7);
    });
    assert_eq!(given(&scene, &TO_KVB).1, End::Forced);
    assert_eq!(scene.page.load(ix_abi::control::command::ARGS + 8), 3);
    let text = told(&TO_KVB, "kvB", End::Forced).unwrap();
    assert!(text.contains("by force") && text.contains("are reset"), "{text}");
}

#[test]
fn one_that_does_not_leave_in_time_is_told_with_what_will_happen() {
    let scene = under_a_monitor();
    let _kernel = kernel(&scene, |page| page.store(header::AWAY, 0b100));
    let gift = Gift { patience: SHORT, ..TO_KVB };
    assert_eq!(given(&scene, &gift).1, End::Late);
    let text = told(&gift, "kvB", End::Late).unwrap_err();
    assert!(
        text.contains("after 40ms") && text.contains("takes the core for kvB by force"),
        "{text}"
    );
}

#[test]
fn a_wish_that_is_taken_back_and_a_dataplane_that_begins_again_are_noticed() {
    for (word, value, end) in
        [(header::AWAY, 0, End::Withdrawn), (header::EPOCH, 0xbeef, End::Restarted)]
    {
        let scene = under_a_monitor();
        let _kernel = kernel(&scene, |page| page.store(header::AWAY, 0b100));
        std::thread::scope(|s| {
            s.spawn(|| {
                while scene.page.load_acquire(header::AWAY) == 0 {
                    std::thread::sleep(Duration::from_micros(100));
                }
                // Long enough for a look on any machine.
                std::thread::sleep(200 * LOOK);
                scene.page.store(word, value);
            });
            assert_eq!(given(&scene, &GIFT).1, end);
        });
        assert!(told(&GIFT, "kvB", end).is_err());
    }
}

#[test]
fn each_refusal_says_what_is_wrong_and_what_to_do() {
    for (refusal, words) in [
        (GiveRefusal::NoMonitor, "docs/vtx.md"),
        (GiveRefusal::NoSuchCore, "there is no such core"),
        (GiveRefusal::Core0, "never leaves"),
        (GiveRefusal::SharesQueue, "other cores send through its queue"),
        (GiveRefusal::Reserved, "ixcp cores reserve"),
        (GiveRefusal::NotShared, "no other dataplane lists it"),
        (GiveRefusal::NoSuchDataplane, "no other dataplane named kvB"),
        (GiveRefusal::NotListed, "kvB does not list core 2"),
        (GiveRefusal::Down, "kvB has ended or stays down"),
        (GiveRefusal::Away, "gives it back"),
        (GiveRefusal::UnderWay, "under way"),
    ] {
        let scene = under_a_monitor();
        let answer = (refusal.status(), u64::from(refusal.0));
        let _kernel = Kernel::start(&scene, move |_, _| answer);
        let text = fails(&scene, &TO_KVB);
        assert!(text.contains(words), "{refusal:?}: {text}");
    }
}

#[test]
fn a_kernel_that_is_older_newer_or_talks_nonsense_is_not_misread() {
    for (answer, words) in [
        ((Status::Unsupported, 0), "older than this command"),
        ((Status::Denied, 12), "the kernel refuses: not permitted (12)"),
        ((Status::Invalid, 6), "the kernel refuses: invalid argument (6)"),
        ((Status::Denied, u64::MAX), "the kernel refuses: not permitted"),
        ((Status(77), 1), "the kernel refuses: unknown (1)"),
    ] {
        let scene = under_a_monitor();
        let _kernel = Kernel::start(&scene, move |_, _| answer);
        let text = fails(&scene, &GIFT);
        assert!(text.contains(words), "{answer:?}: {text}");
    }
}

#[test]
fn what_the_page_tells_already_is_not_asked_for() {
    let scene = scene(4);
    let kernel = Kernel::start(&scene, |_, _| (Status::Ok, 0));
    assert!(fails(&scene, &GIFT).contains("no monitor runs below its kernel"));
    scene.page.store(header::EXIT_COUNTERS, 80);
    scene.page.store(header::BACKGROUND, 0b1000);
    for (core, words) in [(0, "never leaves"), (3, "reserved"), (4, "no such core")] {
        assert!(fails(&scene, &Gift { core, ..GIFT }).contains(words), "{core}");
    }
    assert_eq!(kernel.end(), [0; 0]);
}
