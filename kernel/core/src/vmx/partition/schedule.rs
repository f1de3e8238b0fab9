//! Moves that the boot configuration asks for, for tests: the monitor itself passes a core on, from one dataplane that lists it
//! to the next, again and again.
//!
//! `move core=3 every_us=5000 times=1000 patience_us=1000000`

use arrayvec::ArrayVec;

use super::{Mistake, Partition, TEXT_MAX};

#[cfg(test)]
mod tests;

/// Cores that a configuration moves.
pub const SCHEDULES_MAX: usize = 8;
const EVERY_US: core::ops::RangeInclusive<u64> = 100..=60_000_000;
const PATIENCE_US: core::ops::RangeInclusive<u64> = 0..=60_000_000;
/// Where the line does not say it.
pub const PATIENCE_DEFAULT_US: u64 = 1_000_000;

/// One core's moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// The physical core.
    pub core: u8,
    /// From one move's end to the next one's beginning.
    pub every_us: u64,
    pub times: u64,
    /// How long its owner is asked before it is taken.
    pub patience_us: u64,
}

/// Whether a line of a boot configuration is one.
pub(super) fn is_one(line: &str) -> bool {
    line.split_ascii_whitespace().next() == Some("move")
}

/// All that `text` has, whose dataplanes are `all`.
pub fn parse<'a>(
    text: &'a [u8],
    all: &[Partition<'_>],
) -> Result<ArrayVec<Schedule, SCHEDULES_MAX>, Mistake<'a>> {
    let mut found: ArrayVec<Schedule, SCHEDULES_MAX> = ArrayVec::new();
    let text = text.get(..TEXT_MAX.min(text.len())).unwrap_or_default();
    let text = core::str::from_utf8(text).unwrap_or_default();
    for (i, line) in text.lines().map(str::trim).enumerate().filter(|(_, line)| is_one(line)) {
        let bad = |word, why| Mistake { line: i + 1, word, why };
        let one = parse_line(line).map_err(|(word, why)| bad(word, why))?;
        if all.iter().filter(|p| p.cores.contains(&one.core)).count() < 2 {
            return Err(bad(line, "a core that two dataplanes list is wanted"));
        }
        if found.iter().any(|other| other.core == one.core) {
            return Err(bad(line, "a core twice"));
        }
        found.try_push(one).map_err(|_| bad(line, "at most 8 cores"))?;
    }
    Ok(found)
}

fn parse_line(line: &str) -> Result<Schedule, (&str, &'static str)> {
    let [mut core, mut every, mut times, mut patience] = [None; 4];
    for word in line.split_ascii_whitespace().skip(1) {
        let (key, value) = word.split_once('=').ok_or((word, "not of the form key=value"))?;
        let (place, range) = match key {
            "core" => (&mut core, 0..=63),
            "every_us" => (&mut every, EVERY_US),
            "times" => (&mut times, 1..=u64::MAX),
            "patience_us" => (&mut patience, PATIENCE_US),
            _ => return Err((word, "unknown key")),
        };
        let plain = value.bytes().all(|b| b.is_ascii_digit());
        let number = value.parse().ok().filter(|n| plain && range.contains(n));
        if place.replace(number.ok_or((word, "not a number, or out of range"))?).is_some() {
            return Err((word, "given twice"));
        }
    }
    match (core, every, times) {
        (Some(core), Some(every_us), Some(times)) => Ok(Schedule {
            core: core as u8,
            every_us,
            times,
            patience_us: patience.unwrap_or(PATIENCE_DEFAULT_US),
        }),
        _ => Err((line, "core=, every_us= and times= are wanted")),
    }
}
