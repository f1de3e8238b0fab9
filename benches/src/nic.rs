//! A network card in memory: descriptors are written and read as a driver would, nothing is allocated or
//! copied, everything that was pushed has left at the next look.
use crate::memory;
use ix_dataplane::device::{
    Fragment, RxBatch, RxChecksum, RxFrame, RxQueue, TxChecksum, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Area, Mbuf, Pool, Rest, RestBuilder};
use std::sync::atomic::{AtomicU32, Ordering};

/// Receive descriptors; a power of two.
pub const RX_RING: usize = 256;
/// Transmit descriptors; a power of two.
const TX_RING: usize = 1024;

/// Descriptors that are missing before some are posted, as the driver of the 82599 has it.
const REPLENISH_MIN: usize = 16;

/// What the card writes when a frame has arrived, and into which buffer: all that a driver can tell of it. If the card knows the
/// hash, then the checksums are right, too.
#[derive(Debug)]
#[repr(align(32))]
struct Filled(RxFrame);

impl Default for Filled {
    fn default() -> Filled {
        Filled::new(Mbuf::from_raw(0), 0, 0, None)
    }
}

impl Filled {
    /// A frame in one buffer.
    fn new(mbuf: Mbuf, offset: u16, len: u16, hash: Option<u32>) -> Filled {
        let checksum = if hash.is_some() { RxChecksum::Good } else { RxChecksum::Unknown };
        Filled(RxFrame { mbuf, offset, len, rest: Rest::NONE, merged: 0, checksum, hash })
    }

    /// The frame, which is the reader's from now on; its slot is not read again before another has come.
    #[inline(always)]
    fn take(&self) -> RxFrame {
        let Filled(frame) = self;
        let (mbuf, rest) = (Mbuf::from_raw(frame.mbuf.index()), Rest::from_raw(frame.rest.first()));
        RxFrame { mbuf, rest, ..*frame }
    }
}

/// The receive queue. The ring of posted buffers is memory that a card would read. Counts are of frames since the beginning, each at most a ring ahead of the next.
#[derive(Debug)]
pub struct Rx {
    posted: Box<[AtomicU32; RX_RING]>,
    filled: Box<[Filled; RX_RING]>,
    posted_count: usize,
    filled_count: usize,
    /// What the driver sees of those.
    shown_count: usize,
    polled_count: usize,
    /// Frames that arrive are not shown yet.
    held: bool,
}

impl Default for Rx {
    fn default() -> Rx {
        Rx {
            posted: Box::new([const { AtomicU32::new(0) }; RX_RING]),
            filled: Box::new(std::array::from_fn(|_| Filled::default())),
            posted_count: 0,
            filled_count: 0,
            shown_count: 0,
            polled_count: 0,
            held: false,
        }
    }
}

impl Rx {
    /// Frames that were not polled.
    pub fn waiting(&self) -> usize {
        self.shown_count - self.polled_count
    }

    /// Frames that arrive from now on are on their way until [`Rx::show`], or not any more.
    pub fn hold(&mut self, held: bool) {
        self.held = held;
        self.shown_count = self.filled_count;
    }

    /// One of those on their way is there.
    #[inline]
    pub fn show(&mut self) {
        self.shown_count += 1;
        debug_assert!(self.shown_count <= self.filled_count);
    }

    /// The rest of the frame that has arrived last fills further buffers; it is made of segments of `merged` bytes of
    /// payload.
    pub fn go_on(&mut self, area: &Area, mut bytes: &[u8], merged: u16) {
        let mut rest = RestBuilder::new();
        while !bytes.is_empty() {
            assert!(self.filled_count != self.posted_count, "a posted buffer");
            let (part, more) = bytes.split_at(bytes.len().min(MBUF_BYTES));
            // The frame's place in the ring stays its first buffer's: the last posted one moves up.
            self.posted_count -= 1;
            let at = self.posted_count % RX_RING;
            let mut mbuf = Mbuf::from_raw(self.posted[at].load(Ordering::Relaxed));
            area.data_mut(&mut mbuf)[..part.len()].copy_from_slice(part);
            rest.push(area, mbuf, 0, part.len() as u16);
            bytes = more;
        }
        let Filled(frame) = &mut self.filled[(self.filled_count - 1) % RX_RING];
        frame.rest = rest.finish();
        frame.merged = merged;
    }

    /// Posts buffers until the ring is full or the pool empty.
    #[inline(never)]
    fn post(&mut self, pool: &mut Pool) {
        let mut left = self.polled_count + RX_RING - self.posted_count;
        while left > 0 {
            // Up to the ring's end, then from its start.
            let at = self.posted_count % RX_RING;
            let cells = &self.posted[at..(at + left).min(RX_RING)];
            let posted = pool.alloc_for(cells.iter(), |cell, mbuf| {
                cell.store(mbuf.into_raw(), Ordering::Relaxed);
            });
            self.posted_count += posted;
            left -= posted;
            if posted < cells.len() {
                break;
            }
        }
    }

