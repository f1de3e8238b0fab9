//! The application's side of its two rings, by the raw ABI.
use super::memory::Pages;
use ix_abi::call::{Call, SgEntry, SgSlot};
use ix_abi::event::{Condition, Event};
use ix_abi::layout::{
    CALL_SLOTS, CallHeader, EVENT_SLOTS, EventHeader, PAGE_BYTES, RING_SLOTS_OFFSET,
};
use ix_abi::ring;
use std::mem::offset_of;
use std::rc::Rc;
use zerocopy::IntoBytes;

/// The rings of one context.
#[derive(Debug)]
pub struct UserRings {
    /// Written by the kernel.
    pub event_page: Rc<Pages>,
    /// Written by the application.
    pub call_page: Rc<Pages>,
    read: u32,
    written: u32,
}

impl UserRings {
    /// Empty rings.
    pub fn new() -> UserRings {
        let page = || Rc::new(Pages::new(PAGE_BYTES as usize));
        UserRings { event_page: page(), call_page: page(), read: 0, written: 0 }
    }

    /// Nanoseconds since boot, as the kernel last said.
    pub fn now(&self) -> u64 {
        u64::from_ne_bytes(self.event_page.word(offset_of!(EventHeader, now_ns)))
    }

    /// Call slots that the kernel has consumed.
    pub fn calls_consumed(&self) -> u32 {
        u32::from_ne_bytes(self.event_page.word(offset_of!(EventHeader, calls_consumed)))
    }

    /// Call slots written.
    pub fn calls_written(&self) -> u32 {
        self.written
    }

    /// Call slots that are free.
    pub fn room(&self) -> u32 {
        ring::writable(self.written, self.calls_consumed(), CALL_SLOTS)
    }

    /// Unread events.
    pub fn events(&self) -> u32 {
        let produced = u32::from_ne_bytes(self.event_page.word(offset_of!(EventHeader, produced)));
        ring::readable(produced, self.read, EVENT_SLOTS).expect("a kernel that keeps to its ring")
    }

    /// The next event; the caller has seen that there is one.
    pub fn next_event(&mut self) -> Condition {
        let at = RING_SLOTS_OFFSET + ring::slot(self.read, EVENT_SLOTS) * size_of::<Event>();
        self.read = self.read.wrapping_add(1);
        let event: Event = zerocopy::transmute!(self.event_page.word::<{ size_of::<Event>() }>(at));
        Condition::decode(&event)
    }

    /// Writes a call with the scatter-gather entries beyond those in its record; returns the index
    /// after it.
    pub fn write(&mut self, call: &Call, more: &[SgEntry]) -> u32 {
        let slots = call.slots();
        assert!(self.room() as usize >= slots, "the call ring is full");
        self.slot(call.as_bytes());
        for i in 1..slots {
            let mut slot = SgSlot::default();
            for (entry, given) in slot.0.iter_mut().zip(more.iter().skip((i - 1) * 4)) {
                *entry = *given;
            }
            self.slot(slot.as_bytes());
        }
        self.written
    }

    fn slot(&mut self, bytes: &[u8]) {
        let at = RING_SLOTS_OFFSET + ring::slot(self.written, CALL_SLOTS) * size_of::<Call>();
        self.call_page.write(at, bytes);
        self.written = self.written.wrapping_add(1);
    }

    /// Shows the kernel what was written, and what was read, or as much of it that there is only
    /// `room` in the event ring.
    pub fn publish(&self, room: Option<u32>) {
        let read = self.read.wrapping_sub(room.map_or(0, |room| EVENT_SLOTS - room));
        self.call_page.write(offset_of!(CallHeader, events_consumed), &read.to_ne_bytes());
        self.call_page.write(offset_of!(CallHeader, produced), &self.written.to_ne_bytes());
    }
}

impl Default for UserRings {
    fn default() -> UserRings {
        UserRings::new()
    }
}
