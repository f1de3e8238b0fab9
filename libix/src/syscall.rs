//! Direct system calls: the `syscall` instruction with typed arguments.
//!
//! Batched calls do not come through here: they are records of the syscall ring
//! ([`crate::Context`]), which `enter` executes.
#![allow(unsafe_code, reason = "the system call instruction is inline assembly")]

use ix_abi::Status;
use ix_abi::call::Direct;

/// How a program reaches its kernel: by [`syscall`], or in host tests by a function that plays the
/// kernel. Takes the number and three arguments, gives what `rax` holds afterwards.
pub type Door = fn(Direct, u64, u64, u64) -> u64;

/// Executes `syscall`.
///
/// The ABI clobbers everything but `rbx`, `rbp`, `rsp` and `r12` to `r15`: the kernel clears the
/// other general registers and all vector registers on its way out, so that nothing leaks.
pub fn syscall(number: Direct, a: u64, b: u64, c: u64) -> u64 {
    let result;
    // SAFETY: the clobbers are those of the ABI (a superset is declared by `clobber_abi`); no
    // `nomem`, since the kernel reads and writes the rings; the kernel does not touch the user
    // stack. A direct call can unmap memory, but only `memory::unmap` issues that one, and it is
    // unsafe itself; `Door` values are called from this crate only.
    unsafe {
        core::arch::asm!(
            "syscall",
            inlateout("rax") u64::from(number.0) => result,
            inlateout("rdi") a => _,
            inlateout("rsi") b => _,
            inlateout("rdx") c => _,
            clobber_abi("sysv64"),
            options(nostack),
        );
    }
    result
}

/// Splits a direct call's `rax` into value and failure: failures are `-(status)`.
pub const fn outcome(rax: u64) -> Result<u64, Status> {
    if rax > u64::MAX - 0xffff { Err(Status(rax.wrapping_neg() as u16)) } else { Ok(rax) }
}

/// Ends the application, on all its cores.
pub fn exit(code: u64) -> ! {
    loop {
        syscall(Direct::Exit, code, 0, 0);
    }
}

/// Writes one line to the kernel's log; what is longer than the kernel's limit is cut off there.
pub fn log_line(line: &str, level: u64) {
    syscall(Direct::Log, line.as_ptr() as u64, line.len() as u64, level);
}

/// Nanoseconds since boot.
pub fn clock_ns() -> u64 {
    syscall(Direct::Clock, 0, 0, 0)
}

/// Nanoseconds since 1970, 0 if the machine does not know.
pub fn unix_ns() -> u64 {
    outcome(syscall(Direct::Clock, 1, 0, 0)).unwrap_or(0)
}
