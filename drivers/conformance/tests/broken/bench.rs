//! The in-memory NIC behind parts that are broken.
use crate::defect::Defect;
use crate::parts::{BrokenControl, BrokenRx, BrokenTx, Proof};
use ix_dataplane::device::{BusAddr, Nic, NicControl};
use ix_dataplane::mbuf::Area;
use ix_dataplane::time::Instant;
use ix_driver_conformance::in_memory::InMemory;
use ix_driver_conformance::{Bench, Open, Wishes};
use ix_memory_nic::{MemoryControl, SharedCard};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What the parts share.
pub struct Shared {
    pub defect: Option<Defect>,
    pub card: SharedCard,
    pub area: &'static Area,
    pub control: RefCell<MemoryControl>,
    /// Doorbells too many.
    pub bells: Cell<u64>,
    /// The port was stopped, and not started since.
    pub stopped: Cell<bool>,
    /// By queue: frames completed whatever their turn.
    pub early: RefCell<Vec<u32>>,
}

impl Shared {
    pub fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub fn ring(&self) {
        self.bells.set(self.bells.get() + 1);
    }
}

pub struct BrokenNic;

impl Nic for BrokenNic {
    type Stopped = Proof;
    type Rx = BrokenRx;
    type Tx = BrokenTx;
    type Control = BrokenControl;
}

pub struct Broken {
    inner: InMemory,
    shared: Rc<Shared>,
}

impl Broken {
    pub fn open(wishes: &Wishes, defect: Option<Defect>) -> Open<Broken> {
        let Open { device, rx, tx, control, capabilities, area } = InMemory::open(wishes);
        let table = control.reta().to_vec();
        let shared = Rc::new(Shared {
            defect,
            card: Rc::clone(&device.card),
            area,
            control: RefCell::new(control),
            bells: Cell::new(0),
            stopped: Cell::new(false),
            early: RefCell::new(vec![0; rx.len()]),
        });
        if shared.has(Defect::TableStartsOtherwise) {
            let mut card = shared.card.borrow_mut();
            for (group, queue) in (0..).zip(&table) {
                card.steer(group, (queue + 1) % capabilities.queue_pairs);
            }
        }
        let rx = rx.into_iter().map(|queue| BrokenRx::new(queue, Rc::clone(&shared)));
        let tx = (0..).zip(tx).map(|(n, queue)| BrokenTx::new(queue, n, Rc::clone(&shared)));
        Open {
            rx: rx.collect(),
            tx: tx.collect(),
            control: BrokenControl::new(table, Rc::clone(&shared)),
            device: Broken { inner: device, shared },
            capabilities,
            area,
        }
    }
}

impl Bench for Broken {
    type Nic = BrokenNic;

    fn deliver(&mut self, frame: &[u8]) -> bool {
        self.inner.deliver(frame)
    }

    fn sent(&mut self) -> Vec<Vec<u8>> {
        self.inner.sent()
    }

    fn doorbells(&mut self) -> u64 {
        self.inner.doorbells() + self.shared.bells.take()
    }

    fn interrupts(&mut self) -> Vec<usize> {
        let mut woken = self.inner.interrupts();
        if self.shared.has(Defect::ArmsAllQueues) {
            woken.extend(woken.clone().first().map(|queue| queue ^ 1));
        }
        woken
    }

    fn hold(&mut self, on: bool) {
        self.inner.hold(on);
    }

    fn complete_out_of_turn(&mut self, queue: usize, nth: usize) -> bool {
        self.shared.early.borrow_mut()[queue] += 1;
        self.inner.complete_out_of_turn(queue, nth)
    }

    fn settle(&mut self) {
        self.inner.settle();
    }

    fn clock(&self) -> Box<dyn Fn() -> Instant> {
        self.inner.clock()
    }

    fn memory(&mut self, len: usize) -> BusAddr {
        self.inner.memory(len)
    }

    fn write(&mut self, at: BusAddr, bytes: &[u8]) {
        self.inner.write(at, bytes);
    }
}
