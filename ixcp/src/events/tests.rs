//! Logs as a kernel writes them, and as it never would.
use super::*;
use crate::fake::scene;
use ix_abi::event_log::text_words;

fn write(page: &Page, core: usize, number: u64, kind: EventKind, time_ns: u64, words: [u64; 2]) {
    let [a, b] = words;
    let record = Record { number, kind, small: 0, time_ns, a, b };
    for (i, word) in record.encode().into_iter().enumerate() {
        page.store(log_offset(core) + record_offset(number) + i * 8, word);
    }
    page.store(log_offset(core) + NEWEST, number);
}

#[test]
fn events_of_all_cores_come_in_the_order_of_time_and_each_once() {
    let scene = scene(2);
    let page = &scene.page;
    write(page, 0, 1, EventKind::CoreStarts, 10, [0, 0]);
    write(page, 1, 1, EventKind::CoreStarts, 5, [0, 0]);
    write(page, 0, 2, EventKind::AppStarts, 20, [1, 0]);
    let mut log = Log::open(page).unwrap();
    let cores: Vec<usize> = log.read(page).iter().map(|e| e.core).collect();
    assert_eq!(cores, [1, 0, 0]);
    assert!(log.read(page).is_empty());
    write(page, 1, 2, EventKind::Trace, 30, [1, 0]);
    let news = log.read(page);
    assert_eq!(news.len(), 1);
    assert_eq!(news[0].line(), "     0.000000  c1   trace: on");
}

#[test]
fn the_oldest_are_overwritten_and_text_belongs_to_what_it_follows() {
    let scene = scene(1);
    let page = &scene.page;
    for number in 1..=1000 {
        write(page, 0, number, EventKind::Command, number, [0, 0]);
    }
    write(page, 0, 1001, EventKind::Panic, 2000, [0, u64::from_le_bytes(*b"a/faults")]);
    write(page, 0, 1002, EventKind::Text, 2001, text_words(b"sixteen letters "));
    write(page, 0, 1003, EventKind::Text, 2002, text_words(b"and \x1b[2Jmore"));
    let all = Log::open(page).unwrap().read(page);
    assert_eq!(all.len(), CAPACITY - 2);
    assert_eq!(all[0].record.number, 1003 - CAPACITY as u64 + 1);
    let last = all.last().unwrap();
    assert_eq!(last.text, "sixteen letters and \\u{1b}[2Jmore");
    assert!(last.line().contains("panic at …a/faults:0"), "{}", last.line());
    assert!(last.json().unwrap().contains("\"kind\":\"panic\""));
}

#[test]
fn a_record_that_is_being_written_is_left_out_and_nonsense_is_no_record() {
    let scene = scene(2);
    let page = &scene.page;
    for number in 1..=3 {
        write(page, 0, number, EventKind::Command, number, [0, 0]);
    }
    page.store(log_offset(0) + record_offset(2), 0);
    assert_eq!(Log::open(page).unwrap().read(page).len(), 2);
    for newest in [u64::MAX, 1 << 63, 254, 255] {
        page.store(log_offset(0) + NEWEST, newest);
        let mut log = Log::open(page).unwrap();
        assert!(log.read(page).len() <= 3);
        assert!(log.read(page).is_empty());
    }
    page.store(header::CORES, 65);
    assert!(Log::open(page).unwrap_err().to_string().contains("corrupted"));
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let scene = scene(2);
    let log = Log::open(&scene.page).unwrap();
    log.ensure_core(1).unwrap();
    let said = log.ensure_core(9).unwrap_err().to_string();
    assert!(said.contains("there is no core 9: it has 2 cores"), "{said}");
}
