//! The contract with network drivers: what a queue does, what a frame is, what memory they share.
//!
//! A driver turns a NIC into receive and transmit queues, which are plain values: a core polls the
//! ones it holds, and handing a queue to another core is a move. Nothing here is called
//! concurrently for one queue. A driver never trusts what its device writes: it keeps a shadow of
//! what it posted and counts answers that make no sense.
//!
//! Here is what the core loop calls for frames; what it takes to steer, stop and start a port is in `port`.
use crate::limits::{RX_BATCH_MAX, TX_FRAGS_MAX};
use crate::mbuf::{Mbuf, Pool, Rest};
use arrayvec::ArrayVec;
use core::ptr::NonNull;

mod dispatch;
mod port;

pub use port::{Clock, Nic, NicControl, NicRx, NicTx, Progress};

/// An address as a device sees it. Comes only from a [`Dma`] service or from what it registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BusAddr(pub u64);

impl BusAddr {
    /// The address `bytes` further on.
    #[must_use]
    pub const fn offset(self, bytes: u64) -> BusAddr {
        BusAddr(self.0.wrapping_add(bytes))
    }
}

/// What a receive queue knows about a frame's checksums.
///
/// As long as its neighbours in [`RxFrame`], so that a frame has no gaps and is copied as whole words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u16)]
pub enum RxChecksum {
    /// Nothing: verify in software.
    #[default]
    Unknown,
    /// IP and transport checksums are right, or need not be (the sender was on this machine).
    Good,
}

/// A received frame: buffers that are now the receiver's. All but large ones have one.
#[derive(Debug)]
#[must_use = "a dropped frame leaks its buffers: give them back to a pool"]
pub struct RxFrame {
    /// The first buffer, which holds all headers.
    pub mbuf: Mbuf,
    /// Where the Ethernet header starts in it.
    pub offset: u16,
    /// Bytes from there in this buffer, without FCS; `offset + len` is within it (the driver checks).
    pub len: u16,
    /// The buffers that continue the frame.
    pub rest: Rest,
    /// Payload of each TCP segment but the last, if the device made one frame of several; else 0.
    pub merged: u16,
    /// The device's verdict.
    pub checksum: RxChecksum,
    /// The Toeplitz hash over the RSS key, if the device reported it.
    pub hash: Option<u32>,
}

impl RxFrame {
    /// The frame out of a batch that is then cleared: the token moves.
    pub(crate) fn moved(&self) -> RxFrame {
        RxFrame {
            mbuf: Mbuf::from_raw(self.mbuf.index()),
            rest: Rest::from_raw(self.rest.first()),
            ..*self
        }
    }
}

/// Frames of one poll, oldest first.
pub type RxBatch = ArrayVec<RxFrame, RX_BATCH_MAX>;

/// A receive queue.
pub trait RxQueue {
    /// Moves at most `max` (and what fits) received frames to `batch`; returns how many.
    /// Bounded, never waits.
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize;

    /// The frame that is there, if it is the only one: it stays where it is until [`RxQueue::took_lone`], so that who can do with a look
    /// at it moves nothing. `None`: ask [`RxQueue::poll`]; always so of a queue that has no shorter way for one frame than for
    /// several.
    #[inline]
    fn lone(&mut self) -> Option<&RxFrame> {
        None
    }

    /// The buffers of the frame that [`RxQueue::lone`] has shown are the caller's from now on. Called only after that, with nothing in
    /// between.
    #[inline]
    fn took_lone(&mut self) {}

    /// Frames that are there and were not polled. Asked only when a poll has taken as many as it might.
    fn waiting(&self) -> usize;

    /// Posts buffers from `pool` until the ring is full or the pool empty; tells the device once.
    fn replenish(&mut self, pool: &mut Pool);

    /// Asks for an interrupt at the next frame. `true`: frames are waiting already, do not halt.
    fn arm_interrupt(&mut self) -> bool;

    /// No interrupts from now on.
    fn disarm_interrupt(&mut self);

    /// Answers of the device that made no sense, since the queue was made.
    fn device_errors(&self) -> u64;

    /// Frames that were dropped because they are not of the port's VLAN, since the queue was made.
    fn other_vlan(&self) -> u64 {
        0
    }
}

/// A piece of a frame to transmit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Its first byte.
    pub bus: BusAddr,
    /// Its length in bytes, never 0.
    pub len: u32,
}

/// Checksum that the device shall fill in: sum from `start` to the frame's end into `start + offset`
/// (virtio 1.2 §5.1.6.2; the field holds the pseudo-header sum).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxChecksum {
    /// First byte summed, from the frame's start.
    pub start: u16,
    /// Where the result goes, from `start`.
    pub offset: u16,
}

/// TCP segmentation that the device shall do (virtio 1.2 §5.1.6.2): the payload is cut into segments of
/// `size` bytes, the last one perhaps shorter; each gets the headers, with its own lengths, sequence
/// number and checksums. FIN and PSH are the last one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Bytes of payload of each segment.
    pub size: u16,
    /// Bytes of all headers, Ethernet to TCP.
    pub header_len: u16,
    /// Over IPv6, not IPv4.
    pub ipv6: bool,
}

