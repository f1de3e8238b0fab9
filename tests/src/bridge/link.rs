//! The way from one machine to the switch: what befalls each frame, by seed.
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

/// What links do.
#[derive(Clone, Copy, Debug)]
pub struct Impairment {
    /// Decides about each frame.
    pub seed: u64,
    /// How long each frame takes.
    pub delay: Duration,
    /// Frames in a thousand that are dropped.
    pub loss_permille: u32,
    /// Frames in a thousand that take longer than others, which overtake them.
    pub reorder_permille: u32,
    /// How much longer, at most.
    pub reorder_delay: Duration,
    /// Frames that can be under way; more are dropped.
    pub queue_frames: usize,
}

impl Impairment {
    /// Frames under way if nothing else is said: more than any window of Linux's, so that what is lost was
    /// meant to be.
    pub const QUEUE_FRAMES: usize = 16_384;

    /// Nothing but a round trip of so long.
    pub fn round_trip(rtt: Duration) -> Impairment {
        Impairment {
            seed: 0,
            delay: rtt / 2,
            loss_permille: 0,
            reorder_permille: 0,
            reorder_delay: rtt / 4,
            queue_frames: Impairment::QUEUE_FRAMES,
        }
    }
}

/// What has happened on a link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Frames that came from the machine.
    pub frames: u64,
    /// Dropped by the seed.
    pub lost: u64,
    /// Held back so that others overtake.
    pub reordered: u64,
    /// Dropped because a queue was full.
    pub overflowed: u64,
    /// Most frames that were under way at once.
    pub queued_max: usize,
    /// Frames that were let go.
    pub released: u64,
    /// By how much they were late, all together.
    pub late: Duration,
}

impl Counts {
    /// By how much a frame was late on average.
    pub fn late_us(&self) -> f64 {
        self.late.as_secs_f64() * 1e6 / self.released.max(1) as f64
    }
}

/// A frame that others overtake: when it is due, its number, its bytes.
type Slow = (Instant, u64, Box<[u8]>);

/// A link and what is under way on it.
#[derive(Debug)]
pub struct Link {
    how: Impairment,
    random: u64,
    /// In the order of their coming, which is that of their going.
    steady: VecDeque<(Instant, Box<[u8]>)>,
    /// Those that others overtake.
    slow: BinaryHeap<Reverse<Slow>>,
    /// What has happened.
    pub counts: Counts,
}

impl Link {
    /// An idle link; `which` tells its fate from that of other links of the same seed.
    pub fn new(how: Impairment, which: u64) -> Link {
        let mut link = Link {
            how,
            random: 0,
            steady: VecDeque::new(),
            slow: BinaryHeap::new(),
            counts: Counts::default(),
        };
        link.set(how, which);
        link
    }

    /// Begins anew, with what is under way.
    pub fn set(&mut self, how: Impairment, which: u64) {
        self.how = how;
        self.random = how.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (which << 48);
        self.counts = Counts::default();
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn one_in_thousand(&mut self, times: u32) -> bool {
        // One number for each question, asked or not: another loss keeps the same reordering.
        self.next() % 1000 < u64::from(times)
    }

    /// A frame comes from the machine.
    pub fn push(&mut self, now: Instant, frame: &[u8]) {
        self.counts.frames += 1;
        let lost = self.one_in_thousand(self.how.loss_permille);
        let late = self.one_in_thousand(self.how.reorder_permille);
        let share = self.next() % 1024;
        if lost {
            self.counts.lost += 1;
            return;
        }
        if self.queued() >= self.how.queue_frames {
            self.counts.overflowed += 1;
            return;
        }
        let due = now + self.how.delay;
        if late {
            self.counts.reordered += 1;
            let due = due + self.how.reorder_delay * share as u32 / 1024;
            self.slow.push(Reverse((due, self.counts.frames, frame.into())));
        } else {
            self.steady.push_back((due, frame.into()));
        }
        self.counts.queued_max = self.counts.queued_max.max(self.queued());
    }

    /// Frames under way.
    pub fn queued(&self) -> usize {
        self.steady.len() + self.slow.len()
    }

    /// When the next frame is due.
    pub fn due(&self) -> Option<Instant> {
        let steady = self.steady.front().map(|f| f.0);
        let slow = self.slow.peek().map(|Reverse(f)| f.0);
        steady.into_iter().chain(slow).min()
    }

    /// A frame whose time has come.
    pub fn pop(&mut self, now: Instant) -> Option<Box<[u8]>> {
        let due = self.due().filter(|due| *due <= now)?;
        self.counts.released += 1;
        self.counts.late += now - due;
        if self.steady.front().is_some_and(|f| f.0 == due) {
            return self.steady.pop_front().map(|f| f.1);
        }
        self.slow.pop().map(|Reverse(f)| f.2)
    }
}
