use super::*;
use std::vec::Vec;

const MS: u64 = 1_000_000;
const WINDOW: u64 = 10 * MS;

/// So many cores, all alike.
fn alike(serving: u16, busy_permille: u64, delay_us: u64) -> Figures {
    let core = Seen { busy_permille, delay_p99_ns: delay_us * 1000, depth_max: 4, frames: 100 };
    Figures::of((0..serving).map(|_| core))
}

/// The wish after each of so many windows.
fn windows(demand: &mut Demand, from: &mut u64, count: u64, seen: &Figures) -> Vec<(u16, Reason)> {
    let window = |_| {
        *from += WINDOW;
        demand.look(*from, seen);
        (demand.want().0.cores, demand.want().0.reason)
    };
    (0..count).map(window).collect()
}

fn wish(demand: &mut Demand, now: &mut u64, count: u64, seen: &Figures) -> (u16, Reason) {
    *windows(demand, now, count, seen).last().unwrap()
}

#[test]
fn figures_are_of_all_cores_together() {
    let a = Seen { busy_permille: 300, delay_p99_ns: 5, depth_max: 9, frames: 10 };
    let b = Seen { busy_permille: 2000, delay_p99_ns: 7, depth_max: 2, frames: 20 };
    let all = Figures::of([a, b].into_iter());
    assert_eq!((all.serving, all.busy_sum, all.busy_max, all.busy_mean()), (2, 1300, 1000, 650));
    assert_eq!((all.delay_p99_ns, all.depth_max, all.frames), (7, 9, 30));
    assert_eq!(Figures::of([].into_iter()).busy_mean(), 0);
}

#[test]
fn cores_that_are_neither_late_nor_idle_are_enough() {
    let (mut demand, mut now) = (Demand::new(4), 0);
    assert_eq!(wish(&mut demand, &mut now, 200, &alike(2, 700, 40)), (2, Reason::Enough));
    assert_eq!(demand.want().0.number, 1, "one wish");
}

#[test]
fn delay_depth_and_busy_cores_ask_for_more() {
    for (seen, wanted) in [
        (alike(2, 500, 101), (3, Reason::Delay)),
        (Figures { depth_max: 33, ..alike(2, 500, 10) }, (3, Reason::Depth)),
        (alike(2, 900, 10), (3, Reason::Busy)),
        // A core too many is not enough: all four are as busy as they can be.
        (alike(4, 1000, 500), (5, Reason::Delay)),
        (alike(8, 1000, 50), (10, Reason::Busy)),
    ] {
        let (mut demand, mut now) = (Demand::new(16), 0);
        assert_eq!(wish(&mut demand, &mut now, 4, &seen), wanted);
    }
    let (mut demand, mut now) = (Demand::new(2), 0);
    let wanted = wish(&mut demand, &mut now, 10, &alike(2, 1000, 5000));
    assert_eq!(wanted, (2, Reason::Enough), "there are no more");
}

#[test]
fn more_is_wanted_only_when_what_came_last_was_tried() {
    let (mut demand, mut now) = (Demand::new(8), 0);
    let got = windows(&mut demand, &mut now, 4, &alike(1, 990, 300));
    let more = (2, Reason::Delay);
    assert_eq!(got, [(1, Reason::Enough), (1, Reason::Enough), more, more]);
    // The second core is there, and is not enough.
    let got = windows(&mut demand, &mut now, 3, &alike(2, 990, 300));
    let more = (3, Reason::Delay);
    assert_eq!(got, [(2, Reason::Enough), (2, Reason::Enough), more]);
}

#[test]
fn a_wish_for_more_outlives_its_moment_and_is_withdrawn_in_the_end() {
    let (mut demand, mut now) = (Demand::new(8), 0);
    windows(&mut demand, &mut now, 10, &alike(2, 400, 10));
    assert_eq!(wish(&mut demand, &mut now, 1, &alike(2, 800, 300)), (3, Reason::Delay));
    assert_eq!(wish(&mut demand, &mut now, 49, &alike(2, 800, 10)), (3, Reason::Delay));
    assert_eq!(wish(&mut demand, &mut now, 3, &alike(2, 800, 10)), (2, Reason::Enough));
    assert_eq!(demand.want().0.number, 3);
}

