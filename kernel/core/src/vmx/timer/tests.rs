//! Time passes while a vCPU is away.

use super::*;

const ONCE: Timer = Timer { lvt: 0xF2, initial: 5000, current: 4000, divide: 0b0011, at_ns: 1_000 };
/// 16 MHz by 16: a tick is a microsecond.
const KHZ: u64 = 16_000;

#[test]
fn what_was_left_goes_on_and_what_is_over_comes_at_once() {
    assert_eq!(ONCE.initial(1_000, KHZ), 4000);
    assert_eq!(ONCE.initial(1_001_000, KHZ), 3000);
    assert_eq!(ONCE.initial(4_000_000, KHZ), 1, "a microsecond early at most, and not off");
    assert_eq!(ONCE.initial(u64::MAX, u64::from(u32::MAX)), 1);
    assert_eq!(ONCE.initial(0, KHZ), 4000, "a clock that went back");
}

#[test]
fn one_that_is_off_stays_off() {
    let off = Timer { current: 0, ..ONCE };
    assert_eq!(off.initial(9_000_000, KHZ), 0);
}

#[test]
fn a_periodic_one_begins_again() {
    let periodic = Timer { lvt: PERIODIC | 0xF2, ..ONCE };
    assert_eq!(periodic.initial(9_000_000, KHZ), 5000);
}

#[test]
fn divisors() {
    let all = [0, 1, 2, 3, 8, 9, 10, 11].map(divisor);
    assert_eq!(all, [2, 4, 8, 16, 32, 64, 128, 1]);
}
