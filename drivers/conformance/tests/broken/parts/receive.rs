//! A receive queue with its defects.
use super::Proof;
use crate::bench::Shared;
use crate::defect::Defect::*;
use ix_dataplane::device::{NicRx, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::mbuf::{Pool, RestBuilder};
use ix_memory_nic::MemoryRx;
use std::rc::Rc;

/// An index of 16 bits goes round.
const WRAP: u32 = 1 << 16;

pub struct BrokenRx {
    inner: MemoryRx,
    shared: Rc<Shared>,
    polled: u32,
    replenished: u32,
    /// At the last poll.
    waiting: usize,
    armed: bool,
    was_empty: bool,
}

impl BrokenRx {
    pub fn new(inner: MemoryRx, shared: Rc<Shared>) -> BrokenRx {
        let (polled, replenished, waiting) = (0, 0, 0);
        let (armed, was_empty) = (false, false);
        BrokenRx { inner, shared, polled, replenished, waiting, armed, was_empty }
    }

    fn spoil(&self, frame: &mut RxFrame) {
        let area = self.shared.area;
        match self.shared.defect {
            Some(CutsLongFrames) => frame.len = frame.len.min(1500),
            Some(LosesTheRest) => {
                let _lost = frame.rest.take();
            }
            Some(SwapsTheRest) => {
                let mut rest = frame.rest.take();
                let mut parts: Vec<_> = std::iter::from_fn(|| rest.pop(area)).collect();
                parts.reverse();
                let mut swapped = RestBuilder::new();
                for (mbuf, offset, len) in parts {
                    swapped.push(area, mbuf, offset, len);
                }
                frame.rest = swapped.finish();
            }
            Some(VouchesForAll) => frame.checksum = RxChecksum::Good,
            Some(VouchesForIpOnly) => {
                let start = usize::from(frame.offset);
                let header = &area.data(&frame.mbuf)[start + 14..start + 34];
                if ix_driver_conformance::frames::sum(header, 0) == 0xffff {
                    frame.checksum = RxChecksum::Good;
                }
            }
            Some(NeverVouches) => frame.checksum = RxChecksum::Unknown,
            Some(HashOfOtherOrder) => frame.hash = frame.hash.map(u32::swap_bytes),
            Some(HashForAll) => frame.hash = frame.hash.or(Some(0)),
            _ => {}
        }
    }
}

impl RxQueue for BrokenRx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        self.waiting = self.inner.waiting();
        let before = batch.len();
        if self.shared.has(IgnoresTheBatchsRoom) {
            let mut all = RxBatch::new();
            let count = self.inner.poll(max, &mut all);
            all.into_iter().for_each(|frame| drop(batch.try_push(frame)));
            return count;
        }
        let max = max + usize::from(self.shared.has(PollsOneTooMany));
        self.inner.poll(max, batch);
        for at in (before..batch.len()).rev() {
            self.spoil(&mut batch[at]);
            self.polled += 1;
            if self.shared.has(PollLosesItsWrap) && self.polled == WRAP {
                let _lost = batch.remove(at);
            }
        }
        if self.shared.has(ReversesABatch) {
            batch[before..].reverse();
        }
        batch.len() - before
    }

    fn waiting(&self) -> usize {
        if self.shared.has(WaitingIsStale) { self.waiting } else { self.inner.waiting() }
    }

    fn replenish(&mut self, pool: &mut Pool) {
        self.replenished += 1;
        self.was_empty |= self.replenished > 1 && self.inner.held() == 0;
        let refuses = self.shared.has(WantsAFullPool) && pool.available() < 32
            || self.shared.has(PostsNoMoreOnceEmpty) && self.was_empty;
        if refuses {
            return;
        }
        let loses = self.shared.has(LosesABuffer) && self.replenished.is_multiple_of(1000)
            || self.shared.has(LosesBuffersRarely) && self.armed;
        if loses {
            let _lost = pool.alloc();
        }
        let before = self.inner.held();
        self.inner.replenish(pool);
        let posted = self.inner.held() > before;
        if posted && self.shared.has(RingsTwiceForBuffers) || self.shared.has(RingsForNoBuffers) {
            self.shared.ring();
        }
    }

    fn arm_interrupt(&mut self) -> bool {
        self.armed = true;
        let frames = self.inner.has_frames();
        if !self.shared.has(ArmsNothing) {
            self.inner.arm_interrupt();
        }
        match self.shared.defect {
            Some(ArmSaysAlwaysNo) => false,
            Some(ArmSaysAlwaysYes) => true,
            _ => frames,
        }
    }

    fn disarm_interrupt(&mut self) {
        self.armed = false;
        if !self.shared.has(NeverDisarms) {
            self.inner.disarm_interrupt();
        }
    }

    fn device_errors(&self) -> u64 {
        if self.shared.has(AccusesTheDevice) { u64::from(self.polled) } else { 0 }
    }
}

impl NicRx for BrokenRx {
    type Stopped = Proof;

    fn held(&self) -> usize {
        self.inner.held()
    }

    fn is_quarantined(&self) -> bool {
        false
    }

    fn has_frames(&self) -> bool {
        let forgets = self.shared.has(ForgetsFramesAtAStop) && self.shared.stopped.get();
        self.inner.has_frames() && !forgets
    }

    fn rewind(&mut self, stopped: &Proof, pool: &mut Pool) {
        stopped.with(&self.shared, |proof| self.inner.rewind(proof, pool));
        if self.shared.has(RewindKeepsABuffer) {
            let _kept = pool.alloc();
        }
    }

    fn restarted(&mut self) {
        self.inner.restarted();
    }
}
