//! What the driver costs per packet, for callgrind: instructions within the four functions below, so that the model's own
//! work is not counted. The register write of each batch is counted up to where the model begins.
//!
//! ```text
//! target/release/examples/cost ROUNDS CASE
//! ```
//! CASE: `one` (frames of one piece), `sum` (the same with a checksum to be filled in), `two` (of two pieces, with a
//! checksum). "Collected" divided by `64 * ROUNDS` is the figure. `cost.sh` beside this folder does all of it.
#[path = "../tests/driver/frames.rs"]
mod frames;
#[path = "../tests/driver/memory.rs"]
mod memory;
#[path = "../tests/driver/rig.rs"]
mod rig;

use frames::{Flow, frame};
use ix_dataplane::device::{Mmio, RxBatch, RxQueue, TxChecksum, TxFrame, TxQueue};
use ix_dataplane::mbuf::Pool;
use ix_ixgbe::{Config, IxgbeRx, IxgbeTx, Port};
use ix_model_ixgbe::Options;
use rig::{Bar, World};
use std::cell::Cell;
use std::rc::Rc;

const BATCH: usize = 64;

/// BAR 0 whose tail writes are only remembered while the driver is measured: the model runs afterwards.
#[derive(Clone, Debug)]
struct Late {
    bar: Bar,
    late: Rc<Cell<bool>>,
    tail: Rc<Cell<(usize, u32)>>,
    writes: Rc<Cell<u32>>,
}

impl Mmio for Late {
    fn read8(&self, offset: usize) -> u8 {
        self.bar.read8(offset)
    }
    fn read16(&self, offset: usize) -> u16 {
        self.bar.read16(offset)
    }
    fn read32(&self, offset: usize) -> u32 {
        self.bar.read32(offset)
    }
    fn write8(&self, offset: usize, value: u8) {
        self.bar.write8(offset, value);
    }
    fn write16(&self, offset: usize, value: u16) {
        self.bar.write16(offset, value);
    }
    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        if self.late.get() {
            self.tail.set((offset, value));
            self.writes.set(self.writes.get() + 1);
        } else {
            self.bar.write32(offset, value);
        }
    }
}

impl Late {
    /// The model hears of the tail.
    fn catch_up(&self) {
        let (offset, value) = self.tail.get();
        self.bar.write32(offset, value);
    }
}

#[inline(never)]
fn poll(queue: &mut IxgbeRx<Late>, batch: &mut RxBatch) -> usize {
    queue.poll(BATCH, batch)
}

#[inline(never)]
fn replenish(queue: &mut IxgbeRx<Late>, pool: &mut Pool) {
    queue.replenish(pool);
}

#[inline(never)]
fn push_and_kick(queue: &mut IxgbeTx<Late>, frame: &TxFrame) {
    for _ in 0..BATCH {
        queue.push(frame).expect("there is room");
    }
    queue.kick();
}

#[inline(never)]
fn reclaim(queue: &mut IxgbeTx<Late>) -> u32 {
    queue.reclaim()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let case = arguments.next().unwrap_or_else(|| "one".into());
    let (pieces, checksum) = match case.as_str() {
        "one" => (&[60][..], false),
        "sum" => (&[60][..], true),
        "two" => (&[54, 600][..], true),
        _ => panic!("no such case: {case}"),
    };
    let world = World::new(Options::default());
    let area = memory::area(&world.memory, 1, 1024);
    let clock = world.clock();
    let config = Config { queue_pairs: 1, ..rig::config(area, &clock) };
    let mut dma = memory::TestDma { memory: world.memory.clone(), allocations_left: usize::MAX };
    let bar = Late {
        bar: Bar(world.clone()),
        late: Rc::default(),
        tail: Rc::default(),
        writes: Rc::default(),
    };
    let mut port = Port::open(bar.clone(), &mut dma, &config).expect("the port opens");
    port.control.wait_for_link(&clock).expect("the link comes up");
    let mut pool = Pool::new(area, ix_abi::CoreId(0));
    let mut sent = TxFrame::default();
    for len in pieces {
        let region = world.memory.take(*len, 64).unwrap();
        let len = *len as u32;
        sent.fragments.push(ix_dataplane::device::Fragment { bus: region.bus, len });
    }
    sent.checksum = checksum.then_some(TxChecksum { start: 34, offset: 16 });
    let received = frame(Flow::tcp(4000), &[1; 6]);
    let mut batch = RxBatch::new();
    bar.late.set(true);
    for _ in 0..rounds {
        replenish(&mut port.rx[0], &mut pool);
        bar.catch_up();
        (0..BATCH).for_each(|_| assert!(world.receive(&received)));
        assert_eq!(poll(&mut port.rx[0], &mut batch), BATCH);
        for frame in batch.drain(..) {
            pool.free(frame.mbuf);
        }
        push_and_kick(&mut port.tx[0], &sent);
        bar.catch_up();
        assert_eq!(reclaim(&mut port.tx[0]), BATCH as u32);
        world.wire.borrow_mut().sent.clear();
    }
    println!(
        "register writes per batch and direction: {}",
        f64::from(bar.writes.get()) / (2 * rounds) as f64
    );
}
