//! The bench of the in-memory NIC: the shortest there is, to be read before a new one is written.
mod memory;

pub use memory::Memory;

use crate::{Bench, KEY, Open, Wishes};
use ix_dataplane::device::{BusAddr, Capabilities, Pseudo};
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Instant;
use ix_memory_nic::{Config, Port, SharedCard};
use std::rc::Rc;

/// Longest time that the card takes for a frame.
const TX_DELAY_NS: u64 = 1_000_000;
/// Time in which all is done.
const SETTLE_NS: u64 = 10_000_000;
/// What a look at the clock takes.
const LOOK_NS: u64 = 1_000;
/// Memory for frames to transmit.
const FRAMES_BYTES: usize = 32 << 20;

/// The in-memory NIC.
#[derive(Debug)]
pub struct InMemory {
    /// The card.
    pub card: SharedCard,
    memory: Rc<Memory>,
    outbox: Vec<Vec<u8>>,
}

impl InMemory {
    /// A card with all that there is.
    pub fn open(wishes: &Wishes) -> Open<InMemory> {
        InMemory::open_with(wishes, |_| ())
    }

    /// A card that offers less.
    pub fn open_with(wishes: &Wishes, adjust: impl FnOnce(&mut Capabilities)) -> Open<InMemory> {
        let memory = Memory::new(Memory::bytes_of(wishes.buffers) + FRAMES_BYTES);
        let area = memory.area(1, wishes.buffers);
        let mut capabilities = Capabilities {
            tx_checksum: true,
            rx_checksum: true,
            rss: true,
            hash_report: true,
            queue_pairs: wishes.pairs,
            groups: 128,
            mtu: wishes.mtu,
            tso: u16::MAX,
            gso_pseudo: Pseudo::WithLength,
        };
        adjust(&mut capabilities);
        let Port { rx, tx, control, card } = ix_memory_nic::open(Config {
            area,
            bus: Rc::clone(&memory) as Rc<dyn ix_memory_nic::Bus>,
            capabilities,
            rss_key: KEY,
            rx_ring: usize::from(wishes.rx_ring),
            tx_ring: usize::from(wishes.tx_ring),
            offset: 10,
            tx_delay: TX_DELAY_NS,
            rng: Rng::from_seed(1),
        });
        let device = InMemory { card, memory, outbox: Vec::new() };
        Open { device, rx, tx, control, capabilities, area }
    }
}

impl Bench for InMemory {
    type Nic = Port;

    fn deliver(&mut self, frame: &[u8]) -> bool {
        self.card.borrow_mut().receive(frame)
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        let left = self.card.borrow_mut().transmit();
        self.outbox.extend(left);
        std::mem::take(&mut self.outbox)
    }

    fn doorbells(&mut self) -> u64 {
        self.card.borrow_mut().take_doorbells()
    }

    fn interrupts(&mut self) -> Vec<usize> {
        let mut card = self.card.borrow_mut();
        let queues = 0..usize::from(card.capabilities().queue_pairs);
        queues.flat_map(|queue| (0..card.take_interrupts(queue)).map(move |_| queue)).collect()
    }

    fn hold(&mut self, on: bool) {
        self.card.borrow_mut().stalled = on;
    }

    fn complete_out_of_turn(&mut self, queue: usize, nth: usize) -> bool {
        self.card.borrow_mut().complete_out_of_turn(queue, nth)
    }

    fn settle(&mut self) {
        let mut card = self.card.borrow_mut();
        card.now += SETTLE_NS;
        let left = card.transmit();
        self.outbox.extend(left);
    }

    fn clock(&self) -> Box<dyn Fn() -> Instant> {
        let card = Rc::clone(&self.card);
        Box::new(move || {
            let mut card = card.borrow_mut();
            card.now += LOOK_NS;
            Instant(card.now)
        })
    }

    fn memory(&mut self, len: usize) -> BusAddr {
        self.memory.take(len, 1).1
    }

    fn write(&mut self, at: BusAddr, bytes: &[u8]) {
        self.memory.write(at, bytes);
    }
}
