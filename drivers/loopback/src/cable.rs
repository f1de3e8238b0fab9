//! What queues share: the port's state and table, the lanes between transmit and receive queues, and the word of who is at work.
use crate::rx::Filled;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use ix_dataplane::limits::FRAME_BUFFERS_MAX;
use ix_dataplane::mbuf::Area;
use ix_dataplane::spsc::{Consumer, Padded, Producer, ring};

/// A buffer that was posted: its number, and in which life of the port. After a reset it is the receive queue's again, and
/// whoever finds the number in a lane passes it over.
#[derive(Clone, Copy, Debug)]
pub struct Posted {
    pub buffer: u32,
    pub life: u32,
}

/// A lane's end at the transmit queue.
#[derive(Debug)]
pub struct TxLane {
    posted: Consumer<Posted>,
    filled: Producer<Filled>,
    /// Taken out of `posted` and not used yet, oldest first.
    spare: ArrayVec<u32, FRAME_BUFFERS_MAX>,
    /// Of `spare`.
    life: u32,
}

impl TxLane {
    /// The oldest `count` buffers that are posted, if there are so many; they are used by [`TxLane::fill`].
    pub fn buffers(&mut self, count: usize, life: u32) -> Option<&[u32]> {
        if self.life != life {
            self.life = life;
            self.spare.clear();
        }
        while self.spare.len() < count {
            let posted = self.posted.pop()?;
            if posted.life == life {
                self.spare.try_push(posted.buffer).ok()?;
            }
        }
        self.spare.get(..count)
    }

    /// Hands over a frame in the oldest buffers.
    pub fn fill(&mut self, filled: Filled) {
        let count = usize::from(filled.buffers).min(self.spare.len());
        // There is room for as many frames as for buffers.
        if self.filled.push(filled).is_ok() {
            self.spare.drain(..count);
        }
    }
}

/// A lane's end at the receive queue.
#[derive(Debug)]
pub struct RxLane {
    pub posted: Producer<Posted>,
    pub filled: Consumer<Filled>,
    /// The buffers that the device has, in the order of posting, which is the order of use.
    pub shadow: VecDeque<u32>,
    /// How many those may be.
    pub share: usize,
}

/// A lane for `share` buffers.
pub fn lane(share: usize) -> (TxLane, RxLane) {
    // What is left of a life, and what is posted in the next before the other end has passed that over.
    let (posted, taken) = ring(2 * share);
    let (filled, polled) = ring(share);
    let tx = TxLane { posted: taken, filled, spare: ArrayVec::new(), life: 0 };
    let shadow = VecDeque::with_capacity(share);
    (tx, RxLane { posted, filled: polled, shadow, share })
}

/// A transmit queue's word of whether it is at work. Written by its core only.
#[derive(Debug, Default)]
pub struct Turn(Padded<Counts>);

#[derive(Debug, Default)]
struct Counts {
    begun: AtomicU32,
    ended: AtomicU32,
    missed: AtomicU64,
}

impl Turn {
    /// It begins to send: what it reads of the port's state after this, it may rely on until [`Turn::end`].
    #[inline]
    pub fn begin(&self) {
        let begun = &self.0.0.begun;
        begun.store(begun.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        // What follows is read after this was stored, as far as the compiler goes; the processor may read first, so that
        // whoever waits for turns to end lets the store become visible before (`Host::settle`).
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }

    /// What it has sent is all there.
    #[inline]
    pub fn end(&self) {
        let Counts { begun, ended, .. } = &self.0.0;
        ended.store(begun.load(Ordering::Relaxed), Ordering::Release);
    }

    /// How often it has begun.
    pub fn begun(&self) -> u32 {
        self.0.0.begun.load(Ordering::Acquire)
    }

    /// Whether turn number `begun` and all before it have ended.
    pub fn has_ended(&self, begun: u32) -> bool {
        self.0.0.ended.load(Ordering::Acquire).wrapping_sub(begun) as i32 >= 0
    }

    /// A frame found no buffer.
    pub fn miss(&self) {
        let missed = &self.0.0.missed;
        missed.store(missed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }

    /// Frames that found no buffer.
    pub fn missed(&self) -> u64 {
        self.0.0.missed.load(Ordering::Relaxed)
    }
}

/// What all queues of a port and those that send to it read.
pub struct Shared {
    /// Where its receive buffers are.
    pub area: &'static Area,
    /// Largest IP packet.
    pub mtu: u16,
    /// The number of the port's life, times two; and one if it runs.
    state: Padded<AtomicU32>,
    reta: Box<[AtomicU16]>,
    armed: Box<[Padded<AtomicBool>]>,
}

impl core::fmt::Debug for Shared {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Shared").field("state", &self.state).finish_non_exhaustive()
    }
}

/// What a port is at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// How often it was stopped.
    pub life: u32,
    pub runs: bool,
}

impl Shared {
    pub fn new(area: &'static Area, pairs: u16, groups: u16, mtu: u16) -> Shared {
        Shared {
            area,
            mtu,
            state: Padded(AtomicU32::new(1)),
            reta: (0..groups).map(|group| AtomicU16::new(group % pairs)).collect(),
            armed: (0..pairs).map(|_| Padded::default()).collect(),
        }
    }

    pub fn pairs(&self) -> u16 {
        self.armed.len() as u16
    }

    pub fn groups(&self) -> u16 {
        self.reta.len() as u16
    }

    #[inline]
    pub fn state(&self) -> State {
        let word = self.state.0.load(Ordering::Acquire);
        State { life: word >> 1, runs: word & 1 != 0 }
    }

    /// The control part alone.
    pub fn set_state(&self, state: State) {
        let word = state.life << 1 | u32::from(state.runs);
        self.state.0.store(word, Ordering::Release);
    }

    /// The queue of a group that exists.
    #[inline]
    pub fn queue_of(&self, group: u16) -> u16 {
        self.reta.get(usize::from(group)).map_or(0, |queue| queue.load(Ordering::Relaxed))
    }

    /// The control part alone.
    pub fn set_table(&self, table: &[u16]) {
        for (entry, queue) in self.reta.iter().zip(table) {
            entry.store(*queue, Ordering::Relaxed);
        }
    }

    /// The core of the queue alone.
    pub fn set_armed(&self, queue: u16, armed: bool) {
        if let Some(word) = self.armed.get(usize::from(queue)) {
            word.0.store(armed, Ordering::Release);
        }
    }

    #[inline]
    pub fn is_armed(&self, queue: u16) -> bool {
        self.armed.get(usize::from(queue)).is_some_and(|word| word.0.load(Ordering::Acquire))
    }
}
