//! A transmit queue. Frames are numbered; frame `n` has slot `n` modulo the ring's size, which
//! holds its virtio header and, with `INDIRECT_DESC`, its descriptor table.
//!
//! With indirect tables the ring's descriptor `i` and entry `i` of the available ring belong to
//! slot `i` for ever, so that both, and the first descriptor of the table (the header), are written
//! once, at the start. A frame then costs two stores per fragment, and one for the table's length.
//! Without, a frame is a chain of descriptors taken from the ring in turn; they come back in turn
//! too, since frames are reclaimed in the order in which they were pushed.
//!
//! A device that completes what it was not given makes the queue **quarantined**: it takes no more
//! frames and completes none; their memory stays the device's until the port was reset
//! ([`VirtioTx::abandon`]).
use crate::error::InitError;
use crate::header;
use crate::memory::{Block, Shared, Table};
use crate::port::Stopped;
use crate::ring::{Descriptor, Ring, USED_NO_NOTIFY, UsedState, descriptor_word, flag};
use crate::transport::QueueSetup;
use core::mem::{offset_of, size_of};
use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::Relaxed;
use ix_dataplane::device::{
    BusAddr, Dma, Fragment, Mmio, NicTx, TxChecksum, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::limits::TX_FRAGS_MAX;

/// Descriptors of the largest frame: the header's and the fragments'. No chain and no table may be
/// longer than the queue (virtio 1.2 §2.7.5.3.1), so the queue has at least as many entries.
pub(crate) const CHAIN_MAX: u16 = TX_FRAGS_MAX as u16 + 1;

/// What the device reads for one frame. The table comes first: header and three fragments are one
/// cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    table: [Descriptor; CHAIN_MAX as usize],
    header: [AtomicU64; 3],
}

const _: () = assert!(size_of::<Slot>().is_multiple_of(64) && header::BYTES_HASH <= 24);

/// What was negotiated that a transmit queue must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TxOptions {
    pub indirect: bool,
    pub checksum: bool,
    pub tso: bool,
    pub hash: bool,
}

/// A transmit queue of a virtio port.
#[derive(Debug)]
pub struct VirtioTx<M> {
    ring: Ring<M>,
    options: TxOptions,
    slots: Shared<Slot>,
    slots_bus: BusAddr,
    /// By slot: the header that is there, packed.
    headers: Table<u64>,
    /// The wishes that may be passed on: checksums, segments.
    header_mask: u64,
    /// By slot: the device has completed the frame, which waits for those before it.
    done: Table<bool>,
    /// How many wait so: 0 with a device that completes in order, as all known do.
    waiting: u16,
    chains: Chains,
    /// Frames ever pushed, shown to the device, completed in any order, and reclaimed; mod 2^16.
    pushed: u16,
    published: u16,
    completed: u16,
    reclaimed: u16,
    /// Something was published that the device may not have been told of.
    untold: bool,
    /// Frames that may be in flight: the ring's size, or 0 once the queue is quarantined.
    limit: u16,
    /// Frames of before a reset that are to be reported as complete.
    owed: u32,
    errors: u64,
}

/// The ring's descriptors without indirect tables: taken and given back in turn.
#[derive(Debug)]
struct Chains {
    /// Descriptors ever taken, modulo 2^16.
    taken: u16,
    free: u16,
    /// By descriptor: the slot of the frame whose chain starts there.
    slot: Table<u16>,
    /// By slot: the first descriptor of its chain.
    head: Table<u16>,
    /// By slot: descriptors of its chain.
    len: Table<u16>,
}

/// Writes a descriptor of a table.
#[inline]
fn set(descriptor: &Descriptor, bus: BusAddr, word: u64) {
    descriptor[0].store(bus.0, Relaxed);
    descriptor[1].store(word, Relaxed);
}

