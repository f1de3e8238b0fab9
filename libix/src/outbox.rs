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
    #[inline]
    pub(crate) fn new() -> SgList {
        SgList { entries: ArrayVec::new(), bytes: 0 }
    }

    /// Adds a piece, which stays where and as it is until it is reported as sent. Returns how many
    /// of its bytes were taken: none if the list is full.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        self.push_entry(entry(bytes)) as usize
    }

    /// How many more pieces it takes.
    #[inline]
    pub fn room(&self) -> usize {
        self.entries.remaining_capacity()
    }

    /// Bytes in it.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    #[inline]
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
#[inline]
pub(crate) fn entry(bytes: &[u8]) -> SgEntry {
    SgEntry { addr: bytes.as_ptr().expose_provenance() as u64, len: bytes.len() as u64 }
}

/// Memory that an application sends from without copying.
///
/// The bytes must stay where they are and as they are for as long as the value lives, also when it
/// is moved: so a `Box`, an `Arc` or a guard of pinned memory, not an array by value. libix asks
/// where they are once, and drops the value when the kernel has reported the bytes as sent. Breaking the rule endangers no
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

/// What a segment keeps alive while the kernel may read it, and what comes when it is sent.
enum Keep<B> {
    /// Constant bytes.
    Nothing,
    Buf(B),
    /// Copied bytes, from its beginning; the last one grows.
    Chunk(Chunk),
    /// Received bytes, going out again: to be returned when sent, and `then_done` more with them.
    Received {
        then_done: u64,
    },
}

/// A run of outgoing bytes in one kind of memory. Where it is does not change; a chunk's may get longer.
struct Segment<B> {
    at: SgEntry,
    keep: Keep<B>,
}

impl<B> Segment<B> {
    /// Nothing refers to it any more. How many received bytes may be returned.
    #[inline]
    fn remove(self, pool: &mut Pool) -> u64 {
        if let Keep::Received { then_done } = self.keep {
            return self.at.len + then_done;
        }
        self.release(pool);
        0
    }

    #[inline(never)]
    fn release(self, pool: &mut Pool) {
        if let Keep::Chunk(chunk) = self.keep {
            pool.give(chunk);
        }
    }
}

/// A place in the queue: before byte `offset` of segment `index`.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    index: usize,
    offset: u64,
}

/// The queue. There is nearly always one segment at most, which has a place of its own.
pub(crate) struct Outbox<B> {
    /// The oldest.
    front: Option<Segment<B>>,
    /// The others; empty if there is no oldest.
    rest: VecDeque<Segment<B>>,
    /// Bytes of the first segment that are sent.
    sent: u64,
    offered: Cursor,
    /// Bytes after `offered`.
    waiting: u64,
    /// Index of the newest received segment, plus 1; 0 if there is none.
    newest_received: usize,
}

impl<B: Buf> Outbox<B> {
    pub(crate) fn new() -> Outbox<B> {
        Outbox {
            front: None,
            rest: VecDeque::new(),
            sent: 0,
            offered: Cursor::default(),
            waiting: 0,
            newest_received: 0,
        }
    }

