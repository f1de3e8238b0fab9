//! A network card without a wire: every frame that is sent, on whatever queue, comes back to the receive queue that its RSS hash
//! says, as it would from a switch that sends it back to where it came from. Driver and device in one; it needs no hardware, so
//! that a dataplane can be run where no card is, against itself.
//!
//! It has what a card has: a queue pair for each core, receive rings that buffers are posted to, the Toeplitz hash and an
//! indirection table, checksums (filled in when asked for, and verified for each frame that arrives), TCP segmentation, frames over
//! several buffers, interrupts, reset. A frame that finds no buffer is lost and counted.
//!
//! **One copy, which is the wire's.** The core that rings the doorbell plays the device: it reads the frame by bus address and
//! writes it into a posted buffer of the receiving queue, as DMA would. The stack above still copies nothing.
//!
//! **No locks.** Between each transmit queue and each receive queue is a *lane*: two rings of one producer and one consumer
//! (`ix_dataplane::spsc`), buffers one way and filled frames the other. Each lane has its share of the receive ring. Frames have the
//! time of their sending with them, and a queue is polled in that order, as if there were one ring: a flow whose sender moves to
//! another core is not overtaken by itself.
//!
//! [`crossed`] joins two such cards by a cable in place of itself: the tests' way to look at what leaves and to say what comes.
#![no_std]
#![deny(unsafe_code)]
#![warn(missing_docs)]

extern crate alloc;

mod cable;
mod control;
mod gather;
mod rx;
mod tx;
mod wire;

pub use control::{CommandError, LoopbackControl, StartError, Stopped};
pub use rx::LoopbackRx;
pub use tx::LoopbackTx;

use alloc::sync::Arc;
use alloc::vec::Vec;
use cable::{Shared, Turn, lane};
use ix_dataplane::device::{BusAddr, Capabilities, Nic, Pseudo};
use ix_dataplane::limits::{FRAME_BUFFERS_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::Area;
use ix_dataplane::rss::{KEY_BYTES, Toeplitz};

/// Where frames start in their first buffer: IP's header is aligned then.
const OFFSET: usize = 10;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Entries of the indirection table.
const GROUPS: u16 = 128;
// Any IP packet fits a frame's buffers.
const _: () = assert!(u16::MAX as usize + ETHERNET + OFFSET <= FRAME_BUFFERS_MAX * MBUF_BYTES);
/// What Ethernet has.
const MTU_USUAL: u16 = 1500;
/// Queue pairs at most: a set of them is a word.
pub const QUEUE_PAIRS_MAX: u16 = 64;
/// A lane has so many buffers at least, however many lanes share a ring.
const LANE_MIN: usize = 32;

/// What the card needs of the machine that it is in. A copy is kept by each queue.
pub trait Host: Clone {
    /// Fills `to` from what is at `from`; `false`, and nothing was read: there is no such memory.
    fn read(&self, from: BusAddr, to: &mut [u8]) -> bool;

    /// An interrupt of a receive queue.
    fn interrupt(&self, queue: u16);

    /// A clock that never goes back, and that all cores read the same: whoever hears of a reading by memory reads no less.
    fn now(&self) -> u64;

    /// Waits until what this core has stored before is seen by all others: about a microsecond. Before a halt and for changes only.
    fn settle(&self);

    /// A doorbell has rung: for tests.
    fn rang(&self) {}

    /// Whether frames that have left may be told to be complete: a test may want to see them wait.
    fn completes(&self) -> bool {
        true
    }
}

/// What a port is to be.
#[derive(Clone, Debug)]
pub struct Config<H> {
    /// The machine.
    pub host: H,
    /// Where its receive buffers are.
    pub area: &'static Area,
    /// Queue pairs, 1 to [`QUEUE_PAIRS_MAX`].
    pub queue_pairs: u16,
    /// Buffers of each receive ring, which its lanes share.
    pub rx_ring: u16,
    /// Frames of each transmit ring.
    pub tx_ring: u16,
    /// The Toeplitz key.
    pub rss_key: [u8; KEY_BYTES],
    /// Largest IP packet; without it, that of an Ethernet.
    pub mtu: Option<u16>,
}

/// An open port.
#[derive(Debug)]
pub struct Port<H: Host> {
    /// One per queue pair.
    pub rx: Vec<LoopbackRx<H>>,
    /// One per queue pair.
    pub tx: Vec<LoopbackTx<H>>,
    /// The rest.
    pub control: LoopbackControl<H>,
    /// What it offers.
    pub capabilities: Capabilities,
}

impl<H: Host> Nic for Port<H> {
    type Stopped = Stopped;
    type Rx = LoopbackRx<H>;
    type Tx = LoopbackTx<H>;
    type Control = LoopbackControl<H>;
}

/// What a port is made of before its lanes are.
struct End<'a, H> {
    config: &'a Config<H>,
    shared: Arc<Shared>,
    turns: Vec<Arc<Turn>>,
}

