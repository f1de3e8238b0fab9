//! The application's side of the ABI, as libix has it: rings in pages, records in and out.
use ix_abi::call::{Call, SENDV_INLINE_SG, SgEntry, SgSlot, UDP_SENDV_INLINE_SG};
use ix_abi::layout::*;
use ix_abi::ring::slot;
use ix_abi::{Condition, Event, Op};
use std::collections::VecDeque;

/// One context: pointers to its pages, and the memory behind user addresses.
pub struct Context {
    pub event_page: *mut u8,
    pub call_page: *mut u8,
    pub heap: *mut u8,
    pub heap_bytes: u64,
    pub rx: *mut u8,
    pub rx_bytes: u64,
    consumed: u32,
    produced: u32,
    pub overflow: VecDeque<Vec<[u8; 64]>>,
    /// Events are read at most this many per entry.
    pub read_most: usize,
}

impl Context {
    pub fn new(event_page: *mut u8, call_page: *mut u8) -> Context {
        Context {
            event_page,
            call_page,
            heap: std::ptr::null_mut(),
            heap_bytes: 0,
            rx: std::ptr::null_mut(),
            rx_bytes: 0,
            consumed: 0,
            produced: 0,
            overflow: VecDeque::new(),
            read_most: usize::MAX,
        }
    }

    unsafe fn word(page: *mut u8, offset: usize) -> *mut u32 {
        // SAFETY: the caller's page is a leaked one and `offset` lies in its header.
        unsafe { page.add(offset).cast() }
    }

    /// The events that are there.
    pub fn events(&mut self) -> Vec<Condition> {
        let mut events = Vec::new();
        // SAFETY: both pages are leaked whole pages; `slot` is below the capacity, so `at` is a slot's offset.
        unsafe {
            let produced = Self::word(self.event_page, 0).read_volatile();
            while self.consumed != produced && events.len() < self.read_most {
                let at = RING_SLOTS_OFFSET + slot(self.consumed, EVENT_SLOTS) * 64;
                let event: Event = self.event_page.add(at).cast::<Event>().read_volatile();
                let (event, more) = Condition::decode(&event).split();
                events.push(event);
                events.extend(more);
                self.consumed = self.consumed.wrapping_add(1);
            }
            Self::word(self.call_page, 4).write_volatile(self.consumed);
        }
        events
    }

    fn room(&self) -> u32 {
        // SAFETY: the event page is a leaked one; 4 is a header word's offset.
        let consumed = unsafe { Self::word(self.event_page, 4).read_volatile() };
        CALL_SLOTS - self.produced.wrapping_sub(consumed)
    }

    fn write(&mut self, record: &[[u8; 64]]) {
        for bytes in record {
            let at = RING_SLOTS_OFFSET + slot(self.produced, CALL_SLOTS) * 64;
            // SAFETY: the call page is a leaked one; `slot` is below the capacity, so `at` is a slot's offset.
            unsafe { self.call_page.add(at).cast::<[u8; 64]>().write_volatile(*bytes) };
            self.produced = self.produced.wrapping_add(1);
        }
        // SAFETY: the call page is a leaked one; 0 is a header word's offset.
        unsafe { Self::word(self.call_page, 0).write_volatile(self.produced) };
    }

    /// Puts a call in the ring, or keeps it until there is room.
    pub fn call(&mut self, call: Call) {
        self.submit(vec![zerocopy::transmute!(call)]);
    }

    /// A call with scatter-gather entries, of which `call` has the first ones inline.
    pub fn call_sg(&mut self, mut call: Call, entries: &[SgEntry]) {
        call.sg_count = entries.len() as u16;
        let inline = if call.op == Op::Sendv.0 { SENDV_INLINE_SG } else { UDP_SENDV_INLINE_SG };
        let first = if call.op == Op::Sendv.0 { 0 } else { 3 };
        for (i, entry) in entries.iter().take(inline).enumerate() {
            call.words[first + 2 * i] = entry.addr;
            call.words[first + 2 * i + 1] = entry.len;
        }
        let mut record: Vec<[u8; 64]> = vec![zerocopy::transmute!(call)];
        for chunk in entries.get(inline..).unwrap_or(&[]).chunks(4) {
            let mut slot = SgSlot::default();
            slot.0[..chunk.len()].copy_from_slice(chunk);
            record.push(zerocopy::transmute!(slot));
        }
        self.submit(record);
    }

    fn submit(&mut self, record: Vec<[u8; 64]>) {
        self.overflow.push_back(record);
        self.flush();
    }

    /// Moves kept calls to the ring.
    pub fn flush(&mut self) {
        while let Some(record) = self.overflow.front() {
            if (self.room() as usize) < record.len() {
                break;
            }
            let record = self.overflow.pop_front().unwrap();
            self.write(&record);
        }
    }

    /// Overwrites the producer index.
    pub fn forge_produced(&mut self, produced: u32) {
        // SAFETY: as in `write`.
        unsafe { Self::word(self.call_page, 0).write_volatile(produced) };
    }

    pub fn produced(&self) -> u32 {
        self.produced
    }

    /// Bytes at a user address, in the heap or in the receive area.
    pub fn bytes(&self, addr: u64, len: u64) -> &[u8] {
        let (base, from, size) = if addr >= RX_BASE {
            (self.rx, RX_BASE, self.rx_bytes)
        } else {
            (self.heap, HEAP_BASE, self.heap_bytes)
        };
        assert!(addr >= from && addr + len <= from + size, "address {addr:#x} outside of the app");
        // SAFETY: within the area by the assertion; both areas are leaked.
        unsafe { std::slice::from_raw_parts(base.add((addr - from) as usize), len as usize) }
    }

    /// Writes into the heap.
    pub fn fill(&mut self, addr: u64, bytes: &[u8]) {
        assert!(addr >= HEAP_BASE && addr - HEAP_BASE + bytes.len() as u64 <= self.heap_bytes);
        // SAFETY: within the heap by the assertion; it is leaked, and nobody else writes it now.
        unsafe {
            let at = self.heap.add((addr - HEAP_BASE) as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        }
    }
}

/// What an application does when it is entered.
pub trait App {
    fn run(&mut self, context: &mut Context);
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}
