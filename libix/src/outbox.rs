//! Bytes on their way out of one connection: whose memory they are in, how far they have got.
//!
//! ```text
//!   segments:  [ ####### | ####### | ####### | ....... ]
//!                 ^ sent            ^ offered           ^ end
//! ```
//! Before `sent` memory is free again and its segment dropped; between `sent` and `offered` the
//! kernel refers to it; after `offered` it waits for the window.

use crate::inbox::Piece;
use crate::pool::{CHUNK_BYTES, Chunk, Pool};
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;
use ix_abi::SgEntry;
use ix_abi::limits::{SG_BYTES_MAX, SG_MAX};

#[cfg(test)]
mod tests;

/// The pieces of memory of one `sendv`, in the making.
#[derive(Debug)]
pub struct SgList {
    entries: ArrayVec<SgEntry, SG_MAX>,
    bytes: u64,
}

impl SgList {
    pub(crate) fn new() -> SgList {
        SgList { entries: ArrayVec::new(), bytes: 0 }
    }

    /// Adds a piece, which stays where and as it is until it is reported as sent. Returns how many
    /// of its bytes were taken: none if the list is full.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.push_entry(entry(bytes)) as usize
    }

    /// How many more pieces it takes.
    pub fn room(&self) -> usize {
        self.entries.remaining_capacity()
    }

    /// Bytes in it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn entries(&self) -> &[SgEntry] {
        &self.entries
    }

    #[inline]
    fn push_entry(&mut self, mut entry: SgEntry) -> u64 {
        entry.len = entry.len.min(u64::from(SG_BYTES_MAX));
        if entry.len == 0 || self.entries.try_push(entry).is_err() {
            return 0;
        }
        self.bytes += entry.len;
        entry.len
    }
}

