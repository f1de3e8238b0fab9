//! What a core does under the monitor: enters its dataplane, sees to what brings it out, enters again.

use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use ix_kernel_core::vmx::exits::Exit;
use ix_kernel_core::vmx::exits::{Interruption, entry_failure_detail, instruction_error};
use ix_kernel_core::vmx::fields as f;
use ix_kernel_core::vmx::page::Cause;
use ix_kernel_core::vmx::state::{self, Limits};
use ix_kernel_core::vmx::watchdog::{LOOKS_DEFAULT, LOOKS_PER_SECOND, Watchdog};

use super::dataplane::{Dataplane, State};
use super::exits;
use super::instructions::{self, Entered, GuestRegisters, read, write};
use super::kept::{self, Kept};
use super::moves::{self, Lent, Switch};
use super::stop::{Stop, stop};
use super::support::Support;
use super::vmcs::{self, Start};
use crate::{crash, time};

/// STI, MOV SS and NMI blocking: an NMI cannot be injected.
const BLOCKS_NMI: u64 = 0b1011;

/// A core of a dataplane, on its physical core.
pub struct Core<'a> {
    pub s: &'a Support,
    pub d: &'a Dataplane,
    /// Its number in the dataplane.
    pub me: usize,
    pub registers: Box<GuestRegisters>,
    pub watchdog: Watchdog,
    /// When that looks again.
    look_ns: u64,
    /// The physical core is not this dataplane's alone.
    lent: Option<&'static Lent>,
    /// It is to go to another one.
    switch: Option<Switch>,
    /// It runs another one meanwhile: what is to be brought back, and in which life that was.
    kept: Option<(Box<Kept>, u64)>,
}

/// Why a core does not run its dataplane any more.
enum Out {
    /// Another life begins, or this core is to begin anew in it.
    Again,
    /// Another dataplane is to have the core.
    Switch(Switch),
    /// The dataplane is not going to run again.
    Over,
}

