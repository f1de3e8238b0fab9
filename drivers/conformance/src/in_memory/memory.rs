//! Memory that driver and device share. The device reaches it by bus address only, and only what the driver was given.
#![allow(unsafe_code, reason = "stands for physical memory")]

use ix_dataplane::device::BusAddr;
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::Area;
use std::alloc::{Layout, alloc_zeroed};
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::ptr::NonNull;
use std::rc::Rc;

/// Far from any pointer, so that a mix-up is seen.
const BUS_BASE: u64 = 0x77_0000_0000;
/// Between two grants, so that an overrun is seen.
const GAP: usize = 64;
/// Where an application would see the buffers.
const USER_BASE: u64 = 0x8000_0000;
const PAGE: usize = 4096;

/// Some memory, of which parts are given away in turn.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    next: Cell<usize>,
    /// Ascending.
    granted: RefCell<Vec<Range<u64>>>,
}

impl Memory {
    /// Never freed: references into it are `'static`.
    pub fn new(bytes: usize) -> Rc<Memory> {
        // Aligned here and not by the allocator, which would have to write the zeros: most of it is never touched.
        let layout = Layout::array::<u8>(bytes + PAGE).expect("a sane size");
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        // SAFETY: there is a page more than asked for.
        let base = NonNull::new(unsafe { start.add(start.align_offset(PAGE)) }).expect("memory");
        let (next, granted) = (Cell::new(0), RefCell::default());
        Rc::new(Memory { base, bytes, next, granted })
    }

    /// What so many buffers take.
    pub const fn bytes_of(buffers: u32) -> usize {
        buffers as usize * MBUF_BYTES + PAGE
    }

    /// Gives a part away, to both sides. Panics where there is none left.
    pub fn take(&self, len: usize, align: usize) -> (NonNull<u8>, BusAddr) {
        let at = self.next.get().next_multiple_of(align);
        self.next.set(at + len + GAP);
        let bus = BUS_BASE + at as u64;
        self.granted.borrow_mut().push(bus..bus + len as u64);
        (self.ptr(at, len), BusAddr(bus))
    }

    /// Receive buffers.
    pub fn area(&self, cores: u16, per_core: u32) -> &'static Area {
        let (ptr, bus) = self.take(usize::from(cores) * per_core as usize * MBUF_BYTES, PAGE);
        // SAFETY: the part is nobody else's and never freed.
        let area = unsafe { Area::new(ptr, bus, USER_BASE, cores, per_core) };
        Box::leak(Box::new(area))
    }

    fn ptr(&self, at: usize, len: usize) -> NonNull<u8> {
        assert!(at + len <= self.bytes, "the memory is full");
        // SAFETY: within the allocation, as just checked.
        unsafe { self.base.add(at) }
    }

    fn find(&self, bus: BusAddr, len: usize) -> NonNull<u8> {
        let granted = self.granted.borrow();
        let at = granted.partition_point(|range| range.end < bus.0 + len as u64);
        let inside = granted.get(at).is_some_and(|range| range.start <= bus.0);
        assert!(inside, "access outside of the memory given: {bus:x?}+{len}");
        self.ptr((bus.0 - BUS_BASE) as usize, len)
    }

    /// Copies into it.
    pub fn write(&self, at: BusAddr, bytes: &[u8]) {
        let to = self.find(at, bytes.len());
        // SAFETY: within the allocation; one thread, and no reference into it is alive.
        unsafe { to.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }
}

impl ix_memory_nic::Bus for Memory {
    fn read(&self, from: BusAddr, bytes: &mut [u8]) {
        let (from, len) = (self.find(from, bytes.len()), bytes.len());
        // SAFETY: as in `write`.
        unsafe { from.copy_to_nonoverlapping(NonNull::from(bytes).cast(), len) };
    }
}
