//! Cores that live, idle, boot and hang.

use super::*;

fn beat(n: u64) -> Look {
    Look { beat: Some(n), is_idle: false }
}

const NONE: Look = Look { beat: None, is_idle: false };

#[test]
fn a_core_whose_counter_moves_lives() {
    let mut w = Watchdog::new(3);
    assert!((0..1000).all(|n| w.look(beat(n)) == Verdict::Alive));
    // Even if it moves only just in time, or backwards, or wraps.
    for n in [u64::MAX, 0, 5, 4] {
        assert_eq!(w.look(beat(n)), Verdict::Alive);
        assert_eq!(w.look(beat(n)), Verdict::Alive);
        assert_eq!(w.look(beat(n)), Verdict::Alive);
    }
    assert_eq!(w.look(beat(4)), Verdict::Hung { looks: 3 });
}

#[test]
fn a_core_that_stands_still_hangs_after_exactly_the_limit() {
    for limit in 1..20 {
        let mut w = Watchdog::new(limit);
        w.look(beat(7));
        let until = (1..100).find(|_| w.look(beat(7)) != Verdict::Alive);
        assert_eq!(until, Some(limit));
    }
    let mut w = Watchdog::new(0);
    w.look(beat(1));
    assert_eq!(w.look(beat(1)), Verdict::Hung { looks: 1 });
}

#[test]
fn idle_is_alive_for_ever_and_no_longer() {
    let mut w = Watchdog::new(2);
    let idle = Look { beat: Some(1), is_idle: true };
    assert!((0..10_000).all(|_| w.look(idle) == Verdict::Alive));
    assert_eq!(w.look(beat(1)), Verdict::Alive);
    assert_eq!(w.look(beat(1)), Verdict::Hung { looks: 2 });
}

#[test]
fn booting_has_time_but_not_for_ever() {
    let mut w = Watchdog::new(10);
    assert!((1..LOOKS_BOOT).all(|_| w.look(NONE) == Verdict::Alive));
    assert_eq!(w.look(NONE), Verdict::Hung { looks: LOOKS_BOOT });
}

#[test]
fn a_counter_that_is_taken_back_buys_nothing() {
    let mut w = Watchdog::new(3);
    w.look(beat(1));
    assert_eq!((0..3).map(|_| w.look(NONE)).last(), Some(Verdict::Hung { looks: 3 }));
    w.restart();
    assert_eq!(w.look(NONE), Verdict::Alive, "a new life");
}
