//! Memory that driver and chip share. The chip reaches it by bus address only, and only what the driver was given.
#![allow(unsafe_code, reason = "stands for physical memory")]

use ix_dataplane::device::{BusAddr, Dma, DmaRegion};
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
const PAGE: usize = 4096;

pub struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    next: Cell<usize>,
    granted: RefCell<Vec<Range<u64>>>,
    /// Whether the chip may reach any of it.
    pub cut_off: Cell<bool>,
}

impl Memory {
    /// Never freed: references into it are `'static`.
    pub fn new(bytes: usize) -> Rc<Memory> {
        // Aligned here and not by the allocator, which would have to write the zeros: most of it is never touched.
        let layout = Layout::array::<u8>(bytes + PAGE).unwrap();
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        // SAFETY: there is a page more than asked for.
        let base = NonNull::new(unsafe { start.add(start.align_offset(PAGE)) }).unwrap();
        let (next, granted) = (Cell::new(0), RefCell::default());
        Rc::new(Memory { base, bytes, next, granted, cut_off: Cell::new(false) })
    }

    fn find(&self, bus: u64, len: usize) -> Option<*mut u8> {
        let end = bus.checked_add(len as u64)?;
        let granted = self.granted.borrow();
        let inside = granted.iter().any(|g| g.start <= bus && end <= g.end);
        (inside && !self.cut_off.get()).then(|| self.ptr((bus - BUS_BASE) as usize, len))
    }

    fn ptr(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at + len <= self.bytes);
        // SAFETY: within the allocation, as just checked.
        unsafe { self.base.as_ptr().add(at) }
    }

    pub fn take(&self, len: usize, align: usize) -> Option<DmaRegion> {
        let at = self.next.get().next_multiple_of(align);
        let end = at.checked_add(len)?;
        if end > self.bytes {
            return None;
        }
        self.next.set(end + GAP);
        let bus = BUS_BASE + at as u64;
        self.granted.borrow_mut().push(bus..bus + len as u64);
        Some(DmaRegion { ptr: NonNull::new(self.ptr(at, len)).unwrap(), bus: BusAddr(bus), len })
    }

    #[allow(dead_code, reason = "the example looks at no rings")]
    pub fn load64(&self, bus: u64) -> u64 {
        let mut bytes = [0; 8];
        assert!(ix_model_ixgbe::Memory::read(self, bus, &mut bytes));
        u64::from_le_bytes(bytes)
    }

    pub fn store(&self, bus: u64, bytes: &[u8]) {
        assert!(ix_model_ixgbe::Memory::write(self, bus, bytes), "{bus:#x}");
    }
}

impl ix_model_ixgbe::Memory for Memory {
    fn read(&self, at: u64, to: &mut [u8]) -> bool {
        let from = self.find(at, to.len());
        if let Some(from) = from {
            // SAFETY: within the allocation; one thread, and the driver's references are to atomics, none of
            // which is being accessed meanwhile.
            unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        }
        from.is_some()
    }

    fn write(&self, at: u64, from: &[u8]) -> bool {
        let to = self.find(at, from.len());
        if let Some(to) = to {
            // SAFETY: as in `read`; what is no atomic is a buffer, which is the chip's until it has written back.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        }
        to.is_some()
    }
}

/// The `Dma` service over a memory, with a limit to run into.
pub struct TestDma {
    pub memory: Rc<Memory>,
    pub allocations_left: usize,
}

impl Dma for TestDma {
    fn alloc(&mut self, len: usize, align: usize) -> Option<DmaRegion> {
        self.allocations_left = self.allocations_left.checked_sub(1)?;
        self.memory.take(len, align)
    }
}

/// Receive buffers.
pub fn area(memory: &Memory, cores: u16, per_core: u32) -> &'static Area {
    let bytes = usize::from(cores) * per_core as usize * MBUF_BYTES;
    let region = memory.take(bytes, 4096).unwrap();
    // SAFETY: the region is nobody else's and never freed.
    let area = unsafe { Area::new(region.ptr, region.bus, 0x8000_0000, cores, per_core) };
    Box::leak(Box::new(area))
}