/// Writes the fragments behind the header's descriptor; the table's length then.
#[inline(never)]
fn write_table(table: &[Descriptor], fragments: &[Fragment]) -> Result<u32, TxFull> {
    let (last, before) = fragments.split_last().ok_or(TxFull)?;
    let end = table.get(fragments.len()).ok_or(TxFull)?;
    for (at, (descriptor, fragment)) in (2..).zip(table[1..].iter().zip(before)) {
        set(descriptor, fragment.bus, descriptor_word(fragment.len, flag::NEXT, at));
    }
    set(end, last.bus, descriptor_word(last.len, 0, 0));
    Ok(fragments.len() as u32 + 1)
}

impl<M: Mmio> VirtioTx<M> {
    pub(crate) fn new(
        ring: Ring<M>,
        dma: &mut impl Dma,
        options: TxOptions,
    ) -> Result<VirtioTx<M>, InitError> {
        let size = usize::from(ring.size());
        let block = Block::alloc(dma, "transmit slots", size * size_of::<Slot>(), 64)?;
        let queue = VirtioTx {
            slots: block.cells(0, size),
            slots_bus: block.bus(0),
            headers: Table::new(size, |_| 0),
            header_mask: if options.checksum { header::SUM_MASK } else { 0 }
                | if options.tso { header::GSO_MASK } else { 0 },
            done: Table::new(size, |_| false),
            waiting: 0,
            chains: Chains {
                taken: 0,
                free: size as u16,
                slot: Table::new(size, |_| 0),
                head: Table::new(size, |_| 0),
                len: Table::new(size, |_| 0),
            },
            pushed: 0,
            published: 0,
            completed: 0,
            reclaimed: 0,
            untold: false,
            limit: ring.size(),
            owed: 0,
            errors: 0,
            ring,
            options,
        };
        if options.indirect {
            queue.write_constants();
        }
        Ok(queue)
    }

    /// What never changes with indirect tables.
    fn write_constants(&self) {
        for slot in 0..usize::from(self.ring.size()) {
            let bus = self.slots_bus.offset((slot * size_of::<Slot>()) as u64);
            self.ring.set_descriptor(slot, bus, 0);
            self.ring.set_available(slot as u16, slot as u16);
            let word = descriptor_word(self.header_bytes(), flag::NEXT, 1);
            set(&self.slots.at(slot).table[0], self.header_bus(slot as u16), word);
        }
    }

    /// Entries of the ring.
    pub fn ring_len(&self) -> u16 {
        self.ring.size()
    }

    /// Answers of the device that made no sense.
    pub fn device_errors(&self) -> u64 {
        self.errors
    }

    pub(crate) fn setup(&self) -> QueueSetup {
        self.ring.setup()
    }

    /// Ends the queue after the port was reset: the frames in flight, whose memory is the
    /// sender's again. Whether they were sent is unknown.
    pub fn abandon(self, _stopped: &Stopped) -> u32 {
        u32::from(self.in_flight())
    }

    fn header_bytes(&self) -> u32 {
        u32::from(if self.options.hash { header::BYTES_HASH } else { header::BYTES })
    }

    fn header_bus(&self, frame: u16) -> BusAddr {
        let slot = usize::from(frame & (self.ring.size() - 1));
        self.slots_bus.offset((slot * size_of::<Slot>() + offset_of!(Slot, header)) as u64)
    }

    /// Writes the header of the next frame, unless the slot's last frame had the same: in a steady
    /// state it had.
    #[inline]
    fn write_header(&mut self, wishes: u64) {
        let packed = wishes & self.header_mask;
        let slot = usize::from(self.pushed);
        if self.headers.get(slot) != packed {
            self.headers.set(slot, packed);
            let (low, high) = header::words(packed);
            let header = &self.slots.at(slot).header;
            header[0].store(low, Relaxed);
            header[1].store(high, Relaxed);
        }
    }