    /// Bytes that the kernel has not been offered yet, or has refused.
    #[inline]
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting
    }

    fn push(&mut self, at: SgEntry, keep: Keep<B>) {
        if at.len > 0 {
            self.waiting += at.len;
            self.append(Segment { at, keep });
        }
    }

    fn append(&mut self, segment: Segment<B>) {
        match &mut self.front {
            None => self.front = Some(segment),
            Some(_) => self.rest.push_back(segment),
        }
    }

    fn get(&mut self, index: usize) -> Option<&mut Segment<B>> {
        match index.checked_sub(1) {
            None => self.front.as_mut(),
            Some(index) => self.rest.get_mut(index),
        }
    }

    pub(crate) fn push_static(&mut self, bytes: &'static [u8]) {
        self.push(entry(bytes), Keep::Nothing);
    }

    pub(crate) fn push_buf(&mut self, buf: B) {
        self.push(entry(buf.bytes()), Keep::Buf(buf));
    }

    #[inline]
    pub(crate) fn push_received(&mut self, piece: Piece) {
        let at = SgEntry { addr: piece.addr, len: u64::from(piece.len) };
        self.waiting += at.len;
        if self.front.is_none() {
            self.front = Some(Segment { at, keep: Keep::Received { then_done: 0 } });
            self.newest_received = 1;
        } else {
            self.push_received_behind(at);
        }
    }

    #[cold]
    fn push_received_behind(&mut self, at: SgEntry) {
        self.rest.push_back(Segment { at, keep: Keep::Received { then_done: 0 } });
        self.newest_received = self.rest.len() + 1;
    }

    /// Copies `bytes`, into the last chunk if it has room.
    pub(crate) fn write(&mut self, mut bytes: &[u8], pool: &mut Pool) {
        self.waiting += bytes.len() as u64;
        while !bytes.is_empty() {
            let last = self.rest.back_mut().or(self.front.as_mut());
            if let Some(Segment { at, keep: Keep::Chunk(chunk) }) = last
                && (at.len as usize) < CHUNK_BYTES
            {
                let room = &mut chunk[at.len as usize..];
                let n = room.len().min(bytes.len());
                let (head, tail) = bytes.split_at(n);
                room[..n].copy_from_slice(head);
                at.len += n as u64;
                bytes = tail;
            } else {
                let chunk = pool.take();
                let at = SgEntry { len: 0, ..entry(&chunk[..]) };
                self.append(Segment { at, keep: Keep::Chunk(chunk) });
            }
        }
    }

    /// Has `bytes` returned together with the newest received segment; `false` if there is none.
    #[inline]
    pub(crate) fn done_after(&mut self, bytes: u64) -> bool {
        self.newest_received > 0 && self.add_done(bytes)
    }

    #[cold]
    fn add_done(&mut self, bytes: u64) -> bool {
        match self.get(self.newest_received - 1) {
            Some(Segment { keep: Keep::Received { then_done }, .. }) => {
                *then_done += bytes;
                true
            }
            _ => false,
        }
    }

    /// All that waits, if it is one piece, which counts as offered then. `None` does not say that nothing waits:
    /// [`Outbox::offer`] is the general way.
    #[inline]
    pub(crate) fn offer_one(&mut self) -> Option<SgEntry> {
        let SgEntry { addr, len } = self.front.as_ref()?.at;
        if !self.rest.is_empty() || self.waiting > u64::from(SG_BYTES_MAX) || self.waiting == 0 {
            return None;
        }
        // Of the one segment there is, what was not offered is what waits.
        let at = core::mem::replace(&mut self.offered.offset, len);
        self.waiting = 0;
        Some(SgEntry { addr: addr + at, len: len - at })
    }

    /// Fills `sg` with what waits, oldest first, which counts as offered then.
    pub(crate) fn offer(&mut self, sg: &mut SgList) {
        let before = sg.bytes();
        let Cursor { mut index, mut offset } = self.offered;
        while self.waiting > sg.bytes() - before
            && let Some(Segment { at: SgEntry { addr, len }, .. }) = self.get(index)
        {
            if *len == offset {
                (index, offset) = (index + 1, 0);
                continue;
            }
            let taken = sg.push_entry(SgEntry { addr: *addr + offset, len: *len - offset });
            if taken == 0 {
                break;
            }
            offset += taken;
        }
        self.offered = Cursor { index, offset };
        self.waiting -= sg.bytes() - before;
    }

    /// Takes back the last `bytes` of what was offered, which are not more than were offered and not sent: the
    /// kernel refused them.
    pub(crate) fn refuse(&mut self, bytes: u64) {
        let mut left = bytes;
        self.waiting += left;
        while left > self.offered.offset {
            left -= self.offered.offset;
            let Some(index) = self.offered.index.checked_sub(1) else { break };
            let offset = self.get(index).map_or(0, |segment| segment.at.len);
            self.offered = Cursor { index, offset };
        }
        self.offered.offset -= left.min(self.offered.offset);
    }

    /// The kernel has reported `bytes` more as sent, which are not more than were offered: drops what they were
    /// in. Returns how many received bytes may be returned now.
    #[inline]
    pub(crate) fn sent(&mut self, bytes: u64, pool: &mut Pool) -> u64 {
        match &self.front {
            Some(front) if self.rest.is_empty() && front.at.len - self.sent == bytes => {
                self.remove_only(pool)
            }
            _ => self.sent_pieces(bytes, pool),
        }
    }

    #[inline(never)]
    fn sent_pieces(&mut self, bytes: u64, pool: &mut Pool) -> u64 {
        let mut left = bytes;
        let mut done = 0;
        while left > 0
            && let Some(front) = &self.front
        {
            let rest = front.at.len - self.sent;
            if left < rest {
                self.sent += left;
                break;
            }
            left -= rest;
            done += self.remove_front(pool);
        }
        done
    }

    /// Removes the only segment there is, all of which was offered.
    #[inline]
    fn remove_only(&mut self, pool: &mut Pool) -> u64 {
        debug_assert!(self.offered.index == 0 && self.waiting == 0);
        (self.sent, self.offered.offset) = (0, 0);
        self.newest_received = 0;
        self.front.take().map_or(0, |segment| segment.remove(pool))
    }

    fn remove_front(&mut self, pool: &mut Pool) -> u64 {
        self.sent = 0;
        self.newest_received = self.newest_received.saturating_sub(1);
        match self.offered.index.checked_sub(1) {
            Some(index) => self.offered.index = index,
            None => self.offered.offset = 0,
        }
        let front = core::mem::replace(&mut self.front, self.rest.pop_front());
        front.map_or(0, |segment| segment.remove(pool))
    }

    /// Drops everything; `dead` has come.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        while self.front.is_some() {
            self.remove_front(pool);
        }
        self.waiting = 0;
        self.offered = Cursor::default();
    }
}
