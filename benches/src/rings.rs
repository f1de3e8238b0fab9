//! The application's ends of the two rings: no crossing to ring 3, the same records.
//!
//! # Safety
//! The two pages are leaked; `slot` is below the capacity, so that its offset is a slot's. The engine writes an
//! event's slot only after it was read and given back, and reads a call's only after the index was written.
#![allow(unsafe_code, reason = "pages shared with the engine")]

use crate::memory::leak;
use ix_abi::Handle;
use ix_abi::call::{Call, Op, SgEntry};
use ix_abi::event::Event;
use ix_abi::layout::{CALL_SLOTS, EVENT_SLOTS, PAGE_BYTES, RING_SLOTS_OFFSET};
use ix_abi::ring::slot;
use ix_dataplane::rings::AppRings;
use std::ptr::NonNull;

/// The event ring as its reader sees it.
#[derive(Debug)]
pub struct Events {
    page: NonNull<u8>,
}

/// The syscall ring as its writer sees it. What was written and what was read of events is where the engine finds it, and nowhere
/// else.
#[derive(Debug)]
pub struct Calls {
    page: NonNull<u8>,
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
    (Events { page: events }, Calls { page: calls }, ends)
}

impl Events {
    /// How many events the engine has produced.
    #[inline]
    pub fn produced(&self) -> u32 {
        // SAFETY: see the module's head.
        unsafe { self.page.cast::<u32>().read_volatile() }
    }

    /// The event of that number, which is there and was not given back.
    #[inline]
    pub fn at(&mut self, number: u32) -> &Event {
        let at = RING_SLOTS_OFFSET + slot(number, EVENT_SLOTS) * size_of::<Event>();
        // SAFETY: see the module's head; the borrow ends before the slot is given back.
        unsafe { self.page.add(at).cast().as_ref() }
    }
}

impl Calls {
    /// The next slot, which counts as written from now on: the engine looks when the application has returned.
    #[inline(always)]
    fn next(&mut self) -> NonNull<u8> {
        // SAFETY: see the module's head.
        unsafe {
            let written = self.page.cast::<u32>();
            let number = written.read_volatile();
            written.write_volatile(number.wrapping_add(1));
            self.page.add(RING_SLOTS_OFFSET + slot(number, CALL_SLOTS) * size_of::<Call>())
        }
    }

    /// Puts a call into the batch.
    #[inline]
    pub fn push(&mut self, call: Call) {
        // SAFETY: see the module's head.
        unsafe { self.next().cast::<Call>().write(call) };
    }

    /// A `sendv` of one entry that returns `done` bytes and wants no result: of its record the words that such a call has.
    #[inline(always)]
    pub fn push_sendv(&mut self, handle: Handle, entry: SgEntry, done: u64) {
        let words = self.next().cast::<u64>();
        // SAFETY: as above.
        unsafe {
            words.cast::<u32>().write(Op::Sendv.0.into());
            words.cast::<u32>().add(1).write(1);
        }
        for (at, word) in [(1, handle.0), (3, entry.addr), (4, entry.len), (7, done)] {
            // SAFETY: as above; a call has eight words.
            unsafe { words.add(at).write(word) };
        }
    }

    /// Entries that follow those in the call before.
    #[inline]
    pub fn push_sg(&mut self, entries: [SgEntry; 4]) {
        // SAFETY: see the module's head; four entries are as long as a call, and as aligned as the slot is.
        unsafe { self.next().cast::<[SgEntry; 4]>().write(entries) };
    }

    /// Events before this one were read.
    #[inline]
    pub fn read(&self) -> u32 {
        // SAFETY: see the module's head.
        unsafe { self.page.cast::<u32>().add(1).read_volatile() }
    }

    /// Gives their slots back.
    #[inline]
    pub fn has_read(&mut self, end: u32) {
        // SAFETY: see the module's head.
        unsafe { self.page.cast::<u32>().add(1).write_volatile(end) };
    }
}
