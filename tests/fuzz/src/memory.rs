//! Memory that stands for RAM: allocated once per thread and used again for every input, since an
//! input takes microseconds and pages do not.
#![allow(unsafe_code, reason = "gives the engines the memory that stands for RAM")]

use ix_abi::call::Direct;
use ix_abi::layout::{EventHeader, InfoPage, PAGE_BYTES, RING_SLOTS_OFFSET};
use ix_abi::layout::{HEAP_BASE, RX_BASE};
use ix_dataplane::device::{BusAddr, DmaRegion, Fragment};
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::Area;
use ix_dataplane::rings::AppRings;
use ix_dataplane::usermem::UserMap;
use libix::context::{Context, Parts};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::cell::{Cell, OnceCell};
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Once, OnceLock};
use zerocopy::FromZeros;

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

    /// With the receive area and the heap at the addresses that a program knows them by: there is one in
    /// a process, and one machine at a time uses it.
    pub fn of_program() -> Ram {
        static MAPPED: Once = Once::new();
        MAPPED.call_once(|| {
            map_fixed(RX_BASE, (usize::from(CORES_MAX) * BUFFERS_MAX as usize) * MBUF_BYTES);
            map_fixed(HEAP_BASE, HEAP_PAGES as usize * PAGE);
        });
        Ram { rx: user(RX_BASE), heap: user(HEAP_BASE), ..Ram::of_thread() }
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

/// Zeroed memory at an address of the contract, for ever.
fn map_fixed(address: u64, bytes: usize) {
    let at = NonZeroUsize::new(address as usize);
    let length = NonZeroUsize::new(bytes.next_multiple_of(PAGE)).expect("not nothing");
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: `MAP_FIXED_NOREPLACE` replaces nothing that is there.
    let got = unsafe { mmap_anonymous(at, length, access, flags) }.expect("a free address");
    assert_eq!(got.as_ptr() as u64, address, "the kernel does not know MAP_FIXED_NOREPLACE");
}

/// Memory that `map_fixed` has mapped.
fn user(address: u64) -> NonNull<u8> {
    NonNull::new(std::ptr::with_exposed_provenance_mut(address as usize)).expect("not 0")
}

/// Whether these bytes are in the receive area of a program.
pub fn is_received(bytes: &[u8]) -> bool {
    let buffers = u64::from(CORES_MAX) * u64::from(BUFFERS_MAX) * MBUF_BYTES as u64;
    let first = bytes.as_ptr() as u64;
    (RX_BASE..RX_BASE + buffers).contains(&first) && first + bytes.len() as u64 <= RX_BASE + buffers
}

/// The first bytes of a program's heap.
pub fn program_bytes(len: usize) -> &'static [u8] {
    assert!(len <= HEAP_PAGES as usize * PAGE);
    // SAFETY: mapped for ever, and nobody writes there.
    unsafe { std::slice::from_raw_parts(user(HEAP_BASE).as_ptr(), len) }
}

thread_local! {
    static SHUT: Cell<bool> = const { Cell::new(false) };
}

/// Runs a batch of a program, which must not go into the kernel before its end.
pub fn shut_door(batch: impl FnOnce()) {
    SHUT.set(true);
    batch();
    SHUT.set(false);
}

/// A program's way into the kernel. The engine runs when the program has returned, so there is
/// nothing to be done.
fn door(number: Direct, _: u64, _: u64, _: u64) -> u64 {
    match number {
        Direct::Enter => assert!(!SHUT.get(), "a batch is longer than the ring"),
        Direct::Ready => {}
        other => panic!("direct call {other:?}"),
    }
    0
}

/// The context of a program whose rings these are. The receive area and the heap are those of
/// [`Ram::of_program`].
pub fn context(pages: Pages) -> Context {
    static INFO: OnceLock<InfoPage> = OnceLock::new();
    let info = INFO.get_or_init(|| {
        let mut info: InfoPage = FromZeros::new_zeroed();
        info.version = ix_abi::VERSION;
        (info.cores, info.groups, info.tsc_khz) = (1, 4, 1_000_000);
        info
    });
    let pages = libix::ring::Pages { events: pages.events, calls: pages.calls };
    // SAFETY: the pages are aligned, empty, and never freed; the engine changes them only while the
    // program is not running, and reports received memory that is mapped at its addresses.
    unsafe { Context::from_parts(Parts { index: 0, pages, info, door }) }
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
