use super::*;
use proptest::prelude::*;

const MSS: u32 = 1460;
const NOW: Instant = Instant(0);

fn ms(ms: u64) -> Instant {
    Instant(1_000_000_000 + ms * 1_000_000)
}

/// `W_cubic(t)` of RFC 9438 §4.2 in segments, after a reduction from `w_max` to `from`.
fn closed_form(w_max: f64, from: f64, t: f64) -> f64 {
    let k = ((w_max - from) / 0.4).cbrt();
    0.4 * (t - k).powi(3) + w_max
}

/// A connection in congestion avoidance after a loss at `segments`.
fn after_loss(segments: u32) -> Cubic {
    let mut cc = Cubic::default();
    cc.start(MSS, NOW);
    while cc.window() < segments * MSS {
        cc.acked(MSS, MSS, 0, NOW);
    }
    cc.basis.window = segments * MSS;
    cc.lost(segments * MSS, MSS, ms(0));
    cc
}

/// Acknowledges window after window with this round-trip time, each in four pieces, until `until`.
fn talk(cc: &mut Cubic, rtt_ms: u64, from_ms: &mut u64, until_ms: u64) {
    while *from_ms < until_ms {
        let piece = cc.window() / 4;
        for quarter in 0..4 {
            let at = ms(*from_ms + rtt_ms * quarter / 4);
            cc.acked(piece, MSS, rtt_ms as u32 * 1000, at);
        }
        *from_ms += rtt_ms;
    }
}

#[test]
fn the_window_follows_the_rfc_s_curve_within_a_segment() {
    // §4.2, §4.4, §4.5: concave below W_max, convex above. Round trips long enough for the curve, not
    // Reno, to be ahead.
    for (segments, rtt) in [(1000, 100), (300, 80), (5000, 40)] {
        let mut cc = after_loss(segments);
        let from = f64::from(cc.window()) / f64::from(MSS);
        assert!((from - f64::from(segments) * 0.7).abs() < 1.0, "§4.6: beta is 0.7");
        let (w_max, mut now) = (f64::from(segments), 0);
        let k = ((w_max - from) / 0.4).cbrt();
        for t in 1..=(2.0 * k) as u64 {
            talk(&mut cc, rtt, &mut now, t * 1000);
            let window = f64::from(cc.window()) / f64::from(MSS);
            // The last acknowledgement was 3/4 into the last round trip; the window is to be where
            // the curve is a round trip later, and gets there with the last quarter.
            let seen = (now as f64 - rtt as f64 / 4.0) / 1000.0;
            let early = closed_form(w_max, from, seen - 0.01);
            let late = closed_form(w_max, from, seen + rtt as f64 / 1000.0);
            assert!(
                window > early - 1.0 && window < late + 1.0,
                "{segments} segments, {rtt} ms, after {t} s: {window} not in {early}..{late}"
            );
        }
    }
}

#[test]
fn the_curve_itself_is_the_rfc_s_within_a_segment_in_20_000() {
    for segments in [20, 1000, 20_000] {
        let mut cc = after_loss(segments);
        let from = f64::from(cc.window()) / f64::from(MSS);
        cc.acked(1, MSS, 0, ms(0));
        for t in (0..60_000_u64).step_by(500) {
            let at = tick(ms(t));
            let ours = f64::from(cc.curve(at, MSS)) / f64::from(MSS);
            let rfc = closed_form(f64::from(segments), from, t as f64 / 1000.0);
            let error = (ours - rfc.max(0.0)).abs();
            assert!(error < 1.0_f64.max(rfc / 2000.0), "{segments}, {t} ms: {ours}, {rfc}");
        }
    }
}

#[test]
fn where_reno_would_have_more_the_window_is_reno_s() {
    // §4.3: 10 segments, 1 ms: the curve needs seconds for what Reno does in milliseconds.
    let mut cc = after_loss(10);
    assert_eq!(cc.window(), 7 * MSS);
    let mut now = 0;
    // alpha is 9/17 up to 10 segments: 3 segments take 17/9 * 3 = 5.7 round trips; then 1.
    talk(&mut cc, 1, &mut now, 6);
    assert_eq!(cc.window() / MSS, 10);
    talk(&mut cc, 1, &mut now, 16);
    let grown = cc.window() / MSS;
    assert!((19..=20).contains(&grown), "one per round trip from there: {grown}");
}

#[test]
fn who_has_less_than_last_time_aims_lower() {
    let mut cc = after_loss(100);
    assert_eq!(cc.w_max, 100 * MSS);
    cc.lost(70 * MSS, MSS, ms(10));
    assert_eq!(cc.w_max / MSS, 59, "§4.7: 70 * (1 + 0.7) / 2");
}

#[test]
fn after_a_timeout_the_curve_begins_flat() {
    let mut cc = after_loss(100);
    cc.timed_out(70 * MSS, MSS, ms(10));
    while cc.basis.in_slow_start() {
        cc.acked(MSS, MSS, 100_000, ms(20));
    }
    assert_eq!(cc.window(), 49 * MSS);
    cc.acked(MSS, MSS, 100_000, ms(20));
    assert_eq!(cc.w_max, 49 * MSS, "§4.8: K = 0, W_max = cwnd");
    assert_eq!(cc.flat_at, tick(ms(20)));
}

#[test]
fn time_in_which_nothing_was_sent_does_not_count() {
    let (mut talking, mut pausing) = (after_loss(1000), after_loss(1000));
    let (mut a, mut b) = (0, 0);
    talk(&mut talking, 100, &mut a, 2000);
    talk(&mut pausing, 100, &mut b, 1000);
    b += 3_600_000;
    talk(&mut pausing, 100, &mut b, 3_602_000);
    let difference = talking.window().abs_diff(pausing.window());
    // §5.8. The pause counts for the two round trips that it takes to be one.
    assert!(difference < talking.window() / 20, "{} {}", talking.window(), pausing.window());
}

proptest! {
    #[test]
    fn the_cube_root_is_the_largest_whose_cube_fits(of in any::<u64>()) {
        let root = u128::from(cube_root(of));
        prop_assert!(root.pow(3) <= u128::from(of));
        prop_assert!((root + 1).pow(3) > u128::from(of));
    }
}
