//! A receive queue: buffers go out by its lanes, and come back with frames in them, which are polled in the order of their sending.
use crate::cable::{Posted, RxLane, Shared};
use crate::control::Stopped;
use crate::{Host, OFFSET};
use alloc::sync::Arc;
use alloc::vec::Vec;
use ix_dataplane::device::{NicRx, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::mbuf::{Mbuf, Pool, Rest};

/// A frame that the device has written into the oldest buffers of a lane.
#[derive(Debug)]
pub struct Filled {
    /// When it was sent.
    pub stamp: u64,
    pub first: u32,
    pub len: u16,
    /// How many there are.
    pub buffers: u8,
    pub rest: Rest,
    pub checksum: RxChecksum,
    pub hash: Option<u32>,
}

/// A receive queue.
pub struct LoopbackRx<H> {
    host: H,
    shared: Arc<Shared>,
    queue: u16,
    lanes: Vec<RxLane>,
    /// The lane that gets buffers first.
    turn: usize,
    /// By lane, while it is polled: when its oldest frame was sent, and how many are to be taken.
    heads: Vec<(u64, u32)>,
    life: u32,
}

impl<H> core::fmt::Debug for LoopbackRx<H> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LoopbackRx").field("queue", &self.queue).finish_non_exhaustive()
    }
}

impl<H: Host> LoopbackRx<H> {
    pub(crate) fn new(host: H, shared: Arc<Shared>, queue: u16, lanes: Vec<RxLane>) -> Self {
        let heads = Vec::with_capacity(lanes.len());
        LoopbackRx { host, shared, queue, lanes, turn: 0, heads, life: 0 }
    }

    /// The lanes, each once, from the one whose turn it is.
    fn by_turns(&mut self) -> impl Iterator<Item = &mut RxLane> {
        let (before, from) = self.lanes.split_at_mut(self.turn);
        self.turn = if from.len() > 1 { self.turn + 1 } else { 0 };
        from.iter_mut().chain(before)
    }
}

impl<H: Host> LoopbackRx<H> {
    /// Takes frames of all lanes in the order of their sending. Of two frames one of which was sent because of the other (a
    /// flow's sender moves to another core, and another lane), the first one comes first: what is taken is what a first look
    /// at all lanes has found, and whatever is older by a second look, at which everything is there that came before any of that.
    fn merge(&mut self, most: usize, batch: &mut RxBatch) -> usize {
        let Self { lanes, heads, .. } = self;
        heads.clear();
        heads.extend(lanes.iter().map(|lane| (NONE, lane.filled.available() as u32)));
        let mut left: u32 = heads.iter().map(|(_, found)| found).sum();
        for ((stamp, _), lane) in heads.iter_mut().zip(lanes.iter_mut()) {
            *stamp = head(lane);
        }
        let mut count = 0;
        while left > 0 && count < most {
            let Some((at, (stamp, found))) =
                heads.iter_mut().enumerate().min_by_key(|(_, (stamp, _))| *stamp)
            else {
                break;
            };
            let Some(frame) = take(&mut lanes[at]) else { break };
            batch.push(frame);
            count += 1;
            *stamp = head(&mut lanes[at]);
            if *found > 0 {
                *found -= 1;
                left -= 1;
            }
        }
        count
    }
}

/// No frame: later than all.
const NONE: u64 = u64::MAX;

/// When a lane's oldest frame was sent.
#[inline]
fn head(lane: &mut RxLane) -> u64 {
    lane.filled.peek(|filled| filled.stamp).unwrap_or(NONE)
}

/// The oldest frame of a lane.
#[inline]
fn take(lane: &mut RxLane) -> Option<RxFrame> {
    let Filled { first, len, buffers, rest, checksum, hash, stamp: _ } = lane.filled.pop()?;
    lane.shadow.drain(..usize::from(buffers).min(lane.shadow.len()));
    let mbuf = Mbuf::from_raw(first);
    Some(RxFrame { mbuf, offset: OFFSET as u16, len, rest, merged: 0, checksum, hash })
}

impl<H: Host> RxQueue for LoopbackRx<H> {
    #[inline]
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let most = max.min(batch.remaining_capacity());
        let there = self.waiting();
        if there == 0 || most == 0 {
            return 0;
        }
        self.merge(most, batch)
    }

    fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.filled.available()).sum()
    }

    #[inline]
    fn replenish(&mut self, pool: &mut Pool) {
        let life = self.life;
        let mut any = false;
        for lane in self.by_turns() {
            while lane.shadow.len() < lane.share && !lane.posted.is_full() {
                let Some(mbuf) = pool.alloc() else { break };
                let buffer = mbuf.into_raw();
                // There is room, as just seen.
                let _posted = lane.posted.push(Posted { buffer, life });
                lane.shadow.push_back(buffer);
                any = true;
            }
        }
        if any {
            self.host.rang();
        }
    }

    /// Waits for a microsecond, until whoever sends sees it: who did not has sent what is seen now.
    fn arm_interrupt(&mut self) -> bool {
        self.shared.set_armed(self.queue, true);
        self.host.settle();
        self.has_frames()
    }

    fn disarm_interrupt(&mut self) {
        self.shared.set_armed(self.queue, false);
    }

    fn device_errors(&self) -> u64 {
        0
    }
}

impl<H: Host> NicRx for LoopbackRx<H> {
    type Stopped = Stopped;

    fn held(&self) -> usize {
        self.lanes.iter().map(|lane| lane.shadow.len()).sum()
    }

    /// Never: driver and device are one.
    fn is_quarantined(&self) -> bool {
        false
    }

    fn has_frames(&self) -> bool {
        self.waiting() > 0
    }

    fn rewind(&mut self, _stopped: &Stopped, pool: &mut Pool) {
        for lane in &mut self.lanes {
            while let Some(frame) = take(lane) {
                pool.free(frame.mbuf);
                frame.rest.free(pool);
            }
            // The numbers are still in the lane, of a life that is over.
            lane.shadow.drain(..).for_each(|buffer| pool.free(Mbuf::from_raw(buffer)));
        }
        self.life = self.shared.state().life;
        self.disarm_interrupt();
    }

    /// There is nothing to tell: whoever sends finds what is posted.
    fn restarted(&mut self) {}
}
