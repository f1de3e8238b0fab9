//! A receive queue: advanced descriptors of one buffer each (§7.1.6), of which the chip says by their DD bit that they are
//! done, in the order of the ring. The shadow, not the ring, says which buffer a descriptor holds.
//!
//! The chip can lie about lengths, ends and verdicts only: there are no ids, and descriptors that were not posted are not
//! looked at. So a lie costs frames, which are counted, and never an agreement on who owns what.
use crate::chip::Chip;
use crate::memory::{Descriptor, Ring};
use crate::port::Stopped;
use crate::regs::{EIMC_EX, EIMS_EX, RDT, Reg};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::fence;
use ix_dataplane::device::{Mmio, NicRx, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::limits::{FRAME_BUFFERS_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, NO_MBUF, Pool, Rest, RestBuilder};

/// Descriptors that are missing before some are posted: one register write for so many. Fewer with small rings.
const REPLENISH_MIN: u32 = 16;
/// Bytes of an Ethernet header.
const HEADER: u16 = 14;

/// Write-back, second word: extended status and errors (§7.1.6.2, tables 7-21 and 7-22).
mod word {
    pub const DONE: u64 = 1;
    pub const END: u64 = 1 << 1;
    pub const TAGGED: u64 = 1 << 3;
    pub const L4_CHECKED: u64 = 1 << 5;
    pub const IP_CHECKED: u64 = 1 << 6;
    pub const MAC_ERROR: u64 = 1 << 29;
    pub const L4_BAD: u64 = 1 << 30;
    pub const IP_BAD: u64 = 1 << 31;
    /// The tag, if there was one and it was taken off.
    pub const TAG_SHIFT: u32 = 48;
}

/// First word: packet type and RSS type (§7.1.6.2.1). Only types with ports were asked for.
const KIND_V6: u64 = 1 << 6;
const RSS_TYPE: u64 = 0xf;

/// A receive queue of a port.
#[derive(Debug)]
pub struct IxgbeRx<M> {
    ring: Ring,
    area: &'static Area,
    /// By descriptor, from `completed` to `posted`: the buffer that the chip has.
    shadow: Box<[u32]>,
    /// Descriptors ever completed and posted, modulo 2^32.
    completed: u32,
    posted: u32,
    /// A frame of more buffers than one may have is being passed over, up to its end.
    skipping: bool,
    /// Buffers that came back unusable, on their way to a pool. Never more than the ring's.
    returned: Vec<u32>,
    /// The frame that was shown last, see [`RxQueue::lone`].
    shown: RxFrame,
    errors: u64,
    /// What a frame's last descriptor has to be.
    wanted: Wanted,
    other_vlan: u64,
    chip: Chip<M>,
    tail: Reg,
    queue: u16,
    vector: Option<u16>,
}

/// What the chip said of one descriptor.
#[derive(Clone, Copy)]
struct Done {
    first: u64,
    word: u64,
}

impl Done {
    const fn len(self) -> u16 {
        (self.word >> 32) as u16
    }
}

/// The verdict on both sums. IPv6 has none of its own; its packet type is the bit that says of IPv4's that it was
/// checked (§7.1.11).
#[inline(always)]
fn verdict(first: u64, word: u64) -> RxChecksum {
    const { assert!(KIND_V6 == word::IP_CHECKED) };
    const WANTED: u64 = word::L4_CHECKED | word::IP_CHECKED;
    let told = (word | first & KIND_V6) & (WANTED | word::L4_BAD | word::IP_BAD);
    if told == WANTED { RxChecksum::Good } else { RxChecksum::Unknown }
}

#[inline(always)]
fn hash(first: u64) -> Option<u32> {
    (first & RSS_TYPE != 0).then_some((first >> 32) as u32)
}

/// What the second word of a sound frame's last descriptor is under a mask.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    mask: u64,
    value: u64,
}

impl Wanted {
    /// Done, the end, without error; and of this VLAN, whose tag the chip has taken off.
    const fn new(vlan: Option<u16>) -> Wanted {
        let (mask, value) = (word::DONE | word::END | word::MAC_ERROR, word::DONE | word::END);
        match vlan {
            None => Wanted { mask, value },
            Some(id) => Wanted {
                mask: mask | word::TAGGED | 0xfff << word::TAG_SHIFT,
                value: value | word::TAGGED | (id as u64) << word::TAG_SHIFT,
            },
        }
    }

