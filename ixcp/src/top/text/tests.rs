//! The plain frame, letter by letter, and numbers of any size.
use super::*;
use crate::fake::{add, scene};
use crate::{snapshot::read, top::rates};
use ix_abi::control::header;
use ix_abi::stats::Counter;
use std::time::Duration;

#[test]
fn a_frame_is_readable_without_a_terminal() {
    let scene = scene(2);
    scene.page.store(header::ACTIVE, 1);
    let before = read(&scene.page).unwrap();
    for (counter, n) in [
        (Counter::RxPackets, 123_456),
        (Counter::TxPackets, 1_234_567),
        (Counter::Events, 999),
        (Counter::BusyTsc, 900),
        (Counter::IdleTsc, 100),
        (Counter::UserTsc, 250),
    ] {
        add(&scene.page, 0, counter, n);
    }
    scene.page.store(header::HEARTBEAT, 9);
    let now = read(&scene.page).unwrap();
    let text = frame(&rates::frame("kv", Some((&before, Duration::from_secs(1))), &now));
    let expected = "\
kv: ready, heart beats, up 2.5 s, 10.0.2.15/24
fe80::2/64, 2001:db8::5/64
application \"kv\", batch bound 64, 1 of 2 cores serve, 5 moves of flow groups

CORE STATE    GROUPS  CONNS   RX/s   TX/s EVENTS/s   BUSY   USER DELAY99 DROPS/s
0    running      64     20   123k  1.23M      999  90.0%  25.0%       -       0
1    parked       64   1020      0      0        0      -      -       -       0
all              128   1040   123k  1.23M      999  90.0%  25.0%       -       0
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn rates_of_any_size_fit_their_column() {
    for (value, text) in [
        (0.0, "0"),
        (0.5, "0.5"),
        (0.01, "0"),
        (999.4, "999"),
        (999.6, "1.00k"),
        (12_345.0, "12.3k"),
        (999_600.0, "1.00M"),
        (1e9, "1.00G"),
        (1.8e19, "18.0E"),
        (1.8e28, "18000Y"),
    ] {
        assert_eq!(rate(Some(value)), text);
        assert!(text.len() <= 6);
    }
    assert_eq!(
        (rate(None), percent(None), percent(Some(1.2))),
        ("-".into(), "-".into(), "100.0%".into())
    );
}

#[test]
fn uptimes_grow_into_larger_units() {
    let all = [0.0, 59.9, 60.0, 3599.0, 3661.0, 90_000.0].map(uptime);
    assert_eq!(all, ["0.0 s", "59.9 s", "1:00", "59:59", "1:01:01", "1 d 01:00"]);
}
