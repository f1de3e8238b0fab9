//! What happens after an interrupt or exception entry (`traps.S`).
//!
//! In ring 0 interrupts are on only at `sti; hlt`, so a handler there just acknowledges. Out of ring 3
//! a fault ends the entry with the full state saved, and so does a timer tick once the application
//! has kept the core for too long; other interrupts resume it.
#![allow(unsafe_code, reason = "works on the frame that the assembly pushed")]

use core::sync::atomic::Ordering;

use ix_kernel_core::stacks::{Place, place_of};
use x86_64::registers::control::Cr2;

use super::descriptors::KERNEL_CS;
use super::percore::{self, CORES_MAX, PerCore, bump};
use crate::user::lifecycle;
use crate::user::state::{Fx, UserState};
use crate::{apic, crash, watch};

/// Vectors that the kernel uses. Device vectors are those between the two.
pub const VECTOR_DEVICE_FIRST: u8 = 0x40;
pub const VECTOR_DEVICE_LAST: u8 = 0xDF;
pub const VECTOR_WAKE: u8 = 0xF0;
pub const VECTOR_PREEMPT: u8 = 0xF1;
pub const VECTOR_TIMER: u8 = 0xF2;
pub const VECTOR_SPURIOUS: u8 = 0xFF;

const NMI: u64 = 2;
const PAGE_FAULT: u64 = 14;

/// The registers at an interrupt, as `traps.S` pushes them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Frame {
    pub fn is_user(&self) -> bool {
        self.cs & 3 == 3
    }
}

/// Returns 0 to resume what was interrupted, or the kernel stack pointer with which user mode ends.
///
/// # Safety
/// Called by `traps.S` only: both pointers are to the entry's own stack.
#[unsafe(no_mangle)]
unsafe extern "C" fn ix_trap(frame: *mut Frame, fx: *const Fx) -> u64 {
    // SAFETY: the assembly just filled both; nothing else refers to them.
    let (frame, fx) = unsafe { (&mut *frame, &*fx) };
    let core = percore::this();
    match frame.vector {
        NMI => {
            nmi(core);
            0
        }
        0..32 if frame.is_user() => {
            let cr2 = if frame.vector == PAGE_FAULT { Cr2::read_raw() } else { 0 };
            leave_user(core, frame, fx, cr2)
        }
        0..32 => fatal(frame),
        _ => interrupt(core, frame, fx),
    }
}

fn nmi(core: &PerCore) {
    bump(&core.nmis);
    if crash::under_way() {
        crash::park();
    }
}

fn interrupt(core: &PerCore, frame: &mut Frame, fx: &Fx) -> u64 {
    let vector = frame.vector as u8;
    if vector == VECTOR_SPURIOUS {
        return 0;
    }
    apic::end_of_interrupt();
    let end = match vector {
        VECTOR_TIMER => {
            bump(&core.ticks);
            // In ring 0 this was the end of a halt: whoever enters ring 3 next starts the tick.
            core.timer_armed.store(frame.is_user(), Ordering::Relaxed);
            if frame.is_user() {
                apic::arm_timer_tick();
            }
            frame.is_user() && bound_exceeded(core)
        }
        VECTOR_PREEMPT => lifecycle::is_ending(),
        VECTOR_WAKE => {
            bump(&core.wakes);
            false
        }
        VECTOR_DEVICE_FIRST..=VECTOR_DEVICE_LAST => {
            bump(&core.device_interrupts);
            false
        }
        _ => false,
    };
    // A background thread leaves with every interrupt: its core has others to see to.
    let end = end || core.background.load(Ordering::Relaxed);
    if end && frame.is_user() { leave_user(core, frame, fx, 0) } else { 0 }
}

/// Whether this user entry has seen more ticks than it may last. Counting ticks per entry costs the
/// entry itself nothing but an increment.
fn bound_exceeded(core: &PerCore) -> bool {
    let entry = core.entries.load(Ordering::Relaxed);
    if core.tick_entry.load(Ordering::Relaxed) != entry {
        core.tick_entry.store(entry, Ordering::Relaxed);
        core.ticks_in_entry.store(0, Ordering::Relaxed);
    }
    bump(&core.ticks_in_entry) > core.bound_ticks.load(Ordering::Relaxed)
}

fn leave_user(core: &PerCore, frame: &Frame, fx: &Fx, cr2: u64) -> u64 {
    // SAFETY: this core's own cell; it holds what `ix_enter_user` stored, since an interrupt came
    // from ring 3.
    let kernel_rsp = unsafe { *core.kernel_rsp.get() };
    // SAFETY: `ix_enter_user` left the state pointer at its saved stack pointer, and the caller of
    // `enter` lends the state exclusively until it returns.
    let state = unsafe { &mut **(kernel_rsp as *const *mut UserState) };
    state.save_interrupted(frame, fx, cr2);
    kernel_rsp
}

/// An exception in ring 0: the kernel's own bug, or hardware.
fn fatal(frame: &Frame) -> ! {
    crash::begin();
    let cr2 = Cr2::read_raw();
    watch::crash::exception(frame, cr2);
    let name = NAMES.get(frame.vector as usize).copied().unwrap_or("unknown exception");
    crash::say(format_args!("exception in the kernel: {name} (vector {})", frame.vector));
    if frame.vector == PAGE_FAULT {
        let how = match frame.error & 0b1_0010 {
            0b1_0000 | 0b1_0010 => "execute",
            0b0_0010 => "write",
            _ => "read",
        };
        let why = if frame.error & 1 == 0 { "not mapped" } else { "not allowed" };
        crash::say(format_args!("{how} at {cr2:#018x}: {why}"));
    }
    if matches!(frame.vector, PAGE_FAULT | 8)
        && let Some(Place::Guard { core, below }) = place_of(cr2, CORES_MAX)
    {
        crash::say(format_args!("stack overflow: guard page of core {core}'s {below}"));
    }
    crash::registers(frame);
    crash::backtrace(frame.rip, frame.rbp);
    if frame.cs != u64::from(KERNEL_CS) {
        crash::say(format_args!("cs {:#x} is not the kernel's", frame.cs));
    }
    crash::end(crate::exit::Exit::Exception)
}

/// Names of the exceptions, Intel SDM vol. 3A, table 6-1.
pub const NAMES: [&str; 32] = [
    "divide error",
    "debug",
    "NMI",
    "breakpoint",
    "overflow",
    "bound range",
    "invalid opcode",
    "no coprocessor",
    "double fault",
    "coprocessor overrun",
    "invalid TSS",
    "segment not present",
    "stack segment fault",
    "general protection",
    "page fault",
    "reserved exception 15",
    "x87 error",
    "alignment check",
    "machine check",
    "SIMD error",
    "virtualisation exception",
    "control protection",
    "reserved exception 22",
    "reserved exception 23",
    "reserved exception 24",
    "reserved exception 25",
    "reserved exception 26",
    "reserved exception 27",
    "hypervisor injection",
    "VMM communication",
    "security exception",
    "reserved exception 31",
];