    #[inline(always)]
    const fn is(self, word: u64) -> bool {
        word & self.mask == self.value
    }

    /// Whether a descriptor is done, and the only one of a sound frame of up to 2,047 bytes: a look at bits and a comparison.
    /// One of 2,048 bytes goes the long way.
    #[inline(always)]
    const fn is_whole(self, word: u64) -> bool {
        const { assert!(MBUF_BYTES == 2048) };
        const TOO_LONG: u64 = 0xf800 << 32;
        word & (self.mask | TOO_LONG) == self.value && (word >> 32) as u16 >= HEADER
    }
}

/// Takes sound frames of one buffer from a run of descriptors and their buffers.
#[inline(never)]
fn take_run(cells: &[Descriptor], shadow: &[u32], wanted: Wanted, batch: &mut RxBatch) {
    let frames = cells.iter().zip(shadow);
    batch.extend(frames.map_while(|(descriptor, raw)| whole(descriptor, *raw, wanted)));
}

/// The frame of a descriptor and its buffer, if it is a sound one of one buffer.
#[inline(always)]
fn whole(descriptor: &Descriptor, raw: u32, wanted: Wanted) -> Option<RxFrame> {
    let word = descriptor[1].load(Acquire);
    if !wanted.is_whole(word) {
        return None;
    }
    let first = descriptor[0].load(Relaxed);
    Some(RxFrame {
        mbuf: Mbuf::from_raw(raw),
        offset: 0,
        len: (word >> 32) as u16,
        rest: Rest::NONE,
        merged: 0,
        checksum: verdict(first, word),
        hash: hash(first),
    })
}

impl<M: Mmio + Clone> IxgbeRx<M> {
    pub(crate) fn new(
        chip: &Chip<M>,
        ring: Ring,
        area: &'static Area,
        queue: u16,
        vector: Option<u16>,
        vlan: Option<u16>,
    ) -> IxgbeRx<M> {
        let len = ring.len() as u16;
        IxgbeRx {
            ring,
            area,
            shadow: (0..len).map(|_| 0).collect(),
            completed: 0,
            posted: 0,
            skipping: false,
            returned: Vec::with_capacity(usize::from(len)),
            shown: RxFrame {
                mbuf: Mbuf::from_raw(NO_MBUF),
                offset: 0,
                len: 0,
                rest: Rest::NONE,
                merged: 0,
                checksum: RxChecksum::Unknown,
                hash: None,
            },
            errors: 0,
            wanted: Wanted::new(vlan),
            other_vlan: 0,
            chip: chip.clone(),
            tail: RDT.at(u32::from(queue)),
            queue,
            vector,
        }
    }
}

impl<M: Mmio> IxgbeRx<M> {
    /// Buffers that the chip has.
    #[inline]
    pub fn outstanding(&self) -> u16 {
        self.posted.wrapping_sub(self.completed) as u16
    }

    /// Descriptors of the ring. One less can be posted: a full ring would look like an empty one (§7.1.9).
    pub fn ring_len(&self) -> u16 {
        self.ring.len() as u16
    }

    /// The number of the queue.
    pub fn queue(&self) -> u16 {
        self.queue
    }

    fn is_done(&self, number: u32) -> bool {
        self.ring.at(number)[1].load(Acquire) & word::DONE != 0
    }

    /// Gives all buffers back after the port was reset, and ends the queue.
    pub fn release(mut self, stopped: &Stopped, pool: &mut Pool) {
        self.rewind(stopped, pool);
    }

    fn tell(&self) {
        // The descriptors before the tail (on x86 an order for the compiler only).
        fence(Release);
        self.chip.write(self.tail, self.ring.slot(self.posted));
    }

    fn done(&self, number: u32) -> Option<Done> {
        let descriptor = self.ring.at(number);
        let word = descriptor[1].load(Acquire);
        let first = descriptor[0].load(Relaxed);
        (word & word::DONE != 0).then_some(Done { first, word })
    }

