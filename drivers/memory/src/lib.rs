//! A network card of plain memory: driver and device in one, for the simulation and for tests. It has what a card has
//! (rings, RSS with an indirection table, checksums and segments, frames over several buffers, interrupts, reset) and takes its time:
//! it fetches a frame's bytes late, reports it complete later still, and looks then whether they are what they
//! were, so that memory which is used again too early is found.
//!
//! [`open`] gives the queues and the control part, as any driver's opening does, and the [`Card`] itself, which whoever
//! embeds it plays the world to: frames arrive by [`Card::receive`] and leave by [`Card::transmit`], and time is
//! [`Card::now`]. One thread.
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod card;
mod control;
mod packet;
mod queues;
mod segment;

pub use card::{Bus, Card, Config, SharedCard};
pub use control::{CommandError, MemoryControl, SETTLE, Stopped};
pub use queues::{MemoryRx, MemoryTx};
pub use segment::segments;

use ix_dataplane::device::Nic;
use std::cell::RefCell;
use std::rc::Rc;

/// An open port, and the card behind it.
#[derive(Debug)]
pub struct Port {
    /// One per queue pair.
    pub rx: Vec<MemoryRx>,
    /// One per queue pair.
    pub tx: Vec<MemoryTx>,
    /// The rest.
    pub control: MemoryControl,
    /// The device's side.
    pub card: SharedCard,
}

impl Nic for Port {
    type Stopped = Stopped;
    type Rx = MemoryRx;
    type Tx = MemoryTx;
    type Control = MemoryControl;
}

/// Opens a card. There are as many queue pairs and groups as its capabilities say.
pub fn open(config: Config) -> Port {
    let pairs = usize::from(config.capabilities.queue_pairs);
    let card = Rc::new(RefCell::new(Card::new(config)));
    let control = MemoryControl::new(Rc::clone(&card));
    let rx = (0..pairs).map(|queue| MemoryRx::new(Rc::clone(&card), queue)).collect();
    let tx = (0..pairs).map(|queue| MemoryTx::new(Rc::clone(&card), queue)).collect();
    Port { rx, tx, control, card }
}
