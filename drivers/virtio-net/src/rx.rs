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
use alloc::vec::Vec;
use ix_dataplane::device::{Mmio, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Area, Mbuf, NO_MBUF, Pool};

/// What was negotiated that a receive queue must know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxOptions {
    pub checksum: bool,
    pub hash: bool,
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
    /// Buffers that came back unusable, on their way to a pool. Never more than the ring's.
    returned: Vec<u32>,
    /// Buffers ever posted, and ever completed, modulo 2^16.
    posted: u16,
    completed: u16,
    /// Something was published that the device may not have been told of.
    untold: bool,
    quarantined: bool,
    errors: u64,
}

impl<M: Mmio> VirtioRx<M> {
    pub(crate) fn new(ring: Ring<M>, area: &'static Area, options: RxOptions) -> VirtioRx<M> {
        let size = usize::from(ring.size());
        for id in 0..size {
            // Length and flags never change; the address comes with each post.
            ring.set_word(id, descriptor_word(MBUF_BYTES as u32, flag::WRITE, 0));
        }
        VirtioRx {
            header: if options.hash { header::BYTES_HASH } else { header::BYTES },
            shadow: Table::new(size, |_| NO_MBUF),
            ids: Table::new(size, |id| id as u16),
            returned: Vec::with_capacity(size),
            posted: 0,
            completed: 0,
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

    /// Buffers that this queue holds, the device's and those on their way back to a pool.
    pub fn held(&self) -> usize {
        usize::from(self.outstanding()) + self.returned.len()
    }

    /// Entries of the ring.
    pub fn ring_len(&self) -> u16 {
        self.ring.size()
    }

    /// Whether the device misbehaved so that the queue is out of use until the port is reset.
    pub fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Gives all buffers back after the port was reset, and ends the queue.
    pub fn release(mut self, _stopped: &Stopped, pool: &mut Pool) {
        let in_ring = self.shadow.iter_mut().map(|raw| core::mem::replace(raw, NO_MBUF));
        for raw in in_ring.filter(|raw| *raw != NO_MBUF).chain(self.returned.drain(..)) {
            pool.free(Mbuf::from_raw(raw));
        }
    }

    /// The next completion, if it is one of a buffer that the device has.
    #[inline]
    fn take(&mut self) -> Option<(Mbuf, u32)> {
        let (id, written) = self.ring.used(self.completed);
        let slot = id as usize;
        let raw = self.shadow.get(slot);
        if id >= u32::from(self.ring.size()) || raw == NO_MBUF {
            return None;
        }
        self.shadow.set(slot, NO_MBUF);
        self.ids.set(usize::from(self.completed), id as u16);
        self.completed = self.completed.wrapping_add(1);
        Some((Mbuf::from_raw(raw), written))
    }

    /// Makes a frame of a completed buffer, or takes the buffer back.
    #[inline]
    fn frame(&mut self, mbuf: Mbuf, written: u32) -> Option<RxFrame> {
        let least = u32::from(self.header + header::ETHERNET_BYTES);
        if written.wrapping_sub(least) > MBUF_BYTES as u32 - least {
            self.reject(mbuf);
            return None;
        }
        let len = written as u16 - self.header;
        let mut checksum = RxChecksum::Unknown;
        let mut hash = None;
        if self.options.checksum || self.options.hash {
            let buffer = self.area.data(&mbuf);
            if self.options.checksum {
                match header::verdict(buffer, self.header, len) {
                    Verdict::Checksum(c) => checksum = c,
                    Verdict::Nonsense => self.count_error(),
                }
            }
            if self.options.hash {
                hash = header::hash(buffer);
            }
        }
        Some(RxFrame { mbuf, offset: self.header, len, checksum, hash })
    }

    #[cold]
    fn reject(&mut self, mbuf: Mbuf) {
        self.errors += 1;
        self.returned.push(mbuf.into_raw());
    }

    #[cold]
    fn count_error(&mut self) {
        self.errors += 1;
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
        let take = usize::from(ready).min(max).min(batch.remaining_capacity());
        for _ in 0..take {
            let Some((mbuf, written)) = self.take() else {
                self.quarantine();
                break;
            };
            if let Some(frame) = self.frame(mbuf, written) {
                batch.push(frame);
            }
        }
        batch.len() - before
    }

    fn replenish(&mut self, pool: &mut Pool) {
        debug_assert!(core::ptr::eq(pool.area(), self.area), "buffers of another area");
        if !self.returned.is_empty() {
            for raw in self.returned.drain(..) {
                pool.free(Mbuf::from_raw(raw));
            }
        }
        let room = usize::from(self.ring.size() - self.outstanding());
        if room == 0 || self.quarantined {
            return;
        }
        let first = self.posted;
        for _ in 0..room {
            let Some(mbuf) = pool.alloc() else { break };
            let id = self.ids.get(usize::from(self.posted));
            self.ring.set_address(usize::from(id), self.area.bus_addr(&mbuf, 0));
            self.ring.set_available(self.posted, id);
            self.shadow.set(usize::from(id), mbuf.into_raw());
            self.posted = self.posted.wrapping_add(1);
        }
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
