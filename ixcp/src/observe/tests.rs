//! Instances on disk, with and without a page that can be read.
use super::*;
use crate::fake::fill;

fn base() -> (temp_dir::TempDir, Base) {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    (dir, base)
}

#[test]
fn every_dataplane_is_looked_at_and_one_without_a_readable_page_says_why() {
    let (_dir, base) = base();
    let good = base.claim("good").unwrap();
    let _none = base.claim("none").unwrap();
    let booting = base.claim("booting").unwrap();
    fill(&Page::create(&good.instance.control()).unwrap(), 2);
    Page::create(&booting.instance.control()).unwrap();
    let all = look(&base, None).unwrap();
    let names: Vec<&str> = all.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["booting", "good", "none"]);
    assert!(all[0].snapshot.as_ref().unwrap_err().contains("it boots"));
    assert_eq!(all[1].snapshot.as_ref().unwrap().cores.len(), 2);
    assert!(all[2].snapshot.as_ref().unwrap_err().contains("cannot open the control page"));
    assert_eq!(look(&base, Some("good")).unwrap().len(), 1);
    assert!(look(&base, Some("bad")).unwrap().is_empty());
}

#[test]
fn hearts_are_watched_together_for_a_bounded_time() {
    let (_dir, base) = base();
    let claims = ["a", "b", "c"].map(|name| base.claim(name).unwrap());
    let pages = claims.each_ref().map(|c| Page::create(&c.instance.control()).unwrap());
    pages.iter().for_each(|page| fill(page, 1));
    let start = Instant::now();
    let all = std::thread::scope(|s| {
        let watcher = s.spawn(|| alive(&base, None, Duration::from_secs(1)).unwrap());
        while !watcher.is_finished() {
            let beats = pages[1].load(header::HEARTBEAT);
            pages[1].store(header::HEARTBEAT, beats + 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        watcher.join().unwrap()
    });
    let lives: Vec<bool> = all.iter().map(|o| o.snapshot.as_ref().unwrap().alive).collect();
    assert_eq!(lives, [false, true, false]);
    assert!(start.elapsed() >= Duration::from_secs(1));
}
