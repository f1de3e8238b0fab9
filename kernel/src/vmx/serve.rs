//! What a core does under the monitor: enters its dataplane, sees to what brings it out, enters again.

use alloc::boxed::Box;
use alloc::string::ToString;
use core::sync::atomic::Ordering;

use ix_kernel_core::vmx::exits::Exit;
use ix_kernel_core::vmx::exits::{Interruption, entry_failure_detail, instruction_error};
use ix_kernel_core::vmx::fields as f;
use ix_kernel_core::vmx::page::Cause;
use ix_kernel_core::vmx::state::{self, Limits};
use ix_kernel_core::vmx::watchdog::{LOOKS_DEFAULT, Watchdog};

use super::dataplane::{Dataplane, State};
use super::exits;
use super::instructions::{self, Entered, GuestRegisters, rdmsr, read, write, wrmsr};
use super::stop::{Stop, stop};
use super::support::Support;
use super::vmcs::{self, Start};
use crate::crash;

/// STI, MOV SS and NMI blocking: an NMI cannot be injected.
const BLOCKS_NMI: u64 = 0b1011;

/// A core and whom it serves.
pub struct Core<'a> {
    pub s: &'a Support,
    pub d: &'a Dataplane,
    /// Its number in the dataplane.
    pub me: usize,
    pub registers: Box<GuestRegisters>,
    pub watchdog: Watchdog,
}

/// Serves a dataplane for good, as its core `me`.
pub fn serve(s: &Support, d: &Dataplane, me: usize) -> ! {
    let registers = Box::new(GuestRegisters::new());
    let mut core = Core { s, d, me, registers, watchdog: Watchdog::new(LOOKS_DEFAULT) };
    loop {
        match core.wait() {
            Ok(start) => core.live(start),
            Err(State::Runs | State::Stops) => {}
            Err(State::Ended | State::Down) => crash::park(),
        }
    }
}

impl Core<'_> {
    /// Waits for its start.
    fn wait(&self) -> Result<Start, State> {
        let core = &self.d.virtual_cores[self.me];
        loop {
            if self.d.state() != State::Runs {
                return Err(self.d.stay_out(self.me));
            }
            // It waits already: what the INIT asks for.
            core.init.store(false, Ordering::Relaxed);
            let entry = instructions::pvh_entry();
            if let Some(start) = core.take_start(entry, self.d.start_info.load(Ordering::Relaxed)) {
                return Ok(start);
            }
            core::hint::spin_loop();
        }
    }

    /// From a start to an INIT or the dataplane's end.
    fn live(&mut self, start: Start) {
        let vmcs = self.d.virtual_cores[self.me].vmcs;
        self.reset();
        if instructions::clear(vmcs).and_then(|()| instructions::load(vmcs)).is_err() {
            panic!("core {}: VMCLEAR or VMPTRLD failed", self.d.cores[self.me]);
        }
        vmcs::set_up(self.s, &self.d.fences);
        vmcs::begin(self.s, start, &mut self.registers);
        instructions::flush_ept(self.d.fences.ept_pointer, self.s.invept_single);
        self.watchdog.restart();
        self.arm_timer();
        let mut launched = false;
        while self.d.state() == State::Runs && !self.got_init() {
            self.deliver_nmi();
            let entered = instructions::enter(&mut self.registers, launched);
            launched = true;
            if let Err(why) = self.came_out(entered) {
                stop(self.d, self.me, why, &self.registers);
                // What comes next is another life.
                return;
            }
        }
    }

    fn got_init(&self) -> bool {
        self.d.virtual_cores[self.me].init.swap(false, Ordering::AcqRel)
    }

    fn came_out(&mut self, entered: Entered) -> Result<(), Stop> {
        let exit = Exit(read(f::EXIT_REASON) as u32);
        if entered == Entered::Refused {
            let error = read(f::INSTRUCTION_ERROR) as u32;
            return Err(entry_failure(u64::from(error), instruction_error(error)));
        }
        self.d.page.count_exit(self.me, exit.counter());
        if exit.is_entry_failure() {
            let qualification = read(f::EXIT_QUALIFICATION);
            let limits =
                Limits { cr0: self.s.cr0, cr4: self.s.cr4, physical_bits: self.s.physical_bits };
            let text = match state::check(&read, &limits) {
                Err(invalid) => invalid.to_string(),
                Ok(()) => entry_failure_detail(qualification).to_string(),
            };
            return Err(entry_failure(qualification, &text));
        }
        // Events whose delivery was broken off go on at the next entry.
        if let Some(event) = Interruption(read(f::IDT_VECTORING_INFO) as u32).again() {
            let error = read(f::IDT_VECTORING_ERROR);
            vmcs::inject(event, error, read(f::EXIT_INSTRUCTION_LENGTH));
        }
        exits::handle(self, exit)
    }

    /// An NMI of another of its cores, if there is one and the guest can take it.
    fn deliver_nmi(&self) {
        let pending = &self.d.virtual_cores[self.me].nmi;
        if !pending.load(Ordering::Acquire) {
            return;
        }
        let busy = Interruption(read(f::ENTRY_INTERRUPTION_INFO) as u32).is_valid();
        if busy || read(f::GUEST_INTERRUPTIBILITY) & BLOCKS_NMI != 0 {
            vmcs::watch_nmi_window(self.s, true);
            return;
        }
        pending.store(false, Ordering::Release);
        vmcs::inject(Interruption::INJECT_NMI, 0, 0);
    }

    /// What the last guest has left in this core that is in no VMCS.
    fn reset(&self) {
        for msr in [STAR, LSTAR, CSTAR, SFMASK, KERNEL_GS_BASE] {
            wrmsr(msr, 0);
        }
        if self.s.instructions.rdtscp {
            wrmsr(TSC_AUX, 0);
        }
        if self.s.xcr0 != 0 {
            instructions::set_xcr0(1);
        }
        wrmsr(X2APIC_LVT_TIMER, LVT_MASKED);
        wrmsr(X2APIC_TIMER_INITIAL, 0);
        wrmsr(X2APIC_TASK_PRIORITY, 0);
        // Interrupts in service, of a handler that never came to its end.
        for register in 0..8 {
            for _ in 0..rdmsr(X2APIC_IN_SERVICE + register).count_ones() {
                wrmsr(X2APIC_EOI, 0);
            }
        }
        instructions::drain_interrupts();
    }

    /// Past the instruction that brought the guest out.
    pub fn skip(&self) {
        write(f::GUEST_RIP, read(f::GUEST_RIP).wrapping_add(read(f::EXIT_INSTRUCTION_LENGTH)));
        // What STI and MOV SS block, they block for one instruction.
        write(f::GUEST_INTERRUPTIBILITY, read(f::GUEST_INTERRUPTIBILITY) & !0b11);
    }
}

fn entry_failure(detail: u64, text: &str) -> Stop {
    Stop::Misdeed { cause: Cause::EntryFailure, detail, text: text.into() }
}

const STAR: u32 = 0xC000_0081;
const LSTAR: u32 = 0xC000_0082;
const CSTAR: u32 = 0xC000_0083;
const SFMASK: u32 = 0xC000_0084;
const KERNEL_GS_BASE: u32 = 0xC000_0102;
const TSC_AUX: u32 = 0xC000_0103;
const X2APIC_TASK_PRIORITY: u32 = 0x808;
const X2APIC_EOI: u32 = 0x80B;
const X2APIC_IN_SERVICE: u32 = 0x810;
const X2APIC_LVT_TIMER: u32 = 0x832;
const X2APIC_TIMER_INITIAL: u32 = 0x838;
const LVT_MASKED: u64 = 1 << 16;
