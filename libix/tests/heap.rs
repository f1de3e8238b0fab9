//! The allocator on a heap area as the kernel maps it, at its real addresses.

use ix_abi::layout::{HEAP_BASE, HEAP_END, INFO_BASE, InfoPage, PAGE_BYTES};
use libix::heap::{Growing, Heap};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long, c_void};
use std::sync::OnceLock;

const HEAP_PAGES: u64 = 64;

unsafe extern "C" {
    fn mmap(
        a: *mut c_void,
        n: usize,
        prot: c_int,
        flags: c_int,
        fd: c_int,
        at: c_long,
    ) -> *mut c_void;
}

fn map(address: u64, bytes: u64) {
    const READ_WRITE: c_int = 1 | 2;
    const PRIVATE_ANONYMOUS_FIXED_NOREPLACE: c_int = 0x02 | 0x20 | 0x10_0000;
    let flags = PRIVATE_ANONYMOUS_FIXED_NOREPLACE;
    let wanted = std::ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: with NOREPLACE a mapping that exists stays, and the assertion below fails.
    let got = unsafe { mmap(wanted, bytes as usize, READ_WRITE, flags, -1, 0) };
    assert_eq!(got.expose_provenance() as u64, address, "the address is free");
}

/// The one heap of this process, as a program has one.
fn heap() -> &'static Heap {
    static HEAP: OnceLock<Heap> = OnceLock::new();
    HEAP.get_or_init(|| {
        map(INFO_BASE, PAGE_BYTES);
        map(HEAP_BASE, HEAP_PAGES * PAGE_BYTES);
        let mut info: InfoPage = zerocopy::FromZeros::new_zeroed();
        info.heap_bytes = HEAP_PAGES * PAGE_BYTES;
        info.heap_max_bytes = HEAP_PAGES * PAGE_BYTES;
        let page: *mut InfoPage = std::ptr::with_exposed_provenance_mut(INFO_BASE as usize);
        // SAFETY: just mapped, for this.
        unsafe { page.write(info) };
        Heap::new(Growing::new())
    })
}

fn taken(size: usize, align: usize, salt: u8) -> Option<(*mut u8, Layout)> {
    let layout = Layout::from_size_align(size, align).expect("a sane layout");
    // SAFETY: the size is not 0.
    let start = unsafe { heap().alloc(layout) };
    if start.is_null() {
        return None;
    }
    let address = start.expose_provenance() as u64;
    assert!(address.is_multiple_of(align as u64) && (HEAP_BASE..HEAP_END).contains(&address));
    // SAFETY: the block is `size` long and ours.
    unsafe { start.write_bytes(salt, size) };
    Some((start, layout))
}

fn give(start: *mut u8, layout: Layout, salt: u8) {
    // SAFETY: a block of `taken`, given back once.
    unsafe {
        let bytes = std::slice::from_raw_parts(start, layout.size());
        assert!(bytes.iter().all(|byte| *byte == salt), "nobody else wrote into it");
        heap().dealloc(start, layout);
    }
}

#[test]
fn one_block_may_span_many_pages_and_too_much_is_refused() {
    let (big, layout) = taken(20 << 20, 16, 1).expect("fits the area");
    assert!(taken(120 << 20, 16, 2).is_none(), "more than there is");
    let (small, small_layout) = taken(100, 64, 3).expect("a refusal breaks nothing");
    give(small, small_layout, 3);
    give(big, layout, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn blocks_do_not_overlap_whatever_the_order(
        steps in prop::collection::vec((1..200_000usize, 0..13u32, any::<u16>()), 1..150),
    ) {
        let mut blocks = Vec::new();
        for (n, (size, align, pick)) in steps.into_iter().enumerate() {
            let salt = n as u8;
            if pick % 3 == 0 && !blocks.is_empty() {
                let (start, layout, salt) = blocks.swap_remove(usize::from(pick) % blocks.len());
                give(start, layout, salt);
            } else if let Some((start, layout)) = taken(size, 1 << align, salt) {
                blocks.push((start, layout, salt));
            }
        }
        for (start, layout, salt) in blocks {
            give(start, layout, salt);
        }
    }
}
