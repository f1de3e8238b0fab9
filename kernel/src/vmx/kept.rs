//! What of a dataplane's core is in no VMCS: put away when the core goes to another dataplane, and brought back. General
//! registers, x87 and SSE are in `GuestRegisters` at every exit already.
#![allow(unsafe_code, reason = "XSAVE and XRSTOR")]

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::arch::asm;

use ix_kernel_core::vmx::timer::Timer;

use super::instructions::{self, rdmsr, wrmsr};
use super::support::Support;
use crate::{apic, time};

/// STAR, LSTAR, CSTAR, SFMASK, kernel GS base; FS and GS bases are in the VMCS.
const SYSCALL_MSRS: [u32; 5] = [0xC000_0081, 0xC000_0082, 0xC000_0083, 0xC000_0084, 0xC000_0102];
const TSC_AUX: u32 = 0xC000_0103;

const TASK_PRIORITY: u32 = 0x808;
const END_OF_INTERRUPT: u32 = 0x80B;
const SPURIOUS: u32 = 0x80F;
const IN_SERVICE: u32 = 0x810;
const REQUESTED: u32 = 0x820;
const ERROR_STATUS: u32 = 0x828;
const LVT_TIMER: u32 = 0x832;
const LVT_ERROR: u32 = 0x837;
const TIMER_INITIAL: u32 = 0x838;
const TIMER_CURRENT: u32 = 0x839;
const TIMER_DIVIDE: u32 = 0x83E;
const INTERRUPT_COMMAND: u32 = 0x830;
const SELF: u64 = 0b01 << 18;

const MASKED: u64 = 1 << 16;
/// Switched on, with the vector that the kernel calls spurious.
const SPURIOUS_DEFAULT: u64 = 0x1FF;
/// The monitor's own calibration divides by this.
const CALIBRATED_BY: u64 = 16;
/// An interrupt command that was written is at its target after this.
const UNDER_WAY_NS: u64 = 2_000;

/// Interrupts that are pending, a bit for each vector.
pub type Vectors = [u32; 8];

/// The state.
#[derive(Debug)]
pub struct Kept {
    syscall: [u64; SYSCALL_MSRS.len()],
    tsc_aux: u64,
    task_priority: u64,
    spurious: u64,
    lvt_error: u64,
    timer: Timer,
    xcr0: u64,
    extended: Extended,
}

impl Kept {
    /// Of the guest that this core runs: nothing of it is changed yet.
    pub fn of_guest(s: &Support) -> Box<Self> {
        let register = |msr| rdmsr(msr) as u32;
        Box::new(Self {
            syscall: SYSCALL_MSRS.map(rdmsr),
            tsc_aux: if s.instructions.rdtscp { rdmsr(TSC_AUX) } else { 0 },
            task_priority: rdmsr(TASK_PRIORITY),
            spurious: rdmsr(SPURIOUS),
            lvt_error: rdmsr(LVT_ERROR),
            timer: Timer {
                lvt: register(LVT_TIMER),
                initial: register(TIMER_INITIAL),
                current: register(TIMER_CURRENT),
                divide: register(TIMER_DIVIDE),
                at_ns: time::now_ns(),
            },
            xcr0: if s.xcr0 != 0 { instructions::xcr0() } else { 0 },
            extended: Extended::save(s),
        })
    }

    /// To this core, which [`clean`] has cleaned.
    pub fn bring_back(&self, s: &Support) {
        for (msr, value) in SYSCALL_MSRS.into_iter().zip(self.syscall) {
            wrmsr(msr, value);
        }
        if s.instructions.rdtscp {
            wrmsr(TSC_AUX, self.tsc_aux);
        }
        self.extended.restore(s);
        if s.xcr0 != 0 {
            instructions::set_xcr0(self.xcr0);
        }
        wrmsr(SPURIOUS, self.spurious);
        wrmsr(LVT_ERROR, self.lvt_error);
        wrmsr(TASK_PRIORITY, self.task_priority);
        wrmsr(TIMER_DIVIDE, u64::from(self.timer.divide));
        wrmsr(LVT_TIMER, u64::from(self.timer.lvt));
        let khz = u64::from(apic::timer_khz()) * CALIBRATED_BY;
        wrmsr(TIMER_INITIAL, u64::from(self.timer.initial(time::now_ns(), khz)));
    }
}

