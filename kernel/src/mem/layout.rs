//! The kernel half of the address space.
//!
//! | from | what |
//! |---|---|
//! | `DIRECT_BASE` | RAM, one to one, writable, not executable; the kernel's text and constants left out |
//! | `HEAP_BASE` | boot and control heap, grows by 2 MiB frames |
//! | `stacks::STACKS_BASE` | all kernel stacks with their guard pages |
//! | `DEVICE_BASE` | device registers, uncached; firmware tables outside RAM |
//! | `KERNEL_BASE` | the image, at physical address + `KERNEL_BASE` |
#![allow(unsafe_code, reason = "addresses of linker symbols")]

use core::ops::Range;

use ix_kernel_core::addr::{Phys, Virt};

pub const DIRECT_BASE: u64 = 0xFFFF_8000_0000_0000;
/// Bytes of physical address space that the direct map can hold (64 TiB).
pub const DIRECT_BYTES: u64 = 1 << 46;
pub const HEAP_BASE: u64 = 0xFFFF_C000_0000_0000;
pub const HEAP_BYTES: u64 = 1 << 39;
pub const DEVICE_BASE: u64 = 0xFFFF_E000_0000_0000;
pub const DEVICE_BYTES: u64 = 1 << 39;
pub const KERNEL_BASE: u64 = 0xFFFF_FFFF_8000_0000;

unsafe extern "C" {
    static __kernel_start: u8;
    static __text_end: u8;
    static __rodata_end: u8;
    static __kernel_end: u8;
}

/// Where the linker script starts: the `.boot` section, below the image proper.
const IMAGE_PHYS: u64 = 0x20_0000;

/// Kernel address of RAM at `pa`.
#[inline]
pub const fn direct(pa: Phys) -> u64 {
    DIRECT_BASE + pa.0
}

fn symbols() -> [u64; 4] {
    [
        &raw const __kernel_start as u64,
        &raw const __text_end as u64,
        &raw const __rodata_end as u64,
        &raw const __kernel_end as u64,
    ]
}

/// Text, constants and data (with bss), as virtual ranges.
pub fn sections() -> [Range<u64>; 3] {
    let [start, text_end, rodata_end, end] = symbols();
    [start..text_end, text_end..rodata_end, rodata_end..end]
}

/// Whether an address is in the kernel's text.
pub fn is_text(va: u64) -> bool {
    sections()[0].contains(&va)
}

/// Physical range of the whole image, `.boot` included.
pub fn kernel_image() -> Range<u64> {
    IMAGE_PHYS..symbols()[3] - KERNEL_BASE
}

/// Physical address of something in the image.
pub fn image_phys(va: Virt) -> Phys {
    Phys(va.0 - KERNEL_BASE)
}

unsafe extern "C" {
    static __data_start: u8;
    static __data_end: u8;
    static __pristine: u8;
}

/// `.data` as a virtual range, and where its copy lies that is as it was before anything ran.
pub fn data_and_copy() -> (Range<u64>, u64) {
    let range = &raw const __data_start as u64..&raw const __data_end as u64;
    (range, &raw const __pristine as u64)
}
