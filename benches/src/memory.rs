//! Memory that devices, kernel and application share: given for ever, and the same address for all.
//!
//! # Safety
//! A bus address here is a pointer into memory of [`leak`].
#![allow(unsafe_code, reason = "gives memory to an engine and reads what it transmits from")]

use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_dataplane::device::{BusAddr, DmaRegion};
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::Area;
use ix_dataplane::usermem::UserMap;
use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;

/// Zeroed memory, never freed.
pub fn leak(bytes: usize, align: usize) -> NonNull<u8> {
    assert!(bytes > 0);
    let layout = Layout::from_size_align(bytes, align).expect("a layout");
    // SAFETY: the size is not 0.
    NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory")
}

/// An area of receive buffers, so many for each core.
pub fn area(cores: u16, buffers: u32, user_base: u64) -> &'static Area {
    let data = leak(usize::from(cores) * buffers as usize * MBUF_BYTES, 4096);
    let bus = BusAddr(data.as_ptr() as u64);
    // SAFETY: the memory is leaked, of that size, and the area's alone.
    Box::leak(Box::new(unsafe { Area::new(data, bus, user_base, cores, buffers) }))
}

/// The region of transmit headers.
pub fn headers() -> DmaRegion {
    let ptr = leak(TX_HEADER_REGION_BYTES, 4096);
    DmaRegion { ptr, bus: BusAddr(ptr.as_ptr() as u64), len: TX_HEADER_REGION_BYTES }
}

/// Appends what the device would read.
pub fn gather(bus: u64, len: u32, bytes: &mut Vec<u8>) {
    // SAFETY: the engine gave the fragment; its memory is leaked, and nobody writes meanwhile.
    bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(bus as *const u8, len as usize) });
}

/// The application's own memory: one page.
pub const HEAP: u64 = HEAP_BASE;
/// Its size.
pub const HEAP_BYTES: u64 = PAGE_BYTES;

/// Gives the application its memory.
pub fn map_heap(map: &UserMap) {
    let page = leak(HEAP_BYTES as usize, HEAP_BYTES as usize);
    // SAFETY: the page is leaked and never unmapped.
    let mapped = unsafe { map.map(HEAP, page.as_ptr() as usize, BusAddr(page.as_ptr() as u64)) };
    assert!(mapped, "the heap's first page");
}
