//! Memory: the frame allocator, the kernel's page tables, the direct map, device mappings.
//!
//! Everything here is for boot and control actions; the locks are never taken on the packet path.
#![allow(unsafe_code, reason = "builds and loads page tables, touches frames by address")]

pub mod heap;
pub mod layout;

use arrayvec::ArrayVec;
use bootloader_api::BootInfo;
use bootloader_api::info::MemoryRegionKind;
use core::sync::atomic::{AtomicU64, Ordering};
use ix_kernel_core::addr::{LARGE_PAGE, PAGE, Phys, Virt, align_down, align_up};
use ix_kernel_core::frames::FrameAllocator;
use ix_kernel_core::paging::{self, Access, Entry, MapError, MaxPage, Range, Space, Tables};
use ix_kernel_core::placement;
use ix_kernel_core::stacks::{self, Ist};
use spin::Mutex;
use x86_64::registers::control::{Cr3, Cr3Flags};
use x86_64::structures::paging::PhysFrame;

use crate::{console, unsupported};

static FRAMES: Mutex<FrameAllocator> = Mutex::new(FrameAllocator::new());
static ROOT: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
static DEVICE_NEXT: Mutex<u64> = Mutex::new(layout::DEVICE_BASE);
/// Held while the kernel's tables change.
static TABLES: Mutex<()> = Mutex::new(());

/// Less than this is not tried; what applications need comes on top, and is said where it is missing.
const LEAST_BYTES: u64 = 12 << 20;

/// Page tables through the direct map.
pub struct DirectTables;

impl Tables for DirectTables {
    fn read(&self, table: Phys, index: usize) -> Entry {
        assert!(index < 512);
        // SAFETY: tables come from `new_table`, so they are RAM in the direct map; the CPU reads them
        // concurrently but never writes anything but accessed/dirty bits.
        Entry(unsafe { (layout::direct(table) as *const u64).add(index).read_volatile() })
    }

    fn write(&mut self, table: Phys, index: usize, entry: Entry) {
        assert!(index < 512);
        // SAFETY: as in `read`; writers hold `TABLES` or own the address space.
        unsafe { (layout::direct(table) as *mut u64).add(index).write_volatile(entry.0) }
    }

    fn new_table(&mut self) -> Option<Phys> {
        alloc_page()
    }
}

/// One zeroed 4 KiB frame.
pub fn alloc_page() -> Option<Phys> {
    let frame = FRAMES.lock().alloc_page()?;
    zero(frame, PAGE);
    Some(frame)
}

/// Zeroed 2 MiB frames that are kept ready: zeroing takes a millisecond for each, which whoever has a
/// network to serve spends one at a time.
static READY: Mutex<ArrayVec<Phys, READY_MAX>> = Mutex::new(ArrayVec::new_const());
const READY_MAX: usize = 256;

/// Makes one more frame ready, unless `wanted` are, or there is none. Whether it is done with that.
pub fn make_ready(wanted: usize) -> bool {
    if READY.lock().len() >= wanted.min(READY_MAX) {
        return true;
    }
    let Some(frame) = alloc_zeroed() else { return true };
    if READY.lock().try_push(frame).is_err() {
        free(frame, LARGE_PAGE);
    }
    false
}

/// One zeroed 2 MiB frame.
pub fn alloc_large() -> Option<Phys> {
    let ready = READY.lock().pop();
    ready.or_else(alloc_zeroed)
}

fn alloc_zeroed() -> Option<Phys> {
    let frame = FRAMES.lock().alloc_large()?;
    zero(frame, LARGE_PAGE);
    Some(frame)
}

/// `bytes` zeroed, physically contiguous.
pub fn alloc_contiguous(bytes: u64, align: u64) -> Option<Phys> {
    let bytes = align_up(bytes, PAGE)?;
    let frame = FRAMES.lock().alloc_high(bytes, align.max(PAGE))?;
    zero(frame, bytes);
    Some(frame)
}

/// Gives frames back. What is not free-able (given twice) is a kernel bug and is reported.
pub fn free(frame: Phys, bytes: u64) {
    if let Err(e) = FRAMES.lock().free(frame, bytes) {
        log::error!("frame {frame:?} of {bytes} bytes cannot be freed: {e:?}");
    }
}

