//! A receive queue. One descriptor per buffer; the shadow, not the ring, says which buffer a
//! descriptor holds and whether the device has it.
//!
//! A device that completes what it was not given has lost count, and so has everyone: the queue is
//! **quarantined**. It yields and posts nothing more, and the buffers that the device still has
//! stay in the shadow, since it may write to them, until the port was reset
//! ([`VirtioRx::release`]). A frame with an impossible length only costs itself.
use crate::header::{self, Verdict};
use crate::memory::Table;
use crate::port::Stopped;
use crate::ring::{Ring, USED_NO_NOTIFY, UsedState, descriptor_word, flag};
use crate::transport::QueueSetup;
use alloc::vec::Vec;
use ix_dataplane::device::{Mmio, NicRx, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::limits::{FRAME_BUFFERS_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, NO_MBUF, Pool, Rest, RestBuilder};

/// Buffers are posted when there is room for so many, or for a quarter of a small ring, or no frame has come since: publishing
/// them and asking whether the device wants to be told costs as much as posting some.
const REPLENISH_MIN: u16 = 16;

/// What was negotiated that a receive queue must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxOptions {
    pub checksum: bool,
    pub hash: bool,
    /// A frame may take several buffers.
    pub merge: bool,
    /// It may be made of several segments.
    pub large: bool,
}

/// A receive queue of a virtio port.
#[derive(Debug)]
pub struct VirtioRx<M> {
    ring: Ring<M>,
    area: &'static Area,
    options: RxOptions,
    /// Bytes of the header that the device puts in front of the frame.
    header: u16,
    /// By descriptor: the buffer that the device has, or `NO_MBUF`.
    shadow: Table<u32>,
    /// The ids of the free descriptors, from `posted` on, in the order of their completion: the
    /// entry at `n` is the id for post `n`.
    ids: Table<u16>,
    /// All completions so far came in the order of the posts, as all devices known do it. So `ids`
    /// is the identity, and so is the available ring, which then need not be written again.
    in_order: bool,
    /// Buffers that came back unusable, on their way to a pool. Never more than the ring's.
    returned: Vec<u32>,
    /// Buffers ever posted, and ever completed, modulo 2^16.
    posted: u16,
    completed: u16,
    /// What `completed` was at the last replenish.
    replenished: u16,
    /// Something was published that the device may not have been told of.
    untold: bool,
    quarantined: bool,
    errors: u64,
}

/// Keeps a buffer that came back without a frame, until the next replenish. There is room: the
/// list has as many entries as the ring.
#[cold]
fn reject(returned: &mut Vec<u32>, errors: &mut u64, raw: u32) {
    *errors += 1;
    debug_assert!(returned.len() < returned.capacity());
    returned.push(raw);
}

impl<M: Mmio> VirtioRx<M> {
    pub(crate) fn setup(&self) -> QueueSetup {
        self.ring.setup()
    }

    pub(crate) fn new(ring: Ring<M>, area: &'static Area, options: RxOptions) -> VirtioRx<M> {
        let size = usize::from(ring.size());
        for id in 0..size {
            // Length and flags never change; the address comes with each post.
            ring.set_word(id, descriptor_word(MBUF_BYTES as u32, flag::WRITE, 0));
            ring.set_available(id as u16, id as u16);
        }
        VirtioRx {
            header: if options.hash { header::BYTES_HASH } else { header::BYTES },
            shadow: Table::new(size, |_| NO_MBUF),
            ids: Table::new(size, |id| id as u16),
            in_order: true,
            returned: Vec::with_capacity(size),
            posted: 0,
            completed: 0,
            replenished: 0,
            untold: false,
            quarantined: false,
            errors: 0,
            ring,
            area,
            options,
        }
    }

    /// Buffers that the device has.
    #[inline]
    pub fn outstanding(&self) -> u16 {
        self.posted.wrapping_sub(self.completed)
    }

    /// Entries of the ring.
    pub fn ring_len(&self) -> u16 {
        self.ring.size()
    }

    /// Gives all buffers back after the port was reset, and ends the queue.
    pub fn release(mut self, _stopped: &Stopped, pool: &mut Pool) {
        let in_ring = self.shadow.entries().iter().copied().filter(|raw| *raw != NO_MBUF);
        for raw in in_ring.chain(self.returned.drain(..)) {
            pool.free(Mbuf::from_raw(raw));
        }
    }

