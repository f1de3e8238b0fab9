//! Logs with ports that were opened and closed.
use super::*;
use crate::fake::scene;
use ix_abi::control::log_offset;
use ix_abi::event_log::{CAPACITY, NEWEST, Record, record_offset};

fn write(page: &Page, kind: EventKind, small: u16, a: u64) {
    let number = page.load(log_offset(0) + NEWEST) + 1;
    let record = Record { number, kind, small, time_ns: number, a, b: 0 };
    for (i, word) in record.encode().into_iter().enumerate() {
        page.store(log_offset(0) + record_offset(number) + i * 8, word);
    }
    page.store(log_offset(0) + NEWEST, number);
}

fn forward(text: &str) -> Forward {
    text.parse().unwrap()
}

#[test]
fn a_port_that_leads_to_nobody_is_told_with_those_that_are_open() {
    let scene = scene(1);
    let page = &scene.page;
    let forwards = [forward("7007:7"), forward("7007:7/udp")];
    write(page, EventKind::CoreStarts, 0, 0);
    let none = warnings(page, &forwards);
    assert_eq!(none.len(), 2);
    assert_eq!(
        none[1],
        "warning: nothing listens on the application's port 7/udp, where 127.0.0.1:7007 leads: the application listens on no port"
    );
    write(page, EventKind::Listen, 12345, 6);
    write(page, EventKind::Listen, 7, 17);
    write(page, EventKind::Listen, 9, 6);
    write(page, EventKind::Unlisten, 9, 6);
    let one = warnings(page, &forwards);
    assert_eq!(one.len(), 1);
    assert!(one[0].contains("port 7/tcp, where"), "{one:?}");
    assert!(one[0].contains("it listens on 7/udp, 12345/tcp (another"), "{one:?}");
    assert!(one[0].ends_with("--forward HOST:GUEST, like 7:7/udp)"), "{one:?}");
    write(page, EventKind::Listen, 7, 6);
    assert!(warnings(page, &forwards).is_empty());
}

#[test]
fn nothing_is_said_of_a_log_that_has_forgotten_its_beginning_or_makes_no_sense() {
    let scene = scene(1);
    for _ in 0..=CAPACITY {
        write(&scene.page, EventKind::Trace, 0, 0);
    }
    assert!(warnings(&scene.page, &[forward("7007:7")]).is_empty());
    scene.page.store(header::VERSION, 9);
    assert!(warnings(&scene.page, &[forward("7007:7")]).is_empty());
}

#[test]
fn the_ports_are_looked_at_a_while_after_the_application_was_ready() {
    let scene = scene(1);
    for (ready, now, settled) in [(0, u64::MAX, false), (5, 5, false), (9, 5, false)] {
        scene.page.store(header::READY_NS, ready);
        scene.page.store(header::NOW_NS, now);
        assert_eq!(are_settled(&scene.page), settled);
    }
    scene.page.store(header::NOW_NS, 9 + SETTLED_NS);
    assert!(are_settled(&scene.page));
}