#[test]
fn cores_are_offered_back_when_fewer_have_done_for_long() {
    let (mut demand, mut now) = (Demand::new(8), 0);
    let idle = alike(4, 200, 10);
    assert_eq!(wish(&mut demand, &mut now, 50, &idle), (4, Reason::Enough));
    assert_eq!(wish(&mut demand, &mut now, 2, &idle), (2, Reason::Idle));
    // It stands until they are taken, and then only for what is still too much.
    assert_eq!(wish(&mut demand, &mut now, 100, &idle), (2, Reason::Idle));
    assert_eq!(wish(&mut demand, &mut now, 100, &alike(2, 400, 10)), (2, Reason::Enough));
    // A single window of work begins it anew.
    windows(&mut demand, &mut now, 45, &alike(2, 100, 10));
    windows(&mut demand, &mut now, 1, &alike(2, 700, 10));
    assert_eq!(wish(&mut demand, &mut now, 45, &alike(2, 100, 10)), (2, Reason::Enough));
    assert_eq!(wish(&mut demand, &mut now, 10, &alike(2, 100, 10)), (1, Reason::Idle));
    // So does a delay that is near the target.
    let (mut demand, mut now) = (Demand::new(8), 0);
    assert_eq!(wish(&mut demand, &mut now, 200, &alike(2, 100, 51)), (2, Reason::Enough));
}

#[test]
fn a_load_between_both_thresholds_changes_nothing() {
    for busy in 0..=1000 {
        let (mut demand, mut now) = (Demand::new(16), 0);
        // Of what the wish would make of it, the next wish makes no more and no less.
        let (first, _) = wish(&mut demand, &mut now, 60, &alike(4, busy, 10));
        let then = alike(first, busy * 4 / u64::from(first), 10);
        let (second, why) = wish(&mut demand, &mut now, 60, &then);
        assert_eq!(second, first, "{busy}‰: {why:?}");
    }
}

#[test]
fn limits_bind_the_wish() {
    let (mut demand, mut now) = (Demand::new(4), 0);
    demand.set_limits(Limits { cores_min: 2, cores_max: 3, ..Limits::DEFAULT });
    assert_eq!(wish(&mut demand, &mut now, 1, &alike(1, 0, 0)), (2, Reason::Limits));
    assert_eq!(wish(&mut demand, &mut now, 1, &alike(4, 1000, 900)), (3, Reason::Limits));
    assert_eq!(wish(&mut demand, &mut now, 99, &alike(3, 1000, 900)), (3, Reason::Enough));
    assert_eq!(wish(&mut demand, &mut now, 99, &alike(3, 0, 0)), (2, Reason::Idle));
    demand.set_cores(3);
    assert_eq!(wish(&mut demand, &mut now, 99, &alike(3, 1000, 900)), (3, Reason::Enough));
    demand.set_cores(4);
    // More than there are is what there are.
    demand.set_limits(Limits { cores_min: 9, cores_max: 64, ..Limits::DEFAULT });
    assert_eq!(wish(&mut demand, &mut now, 1, &alike(3, 0, 0)), (4, Reason::Limits));
}

#[test]
fn parked_cores_are_shared_out_by_load() {
    let out = |serving, parked, busy: &[u64]| {
        let mut out = Vec::new();
        share_out(serving, parked, busy, |core, to| out.push((core, to)));
        out
    };
    assert_eq!(out(0b0011, 0b1100, &[300, 900]), [(1, 2), (0, 3)]);
    assert_eq!(out(0b0011, 0b0100, &[300, 300]), [(0, 2)], "of equals the first");
    assert_eq!(out(0b0001, 0b1110, &[]), [(0, 1)]);
    assert_eq!(out(0b1111, 0, &[1, 2, 3, 4]), []);
    assert_eq!(out(0b0011, 0b0011, &[]), [], "nobody wakes itself");
    assert_eq!(out(u64::MAX >> 1, 1 << 63, &[0; 64]), [(0, 63)]);
}

#[test]
fn a_grant_that_is_renewed_does_not_put_off_what_is_offered() {
    let offers = |change: fn(&mut Limits)| {
        let (mut demand, mut now) = (Demand::new(4), 0);
        // Renewed more often than what fewer cores have to have done for.
        (0..10).any(|_| {
            let mut limits = *demand.limits();
            change(&mut limits);
            demand.set_limits(limits);
            wish(&mut demand, &mut now, 20, &alike(4, 100, 1)).1 == Reason::Idle
        })
    };
    assert!(offers(|limits| (limits.grant, limits.lease_ns) = (limits.grant ^ 0b1000, 3_000 * MS)));
    assert!(!offers(|limits| limits.delay_target_ns += 1), "another target is another question");
}
