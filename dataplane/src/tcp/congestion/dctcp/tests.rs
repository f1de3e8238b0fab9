use super::*;

const MSS: u32 = 1460;
const NOW: Instant = Instant(0);

fn started() -> Dctcp {
    let mut cc = Dctcp::default();
    cc.start(MSS, NOW);
    cc
}

/// One window of ten segments, of which the first `marked` are marked.
fn window(cc: &mut Dctcp, at: &mut u32, marked: u32) {
    let nxt = WrappingSeq(*at + 10 * MSS);
    for i in 0..10 {
        *at += MSS;
        cc.echoed(MSS, i < marked, WrappingSeq(*at), nxt);
    }
}

#[test]
fn alpha_is_the_moving_average_of_the_marked_part() {
    // §3.3: alpha = alpha * (1 - g) + g * M, with g = 1/16, once per window.
    let (mut cc, mut at, mut model) = (started(), 1000, 1.0);
    for marked in [0, 0, 5, 10, 10, 2, 0, 0, 0, 1, 1, 1] {
        window(&mut cc, &mut at, marked);
        model = model * 15.0 / 16.0 + f64::from(marked) / 10.0 / 16.0;
        let alpha = f64::from(cc.alpha()) / 65536.0;
        assert!((alpha - model).abs() < 0.001, "{alpha} {model}");
    }
}

#[test]
fn the_window_shrinks_by_half_of_alpha() {
    let mut cc = started();
    cc.reno.basis.window = 100 * MSS;
    cc.alpha = ALL / 4;
    cc.marked(0, MSS, NOW);
    assert_eq!(cc.window(), 100 * MSS - 100 * MSS / 8);
    cc.alpha = ALL;
    cc.marked(0, MSS, NOW);
    assert_eq!(cc.window(), (100 * MSS - 100 * MSS / 8) / 2);
}

#[test]
fn without_marks_alpha_comes_to_nothing() {
    let (mut cc, mut at) = (started(), 0);
    for _ in 0..400 {
        window(&mut cc, &mut at, 0);
    }
    assert_eq!(cc.alpha(), 0);
}

#[test]
fn loss_is_answered_as_newreno_does() {
    let mut cc = started();
    cc.lost(20 * MSS, MSS, NOW);
    assert_eq!(cc.window(), 10 * MSS, "RFC 8257 §3.5");
}