    /// Takes the buffer of the next descriptor out of the shadow.
    fn take(&mut self) -> Mbuf {
        let raw = self.shadow[self.ring.slot(self.completed) as usize];
        self.completed = self.completed.wrapping_add(1);
        Mbuf::from_raw(raw)
    }

    /// Takes what is not a sound frame of one buffer: one of several, or of nonsense. `false`: its end is not there yet.
    #[cold]
    #[inline(never)]
    fn take_odd(&mut self, batch: &mut RxBatch) -> bool {
        let most = u32::from(self.outstanding()).min(FRAME_BUFFERS_MAX as u32);
        let mut sound = !self.skipping;
        let mut count = 0;
        let end = loop {
            if count == most {
                break None;
            }
            // Another write-back than before, if the chip lies: what is here now counts.
            let Some(done) = self.done(self.completed.wrapping_add(count)) else { return false };
            count += 1;
            let end = done.word & word::END != 0;
            let least = if count == 1 { HEADER } else { 1 };
            // All but the last fill their buffer (§7.1.6.2).
            let fits = (least..=MBUF_BYTES as u16).contains(&done.len());
            sound &= fits && (end || done.len() == MBUF_BYTES as u16);
            if end {
                sound &= done.word & word::MAC_ERROR == 0;
                break Some(done);
            }
        };
        let most = (FRAME_BUFFERS_MAX as u32).min(self.ring.len() - 1);
        if end.is_none() && count < most && !self.skipping {
            // The chip has no more descriptors, and none of them is the end: it waits for more.
            return false;
        }
        self.skipping = end.is_none();
        match end {
            Some(end) if sound && self.wanted.is(end.word) => self.take_chain(count, end, batch),
            _ => {
                // Sound, but not of this VLAN: the chip lets frames without any tag through.
                let other = sound && end.is_some();
                self.other_vlan += u64::from(other);
                self.errors += u64::from(!other);
                for _ in 0..count {
                    let mbuf = self.take();
                    self.returned.push(mbuf.into_raw());
                }
            }
        }
        true
    }

    /// Takes a frame of `count` buffers, whose lengths were looked at: that the chip may have changed meanwhile.
    fn take_chain(&mut self, count: u32, end: Done, batch: &mut RxBatch) {
        let clamp = |len: u16| len.min(MBUF_BYTES as u16);
        let single = count == 1;
        let first_len = if single { clamp(end.len()) } else { MBUF_BYTES as u16 };
        let mbuf = self.take();
        let mut rest = RestBuilder::new();
        for number in 1..count {
            let len = if number + 1 == count { clamp(end.len()) } else { MBUF_BYTES as u16 };
            let next = self.take();
            rest.push(self.area, next, 0, len);
        }
        batch.push(RxFrame {
            mbuf,
            offset: 0,
            len: first_len,
            rest: rest.finish(),
            merged: 0,
            checksum: verdict(end.first, end.word),
            hash: hash(end.first),
        });
    }

    #[cold]
    fn give_back(&mut self, pool: &mut Pool) {
        for raw in self.returned.drain(..) {
            pool.free(Mbuf::from_raw(raw));
        }
    }

    /// The fast way: sound frames of one buffer, up to the first that is not. Whether there is such a one.
    #[inline(always)]
    fn take_whole(&mut self, room: usize, batch: &mut RxBatch) -> bool {
        let mut left = usize::from(self.outstanding()).min(room);
        while left > 0 {
            // Up to the ring's end, then from its start: straight through both.
            let (cells, slots) =
                (self.ring.run(self.completed, left), self.ring.slot(self.completed));
            let shadow = &self.shadow[slots as usize..][..cells.len()];
            let before = batch.len();
            take_run(cells, shadow, self.wanted, batch);
            let taken = batch.len() - before;
            self.completed = self.completed.wrapping_add(taken as u32);
            if taken < cells.len() {
                return self.is_done(self.completed);
            }
            left -= taken;
        }
        false
    }
}

