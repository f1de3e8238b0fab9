//! Round-trip time and the retransmission timeout (RFC 6298).
use crate::limits::{RTO_AFTER_SYN_LOSS, RTO_INITIAL, RTO_MAX};
use crate::time::Duration;
use crate::wheel::TICK_NS;

/// The granularity of the timer (§2.3): a tick of the wheel.
const GRANULARITY_US: u32 = TICK_NS.div_ceil(1000) as u32;
const RTO_MAX_US: u32 = RTO_MAX.as_us() as u32;
/// Microseconds of a tick of `sent::clock`, times 2 to the [`US_OF_TICK_BITS`], rounded up.
const US_OF_TICK: u64 = (1_024 << US_OF_TICK_BITS) / 1_000 + 1;
const US_OF_TICK_BITS: u32 = 30;
/// Part of the difference by which the least round-trip time follows a longer one.
const LEAST_RISES_BY: u32 = 256;

/// The estimator; times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RttEstimator {
    /// Smoothed; 0 before the first measurement.
    smoothed_us: u32,
    variation_us: u32,
    /// The least of late; 0 before the first measurement.
    least_us: u32,
    /// With backing off.
    timeout_us: u32,
}

impl Default for RttEstimator {
    fn default() -> RttEstimator {
        let timeout_us = RTO_INITIAL.as_us() as u32;
        RttEstimator { smoothed_us: 0, variation_us: 0, least_us: 0, timeout_us }
    }
}

impl RttEstimator {
    /// The present timeout.
    #[inline]
    pub fn timeout(&self) -> Duration {
        Duration::from_us(u64::from(self.timeout_us))
    }

    /// The smoothed round-trip time; 0 before the first measurement.
    #[inline(always)]
    pub fn smoothed_us(&self) -> u32 {
        self.smoothed_us
    }

    /// The same as a length of time.
    pub fn smoothed(&self) -> Duration {
        Duration::from_us(u64::from(self.smoothed_us))
    }

    /// The least round-trip time of late (RFC 8985 §6.2 step 1).
    pub fn least(&self) -> Duration {
        Duration::from_us(u64::from(self.least_us))
    }

    /// What the timeout is without backing off, once there was a measurement. No timeout is shorter than the floor.
    #[inline]
    pub fn settled(&self, floor_us: u32) -> Duration {
        Duration::from_us(timeout_us(self.smoothed_us, self.variation_us, floor_us).into())
    }

    /// Whether there was a measurement, and the timeout is not backed off.
    #[inline(always)]
    pub fn is_settled(&self, floor_us: u32) -> bool {
        self.is_known()
            && self.timeout_us == timeout_us(self.smoothed_us, self.variation_us, floor_us)
    }

    /// A measurement of a segment that was sent only once (§3, Karn). Ends backing off.
    #[inline(always)]
    pub fn measured(&mut self, rtt: Duration, floor_us: u32) {
        self.measured_us(in_range(rtt.as_us()), floor_us);
    }

    /// The same of so many ticks of the clock of send times.
    #[inline(always)]
    pub fn measured_ticks(&mut self, ticks: u32, floor_us: u32) {
        self.measured_us(us_of(ticks), floor_us);
    }

    /// The same of one that is not the first, see [`RttEstimator::is_known`]. Leaves the timeout as it is: for who takes
    /// [`RttEstimator::settled`] for it, and settles it in the end.
    #[inline(always)]
    pub fn follow_ticks(&mut self, ticks: u32) {
        debug_assert!(self.is_known());
        self.follow(us_of(ticks));
    }

    /// The same in microseconds, from 1 to `RTO_MAX`.
    #[inline(always)]
    fn measured_us(&mut self, rtt: u32, floor_us: u32) {
        if self.is_known() {
            self.follow(rtt);
            self.timeout_us = timeout_us(self.smoothed_us, self.variation_us, floor_us);
        } else {
            self.smoothed_us = rtt;
            self.variation_us = rtt / 2;
            self.least_us = rtt;
            self.settle(floor_us);
        }
    }

    /// Keeps a number in place of the timeout, until that is settled.
    #[inline(always)]
    pub fn keep(&mut self, number: u32) {
        self.timeout_us = number;
    }

    /// The number that was kept.
    #[inline(always)]
    pub fn kept(&self) -> u32 {
        self.timeout_us
    }

    /// Whether there was a measurement.
    #[inline(always)]
    pub fn is_known(&self) -> bool {
        self.smoothed_us != 0
    }

    /// A measurement that is not the first, from 1 to `RTO_MAX`.
    #[inline(always)]
    fn follow(&mut self, rtt: u32) {
        // None is longer than `RTO_MAX`. Shifts round down, but to nothing less than what is measured: none gets negative,
        // and the mean no less than 1.
        let difference = rtt.wrapping_sub(self.smoothed_us) as i32;
        let more = difference.wrapping_abs().wrapping_sub(self.variation_us as i32) >> 2;
        self.variation_us = self.variation_us.wrapping_add(more as u32);
        self.smoothed_us = self.smoothed_us.wrapping_add((difference >> 3) as u32);
        // Comes up slowly, so that a path that has got longer is not taken for a short one for ever.
        self.least_us = match rtt.checked_sub(self.least_us) {
            // Rounded up; nothing is near the end of its range.
            Some(above) => self.least_us + above.wrapping_add(LEAST_RISES_BY - 1) / LEAST_RISES_BY,
            None => {
                core::hint::cold_path();
                rtt
            }
        };
    }

