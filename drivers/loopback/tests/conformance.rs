//! The card keeps the contract: at the other end of a cable, where what leaves can be seen and what comes can be said.
use ix_abi::CoreId;
use ix_dataplane::device::{BusAddr, Fragment, RxBatch, RxQueue, TxFrame, TxQueue};
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::time::Instant;
use ix_driver_conformance::in_memory::Memory;
use ix_driver_conformance::{Bench, KEY, Open, Wishes};
use ix_loopback::{Config, Host, LoopbackRx, LoopbackTx, Port, crossed};
use ix_memory_nic::Bus as _;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// Memory for frames, of which nothing is given back.
const FRAMES_BYTES: usize = 32 << 20;
/// Buffers of the cable's other end, for all that leaves between two looks.
const END_BUFFERS: u32 = 8192;
const LOOK_NS: u64 = 1_000;

/// What is seen of the machine.
#[derive(Default)]
struct Seen {
    doorbells: Cell<u64>,
    interrupts: RefCell<Vec<usize>>,
    holds: Cell<bool>,
    now: Cell<u64>,
    /// Turns of senders.
    stamp: Cell<u64>,
}

#[derive(Clone)]
struct Machine {
    memory: Rc<Memory>,
    seen: Rc<Seen>,
    /// It is the end under test.
    tested: bool,
}

impl Host for Machine {
    fn read(&self, from: BusAddr, to: &mut [u8]) -> bool {
        self.memory.read(from, to);
        true
    }

    fn interrupt(&self, queue: u16) {
        self.seen.interrupts.borrow_mut().push(usize::from(queue));
    }

    fn now(&self) -> u64 {
        self.seen.stamp.set(self.seen.stamp.get() + 1);
        self.seen.stamp.get()
    }

    fn settle(&self) {}

    fn rang(&self) {
        if self.tested {
            self.seen.doorbells.set(self.seen.doorbells.get() + 1);
        }
    }

    fn completes(&self) -> bool {
        !(self.tested && self.seen.holds.get())
    }
}

/// The cable and its other end.
struct Cable {
    machine: Machine,
    rx: LoopbackRx<Machine>,
    tx: LoopbackTx<Machine>,
    area: &'static Area,
    pool: Pool,
    scratch: BusAddr,
    outbox: Vec<Vec<u8>>,
}

fn open(wishes: &Wishes) -> Open<Cable> {
    let bytes = Memory::bytes_of(wishes.buffers) + Memory::bytes_of(END_BUFFERS) + FRAMES_BYTES;
    let memory = Memory::new(bytes);
    let (area, end_area) = (memory.area(1, wishes.buffers), memory.area(1, END_BUFFERS));
    let scratch = memory.take(1 << 16, 64).1;
    let machine = Machine { memory, seen: Rc::default(), tested: true };
    let config = Config {
        host: machine.clone(),
        area,
        queue_pairs: wishes.pairs,
        rx_ring: wishes.rx_ring,
        tx_ring: wishes.tx_ring,
        rss_key: KEY,
        mtu: Some(wishes.mtu),
    };
    let end = Config {
        host: Machine { tested: false, ..machine.clone() },
        area: end_area,
        queue_pairs: 1,
        rx_ring: END_BUFFERS as u16,
        tx_ring: 1,
        rss_key: KEY,
        mtu: Some(u16::MAX),
    };
    let (port, mut end) = crossed(&config, &end);
    let (rx, tx) = (end.rx.remove(0), end.tx.remove(0));
    let pool = Pool::new(end_area, CoreId(0));
    let mut device = Cable { machine, rx, tx, area: end_area, pool, scratch, outbox: Vec::new() };
    device.rx.replenish(&mut device.pool);
    let Port { rx, tx, control, capabilities } = port;
    Open { device, rx, tx, control, capabilities, area }
}

impl Cable {
    fn listen(&mut self) {
        loop {
            let mut batch = RxBatch::new();
            let count = self.rx.poll(64, &mut batch);
            for frame in batch {
                let start = usize::from(frame.offset);
                let first = &self.area.data(&frame.mbuf)[start..start + usize::from(frame.len)];
                let mut bytes = first.to_vec();
                frame.rest.pieces(self.area).for_each(|piece| bytes.extend(piece));
                self.outbox.push(bytes);
                self.pool.free(frame.mbuf);
                frame.rest.free(&mut self.pool);
            }
            self.rx.replenish(&mut self.pool);
            if count == 0 {
                return;
            }
        }
    }
}

impl Bench for Cable {
    type Nic = Port<Machine>;

    fn deliver(&mut self, bytes: &[u8]) -> bool {
        let mut frame = TxFrame::default();
        self.machine.memory.write(self.scratch, bytes);
        frame.fragments.push(Fragment { bus: self.scratch, len: bytes.len() as u32 });
        let lost = self.tx.lost();
        self.tx.push(&frame).expect("the last one has left");
        self.tx.kick();
        assert_eq!(self.tx.reclaim(), 1);
        self.tx.lost() == lost
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        self.listen();
        std::mem::take(&mut self.outbox)
    }

    fn doorbells(&mut self) -> u64 {
        self.machine.seen.doorbells.take()
    }

    fn interrupts(&mut self) -> Vec<usize> {
        self.machine.seen.interrupts.take()
    }

    fn hold(&mut self, on: bool) {
        self.machine.seen.holds.set(on);
    }

    fn settle(&mut self) {
        self.listen();
    }

    fn clock(&self) -> Box<dyn Fn() -> Instant> {
        let seen = Rc::clone(&self.machine.seen);
        Box::new(move || {
            seen.now.set(seen.now.get() + LOOK_NS);
            Instant(seen.now.get())
        })
    }

    fn memory(&mut self, len: usize) -> BusAddr {
        self.machine.memory.take(len, 1).1
    }

    fn write(&mut self, at: BusAddr, bytes: &[u8]) {
        self.machine.memory.write(at, bytes);
    }
}

ix_driver_conformance::conformance!(open, not offered: [
    frames_complete_in_the_order_of_pushes_whatever_order_the_device_has,
]);
