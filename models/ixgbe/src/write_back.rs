//! Descriptors on their way back to memory: at once, or later by a fault, in the order of each queue.
use crate::faults::Random;
use std::collections::VecDeque;

/// Queues in each direction.
pub(crate) const QUEUES: usize = 128;

/// What is written back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub at: u64,
    pub bytes: [u8; 16],
    /// How many of them.
    pub len: usize,
    /// The queue's byte of its IVAR register.
    pub entry: u32,
}

#[derive(Debug)]
struct Held {
    item: Item,
    due: u64,
}

/// All queues of one direction.
#[derive(Debug)]
pub(crate) struct WriteBacks {
    queues: Box<[VecDeque<Held>]>,
    held: usize,
    random: Random,
}

impl WriteBacks {
    pub fn new(seed: u64) -> WriteBacks {
        let queues = (0..QUEUES).map(|_| VecDeque::new()).collect();
        WriteBacks { queues, held: 0, random: Random::new(seed) }
    }

    pub fn clear(&mut self) {
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.held = 0;
    }

    /// The queue is disabled: what it has still comes, at once (§4.6.7.1.2).
    pub fn hurry(&mut self, queue: usize) {
        self.queues[queue].iter_mut().for_each(|held| held.due = 0);
    }

    /// Keeps an item for up to `delay_ns`; `None` then. Gives it back if it is to be written now.
    pub fn keep(&mut self, queue: usize, item: Item, now: u64, delay_ns: u64) -> Option<Item> {
        let waiting = self.queues[queue].back().map(|held| held.due);
        if delay_ns == 0 && waiting.is_none() {
            return Some(item);
        }
        let drawn = now + self.random.next() % (delay_ns + 1);
        let due = drawn.max(waiting.unwrap_or(0));
        self.queues[queue].push_back(Held { item, due });
        self.held += 1;
        None
    }

    pub fn next_ns(&self) -> Option<u64> {
        if self.held == 0 {
            return None;
        }
        self.queues.iter().filter_map(|q| q.front()).map(|held| held.due).min()
    }

    /// The next item that is due.
    pub fn take_due(&mut self, now: u64) -> Option<Item> {
        if self.held == 0 {
            return None;
        }
        let start = self.random.next() as usize;
        let due = |queue: &usize| self.queues[*queue].front().is_some_and(|held| held.due <= now);
        let queue = (0..QUEUES).map(|i| (start + i) % QUEUES).find(due)?;
        self.held -= 1;
        self.queues[queue].pop_front().map(|held| held.item)
    }
}
