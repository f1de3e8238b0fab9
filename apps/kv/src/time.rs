//! Seconds, as memcached counts them: 32 bits, from a moment shortly before the start.

/// Expiry times above this are Unix times, the others are delays.
const DELAY_MAX: i32 = 60 * 60 * 24 * 30;
/// What `now` is at the start: an expiry of second 1 has always passed.
const FIRST_SECOND: u32 = 2;

/// The wall clock, as far as it is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// Unix time of second 0.
    zero_unix: i64,
}

impl Clock {
    /// A clock whose nanosecond 0 was at `unix` seconds of Unix time (0 if that is not known).
    pub fn new(unix: i64) -> Clock {
        Clock { zero_unix: unix - i64::from(FIRST_SECOND) }
    }

    /// The second of `now_ns`.
    pub fn second(now_ns: u64) -> u32 {
        FIRST_SECOND.saturating_add(u32::try_from(now_ns / 1_000_000_000).unwrap_or(u32::MAX))
    }

    /// Seconds since the start.
    pub fn uptime(now: u32) -> u32 {
        now - FIRST_SECOND.min(now)
    }

    /// Unix time of a second.
    pub fn unix(&self, now: u32) -> i64 {
        self.zero_unix + i64::from(now)
    }

    /// The second that a client's expiry time names: 0 = never; negative = at once.
    pub fn deadline(&self, exptime: i32, now: u32) -> u32 {
        match exptime {
            0 => 0,
            ..0 => 1,
            1..=DELAY_MAX => now.saturating_add(exptime as u32),
            _ => {
                let since = i64::from(exptime) - self.zero_unix;
                u32::try_from(since.max(1)).unwrap_or(1)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_times_are_delays_and_long_ones_are_dates() {
        let clock = Clock::new(1_700_000_000);
        let now = Clock::second(98_000_000_000);
        assert_eq!(now, 100);
        assert_eq!(clock.deadline(0, now), 0);
        assert_eq!(clock.deadline(-1, now), 1);
        assert_eq!(clock.deadline(10, now), 110);
        assert_eq!(clock.deadline(2_592_000, now), 2_592_100);
        assert_eq!(clock.deadline(2_592_001, now), 1, "a date in 1970");
        assert_eq!(clock.deadline(1_700_000_098 + 5, now), now + 5);
        assert_eq!(clock.unix(now), 1_700_000_098);
    }
}