/// Bytes that are free, those kept ready among them.
pub fn free_bytes() -> u64 {
    let ready = READY.lock().len() as u64;
    FRAMES.lock().free_bytes() + ready * LARGE_PAGE
}

/// RAM that the kernel manages, free or not.
pub fn total_bytes() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Makes sure that a free frame is all zero. What is zero already is only read: in a virtual machine
/// the first write to a page is what costs (the host has to find memory for it), reading does not.
fn zero(frame: Phys, bytes: u64) {
    let first = layout::direct(frame) as *mut [u64; 64];
    for i in 0..bytes as usize / size_of::<[u64; 64]>() {
        // SAFETY: the frame was free, so nothing else refers to it, and RAM is in the direct map.
        let block = unsafe { &mut *first.add(i) };
        if block.iter().fold(0, |sum, word| sum | *word) != 0 {
            block.fill(0);
        }
    }
}

/// The kernel's own top-level table.
pub fn root() -> Phys {
    Phys(ROOT.load(Ordering::Relaxed))
}

/// Sets up frames and page tables from the memory map and leaves the boot mapping. After this the
/// identity map is gone and the image is mapped W^X.
pub fn init(boot: &BootInfo) {
    collect_frames(boot);
    let free = FRAMES.lock().free_bytes();
    if free < LEAST_BYTES {
        unsupported!(
            "too little memory: {} KiB are free, {} MiB are needed to start at all",
            free >> 10,
            LEAST_BYTES >> 20
        );
    }
    let root = build_tables(boot).expect("memory for the kernel's page tables");
    ROOT.store(root.0, Ordering::Relaxed);
    console::screen_unmapped();
    // SAFETY: the new tables map the running code, its data and the boot stack at the same
    // addresses as before, and the direct map that everything else goes through.
    unsafe { load_root(root) };
    console::screen_mapped();
}

/// Loads a top-level table.
///
/// # Safety
/// It must map the kernel half as [`init`] built it.
pub unsafe fn load_root(root: Phys) {
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new(root.0));
    // SAFETY: the caller's promise.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}

fn collect_frames(boot: &BootInfo) {
    let mut frames = FRAMES.lock();
    // What the loader and the firmware left is not among the usable ranges (`boot`).
    placement::fill(&mut frames, usable(boot)).expect("the memory map does not overlap");
    TOTAL.store(frames.free_bytes(), Ordering::Relaxed);
}

/// Start and end of each range that is free RAM.
pub fn usable(boot: &BootInfo) -> impl Iterator<Item = (u64, u64)> {
    let regions = boot.memory_regions.iter();
    regions.filter(|r| r.kind == MemoryRegionKind::Usable).map(|r| (r.start, r.end))
}

fn build_tables(boot: &BootInfo) -> Result<Phys, MapError> {
    let t = &mut DirectTables;
    let root = t.new_table().ok_or(MapError::NoMemory)?;
    let [text, rodata, data] = layout::sections();
    let parts =
        [(text.clone(), Access::Execute), (rodata.clone(), Access::Read), (data, Access::Write)];
    for (s, access) in parts {
        let r = Range {
            va: Virt(s.start),
            pa: layout::image_phys(Virt(s.start)),
            len: s.end - s.start,
        };
        paging::map(t, root, r, access, Space::Kernel, MaxPage::Small)?;
    }
    let code = layout::image_phys(Virt(text.start)).0..layout::image_phys(Virt(rodata.end)).0;
    // The first MiB by hand: RAM and firmware, without the VGA window.
    map_direct(t, root, 0, 0xA_0000)?;
    map_direct(t, root, 0xC_0000, 0x10_0000)?;
    for r in boot.memory_regions.iter() {
        let ram = match r.kind {
            MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => true,
            MemoryRegionKind::UnknownBios(kind) => kind == 3 || kind == 4,
            _ => false,
        };
        if ram {
            let start = align_up(r.start.max(1 << 20), PAGE).unwrap_or(u64::MAX);
            let end = align_down(r.end.min(layout::DIRECT_BYTES), PAGE);
            // Text and constants must have no writable alias.
            map_direct(t, root, start, end.min(code.start))?;
            map_direct(t, root, start.max(code.end), end)?;
        }
    }
    // Top-level entries that every address space copies exist from now on.
    for (base, bytes) in [
        (layout::HEAP_BASE, layout::HEAP_BYTES),
        (stacks::STACKS_BASE, 1 << 39),
        (layout::DEVICE_BASE, layout::DEVICE_BYTES),
    ] {
        paging::prepare_top(t, root, Virt(base), Virt(base + bytes - 1))?;
    }
    Ok(root)
}