    /// The timeout without backing off (§5.7 lets new data being acknowledged end it).
    #[inline(always)]
    pub fn settle(&mut self, floor_us: u32) {
        // Without a measurement only a SYN was answered, and not at once (§5.7).
        self.timeout_us = match self.smoothed_us {
            0 => RTO_AFTER_SYN_LOSS.as_us() as u32,
            smoothed => timeout_us(smoothed, self.variation_us, floor_us),
        };
    }

    /// The timer has fired (§5.5).
    pub fn back_off(&mut self) {
        self.timeout_us = self.timeout_us.saturating_mul(2).min(RTO_MAX.as_us() as u32);
    }
}

/// Microseconds of so many ticks, from 1 to `RTO_MAX`. A tick has 1.024 us; exact but for what is longer than eight seconds,
/// which may be a microsecond off.
#[inline(always)]
fn us_of(ticks: u32) -> u32 {
    in_range((u64::from(ticks) * US_OF_TICK) >> US_OF_TICK_BITS)
}

/// What counts as a measurement, from 1 to `RTO_MAX`. Nearly all are: one comparison for both ends.
#[inline(always)]
fn in_range(us: u64) -> u32 {
    if us.wrapping_sub(1) < u64::from(RTO_MAX_US) {
        return us as u32;
    }
    core::hint::cold_path();
    if us == 0 { 1 } else { RTO_MAX_US }
}

/// RFC 6298 §2.3; no less than the floor, which is the most frequent.
#[inline(always)]
fn timeout_us(smoothed: u32, variation: u32, floor: u32) -> u32 {
    // No term is longer than a few times `RTO_MAX`: none overflows.
    let wanted = smoothed + (variation * 4).max(GRANULARITY_US);
    if wanted <= floor { floor } else { wanted.min(RTO_MAX_US) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RTO_MIN;

    const FLOOR: u32 = RTO_MIN.as_us() as u32;

    #[test]
    fn the_timeout_follows_the_measurements_with_a_floor() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(), RTO_INITIAL);
        rtt.measured(Duration::from_ms(100), FLOOR);
        assert_eq!(rtt.timeout(), Duration::from_ms(300), "R + 4 * R/2");
        for _ in 0..100 {
            rtt.measured(Duration::from_us(50), FLOOR);
        }
        assert_eq!(rtt.timeout(), RTO_MIN);
        rtt.settle(10);
        assert!(rtt.timeout() < Duration::from_us(200), "{:?}", rtt.timeout());
    }

    #[test]
    fn backing_off_doubles_up_to_a_limit_and_a_measurement_ends_it() {
        let mut rtt = RttEstimator::default();
        rtt.measured(Duration::from_ms(1), FLOOR);
        let base = rtt.timeout();
        rtt.back_off();
        assert_eq!(rtt.timeout(), Duration(base.0 * 2));
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), RTO_MAX);
        rtt.settle(FLOOR);
        assert_eq!(rtt.timeout(), base);
    }

    #[test]
    fn a_syn_that_was_sent_again_leaves_three_seconds() {
        let mut rtt = RttEstimator::default();
        rtt.back_off();
        rtt.settle(FLOOR);
        assert_eq!(rtt.timeout(), RTO_AFTER_SYN_LOSS);
    }

    /// The mean and the least as they follow from the definitions, without shortcuts.
    #[test]
    fn shortcuts_come_to_what_the_definitions_say() {
        let mut short = RttEstimator::default();
        short.measured(Duration::from_us(700), FLOOR);
        let mut long = short;
        let mut seed = 1_u64;
        for step in 0..100_000 {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            // Of all lengths, none and too long ones among them.
            let ticks = ((seed >> 32) as u32) >> (seed >> 27 & 31);
            let us = (u128::from(ticks) * u128::from(US_OF_TICK)) >> US_OF_TICK_BITS;
            let rtt = us.clamp(1, u128::from(RTO_MAX_US)) as i64;
            let (mean, variation) = (i64::from(long.smoothed_us), i64::from(long.variation_us));
            long.variation_us = (variation + ((rtt - mean).abs() - variation).div_euclid(4)) as u32;
            long.smoothed_us = (mean + (rtt - mean).div_euclid(8)) as u32;
            let least = i64::from(long.least_us);
            long.least_us = rtt.min(least + (rtt - least + 255).div_euclid(256)) as u32;
            let wanted = (i64::from(long.smoothed_us)
                + (4 * i64::from(long.variation_us)).max(i64::from(GRANULARITY_US)))
            .clamp(i64::from(FLOOR), i64::from(RTO_MAX_US));
            long.timeout_us = wanted as u32;
            if step % 3 == 0 {
                short.follow_ticks(ticks);
                assert_eq!(short.settled(FLOOR), Duration::from_us(wanted as u64));
                short.settle(FLOOR);
            } else {
                short.measured_ticks(ticks, FLOOR);
            }
            assert!(short.is_settled(FLOOR));
            assert_eq!(short, long, "step {step}, {rtt} us");
        }
    }

    #[test]
    fn the_least_round_trip_follows_down_at_once_and_up_slowly() {
        let mut rtt = RttEstimator::default();
        for us in [1000, 300, 900] {
            rtt.measured(Duration::from_us(us), FLOOR);
        }
        let least = rtt.least().as_us();
        assert!((300..310).contains(&least), "{least}");
        for _ in 0..2000 {
            rtt.measured(Duration::from_us(900), FLOOR);
        }
        assert_eq!(rtt.least(), Duration::from_us(900));
    }
}
