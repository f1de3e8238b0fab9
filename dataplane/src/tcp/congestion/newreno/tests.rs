use super::*;

const MSS: u32 = 1460;
const NOW: Instant = Instant(0);

#[test]
fn loss_halves_the_window_and_a_segment_is_added_per_round_trip() {
    let mut cc = NewReno::default();
    cc.start(MSS, NOW);
    cc.lost(29_200, MSS, NOW);
    assert_eq!(cc.window(), 14_600);
    for _ in 0..10 {
        cc.acked(MSS, MSS, 0, NOW);
    }
    assert_eq!(cc.window(), 16_060, "one segment for a window's worth of acknowledgements");
}

#[test]
fn half_of_little_is_still_two_segments() {
    let mut cc = NewReno::default();
    cc.start(MSS, NOW);
    cc.lost(MSS, MSS, NOW);
    assert_eq!(cc.window(), 2 * MSS, "RFC 5681 §3.1, equation 4");
}

#[test]
fn recovery_does_not_end_in_a_burst() {
    let mut cc = NewReno::default();
    cc.start(MSS, NOW);
    cc.lost(29_200, MSS, NOW);
    cc.recovered(2 * MSS, MSS, NOW);
    assert_eq!(cc.window(), 3 * MSS, "RFC 6582 §3.2");
}
