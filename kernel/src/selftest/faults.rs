//! Tests that end in a crash report: each must name what happened, and where.
#![allow(unsafe_code, reason = "does what kernel code must never do")]

use alloc::string::String;

use crate::mem::layout;

type Outcome = Result<(), String>;

#[inline(never)]
pub fn panic(name: &str) -> Outcome {
    panic!("asked for by selftest={name}")
}

fn survived(what: &str) -> Outcome {
    Err(alloc::format!("{what} was allowed"))
}

/// Reads below the heap window, where nothing is mapped.
#[inline(never)]
pub fn page_fault() -> Outcome {
    let at = (layout::HEAP_BASE - 4096) as *const u64;
    // SAFETY: none: the test is that this faults.
    let _ = unsafe { at.read_volatile() };
    survived("reading unmapped memory")
}

/// Calls into a data page.
#[inline(never)]
pub fn execute_data() -> Outcome {
    let code = alloc::boxed::Box::new([0xC3u8; 16]);
    // SAFETY: none: the test is that the call faults (a plain `ret` if it does not).
    unsafe { core::arch::asm!("call {}", in(reg) code.as_ptr(), clobber_abi("C")) };
    survived("executing data")
}

#[inline(never)]
pub fn write_constants() -> Outcome {
    static CONSTANT: u64 = 0x1234;
    let at = (&raw const CONSTANT).cast_mut();
    // SAFETY: none: the test is that this faults.
    unsafe { at.write_volatile(1) };
    survived("writing constants")
}

#[allow(unconditional_recursion, reason = "the point of it")]
#[inline(never)]
fn recurse(n: u64) -> u64 {
    let mut room = [n; 64];
    core::hint::black_box(&mut room);
    recurse(n + 1) + room[(n % 64) as usize]
}

#[inline(never)]
pub fn overflow_stack() -> Outcome {
    core::hint::black_box(recurse(0));
    survived("endless recursion")
}

#[inline(never)]
pub fn undefined() -> Outcome {
    // SAFETY: none: the test is that this faults.
    unsafe { core::arch::asm!("ud2") };
    survived("ud2")
}

/// A #PF whose own interrupt stack is broken becomes a #DF, which has another.
#[inline(never)]
pub fn double_fault() -> Outcome {
    crate::cpu::descriptors::break_exception_stack();
    page_fault()
}
