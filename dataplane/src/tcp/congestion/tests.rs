use super::*;

const MSS: u32 = 1460;
const NOW: Instant = Instant(0);

#[test]
fn the_window_doubles_per_round_trip_in_slow_start_and_adds_a_segment_after_loss() {
    let mut cc = NewReno::default();
    cc.start(MSS, NOW);
    assert_eq!(cc.window(), 14_600);
    for _ in 0..10 {
        cc.acked(MSS, MSS, NOW);
    }
    assert_eq!(cc.window(), 29_200);
    cc.lost(29_200, MSS, NOW);
    assert_eq!(cc.window(), 14_600);
    for _ in 0..10 {
        cc.acked(MSS, MSS, NOW);
    }
    assert_eq!(cc.window(), 16_060, "one segment for a window's worth of acknowledgements");
}

#[test]
fn a_timeout_leaves_one_segment_and_half_the_flight_as_threshold() {
    let mut cc = NewReno::default();
    cc.start(MSS, NOW);
    cc.timed_out(14_600, MSS, NOW);
    assert_eq!(cc.window(), MSS);
    for _ in 0..4 {
        cc.acked(MSS, MSS, NOW);
    }
    assert_eq!(cc.window(), 5 * MSS, "slow start up to half the flight");
    cc.acked(MSS, MSS, NOW);
    assert_eq!(cc.window(), 5 * MSS);
}
