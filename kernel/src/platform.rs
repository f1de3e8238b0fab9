//! A core's surroundings for the core loop: clock, queues, the application's thread, control, rest.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::CoreId;
use ix_abi::control::CoreState;
use ix_abi::event_log::EventKind;
use ix_abi::stats::CoreStats;
use ix_dataplane::core_loop::{run_once, turn};
use ix_dataplane::device::{NicRx as _, NicTx as _, RxQueue, TxQueue};
use ix_dataplane::engine::Engine;
use ix_dataplane::measure::Measure;
use ix_dataplane::platform::{AppFault, AppReturn, Platform, Work};
use ix_dataplane::time::Instant;
use ix_kernel_core::cmdline::Idle;

use crate::cpu::percore;
use crate::manager::Manager;
use crate::net::{self, Share, Tx};
use crate::nic::Rx;
use crate::user::background;
use crate::user::lifecycle::{self, Reason};
use crate::user::thread::Thread;
use crate::{apic, control, measure, renew, time, vmx, watch};

mod wishes;

/// How long an idle core polls before it halts.
const SPIN_NS: u64 = 50_000;
/// Longest halt: bounds what a wake-up that got lost can cost.
const TICK_NS: u64 = 1_000_000;
/// The same for a parked core.
const PARKED_TICK_NS: u64 = 100_000_000;
/// A halt shorter than this is none: the way in and out takes as long.
const HALT_MIN_NS: u64 = 2_000;
/// A store is visible to other cores after this: the sleeper waits so that wakers need no fence.
const STORE_VISIBLE_NS: u64 = 1_000;

/// The application on this core.
enum App {
    None,
    Attached(Box<Thread>, u64),
    /// The engine still has frames in flight that refer to its memory. When it has waited for too long,
    /// it asks for a reset of the device: how often it has, and how many there were then.
    Draining(u64, u32, u32),
}

/// Whether background threads run here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reserved {
    No,
    Yes,
    /// Not any more; until then those go on that hold what others wait for.
    Until(u64),
}

/// How long a core that is not reserved any more may run such threads.
const RESERVED_AFTER_NS: u64 = 100_000_000;

impl Reserved {
    #[cold]
    fn turned(self, now: u64) -> Self {
        if self == Self::Yes { Self::Until(now + RESERVED_AFTER_NS) } else { Self::Yes }
    }
}

pub struct KernelPlatform {
    core: usize,
    beats: &'static AtomicU64,
    rx: Vec<Rx>,
    tx: Tx,
    /// Other cores send through its queue.
    shares_queue: bool,
    app: App,
    idle: Idle,
    /// As of the last `now()`.
    now: u64,
    last_busy: u64,
    /// When it looks at what others want of it; 0: at once.
    look_around: u64,
    /// When another core has woken it last.
    woken: u64,
    halts: u64,
    overruns: u64,
    /// The core has no groups: it halts for long.
    parked: bool,
    /// What core 0 said of that last: it may have been woken since.
    park: bool,
    /// How often it was given up for lost, as it knows it.
    taken: u32,
    /// A monitor may do that.
    can_be_taken: bool,
    measure: measure::Core,
    /// Figures were published: there may be a new grant.
    published: bool,
    /// The grant, and how many cores had been woken when it came.
    grant: (u64, u64),
    /// Of which it was told.
    wakes: u64,
    /// It is reserved for background threads, or was a moment ago.
    reserved: Reserved,
    /// The batch bound that was asked for last; 0: none was.
    batch: usize,
    /// It was said that a queue is in quarantine.
    quarantine_told: bool,
    watch: watch::Core,
    renewal: renew::CorePart,
    /// Core 0's part of control.
    manager: Option<Box<Manager>>,
}

