//! What the core loop needs from outside: a clock, queues, the application's core, and rest.
//!
//! The kernel implements this over hardware; the simulation and the benchmarks over memory and a
//! virtual clock.
use crate::device::{RxQueue, TxQueue};
use crate::engine::Engine;
use crate::measure::Measure;
use crate::time::Instant;
use ix_abi::stats::CoreStats;

/// Why the application gave its core back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppReturn {
    /// It called `enter`: its batch is in the syscall ring.
    Entered,
    /// It did not return within its bound; it will be resumed. Its batch is not complete: leave the
    /// syscall ring alone.
    Preempted,
    /// It is gone (exit, fault, command); the platform has told, or will tell, the engine by
    /// `Engine::detach_app`.
    Ended,
}

/// Why the engine wants the application ended. The engine has stopped talking to it; the platform
/// ends it on all cores and calls `Engine::detach_app` on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppFault {
    /// One of its two indices is impossible.
    BadRing,
}

/// What the loop found to do, and when it must run again at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Anything at all was done in this iteration.
    pub busy: bool,
    /// The engine's next timer, or [`Instant::NEVER`].
    pub deadline: Instant,
}

/// A core's surroundings.
pub trait Platform {
    /// A receive queue of the port.
    type Rx: RxQueue;
    /// The core's transmit queue (hardware, or a way to the core that has one).
    type Tx: TxQueue;

    /// Nanoseconds since boot.
    fn now(&mut self) -> Instant;

    /// Time-stamp counter, for accounting only.
    fn tsc(&mut self) -> u64;

    /// The receive queues that this core polls: none or one. (Of several the order of their frames would not be known, which
    /// moves of groups count on.)
    fn rx_queues(&mut self) -> &mut [Self::Rx];

    /// The transmit queue.
    fn tx_queue(&mut self) -> &mut Self::Tx;

    /// Runs the application on this core until it returns. Events are in its ring.
    fn enter_app(&mut self) -> AppReturn;

    /// Step 1 of the loop, its quiescent point: commands, attaching and detaching the application,
    /// moving groups and queues. Called once per iteration: cheap when there is nothing.
    fn control(&mut self, engine: &mut Engine);

    /// The application misbehaved: see [`AppFault`].
    fn app_fault(&mut self, fault: AppFault);

    /// About once a millisecond, and only from the loop: copy the counters and figures out.
    fn publish(&mut self, stats: &CoreStats, measure: &Measure);

    /// Wakes another core that may be halted, since something is in its rings. Cheap if it is not.
    fn wake(&mut self, core: ix_abi::CoreId);
}
