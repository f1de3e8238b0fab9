//! The kernel's heap: for what is built at boot and by control actions. It grows by 2 MiB frames into
//! its own part of the address space; the packet path never allocates. Whole cache lines: cores share none.
#![allow(unsafe_code, reason = "global allocator")]

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

use ix_kernel_core::addr::{LARGE_PAGE, Virt};
use ix_kernel_core::lines::whole_lines;
use linked_list_allocator::Heap;
use spin::Mutex;

use super::layout::{HEAP_BASE, HEAP_BYTES};

struct Growing {
    heap: Heap,
    mapped: u64,
}

struct KernelHeap(Mutex<Growing>);

#[global_allocator]
static HEAP: KernelHeap = KernelHeap(Mutex::new(Growing { heap: Heap::empty(), mapped: 0 }));

impl Growing {
    fn grow(&mut self, want: usize) -> Option<()> {
        // Room for the request, the allocator's own bookkeeping and the alignment.
        let pages = (want as u64).checked_add(4096)?.div_ceil(LARGE_PAGE);
        for _ in 0..pages {
            if self.mapped + LARGE_PAGE > HEAP_BYTES {
                return None;
            }
            super::map_fresh_large(Virt(HEAP_BASE + self.mapped))?;
            // SAFETY: the page right above what the heap has was just mapped for it alone.
            unsafe {
                if self.mapped == 0 {
                    self.heap.init(HEAP_BASE as *mut u8, LARGE_PAGE as usize);
                } else {
                    self.heap.extend(LARGE_PAGE as usize);
                }
            }
            self.mapped += LARGE_PAGE;
        }
        Some(())
    }
}

// SAFETY: the inner allocator hands out disjoint, aligned blocks of memory that is mapped for good.
unsafe impl GlobalAlloc for KernelHeap {
    #[cold]
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(layout) = whole_lines(layout) else { return core::ptr::null_mut() };
        let mut g = self.0.lock();
        if let Ok(p) = g.heap.allocate_first_fit(layout) {
            return p.as_ptr();
        }
        let want = layout.size().saturating_add(layout.align());
        if g.grow(want).is_none() {
            return core::ptr::null_mut();
        }
        g.heap.allocate_first_fit(layout).map_or(core::ptr::null_mut(), NonNull::as_ptr)
    }

    #[cold]
    #[inline(never)]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if let (Some(p), Some(layout)) = (NonNull::new(ptr), whole_lines(layout)) {
            // SAFETY: the caller gives back what `alloc` returned for this layout, made whole there as here.
            unsafe { self.0.lock().heap.deallocate(p, layout) };
        }
    }
}

/// Bytes mapped for the heap and bytes in use.
pub fn figures() -> (u64, u64) {
    let g = HEAP.0.lock();
    (g.mapped, g.heap.used() as u64)
}