    #[inline]
    fn push_indirect(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        // One piece or two, header and payload, is nearly every frame.
        let descriptors = match frame.fragments.as_slice() {
            [a] => {
                let table = &self.slots.at(usize::from(self.pushed)).table;
                set(&table[1], a.bus, descriptor_word(a.len, 0, 0));
                2
            }
            [a, b] => {
                self.push_two(*a, *b);
                return Ok(());
            }
            many => write_table(&self.slots.at(usize::from(self.pushed)).table, many)?,
        };
        self.point_to_table(descriptors);
        Ok(())
    }

    /// A frame of two pieces, with indirect tables.
    #[inline(always)]
    fn push_two(&mut self, a: Fragment, b: Fragment) {
        let table = &self.slots.at(usize::from(self.pushed)).table;
        set(&table[1], a.bus, descriptor_word(a.len, flag::NEXT, 2));
        set(&table[2], b.bus, descriptor_word(b.len, 0, 0));
        self.point_to_table(3);
    }

    #[inline(always)]
    fn point_to_table(&mut self, descriptors: u32) {
        let word = descriptor_word(16 * descriptors, flag::INDIRECT, 0);
        self.ring.set_word(usize::from(self.pushed), word);
    }

    #[inline(never)]
    fn push_chain(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let count = frame.fragments.len() as u16 + 1;
        if count > self.chains.free {
            return Err(TxFull);
        }
        let mask = self.ring.size() - 1;
        let head = self.chains.taken & mask;
        let mut at = head;
        let mut word = descriptor_word(self.header_bytes(), 0, 0);
        let mut bus = self.header_bus(self.pushed);
        for fragment in &frame.fragments {
            let next = (at + 1) & mask;
            let link = descriptor_word(0, flag::NEXT, next);
            self.ring.set_descriptor(usize::from(at), bus, word | link);
            bus = fragment.bus;
            word = descriptor_word(fragment.len, 0, 0);
            at = next;
        }
        self.ring.set_descriptor(usize::from(at), bus, word);
        self.ring.set_available(self.pushed, head);
        self.chains.slot.set(usize::from(head), self.pushed & mask);
        self.chains.head.set(usize::from(self.pushed), head);
        self.chains.len.set(usize::from(self.pushed), count);
        self.chains.free -= count;
        self.chains.taken = self.chains.taken.wrapping_add(count);
        Ok(())
    }

    #[inline(never)]
    fn push_pair_as_chain(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        self.push(&TxFrame::of_two(headers, payload, checksum))
    }

    /// The slot of a frame that the device says it has completed, if it has such a frame.
    #[inline]
    fn completed_slot(&self, id: u32) -> Option<usize> {
        let size = self.ring.size();
        if id >= u32::from(size) {
            return None;
        }
        let mut slot = id as u16;
        if !self.options.indirect {
            slot = self.chains.slot.get(id as usize);
            // Or it is in the middle of a chain, and was a head once.
            if self.chains.head.get(usize::from(slot)) != id as u16 {
                return None;
            }
        }
        let age = slot.wrapping_sub(self.reclaimed) & (size - 1);
        let shown = age < self.published.wrapping_sub(self.reclaimed);
        (shown && !self.done.get(usize::from(slot))).then_some(usize::from(slot))
    }

    #[cold]
    fn quarantine(&mut self) {
        if !self.is_quarantined() {
            self.limit = 0;
            self.errors += 1;
        }
        self.untold = false;
    }

    /// As on the receive side: tells now, or looks again in each `reclaim`.
    #[inline]
    fn tell(&mut self, used: UsedState) {
        if used.flags & USED_NO_NOTIFY == 0 {
            self.untold = false;
            self.ring.notify();
        }
    }

    /// Takes completions in the order of the frames, at most `ready`; how many there were before one
    /// that was not.
    #[inline]
    fn reclaim_in_order(&mut self, ready: u16) -> u16 {
        let used = self.ring.used();
        let mask = self.ring.size() - 1;
        let first = self.completed;
        let mut completed = first;
        while completed.wrapping_sub(first) != ready
            && used.get(completed).0 == u32::from(completed & mask)
        {
            completed = completed.wrapping_add(1);
        }
        self.completed = completed;
        self.reclaimed = completed;
        completed.wrapping_sub(first)
    }