/// Where some memory is.
pub(crate) fn entry(bytes: &[u8]) -> SgEntry {
    SgEntry { addr: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

/// Memory that an application sends from without copying.
///
/// The bytes must stay where they are and as they are for as long as the value lives, also when it
/// is moved: so a `Box`, an `Arc` or a guard of pinned memory, not an array by value. libix drops
/// the value when the kernel has reported the bytes as sent. Breaking the rule endangers no
/// memory: the kernel only reads, and the peer gets what is there.
pub trait Buf: Send + 'static {
    /// The bytes.
    fn bytes(&self) -> &[u8];
}

impl Buf for &'static [u8] {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Buf for alloc::boxed::Box<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Buf for alloc::vec::Vec<u8> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

impl Buf for alloc::sync::Arc<[u8]> {
    fn bytes(&self) -> &[u8] {
        self
    }
}

/// For applications that send only received, static or copied bytes.
#[derive(Debug)]
pub enum NoBuf {}

impl Buf for NoBuf {
    fn bytes(&self) -> &[u8] {
        match *self {}
    }
}

/// A run of outgoing bytes in one kind of memory.
pub(crate) enum Segment<B> {
    Static(&'static [u8]),
    Buf(B),
    /// Copied bytes; the last one grows.
    Chunk(Chunk, u32),
    /// Received bytes, going out again: to be returned when sent, and `then_done` more with them.
    Received {
        piece: Piece,
        then_done: u32,
    },
}

impl<B: Buf> Segment<B> {
    fn as_sg(&self) -> SgEntry {
        let bytes = match self {
            Segment::Static(bytes) => bytes,
            Segment::Buf(buf) => buf.bytes(),
            Segment::Chunk(chunk, len) => &chunk[..*len as usize],
            Segment::Received { piece, .. } => {
                return SgEntry { addr: piece.addr, len: u64::from(piece.len) };
            }
        };
        entry(bytes)
    }
}

/// A place in the queue: before byte `offset` of segment `index`.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    index: usize,
    offset: u64,
}

pub(crate) struct Outbox<B> {
    segments: VecDeque<Segment<B>>,
    /// Bytes of the first segment that are sent.
    sent: u64,
    offered: Cursor,
    /// Bytes after `offered`.
    waiting: u64,
    /// Bytes between `sent` and `offered`.
    in_flight: u64,
    /// Segments ever removed, to number them.
    removed: u64,
    /// Number of the newest received segment, plus 1; 0 if there is none.
    newest_received: u64,
}

impl<B: Buf> Outbox<B> {
    pub(crate) fn new() -> Outbox<B> {
        Outbox {
            segments: VecDeque::new(),
            sent: 0,
            offered: Cursor::default(),
            waiting: 0,
            in_flight: 0,
            removed: 0,
            newest_received: 0,
        }
    }

    /// Bytes that the kernel has not been offered yet, or has refused.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    pub(crate) fn push(&mut self, segment: Segment<B>) {
        let len = segment.as_sg().len;
        if len > 0 {
            self.waiting += len;
            self.segments.push_back(segment);
        }
    }

    pub(crate) fn push_received(&mut self, piece: Piece) {
        self.push(Segment::Received { piece, then_done: 0 });
        self.newest_received = self.removed + self.segments.len() as u64;
    }

    /// Copies `bytes`, into the last chunk if it has room.
    pub(crate) fn write(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        self.waiting += bytes.len() as u64;
        while !bytes.is_empty() {
            if let Some(Segment::Chunk(chunk, len)) = self.segments.back_mut()
                && (*len as usize) < CHUNK_BYTES
            {
                let room = &mut chunk[*len as usize..];
                let n = room.len().min(bytes.len());
                let (head, tail) = bytes.split_at(n);
                room[..n].copy_from_slice(head);
                *len += n as u32;
                bytes = tail;
            } else {
                self.segments.push_back(Segment::Chunk(pool.take(), 0));
            }
        }
    }

    /// Has `bytes` returned together with the newest received segment; `false` if there is none.
    pub(crate) fn done_after(&mut self, bytes: u32) -> bool {
        let Some(index) = self.newest_received.checked_sub(self.removed + 1) else { return false };
        match self.segments.get_mut(index as usize) {
            Some(Segment::Received { then_done, .. }) => {
                *then_done += bytes;
                true
            }
            _ => false,
        }
    }

    /// Fills `sg` with what waits, oldest first, which counts as offered then.
    pub(crate) fn offer(&mut self, sg: &mut SgList) {
        let before = sg.bytes();
        while self.waiting > sg.bytes() - before
            && let Some(segment) = self.segments.get(self.offered.index)
        {
            let SgEntry { addr, len } = segment.as_sg();
            if len == self.offered.offset {
                self.offered = Cursor { index: self.offered.index + 1, offset: 0 };
                continue;
            }
            let at = self.offered.offset;
            let taken = sg.push_entry(SgEntry { addr: addr + at, len: len - at });
            if taken == 0 {
                break;
            }
            self.offered.offset += taken;
        }
        let bytes = sg.bytes() - before;
        self.waiting -= bytes;
        self.in_flight += bytes;
    }

    /// Takes back the last `bytes` of what was offered: the kernel refused them.
    pub(crate) fn refuse(&mut self, bytes: u64) {
        let mut left = bytes.min(self.in_flight);
        self.in_flight -= left;
        self.waiting += left;
        while left > self.offered.offset {
            left -= self.offered.offset;
            let Some(index) = self.offered.index.checked_sub(1) else { break };
            let len = self.segments.get(index).map_or(0, |segment| segment.as_sg().len);
            self.offered = Cursor { index, offset: len };
        }
        self.offered.offset -= left.min(self.offered.offset);
    }

    /// The kernel has reported `bytes` more as sent: drops what they were in. Returns how many
    /// received bytes may be returned now.
    pub(crate) fn sent(&mut self, bytes: u64, pool: &mut Pool) -> u64 {
        let mut left = bytes.min(self.in_flight);
        self.in_flight -= left;
        let mut done = 0;
        while left > 0 {
            let Some(front) = self.segments.front() else { break };
            let rest = front.as_sg().len - self.sent;
            if left < rest {
                self.sent += left;
                break;
            }
            left -= rest;
            done += self.remove_front(pool);
        }
        done
    }

    fn remove_front(&mut self, pool: &mut Pool) -> u64 {
        self.sent = 0;
        self.removed += 1;
        match self.offered.index.checked_sub(1) {
            Some(index) => self.offered.index = index,
            None => self.offered.offset = 0,
        }
        match self.segments.pop_front() {
            Some(Segment::Received { piece, then_done }) => {
                u64::from(piece.len) + u64::from(then_done)
            }
            Some(Segment::Chunk(chunk, _)) => {
                pool.give(chunk);
                0
            }
            Some(Segment::Static(_) | Segment::Buf(_)) | None => 0,
        }
    }

    /// Drops everything; `dead` has come.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        while !self.segments.is_empty() {
            self.remove_front(pool);
        }
        (self.waiting, self.in_flight) = (0, 0);
        self.offered = Cursor::default();
    }
}
