//! From time-stamp counter ticks to nanoseconds and back, without division on the fast path.

/// Multiplier and shift: `ns = ticks * mult >> 32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    ticks_to_ns: u64,
    khz: u64,
}

/// Slowest and fastest counter that is believed, in kHz.
pub const KHZ: core::ops::RangeInclusive<u64> = 50_000..=20_000_000;

impl Scale {
    /// From a frequency; `None` if it is not believable.
    #[must_use]
    pub fn from_khz(khz: u64) -> Option<Self> {
        KHZ.contains(&khz).then(|| Self { ticks_to_ns: (1_000_000u64 << 32) / khz, khz })
    }

    /// From a measurement: `ticks` passed while the reference counted `count` at `hz`.
    #[must_use]
    pub fn measured(ticks: u64, count: u64, hz: u64) -> Option<Self> {
        if count == 0 {
            return None;
        }
        let khz = u128::from(ticks) * u128::from(hz) / u128::from(count) / 1000;
        Self::from_khz(u64::try_from(khz).ok()?)
    }

    #[must_use]
    pub fn khz(&self) -> u64 {
        self.khz
    }

    #[inline]
    #[must_use]
    pub fn ns(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.ticks_to_ns)) >> 32) as u64
    }

    #[must_use]
    pub fn ticks(&self, ns: u64) -> u64 {
        (u128::from(ns) * u128::from(self.khz) / 1_000_000).min(u128::from(u64::MAX)) as u64
    }
}

/// Ticks between two readings of a counter of `bits` bits that wrapped at most once.
#[must_use]
pub fn elapsed(start: u32, now: u32, bits: u32) -> u32 {
    let mask = if bits >= 32 { u32::MAX } else { (1 << bits) - 1 };
    now.wrapping_sub(start) & mask
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanoseconds_follow_ticks_within_a_part_in_a_million() {
        for khz in [50_000, 1_000_000, 2_593_907, 3_999_999, 20_000_000] {
            let s = Scale::from_khz(khz).unwrap();
            for seconds in [1u64, 60, 86_400, 10 * 365 * 86_400] {
                let ns = s.ns(khz * 1000 * seconds);
                let want = seconds * 1_000_000_000;
                assert!(ns.abs_diff(want) <= want / 1_000_000, "{khz} kHz, {seconds} s: {ns}");
            }
            assert!(s.ns(s.ticks(1_000_000)).abs_diff(1_000_000) < 100);
        }
    }

    #[test]
    fn a_measurement_gives_the_frequency_back() {
        // 10 ms of the ACPI PM timer (3.579545 MHz) at 2.6 GHz.
        let s = Scale::measured(26_000_000, 35_795, 3_579_545).unwrap();
        assert!(s.khz().abs_diff(2_600_000) < 100, "{}", s.khz());
    }

    #[test]
    fn measurements_that_make_no_sense_are_refused() {
        assert_eq!(Scale::measured(1, 0, 3_579_545), None);
        assert_eq!(Scale::measured(1, 35_795, 3_579_545), None);
        assert_eq!(Scale::measured(u64::MAX, 1, u64::MAX), None);
        assert_eq!(Scale::from_khz(0), None);
    }

    #[test]
    fn a_narrow_counter_may_wrap() {
        assert_eq!(elapsed(0xFF_FFF0, 0x10, 24), 0x20);
        assert_eq!(elapsed(0xFFFF_FFF0, 0x10, 32), 0x20);
    }
}
