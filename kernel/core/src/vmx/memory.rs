//! Which host memory each dataplane gets. A dataplane's low guest-physical memory (boot information, the
//! kernel's image) is a block of the host's that lies anywhere; all its other memory is *identity*: the
//! guest's addresses are the host's, so that a device's DMA goes where the guest says. Everything is in
//! whole 2 MiB pages and nothing belongs to two.

use arrayvec::ArrayVec;

use super::partition::{DATAPLANES_MAX, Memory};
use crate::addr::{LARGE_PAGE, align_down, align_up};

#[cfg(test)]
mod tests;

/// Identity ranges of one dataplane.
pub const RANGES_MAX: usize = 16;
/// Pieces of usable memory that are remembered.
const PIECES_MAX: usize = 128;

/// `[start, end)` of host-physical memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.end - self.start
    }
}

/// The memory of one dataplane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// Guest-physical 0 to its length.
    pub low: Span,
    /// Identity, sorted.
    pub ram: ArrayVec<Span, RANGES_MAX>,
}

impl Place {
    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.low.bytes() + self.ram.iter().map(Span::bytes).sum::<u64>()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceError {
    /// The dataplane (by its number) wants more than is left.
    NoMemory {
        dataplane: usize,
        wanted: u64,
        left: u64,
    },
    /// What is left for it is in too many pieces.
    Fragmented {
        dataplane: usize,
    },
    /// `low` is not a multiple of 2 MiB, or nothing.
    BadLow,
    TooMany,
}

impl core::fmt::Display for PlaceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMemory { dataplane, wanted, left } => write!(
                f,
                "dataplane {dataplane} wants {} MiB of memory, {} are left",
                wanted >> 20,
                left >> 20
            ),
            Self::Fragmented { dataplane } => {
                write!(f, "the memory that is left for dataplane {dataplane} is in too many pieces")
            }
            Self::BadLow => f.write_str("the image's memory is not in whole 2 MiB pages"),
            Self::TooMany => f.write_str("too many dataplanes"),
        }
    }
}

/// Free memory, sorted, in whole 2 MiB pages.
#[derive(Clone, Debug, Default)]
struct Free(ArrayVec<Span, PIECES_MAX>);

impl Free {
    /// `usable` less `reserved`. Of more pieces than can be remembered the smallest are not used.
    fn new(usable: impl Iterator<Item = Span>, reserved: &[Span]) -> Self {
        let mut free = Self::default();
        for span in usable {
            let mut at = span.start;
            // From one reserved range to the next above, in order of their starts.
            while at < span.end {
                let inside = reserved.iter().filter(|r| r.start <= at && at < r.end).map(|r| r.end);
                if let Some(end) = inside.max() {
                    at = end;
                    continue;
                }
                let above = |r: &&Span| r.start > at && r.start < r.end;
                let next = reserved.iter().filter(above).map(|r| r.start).min();
                let end = next.map_or(span.end, |n| n.min(span.end));
                free.add(at, end);
                at = end;
            }
        }
        free.0.sort_unstable();
        free
    }

    fn add(&mut self, start: u64, end: u64) {
        let Some(start) = align_up(start, LARGE_PAGE) else { return };
        let end = align_down(end, LARGE_PAGE);
        // Ranges of the map that overlap: what is there already is not added again.
        if start >= end || self.0.iter().any(|p| p.start < end && start < p.end) {
            return;
        }
        let new = Span { start, end };
        if self.0.try_push(new).is_err()
            && let Some(smallest) = self.0.iter_mut().min_by_key(|p| p.bytes())
            && smallest.bytes() < new.bytes()
        {
            *smallest = new;
        }
    }

    /// Bytes from `floor` on.
    fn bytes(&self, floor: u64) -> u64 {
        self.0.iter().map(|p| p.end.saturating_sub(p.start.max(floor))).sum()
    }

    /// Takes `span`, which lies in one piece.
    fn take(&mut self, span: Span) {
        let Some(i) = self.0.iter().position(|p| p.start <= span.start && span.end <= p.end) else {
            return;
        };
        let piece = self.0.remove(i);
        let parts = [(piece.start, span.start), (span.end, piece.end)];
        for (start, end) in parts.into_iter().rev().filter(|(a, b)| a < b) {
            // One came out; a second part is lost if there is no room: memory, not order, is.
            let _ = self.0.try_insert(i, Span { start, end });
        }
    }