/// Serves for good whoever lists the core: one dataplane, or several, one at a time.
pub fn serve(s: &Support, physical: usize) -> ! {
    let lent = moves::of(physical);
    let of = |(i, d): (usize, &'static Dataplane)| {
        let me = d.cores.iter().position(|core| *core == physical)?;
        Some((i as u8, Core::new(s, d, me, lent)))
    };
    let mut served: Vec<(u8, Core<'_>)> =
        super::dataplanes().iter().enumerate().filter_map(of).collect();
    loop {
        let owner = lent.map(Lent::owner);
        let mine = served.iter_mut().find(|(i, _)| owner.is_none_or(|owner| owner == *i));
        let Some((i, core)) = mine else { crash::park() };
        let switch = match core.turn() {
            Out::Again => continue,
            Out::Switch(switch) => Some(switch),
            Out::Over => lent.and_then(|lent| lent.pass_on(*i)),
        };
        let (Some(lent), Some(switch)) = (lent, switch) else { crash::park() };
        let pending = kept::clean(s);
        core.d.virtual_cores[core.me].forget_start();
        lent.switch(switch, pending, core.kept.is_some());
    }
}

impl<'a> Core<'a> {
    fn new(s: &'a Support, d: &'a Dataplane, me: usize, lent: Option<&'static Lent>) -> Self {
        let registers = Box::new(GuestRegisters::new());
        let watchdog = Watchdog::new(LOOKS_DEFAULT);
        Self { s, d, me, registers, watchdog, look_ns: 0, lent, switch: None, kept: None }
    }

    /// Runs the dataplane on this core as long as it is to.
    fn turn(&mut self) -> Out {
        if let Some((kept, life)) = self.kept.take()
            && life == self.d.page.lives()
            && self.d.state() == State::Runs
        {
            self.go_on(&kept);
        } else {
            match self.wait() {
                Ok(start) => self.begin(start),
                Err(out) => return out,
            }
        }
        self.live();
        match self.switch.take() {
            Some(switch) => Out::Switch(switch),
            None => Out::Again,
        }
    }

    /// Waits for its start.
    fn wait(&mut self) -> Result<Start, Out> {
        let core = &self.d.virtual_cores[self.me];
        loop {
            match self.d.state() {
                State::Runs => {}
                State::Stops => {
                    self.d.stay_out(self.me);
                    return Err(Out::Again);
                }
                State::Ended | State::Down => return Err(Out::Over),
            }
            if let Some(switch) = self.lent.and_then(Lent::look) {
                return Err(Out::Switch(switch));
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

    fn load(&self) {
        let vmcs = self.d.virtual_cores[self.me].vmcs;
        if instructions::clear(vmcs).and_then(|()| instructions::load(vmcs)).is_err() {
            panic!("core {}: VMCLEAR or VMPTRLD failed", self.d.cores[self.me]);
        }
    }

    fn begin(&mut self, start: Start) {
        let _of_the_past = kept::clean(self.s);
        kept::forget_extended(self.s);
        self.load();
        vmcs::set_up(self.s, &self.d.fences);
        vmcs::begin(self.s, start, &mut self.registers);
        instructions::flush_ept(self.d.fences.ept_pointer, self.s.invept_single);
        self.begin_watch();
    }

    /// It is back.
    fn go_on(&mut self, kept: &Kept) {
        self.load();
        kept.bring_back(self.s);
        if let Some(lent) = self.lent {
            lent.raise_pending(self.d, self.me);
        }
        self.begin_watch();
    }

    fn begin_watch(&mut self) {
        self.watchdog.restart();
        self.look_ns = time::now_ns() + LOOK_NS;
        self.arm_timer();
    }

    /// To an INIT, the dataplane's end, or a move.
    fn live(&mut self) {
        let mut launched = false;
        while self.d.state() == State::Runs && !self.got_init() && !self.is_to_leave() {
            self.deliver_nmi();
            let entered = instructions::enter(&mut self.registers, launched);
            launched = true;
            if let Err(why) = self.came_out(entered) {
                stop(self.d, self.me, why, &self.registers);
                // What comes next is another life.
                return;
            }
        }
        if self.switch.is_some() {
            self.kept = Some((Kept::of_guest(self.s), self.d.page.lives()));
            // What the CPU has of it goes to memory; it is launched anew when it is back.
            let _never_fails = instructions::clear(self.d.virtual_cores[self.me].vmcs);
        }
    }

    /// Whether another dataplane is to have the core now.
    fn is_to_leave(&mut self) -> bool {
        let Some(lent) = self.lent else { return false };
        if self.switch.is_none() {
            self.switch = lent.look();
            self.arm_timer();
        }
        self.switch.is_some()
    }

    /// Its kernel lets the core go; `is_forced`: it still has something here.
    pub fn leave(&mut self, is_forced: bool) {
        let switch = self.lent.and_then(Lent::yielded);
        self.switch = switch.map(|switch| Switch { is_forced, ..switch });
    }

    /// Whether it is time for the watchdog's look; then the next one is due later.
    pub fn begin_look(&mut self) -> bool {
        let now = time::now_ns();
        let is_due = self.lent.is_none() || now + EARLY_NS >= self.look_ns;
        if is_due {
            self.look_ns = now + LOOK_NS;
        }
        self.arm_timer();
        is_due
    }

    /// For the watchdog's next look, or a move that is due before.
    fn arm_timer(&self) {
        let now = time::now_ns();
        let due = self.lent.and_then(Lent::due_ns).unwrap_or(u64::MAX);
        let us = self.look_ns.min(due).saturating_sub(now).min(LOOK_NS) / 1000 + 1;
        let ticks = self.s.misc.timer_value(us, time::tsc_khz() as u32);
        write(f::GUEST_PREEMPTION_TIMER, u64::from(ticks));
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

/// Between two looks of the watchdog.
const LOOK_NS: u64 = 1_000_000_000 / LOOKS_PER_SECOND as u64;
/// Timers are so inexact.
const EARLY_NS: u64 = 1_000_000;
