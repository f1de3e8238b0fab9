//! The client's end of a capture ring. The kernel's words are checked like anything from outside: a
//! ring that makes no sense ends the capture with a message.
use super::merge::{Merger, Packet};
use crate::page::Page;
use ix_abi::capture::{HEAD_BYTES, Head, ring};

/// What a ring says that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the capture ring of core {core} is corrupted at byte {at} ({what}); the kernel may be damaged: see `ixcp events`"
)]
pub struct RingError {
    core: usize,
    at: u64,
    what: &'static str,
}

/// Reads one core's ring.
#[derive(Debug)]
pub struct Reader {
    core: usize,
    offset: usize,
    capacity: usize,
    consumed: u64,
}

impl Reader {
    /// Of `bytes` bytes at `offset` of the page.
    pub fn new(core: usize, offset: usize, bytes: usize) -> Reader {
        Reader { core, offset, capacity: bytes - ring::DATA, consumed: 0 }
    }

    /// A word of its head.
    pub fn word(&self, page: &Page, at: usize) -> u64 {
        page.load_acquire(self.offset + at)
    }

    /// Before a capture: nothing is read.
    pub fn reset(&self, page: &Page) {
        page.store_release(self.offset + ring::CONSUMED, 0);
    }

    /// The capture that the ring is of.
    pub fn generation(&self, page: &Page) -> u64 {
        self.word(page, ring::GENERATION)
    }

    /// Whether the core captures.
    pub fn is_running(&self, page: &Page) -> bool {
        self.word(page, ring::RUNNING) == 1
    }

    /// Renews the lease (in core 0's ring).
    pub fn renew(&self, page: &Page, lease: u64) {
        page.store_release(self.offset + ring::LEASE, lease);
    }

    /// Gives what there is to the merger and returns the room; whether there was anything.
    pub fn take(&mut self, page: &Page, to: &mut Merger) -> Result<bool, RingError> {
        let produced = self.word(page, ring::PRODUCED);
        let waiting = produced.wrapping_sub(self.consumed);
        if waiting > self.capacity as u64 || !waiting.is_multiple_of(8) {
            return Err(self.error("its count of bytes"));
        }
        while self.consumed != produced {
            let place = (self.consumed % self.capacity as u64) as usize;
            let left = (self.capacity - place).min((produced - self.consumed) as usize);
            let data = self.offset + ring::DATA + place;
            let word = |i: usize| if i * 8 < left { page.load(data + i * 8) } else { 0 };
            let head = Head::decode(std::array::from_fn(word), left)
                .ok_or_else(|| self.error("the head of a record"))?;
            if head.original != 0 {
                let words = usize::from(head.captured).div_ceil(8);
                let mut bytes = Vec::with_capacity(words * 8);
                for i in 0..words {
                    bytes.extend_from_slice(&word(HEAD_BYTES / 8 + i).to_le_bytes());
                }
                bytes.truncate(head.captured.into());
                to.add(Packet { core: self.core, head, bytes });
            }
            self.consumed += u64::from(head.bytes);
        }
        page.store_release(self.offset + ring::CONSUMED, self.consumed);
        Ok(waiting > 0)
    }

    fn error(&self, what: &'static str) -> RingError {
        RingError { core: self.core, at: self.consumed, what }
    }
}
