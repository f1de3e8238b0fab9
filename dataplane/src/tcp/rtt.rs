//! Round-trip time and the retransmission timeout (RFC 6298).
use crate::limits::{RTO_INITIAL, RTO_MAX, RTO_MIN};
use crate::time::Duration;

/// The estimator; times in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimator {
    /// Smoothed; 0 before the first measurement.
    smoothed_us: u32,
    variation_us: u32,
    /// With backing off.
    timeout_us: u32,
}

impl Default for RttEstimator {
    fn default() -> RttEstimator {
        RttEstimator { smoothed_us: 0, variation_us: 0, timeout_us: RTO_INITIAL.as_us() as u32 }
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

    /// A measurement of a segment that was sent only once (§3, Karn). Ends backing off.
    pub fn measured(&mut self, rtt: Duration) {
        let rtt = rtt.as_us().clamp(1, RTO_MAX.as_us()) as u32;
        if self.smoothed_us == 0 {
            self.smoothed_us = rtt;
            self.variation_us = rtt / 2;
        } else {
            let difference = self.smoothed_us.abs_diff(rtt);
            self.variation_us = self.variation_us - self.variation_us / 4 + difference / 4;
            self.smoothed_us = self.smoothed_us - self.smoothed_us / 8 + rtt / 8;
        }
        self.settle();
    }

    /// The timeout without backing off (§5.7 lets new data being acknowledged end it).
    pub fn settle(&mut self) {
        if self.smoothed_us == 0 {
            self.timeout_us = RTO_INITIAL.as_us() as u32;
            return;
        }
        let timeout = u64::from(self.smoothed_us) + u64::from(self.variation_us.max(1)) * 4;
        self.timeout_us = timeout.clamp(RTO_MIN.as_us(), RTO_MAX.as_us()) as u32;
    }

    /// The timer has fired (§5.5).
    pub fn back_off(&mut self) {
        self.timeout_us = self.timeout_us.saturating_mul(2).min(RTO_MAX.as_us() as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeout_follows_the_measurements_with_a_floor() {
        let mut rtt = RttEstimator::default();
        assert_eq!(rtt.timeout(), RTO_INITIAL);
        rtt.measured(Duration::from_ms(100));
        assert_eq!(rtt.timeout(), Duration::from_ms(300), "R + 4 * R/2");
        for _ in 0..100 {
            rtt.measured(Duration::from_us(50));
        }
        assert_eq!(rtt.timeout(), RTO_MIN);
    }

    #[test]
    fn backing_off_doubles_up_to_a_limit_and_a_measurement_ends_it() {
        let mut rtt = RttEstimator::default();
        rtt.measured(Duration::from_ms(1));
        let base = rtt.timeout();
        rtt.back_off();
        assert_eq!(rtt.timeout(), Duration(base.0 * 2));
        for _ in 0..40 {
            rtt.back_off();
        }
        assert_eq!(rtt.timeout(), RTO_MAX);
        rtt.settle();
        assert_eq!(rtt.timeout(), base);
    }
}
