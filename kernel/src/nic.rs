//! A network card's queues and control part, whichever driver they are of: who holds one need not know. Each call is a branch
//! that always goes the same way.
use alloc::string::{String, ToString};

use ix_dataplane::device::{Fragment, RxBatch, RxQueue, TxChecksum, TxFrame, TxFull, TxQueue};
use ix_dataplane::mbuf::Pool;
use ix_dataplane::time::Instant;
use ix_ixgbe::IxgbeTx;
use ix_virtio_net::VirtioTx;

use crate::pci::registers::Registers;

/// A receive queue.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per core, and a box would cost each call a load")]
pub enum Rx {
    Virtio(ix_virtio_net::VirtioRx<Registers>),
    Ixgbe(ix_ixgbe::IxgbeRx<Registers>),
}

/// A transmit queue.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per core, and a box would cost each call a load")]
pub enum Queue {
    Virtio(VirtioTx<Registers>),
    Ixgbe(IxgbeTx<Registers>),
}

/// What is not a queue's: the table of groups, stopping and starting.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one")]
pub enum Control {
    Virtio(ix_virtio_net::Control<Registers>),
    Ixgbe(ix_ixgbe::Control<Registers>),
}

/// Proof that the card is stopped.
#[derive(Debug)]
pub enum Stopped {
    Virtio(ix_virtio_net::Stopped),
    Ixgbe(ix_ixgbe::Stopped),
}

/// How far a change of the table is.
#[derive(Debug)]
pub enum Progress {
    Pending,
    Done,
    Failed(String),
}

macro_rules! each {
    ($kind:ident, $self:expr, $it:ident => $do:expr) => {
        match $self {
            $kind::Virtio($it) => $do,
            $kind::Ixgbe($it) => $do,
        }
    };
}

impl RxQueue for Rx {
    #[inline]
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        each!(Rx, self, q => q.poll(max, batch))
    }
    fn waiting(&self) -> usize {
        each!(Rx, self, q => q.waiting())
    }
    #[inline]
    fn replenish(&mut self, pool: &mut Pool) {
        each!(Rx, self, q => q.replenish(pool));
    }
    fn arm_interrupt(&mut self) -> bool {
        each!(Rx, self, q => q.arm_interrupt())
    }
    fn disarm_interrupt(&mut self) {
        each!(Rx, self, q => q.disarm_interrupt());
    }
    fn device_errors(&self) -> u64 {
        each!(Rx, self, q => q.device_errors())
    }
    fn other_vlan(&self) -> u64 {
        each!(Rx, self, q => q.other_vlan())
    }
}

impl Rx {
    /// The device has lost count of it.
    #[inline]
    pub fn is_quarantined(&self) -> bool {
        each!(Rx, self, q => q.is_quarantined())
    }

    /// Frames that the device had delivered before it was stopped.
    pub fn has_frames(&self) -> bool {
        each!(Rx, self, q => q.has_frames())
    }

    /// Its buffers go back to the pool: the device is stopped.
    pub fn rewind(&mut self, stopped: &Stopped, pool: &mut Pool) {
        match (self, stopped) {
            (Rx::Virtio(q), Stopped::Virtio(proof)) => q.rewind(proof, pool),
            (Rx::Ixgbe(q), Stopped::Ixgbe(proof)) => q.rewind(proof, pool),
            _ => {}
        }
    }

    /// The device runs again.
    pub fn restarted(&mut self) {
        each!(Rx, self, q => q.restarted());
    }
}

impl TxQueue for Queue {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        each!(Queue, self, q => q.push(frame))
    }
    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        each!(Queue, self, q => q.push_pair(headers, payload, checksum))
    }
    #[inline]
    fn kick(&mut self) {
        each!(Queue, self, q => q.kick());
    }
    #[inline]
    fn reclaim(&mut self) -> u32 {
        each!(Queue, self, q => q.reclaim())
    }
}

impl Queue {
    /// The device has lost count of it.
    #[inline]
    pub fn is_quarantined(&self) -> bool {
        each!(Queue, self, q => q.is_quarantined())
    }

    /// It forgets what it had sent: the device is stopped.
    pub fn rewind(&mut self, stopped: &Stopped) {
        match (self, stopped) {
            (Queue::Virtio(q), Stopped::Virtio(proof)) => q.rewind(proof),
            (Queue::Ixgbe(q), Stopped::Ixgbe(proof)) => q.rewind(proof),
            _ => {}
        }
    }

    /// The device runs again.
    pub fn restarted(&mut self) {
        each!(Queue, self, q => q.restarted());
    }
}

impl Control {
    /// Queue pairs.
    pub fn pairs(&self) -> u16 {
        each!(Control, self, c => c.pairs())
    }

    /// The queue of a group, as the table has it.
    pub fn queue_of(&self, group: u16) -> Option<u16> {
        each!(Control, self, c => c.reta().get(usize::from(group)).copied())
    }

    /// Notes what the table is to say of a group.
    pub fn set_reta(&mut self, group: u16, queue: u16) -> Result<(), String> {
        each!(Control, self, c => c.set_reta(group, queue).map_err(|e| e.to_string()))
    }

    /// Begins to tell the device; [`Control::poll`] tells how it went.
    pub fn commit(&mut self, now: Instant) -> Result<(), String> {
        each!(Control, self, c => c.commit(now).map_err(|e| e.to_string()))
    }

    /// How far that is.
    pub fn poll(&mut self, now: Instant) -> Progress {
        match self {
            Control::Virtio(c) => match c.poll(now) {
                ix_virtio_net::Progress::Pending => Progress::Pending,
                ix_virtio_net::Progress::Failed(e) => Progress::Failed(e.to_string()),
                _ => Progress::Done,
            },
            Control::Ixgbe(c) => match c.poll(now) {
                ix_ixgbe::Progress::Pending => Progress::Pending,
                ix_ixgbe::Progress::Failed(e) => Progress::Failed(e.to_string()),
                _ => Progress::Done,
            },
        }
    }

    /// Stops the device.
    pub fn reset(&mut self, clock: &dyn Fn() -> Instant) -> Result<Stopped, String> {
        match self {
            Control::Virtio(c) => c.reset(clock).map(Stopped::Virtio).map_err(|e| e.to_string()),
            Control::Ixgbe(c) => c.reset(clock).map(Stopped::Ixgbe).map_err(|e| e.to_string()),
        }
    }

    /// Starts it again.
    pub fn restart(&mut self, stopped: Stopped, clock: &dyn Fn() -> Instant) -> Result<(), String> {
        match (self, stopped) {
            (Control::Virtio(c), Stopped::Virtio(proof)) => {
                c.restart(proof, clock).map_err(|e| e.to_string())
            }
            (Control::Ixgbe(c), Stopped::Ixgbe(proof)) => {
                c.restart(proof, clock).map_err(|e| e.to_string())
            }
            _ => Err("another card's proof".to_string()),
        }
    }
}
