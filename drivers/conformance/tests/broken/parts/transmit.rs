//! A transmit queue with its defects.
use super::Proof;
use crate::bench::Shared;
use crate::defect::Defect::*;
use ix_dataplane::device::{Fragment, Gso, NicTx, TxChecksum, TxFrame, TxFull, TxQueue};
use ix_memory_nic::MemoryTx;
use std::rc::Rc;

/// An index of 16 bits goes round.
const WRAP: u32 = 1 << 16;
/// Where UDP has its sum.
const UDP_FIELD: u16 = 6;

pub struct BrokenTx {
    inner: MemoryTx,
    queue: usize,
    shared: Rc<Shared>,
    pushed: u32,
    kicked: u32,
    /// As the card says, and as was said.
    completed: u32,
    told: u32,
    /// To be said beside.
    owed: u32,
    again: u32,
    stash: Option<TxFrame>,
    piece: Option<Fragment>,
    sum: Option<TxChecksum>,
}

impl BrokenTx {
    pub fn new(inner: MemoryTx, queue: usize, shared: Rc<Shared>) -> BrokenTx {
        BrokenTx {
            inner,
            queue,
            shared,
            pushed: 0,
            kicked: 0,
            completed: 0,
            told: 0,
            owed: 0,
            again: 0,
            stash: None,
            piece: None,
            sum: None,
        }
    }

    fn spoiled(&mut self, frame: &TxFrame) -> TxFrame {
        let mut frame = frame.clone();
        match self.shared.defect {
            Some(SumsTcpOnly) => {
                frame.checksum = frame.checksum.filter(|sum| sum.offset != UDP_FIELD);
            }
            Some(KeepsTheLastSum) => {
                self.sum = frame.checksum.or(self.sum);
                frame.checksum = self.sum;
            }
            Some(SegmentsOfAnotherSize) => {
                frame.gso = frame.gso.map(|gso| Gso { size: gso.size + 1, ..gso });
            }
            Some(MakesNoSegments) => frame.gso = frame.gso.filter(|gso| gso.ipv6),
            Some(LosesThe17thPiece) => frame.fragments.truncate(16),
            Some(CutsAt1024) => frame.truncate(1024),
            Some(FullRingLeavesAPiece) => {
                if let Some(piece) = self.piece.take().filter(|_| !frame.fragments.is_full()) {
                    frame.fragments.insert(0, piece);
                }
            }
            _ => {}
        }
        frame
    }

    /// The frame takes the place of the one before it, which follows.
    fn push_swapped(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let Some(before) = self.stash.take() else {
            self.stash = Some(frame.clone());
            return Ok(());
        };
        if self.inner.push(frame).is_err() {
            self.stash = Some(before);
            return Err(TxFull);
        }
        if self.inner.push(&before).is_err() {
            self.stash = Some(before);
        }
        Ok(())
    }
}

impl TxQueue for BrokenTx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.shared.has(SwapsFrames) {
            return self.push_swapped(frame);
        }
        if self.shared.has(PushLosesItsWrap) && self.pushed == WRAP {
            self.pushed += 1;
            self.owed += 1;
            return Ok(());
        }
        let spoiled = self.spoiled(frame);
        let result = self.inner.push(&spoiled);
        if result.is_err() {
            self.piece = frame.fragments.first().copied();
            if self.shared.has(OverwritesAFullRing) {
                self.owed += 1;
                return Ok(());
            }
            return result;
        }
        self.pushed += 1;
        let by_16 = self.shared.has(ShowsBy16) && self.pushed.is_multiple_of(16);
        if by_16 || self.shared.has(ShowsAtPush) {
            self.inner.kick();
        }
        if self.shared.has(RingsAtEachPush) {
            self.shared.ring();
        }
        Ok(())
    }

    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        let mut frame = TxFrame { checksum, ..TxFrame::default() };
        frame.fragments.extend([headers, payload]);
        if self.shared.has(PairWithoutSum) {
            frame.checksum = None;
        }
        let result = self.push(&frame);
        if self.shared.has(PairIgnoresAFullRing) { Ok(()) } else { result }
    }

    fn kick(&mut self) {
        if let Some(frame) = self.stash.take()
            && self.inner.push(&frame).is_err()
        {
            self.stash = Some(frame);
        }
        let news = std::mem::replace(&mut self.kicked, self.pushed) != self.pushed;
        if news && self.shared.has(RingsTwiceForFrames) || self.shared.has(RingsForNoFrames) {
            self.shared.ring();
        }
        if self.shared.has(ForgetsToTell) && self.shared.stopped.get() {
            return;
        }
        self.inner.kick();
    }

    fn reclaim(&mut self) -> u32 {
        let now = self.inner.reclaim();
        self.completed += now;
        let owed = std::mem::take(&mut self.owed);
        let done = match self.shared.defect {
            Some(CompleteAtKick) => self.kicked,
            Some(CompletesInAnyOrder) => self.completed.max(self.shared.early.borrow()[self.queue]),
            Some(CompletesTwice) => return now + std::mem::replace(&mut self.again, now),
            _ => return now + owed,
        };
        done - std::mem::replace(&mut self.told, done)
    }
}

impl NicTx for BrokenTx {
    type Stopped = Proof;

    fn in_flight(&self) -> u16 {
        self.inner.in_flight() + u16::from(self.stash.is_some())
    }

    fn is_quarantined(&self) -> bool {
        false
    }

    fn rewind(&mut self, stopped: &Proof) {
        let in_flight = u32::from(self.inner.in_flight());
        stopped.with(&self.shared, |proof| self.inner.rewind(proof));
        if self.shared.has(RewindForgetsFrames) {
            self.inner.reclaim();
        }
        if self.shared.has(RewindOwesTwice) {
            self.owed += in_flight;
        }
    }

    fn restarted(&mut self) {
        self.inner.restarted();
    }
}
