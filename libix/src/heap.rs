//! The global allocator: talc on the heap area, behind a spin lock, shared by all contexts.
//!
//! talc allocates and frees in nearly constant time and resizes in place. The lock is the price of one
//! heap for all cores; programs that allocate for each request should keep free lists of their own.
#![allow(unsafe_code, reason = "gives memory to an allocator")]

use crate::lock::RawSpin;
use crate::memory;
use core::alloc::Layout;
use core::ptr::NonNull;
use ix_abi::layout::PAGE_BYTES;
use talc::base::Talc;
use talc::base::binning::Binning;
use talc::source::Source;

/// The type of the global allocator; [`crate::app!`] makes one.
pub type Heap = talc::TalcLock<RawSpin, Growing>;

/// Where the heap gets its memory: the start of the heap area, page after page.
#[derive(Debug)]
pub struct Growing {
    end: Option<NonNull<u8>>,
}

impl Growing {
    /// A heap that has no memory yet, and takes some when it is first used.
    pub const fn new() -> Growing {
        Growing { end: None }
    }
}

// SAFETY: the pointer names the heap's own memory, which no context owns more than another.
unsafe impl Send for Growing {}

const _: () = {
    const fn shared<T: Sync>() {}
    shared::<Heap>();
};

impl Default for Growing {
    fn default() -> Growing {
        Growing::new()
    }
}

/// Pages taken at once, so that growing is rare.
const PAGES_MIN: u64 = 2;

// SAFETY: `acquire` uses neither this allocator nor another: it takes pages from `memory`, whose own
// lock nobody holds while allocating. `resize` is not implemented, so manual management is allowed.
unsafe impl Source for Growing {
    fn acquire<B: Binning>(talc: &mut Talc<Growing, B>, layout: Layout) -> Result<(), ()> {
        let bytes = (layout.size() + layout.align()) as u64 + 4096;
        let pages = bytes.div_ceil(PAGE_BYTES).max(PAGES_MIN);
        // Less than the usual step may still be there.
        let needed = bytes.div_ceil(PAGE_BYTES);
        let (start, pages) = memory::take_low(pages)
            .map(|start| (start, pages))
            .or_else(|_| memory::take_low(needed).map(|start| (start, needed)))
            .map_err(|_| ())?;
        let bytes = (pages * PAGE_BYTES) as usize;
        let base: *mut u8 = core::ptr::with_exposed_provenance_mut(start as usize);
        // SAFETY: the pages are mapped, unused, and this heap's from now on; they follow those that
        // it has, if any, since nobody else takes pages from the start of the area.
        talc.source.end = unsafe {
            match talc.source.end {
                None => talc.claim(base, bytes),
                Some(end) => Some(talc.extend(end, base.add(bytes))),
            }
        };
        if talc.source.end.is_some() { Ok(()) } else { Err(()) }
    }
}