    /// Takes completions in any order, and counts the frames done from the oldest on.
    #[inline(never)]
    fn reclaim_in_any_order(&mut self, ready: u16) -> u32 {
        let used = self.ring.used();
        for _ in 0..ready {
            let Some(slot) = self.completed_slot(used.get(self.completed).0) else {
                self.quarantine();
                break;
            };
            self.done.set(slot, true);
            self.waiting += 1;
            self.completed = self.completed.wrapping_add(1);
        }
        let first = self.reclaimed;
        while self.waiting > 0 && self.done.get(usize::from(self.reclaimed)) {
            let slot = usize::from(self.reclaimed);
            self.done.set(slot, false);
            if !self.options.indirect {
                self.chains.free += self.chains.len.get(slot);
            }
            self.waiting -= 1;
            self.reclaimed = self.reclaimed.wrapping_add(1);
        }
        u32::from(self.reclaimed.wrapping_sub(first))
    }
}

impl<M: Mmio> TxQueue for VirtioTx<M> {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        debug_assert!(frame.fragments.iter().all(|f| f.len > 0) && !frame.is_empty());
        if self.in_flight() >= self.limit {
            return Err(TxFull);
        }
        if self.options.indirect {
            self.push_indirect(frame)?;
        } else {
            self.push_chain(frame)?;
        }
        self.write_header(header::pack(frame.checksum, frame.gso));
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    /// Nearly every frame; what is known of it here need not be asked of a list.
    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        debug_assert!(headers.len > 0 && payload.len > 0);
        if !self.options.indirect {
            return self.push_pair_as_chain(headers, payload, checksum);
        }
        if self.in_flight() >= self.limit {
            return Err(TxFull);
        }
        self.push_two(headers, payload);
        self.write_header(header::pack(checksum, None));
        self.pushed = self.pushed.wrapping_add(1);
        Ok(())
    }

    fn kick(&mut self) {
        if self.published != self.pushed {
            self.published = self.pushed;
            self.ring.publish(self.pushed);
            self.untold = true;
            self.tell(self.ring.used_state());
        }
    }

    fn reclaim(&mut self) -> u32 {
        let used = self.ring.used_state();
        if self.untold {
            self.tell(used);
        }
        let ready = used.index.wrapping_sub(self.completed);
        if ready == 0 || self.is_quarantined() {
            return core::mem::take(&mut self.owed);
        }
        if ready > self.published.wrapping_sub(self.completed) {
            self.quarantine();
            return 0;
        }
        // The fast way needs ids that are slots, and no frame done ahead of its turn: then
        // `completed` and `reclaimed` are the same.
        let mut in_order = 0;
        if self.options.indirect && self.waiting == 0 {
            in_order = self.reclaim_in_order(ready);
            if in_order == ready {
                return u32::from(ready);
            }
        }
        u32::from(in_order) + self.reclaim_in_any_order(ready - in_order)
    }
}

impl<M: Mmio> NicTx for VirtioTx<M> {
    type Stopped = Stopped;

    fn in_flight(&self) -> u16 {
        self.pushed.wrapping_sub(self.reclaimed)
    }

    fn is_quarantined(&self) -> bool {
        self.limit == 0
    }

    fn rewind(&mut self, stopped: &Stopped) {
        self.owed += u32::from(self.in_flight());
        self.ring.rewind(stopped);
        let size = self.ring.size();
        self.done.entries().fill(false);
        self.waiting = 0;
        self.chains.taken = 0;
        self.chains.free = size;
        (self.pushed, self.published, self.completed, self.reclaimed) = (0, 0, 0, 0);
        self.untold = false;
        self.limit = size;
    }

    fn restarted(&mut self) {
        self.untold = self.published != 0;
    }
}
