//! What single addresses may use up: rates and numbers of connections, in tables of a fixed size.
//!
//! Neither takes a lock. A rate's table is shared by the cores with plain loads and stores: two cores that
//! decide about one source within the same few nanoseconds may count one packet where there were two.
//! Connections are counted by each core for itself, in words that only it writes, and summed when one
//! is to be opened: cores that open connections of one source in the same instant may each admit one.
use crate::rng::SipKey;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};
use ix_abi::IpAddress;
use ix_acl::AclError;

/// Entries of a table.
pub const ENTRIES: usize = 16_384;
/// Entries that a source may be in: a cache line.
const WAYS: usize = 8;

type Table = Box<[AtomicU64]>;

fn table() -> Result<Table, AclError> {
    let mut all = Vec::new();
    all.try_reserve_exact(ENTRIES).map_err(|_| AclError::Memory)?;
    all.resize_with(ENTRIES, AtomicU64::default);
    Ok(all.into())
}

/// Where a source's entry may be, and by what bits it is known there.
fn place(key: &SipKey, rule: u16, remote: IpAddress) -> (usize, u64) {
    let [a, b] = remote.to_words();
    let hash = key.hash([u64::from(rule), a, b]);
    let first = hash as usize % (ENTRIES / WAYS) * WAYS;
    // Never 0, which an empty entry has.
    (first, hash >> 32 | 1)
}

/// Rates: for each source the time at which its bucket is full again (the generic cell rate algorithm).
#[derive(Debug)]
pub struct Rates {
    key: SipKey,
    /// Tag in the high 20 bits, time in units of 1,024 ns below.
    table: Table,
}

/// 208 days. An entry that is a whole multiple of that old may be taken for a fresh one: it refuses a few.
const TIME_BITS: u32 = 44;
const TIME_MASK: u64 = (1 << TIME_BITS) - 1;

impl Rates {
    /// With every bucket full.
    pub fn new(key: SipKey) -> Result<Rates, AclError> {
        Ok(Rates { key, table: table()? })
    }

    /// Whether one more is within `rate` per second with `burst` at once; if so, it is counted.
    pub fn admit(&self, rule: u16, remote: IpAddress, rate: u32, burst: u32, now: Instant) -> bool {
        let (first, hash) = place(&self.key, rule, remote);
        let tag = hash & 0xf_ffff;
        let Some(entries) = self.table.get(first..first + WAYS) else { return false };
        let now = now.0 >> 10;
        // How far ahead of now an entry's time lies: what is not is a full bucket, like no entry.
        let ahead = |word: u64| {
            let wide = (word.wrapping_sub(now) << (64 - TIME_BITS)) as i64 >> (64 - TIME_BITS);
            wide.max(0) as u64
        };
        let mut chosen = &entries[0];
        let mut used = u64::MAX;
        for entry in entries {
            let word = entry.load(Ordering::Relaxed);
            if word >> TIME_BITS == tag {
                (chosen, used) = (entry, ahead(word));
                break;
            }
            // Else the one that loses least by being forgotten.
            if ahead(word) < used {
                (chosen, used) = (entry, ahead(word));
            }
        }
        if chosen.load(Ordering::Relaxed) >> TIME_BITS != tag {
            used = 0;
        }
        let interval = (1_000_000_000_u64 >> 10).div_ceil(u64::from(rate.max(1))).max(1);
        let depth = interval * u64::from(burst.max(1));
        // Longer than any bucket takes to fill: an entry of long ago.
        let used = if used > depth { 0 } else { used };
        if used + interval > depth {
            return false;
        }
        let full_at = (now + used + interval) & TIME_MASK;
        chosen.store(tag << TIME_BITS | full_at, Ordering::Relaxed);
        true
    }
}

/// How many connections each source has on one core; a bit pattern of tag and number.
type Numbers = Table;

const NUMBER_BITS: u32 = 24;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// A core's view of all cores' numbers.
#[derive(Debug)]
pub struct Connections {
    key: SipKey,
    all: Arc<[Numbers]>,
    own: usize,
}

impl Connections {
    /// The views of all cores.
    pub fn new(key: SipKey, cores: u16) -> Result<Vec<Connections>, AclError> {
        let tables: Result<Vec<Numbers>, AclError> = (0..cores).map(|_| table()).collect();
        let all: Arc<[Numbers]> = tables?.into();
        let view = |own| Connections { key, all: Arc::clone(&all), own };
        Ok((0..usize::from(cores)).map(view).collect())
    }

    /// The source's entry on a core: its place and its number.
    fn find(&self, core: usize, first: usize, tag: u64) -> Option<(usize, u64)> {
        (first..first + WAYS).find_map(|at| {
            let word = self.all.get(core)?.get(at)?.load(Ordering::Relaxed);
            (word >> NUMBER_BITS == tag && word & NUMBER_MASK != 0)
                .then_some((at, word & NUMBER_MASK))
        })
    }

    /// Connections of a source by a rule, on all cores.
    pub fn sum(&self, rule: u16, remote: IpAddress) -> u32 {
        let (first, tag) = place(&self.key, rule, remote);
        let on = |core| self.find(core, first, tag).map_or(0, |(_, number)| number as u32);
        (0..self.all.len()).map(on).fold(0, u32::saturating_add)
    }

    /// One more on this core. `false`: there is no room to count it.
    pub fn enter(&mut self, rule: u16, remote: IpAddress) -> bool {
        let (first, tag) = place(&self.key, rule, remote);
        let (at, number) = match self.find(self.own, first, tag) {
            Some((_, NUMBER_MASK)) => return false,
            Some(found) => found,
            None => {
                let free = |at: &usize| self.all[self.own][*at].load(Ordering::Relaxed) == 0;
                match (first..first + WAYS).find(free) {
                    Some(at) => (at, 0),
                    None => return false,
                }
            }
        };
        self.all[self.own][at].store(tag << NUMBER_BITS | (number + 1), Ordering::Relaxed);
        true
    }

    /// One less on this core.
    pub fn leave(&mut self, rule: u16, remote: IpAddress) {
        let (first, tag) = place(&self.key, rule, remote);
        if let Some((at, number)) = self.find(self.own, first, tag) {
            let word = if number > 1 { tag << NUMBER_BITS | (number - 1) } else { 0 };
            self.all[self.own][at].store(word, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
