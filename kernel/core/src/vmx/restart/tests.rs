//! Against the definition: no window of a minute has more than eight starts.

use super::*;
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;

#[test]
fn eight_at_once_and_no_more() {
    let mut l = Lives::new();
    for life in 1..=8 {
        assert_eq!(l.start(5), Decision::Start { life });
    }
    assert_eq!(l.start(6), Decision::StayDown { lives: 8 });
    assert_eq!(l.start(1000 * SECOND), Decision::StayDown { lives: 8 }, "for good");
}

#[test]
fn one_that_lives_long_enough_may_die_for_ever() {
    let mut l = Lives::new();
    for i in 0..1000 {
        // Eight in exactly a minute: the ninth comes when the first is a minute old.
        assert_eq!(l.start(i * 7_500_000_000), Decision::Start { life: i + 1 });
    }
    assert_eq!(l.count(), 1000);
}

#[test]
fn no_minute_has_more_than_eight_and_none_is_refused_early() {
    for seed in 1..2000u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (mut l, mut now, mut given) = (Lives::new(), 0, Vec::<u64>::new());
        for _ in 0..60 {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            now += x % (16 * SECOND);
            let recent = given.iter().filter(|t| now - **t < WINDOW_NS).count();
            match l.start(now) {
                Decision::Start { life } => {
                    assert!(recent < STARTS_MAX, "seed {seed}");
                    given.push(now);
                    assert_eq!(life, given.len() as u64);
                }
                Decision::StayDown { .. } => {
                    assert_eq!(recent, STARTS_MAX, "seed {seed}");
                    break;
                }
            }
        }
    }
}
