//! The machine's network card: `ix-memory-nic` as a draw makes it, and queues that faults strike.
use super::faults::{self, Kind, Scope};
use super::memory::Bus;
use super::swarm::MachineDraw;
use ix_dataplane::device::{
    BusAddr, Capabilities, Pseudo, RxBatch, RxFrame, RxQueue, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::mbuf::{Area, Mbuf, Pool};
use ix_dataplane::moves::Redirect;
use ix_dataplane::rng::Rng;
use ix_memory_nic::{Card, Config, MemoryRx, MemoryTx};
use std::rc::Rc;

pub use ix_memory_nic::SharedCard;

impl ix_memory_nic::Bus for Bus {
    fn read(&self, from: BusAddr, bytes: &mut [u8]) {
        Bus::read(self, from, bytes);
    }
}

/// The card of a draw, with its queues.
pub fn open(
    draw: &MachineDraw,
    rss_key: &[u8; 40],
    area: &'static Area,
    bus: Rc<Bus>,
    mut rng: Rng,
) -> (SharedCard, Vec<SimRx>, Vec<HwTx>) {
    let capabilities = Capabilities {
        tx_checksum: draw.tx_checksum,
        rx_checksum: draw.rx_checksum,
        rss: draw.queues > 1,
        hash_report: draw.hash_report,
        queue_pairs: draw.queues,
        groups: draw.groups,
        mtu: 1500,
        tso: 0,
        gso_pseudo: Pseudo::WithLength,
    };
    let port = ix_memory_nic::open(Config {
        area,
        bus,
        capabilities,
        rss_key: *rss_key,
        rx_ring: draw.rx_ring,
        tx_ring: draw.tx_ring,
        offset: [0, 10, 12, 64][rng.below(4) as usize],
        tx_delay: draw.tx_delay,
        rng,
    });
    let rx = port.rx.into_iter().map(|queue| SimRx { queue, hoard: Vec::new(), shown: None });
    (port.card, rx.collect(), port.tx.into_iter().map(HwTx).collect())
}

/// Sends frames of a group to a core's queue, if that has one, and they came to the one that asks.
pub fn redirect(card: &mut Card, redirect: &Redirect) {
    let Redirect { group, to, asker, .. } = *redirect;
    if card.queue_of(group.0) == asker.0 && to.0 < card.capabilities().queue_pairs {
        card.steer(group.0, to.0);
    }
}

/// A receive queue of the card.
#[derive(Debug)]
pub struct SimRx {
    queue: MemoryRx,
    /// Buffers out of everybody's reach.
    hoard: Vec<Mbuf>,
    /// A frame that was shown alone and not taken.
    shown: Option<RxFrame>,
}

impl SimRx {
    /// Buffers that a fault keeps from the pool.
    pub fn hoarded(&self) -> usize {
        self.hoard.len()
    }
}

impl RxQueue for SimRx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let _not_the_engine = Scope::simulation();
        if let Some(frame) = self.shown.take() {
            batch.push(frame);
            return 1;
        }
        self.queue.poll(max, batch)
    }

    fn lone(&mut self) -> Option<&RxFrame> {
        let _not_the_engine = Scope::simulation();
        if self.shown.is_none() && self.queue.waiting() == 1 {
            let mut batch = Box::<RxBatch>::default();
            self.queue.poll(1, &mut batch);
            self.shown = batch.pop();
        }
        self.shown.as_ref()
    }

    fn took_lone(&mut self) {
        if let Some(frame) = self.shown.take() {
            let _the_engines = frame.mbuf.into_raw();
        }
    }

    fn waiting(&self) -> usize {
        self.queue.waiting() + usize::from(self.shown.is_some())
    }

    fn replenish(&mut self, pool: &mut Pool) {
        let _not_the_engine = Scope::simulation();
        if faults::strikes(Kind::Refill) {
            // Half of what there is goes somewhere else for a while.
            for _ in 0..pool.available() / 2 {
                self.hoard.extend(pool.alloc());
            }
            return;
        }
        while let Some(mbuf) = self.hoard.pop() {
            pool.free(mbuf);
        }
        self.queue.replenish(pool);
    }

    fn arm_interrupt(&mut self) -> bool {
        self.queue.arm_interrupt()
    }

    fn disarm_interrupt(&mut self) {
        self.queue.disarm_interrupt();
    }

    fn device_errors(&self) -> u64 {
        self.queue.device_errors()
    }
}

/// A transmit queue of the card.
#[derive(Debug)]
pub struct HwTx(MemoryTx);

impl TxQueue for HwTx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let _not_the_engine = Scope::simulation();
        if faults::strikes(Kind::Push) {
            return Err(TxFull);
        }
        self.0.push(frame)
    }

    fn kick(&mut self) {
        let _not_the_engine = Scope::simulation();
        self.0.kick();
    }

    fn reclaim(&mut self) -> u32 {
        let _not_the_engine = Scope::simulation();
        self.0.reclaim()
    }
}