impl KernelPlatform {
    pub fn new(core: usize, share: Share, idle: Idle, manager: Option<Box<Manager>>) -> Self {
        Self {
            core,
            beats: &percore::of(core).beats,
            rx: share.rx,
            tx: share.tx,
            shares_queue: share.shared,
            app: App::None,
            idle,
            now: time::now_ns(),
            last_busy: 0,
            look_around: 0,
            woken: 0,
            halts: 0,
            overruns: 0,
            parked: false,
            park: false,
            taken: 0,
            can_be_taken: core != 0 && vmx::guest::page().is_some(),
            measure: measure::Core::new(core),
            published: false,
            grant: (0, 0),
            wakes: 0,
            reserved: Reserved::No,
            batch: 0,
            quarantine_told: false,
            watch: watch::Core::new(core),
            renewal: renew::CorePart::default(),
            manager,
        }
    }

    /// Runs the core for ever.
    pub fn run(mut self, mut engine: Engine) -> ! {
        control::set_core_state(self.core, CoreState::Running);
        watch::log::record(EventKind::CoreStarts, 0, 0, 0);
        vmx::guest::announce_heartbeat(self.beats);
        loop {
            let work = turn(&mut engine, &mut self);
            let ran = self.reserved != Reserved::No && self.run_background(work.deadline);
            if work.busy {
                self.last_busy = self.now;
            } else if !ran {
                self.rest(&mut engine, work);
            }
        }
    }

    /// A slice for a background thread, until `deadline` if the engine has something then. Whether there was one.
    #[cold]
    #[inline(never)]
    fn run_background(&mut self, deadline: Instant) -> bool {
        let now = time::now_ns();
        if matches!(self.reserved, Reserved::Until(end) if now >= end) {
            self.reserved = Reserved::No;
        }
        let App::Attached(thread, _) = &self.app else { return false };
        let program = &thread.program;
        // What is due already has had its turn: each gets its share of the core.
        let until = if deadline.0 > now { deadline.0 } else { u64::MAX };
        match self.reserved {
            Reserved::Yes if self.parked => {
                control::set_core_state(self.core, CoreState::Background);
                background::run_slice(program, until, false)
            }
            Reserved::Until(_) => background::run_slice(program, until, true),
            _ => false,
        }
    }

    /// When a background thread's wait is over, at the earliest, if this core would run it; `None`: one can run now.
    fn background_deadline(&self) -> Option<u64> {
        match &self.app {
            App::Attached(thread, _) if self.reserved == Reserved::Yes => {
                let threads = &thread.program.threads;
                (!threads.has_work()).then(|| threads.deadline_ns())
            }
            _ => Some(u64::MAX),
        }
    }

    /// Nothing to do: polls on for a while, then halts until a frame, a peer, a timer or the tick.
    #[inline(never)]
    fn rest(&mut self, engine: &mut Engine, work: Work) {
        self.now = time::now_ns();
        self.look_around = 0;
        if self.parked && (engine.take_leave() || self.was_taken()) {
            return self.be_away(engine);
        }
        // A parked core polls only when it was woken just now.
        let since = if self.parked { self.woken } else { self.last_busy };
        let polls = self.idle == Idle::Poll && !self.parked;
        let listens = self.manager.as_ref().is_some_and(|manager| manager.is_attentive());
        let spins = polls || listens || self.now.wrapping_sub(since) < SPIN_NS;
        if spins {
            core::hint::spin_loop();
            return;
        }
        let me = percore::of(self.core);
        me.sleeping.store(true, Ordering::Relaxed);
        // A plain store and no fence: the wait makes it visible. Who had read `sleeping` as false has its message visible now: look once more.
        time::wait_ns(STORE_VISIBLE_NS);
        let again = run_once(engine, self);
        let called = self.parked && self.is_called(engine);
        let deadline = work.deadline.min(again.deadline);
        if let Some(ns) = self.background_deadline()
            && !again.busy
            && !called
            && !lifecycle::is_ending()
        {
            self.halt_unless_soon(deadline.min(Instant(ns)));
        }
        // Somebody has woken us: there is more to come, so look for a while.
        if !me.sleeping.load(Ordering::Relaxed) {
            self.woken = time::now_ns();
        }
        me.sleeping.store(false, Ordering::Relaxed);
        self.look_around = 0;
        if again.busy {
            self.last_busy = self.now;
        }
    }

