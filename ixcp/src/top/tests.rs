//! From instances on disk to frames.
use super::*;
use crate::fake::{add, fill};
use crate::page::Page;
use ix_abi::control::header;
use ix_abi::stats::Counter;

#[test]
fn one_frame_is_of_two_looks_at_every_dataplane() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    let claims = ["a", "kv"].map(|name| base.claim(name).unwrap());
    let pages = claims.each_ref().map(|c| Page::create(&c.instance.control()).unwrap());
    pages.iter().for_each(|page| fill(page, 1));
    let frames = std::thread::scope(|s| {
        let watcher = s.spawn(|| once(&base, None, Duration::from_secs(1)).unwrap());
        while !watcher.is_finished() {
            add(&pages[1], 0, Counter::RxPackets, 10);
            pages[1].store(header::HEARTBEAT, pages[1].load(header::HEARTBEAT) + 1);
            std::thread::sleep(Duration::from_millis(1));
        }
        watcher.join().unwrap()
    });
    let brief = |f: &Frame| (f.name.clone(), f.alive, f.total.rx_pps.unwrap() > 0.0);
    let expected = [("a".to_owned(), Some(false), false), ("kv".to_owned(), Some(true), true)];
    assert_eq!(frames.iter().map(brief).collect::<Vec<_>>(), expected);
    let json = serde_json::to_value(&frames).unwrap();
    assert_eq!(json[1]["cores"][0]["groups"], 128);
    assert_eq!(json[0]["total"]["rx_pps"], 0.0);
}

#[test]
fn a_page_that_cannot_be_read_is_an_error_only_if_there_is_nothing_else() {
    let dir = temp_dir::TempDir::new().unwrap();
    let base = Base::at(dir.path().join("ix")).unwrap();
    let ended = once(&base, Some("kv"), Duration::from_millis(1)).unwrap_err().to_string();
    assert!(ended.contains("has ended within"), "{ended}");
    let kv = base.claim("kv").unwrap();
    Page::create(&kv.instance.control()).unwrap();
    let booting = once(&base, None, Duration::from_millis(1)).unwrap_err().to_string();
    assert!(booting.starts_with("kv: ") && booting.contains("it boots"), "{booting}");
    let good = base.claim("good").unwrap();
    fill(&Page::create(&good.instance.control()).unwrap(), 1);
    assert_eq!(once(&base, None, Duration::from_millis(1)).unwrap().len(), 1);
}
