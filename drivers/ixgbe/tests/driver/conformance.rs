//! The contract, by the suite that all drivers pass.
use crate::rig::{Bar, KEY, World, open};
use ix_dataplane::device::BusAddr;
use ix_dataplane::time::Instant;
use ix_driver_conformance::{Bench, Open, Wishes};
use ix_ixgbe::Port;
use ix_model_ixgbe::Options;
use std::rc::Rc;

/// A write-back that is late by up to so much is not seen in a rule's time.
const HELD_NS: u64 = 1_000_000_000_000;
/// Time in which all is done: the link takes a millisecond.
const SETTLE_NS: u64 = 3_000_000;
/// Entry of the MSI-X table for queue 0, see `rig::config`.
const FIRST_VECTOR: usize = 1;

struct Chip {
    world: Rc<World>,
}

fn make(wishes: &Wishes) -> Open<Chip> {
    assert_eq!(KEY, ix_driver_conformance::KEY);
    let world = World::new(Options::default());
    let area = crate::memory::area(&world.memory, 1, wishes.buffers);
    let port = open(&world, area, |config| {
        config.queue_pairs = wishes.pairs;
        config.rx_ring = wishes.rx_ring;
        config.tx_ring = wishes.tx_ring;
        config.mtu = Some(wishes.mtu);
        config.tso = true;
    });
    let Port { rx, tx, mut control, capabilities, .. } = port.expect("the port opens");
    control.wait_for_link(&world.clock()).expect("the link comes up");
    *world.writes.borrow_mut() = Some(Vec::new());
    Open { device: Chip { world }, rx, tx, control, capabilities, area }
}

impl Bench for Chip {
    type Nic = Port<Bar>;

    fn deliver(&mut self, frame: &[u8]) -> bool {
        self.world.receive(frame)
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.world.wire.borrow_mut().sent)
    }

    /// Tails of rings (RDT, TDT): all other registers belong to the port.
    fn doorbells(&mut self) -> u64 {
        let writes = self.world.writes.replace(Some(Vec::new()));
        let is_tail = |at: u32| (0x1018..0x2000).contains(&at) || (0x6018..0x8000).contains(&at);
        let tails = writes.iter().flatten().filter(|(at, _)| is_tail(*at) && at & 0x3f == 0x18);
        tails.count() as u64
    }

    fn interrupts(&mut self) -> Vec<usize> {
        let vectors = std::mem::take(&mut self.world.wire.borrow_mut().interrupts);
        vectors.into_iter().map(|vector| usize::from(vector) - FIRST_VECTOR).collect()
    }

    fn hold(&mut self, on: bool) {
        self.world.chip.borrow_mut().faults.write_back_delay_ns = if on { HELD_NS } else { 0 };
        if !on {
            self.world.advance(HELD_NS);
        }
    }

    fn settle(&mut self) {
        self.world.advance(SETTLE_NS);
    }

    fn clock(&self) -> Box<dyn Fn() -> Instant> {
        Box::new(self.world.clock())
    }

    fn memory(&mut self, len: usize) -> BusAddr {
        self.world.memory.take(len, 1).expect("memory").bus
    }

    fn write(&mut self, at: BusAddr, bytes: &[u8]) {
        self.world.memory.store(at.0, bytes);
    }

    fn audit(&self) {
        crate::rig::assert_clean(&self.world);
    }
}

ix_driver_conformance::conformance!(make, not offered: [
    frames_complete_in_the_order_of_pushes_whatever_order_the_device_has,
]);
