//! The two shared rings, as the application sees them: a writer of calls, a reader of events.
//!
//! Indices run freely and are masked. Only acquire loads and release stores are used, which are
//! plain `mov`s on x86: each ring has one producer and one consumer, and the kernel looks at the
//! rings only while this context is inside `enter`.
#![allow(unsafe_code, reason = "the rings are raw memory shared with the kernel")]

use core::mem::offset_of;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use ix_abi::call::{Call, SgEntry, SgSlot};
use ix_abi::event::Event;
use ix_abi::layout::{CALL_SLOTS, CallHeader, EVENT_SLOTS, EventHeader, RING_SLOTS_OFFSET};
use ix_abi::ring::{readable, slot, writable};

/// Both pages of a context: the event page (read-only) and the syscall page.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// Start of the event page.
    pub events: NonNull<u8>,
    /// Start of the syscall page.
    pub calls: NonNull<u8>,
}

/// Reader of the event ring and writer of the syscall ring.
#[derive(Debug)]
pub(crate) struct Rings {
    pages: Pages,
    /// Next event to read; what the kernel may see of it is in the syscall page.
    read: u32,
    /// Events that the kernel had written when this context last looked.
    produced: u32,
    /// Calls written.
    written: u32,
    /// So many calls may be written in all before the kernel's consumer index must be read again.
    limit: u32,
    /// Calls that the kernel had executed when this context last looked.
    consumed: u32,
}

impl Rings {
    /// # Safety
    /// Both pages are `PAGE_BYTES` long, valid for as long as the value lives, laid out as
    /// `ix_abi::layout` says, with all indices equal to 0 or as a former `Rings` left them, and
    /// nobody else uses this side of them.
    pub(crate) unsafe fn new(pages: Pages) -> Rings {
        let mut rings = Rings { pages, read: 0, produced: 0, written: 0, limit: 0, consumed: 0 };
        rings.read =
            rings.call_u32(offset_of!(CallHeader, events_consumed)).load(Ordering::Relaxed);
        rings.written = rings.call_u32(offset_of!(CallHeader, produced)).load(Ordering::Relaxed);
        rings.refresh();
        rings
    }

    fn event_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: `offset` is a field of the header, aligned, inside the page that `new` promised.
        unsafe { AtomicU32::from_ptr(self.pages.events.as_ptr().add(offset).cast()) }
    }

    fn event_u64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as in `event_u32`.
        unsafe { AtomicU64::from_ptr(self.pages.events.as_ptr().add(offset).cast()) }
    }

    fn call_u32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: as in `event_u32`, for the syscall page.
        unsafe { AtomicU32::from_ptr(self.pages.calls.as_ptr().add(offset).cast()) }
    }

    /// Looks at the kernel's indices anew: after each `enter`.
    pub(crate) fn refresh(&mut self) {
        self.produced = self.event_u32(offset_of!(EventHeader, produced)).load(Ordering::Acquire);
        self.consumed =
            self.event_u32(offset_of!(EventHeader, calls_consumed)).load(Ordering::Acquire);
        let free = writable(self.written, self.consumed, CALL_SLOTS);
        self.limit = self.written.wrapping_add(free);
    }

    /// Nanoseconds since boot at the last return from the kernel.
    pub(crate) fn now_ns(&self) -> u64 {
        self.event_u64(offset_of!(EventHeader, now_ns)).load(Ordering::Relaxed)
    }

    /// Unix time of the boot, 0 if unknown.
    pub(crate) fn boot_unix_ns(&self) -> u64 {
        self.event_u64(offset_of!(EventHeader, boot_unix_ns)).load(Ordering::Relaxed)
    }

    /// Events that are there to read.
    pub(crate) fn unread(&self) -> u32 {
        readable(self.produced, self.read, EVENT_SLOTS).unwrap_or(0)
    }

    /// Whether all events are read.
    #[inline]
    pub(crate) fn is_read(&self) -> bool {
        self.read == self.produced
    }

    /// The next event; its slot stays the application's until [`Rings::publish`].
    #[inline]
    pub(crate) fn next(&mut self) -> Option<&Event> {
        if self.is_read() {
            return None;
        }
        let at = RING_SLOTS_OFFSET + slot(self.read, EVENT_SLOTS) * size_of::<Event>();
        self.read = self.read.wrapping_add(1);
        // SAFETY: the slot lies inside the event page; the kernel wrote it before it stored
        // `produced` (acquired in `refresh`) and writes it again only after `events_consumed` has
        // passed it, which `publish(&mut self)` does, when this borrow is over.
        Some(unsafe { &*self.pages.events.as_ptr().add(at).cast::<Event>() })
    }

    /// Index of the next event to read.
    #[inline]
    pub(crate) fn read_index(&self) -> u32 {
        self.read
    }

    /// Calls written so far.
    #[inline]
    pub(crate) fn written(&self) -> u32 {
        self.written
    }

    /// Calls that the kernel had executed at the last look.
    #[inline]
    pub(crate) fn consumed(&self) -> u32 {
        self.consumed
    }

    /// Tells the kernel what was written, and that events before `read` are consumed.
    pub(crate) fn publish(&mut self, read: u32) {
        self.call_u32(offset_of!(CallHeader, produced)).store(self.written, Ordering::Release);
        self.call_u32(offset_of!(CallHeader, events_consumed)).store(read, Ordering::Release);
    }

    /// Free slots of the syscall ring.
    #[inline]
    pub(crate) fn free(&self) -> u32 {
        self.limit.wrapping_sub(self.written)
    }

    /// Writes a call. The caller has seen that a slot is free.
    #[inline]
    pub(crate) fn push(&mut self, call: Call) {
        self.put(call);
    }

    /// Writes a continuation slot of scatter-gather entries.
    #[inline]
    pub(crate) fn push_sg(&mut self, entries: &[SgEntry]) {
        let mut slot = SgSlot::default();
        for (to, from) in slot.0.iter_mut().zip(entries) {
            *to = *from;
        }
        self.put(slot);
    }

    #[inline]
    fn put<T>(&mut self, record: T) {
        const { assert!(size_of::<T>() == 64 && align_of::<T>() == 64) }
        debug_assert!(self.free() > 0);
        let at = RING_SLOTS_OFFSET + slot(self.written, CALL_SLOTS) * 64;
        // SAFETY: the slot is 64 bytes inside the syscall page, aligned; the kernel reads it only
        // after `publish` has stored an index beyond it.
        unsafe { self.pages.calls.as_ptr().add(at).cast::<T>().write(record) }
        self.written = self.written.wrapping_add(1);
    }
}