impl<M: Mmio> RxQueue for IxgbeRx<M> {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let before = batch.len();
        let full = before + max.min(batch.remaining_capacity());
        // After a frame of several buffers it goes on; each turn takes a descriptor at least, so the ring bounds it.
        if self.skipping && batch.len() < full && self.outstanding() > 0 {
            self.take_odd(batch);
        }
        while !self.skipping && self.take_whole(full - batch.len(), batch) {
            if !self.take_odd(batch) {
                break;
            }
        }
        batch.len() - before
    }

    /// One descriptor is done and sound, and the next is not done. What the chip writes there later changes nothing any more.
    #[inline]
    fn lone(&mut self) -> Option<&RxFrame> {
        let outstanding = self.outstanding();
        let followed = outstanding > 1 && self.is_done(self.completed.wrapping_add(1));
        if outstanding == 0 || followed || self.skipping {
            return None;
        }
        let raw = self.shadow[self.ring.slot(self.completed) as usize];
        self.shown = whole(self.ring.at(self.completed), raw, self.wanted)?;
        Some(&self.shown)
    }

    #[inline]
    fn took_lone(&mut self) {
        self.completed = self.completed.wrapping_add(1);
    }

    /// Completions are in order: those that are there are found by halving.
    fn waiting(&self) -> usize {
        let (mut low, mut high) = (0, u32::from(self.outstanding()));
        while low < high {
            let middle = u32::midpoint(low, high);
            if self.is_done(self.completed.wrapping_add(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low as usize
    }

    fn replenish(&mut self, pool: &mut Pool) {
        debug_assert!(core::ptr::eq(pool.area(), self.area), "buffers of another area");
        if !self.returned.is_empty() {
            self.give_back(pool);
        }
        let len = self.ring.len();
        let room = len - 1 - self.posted.wrapping_sub(self.completed);
        if room < REPLENISH_MIN.min(len / 4) {
            return;
        }
        let (first, area) = (self.posted, self.area);
        let mut left = room as usize;
        while left > 0 {
            let (cells, slots) = (self.ring.run(self.posted, left), self.ring.slot(self.posted));
            let shadow = &mut self.shadow[slots as usize..][..cells.len()];
            let posted = pool.alloc_for(cells.iter().zip(shadow), |(descriptor, raw), mbuf| {
                let bus = area.bus_addr(&mbuf, 0);
                *raw = mbuf.into_raw();
                descriptor[0].store(bus.0, Relaxed);
                descriptor[1].store(0, Relaxed);
            });
            self.posted = self.posted.wrapping_add(posted as u32);
            left -= posted;
            if posted < cells.len() {
                break;
            }
        }
        if self.posted != first {
            self.tell();
        }
    }

    /// A frame that came before the vector was unmasked has left its cause in EICR, and the chip sends the message
    /// as soon as it is unmasked (§7.3.1): nothing can be missed, at the price of a needless wake-up after traffic.
    #[cold]
    fn arm_interrupt(&mut self) -> bool {
        if let Some(vector) = self.vector {
            self.chip.write(EIMS_EX.at(u32::from(vector / 32)), 1 << (vector % 32));
        }
        self.has_frames()
    }

    #[cold]
    fn disarm_interrupt(&mut self) {
        if let Some(vector) = self.vector {
            self.chip.write(EIMC_EX.at(u32::from(vector / 32)), 1 << (vector % 32));
        }
    }

    fn device_errors(&self) -> u64 {
        self.errors
    }

    fn other_vlan(&self) -> u64 {
        self.other_vlan
    }
}

impl<M: Mmio> NicRx for IxgbeRx<M> {
    type Stopped = Stopped;

    fn held(&self) -> usize {
        usize::from(self.outstanding()) + self.returned.len()
    }

    /// Never: there is nothing that the chip could have lost count of.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn has_frames(&self) -> bool {
        self.outstanding() > 0 && self.is_done(self.completed)
    }

    fn rewind(&mut self, _stopped: &Stopped, pool: &mut Pool) {
        while self.completed != self.posted {
            let mbuf = self.take();
            pool.free(mbuf);
        }
        self.give_back(pool);
        self.completed = 0;
        self.posted = 0;
        self.skipping = false;
    }

    fn restarted(&mut self) {
        if self.posted != 0 {
            self.tell();
        }
    }
}