/// What the last guest has left in this core that is in no VMCS is gone after this; the interrupts that were pending for it. Those in
/// service are over: their handlers, should they go on, end them once more, which does nothing.
pub fn clean(s: &Support) -> Vectors {
    for msr in SYSCALL_MSRS {
        wrmsr(msr, 0);
    }
    if s.instructions.rdtscp {
        wrmsr(TSC_AUX, 0);
    }
    if s.xcr0 != 0 {
        instructions::set_xcr0(1);
    }
    wrmsr(LVT_TIMER, MASKED);
    wrmsr(LVT_ERROR, MASKED);
    wrmsr(TIMER_INITIAL, 0);
    wrmsr(TASK_PRIORITY, 0);
    wrmsr(SPURIOUS, SPURIOUS_DEFAULT);
    wrmsr(ERROR_STATUS, 0);
    // Interrupts in service, of a handler that never came to its end.
    for register in 0..8 {
        for _ in 0..rdmsr(IN_SERVICE + register).count_ones() {
            wrmsr(END_OF_INTERRUPT, 0);
        }
    }
    time::wait_ns(UNDER_WAY_NS);
    let pending = core::array::from_fn(|i| rdmsr(REQUESTED + i as u32) as u32);
    instructions::drain_interrupts();
    pending
}

/// Makes interrupts pending again on this core, for the guest that it is about to enter.
pub fn raise(vectors: Vectors) {
    for (i, word) in vectors.into_iter().enumerate() {
        for bit in (0..32).filter(|bit| word >> bit & 1 != 0) {
            wrmsr(INTERRUPT_COMMAND, SELF | (i as u64 * 32 + bit));
        }
    }
}

/// Wider vector registers and whatever else XCR0 can switch on: an XSAVE area, aligned by hand.
#[derive(Debug)]
struct Extended(Vec<u8>);

const XSAVE_ALIGN: usize = 64;

/// Place of MXCSR, which XRSTOR loads with the components of wider registers, and its value after power-on.
const MXCSR_AT: usize = 24;
const MXCSR_DEFAULT: u32 = 0x1F80;
/// x87 and SSE.
const BASIC: u32 = 3;

impl Extended {
    /// All in its initial state.
    fn new(s: &Support) -> Self {
        if s.xcr0 == 0 {
            return Self(Vec::new());
        }
        // CPUID 0Dh, ECX: bytes for all that XCR0 can have.
        let bytes = raw_cpuid::cpuid!(0xD, 0).ecx as usize + XSAVE_ALIGN;
        let mut this = Self(vec![0; bytes]);
        let at = this.offset() + MXCSR_AT;
        this.0[at..at + 4].copy_from_slice(&MXCSR_DEFAULT.to_le_bytes());
        this
    }

    /// Where the area begins.
    fn offset(&self) -> usize {
        self.0.as_ptr().align_offset(XSAVE_ALIGN)
    }

    fn save(s: &Support) -> Self {
        let mut this = Self::new(s);
        if s.xcr0 != 0 {
            let offset = this.offset();
            let area = this.0[offset..].as_mut_ptr();
            // SAFETY: aligned, zeroed, as long as CPUID asks for with all components; the borrow is unique.
            instructions::with_xcr0(s.xcr0, || unsafe {
                asm!("xsave64 [{}]", in(reg) area, in("eax") u32::MAX, in("edx") u32::MAX, options(nostack));
            });
        }
        this
    }

    fn restore(&self, s: &Support) {
        if s.xcr0 != 0 {
            let area = self.0[self.offset()..].as_ptr();
            // SAFETY: what `new` or `save` has made. x87 and SSE are the monitor's own now, and `ix_vmx_enter` loads the
            // guest's: so only the others are asked for, which the monitor does not use.
            instructions::with_xcr0(s.xcr0, || unsafe {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") !BASIC, in("edx") u32::MAX, options(nostack, readonly));
            });
        }
    }
}

/// Before a dataplane's core begins: nothing of wider registers is left of whoever was here before.
pub fn forget_extended(s: &Support) {
    Extended::new(s).restore(s);
}
