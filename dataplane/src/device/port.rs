//! The slow part of the contract: what of a port is not frames. Its queues stop and start again with it, and its
//! control part has the indirection table, the link, reset and restart.
//!
//! A driver's control part owns what all queues share of the device. It alone can stop the device, and proves that it did
//! by a value ([`Nic::Stopped`]) that nobody else can make: only with it do queues give back what the device had.
use super::{RxQueue, TxQueue};
use crate::mbuf::Pool;
use crate::time::Instant;
use core::fmt::{Debug, Display};

/// The clock that deadlines are measured with: nanoseconds since boot.
pub type Clock<'a> = &'a dyn Fn() -> Instant;

/// How far a change of the indirection table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress<E> {
    /// There is none under way.
    Idle,
    /// The device has not taken it, or frames that it had classified before may still come to where they were to go then.
    Pending,
    /// It was done; said once.
    Done,
    /// It was not; said once.
    Failed(E),
}

impl<E> Progress<E> {
    /// The same with another error.
    pub fn map_err<F>(self, map: impl FnOnce(E) -> F) -> Progress<F> {
        match self {
            Progress::Idle => Progress::Idle,
            Progress::Pending => Progress::Pending,
            Progress::Done => Progress::Done,
            Progress::Failed(error) => Progress::Failed(map(error)),
        }
    }
}

/// A driver, by the types of its parts. Users are generic over it, or make an enum of several with [`crate::nics`]; there is
/// no dynamic dispatch.
pub trait Nic {
    /// Proof that the device was stopped: it touches no memory of the driver any more.
    type Stopped: Debug;
    /// One per queue pair.
    type Rx: NicRx<Stopped = Self::Stopped>;
    /// One per queue pair.
    type Tx: NicTx<Stopped = Self::Stopped>;
    /// One per port.
    type Control: NicControl<Stopped = Self::Stopped>;
}

/// A receive queue of a port that can be stopped and started again.
pub trait NicRx: RxQueue {
    /// See [`Nic::Stopped`].
    type Stopped;

    /// Buffers that this queue holds: the device's, and those on their way back to a pool.
    fn held(&self) -> usize;

    /// Whether the device misbehaved so that the queue is out of use until the port is reset.
    fn is_quarantined(&self) -> bool;

    /// Whether the device has written frames that nobody has polled; also when it was stopped since.
    fn has_frames(&self) -> bool;

    /// Gives all buffers back after the port was reset, and begins anew: empty, out of quarantine, ready for
    /// [`NicControl::restart`].
    fn rewind(&mut self, stopped: &Self::Stopped, pool: &mut Pool);

    /// The port was started again: the device is told of what was posted meanwhile, at the next poll at the latest.
    fn restarted(&mut self);
}

/// A transmit queue of a port that can be stopped and started again.
pub trait NicTx: TxQueue {
    /// See [`Nic::Stopped`].
    type Stopped;

    /// Frames that the device has, or will have after the next kick.
    fn in_flight(&self) -> u16;

    /// Whether the device misbehaved so that the queue is out of use until the port is reset.
    fn is_quarantined(&self) -> bool;

    /// Begins anew after the port was reset: the frames in flight count as complete (whether they were
    /// sent is unknown), and the next [`TxQueue::reclaim`] says so.
    fn rewind(&mut self, stopped: &Self::Stopped);

    /// The port was started again: the device is told of what was shown meanwhile, at the next reclaim at the latest.
    fn restarted(&mut self);
}

/// The control part of a port. One core holds it. Nothing waits but [`NicControl::reset`] and [`NicControl::restart`], which
/// have deadlines.
pub trait NicControl {
    /// See [`Nic::Stopped`].
    type Stopped;
    /// Why the table was not changed.
    type CommandError: Display + Debug;
    /// Why the device does not stop, or start.
    type StartError: Display + Debug;

    /// Queue pairs of the port.
    fn pairs(&self) -> u16;

    /// The indirection table as it will be after the next commit: the receive queue by flow group.
    fn reta(&self) -> &[u16];

    /// The queue of a group, as that table has it.
    fn queue_of(&self, group: u16) -> Option<u16> {
        self.reta().get(usize::from(group)).copied()
    }

    /// Stages a new receive queue for a flow group. Refused, without effect, where one of them does not exist or the device
    /// does not spread flows by a table.
    fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), Self::CommandError>;

    /// Begins to tell the device what was staged. Refused while a change is under way. Frames that arrive after
    /// [`Progress::Done`] follow the table.
    fn commit(&mut self, now: Instant) -> Result<(), Self::CommandError>;

    /// How far that is; bounded, never waits.
    fn poll(&mut self, now: Instant) -> Progress<Self::CommandError>;

    /// Whether the link is up, as far as the device tells. Reads registers: not for each loop.
    fn read_link_up(&self) -> bool;

    /// Whether the device has given up, or is gone, and wants a reset. Reads a register.
    fn read_needs_reset(&self) -> bool;

    /// Frames that the device has lost since the port was opened because it had no buffer, as far as is known now: asked again and
    /// again, it becomes all of them. 0 where the device does not tell. Reads at most one register: for a tick, not for each loop.
    fn poll_missed(&mut self) -> u64 {
        0
    }

    /// Stops the device: after this it touches no memory. The proof lets the queues of this port
    /// give back what they hold. On failure it may be tried again.
    fn reset(&mut self, clock: Clock<'_>) -> Result<Self::Stopped, Self::StartError>;

    /// Starts the device again after a reset, with the same queues and table. All queues must have been rewound. On
    /// failure the device is left stopped.
    fn restart(&mut self, stopped: Self::Stopped, clock: Clock<'_>)
    -> Result<(), Self::StartError>;
}
