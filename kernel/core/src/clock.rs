//! From time-stamp counter ticks to nanoseconds and back, without division on the fast path.

/// Multiplier and shift: `ns = ticks * mult >> 32`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    ticks_to_ns: u64,
    khz: u64,
}

/// Slowest and fastest counter that is believed, in kHz.
pub const KHZ: core::ops::RangeInclusive<u64> = 20_000..=20_000_000;

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

/// What one source says of the frequency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Answer {
    pub name: &'static str,
    pub khz: u64,
    pub trust: Trust,
}

/// Which of several answers that agree is taken: the first kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trust {
    /// Told by the CPU: crystal and ratio, or a hypervisor.
    Exact,
    Measured,
    /// What the CPU is sold as: close, good to confirm another.
    Nominal,
}

/// All answers; of one kind the first is preferred.
pub type Answers = arrayvec::ArrayVec<Answer, 8>;

/// How far the chosen frequency can be believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Quality {
    /// Two sources agree.
    Agreed,
    /// There is only one.
    Alone,
    /// No two agree.
    Disputed,
}

impl core::fmt::Display for Quality {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Agreed => "confirmed",
            Self::Alone => "unconfirmed",
            Self::Disputed => "disputed",
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    pub name: &'static str,
    pub khz: u64,
    pub quality: Quality,
}

/// Takes in a measurement; a later one of the same source, which is a longer one, replaces it.
pub fn remember(answers: &mut Answers, name: &'static str, khz: u64) {
    match answers.iter_mut().find(|a| a.name == name) {
        Some(a) => a.khz = khz,
        None => drop(answers.try_push(Answer { name, khz, trust: Trust::Measured })),
    }
}

/// Whether two frequencies differ by at most 0.5 %: crystals are far better, but a measurement of 10 ms
/// is not when a hypervisor or an SMI gets in between.
fn agree(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= a.max(b) / 200
}

/// Chooses a frequency: one that another source confirms, the CPU's own word first; else the first.
#[must_use]
pub fn choose(answers: &[Answer]) -> Option<Choice> {
    let believable = |a: &&Answer| KHZ.contains(&a.khz);
    let confirmed = |a: &&Answer| {
        answers.iter().any(|b| b.name != a.name && KHZ.contains(&b.khz) && agree(a.khz, b.khz))
    };
    let all = || answers.iter().filter(believable);
    let (answer, quality) = match (all().filter(confirmed).min_by_key(|a| a.trust), all().count()) {
        (Some(a), _) => (a, Quality::Agreed),
        (None, 1) => (all().next()?, Quality::Alone),
        // What was measured against a crystal rather than what the CPU only says.
        (None, _) => {
            let measured = all().find(|a| a.trust == Trust::Measured);
            (measured.or(all().next())?, Quality::Disputed)
        }
    };
    Some(Choice { name: answer.name, khz: answer.khz, quality })
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

    fn answers(all: &[(&'static str, u64)]) -> Answers {
        let trust = |name| match name {
            "CPUID" => Trust::Exact,
            "base" => Trust::Nominal,
            _ => Trust::Measured,
        };
        all.iter().map(|&(name, khz)| Answer { name, khz, trust: trust(name) }).collect()
    }

    #[test]
    fn a_frequency_is_believed_when_two_sources_agree() {
        for (all, want) in [
            (&[("CPUID", 2_600_000), ("PM", 2_601_000)][..], Some(("CPUID", Quality::Agreed))),
            // An SMI, or a hypervisor that took the CPU away in one of them.
            (
                &[("PM", 2_900_000), ("HPET", 2_600_000), ("PIT", 2_600_900)],
                Some(("HPET", Quality::Agreed)),
            ),
            (
                &[("CPUID", 2_400_000), ("PM", 2_600_000), ("HPET", 2_600_100)],
                Some(("PM", Quality::Agreed)),
            ),
            (&[("CPUID", 2_400_000), ("PM", 2_600_000)], Some(("PM", Quality::Disputed))),
            (&[("PM", 2_600_000), ("HPET", 2_700_000)], Some(("PM", Quality::Disputed))),
            (&[("PIT", 2_600_000)], Some(("PIT", Quality::Alone))),
            (&[("CPUID", 2_600_000)], Some(("CPUID", Quality::Alone))),
            (&[("base", 2_600_000), ("PM", 2_592_000)], Some(("PM", Quality::Agreed))),
            (&[("base", 2_600_000)], Some(("base", Quality::Alone))),
            // A gate that is not there makes 4 MHz: not believed.
            (&[("PIT", 4_000), ("HPET", 2_600_000)], Some(("HPET", Quality::Alone))),
            (&[("PIT", 4_000)], None),
            (&[], None),
        ] {
            let got = choose(&answers(all)).map(|c| (c.name, c.quality));
            assert_eq!(got, want, "{all:?}");
        }
    }

    #[test]
    fn a_longer_measurement_replaces_the_one_before() {
        let mut all = answers(&[("PM", 2_900_000), ("HPET", 2_600_000)]);
        remember(&mut all, "PM", 2_600_100);
        assert_eq!(all.len(), 2);
        assert_eq!(choose(&all).map(|c| c.quality), Some(Quality::Agreed));
    }

    #[test]
    fn a_narrow_counter_may_wrap() {
        assert_eq!(elapsed(0xFF_FFF0, 0x10, 24), 0x20);
        assert_eq!(elapsed(0xFFFF_FFF0, 0x10, 32), 0x20);
    }
}