    /// Moves completions to `batch`, which has room for `room` frames, until `ready` are taken or one begins a frame of
    /// several buffers; how many were taken, and whether one does. Locals instead of fields, so that the loop keeps them in registers across
    /// its stores.
    #[inline]
    fn collect<const MERGE: bool>(
        &mut self,
        ready: usize,
        room: usize,
        batch: &mut RxBatch,
    ) -> (usize, bool) {
        let used = self.ring.used();
        let mask = self.ring.size() - 1;
        let area = self.area;
        let shadow = self.shadow.entries();
        let header = self.header;
        let least = u32::from(header + header::ETHERNET_BYTES);
        let mut disorder = 0;
        let mut sound = true;
        let mut chain = false;
        let mut completed = self.completed;
        for _ in 0..ready.min(room) {
            let (id, written) = used.get(completed);
            let slot = shadow.get_mut(id as usize).filter(|slot| **slot != NO_MBUF);
            let Some(slot) = slot else {
                sound = false;
                break;
            };
            let mbuf = Mbuf::from_raw(*slot);
            let fits = written.wrapping_sub(least) <= MBUF_BYTES as u32 - least;
            if MERGE && fits && header::buffers(area.data(&mbuf)) != 1 {
                let _still_in_the_shadow = mbuf.into_raw();
                chain = true;
                break;
            }
            *slot = NO_MBUF;
            disorder |= id ^ u32::from(completed & mask);
            self.ids.set(usize::from(completed), id as u16);
            completed = completed.wrapping_add(1);
            if !fits {
                reject(&mut self.returned, &mut self.errors, mbuf.into_raw());
                continue;
            }
            batch.push(RxFrame {
                mbuf,
                offset: header,
                len: written as u16 - header,
                rest: Rest::NONE,
                merged: 0,
                checksum: RxChecksum::Unknown,
                hash: None,
            });
        }
        let taken = completed.wrapping_sub(self.completed);
        self.completed = completed;
        self.in_order &= disorder == 0;
        if !sound {
            self.quarantine();
        }
        (usize::from(taken), chain)
    }

    /// As [`VirtioRx::collect`], for frames of any number of buffers.
    #[inline(never)]
    fn collect_merged(&mut self, ready: usize, room: usize, batch: &mut RxBatch) {
        let mut left = ready;
        let full = batch.len() + room;
        while !self.quarantined && left > 0 && batch.len() < full {
            let (taken, chain) = self.collect::<true>(left, full - batch.len(), batch);
            left -= taken;
            if chain {
                left -= self.collect_chain(left, batch);
            }
        }
    }

    /// Takes the next completion: the buffer, and how many bytes the device says it has written.
    fn take_completion(&mut self) -> Option<(u32, u32)> {
        let at = self.completed;
        let (id, written) = self.ring.used().get(at);
        let slot = self.shadow.entries().get_mut(id as usize)?;
        let raw = core::mem::replace(slot, NO_MBUF);
        if raw == NO_MBUF {
            return None;
        }
        self.in_order &= id == u32::from(at & (self.ring.size() - 1));
        self.ids.set(usize::from(at), id as u16);
        self.completed = at.wrapping_add(1);
        Some((raw, written))
    }

    /// Takes a frame whose header, of a right length, says that it is in another number of buffers than one; how many
    /// completions that were. The device has completed all of a frame's buffers when it shows the first
    /// (§5.1.6.4): if there are fewer, both sides disagree on what is what.
    fn collect_chain(&mut self, ready: usize, batch: &mut RxBatch) -> usize {
        let area = self.area;
        let Some((raw, written)) = self.take_completion() else {
            self.quarantine();
            return 1;
        };
        let mbuf = Mbuf::from_raw(raw);
        // Read once: the device may write on.
        let count = usize::from(header::buffers(area.data(&mbuf))).max(1);
        let merged = match header::merged(area.data(&mbuf)) {
            _ if !self.options.large => Some(0),
            merged => merged,
        };
        if count > ready {
            self.returned.push(mbuf.into_raw());
            self.quarantine();
            return 1;
        }
        // The length, too, was another perhaps when it was looked at before.
        let least = u32::from(self.header + header::ETHERNET_BYTES);
        let mut sound = (2..=FRAME_BUFFERS_MAX).contains(&count)
            && (least..=MBUF_BYTES as u32).contains(&written);
        let mut rest = RestBuilder::new();
        for taken in 1..count {
            let Some((raw, written)) = self.take_completion() else {
                self.give_up(mbuf, rest.finish());
                self.quarantine();
                return taken;
            };
            let fits = (1..=MBUF_BYTES as u32).contains(&written);
            sound &= fits;
            let len = if fits { written as u16 } else { 0 };
            rest.push(area, Mbuf::from_raw(raw), 0, len);
        }
        let rest = rest.finish();
        if !sound {
            self.errors += 1;
            self.give_up(mbuf, rest);
            return count;
        }
        self.errors += u64::from(merged.is_none());
        batch.push(RxFrame {
            mbuf,
            offset: self.header,
            len: written as u16 - self.header,
            rest,
            merged: merged.unwrap_or(0),
            checksum: RxChecksum::Unknown,
            hash: None,
        });
        count
    }

    /// Keeps the buffers of a frame that is none until the next replenish.
    #[cold]
    fn give_up(&mut self, mbuf: Mbuf, mut rest: Rest) {
        self.returned.push(mbuf.into_raw());
        while let Some((mbuf, ..)) = rest.pop(self.area) {
            self.returned.push(mbuf.into_raw());
        }
    }

