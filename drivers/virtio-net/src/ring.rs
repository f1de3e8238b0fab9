//! A split virtqueue (virtio 1.2 §2.7): its three areas in one block of shared memory, seen by the
//! driver. Which descriptors are whose is the business of `rx`, `tx` and `control`.
use crate::error::InitError;
use crate::memory::{Block, Shared};
use crate::port::Stopped;
use crate::transport::{QueueSetup, Transport};
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, compiler_fence, fence};
use ix_dataplane::device::{BusAddr, Dma, Mmio};

/// Descriptor flags (§2.7.5).
pub(crate) mod flag {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
}

/// `avail.flags`: the driver wants no interrupts (§2.7.7).
const AVAIL_NO_INTERRUPT: u16 = 1;
/// `used.flags`: the device wants no notifications (§2.7.10).
pub(crate) const USED_NO_NOTIFY: u16 = 1;

/// A descriptor: the address, then length, flags and next (§2.7.5).
pub(crate) type Descriptor = [AtomicU64; 2];

/// The second word of a descriptor.
pub(crate) const fn descriptor_word(len: u32, flags: u16, next: u16) -> u64 {
    len as u64 | (flags as u64) << 32 | (next as u64) << 48
}

/// What the device last said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UsedState {
    pub flags: u16,
    pub index: u16,
}

/// The entries of a used ring; a value of its own, so that a loop keeps it in registers.
#[derive(Clone, Copy)]
pub(crate) struct UsedEntries(Shared<AtomicU64>);

impl UsedEntries {
    /// Entry `position`: an id and a length, both allegations.
    #[inline]
    pub fn get(&self, position: u16) -> (u32, u32) {
        let word = self.0.at(usize::from(position)).load(Relaxed);
        (word as u32, (word >> 32) as u32)
    }
}

/// Byte offsets of the areas in the block of a queue.
struct Areas {
    avail: usize,
    /// The used ring's 4-byte header ends where a cache line starts, so that its 8-byte elements
    /// are aligned and read in one access; the ring itself need only be aligned to 4 (§2.7).
    used: usize,
    bytes: usize,
}

const LINE: usize = 64;

const fn areas(size: usize) -> Areas {
    let avail = (16 * size).next_multiple_of(LINE);
    // Two bytes behind each ring for the event index, used or not.
    let used = (avail + 4 + 2 * size + 2).next_multiple_of(LINE) + LINE - 4;
    let bytes = (used + 4 + 8 * size + 2).next_multiple_of(LINE);
    Areas { avail, used, bytes }
}

#[derive(Debug)]
pub(crate) struct Ring<M> {
    size: u16,
    descriptors: Shared<Descriptor>,
    avail_flags: &'static AtomicU16,
    avail_index: &'static AtomicU16,
    avail: Shared<AtomicU16>,
    used_state: &'static AtomicU32,
    used: Shared<AtomicU64>,
    bell: M,
    bell_offset: usize,
    index: u16,
    setup: QueueSetup,
}

impl<M: Mmio + Clone> Ring<M> {
    /// Makes a queue of at most `wanted` entries and gives it to the device.
    pub fn new(
        transport: &Transport<M>,
        dma: &mut impl Dma,
        index: u16,
        wanted: u16,
        needed: u16,
        vector: u16,
    ) -> Result<Ring<M>, InitError> {
        let offered = transport.read_queue_size(index);
        let limit = offered.min(wanted);
        if limit < needed || limit == 0 {
            return Err(InitError::Queue { index, size: limit, needed });
        }
        // §2.7: a power of two. A device that offers none gets the next lower one.
        let size = 1_u16 << limit.ilog2();
        if size < needed {
            return Err(InitError::Queue { index, size, needed });
        }
        let entries = usize::from(size);
        let areas = areas(entries);
        let block = Block::alloc(dma, "a queue", areas.bytes, LINE)?;
        let ring = Ring {
            size,
            descriptors: block.cells(0, entries),
            avail_flags: block.cell(areas.avail),
            avail_index: block.cell(areas.avail + 2),
            avail: block.cells(areas.avail + 4, entries),
            used_state: block.cell(areas.used),
            used: block.cells(areas.used + 4, entries),
            bell: transport.notify_window(),
            bell_offset: transport.notify_offset(index)?,
            index,
            setup: QueueSetup {
                queue: index,
                size,
                vector,
                descriptors: block.bus(0),
                driver: block.bus(areas.avail),
                device: block.bus(areas.used),
            },
        };
        ring.avail_flags.store(AVAIL_NO_INTERRUPT, Relaxed);
        transport.enable_queue(&ring.setup)?;
        Ok(ring)
    }
}

