//! Known differences, wrap-around, another boot.
use super::*;
use crate::fake::{Scene, add, scene};
use crate::snapshot::read;
use ix_abi::control::{core_block, core_offset, header};
use ix_abi::stats::Drop;

const SECOND: Duration = Duration::from_secs(1);

fn set(scene: &Scene, core: usize, counter: Counter, value: u64) {
    scene.page.store(core_offset(core) + core_block::COUNTERS + counter as usize * 8, value);
}

#[test]
fn known_differences_become_known_rates() {
    let scene = scene(2);
    let before = read(&scene.page).unwrap();
    for (counter, n) in [
        (Counter::RxPackets, 1000),
        (Counter::TxPackets, 600),
        (Counter::Events, 500),
        (Counter::BusyTsc, 3_000_000),
        (Counter::IdleTsc, 1_000_000),
        (Counter::UserTsc, 2_000_000),
    ] {
        add(&scene.page, 1, counter, n);
    }
    set(&scene, 0, Counter::TcpConnections, 7);
    set(&scene, 1, Counter::TcpConnections, 8);
    let drops = core_offset(1) + core_block::DROPS;
    scene.page.store(drops + Drop::TcpNoPort as usize * 8, 4 + 6);
    scene.page.store(drops + Drop::NoBuffer as usize * 8, 4);
    scene.page.store(header::HEARTBEAT, 1);
    let now = read(&scene.page).unwrap();
    let frame = frame("kv", Some((&before, 2 * SECOND)), &now);
    let expected = Rates {
        groups: 64,
        connections: 8,
        rx_pps: Some(500.0),
        tx_pps: Some(300.0),
        events_ps: Some(250.0),
        busy: Some(0.75),
        user: Some(0.5),
        drops_ps: Some(5.0),
        delay_p99_ns: None,
    };
    assert_eq!(frame.cores[1].rates, expected);
    assert_eq!(frame.total, Rates { groups: 128, connections: 15, ..expected });
    let idle = &frame.cores[0].rates;
    assert_eq!((idle.rx_pps, idle.drops_ps, idle.busy), (Some(0.0), Some(0.0), None));
    assert_eq!((frame.alive, frame.serving, frame.moves), (Some(true), 2, 5));
    assert_eq!((frame.uptime_s, frame.batch, frame.state), (2.5, 64, "ready"));
}

#[test]
fn counters_that_wrap_around_go_on() {
    let scene = scene(2);
    set(&scene, 0, Counter::RxPackets, u64::MAX - 9);
    set(&scene, 1, Counter::BusyTsc, u64::MAX);
    set(&scene, 1, Counter::IdleTsc, u64::MAX - 2);
    let before = read(&scene.page).unwrap();
    add(&scene.page, 0, Counter::RxPackets, 40);
    add(&scene.page, 1, Counter::BusyTsc, 1);
    add(&scene.page, 1, Counter::IdleTsc, 3);
    let now = read(&scene.page).unwrap();
    assert_eq!(now.cores[0].counter(Counter::RxPackets), 30);
    let frame = frame("kv", Some((&before, SECOND)), &now);
    assert_eq!(frame.cores[0].rates.rx_pps, Some(40.0));
    assert_eq!(frame.total.rx_pps, Some(40.0));
    assert_eq!(frame.cores[1].rates.busy, Some(0.25));
}

#[test]
fn a_dataplane_that_was_started_anew_has_no_rates_at_first() {
    let scene = scene(1);
    add(&scene.page, 0, Counter::RxPackets, 1_000_000);
    let before = read(&scene.page).unwrap();
    scene.page.store(header::EPOCH, 0xbeef);
    set(&scene, 0, Counter::RxPackets, 3);
    let booted = read(&scene.page).unwrap();
    let first = frame("kv", Some((&before, SECOND)), &booted);
    assert_eq!((first.total.rx_pps, first.total.drops_ps, first.alive), (None, None, None));
    assert_eq!(first.cores[0].rates, Rates { groups: 128, connections: 20, ..Rates::default() });
    add(&scene.page, 0, Counter::RxPackets, 5);
    let second = frame("kv", Some((&booted, SECOND)), &read(&scene.page).unwrap());
    assert_eq!((second.total.rx_pps, second.alive), (Some(5.0), Some(false)));
}

#[test]
fn no_time_between_two_looks_divides_nothing() {
    let snapshot = read(&scene(1).page).unwrap();
    let frame = frame("kv", Some((&snapshot, Duration::ZERO)), &snapshot);
    assert_eq!(frame.total.rx_pps, None);
}

#[test]
fn a_core_that_does_not_serve_is_parked() {
    let scene = scene(3);
    scene.page.store(header::ACTIVE, 0b001);
    scene.page.store(core_offset(2) + core_block::STATE, 0);
    let frame = frame("kv", None, &read(&scene.page).unwrap());
    let states: Vec<&str> = frame.cores.iter().map(|r| r.state).collect();
    assert_eq!((states, frame.serving), (vec!["running", "parked", "off"], 1));
}

#[test]
fn any_counters_at_all_make_a_frame_that_can_be_shown() {
    let scene = scene(1);
    let before = read(&scene.page).unwrap();
    for value in [u64::MAX, 1 << 63, 0] {
        for counter in Counter::ALL {
            set(&scene, 0, *counter, value);
        }
        let frame =
            frame("kv", Some((&before, Duration::from_nanos(1))), &read(&scene.page).unwrap());
        let text = crate::top::text::frame(&frame);
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        serde_json::to_string(&frame).unwrap();
    }
}
