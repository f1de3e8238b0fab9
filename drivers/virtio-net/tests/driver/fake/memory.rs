//! Memory that driver and fake device share. The device reaches it by bus address only, and only
//! where the driver was given memory: anything else is the driver's fault and ends the test.
#![allow(unsafe_code, reason = "stands for physical memory")]

use ix_dataplane::device::{BusAddr, Dma, DmaRegion};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::Area;
use std::alloc::{Layout, alloc_zeroed};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex};

/// Far from any pointer, so that a mix-up is seen.
const BUS_BASE: u64 = 0x77_0000_0000;
/// Between two grants, so that an overrun is seen.
const GAP: usize = 64;
const PAGE: usize = 4096;

pub struct Memory {
    base: NonNull<u8>,
    bytes: usize,
    next: AtomicUsize,
    granted: Mutex<Vec<Range<u64>>>,
}

// SAFETY: the memory is reached as atomics, or by whom the ring protocol says owns it.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Never freed: references into it are `'static`.
    pub fn new(bytes: usize) -> Arc<Memory> {
        // Aligned here and not by the allocator, which would have to write the zeros: most of it is never touched.
        let layout = Layout::array::<u8>(bytes + PAGE).unwrap();
        // SAFETY: the layout is not empty.
        let start = unsafe { alloc_zeroed(layout) };
        // SAFETY: there is a page more than asked for.
        let base = NonNull::new(unsafe { start.add(start.align_offset(PAGE)) }).unwrap();
        Arc::new(Memory { base, bytes, next: AtomicUsize::new(0), granted: Mutex::default() })
    }

    /// Forgets all grants for the next test case. Its queues must be gone.
    pub fn clear(&self) {
        let used = self.next.swap(0, Relaxed);
        for at in 0..used.div_ceil(8) {
            self.word(BUS_BASE + 8 * at as u64).store(0, Relaxed);
        }
        self.granted.lock().unwrap().clear();
    }

    fn grant(&self, range: Range<u64>) {
        self.granted.lock().unwrap().push(range);
    }

    pub fn check(&self, bus: u64, len: usize) {
        let end = bus + len as u64;
        let granted = self.granted.lock().unwrap();
        // They ascend: the first that ends behind it is the only one that can have it.
        let at = granted.partition_point(|g| g.end < end);
        let inside = granted.get(at).is_some_and(|g| g.start <= bus);
        assert!(inside, "descriptor or ring outside the memory given: {bus:#x}+{len}");
    }

    fn ptr(&self, bus: u64, len: usize) -> *mut u8 {
        let at = usize::try_from(bus - BUS_BASE).unwrap();
        assert!(at + len <= self.bytes);
        // SAFETY: within the allocation, as just checked.
        unsafe { self.base.as_ptr().add(at) }
    }

    fn word(&self, bus: u64) -> &AtomicU64 {
        assert!(bus.is_multiple_of(8));
        // SAFETY: valid, aligned, for ever; only atomics and plain copies of the owner touch it.
        unsafe { &*self.ptr(bus, 8).cast::<AtomicU64>() }
    }

    fn half(&self, bus: u64) -> &AtomicU16 {
        assert!(bus.is_multiple_of(2));
        // SAFETY: as in `word`.
        unsafe { &*self.ptr(bus, 2).cast::<AtomicU16>() }
    }

    pub fn load16(&self, bus: u64) -> u16 {
        self.half(bus).load(Acquire)
    }

    pub fn store16(&self, bus: u64, value: u16) {
        self.half(bus).store(value, Release);
    }

    pub fn load64(&self, bus: u64) -> u64 {
        self.word(bus).load(Relaxed)
    }

    pub fn store64(&self, bus: u64, value: u64) {
        self.word(bus).store(value, Relaxed);
    }

    pub fn read(&self, bus: u64, len: usize) -> Vec<u8> {
        self.check(bus, len);
        let ptr = self.ptr(bus, len);
        // SAFETY: within the allocation, and the device's until it completes the descriptor.
        (0..len).map(|i| unsafe { (*ptr.add(i).cast::<AtomicU8>()).load(Relaxed) }).collect()
    }

    pub fn write(&self, bus: u64, bytes: &[u8]) {
        self.check(bus, bytes.len());
        let ptr = self.ptr(bus, bytes.len());
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `read`.
            unsafe { (*ptr.add(i).cast::<AtomicU8>()).store(*byte, Relaxed) };
        }
    }

    fn take(&self, len: usize, align: usize) -> Option<DmaRegion> {
        let at = self.next.load(Relaxed).next_multiple_of(align);
        let end = at.checked_add(len)?;
        if end > self.bytes {
            return None;
        }
        self.next.store(end + GAP, Relaxed);
        let bus = BUS_BASE + at as u64;
        self.grant(bus..bus + len as u64);
        let ptr = NonNull::new(self.ptr(bus, len)).unwrap();
        Some(DmaRegion { ptr, bus: BusAddr(bus), len })
    }
}

/// The `Dma` service over a memory, with a limit to run into.
pub struct FakeDma {
    pub memory: Arc<Memory>,
    pub allocations_left: usize,
}

impl Dma for FakeDma {
    fn alloc(&mut self, len: usize, align: usize) -> Option<DmaRegion> {
        self.allocations_left = self.allocations_left.checked_sub(1)?;
        self.memory.take(len, align)
    }
}

/// Receive buffers in a memory of their own, which outlives all test cases.
pub struct Buffers {
    pub area: &'static Area,
    pub memory: Arc<Memory>,
    bus: u64,
}

impl Buffers {
    pub fn new(cores: u16, per_core: u32) -> Buffers {
        let bytes = usize::from(cores) * per_core as usize * MBUF_BYTES;
        let memory = Memory::new(bytes + (16 << 20));
        let region = memory.take(bytes, 4096).unwrap();
        // SAFETY: the region is nobody else's and never freed.
        let area = unsafe { Area::new(region.ptr, region.bus, 0x8000_0000, cores, per_core) };
        Buffers { area: Box::leak(Box::new(area)), memory, bus: region.bus.0 }
    }

    /// Takes all memory but the buffers back, for the next test case.
    pub fn clear(&self) {
        let bytes = self.area.bytes();
        let first = (bytes as usize + GAP).next_multiple_of(4096);
        let used = self.memory.next.load(Relaxed);
        for at in (first..used).step_by(8) {
            self.memory.store64(BUS_BASE + at as u64, 0);
        }
        self.memory.next.store(first, Relaxed);
        let mut granted = self.memory.granted.lock().unwrap();
        granted.clear();
        granted.push(self.bus..self.bus + bytes);
    }
}
