//! Replies on their way out: a queue of memory pieces, rendered text and item bytes, that stay what
//! they are until the network has let go of them.
//!
//! Three positions in the stream of reply bytes: `sent` (acknowledged, memory released), `taken`
//! (handed to `sendv`), and the end. Rendered text goes into chunks one after the other, so that a
//! batch of small replies is one piece.
use crate::limits::{CHUNK_BYTES, CHUNKS_KEPT_MAX, OUT_BYTES_MAX, OUT_PIECES_MAX};
use crate::store::{ItemRef, Store};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Memory for rendered replies.
type Chunk = Box<[u8; CHUNK_BYTES]>;

/// A core's chunks that no connection uses.
#[derive(Debug, Default)]
pub struct ChunkPool {
    free: Vec<Chunk>,
}

impl ChunkPool {
    fn take(&mut self) -> Chunk {
        self.free.pop().unwrap_or_else(|| Box::new([0; CHUNK_BYTES]))
    }

    fn give(&mut self, chunk: Chunk) {
        if self.free.len() < CHUNKS_KEPT_MAX {
            self.free.push(chunk);
        }
    }

    /// Chunks at hand.
    pub fn len(&self) -> usize {
        self.free.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.free.is_empty()
    }
}

#[derive(Debug)]
enum Piece {
    /// Bytes of a chunk; chunks are numbered as they come.
    Text { chunk: u32, at: u16, len: u16 },
    /// Bytes of an item.
    Item { item: ItemRef, at: u32, len: u32 },
}

impl Piece {
    fn len(&self) -> usize {
        match self {
            Piece::Text { len, .. } => usize::from(*len),
            Piece::Item { len, .. } => *len as usize,
        }
    }
}

/// A place to come back to: see [`Out::rewind`].
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    end: u64,
}

/// The reply queue of one connection.
#[derive(Debug, Default)]
pub struct Out {
    pieces: VecDeque<Piece>,
    chunks: VecDeque<Chunk>,
    /// Number of `chunks[0]`.
    first_chunk: u32,
    /// Bytes used in the last chunk.
    filled: usize,
    /// Stream positions; see the module's text. `front` is where `pieces[0]` starts.
    front: u64,
    sent: u64,
    taken: u64,
    end: u64,
    /// First piece that is not wholly taken, and the position where it starts.
    next: usize,
    next_start: u64,
}

impl Out {
    /// Bytes not yet handed to `sendv`.
    pub fn waiting(&self) -> usize {
        (self.end - self.taken) as usize
    }

