use super::*;
use alloc::format;
use proptest::prelude::*;

const MSS: u32 = 1460;
const NOW: Instant = Instant(0);
const ALL: [Algorithm; 3] = [Algorithm::Cubic, Algorithm::NewReno, Algorithm::Dctcp];

fn started(algorithm: Algorithm) -> Congestion {
    let mut cc = Congestion::new(algorithm);
    cc.start(MSS, NOW);
    cc
}

#[test]
fn slow_start_doubles_the_window_per_round_trip_whatever_the_algorithm() {
    for algorithm in ALL {
        let mut cc = started(algorithm);
        assert_eq!(cc.window(), 14_600, "RFC 6928");
        for _ in 0..10 {
            cc.acked(MSS, MSS, 100, NOW);
        }
        assert_eq!(cc.window(), 29_200, "{algorithm:?}");
        cc.acked(100 * MSS, MSS, 100, NOW);
        assert_eq!(cc.window(), 29_200 + 8 * MSS, "RFC 3465: no burst for one acknowledgement");
    }
}

#[test]
fn a_timeout_leaves_one_segment_and_slow_start_up_to_the_threshold() {
    for (algorithm, threshold) in ALL.into_iter().zip([7, 5, 5]) {
        let mut cc = started(algorithm);
        cc.timed_out(14_600, MSS, NOW);
        assert_eq!(cc.window(), MSS);
        cc.acked(100 * MSS, MSS, 100, NOW);
        assert_eq!(cc.window(), 2 * MSS, "RFC 3465 §2.3: one segment for each acknowledgement");
        for _ in 2..threshold {
            cc.acked(MSS, MSS, 100, NOW);
        }
        assert_eq!(cc.window(), threshold * MSS, "{algorithm:?}");
        cc.acked(MSS, MSS, 100, NOW);
        assert_eq!(cc.window() / MSS, threshold, "{algorithm:?}: congestion avoidance");
    }
}

#[test]
fn a_reduction_that_was_for_nothing_is_taken_back_once() {
    for algorithm in ALL {
        let mut cc = started(algorithm);
        cc.undo();
        assert_eq!(cc.window(), 14_600);
        cc.timed_out(14_600, MSS, NOW);
        cc.undo();
        assert_eq!(cc.window(), 14_600, "{algorithm:?}");
        cc.acked(MSS, MSS, 100, NOW);
        assert_eq!(cc.window(), 16_060, "{algorithm:?}: slow start goes on");
        cc.lost(16_060, MSS, NOW);
        let reduced = cc.window();
        cc.recovered(16_060, MSS, NOW);
        cc.undo();
        assert_eq!(cc.window(), 16_060, "{algorithm:?}");
        assert!(reduced < 16_060);
        cc.undo();
        assert_eq!(cc.window(), 16_060);
    }
}

#[test]
fn after_a_rest_it_is_slow_start_from_the_initial_window_up_to_the_threshold() {
    for algorithm in ALL {
        let mut cc = started(algorithm);
        cc.acked(2 * MSS, MSS, 100, NOW);
        cc.rested(MSS);
        cc.rested(MSS);
        assert_eq!(cc.window(), 14_600, "{algorithm:?}");
        cc.acked(MSS, MSS, 100, NOW);
        assert_eq!(cc.window(), 16_060, "{algorithm:?}: no threshold was there, and none is now");
        (0..40).for_each(|_| cc.acked(2 * MSS, MSS, 100, NOW));
        cc.lost(60 * MSS, MSS, NOW);
        let threshold = cc.window();
        cc.acked(threshold, MSS, 100, NOW);
        cc.rested(MSS);
        assert_eq!(cc.window(), 14_600, "{algorithm:?}");
        for _ in 0..10 {
            cc.acked(MSS, MSS, 100, NOW);
        }
        assert_eq!(cc.window(), 29_200, "{algorithm:?}: below the threshold, {threshold}");
        cc.timed_out(14_600, MSS, NOW);
        cc.rested(MSS);
        assert_eq!(cc.window(), MSS, "{algorithm:?}: less is left as it is");
    }
}

