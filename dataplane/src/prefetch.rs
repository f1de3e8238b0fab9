//! Asking for memory before it is needed: no more than a hint, which changes nothing and cannot fault.
#![allow(unsafe_code, reason = "the intrinsic is an unsafe function")]

use core::ops::Range;

/// Asks for the first `lines` cache lines of a value.
#[inline(always)]
pub fn lines<T>(value: &T, lines: usize) {
    ask(value, 0..lines);
}

/// The same but for the first, which is needed at once.
#[inline(always)]
pub fn behind<T>(value: &T, lines: usize) {
    ask(value, 1..lines);
}

#[inline(always)]
fn ask<T>(value: &T, lines: Range<usize>) {
    let at = core::ptr::from_ref(value).cast::<i8>();
    for line in lines {
        // SAFETY: a prefetch of any address is harmless; SSE is part of x86-64.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(
                at.wrapping_add(line * 64),
            );
        }
    }
}
