//! Chunks for small copied output, kept for use again.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes of one chunk.
pub(crate) const CHUNK_BYTES: usize = 4096;
/// Chunks that a context keeps when they are free; more go back to the heap.
const KEPT_MAX: usize = 1024;

pub(crate) type Chunk = Box<[u8; CHUNK_BYTES]>;

/// The free chunks of one context.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    free: Vec<Chunk>,
}

impl Pool {
    pub(crate) fn take(&mut self) -> Chunk {
        self.free.pop().unwrap_or_else(|| Box::new([0; CHUNK_BYTES]))
    }

    pub(crate) fn give(&mut self, chunk: Chunk) {
        if self.free.len() < KEPT_MAX {
            self.free.push(chunk);
        }
    }
}