    /// A frame arrives: `fill` writes it into the posted buffer that it gets, and says where it is (offset and
    /// length) and its hash, if the card knows that and that the checksums are right.
    pub fn arrive(&mut self, fill: impl FnOnce(&mut Mbuf) -> (u16, u16, Option<u32>)) {
        assert!(self.filled_count != self.posted_count, "a posted buffer");
        let at = self.filled_count % RX_RING;
        self.filled_count += 1;
        let mut mbuf = Mbuf::from_raw(self.posted[at].load(Ordering::Relaxed));
        let (offset, len, hash) = fill(&mut mbuf);
        self.filled[at] = Filled::new(mbuf, offset, len, hash);
        if !self.held {
            self.shown_count = self.filled_count;
        }
    }
}

impl RxQueue for Rx {
    #[inline]
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let from = self.polled_count;
        let until = self.shown_count.min(from + max);
        let mut at = from;
        while at != until {
            if batch.try_push(self.filled[at % RX_RING].take()).is_err() {
                break;
            }
            at += 1;
        }
        self.polled_count = at;
        at - from
    }
    #[inline]
    fn lone(&mut self) -> Option<&RxFrame> {
        if self.shown_count - self.polled_count != 1 {
            return None;
        }
        let Filled(frame) = &self.filled[self.polled_count % RX_RING];
        Some(frame)
    }
    #[inline]
    fn took_lone(&mut self) {
        self.polled_count += 1;
    }
    fn waiting(&self) -> usize {
        self.shown_count - self.polled_count
    }
    #[inline]
    fn replenish(&mut self, pool: &mut Pool) {
        if self.posted_count - self.polled_count <= RX_RING - REPLENISH_MIN {
            self.post(pool);
        }
    }
    fn arm_interrupt(&mut self) -> bool {
        false
    }
    fn disarm_interrupt(&mut self) {}
    fn device_errors(&self) -> u64 {
        0
    }
}

/// A piece of a frame. All but the last say [`MORE`] beside their length.
#[derive(Clone, Copy, Debug, Default)]
struct Descriptor {
    bus: u64,
    len: u32,
}

/// The next descriptor has more of the frame.
const MORE: u32 = 1 << 31;

/// The transmit queue.
#[derive(Debug)]
pub struct Tx {
    ring: Box<[Descriptor; TX_RING]>,
    /// Next to write, next to be looked at by the network.
    written: usize,
    looked: usize,
    /// Frames, what of them was completed and what the card was told of.
    frames: u32,
    completed: u32,
    rung: u32,
}

impl Default for Tx {
    fn default() -> Tx {
        let ring = Box::new([Descriptor::default(); TX_RING]);
        Tx { ring, written: 0, looked: 0, frames: 0, completed: 0, rung: 0 }
    }
}

impl Tx {
    /// The bytes of the oldest frame that the network has not seen; `false`: there is none.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> bool {
        assert!(self.written - self.looked <= TX_RING, "frames went unseen");
        bytes.clear();
        while self.looked != self.written {
            let Descriptor { bus, len } = self.ring[self.looked % TX_RING];
            self.looked += 1;
            memory::gather(bus, len & !MORE, bytes);
            if len & MORE == 0 {
                return true;
            }
        }
        false
    }

    /// The network has seen all.
    pub fn skip(&mut self) {
        self.looked = self.written;
    }
}

impl TxQueue for Tx {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        for fragment in &frame.fragments {
            let (bus, len) = (fragment.bus.0, fragment.len | MORE);
            self.ring[self.written % TX_RING] = Descriptor { bus, len };
            self.written += 1;
        }
        self.ring[self.written.wrapping_sub(1) % TX_RING].len &= !MORE;
        self.frames = self.frames.wrapping_add(1);
        Ok(())
    }
    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        _checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        for (Fragment { bus, len }, more) in [(headers, MORE), (payload, 0)] {
            self.ring[self.written % TX_RING] = Descriptor { bus: bus.0, len: len | more };
            self.written += 1;
        }
        self.frames = self.frames.wrapping_add(1);
        Ok(())
    }
    #[inline]
    fn kick(&mut self) {
        // The doorbell is a store, if there is news.
        self.rung = self.frames;
    }
    #[inline]
    fn reclaim(&mut self) -> u32 {
        let completed = self.frames.wrapping_sub(self.completed);
        self.completed = self.frames;
        completed
    }
}
