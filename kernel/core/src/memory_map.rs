//! The firmware's memory map, made usable: sorted, whole pages, overlaps decided for the worse.

use crate::addr::{PAGE, align_down, align_up};

#[cfg(test)]
mod tests;

/// Entries that are kept.
pub const MAX_ENTRIES: usize = 256;

/// What a range is, from good to bad: where two entries overlap the worse one wins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    Usable,
    /// RAM that the loader filled with what is still needed: kernel, modules, its own information.
    Loader,
    /// ACPI tables, usable once they were read.
    AcpiReclaim,
    AcpiNvs,
    Reserved,
    Bad,
}

impl Kind {
    /// From the numbers of PVH, E820 and multiboot2, which agree.
    #[must_use]
    pub fn from_e820(n: u32) -> Self {
        match n {
            1 => Self::Usable,
            3 => Self::AcpiReclaim,
            4 => Self::AcpiNvs,
            5 => Self::Bad,
            _ => Self::Reserved,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub start: u64,
    pub end: u64,
    pub kind: Kind,
}

/// A sorted, non-overlapping map.
#[derive(Clone, Debug)]
pub struct MemoryMap {
    entries: [Entry; MAX_ENTRIES],
    len: usize,
    dropped: usize,
}

impl Default for MemoryMap {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryMap {
    #[must_use]
    pub const fn new() -> Self {
        let none = Entry { start: 0, end: 0, kind: Kind::Bad };
        Self { entries: [none; MAX_ENTRIES], len: 0, dropped: 0 }
    }

    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries[..self.len]
    }

    /// Entries that did not fit: their memory is not used.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    /// Bytes that are usable.
    #[must_use]
    pub fn usable(&self) -> u64 {
        self.entries().iter().filter(|e| e.kind == Kind::Usable).map(|e| e.end - e.start).sum()
    }

    /// Whether every byte of `[start, end)` is of kind `kind` or better.
    #[must_use]
    pub fn is_all(&self, start: u64, end: u64, kind: Kind) -> bool {
        let mut at = start;
        for e in self.entries().iter().filter(|e| e.kind <= kind) {
            if e.start <= at && at < e.end {
                at = e.end;
            }
        }
        at >= end
    }

    /// Adds an entry. Usable ranges shrink to whole pages, others grow; where it overlaps what is
    /// there, the worse kind stays.
    pub fn add(&mut self, start: u64, len: u64, kind: Kind) {
        let end = start.saturating_add(len);
        let (start, end) = if kind == Kind::Usable {
            (align_up(start, PAGE).unwrap_or(u64::MAX), align_down(end, PAGE))
        } else {
            (align_down(start, PAGE), align_up(end, PAGE).unwrap_or(align_down(u64::MAX, PAGE)))
        };
        if start >= end {
            return;
        }
        // Cut what is better out of the map, and cut the new entry around what is worse.
        let old = core::mem::take(self);
        self.dropped = old.dropped;
        let mut at = start;
        for e in old.entries() {
            let overlaps = e.start < end && start < e.end;
            if overlaps && e.kind < kind {
                self.push(e.start, start.max(e.start), e.kind);
                let (from, to) = (at, e.start.max(at));
                self.push(from, to, kind);
                let inner_end = e.end.min(end);
                self.push(to, inner_end, kind);
                at = inner_end;
                self.push(inner_end, e.end, e.kind);
            } else if overlaps {
                self.push(at, e.start.max(at), kind);
                self.push(e.start, e.end, e.kind);
                at = at.max(e.end);
            } else {
                if e.start >= end {
                    self.push(at, end.max(at), kind);
                    at = at.max(end);
                }
                self.push(e.start, e.end, e.kind);
            }
        }
        self.push(at, end.max(at), kind);
    }

    fn push(&mut self, start: u64, end: u64, kind: Kind) {
        if start >= end {
            return;
        }
        if self.len > 0 {
            let last = &mut self.entries[self.len - 1];
            if last.end == start && last.kind == kind {
                last.end = end;
                return;
            }
        }
        if self.len == MAX_ENTRIES {
            self.dropped += 1;
            return;
        }
        self.entries[self.len] = Entry { start, end, kind };
        self.len += 1;
    }
}