impl<M: Mmio> Ring<M> {
    /// What the device has to be told of it, again after each reset.
    pub fn setup(&self) -> QueueSetup {
        self.setup
    }

    /// As it was at first, but for descriptors and entries of the available ring. The device is stopped.
    pub fn rewind(&self, _stopped: &Stopped) {
        self.avail_flags.store(AVAIL_NO_INTERRUPT, Relaxed);
        self.avail_index.store(0, Relaxed);
        self.used_state.store(0, Release);
    }

    /// Entries.
    #[inline]
    pub fn size(&self) -> u16 {
        self.size
    }

    /// Writes descriptor `index`.
    #[inline]
    pub fn set_descriptor(&self, index: usize, bus: BusAddr, word: u64) {
        let [address, rest] = self.descriptors.at(index);
        address.store(bus.0, Relaxed);
        rest.store(word, Relaxed);
    }

    /// Changes only the address of descriptor `index`.
    #[inline]
    pub fn set_address(&self, index: usize, bus: BusAddr) {
        self.descriptors.at(index)[0].store(bus.0, Relaxed);
    }

    /// Changes only length, flags and next of descriptor `index`.
    #[inline]
    pub fn set_word(&self, index: usize, word: u64) {
        self.descriptors.at(index)[1].store(word, Relaxed);
    }

    /// Writes entry `position` of the available ring.
    #[inline]
    pub fn set_available(&self, position: u16, head: u16) {
        self.avail.at(usize::from(position)).store(head, Relaxed);
    }

    /// Makes all entries before `next` the device's (§2.7.13.3: descriptors and entries first).
    #[inline]
    pub fn publish(&self, next: u16) {
        self.avail_index.store(next, Release);
    }

    /// Flags and index of the used ring in one load; what the device wrote before the index is
    /// visible after.
    #[inline]
    pub fn used_state(&self) -> UsedState {
        let word = self.used_state.load(Acquire);
        UsedState { flags: word as u16, index: (word >> 16) as u16 }
    }

    /// The entries of the used ring.
    #[inline]
    pub fn used(&self) -> UsedEntries {
        UsedEntries(self.used)
    }

    /// Tells the device that there are new entries (§4.1.5.2).
    #[inline]
    pub fn notify(&self) {
        // The register write must not be moved before the publication by the compiler; the CPU
        // keeps the order of stores.
        compiler_fence(SeqCst);
        self.bell.write16(self.bell_offset, self.index);
    }

    /// Allows interrupts, then sees to it that what the device wrote before it could know is seen
    /// by the next look at the used ring (§2.7.7.1). The one full fence of the driver; a core does
    /// this only when it is about to halt.
    #[cold]
    pub fn allow_interrupts(&self) {
        self.avail_flags.store(0, Relaxed);
        fence(SeqCst);
    }

    /// No interrupts, but for those on their way.
    #[cold]
    pub fn forbid_interrupts(&self) {
        self.avail_flags.store(AVAIL_NO_INTERRUPT, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_do_not_overlap_and_are_aligned_for_every_ring_size() {
        for shift in 0..=15 {
            let size = 1_usize << shift;
            let areas = areas(size);
            assert!(areas.avail >= 16 * size && areas.avail.is_multiple_of(2));
            assert!(areas.used >= areas.avail + 6 + 2 * size && areas.used.is_multiple_of(4));
            assert!((areas.used + 4).is_multiple_of(8), "elements are read as one word");
            assert!(areas.bytes >= areas.used + 6 + 8 * size);
            let driver_written_end = areas.avail + 6 + 2 * size;
            assert!(
                areas.used / LINE >= driver_written_end.div_ceil(LINE),
                "no line has two writers"
            );
        }
    }
}
