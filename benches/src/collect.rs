//! What callgrind collects, and from when on it looks.
//!
//! Without its instrumentation a program runs some ten times faster under valgrind: connections are opened
//! before it is switched on.
#![allow(unsafe_code, reason = "a request to valgrind is a sequence of instructions")]

/// Runs `f`, the part that is collected: `--toggle-collect` knows this function by its name.
#[inline(never)]
pub fn counted_region<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// Switches callgrind's instrumentation on; nothing without valgrind.
pub fn instrument() {
    const CALLGRIND_START_INSTRUMENTATION: usize = 0x4354_0004;
    let request: [usize; 6] = [CALLGRIND_START_INSTRUMENTATION, 0, 0, 0, 0, 0];
    // SAFETY: the rotations leave rdi as it was and the exchange does nothing; valgrind reads the request and
    // writes rdx.
    unsafe {
        std::arch::asm!(
            "rol rdi, 3",
            "rol rdi, 13",
            "rol rdi, 61",
            "rol rdi, 51",
            "xchg rbx, rbx",
            in("rax") request.as_ptr(),
            inout("rdx") 0_usize => _,
            in("rdi") 0_usize,
        );
    }
}
