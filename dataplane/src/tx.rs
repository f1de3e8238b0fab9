//! The transmit stage's memory: header slots used in turn, frames built outside of connections, and
//! what is to be done when a frame has left.
//!
//! Frames are numbered as they are pushed; they complete in order. Slot `(n - base) % TX_HEADER_SLOTS` is
//! frame `n`'s, so nothing needs to remember which slot a frame used; `base` changes when no frame is in flight.
#![allow(unsafe_code, reason = "header slots are memory shared with the device")]

use crate::device::{BusAddr, DmaRegion, Fragment, TxChecksum, TxFrame, TxFull, TxQueue};
use crate::limits::{STAGED_MAX, TX_HEADER_BYTES, TX_HEADER_REGION_BYTES, TX_HEADER_SLOTS};
use crate::mbuf::Mbuf;
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;
use core::ptr::NonNull;
use ix_abi::stats::{CoreStats, Counter};

/// The header slots.
#[derive(Debug)]
struct Headers {
    ptr: NonNull<u8>,
    bus: BusAddr,
}

// SAFETY: the region is plain memory that this value alone uses.
unsafe impl Send for Headers {}

impl Headers {
    fn slot(&mut self, number: u32) -> (&mut [u8; TX_HEADER_BYTES], BusAddr) {
        let at = (number as usize % TX_HEADER_SLOTS) * TX_HEADER_BYTES;
        // SAFETY: the region has `TX_HEADER_SLOTS` slots and is borrowed mutably; the device reads
        // only slots of frames in flight, of which this is none (`Tx::ready`).
        let slot = unsafe { self.ptr.add(at).cast().as_mut() };
        (slot, self.bus.offset(at as u64))
    }
}

/// A frame built outside of a connection.
#[derive(Debug)]
pub enum Staged {
    /// A short one, complete.
    Bytes(ArrayVec<u8, 96>),
    /// A received one, turned into its answer in place.
    Buffer {
        /// The buffer.
        mbuf: Mbuf,
        /// Where the frame starts.
        offset: u16,
        /// Its length.
        len: u16,
    },
    /// A datagram of the application, by its index, and the Ethernet address it goes to.
    Datagram {
        /// See `udp::Datagrams`.
        index: u32,
        /// The next hop.
        mac: [u8; 6],
    },
}

/// What to do when a frame has left.
#[derive(Debug)]
pub enum Completion {
    /// Free the buffer.
    Buffer(Mbuf),
    /// Tell the application.
    Datagram(u32),
}

/// The transmit stage of one core.
#[derive(Debug)]
pub struct Tx {
    headers: Headers,
    /// Number of the next frame.
    next: u32,
    /// All before this one have left.
    completed: u32,
    /// The frame that has the first header slot.
    base: u32,
    staged: VecDeque<Staged>,
    /// So many staged frames have been handed to the queue.
    unstaged: u32,
    completions: VecDeque<(u32, Completion)>,
    frame: TxFrame,
}

impl Tx {
    /// A transmit stage with header slots in `region`.
    pub fn new(region: &DmaRegion) -> Tx {
        assert!(region.len >= TX_HEADER_REGION_BYTES, "header region of {} bytes", region.len);
        Tx {
            headers: Headers { ptr: region.ptr, bus: region.bus },
            next: 0,
            completed: 0,
            base: 0,
            staged: VecDeque::with_capacity(STAGED_MAX),
            unstaged: 0,
            completions: VecDeque::with_capacity(TX_HEADER_SLOTS),
            frame: TxFrame::default(),
        }
    }