    /// Bytes handed to `sendv` and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        (self.taken - self.sent) as usize
    }

    /// Pieces in the queue, the ones in flight included.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// So much is queued that no more requests should be answered for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pieces.len() >= OUT_PIECES_MAX || (self.end - self.sent) as usize >= OUT_BYTES_MAX
    }

    /// Appends rendered bytes.
    #[inline]
    pub fn text(&mut self, pool: &mut ChunkPool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.chunks.is_empty() || self.filled == CHUNK_BYTES {
                self.chunks.push_back(pool.take());
                self.filled = 0;
            }
            let number = self.first_chunk.wrapping_add(self.chunks.len() as u32 - 1);
            let Some(chunk) = self.chunks.back_mut() else { return };
            let len = bytes.len().min(CHUNK_BYTES - self.filled);
            let (now, later) = bytes.split_at(len);
            chunk[self.filled..self.filled + len].copy_from_slice(now);
            match self.pieces.back_mut() {
                // Text always goes on where the last text of its chunk ended.
                Some(Piece::Text { chunk, len: grown, .. }) if *chunk == number => {
                    *grown += len as u16;
                }
                _ => {
                    let (at, len) = (self.filled as u16, len as u16);
                    self.pieces.push_back(Piece::Text { chunk: number, at, len });
                }
            }
            self.filled += len;
            self.end += len as u64;
            bytes = later;
        }
    }

    /// Appends bytes of an item; the reference is released when they have been sent.
    pub fn item(&mut self, item: ItemRef, at: usize, len: usize) {
        self.pieces.push_back(Piece::Item { item, at: at as u32, len: len as u32 });
        self.end += len as u64;
    }

    /// Where the queue ends now.
    pub fn mark(&self) -> Mark {
        Mark { end: self.end }
    }

    /// Takes back what was appended after `mark`, as far as it has not been handed to `sendv`.
    pub fn rewind(&mut self, store: &Store, mark: Mark) {
        let to = mark.end.max(self.taken);
        while self.end > to {
            let excess = (self.end - to) as usize;
            let Some(last) = self.pieces.pop_back() else { return };
            let len = last.len();
            let keep = len.saturating_sub(excess);
            self.end -= (len - keep) as u64;
            match last {
                Piece::Text { chunk, at, .. } if keep > 0 => {
                    // The chunk's bytes behind it stay unused until the chunk is: a gap would
                    // break the rule that text goes on where it ended.
                    self.pieces.push_back(Piece::Text { chunk, at, len: keep as u16 });
                    self.close_gap(chunk, usize::from(at) + keep);
                }
                Piece::Text { chunk, at, .. } => self.close_gap(chunk, usize::from(at)),
                Piece::Item { item, at, .. } if keep > 0 => {
                    self.pieces.push_back(Piece::Item { item, at, len: keep as u32 });
                }
                Piece::Item { item, .. } => store.release(item),
            }
        }
        // What is left may end in a piece that is wholly taken and may still grow: be on it.
        if self.next > 0 && self.next >= self.pieces.len() {
            self.next = self.pieces.len().saturating_sub(1);
            self.next_start = self.end - self.pieces.back().map_or(0, Piece::len) as u64;
        }
    }

    /// The last chunk is used up to `filled` only; chunks after `chunk` hold nothing any more.
    fn close_gap(&mut self, chunk: u32, filled: usize) {
        let keep = chunk.wrapping_sub(self.first_chunk) as usize + 1;
        self.chunks.truncate(keep);
        self.filled = filled;
    }

    /// Hands up to `limit` pieces that wait to `f`, in order, without taking them: how many.
    pub fn peek<'a>(
        &'a self,
        store: &'a Store,
        limit: usize,
        mut f: impl FnMut(&'a [u8]),
    ) -> Peeked {
        let mut peeked = Peeked { pieces: 0, bytes: 0 };
        let mut skip = (self.taken - self.next_start) as usize;
        for piece in self.pieces.range(self.next..) {
            let bytes = &self.piece_bytes(store, piece)[skip..];
            skip = 0;
            if bytes.is_empty() {
                continue;
            }
            if peeked.pieces == limit {
                break;
            }
            peeked.pieces += 1;
            peeked.bytes += bytes.len();
            f(bytes);
        }
        peeked
    }

    fn piece_bytes<'a>(&'a self, store: &'a Store, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Text { chunk, at, len } => {
                let chunk = &self.chunks[chunk.wrapping_sub(self.first_chunk) as usize];
                &chunk[usize::from(*at)..usize::from(*at) + usize::from(*len)]
            }
            Piece::Item { item, at, len } => store.bytes(item, *at as usize, *len as usize),
        }
    }

    /// `sendv` was given the next `bytes` that wait (and, as far as is known, took them).
    pub fn take(&mut self, bytes: usize) {
        self.taken = (self.taken + bytes as u64).min(self.end);
        while let Some(piece) = self.pieces.get(self.next) {
            let end = self.next_start + piece.len() as u64;
            // A piece that ends here may still grow: stay on it.
            if end > self.taken || (end == self.taken && self.next + 1 == self.pieces.len()) {
                break;
            }
            self.next += 1;
            self.next_start = end;
        }
    }

    /// `sendv` turned out to have taken `bytes` less: they wait again.
    pub fn untake(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_sub(bytes as u64).max(self.sent);
        (self.next, self.next_start) = (0, self.front);
        self.take(0);
    }

    /// The next `bytes` in flight are acknowledged and no longer referred to: their memory is free.
    pub fn sent(&mut self, store: &Store, pool: &mut ChunkPool, bytes: usize) {
        self.sent = (self.sent + bytes as u64).min(self.taken);
        while let Some(piece) = self.pieces.front() {
            let end = self.front + piece.len() as u64;
            if end > self.sent {
                break;
            }
            self.front = end;
            if self.next > 0 {
                self.next -= 1;
            } else {
                self.next_start = end;
            }
            match self.pieces.pop_front() {
                Some(Piece::Item { item, .. }) => store.release(item),
                Some(Piece::Text { chunk, .. }) => self.drop_chunks_before(pool, chunk),
                None => {}
            }
        }
        if self.pieces.is_empty() {
            self.drop_all_chunks(pool);
        }
    }

    /// Text of `chunk` was sent, so that all chunks before it are done with.
    fn drop_chunks_before(&mut self, pool: &mut ChunkPool, chunk: u32) {
        while self.first_chunk != chunk
            && let Some(done) = self.chunks.pop_front()
        {
            self.first_chunk = self.first_chunk.wrapping_add(1);
            pool.give(done);
        }
    }

    fn drop_all_chunks(&mut self, pool: &mut ChunkPool) {
        while let Some(done) = self.chunks.pop_front() {
            self.first_chunk = self.first_chunk.wrapping_add(1);
            pool.give(done);
        }
        self.filled = 0;
    }

    /// The connection is gone: nothing refers to the pieces any more.
    pub fn clear(&mut self, store: &Store, pool: &mut ChunkPool) {
        self.taken = self.end;
        let all = (self.end - self.sent) as usize;
        self.sent(store, pool, all);
        (self.next, self.next_start) = (0, self.front);
    }
}

/// What [`Out::peek`] showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peeked {
    /// Pieces.
    pub pieces: usize,
    /// Bytes in them.
    pub bytes: usize,
}
