//! User mode: address spaces, programs, threads, and the way in and out.
//!
//! [`enter`] is the one door: a function call that returns when the thread made a system call, was
//! interrupted for good, or faulted. Interrupts are on in ring 3 only.
#![allow(unsafe_code, reason = "enters ring 3")]

pub mod background;
pub mod calls;
pub mod lifecycle;
pub mod program;
pub mod space;
pub mod state;
pub mod thread;

use core::arch::global_asm;

use ix_kernel_core::addr::is_user;
use state::UserState;

use crate::cpu::percore::{self, PERCORE_BYTES, PerCore};
use crate::cpu::trap::NAMES;

global_asm!(include_str!("enter.S"), options(att_syntax, raw));
const _: () = assert!(PERCORE_BYTES == 256, "PC_BYTES of enter.S");
const _: () = assert!(percore::CORES_MAX == 64, "the number of SYSCALL stubs in enter.S");

unsafe extern "C" {
    fn ix_enter_user(state: *mut UserState, core: *const PerCore) -> u32;
}

/// An exception in ring 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    /// The address of a page fault.
    pub address: u64,
}

const GENERAL_PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;

impl core::fmt::Display for Fault {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let name = NAMES.get(self.vector as usize).copied().unwrap_or("exception");
        write!(f, "{name}")?;
        if self.vector == PAGE_FAULT {
            let how = if self.error & 0x10 != 0 {
                "executing"
            } else if self.error & 2 != 0 {
                "writing"
            } else {
                "reading"
            };
            let why = if self.error & 1 == 0 { "not mapped" } else { "not allowed" };
            write!(f, " {how} {:#x} ({why})", self.address)?;
        } else if self.error != 0 {
            write!(f, " (error {:#x})", self.error)?;
        }
        write!(f, " at {:#x}", self.rip)
    }
}

/// Why a thread left ring 3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserExit {
    Syscall {
        number: u64,
        args: [u64; 3],
    },
    /// A timer tick past its bound, or another core's wish. Can be resumed by entering again.
    Preempted,
    Fault(Fault),
}

/// Runs a thread until it leaves ring 3. Its address space must be loaded on this core, whose entry `core` is: who has it at
/// hand need not look for it.
pub fn enter(state: &mut UserState, core: &'static PerCore) -> UserExit {
    debug_assert!(core::ptr::eq(core, percore::this()));
    // SYSRET and IRET to an address that is not canonical fault in ring 0 on Intel CPUs.
    if !is_user(state.rip) {
        let (vector, rip) = (GENERAL_PROTECTION, state.rip);
        return UserExit::Fault(Fault { vector, error: 0, rip, address: 0 });
    }
    // SAFETY: interrupts are off; the state is ours until the call returns; its flags and addresses
    // are harmless by construction (`state.rs`); ring 3 reaches only what its page tables allow; threads stay on their core.
    let how = unsafe { ix_enter_user(state, core) };
    if how == 0 {
        state.after_syscall();
        return UserExit::Syscall { number: state.rax, args: [state.rdi, state.rsi, state.rdx] };
    }
    if state.vector >= 32 {
        return UserExit::Preempted;
    }
    let (vector, error) = (state.vector, state.error);
    UserExit::Fault(Fault { vector, error, rip: state.rip, address: state.cr2 })
}
