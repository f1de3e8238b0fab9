//! The application's thread on one core: runs it, serves its direct calls, watches its time.
#![allow(unsafe_code, reason = "loads the program's page tables, reads ring headers")]

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::mem::offset_of;
use core::sync::atomic::Ordering;

use ix_abi::layout::{CallHeader, EVENT_SLOTS, EventHeader};
use ix_abi::status::Status;
use ix_dataplane::platform::AppReturn;
use spin::Mutex;

use super::calls::{self, Answer, Caller, failure};
use super::lifecycle::{self, Reason};
use super::program::Program;
use super::state::UserState;
use super::{Fault, UserExit, enter};
use crate::cpu::percore::{self, PerCore, bump};
use crate::{apic, mem, start, time};

/// An overrun that lasts longer is reported; a shorter one is only counted (starting up takes time).
const REPORT_NS: u64 = 100_000_000;

pub struct Thread {
    pub program: Arc<Program>,
    /// Where it runs, for ever.
    core: &'static PerCore,
    /// Ticks until it is taken back.
    bound_ticks: u64,
    context: usize,
    state: Box<UserState>,
    /// It waits in `enter`: its next run answers that call.
    in_enter: bool,
    /// When it was first interrupted without having come back since.
    overrun_since_ns: Option<u64>,
    /// That has lasted long enough to be reported.
    overdue: bool,
    log: Mutex<calls::LogBudget>,
    /// A `map` that is not done.
    mapping: Option<calls::Mapping>,
    /// It came back early, for the network's sake: that is no overrun.
    pub yielded: bool,
}

impl Thread {
    /// A thread of the core that calls this.
    pub fn new(program: Arc<Program>, context: usize) -> Self {
        let state = Box::new(program.start_state(context));
        // SAFETY: the program's tables contain the kernel half (`AddressSpace::new`).
        unsafe { mem::load_root(program.root()) };
        crate::cpu::descriptors::clear_data_segments();
        let log = Mutex::new(calls::LogBudget::new());
        Self {
            program,
            core: percore::this(),
            bound_ticks: u64::from(start::machine().config.bound_ms),
            context,
            state,
            in_enter: false,
            overrun_since_ns: None,
            overdue: false,
            log,
            mapping: None,
            yielded: false,
        }
    }

    /// Leaves the program's address space; nothing of it is used on this core afterwards.
    pub fn leave(self) {
        // SAFETY: the kernel's own tables.
        unsafe { mem::load_root(mem::root()) };
    }

    /// Whether it was interrupted and has not come back for long.
    pub fn is_overdue(&self) -> bool {
        self.overdue
    }

    /// Runs it until it enters the kernel for its batch, exceeds its bound, or ends.
    pub fn run(&mut self) -> AppReturn {
        let core = self.core;
        // One entry for the tick's bound, however many direct calls it makes.
        bump(&core.entries);
        // Once it has overrun, the network gets the core back every tick.
        let bound = if self.overrun_since_ns.is_some() { 1 } else { self.bound_ticks };
        core.bound_ticks.store(bound, Ordering::Relaxed);
        if !core.timer_armed.load(Ordering::Relaxed) {
            core.timer_armed.store(true, Ordering::Relaxed);
            apic::arm_timer_tick();
        }
        if self.in_enter {
            self.in_enter = false;
            self.state.rax = self.unread();
        }
        self.yielded = false;
        if self.mapping.is_some() && !self.map_on() {
            return self.yields();
        }
        loop {
            if lifecycle::is_ending() {
                return AppReturn::Ended;
            }
            match enter(&mut self.state, core) {
                UserExit::Syscall { number, args } => match self.direct(number, args) {
                    Answer::Value(v) => self.state.rax = v,
                    Answer::Late(v) => {
                        self.state.rax = v;
                        return self.yields();
                    }
                    Answer::Map(mapping) => {
                        self.mapping = Some(mapping);
                        if !self.map_on() {
                            return self.yields();
                        }
                    }
                    Answer::Batch => {
                        self.in_enter = true;
                        self.overrun_since_ns = None;
                        self.overdue = false;
                        return AppReturn::Entered;
                    }
                    Answer::Exit(code) => {
                        lifecycle::end(Reason::Exit(code));
                        return AppReturn::Ended;
                    }
                    // Refused to elastic threads where they are decoded.
                    Answer::Wait(_) | Answer::Leave => self.state.rax = failure(Status::Denied),
                },
                UserExit::Preempted => return self.preempted(),
                UserExit::Fault(fault) => {
                    self.faulted(fault);
                    return AppReturn::Ended;
                }
            }
        }
    }

    fn direct(&self, number: u64, args: [u64; 3]) -> Answer {
        let caller = Caller { program: &self.program, log: &self.log, is_elastic: true };
        calls::direct(&caller, number, args)
    }

    /// A step of the `map` under way; whether it is done.
    #[cold]
    #[inline(never)]
    fn map_on(&mut self) -> bool {
        let done = self.mapping.as_mut().and_then(|m| m.step(&self.program));
        if let Some(result) = done {
            self.state.rax = result;
            self.mapping = None;
        }
        done.is_some()
    }

    /// To be resumed after the rest of the core loop.
    fn yields(&mut self) -> AppReturn {
        self.yielded = true;
        if lifecycle::is_ending() { AppReturn::Ended } else { AppReturn::Preempted }
    }

    #[cold]
    #[inline(never)]
    fn faulted(&self, fault: Fault) {
        log::error!("app {}: {fault} on core {}", self.program.name, self.context);
        lifecycle::end(Reason::Fault(fault.vector));
    }

    #[cold]
    #[inline(never)]
    fn preempted(&mut self) -> AppReturn {
        if lifecycle::is_ending() {
            return AppReturn::Ended;
        }
        let now = time::now_ns();
        let since = *self.overrun_since_ns.get_or_insert(now);
        if !self.overdue && now - since >= REPORT_NS {
            self.overdue = true;
            let (name, core) = (&self.program.name, self.context);
            log::warn!("app {name} does not return on core {core}: taken back, to be resumed");
        }
        let limit_ms = u64::from(start::machine().config.limit_ms);
        if limit_ms > 0 && now - since > limit_ms * 1_000_000 {
            log::error!("app {}: not responding for {limit_ms} ms: ended", self.program.name);
            lifecycle::end(Reason::Unresponsive);
            return AppReturn::Ended;
        }
        AppReturn::Preempted
    }

    /// Events in its ring that it has not read, as far as its own index can be believed.
    fn unread(&self) -> u64 {
        let (events, calls) = self.program.ring_pages(self.context);
        // SAFETY: offsets of aligned words in the headers of mapped frames; the syscall page may
        // change at any time, so it is read once, volatile.
        let (produced, consumed) = unsafe {
            (
                events.add(offset_of!(EventHeader, produced)).cast::<u32>().read_volatile(),
                calls.add(offset_of!(CallHeader, events_consumed)).cast::<u32>().read_volatile(),
            )
        };
        u64::from(produced.wrapping_sub(consumed).min(EVENT_SLOTS))
    }
}