    /// `len` bytes in one piece: of the smallest piece that has them from `floor` on, its end, so that
    /// what is left of it stays where it begins.
    fn one(&mut self, len: u64, floor: u64) -> Option<Span> {
        let fits = |p: &&Span| p.end.saturating_sub(p.start.max(floor)) >= len;
        let best = self.0.iter().filter(fits).min_by_key(|p| p.bytes())?;
        let span = Span { start: best.end - len, end: best.end };
        self.take(span);
        Some(span)
    }

    /// The largest piece from `floor` on, at most `len` bytes of it.
    fn largest(&mut self, len: u64, floor: u64) -> Option<Span> {
        let from = |p: &Span| p.start.max(floor);
        let best = self.0.iter().filter(|p| from(p) < p.end).max_by_key(|p| p.end - from(p))?;
        let len = len.min(best.end - from(best));
        let span = Span { start: best.end - len, end: best.end };
        self.take(span);
        Some(span)
    }
}

/// Places dataplanes that want `wanted`, in their order; the one that gets the rest comes last.
///
/// `usable`: the machine's RAM that may be used. `reserved`: what of it is the monitor's own. `low`: bytes
/// of low guest-physical memory, a multiple of 2 MiB; identity memory begins above.
pub fn place(
    usable: &[Span],
    reserved: &[Span],
    low: u64,
    wanted: &[Memory],
) -> Result<ArrayVec<Place, DATAPLANES_MAX>, PlaceError> {
    if low == 0 || !low.is_multiple_of(LARGE_PAGE) {
        return Err(PlaceError::BadLow);
    }
    if wanted.len() > DATAPLANES_MAX {
        return Err(PlaceError::TooMany);
    }
    let mut free = Free::new(usable.iter().copied(), reserved);
    let none = Place { low: Span { start: 0, end: 0 }, ram: ArrayVec::new() };
    let mut places: ArrayVec<Place, DATAPLANES_MAX> = wanted.iter().map(|_| none.clone()).collect();
    let in_order = |rest: bool| {
        let of = move |(_, m): &(usize, &Memory)| (**m == Memory::Rest) == rest;
        wanted.iter().enumerate().filter(of)
    };
    // The rest's low block first: small, and it must not starve.
    for (i, _) in in_order(true).chain(in_order(false)) {
        let left = free.bytes(0);
        let missing = PlaceError::NoMemory { dataplane: i, wanted: low, left };
        places[i].low = low_block(&mut free, low).ok_or(missing)?;
    }
    for (i, memory) in in_order(false).chain(in_order(true)) {
        places[i].ram = match memory {
            Memory::Rest => rest(&mut free, low),
            Memory::Bytes(bytes) => fixed(&mut free, low, i, *bytes)?,
        };
        if places[i].ram.is_empty() {
            let left = free.bytes(low);
            return Err(PlaceError::NoMemory { dataplane: i, wanted: LARGE_PAGE, left });
        }
    }
    Ok(places)
}

/// Memory below `low` can be nothing but a low block: if there is enough of it, it is used first.
fn low_block(free: &mut Free, low: u64) -> Option<Span> {
    let below = free.0.iter().find(|p| p.end.min(low).saturating_sub(p.start) >= low).copied();
    match below {
        Some(p) => {
            let span = Span { start: p.start, end: p.start + low };
            free.take(span);
            Some(span)
        }
        None => free.one(low, 0),
    }
}

/// `bytes` in all, of which the low block is a part.
fn fixed(
    free: &mut Free,
    low: u64,
    dataplane: usize,
    bytes: u64,
) -> Result<ArrayVec<Span, RANGES_MAX>, PlaceError> {
    let mut left = align_down(bytes.saturating_sub(low), LARGE_PAGE);
    let missing = PlaceError::NoMemory { dataplane, wanted: bytes, left: free.bytes(low) };
    if left == 0 || left > free.bytes(low) {
        return Err(missing);
    }
    let mut ram = ArrayVec::new();
    if let Some(span) = free.one(left, low) {
        ram.push(span);
        return Ok(ram);
    }
    while left > 0 {
        let span = free.largest(left, low).ok_or(missing)?;
        left -= span.bytes();
        ram.try_push(span).map_err(|_| PlaceError::Fragmented { dataplane })?;
    }
    ram.sort_unstable();
    Ok(ram)
}

/// All that is left, the largest pieces first.
fn rest(free: &mut Free, low: u64) -> ArrayVec<Span, RANGES_MAX> {
    let mut ram = ArrayVec::new();
    while !ram.is_full() {
        let Some(span) = free.largest(u64::MAX, low) else { break };
        ram.push(span);
    }
    ram.sort_unstable();
    ram
}
