//! Memory that stands for RAM: allocated once per thread and used again for every input, since an
//! input takes microseconds and pages do not.
#![allow(unsafe_code, reason = "gives the engines the memory that stands for RAM")]

use ix_abi::layout::{EventHeader, PAGE_BYTES, RING_SLOTS_OFFSET};
use ix_abi::layout::{HEAP_BASE, RX_BASE};
use ix_dataplane::device::{BusAddr, DmaRegion, Fragment};
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::Area;
use ix_dataplane::rings::AppRings;
use ix_dataplane::usermem::UserMap;
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::OnceCell;
use std::ptr::NonNull;

/// Cores of the largest machine.
pub const CORES_MAX: u16 = 3;
/// Receive buffers of a core.
pub const BUFFERS_MAX: u32 = 192;
/// 2 MiB pages of the application's heap.
pub const HEAP_PAGES: u32 = 2;

const PAGE: usize = PAGE_BYTES as usize;

/// One thread's memory.
#[derive(Clone, Copy, Debug)]
pub struct Ram {
    rx: NonNull<u8>,
    heap: NonNull<u8>,
    headers: NonNull<u8>,
    rings: NonNull<u8>,
}

/// Zeroed memory that lives for ever.
fn leak(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE).expect("a sane size");
    // SAFETY: no caller asks for 0 bytes.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Ram {
    /// This thread's. One machine at a time uses it.
    pub fn of_thread() -> Ram {
        thread_local! {
            static RAM: OnceCell<Ram> = const { OnceCell::new() };
        }
        RAM.with(|cell| *cell.get_or_init(Ram::new))
    }

    fn new() -> Ram {
        let cores = usize::from(CORES_MAX);
        let ram = Ram {
            rx: leak(cores * BUFFERS_MAX as usize * MBUF_BYTES),
            heap: leak(HEAP_PAGES as usize * PAGE),
            headers: leak(cores * TX_HEADER_REGION_BYTES),
            rings: leak(cores * 2 * PAGE),
        };
        for at in 0..HEAP_PAGES as usize * PAGE {
            // SAFETY: within the heap.
            unsafe { ram.heap.add(at).write((at * 7 + (at >> 8)) as u8) };
        }
        ram
    }

    /// The receive buffers of a machine.
    pub fn area(&self, cores: u16, buffers: u32) -> SharedArea {
        assert!(cores <= CORES_MAX && buffers <= BUFFERS_MAX);
        let bus = BusAddr(self.rx.as_ptr() as u64);
        // SAFETY: the memory is that large, is never freed, and one machine at a time uses it.
        let area = unsafe { Area::new(self.rx, bus, RX_BASE, cores, buffers) };
        SharedArea(Box::into_raw(Box::new(area)))
    }

    /// A core's header slots.
    pub fn headers(&self, core: u16) -> DmaRegion {
        assert!(core < CORES_MAX);
        // SAFETY: within the allocation.
        let ptr = unsafe { self.headers.add(usize::from(core) * TX_HEADER_REGION_BYTES) };
        DmaRegion { ptr, bus: BusAddr(ptr.as_ptr() as u64), len: TX_HEADER_REGION_BYTES }
    }

    /// An address space whose heap is mapped.
    pub fn user_map(&self, cores: u16) -> UserMap {
        let map = UserMap::new(HEAP_PAGES, cores);
        (0..HEAP_PAGES).for_each(|page| self.map_page(&map, page));
        map
    }

    /// Maps a page of the heap.
    pub fn map_page(&self, map: &UserMap, page: u32) {
        let at = self.heap.as_ptr() as usize + page as usize * PAGE;
        let addr = HEAP_BASE + u64::from(page) * PAGE_BYTES;
        // SAFETY: a page of the heap, which is never freed.
        assert!(unsafe { map.map(addr, at, BusAddr(at as u64)) });
    }

    /// Both sides of a core's rings, empty.
    pub fn rings(&self, core: u16) -> (AppRings, Pages) {
        assert!(core < CORES_MAX);
        // SAFETY: within the allocation; headers are whole pages apart.
        let (events, calls) = unsafe {
            let events = self.rings.add(usize::from(core) * 2 * PAGE);
            let calls = events.add(PAGE);
            events.write_bytes(0, RING_SLOTS_OFFSET);
            calls.write_bytes(0, RING_SLOTS_OFFSET);
            (events, calls)
        };
        // SAFETY: whole pages, aligned to their size, never freed; `Pages` plays the application.
        (unsafe { AppRings::new(events, calls) }, Pages { events, calls })
    }
}

/// The area of one machine, which outlives the engines: freed when dropped.
#[derive(Debug)]
pub struct SharedArea(*mut Area);

impl SharedArea {
    /// For the engines, which must be gone before this is.
    pub fn get(&self) -> &'static Area {
        // SAFETY: made by `Box::into_raw`, freed only when dropped; the machine drops its engines
        // first.
        unsafe { &*self.0 }
    }
}

impl Drop for SharedArea {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw`; nobody uses it any more.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// The application's view of its rings.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    events: NonNull<u8>,
    calls: NonNull<u8>,
}

const _: () = assert!(size_of::<EventHeader>() <= RING_SLOTS_OFFSET);

impl Pages {
    /// A word of the event page's header.
    pub fn event_word(&self, offset: usize) -> u32 {
        assert!(offset < RING_SLOTS_OFFSET);
        // SAFETY: within the page.
        unsafe { self.events.add(offset).cast::<u32>().read_volatile() }
    }

    /// Overwrites a word of the call page's header.
    pub fn set_call_word(&self, offset: usize, value: u32) {
        assert!(offset < RING_SLOTS_OFFSET);
        // SAFETY: within the page.
        unsafe { self.calls.add(offset).cast::<u32>().write_volatile(value) };
    }

    /// A slot of the event ring.
    pub fn event_slot(&self, slot: usize) -> [u64; 8] {
        let at = RING_SLOTS_OFFSET + slot * 64;
        assert!(at + 64 <= PAGE);
        // SAFETY: within the page, aligned.
        unsafe { self.events.add(at).cast::<[u64; 8]>().read_volatile() }
    }

    /// Overwrites a slot of the call ring.
    pub fn set_call_slot(&self, slot: usize, words: [u64; 8]) {
        let at = RING_SLOTS_OFFSET + slot * 64;
        assert!(at + 64 <= PAGE);
        // SAFETY: within the page, aligned.
        unsafe { self.calls.add(at).cast::<[u64; 8]>().write_volatile(words) };
    }
}

/// Maps a page of the application to a driver's memory, which is never freed.
pub fn map(map: &UserMap, addr: u64, region: &DmaRegion) {
    assert!(region.len as u64 >= PAGE_BYTES);
    // SAFETY: the region is as large as a page and is never freed.
    assert!(unsafe { map.map(addr, region.ptr.as_ptr() as usize, region.bus) });
}

/// What a device reads of a frame. Bus addresses are pointers here.
pub fn gather(fragments: &[Fragment], into: &mut Vec<u8>) {
    into.clear();
    for fragment in fragments {
        assert!(fragment.len > 0, "an empty fragment");
        assert!(fragment.len <= 1 << 16, "a fragment of {} bytes", fragment.len);
        // SAFETY: the engine promises that the memory is readable until completion.
        let part = unsafe {
            std::slice::from_raw_parts(fragment.bus.0 as *const u8, fragment.len as usize)
        };
        into.extend_from_slice(part);
    }
}