    /// Number of the next frame.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        self.next
    }

    /// Whether frame `number` has left; `number` is at most `2^31` frames old.
    #[inline(always)]
    pub fn has_left(&self, number: u32) -> bool {
        (number.wrapping_sub(self.completed) as i32) < 0
    }

    /// Frames that the device has not completed.
    pub fn in_flight(&self) -> u32 {
        self.next.wrapping_sub(self.completed)
    }

    /// Asks the queue what has completed; also if nothing of ours can have, since others may send
    /// through this queue (`steer::MuxTx`). A queue that claims too much is not believed.
    #[inline]
    pub fn reclaim<T: TxQueue>(&mut self, queue: &mut T) {
        let completed = queue.reclaim();
        if completed >= self.in_flight() {
            // None is in use: begin again with those that were used last, which are in the caches.
            self.completed = self.next;
            self.base = self.next;
        } else {
            self.completed = self.completed.wrapping_add(completed);
        }
    }

    /// Whether a header slot is free.
    #[inline(always)]
    pub fn ready(&self) -> bool {
        // Nearly always the slots are in their first round: one comparison tells that, and which.
        if self.next.wrapping_sub(self.base) < TX_HEADER_SLOTS as u32 {
            return true;
        }
        core::hint::cold_path();
        self.in_flight() < TX_HEADER_SLOTS as u32
    }

    /// The next frame's header slot; [`Tx::ready`] has said yes.
    #[inline(always)]
    pub fn header(&mut self) -> &mut [u8; TX_HEADER_BYTES] {
        self.headers.slot(self.next.wrapping_sub(self.base)).0
    }

    /// Begins the frame whose first `len` bytes are in the header slot.
    #[inline]
    pub fn begin(&mut self, len: usize) -> &mut TxFrame {
        let (_, bus) = self.headers.slot(self.next.wrapping_sub(self.base));
        self.frame.fragments.clear();
        self.frame.fragments.push(Fragment { bus, len: len as u32 });
        self.frame.checksum = None;
        self.frame.gso = None;
        &mut self.frame
    }

    /// The next frame's header slot and where the device finds it; [`Tx::ready`] has said yes.
    #[inline(always)]
    pub fn slot(&mut self) -> (&mut [u8; TX_HEADER_BYTES], BusAddr) {
        self.headers.slot(self.next.wrapping_sub(self.base))
    }

    /// Hands the begun frame to the queue.
    #[inline]
    pub fn push<T: TxQueue>(
        &mut self,
        queue: &mut T,
        stats: &mut CoreStats,
    ) -> Result<u32, TxFull> {
        self.push_begun(queue, stats, self.frame.len())
    }

    /// The same where the frame is known to have `bytes` bytes.
    #[inline(always)]
    pub fn push_begun<T: TxQueue>(
        &mut self,
        queue: &mut T,
        stats: &mut CoreStats,
        bytes: usize,
    ) -> Result<u32, TxFull> {
        // The bytes apart from the frame, else vectors are made of the two.
        stats.add(Counter::TxBytes, bytes as u64);
        if queue.push(&self.frame).is_err() {
            stats.add(Counter::TxBytes, (bytes as u64).wrapping_neg());
            return Err(TxFull);
        }
        let number = self.next;
        self.next = number.wrapping_add(1);
        stats.add(Counter::TxPackets, 1);
        Ok(number)
    }

    /// Hands a frame of headers in the next slot, and of one piece of payload, to the queue. Not for the tap: see
    /// [`Tx::last`]. Its bytes are the caller's to count.
    #[inline(always)]
    pub fn push_pair<T: TxQueue>(
        &mut self,
        queue: &mut T,
        stats: &mut CoreStats,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<u32, TxFull> {
        queue.push_pair(headers, payload, checksum)?;
        let number = self.next;
        self.next = number.wrapping_add(1);
        stats.add(Counter::TxPackets, 1);
        Ok(number)
    }

    /// The headers of the frame that was pushed last, which had them in its slot, whether its
    /// checksum is the device's to complete, and whether the device cuts it.
    pub fn last(&mut self) -> (&[u8], bool, bool) {
        let len = self.frame.fragments.first().map_or(0, |f| f.len as usize);
        let (partial, large) = (self.frame.checksum.is_some(), self.frame.gso.is_some());
        // In flight already: the device reads it too, and nobody writes it.
        let (slot, _) = self.headers.slot(self.next.wrapping_sub(self.base).wrapping_sub(1));
        (slot.get(..len).unwrap_or(&[]), partial, large)
    }

    /// Hands over a frame that is all in one received buffer.
    pub fn push_buffer<T: TxQueue>(
        &mut self,
        queue: &mut T,
        stats: &mut CoreStats,
        fragment: Fragment,
    ) -> Result<u32, TxFull> {
        self.frame.fragments.clear();
        self.frame.fragments.push(fragment);
        self.frame.checksum = None;
        self.frame.gso = None;
        self.push(queue, stats)
    }

    /// Keeps a frame for the transmit stage; back if too many wait.
    pub fn stage(&mut self, staged: Staged) -> Result<(), Staged> {
        if self.staged.len() >= STAGED_MAX {
            return Err(staged);
        }
        self.staged.push_back(staged);
        Ok(())
    }

    /// The oldest staged frame.
    #[inline]
    pub fn pop_staged(&mut self) -> Option<Staged> {
        let staged = self.staged.pop_front()?;
        self.unstaged = self.unstaged.wrapping_add(1);
        Some(staged)
    }

    /// Puts a staged frame back where it was.
    pub fn unpop_staged(&mut self, staged: Staged) {
        self.unstaged = self.unstaged.wrapping_sub(1);
        self.staged.push_front(staged);
    }

    /// The oldest staged frame, which goes behind the others by [`Tx::stage`], or is given up.
    pub fn turn_staged(&mut self) -> Option<Staged> {
        self.staged.pop_front()
    }

    /// Where the staged frames end now, for [`Tx::is_unstaged`].
    pub fn staged_end(&self) -> u32 {
        self.unstaged.wrapping_add(self.staged.len() as u32)
    }

    /// Whether all frames that were staged before `end` have been handed to the queue, or given up. (One that was given up
    /// does not count: then rather late than early, when none is staged.)
    pub fn is_unstaged(&self, end: u32) -> bool {
        self.staged.is_empty() || self.unstaged.wrapping_sub(end) as i32 >= 0
    }

    /// How many frames are staged.
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// A staged datagram of the application, which is not going to be sent.
    pub fn take_staged_datagram(&mut self) -> Option<u32> {
        let datagram = |s: &Staged| matches!(s, Staged::Datagram { .. });
        let at = self.staged.iter().position(datagram)?;
        match self.staged.remove(at) {
            Some(Staged::Datagram { index, .. }) => Some(index),
            _ => None,
        }
    }

    /// Whether frames are staged.
    #[inline]
    pub fn has_staged(&self) -> bool {
        !self.staged.is_empty()
    }

    /// Remembers what to do when frame `number`, the last pushed, has left.
    pub fn on_completion(&mut self, number: u32, what: Completion) {
        self.completions.push_back((number, what));
    }

    /// Whether anything is to be done for frames, now or later.
    #[inline(always)]
    pub fn has_completions(&self) -> bool {
        !self.completions.is_empty()
    }

    /// What is to be done now.
    #[inline]
    pub fn pop_completion(&mut self) -> Option<Completion> {
        let (number, _) = self.completions.front()?;
        if !self.has_left(*number) {
            return None;
        }
        self.completions.pop_front().map(|(_, what)| what)
    }

    /// Frees nothing, tells nothing: for conservation checks.
    pub fn buffers_in_flight(&self) -> usize {
        let flying = |(_, what): &&(u32, Completion)| matches!(what, Completion::Buffer(_));
        let staged = |s: &&Staged| matches!(s, Staged::Buffer { .. });
        self.completions.iter().filter(flying).count() + self.staged.iter().filter(staged).count()
    }
}

#[cfg(test)]
mod tests;
