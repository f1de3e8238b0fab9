//! The driver's side: queues, which are handles to the card.
use crate::card::{SharedCard, Slot};
use crate::control::Stopped;
use ix_dataplane::device::{NicRx, NicTx, RxBatch, RxQueue, TxFrame, TxFull, TxQueue};
use ix_dataplane::mbuf::{Area, Pool, Rest};

/// A receive queue.
#[derive(Debug)]
pub struct MemoryRx {
    card: SharedCard,
    queue: usize,
}

/// How many buffers continue a frame.
fn buffers(area: &Area, rest: &Rest) -> usize {
    rest.pieces(area).count()
}

impl MemoryRx {
    pub(crate) fn new(card: SharedCard, queue: usize) -> MemoryRx {
        MemoryRx { card, queue }
    }
}

impl RxQueue for MemoryRx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let mut card = self.card.borrow_mut();
        let area = card.area();
        let ring = &mut card.rx[self.queue];
        let count = max.min(batch.remaining_capacity()).min(ring.filled.len());
        for frame in ring.filled.drain(..count) {
            ring.filled_buffers -= 1 + buffers(area, &frame.rest);
            batch.push(frame);
        }
        count
    }

    fn waiting(&self) -> usize {
        self.card.borrow().rx[self.queue].filled.len()
    }

    fn replenish(&mut self, pool: &mut Pool) {
        let mut card = self.card.borrow_mut();
        let ring = &mut card.rx[self.queue];
        let before = ring.posted.len();
        while ring.posted.len() + ring.filled_buffers < ring.slots {
            let Some(mbuf) = pool.alloc() else { break };
            ring.posted.push_back(mbuf);
        }
        let any = ring.posted.len() > before;
        card.doorbells += u64::from(any);
    }

    fn arm_interrupt(&mut self) -> bool {
        let mut card = self.card.borrow_mut();
        let ring = &mut card.rx[self.queue];
        ring.armed = true;
        !ring.filled.is_empty()
    }

    fn disarm_interrupt(&mut self) {
        self.card.borrow_mut().rx[self.queue].armed = false;
    }

    fn device_errors(&self) -> u64 {
        0
    }
}

impl NicRx for MemoryRx {
    type Stopped = Stopped;

    fn held(&self) -> usize {
        let card = self.card.borrow();
        let ring = &card.rx[self.queue];
        ring.posted.len() + ring.filled_buffers
    }

    /// Never: the card does not lie.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn has_frames(&self) -> bool {
        self.card.borrow().has_received(self.queue)
    }

    fn rewind(&mut self, _stopped: &Stopped, pool: &mut Pool) {
        let mut card = self.card.borrow_mut();
        let ring = &mut card.rx[self.queue];
        ring.posted.drain(..).for_each(|mbuf| pool.free(mbuf));
        for frame in ring.filled.drain(..) {
            pool.free(frame.mbuf);
            frame.rest.free(pool);
        }
        ring.filled_buffers = 0;
        ring.armed = false;
    }

    /// There is nothing to tell: the card sees its rings.
    fn restarted(&mut self) {}
}

/// A transmit queue.
#[derive(Debug)]
pub struct MemoryTx {
    card: SharedCard,
    queue: usize,
}

impl MemoryTx {
    pub(crate) fn new(card: SharedCard, queue: usize) -> MemoryTx {
        MemoryTx { card, queue }
    }
}

impl TxQueue for MemoryTx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let mut card = self.card.borrow_mut();
        let offered = card.capabilities().tx_checksum;
        assert!(offered || frame.checksum.is_none(), "a checksum is asked of a card without");
        let cuts = card.capabilities().tso > 0;
        assert!(cuts || frame.gso.is_none(), "segments are asked of a card that makes none");
        let ring = &mut card.tx[self.queue];
        if ring.frames.len() >= ring.slots {
            return Err(TxFull);
        }
        ring.frames.push_back(Slot::new(frame.clone()));
        Ok(())
    }

    fn kick(&mut self) {
        self.card.borrow_mut().show(self.queue);
    }

    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.card.borrow_mut().tx[self.queue].completed)
    }
}

impl NicTx for MemoryTx {
    type Stopped = Stopped;

    fn in_flight(&self) -> u16 {
        let card = self.card.borrow();
        let ring = &card.tx[self.queue];
        (ring.frames.len() + ring.completed as usize) as u16
    }

    /// Never, as on the receive side.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn rewind(&mut self, _stopped: &Stopped) {
        let mut card = self.card.borrow_mut();
        let ring = &mut card.tx[self.queue];
        ring.completed += ring.frames.len() as u32;
        ring.frames.clear();
        ring.look();
        card.look();
    }

    /// There is nothing to tell: the card sees its rings.
    fn restarted(&mut self) {}
}
