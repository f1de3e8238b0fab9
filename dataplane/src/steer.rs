//! Transmit queues for cores without one of their own: they send through a core that has.
//!
//! A [`RemoteTx`] copies frame descriptors (not frames) into a ring to the owner of the queue; its
//! [`MuxTx`] feeds them to the hardware among the owner's, remembers in order whose each one was,
//! and counts them done when the hardware has. Both are `TxQueue`s: nobody above can tell.
use crate::device::{Fragment, TxChecksum, TxFrame, TxFull, TxQueue};
use crate::spsc::{Consumer, Padded, Producer, ring};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use ix_abi::CoreId;

#[cfg(test)]
mod tests;

/// Frames of one remote core that have completed; written by the queue's owner only.
type Done = Arc<Padded<AtomicU32>>;

/// The far end of a [`RemoteTx`], to be given to the [`MuxTx`] of the queue's owner.
#[derive(Debug)]
pub struct RemoteSource {
    frames: Consumer<TxFrame>,
    done: Done,
    completed: u32,
}

/// A transmit queue that leads to another core's.
pub struct RemoteTx<W = fn(CoreId)> {
    frames: Producer<TxFrame>,
    done: Done,
    reclaimed: u32,
    pushed: bool,
    owner: CoreId,
    wake: W,
}

impl<W> core::fmt::Debug for RemoteTx<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("RemoteTx").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<W: FnMut(CoreId)> RemoteTx<W> {
    /// A queue of `capacity` frames to `owner`, which `wake` wakes if it is halted.
    pub fn new(owner: CoreId, capacity: usize, wake: W) -> (RemoteTx<W>, RemoteSource) {
        let (producer, frames) = ring(capacity);
        let done = Done::default();
        let source = RemoteSource { frames, done: Arc::clone(&done), completed: 0 };
        let tx = RemoteTx { frames: producer, done, reclaimed: 0, pushed: false, owner, wake };
        (tx, source)
    }
}

impl<W: FnMut(CoreId)> TxQueue for RemoteTx<W> {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        if self.frames.is_full() {
            return Err(TxFull);
        }
        self.pushed = true;
        self.frames.push(frame.clone()).map_err(|_| TxFull)
    }

    #[inline]
    fn kick(&mut self) {
        if core::mem::take(&mut self.pushed) {
            (self.wake)(self.owner);
        }
    }

    #[inline]
    fn reclaim(&mut self) -> u32 {
        let done = self.done.0.load(Ordering::Acquire);
        done.wrapping_sub(core::mem::replace(&mut self.reclaimed, done))
    }
}

/// Whose a frame in the hardware queue is: a remote's index, or `OWN`.
type Source = u16;
const OWN: Source = Source::MAX;

/// A hardware queue shared with other cores. The frames of one core keep their order. Where nobody
/// else sends through it, it counts frames and nothing more.
///
/// The owner's loop must call `reclaim` and `kick` in every iteration, also when it has nothing to
/// send: remote frames move only then.
#[derive(Debug)]
pub struct MuxTx<Q> {
    queue: Q,
    remotes: Vec<RemoteSource>,
    /// Frames in the hardware queue.
    under_way: usize,
    capacity: usize,
    /// The sources of the frames in the hardware queue, oldest first, if there are remotes; never grows.
    in_flight: VecDeque<Source>,
    /// The remote that is served next.
    turn: usize,
    /// What the remotes' share of freed room lacks to a whole frame, in parts of a frame.
    fraction: usize,
    unkicked: bool,
}

impl<Q: TxQueue> MuxTx<Q> {
    /// Shares `queue`, of which at most `capacity` frames are used, with `remotes`.
    pub fn new(queue: Q, capacity: usize, remotes: Vec<RemoteSource>) -> MuxTx<Q> {
        assert!(remotes.len() < usize::from(OWN), "{} remote cores", remotes.len());
        let in_flight = VecDeque::with_capacity(if remotes.is_empty() { 0 } else { capacity });
        let (turn, fraction, unkicked) = (0, 0, false);
        MuxTx { queue, remotes, under_way: 0, capacity, in_flight, turn, fraction, unkicked }
    }

    /// The hardware queue.
    pub fn queue(&self) -> &Q {
        &self.queue
    }

    /// The hardware queue, for what is not transmission.
    pub fn queue_mut(&mut self) -> &mut Q {
        &mut self.queue
    }

    /// Lets the owner push a frame by `push`.
    #[inline]
    fn submit(&mut self, push: impl FnOnce(&mut Q) -> Result<(), TxFull>) -> Result<(), TxFull> {
        if self.under_way >= self.capacity {
            return Err(TxFull);
        }
        push(&mut self.queue)?;
        if !self.remotes.is_empty() {
            self.in_flight.push_back(OWN);
        }
        self.under_way += 1;
        self.unkicked = true;
        Ok(())
    }

    /// Counts what has completed for whom; how many of these were the owner's. Of the room that this frees, the remotes
    /// that wait get their share before the owner can push: neither can shut the other out.
    #[inline(never)]
    fn share_out(&mut self, completed: usize) -> usize {
        let mut own = 0;
        for _ in 0..completed {
            match self.in_flight.pop_front() {
                Some(OWN) => own += 1,
                Some(remote) => {
                    let remote = &mut self.remotes[usize::from(remote)];
                    remote.completed = remote.completed.wrapping_add(1);
                }
                None => debug_assert!(false, "as many as are under way"),
            }
        }
        if completed > own {
            for remote in &self.remotes {
                remote.done.0.store(remote.completed, Ordering::Release);
            }
        }
        // The fraction is carried over, so that small batches round in nobody's favour.
        let remotes = self.remotes.len();
        let share = self.fraction + completed * remotes;
        self.fraction = share % (remotes + 1);
        self.drain_remotes(share / (remotes + 1));
        own
    }

    /// Moves at most `budget` remote frames to the hardware, one of each core in turn, until it is
    /// full or none is left.
    #[inline(never)]
    fn drain_remotes(&mut self, budget: usize) {
        let count = self.remotes.len();
        let mut empty = 0;
        let mut left = budget;
        while left > 0 && empty < count && self.under_way < self.capacity {
            let at = self.turn;
            let remote = &mut self.remotes[at];
            let queue = &mut self.queue;
            match remote.frames.peek(|frame| queue.push(frame)) {
                None => empty += 1,
                // The turn stays: this one is next when there is room.
                Some(Err(TxFull)) => return,
                Some(Ok(())) => {
                    remote.frames.pop();
                    self.in_flight.push_back(at as Source);
                    self.under_way += 1;
                    self.unkicked = true;
                    empty = 0;
                    left -= 1;
                }
            }
            self.turn = if at + 1 < count { at + 1 } else { 0 };
        }
    }
}

impl<Q: TxQueue> TxQueue for MuxTx<Q> {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        self.submit(|queue| queue.push(frame))
    }

    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        self.submit(|queue| queue.push_pair(headers, payload, checksum))
    }

    /// What room the owner has left is the remotes'.
    #[inline]
    fn kick(&mut self) {
        if !self.remotes.is_empty() {
            self.drain_remotes(self.capacity);
        }
        if core::mem::take(&mut self.unkicked) {
            self.queue.kick();
        }
    }

    #[inline]
    fn reclaim(&mut self) -> u32 {
        // More than was pushed: the queue breaks its contract.
        let completed = (self.queue.reclaim() as usize).min(self.under_way);
        self.under_way -= completed;
        if self.remotes.is_empty() || completed == 0 {
            return completed as u32;
        }
        self.share_out(completed) as u32
    }
}