impl<'a, H: Host> End<'a, H> {
    fn new(config: &'a Config<H>) -> End<'a, H> {
        let pairs = config.queue_pairs.clamp(1, QUEUE_PAIRS_MAX);
        let mtu = config.mtu.unwrap_or(MTU_USUAL);
        let shared = Arc::new(Shared::new(config.area, pairs, GROUPS, mtu));
        let turns = (0..pairs).map(|_| Arc::default()).collect();
        End { config, shared, turns }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            tx_checksum: true,
            rx_checksum: true,
            rss: true,
            hash_report: true,
            queue_pairs: self.shared.pairs(),
            groups: GROUPS,
            mtu: self.shared.mtu,
            tso: u16::MAX,
            gso_pseudo: Pseudo::WithLength,
        }
    }
}

/// What is between two ends, by transmit and by receive queue.
type Lanes = (Vec<Vec<cable::TxLane>>, Vec<Vec<cable::RxLane>>);

/// All lanes from one end to another.
fn lanes<H: Host>(from: &End<'_, H>, to: &End<'_, H>) -> Lanes {
    let (senders, receivers) = (from.turns.len(), to.turns.len());
    let share = (usize::from(to.config.rx_ring) / senders).max(LANE_MIN);
    let mut tx: Vec<Vec<_>> = (0..senders).map(|_| Vec::with_capacity(receivers)).collect();
    let mut rx: Vec<Vec<_>> = (0..receivers).map(|_| Vec::with_capacity(senders)).collect();
    for tx in &mut tx {
        for rx in &mut rx {
            let (sender, receiver) = lane(share);
            tx.push(sender);
            rx.push(receiver);
        }
    }
    (tx, rx)
}

/// The port of `end`, whose frames go to `peer` by `tx` and whose own come by `rx`.
fn port<H: Host>(
    end: &End<'_, H>,
    peer: &End<'_, H>,
    tx: Vec<Vec<cable::TxLane>>,
    rx: Vec<Vec<cable::RxLane>>,
) -> Port<H> {
    let Config { host, tx_ring, rss_key, .. } = end.config;
    // Frames are hashed where they arrive; whoever sends plays that.
    let toeplitz = Arc::new(Toeplitz::new(if Arc::ptr_eq(&end.shared, &peer.shared) {
        rss_key
    } else {
        &peer.config.rss_key
    }));
    let rx = rx.into_iter().enumerate().map(|(queue, lanes)| {
        LoopbackRx::new(host.clone(), Arc::clone(&end.shared), queue as u16, lanes)
    });
    let tx = tx.into_iter().zip(&end.turns).map(|(lanes, turn)| {
        let ends = (Arc::clone(&end.shared), Arc::clone(&peer.shared));
        LoopbackTx::new(
            host.clone(),
            ends,
            Arc::clone(turn),
            Arc::clone(&toeplitz),
            lanes,
            *tx_ring,
        )
    });
    let (rx, tx) = (rx.collect(), tx.collect());
    let mut turns = end.turns.clone();
    if !Arc::ptr_eq(&end.shared, &peer.shared) {
        turns.extend(peer.turns.iter().cloned());
    }
    let arriving = peer.turns.clone();
    let control = LoopbackControl::new(host.clone(), Arc::clone(&end.shared), turns, arriving);
    Port { rx, tx, control, capabilities: end.capabilities() }
}

/// Opens a card whose frames come back to it.
pub fn open<H: Host>(config: &Config<H>) -> Port<H> {
    let end = End::new(config);
    let (tx, rx) = lanes(&end, &end);
    port(&end, &end, tx, rx)
}

/// Opens two cards that are joined by a cable: what one sends, the other receives.
pub fn crossed<H: Host>(one: &Config<H>, other: &Config<H>) -> (Port<H>, Port<H>) {
    let (one, other) = (End::new(one), End::new(other));
    let (tx, other_rx) = lanes(&one, &other);
    let (other_tx, rx) = lanes(&other, &one);
    (port(&one, &other, tx, rx), port(&other, &one, other_tx, other_rx))
}
