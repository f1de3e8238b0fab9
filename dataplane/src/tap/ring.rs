//! One core's capture ring (`ix_abi::capture`), in memory that the platform shares with a client.
//!
//! The client is not trusted: of its words only the consumer's count is read, and whatever it says,
//! this side writes within the ring, at a place of its own reckoning. A count that cannot be means a
//! full ring.
use core::sync::atomic::{AtomicU64, Ordering};
use ix_abi::capture::{HEAD_BYTES, Head, SNAP_MAX, ring};

/// The writer's end.
#[derive(Debug)]
pub struct Ring {
    words: &'static [AtomicU64],
    produced: u64,
    /// As last read.
    consumed: u64,
    captured: u64,
    missed: u64,
    seen: u64,
}

impl Ring {
    /// Begins capture `generation` (not 0) in `words`, which only this core writes, the client's two
    /// aside. `None` if they are too few for a record.
    pub fn start(words: &'static [AtomicU64], generation: u64, boot_unix_ns: u64) -> Option<Ring> {
        if words.len() * 8 < ring::DATA + 2 * (HEAD_BYTES + usize::from(SNAP_MAX)) {
            return None;
        }
        let ring = Ring { words, produced: 0, consumed: 0, captured: 0, missed: 0, seen: 0 };
        for (at, value) in [
            (ring::PRODUCED, 0),
            (ring::MISSED, 0),
            (ring::SEEN, 0),
            (ring::CAPTURED, 0),
            (ring::BOOT_UNIX_NS, boot_unix_ns),
            (ring::RUNNING, 1),
        ] {
            ring.set(at, value);
        }
        words[ring::GENERATION / 8].store(generation, Ordering::Release);
        Some(ring)
    }

    /// Says that nothing more will come.
    pub fn stop(self) {
        self.words[ring::RUNNING / 8].store(0, Ordering::Release);
    }

    /// Counts a packet that was looked at.
    pub fn saw(&mut self) {
        self.seen += 1;
        self.set(ring::SEEN, self.seen);
    }

    /// Records a packet of which `kept` is kept; `false`: there was no room, and it was counted.
    pub fn record(&mut self, head: Head, kept: &[u8]) -> bool {
        let kept = &kept[..kept.len().min(usize::from(SNAP_MAX))];
        let captured = kept.len() as u16;
        let bytes = Head::bytes_for(captured);
        let number = self.captured + self.missed;
        // 0 would say that it is filling.
        let head = Head { bytes, captured, number, original: head.original.max(1), ..head };
        let capacity = (self.words.len() * 8 - ring::DATA) as u64;
        let left = capacity - self.produced % capacity;
        // A record does not wrap: what is left before the ring's end is filled.
        let filling = if left < u64::from(bytes) { left } else { 0 };
        if !self.has_room(capacity, filling + u64::from(bytes)) {
            self.missed += 1;
            self.set(ring::MISSED, self.missed);
            return false;
        }
        if filling > 0 {
            self.put(0, filling);
            self.produced += filling;
        }
        for (i, word) in head.encode().into_iter().enumerate() {
            self.put(i, word);
        }
        for (i, chunk) in kept.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.put(HEAD_BYTES / 8 + i, u64::from_le_bytes(word));
        }
        self.produced += u64::from(bytes);
        self.captured += 1;
        self.set(ring::CAPTURED, self.captured);
        self.words[ring::PRODUCED / 8].store(self.produced, Ordering::Release);
        true
    }

    fn has_room(&mut self, capacity: u64, bytes: u64) -> bool {
        let fits = |consumed: u64| {
            self.produced.checked_sub(consumed).is_some_and(|used| used + bytes <= capacity)
        };
        if fits(self.consumed) {
            return true;
        }
        let alleged = self.words[ring::CONSUMED / 8].load(Ordering::Acquire);
        if !fits(alleged) {
            return false;
        }
        self.consumed = alleged;
        true
    }

    /// Writes the `i`-th word from where the next record begins; always within the ring.
    fn put(&self, i: usize, word: u64) {
        let capacity = self.words.len() * 8 - ring::DATA;
        let at = (self.produced % capacity as u64) as usize / 8 + i;
        if let Some(slot) = self.words.get(ring::DATA / 8 + at) {
            slot.store(word, Ordering::Relaxed);
        }
    }

    fn set(&self, at: usize, value: u64) {
        self.words[at / 8].store(value, Ordering::Relaxed);
    }
}