    /// What the headers of the frames say. A second loop: the first has no registers left for it,
    /// and so all headers are on their way to the cache when the first is read.
    #[inline]
    fn read_headers<const HEADER: u16>(&mut self, frames: &mut [RxFrame]) {
        let (area, checksum) = (self.area, self.options.checksum);
        for frame in frames {
            let buffer = area.data(&frame.mbuf);
            if checksum {
                match header::verdict::<HEADER>(buffer, frame.len) {
                    Verdict::Checksum(checksum) => frame.checksum = checksum,
                    Verdict::Nonsense => self.errors += 1,
                }
            }
            if HEADER == header::BYTES_HASH {
                frame.hash = header::hash(buffer);
            }
        }
    }

    #[cold]
    fn give_back(&mut self, pool: &mut Pool) {
        for raw in self.returned.drain(..) {
            pool.free(Mbuf::from_raw(raw));
        }
    }

    #[cold]
    fn quarantine(&mut self) {
        if !self.quarantined {
            self.quarantined = true;
            self.errors += 1;
        }
        self.untold = false;
    }

    /// Tells the device of published buffers if it wants to know; else that is looked at again in
    /// every poll, so that a stale answer delays the telling but cannot lose it (`docs/drivers.md`).
    #[inline]
    fn tell(&mut self, used: UsedState) {
        if used.flags & USED_NO_NOTIFY == 0 {
            self.untold = false;
            self.ring.notify();
        }
    }
}

impl<M: Mmio> RxQueue for VirtioRx<M> {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let used = self.ring.used_state();
        if self.untold {
            self.tell(used);
        }
        let ready = used.index.wrapping_sub(self.completed);
        if ready == 0 || self.quarantined {
            return 0;
        }
        if ready > self.outstanding() {
            self.quarantine();
            return 0;
        }
        let before = batch.len();
        let (ready, room) = (usize::from(ready), max.min(batch.remaining_capacity()));
        if self.options.merge {
            self.collect_merged(ready, room, batch);
        } else {
            self.collect::<false>(ready, room, batch);
        }
        let frames = &mut batch[before..];
        if self.options.hash {
            self.read_headers::<{ header::BYTES_HASH }>(frames);
        } else if self.options.checksum {
            self.read_headers::<{ header::BYTES }>(frames);
        }
        batch.len() - before
    }

    fn waiting(&self) -> usize {
        let ready = self.ring.used_state().index.wrapping_sub(self.completed);
        let good = !self.quarantined && ready <= self.outstanding();
        if good { usize::from(ready) } else { 0 }
    }

    fn replenish(&mut self, pool: &mut Pool) {
        debug_assert!(core::ptr::eq(pool.area(), self.area), "buffers of another area");
        if !self.returned.is_empty() {
            self.give_back(pool);
        }
        let size = self.ring.size();
        let room = size - self.outstanding();
        let more = core::mem::replace(&mut self.replenished, self.completed) != self.completed;
        if room == 0 || (more && room < REPLENISH_MIN.min(size / 4)) || self.quarantined {
            return;
        }
        let first = self.posted;
        let (area, in_order) = (self.area, self.in_order);
        let mut posted = first;
        for _ in 0..room {
            let Some(mbuf) = pool.alloc() else { break };
            let mut id = posted;
            if !in_order {
                id = self.ids.get(usize::from(posted));
                self.ring.set_available(posted, id);
            }
            self.ring.set_address(usize::from(id), area.bus_addr(&mbuf, 0));
            self.shadow.set(usize::from(id), mbuf.into_raw());
            posted = posted.wrapping_add(1);
        }
        self.posted = posted;
        if self.posted != first {
            self.ring.publish(self.posted);
            self.untold = true;
            self.tell(self.ring.used_state());
        }
    }

    #[cold]
    fn arm_interrupt(&mut self) -> bool {
        if self.quarantined {
            return false;
        }
        self.ring.allow_interrupts();
        // Behind the fence, so that neither answer is stale: the last chance before the core halts.
        let used = self.ring.used_state();
        if self.untold {
            self.tell(used);
        }
        used.index != self.completed
    }

    #[cold]
    fn disarm_interrupt(&mut self) {
        self.ring.forbid_interrupts();
    }

    fn device_errors(&self) -> u64 {
        self.errors
    }
}

impl<M: Mmio> NicRx for VirtioRx<M> {
    type Stopped = Stopped;

    fn held(&self) -> usize {
        usize::from(self.outstanding()) + self.returned.len()
    }

    fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    fn has_frames(&self) -> bool {
        let ready = self.ring.used_state().index.wrapping_sub(self.completed);
        !self.quarantined && ready != 0 && ready <= self.outstanding()
    }

    fn rewind(&mut self, stopped: &Stopped, pool: &mut Pool) {
        for (id, slot) in self.shadow.entries().iter_mut().enumerate() {
            let raw = core::mem::replace(slot, NO_MBUF);
            if raw != NO_MBUF {
                pool.free(Mbuf::from_raw(raw));
            }
            self.ids.set(id, id as u16);
            self.ring.set_available(id as u16, id as u16);
        }
        self.give_back(pool);
        self.ring.rewind(stopped);
        self.in_order = true;
        self.posted = 0;
        self.completed = 0;
        self.replenished = 0;
        self.untold = false;
        self.quarantined = false;
    }

    fn restarted(&mut self) {
        self.untold = self.posted != 0;
    }
}
