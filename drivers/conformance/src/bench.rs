//! What a rule needs of a device under test: its wire, its memory, its time and its mood.
use ix_dataplane::device::{BusAddr, Capabilities, Nic};
use ix_dataplane::mbuf::Area;
use ix_dataplane::time::Instant;

/// The key of the hash that ports are opened with.
pub const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut i = 0;
    while i < 40 {
        key[i] = (i * 37 + 11) as u8;
        i += 1;
    }
    key
};

/// What a rule wants of a port. A device may have less of everything but buffers.
#[derive(Clone, Copy, Debug)]
pub struct Wishes {
    /// Queue pairs.
    pub pairs: u16,
    /// Entries of each receive ring.
    pub rx_ring: u16,
    /// The same for transmit rings; at least 32.
    pub tx_ring: u16,
    /// The largest IP packet.
    pub mtu: u16,
    /// Receive buffers, all of core 0.
    pub buffers: u32,
}

impl Default for Wishes {
    fn default() -> Wishes {
        Wishes { pairs: 1, rx_ring: 256, tx_ring: 256, mtu: 1500, buffers: 2048 }
    }
}

/// An open port: [`KEY`] is its key, its link is up, nothing is posted yet.
#[allow(missing_debug_implementations, reason = "parts of drivers need not have it")]
pub struct Open<B: Bench> {
    /// The device.
    pub device: B,
    /// One for each pair.
    pub rx: Vec<<B::Nic as Nic>::Rx>,
    /// One for each pair.
    pub tx: Vec<<B::Nic as Nic>::Tx>,
    /// The rest.
    pub control: <B::Nic as Nic>::Control,
    /// What it offers.
    pub capabilities: Capabilities,
    /// Where its buffers are.
    pub area: &'static Area,
}

/// Makes devices.
pub type Make<'a, B> = dyn Fn(&Wishes) -> Open<B> + 'a;

/// A device in software with its driver. It is honest; what lies is a driver's own matter (`hostile` in its tests).
///
/// It works when it was told to and not before: a doorbell that rings while it is stopped is not heard, and a device that sleeps without
/// buffers looks for them when it hears one.
///
/// Deterministic, one thread. Time passes by [`Bench::settle`] and with each look at [`Bench::clock`], or not at all.
pub trait Bench: Sized {
    /// The driver.
    type Nic: Nic;

    /// A frame arrives from the wire. Whether the device took it; it may take until [`Bench::settle`] to be there.
    fn deliver(&mut self, frame: &[u8]) -> bool;

    /// Lets the device go on as far as it may without time passing, and takes the frames that left it since the last
    /// call: in order, as far as they are of one queue.
    fn sent(&mut self) -> Vec<Vec<u8>>;

    /// How often the driver has told the device of work, since the last call: writes of registers that belong to a queue.
    fn doorbells(&mut self) -> u64;

    /// The receive queues whose interrupts the device has raised since the last call; one as often as it did.
    fn interrupts(&mut self) -> Vec<usize>;

    /// While `on`, the device reports no frame that it has sent as complete.
    fn hold(&mut self, on: bool);

    /// Reports the `nth` of the oldest frames that have left `queue` and were held as complete, whatever its turn.
    /// `false`: devices of this kind complete in order.
    fn complete_out_of_turn(&mut self, _queue: usize, _nth: usize) -> bool {
        false
    }

    /// Time enough passes for all that is under way, the link included.
    fn settle(&mut self);

    /// For deadlines.
    fn clock(&self) -> Box<dyn Fn() -> Instant>;

    /// Memory that the device may read.
    fn memory(&mut self, len: usize) -> BusAddr;

    /// Writes to it.
    fn write(&mut self, at: BusAddr, bytes: &[u8]);

    /// Panics if the driver has done what the device holds against it.
    fn audit(&self) {}
}