/// How the headers of a frame with a [`Gso`] are to be when the device gets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pseudo {
    /// As those of the whole packet: TCP's sum has the pseudo-header's (virtio 1.2 §5.1.6.2).
    #[default]
    WithLength,
    /// 0 in IPv4's sum, and in TCP's the pseudo-header's with 0 for the length, which differs from segment to segment
    /// (82599 datasheet §7.2.4).
    WithoutLength,
}

/// A frame to transmit. The memory stays untouched until the queue reports it complete.
#[derive(Clone, Debug, Default)]
pub struct TxFrame {
    /// The pieces in order; the first holds all headers.
    pub fragments: ArrayVec<Fragment, TX_FRAGS_MAX>,
    /// Wanted only if [`Capabilities::tx_checksum`].
    pub checksum: Option<TxChecksum>,
    /// Wanted only if [`Capabilities::tso`], and with a checksum.
    pub gso: Option<Gso>,
}

impl TxFrame {
    /// A frame of two pieces.
    pub fn of_two(headers: Fragment, payload: Fragment, checksum: Option<TxChecksum>) -> TxFrame {
        let mut frame = TxFrame { checksum, ..TxFrame::default() };
        frame.fragments.extend([headers, payload]);
        frame
    }

    /// Bytes of the whole frame.
    pub fn len(&self) -> usize {
        self.fragments.iter().map(|f| f.len as usize).sum()
    }

    /// Cuts it to its first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        let mut left = len;
        for fragment in &mut self.fragments {
            fragment.len = left.min(fragment.len as usize) as u32;
            left -= fragment.len as usize;
        }
        self.fragments.retain(|fragment| fragment.len > 0);
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.fragments.is_empty()
    }
}

/// The transmit ring has no room for the frame now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxFull;

/// A transmit queue. Frames complete in the order in which they were pushed.
pub trait TxQueue {
    /// Queues a frame; the device need not see it before [`TxQueue::kick`].
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull>;

    /// The same for the frame that is sent most: headers, and payload in one piece.
    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        self.push(&TxFrame::of_two(headers, payload, checksum))
    }

    /// One doorbell for all that was pushed since the last; none if nothing was. Called in every
    /// iteration of the loop, as is [`TxQueue::reclaim`].
    fn kick(&mut self);

    /// Frames that completed since the last call, counted in push order: frame `n` is counted only
    /// when all before it are complete too. Bounded by the ring.
    fn reclaim(&mut self) -> u32;
}

/// What a port offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// [`TxFrame::checksum`] is honoured.
    pub tx_checksum: bool,
    /// [`RxFrame::checksum`] can be `Good`.
    pub rx_checksum: bool,
    /// The device spreads flows over receive queues by the Toeplitz hash and the indirection table.
    pub rss: bool,
    /// [`RxFrame::hash`] is set for TCP and UDP.
    pub hash_report: bool,
    /// Queue pairs.
    pub queue_pairs: u16,
    /// Entries of the indirection table: the number of flow groups.
    pub groups: u16,
    /// Largest IP packet.
    pub mtu: u16,
    /// Largest IP packet that the device cuts into TCP segments, over IPv4 and IPv6; 0: it does not.
    pub tso: u16,
    /// How it wants the headers of such packets.
    pub gso_pseudo: Pseudo,
}

/// Memory that a driver and its device share: zeroed, contiguous for both.
#[derive(Debug)]
pub struct DmaRegion {
    /// For the driver.
    pub ptr: NonNull<u8>,
    /// For the device.
    pub bus: BusAddr,
    /// In bytes.
    pub len: usize,
}

/// The only source of bus addresses. An IOMMU back end can stand behind it.
pub trait Dma {
    /// `len` zeroed bytes, aligned to `align` (a power of two, at most 4096) for both sides, that
    /// are never freed; `None` if there is no memory.
    fn alloc(&mut self, len: usize, align: usize) -> Option<DmaRegion>;
}

/// Device registers. Offsets are in bytes from the region's start; an access outside it or not
/// aligned reads all ones and writes nothing.
pub trait Mmio {
    /// Reads a register.
    fn read8(&self, offset: usize) -> u8;
    /// Reads a register.
    fn read16(&self, offset: usize) -> u16;
    /// Reads a register.
    fn read32(&self, offset: usize) -> u32;
    /// Writes a register.
    fn write8(&self, offset: usize, value: u8);
    /// Writes a register.
    fn write16(&self, offset: usize, value: u16);
    /// Writes a register.
    fn write32(&self, offset: usize, value: u32);

    /// Reads a register; two accesses, low half first, where the bus has no wider one.
    fn read64(&self, offset: usize) -> u64 {
        u64::from(self.read32(offset)) | u64::from(self.read32(offset + 4)) << 32
    }

    /// Writes a register as two halves, low half first.
    fn write64(&self, offset: usize, value: u64) {
        self.write32(offset, value as u32);
        self.write32(offset + 4, (value >> 32) as u32);
    }
}
