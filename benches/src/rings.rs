//! The application's ends of the two rings: no crossing to ring 3, the same records.
//!
//! # Safety
//! The two pages are leaked; `slot` is below the capacity, so that its offset is a slot's. The engine writes an
//! event's slot only after it was read and given back, and reads a call's only after the index was written.
#![allow(unsafe_code, reason = "pages shared with the engine")]

use crate::memory::leak;
use ix_abi::call::{Call, SgEntry};
use ix_abi::event::Event;
use ix_abi::layout::{CALL_SLOTS, EVENT_SLOTS, PAGE_BYTES, RING_SLOTS_OFFSET};
use ix_abi::ring::slot;
use ix_dataplane::rings::AppRings;
use std::ptr::NonNull;

/// The event ring as its reader sees it.
#[derive(Debug)]
pub struct Events {
    page: NonNull<u8>,
    read: u32,
}

/// The syscall ring as its writer sees it.
#[derive(Debug)]
pub struct Calls {
    page: NonNull<u8>,
    written: u32,
}

// SAFETY: the page is this reader's alone; who has the value may read it, on whichever thread.
unsafe impl Send for Events {}
// SAFETY: as above, of the writer.
unsafe impl Send for Calls {}

/// A pair of rings, and the engine's end of it.
pub fn pair() -> (Events, Calls, AppRings) {
    let bytes = PAGE_BYTES as usize;
    let (events, calls) = (leak(bytes, bytes), leak(bytes, bytes));
    // SAFETY: both are leaked whole pages, aligned to their size.
    let ends = unsafe { AppRings::new(events, calls) };
    (Events { page: events, read: 0 }, Calls { page: calls, written: 0 }, ends)
}

impl Events {
    /// How many events the engine has produced.
    #[inline]
    pub fn produced(&self) -> u32 {
        // SAFETY: see the module's head.
        unsafe { self.page.cast::<u32>().read_volatile() }
    }

    /// Whether some of those are unread.
    #[inline]
    pub fn has_next(&self) -> bool {
        self.produced() != self.read
    }

    /// The next event, which is there.
    #[inline]
    pub fn take(&mut self) -> &Event {
        let at = RING_SLOTS_OFFSET + slot(self.read, EVENT_SLOTS) * size_of::<Event>();
        self.read = self.read.wrapping_add(1);
        // SAFETY: see the module's head; the borrow ends before the slot is given back.
        unsafe { self.page.add(at).cast().as_ref() }
    }
}

impl Calls {
    /// Puts a call into the batch.
    #[inline]
    pub fn push(&mut self, call: Call) {
        let at = RING_SLOTS_OFFSET + slot(self.written, CALL_SLOTS) * size_of::<Call>();
        self.written = self.written.wrapping_add(1);
        // SAFETY: see the module's head.
        unsafe { self.page.add(at).cast::<Call>().write(call) };
    }

    /// Entries that follow those in the call before.
    #[inline]
    pub fn push_sg(&mut self, entries: [SgEntry; 4]) {
        let at = RING_SLOTS_OFFSET + slot(self.written, CALL_SLOTS) * size_of::<Call>();
        self.written = self.written.wrapping_add(1);
        // SAFETY: see the module's head; four entries are as long as a call, and as aligned as the slot is.
        unsafe { self.page.add(at).cast::<[SgEntry; 4]>().write(entries) };
    }

    /// Leaves the batch and gives the slots of `events` back.
    #[inline]
    pub fn leave(&mut self, events: &Events) {
        // SAFETY: see the module's head.
        unsafe {
            self.page.cast::<u32>().write_volatile(self.written);
            self.page.cast::<u32>().add(1).write_volatile(events.read);
        }
    }
}
