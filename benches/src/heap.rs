//! An allocator that counts: live bytes, and by size what they are.
#![allow(unsafe_code, reason = "a global allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

/// Sizes that are told apart; the rest counts as 0.
const SIZES: usize = 1024;

static LIVE: AtomicI64 = AtomicI64::new(0);
static SIZE: [AtomicUsize; SIZES] = [const { AtomicUsize::new(0) }; SIZES];
static BYTES: [AtomicI64; SIZES] = [const { AtomicI64::new(0) }; SIZES];

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's contract is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's contract is the same.
        unsafe { System.dealloc(ptr, layout) };
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(new, 1);
        // SAFETY: the caller's contract is the same.
        unsafe { System.realloc(ptr, layout, new) }
    }
}

fn count(size: usize, sign: i64) {
    let bytes = size as i64 * sign;
    LIVE.fetch_add(bytes, Relaxed);
    // Small ones are many and of no interest.
    if size >= 1024 {
        BYTES[class(size)].fetch_add(bytes, Relaxed);
    }
}

/// Where a size is counted.
fn class(size: usize) -> usize {
    let start = size.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    for i in 0..SIZES {
        let at = (start + i) % SIZES;
        let known = SIZE[at].compare_exchange(0, size, Relaxed, Relaxed);
        if at > 0 && (known.is_ok() || known == Err(size)) {
            return at;
        }
    }
    0
}

/// Bytes that are allocated now.
pub fn live() -> i64 {
    LIVE.load(Relaxed)
}

/// Live bytes by size of the allocation.
pub fn by_size() -> Vec<(usize, i64)> {
    let all = SIZE.iter().zip(&BYTES);
    all.map(|(size, bytes)| (size.load(Relaxed), bytes.load(Relaxed))).collect()
}

/// Bytes of memory that the process has, or 0 where that cannot be told.
pub fn resident() -> i64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<i64>().ok());
    pages.unwrap_or(0) * 4096
}
