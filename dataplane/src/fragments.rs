//! Reassembly of fragmented datagrams (RFC 791 §3.2, RFC 815), as a pure table: which pieces of which
//! datagram are there. Bounded in datagrams, pieces, bytes and time; under pressure the oldest
//! goes, so that those whose fragments come together get through a flood of fragments that never
//! will be complete.
//!
//! Fragments that overlap spoil their datagram, and what comes of it later (RFC 5722, which is about
//! IPv6, for the same reasons); an exact repetition does not (RFC 8200 §4.5).
use crate::limits::{FRAGMENT_TIMEOUT, FRAGMENTED_DATAGRAMS_MAX, FRAGMENTS_PER_DATAGRAM};
use crate::time::Instant;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use ix_abi::IpAddress;
use ix_abi::stats::Drop;

/// What the fragments of one datagram have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// From whom.
    pub source: IpAddress,
    /// To whom.
    pub destination: IpAddress,
    /// What is in it.
    pub protocol: u8,
    /// Which of the sender's it is.
    pub id: u32,
}

/// A piece of a datagram's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// First byte.
    pub offset: u16,
    /// Bytes; never 0.
    pub len: u16,
    /// Nothing follows.
    pub last: bool,
}

impl Piece {
    fn end(&self) -> u32 {
        u32::from(self.offset) + u32::from(self.len)
    }
}

/// A datagram of which something has arrived. `B` is where its bytes are collected.
#[derive(Debug)]
pub struct Assembly<B> {
    key: Key,
    until: Instant,
    pieces: ArrayVec<Piece, FRAGMENTS_PER_DATAGRAM>,
    /// Bytes that are there, and that there must be once the last piece is.
    present: u16,
    total: Option<u16>,
    /// `None`: it is spoilt.
    buffer: Option<B>,
}

/// What a piece did.
#[derive(Debug, PartialEq, Eq)]
pub enum Added {
    /// It is the first of its datagram; [`Table::begin`] takes the buffer for it.
    New,
    /// Its bytes go into the buffer in this slot.
    Place(usize),
    /// So do they, and then the datagram is complete: [`Table::take`].
    Complete(usize),
    /// It is of no use.
    Useless(Drop),
}

/// All of one core.
#[derive(Debug)]
pub struct Table<B> {
    slots: Box<ArrayVec<Assembly<B>, FRAGMENTED_DATAGRAMS_MAX>>,
    /// The longest payload that a buffer takes.
    longest: u16,
}

impl<B> Table<B> {
    /// An empty one, for payloads of at most `longest` bytes.
    pub fn new(longest: u16) -> Table<B> {
        Table { slots: Box::default(), longest }
    }

    /// Takes note of a piece. A buffer that is not needed any more goes to `free`.
    pub fn add(&mut self, key: &Key, piece: Piece, free: impl FnOnce(B)) -> Added {
        if !piece.last && !piece.len.is_multiple_of(8) || piece.len == 0 {
            return Added::Useless(Drop::IpMalformed);
        }
        let Some(slot) = self.slots.iter().position(|assembly| assembly.key == *key) else {
            let fits = piece.end() <= u32::from(self.longest);
            return if fits { Added::New } else { Added::Useless(Drop::FragmentTooLong) };
        };
        let longest = self.longest;
        let assembly = &mut self.slots[slot];
        if assembly.buffer.is_none() {
            return Added::Useless(Drop::FragmentOverlap);
        }
        if assembly.pieces.contains(&piece) {
            return Added::Useless(Drop::FragmentAgain);
        }
        if let Err(reason) = assembly.check(piece, longest) {
            if let Some(buffer) = assembly.buffer.take() {
                free(buffer);
            }
            return Added::Useless(reason);
        }
        assembly.note(piece);
        if assembly.total == Some(assembly.present) {
            Added::Complete(slot)
        } else {
            Added::Place(slot)
        }
    }

    /// Begins a datagram with the piece that [`Table::add`] found new, and the buffer that its bytes
    /// are in; the slot. If there are too many the oldest goes, its buffer to `free`. A piece that
    /// is all of it is none.
    pub fn begin(
        &mut self,
        key: Key,
        piece: Piece,
        buffer: B,
        now: Instant,
        free: impl FnOnce(B),
    ) -> usize {
        if self.slots.is_full() {
            // In order of age: all wait equally long.
            if let Some(buffer) = self.slots.remove(0).buffer {
                free(buffer);
            }
        }
        let until = now + FRAGMENT_TIMEOUT;
        let pieces = ArrayVec::new();
        let buffer = Some(buffer);
        let mut assembly = Assembly { key, until, pieces, present: 0, total: None, buffer };
        assembly.note(piece);
        self.slots.push(assembly);
        self.slots.len() - 1
    }

    /// The buffer in a slot that [`Table::add`] or [`Table::begin`] has named.
    pub fn buffer(&mut self, slot: usize) -> Option<&mut B> {
        self.slots.get_mut(slot)?.buffer.as_mut()
    }

    /// Takes a complete datagram out: its buffer and how many bytes it has.
    pub fn take(&mut self, slot: usize) -> Option<(B, u16)> {
        let assembly = self.slots.remove(slot);
        Some((assembly.buffer?, assembly.total?))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Buffers in use.
    pub fn buffers(&self) -> usize {
        self.slots.iter().filter(|assembly| assembly.buffer.is_some()).count()
    }

    /// When the oldest has waited for long enough.
    pub fn next_deadline(&self) -> Instant {
        self.slots.first().map_or(Instant::NEVER, |assembly| assembly.until)
    }

    /// One that has waited for too long, out of the table: its buffer, if it was not spoilt.
    pub fn pop_expired(&mut self, now: Instant) -> Option<Option<B>> {
        if self.next_deadline() > now {
            return None;
        }
        Some(self.slots.remove(0).buffer)
    }
}

impl<B> Assembly<B> {
    /// Whether the piece fits to those that are there.
    fn check(&self, piece: Piece, longest: u16) -> Result<(), Drop> {
        if piece.end() > u32::from(longest) {
            return Err(Drop::FragmentTooLong);
        }
        if self.pieces.is_full() {
            return Err(Drop::FragmentsFull);
        }
        let end = self.pieces.iter().map(Piece::end).max().unwrap_or(0);
        let beyond = self.total.is_some_and(|total| piece.last || piece.end() > u32::from(total));
        if beyond || piece.last && piece.end() < end {
            return Err(Drop::FragmentOverlap);
        }
        let overlaps = |other: &Piece| {
            u32::from(piece.offset) < other.end() && u32::from(other.offset) < piece.end()
        };
        if self.pieces.iter().any(overlaps) { Err(Drop::FragmentOverlap) } else { Ok(()) }
    }

    fn note(&mut self, piece: Piece) {
        self.pieces.push(piece);
        self.present += piece.len;
        if piece.last {
            self.total = Some(piece.offset + piece.len);
        }
    }
}

#[cfg(test)]
mod tests;