    /// Not for a moment, as while a ring is full: with some cards it takes two writes of registers.
    fn halt_unless_soon(&mut self, deadline: Instant) {
        if deadline.0.saturating_sub(time::now_ns()) < HALT_MIN_NS {
            core::hint::spin_loop();
            return;
        }
        if !self.rx.iter_mut().any(RxQueue::arm_interrupt) {
            self.halt(deadline);
        }
        self.rx.iter_mut().for_each(RxQueue::disarm_interrupt);
    }

    fn halt(&mut self, deadline: Instant) {
        let now = time::now_ns();
        let tick = match &self.manager {
            Some(manager) => manager.due_in(now).clamp(1, TICK_NS),
            None if self.parked => PARKED_TICK_NS,
            None => TICK_NS,
        };
        let ns = deadline.0.saturating_sub(now).clamp(1, tick);
        let me = percore::of(self.core);
        me.timer_armed.store(true, Ordering::Relaxed);
        apic::arm_timer(ns);
        let state = match self.reserved {
            Reserved::Yes => CoreState::Background,
            _ if self.parked => CoreState::Parked,
            _ => CoreState::Halted,
        };
        control::set_core_state(self.core, state);
        x86_64::instructions::interrupts::enable_and_hlt();
        x86_64::instructions::interrupts::disable();
        self.halts += 1;
        control::set_core_state(self.core, CoreState::Running);
    }
}

impl Platform for KernelPlatform {
    type Rx = Rx;
    type Tx = Tx;

    #[inline]
    fn now(&mut self) -> Instant {
        self.now = time::now_ns();
        Instant(self.now)
    }

    #[inline]
    fn tsc(&mut self) -> u64 {
        time::tsc()
    }

    #[inline]
    fn rx_queues(&mut self) -> &mut [Rx] {
        &mut self.rx
    }

    #[inline]
    fn tx_queue(&mut self) -> &mut Tx {
        &mut self.tx
    }

    fn enter_app(&mut self) -> AppReturn {
        let App::Attached(thread, _) = &mut self.app else { return AppReturn::Ended };
        let back = thread.run();
        let overdue = thread.is_overdue();
        percore::of(self.core).overdue.store(overdue, Ordering::Relaxed);
        if back == AppReturn::Preempted && !thread.yielded {
            self.overruns += 1;
        }
        back
    }

    #[inline]
    fn control(&mut self, engine: &mut Engine) {
        percore::bump(self.beats);
        // Frames of cores without a queue move only when this one's owner looks (`MuxTx`).
        if self.shares_queue
            && let Tx::Queue(queue) = &mut self.tx
        {
            queue.kick();
        }
        // A core that was stopped looks first.
        if self.now >= self.look_around || (self.can_be_taken && self.was_taken()) {
            self.look_around(engine);
        }
        if engine.redirect().is_some()
            && let Some(manager) = &mut self.manager
        {
            manager.redirect(engine);
        }
    }

    #[cold]
    fn app_fault(&mut self, fault: AppFault) {
        match fault {
            AppFault::BadRing => lifecycle::end(Reason::BadRing),
        }
    }

    fn publish(&mut self, stats: &CoreStats, measure: &Measure) {
        control::publish(self.core, stats);
        self.measure.publish(stats, measure);
        self.published = true;
        self.watch.publish(stats);
        let lost = self.rx.iter().any(Rx::is_quarantined)
            || matches!(&self.tx, Tx::Queue(tx) if tx.queue().is_quarantined());
        if lost && !self.quarantine_told {
            watch::log::record(EventKind::QueueStopped, 0, 0, 0);
            let then =
                if renew::ask_for_quarantine() { "it is reset" } else { "a queue is stopped" };
            log::error!("core {}: the network card's answers make no sense; {then}", self.core);
        }
        self.quarantine_told = lost;
    }

    #[inline]
    fn wake(&mut self, core: CoreId) {
        net::wake(core);
    }
}