fn map_direct(t: &mut DirectTables, root: Phys, start: u64, end: u64) -> Result<(), MapError> {
    if start >= end {
        return Ok(());
    }
    let max = if has_huge_pages() { MaxPage::Huge } else { MaxPage::Large };
    let r = Range { va: Virt(layout::direct(Phys(start))), pa: Phys(start), len: end - start };
    paging::map(t, root, r, Access::Write, Space::Kernel, max)
}

fn has_huge_pages() -> bool {
    raw_cpuid::CpuId::new()
        .get_extended_processor_and_feature_identifiers()
        .is_some_and(|f| f.has_1gib_pages())
}

/// Whether the direct map holds all of `[start, start + len)`.
pub fn is_direct(start: Phys, len: u64) -> bool {
    let (Some(end), first) = (start.0.checked_add(len.max(1)), align_down(start.0, PAGE)) else {
        return false;
    };
    end <= layout::DIRECT_BYTES
        && (first..end).step_by(PAGE as usize).all(|pa| {
            paging::lookup(&DirectTables, root(), Virt(layout::direct(Phys(pa)))).is_some()
        })
}

/// Maps device registers, uncached; returns their kernel address. Never unmapped.
pub fn map_device(pa: Phys, len: u64) -> Result<Virt, MapError> {
    map_window(pa, len, Access::Write, Space::Device)
}

/// Maps memory of a device that behaves like RAM (ivshmem), write-back. Never unmapped.
pub fn map_shared_memory(pa: Phys, len: u64) -> Result<Virt, MapError> {
    map_window(pa, len, Access::Write, Space::Kernel)
}

/// Maps firmware tables that are not in RAM, read-only. Never unmapped.
pub fn map_firmware(pa: Phys, len: u64) -> Result<Virt, MapError> {
    map_window(pa, len, Access::Read, Space::Kernel)
}

fn map_window(pa: Phys, len: u64, access: Access, space: Space) -> Result<Virt, MapError> {
    let first = align_down(pa.0, PAGE);
    let end = pa.0.checked_add(len.max(1)).and_then(|e| align_up(e, PAGE));
    let bytes = end.ok_or(MapError::BadRange)? - first;
    let mut next = DEVICE_NEXT.lock();
    // Like alignment modulo 2 MiB on both sides lets large pages be used.
    let skew = first & (LARGE_PAGE - 1);
    let va = align_up(*next, LARGE_PAGE).ok_or(MapError::BadRange)? + skew;
    if va + bytes > layout::DEVICE_BASE + layout::DEVICE_BYTES {
        return Err(MapError::NoMemory);
    }
    let _tables = TABLES.lock();
    let r = Range { va: Virt(va), pa: Phys(first), len: bytes };
    paging::map(&mut DirectTables, root(), r, access, space, MaxPage::Large)?;
    *next = va + bytes;
    Ok(Virt(va + (pa.0 - first)))
}

/// Maps a fresh 2 MiB frame at `va` in the kernel half.
fn map_fresh_large(va: Virt) -> Option<()> {
    let frame = alloc_large()?;
    let _tables = TABLES.lock();
    let r = Range { va, pa: frame, len: LARGE_PAGE };
    paging::map(&mut DirectTables, root(), r, Access::Write, Space::Kernel, MaxPage::Large).ok()
}

/// Maps all stacks of a core; their guard pages stay unmapped.
pub fn map_stacks(core: usize) -> Option<()> {
    let ists = Ist::ALL.map(|ist| stacks::ist_stack(core, ist));
    for (bottom, top) in core::iter::once(stacks::main_stack(core)).chain(ists) {
        for va in (bottom..top).step_by(PAGE as usize) {
            let frame = alloc_page()?;
            let _tables = TABLES.lock();
            let r = Range { va: Virt(va), pa: frame, len: PAGE };
            let t = &mut DirectTables;
            paging::map(t, root(), r, Access::Write, Space::Kernel, MaxPage::Small).ok()?;
        }
    }
    Some(())
}
