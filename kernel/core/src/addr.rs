//! Address newtypes: a physical, a kernel-virtual and a user address never mix by accident.

use core::fmt;

pub const PAGE: u64 = 4096;
pub const LARGE_PAGE: u64 = 2 << 20;
pub const HUGE_PAGE: u64 = 1 << 30;

/// A physical address, as page tables and the memory map know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Phys(pub u64);

/// A virtual address of the kernel half or the user half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Virt(pub u64);

impl fmt::Debug for Phys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{:#x}", self.0)
    }
}

impl fmt::Debug for Virt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{:#x}", self.0)
    }
}

/// Largest multiple of `align` (a power of two) that is not above `x`.
#[must_use]
pub const fn align_down(x: u64, align: u64) -> u64 {
    x & !(align - 1)
}

/// Smallest multiple of `align` (a power of two) that is not below `x`; `None` past the top.
#[must_use]
pub const fn align_up(x: u64, align: u64) -> Option<u64> {
    match x.checked_add(align - 1) {
        Some(y) => Some(align_down(y, align)),
        None => None,
    }
}

/// Whether bits 63..=47 of `va` are all equal, which is what the CPU asks of a 48-bit address.
#[must_use]
pub const fn is_canonical(va: u64) -> bool {
    let top = va >> 47;
    top == 0 || top == 0x1_FFFF
}

/// Whether `va` lies in the lower half, where applications live.
#[must_use]
pub const fn is_user(va: u64) -> bool {
    va >> 47 == 0
}
