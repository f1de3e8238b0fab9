//! What the core loop needs from outside: a clock, queues, the application's core, and rest.
//!
//! The kernel implements this over hardware; the simulation and the benchmarks over memory and a
//! virtual clock.
use crate::device::{RxQueue, TxQueue};
use crate::time::Instant;

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

    /// The receive queues that this core polls; may be none.
    fn rx_queues(&mut self) -> &mut [Self::Rx];

    /// The transmit queue.
    fn tx_queue(&mut self) -> &mut Self::Tx;

    /// Runs the application on this core until it returns. Events are in its ring.
    fn enter_app(&mut self) -> AppReturn;

    /// Wakes another core that may be halted, since something is in its rings. Cheap if it is not.
    fn wake(&mut self, core: ix_abi::CoreId);
}