#[test]
fn what_is_out_beyond_the_window_counts_for_no_reduction() {
    for algorithm in ALL {
        let reductions = [Congestion::lost, Congestion::timed_out];
        for reduce in reductions {
            let [mut far, mut just] = [started(algorithm), started(algorithm)];
            reduce(&mut far, 20 * 14_600, MSS, NOW);
            reduce(&mut just, 14_600, MSS, NOW);
            assert!(far.window() < 14_600, "{algorithm:?}");
            assert_eq!(format!("{far:?}"), format!("{just:?}"));
        }
    }
}

#[test]
fn another_algorithm_goes_on_from_the_same_window() {
    let mut cc = started(Algorithm::Cubic);
    cc.lost(14_600, MSS, NOW);
    let window = cc.window();
    cc.change(Algorithm::Dctcp);
    assert_eq!((cc.algorithm(), cc.window()), (Algorithm::Dctcp, window));
    cc.acked(MSS, MSS, 100, NOW);
    assert!(cc.window() - window < MSS, "not slow start again");
    cc.change(Algorithm::NewReno);
    assert_eq!(cc.algorithm() as u64, 1);
    for number in 0..3 {
        assert_eq!(Algorithm::from_number(number).unwrap() as u64, number);
    }
    assert_eq!(Algorithm::from_number(3), None);
}

#[derive(Clone, Debug)]
enum Step {
    Acked(u32),
    Lost(u32),
    Marked(u32),
    Recovered(u32),
    TimedOut(u32),
    Undo,
    Echoed(u32, bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<u32>().prop_map(Step::Acked),
        8 => (0..3 * MSS).prop_map(Step::Acked),
        1 => any::<u32>().prop_map(Step::Lost),
        1 => any::<u32>().prop_map(Step::Marked),
        1 => any::<u32>().prop_map(Step::Recovered),
        1 => any::<u32>().prop_map(Step::TimedOut),
        1 => Just(Step::Undo),
        2 => (any::<u32>(), any::<bool>()).prop_map(|(acked, marked)| Step::Echoed(acked, marked)),
    ]
}

proptest! {
    /// Whatever happens and however much time passes: no overflow (they are checked in tests), never
    /// below two segments but after a timeout, and then never below one.
    #[test]
    fn no_window_overflows_or_vanishes(
        number in 0_u64..3,
        mss in 64_u32..=9000,
        rtt_us in any::<u32>(),
        steps in prop::collection::vec((step(), 0_u64..1 << 50), 1..200),
    ) {
        let algorithm = Algorithm::from_number(number).unwrap();
        let mut cc = Congestion::new(algorithm);
        cc.start(mss, NOW);
        let mut now = NOW;
        let mut timed_out = false;
        for (step, pause) in steps {
            now.0 += pause;
            let before = cc.window();
            match step {
                Step::Acked(acked) => cc.acked(acked, mss, rtt_us, now),
                Step::Lost(flight) => cc.lost(flight, mss, now),
                Step::Marked(flight) => cc.marked(flight, mss, now),
                Step::Recovered(flight) => cc.recovered(flight, mss, now),
                Step::TimedOut(flight) => cc.timed_out(flight, mss, now),
                Step::Undo => cc.undo(),
                Step::Echoed(acked, marked) => {
                    cc.echoed(acked, marked, WrappingSeq(before), WrappingSeq(acked));
                }
            }
            match step {
                Step::TimedOut(_) => timed_out = true,
                Step::Lost(_) | Step::Marked(_) => timed_out = false,
                Step::Acked(_) | Step::Undo => prop_assert!(cc.window() >= before),
                _ => {}
            }
            let least = if timed_out { mss } else { 2 * mss };
            prop_assert!(cc.window() >= least, "{} after {step:?} of {cc:?}", cc.window());
        }
    }
}
