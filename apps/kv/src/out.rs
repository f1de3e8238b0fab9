//! Replies on their way out: a queue of memory pieces, rendered text and item bytes, that stay what
//! they are until the network has let go of them.
//!
//! Three positions in the stream of reply bytes: `sent` (acknowledged, memory released), `taken`
//! (handed to `sendv`), and the end. Rendered text goes into chunks one after the other, so that a
//! batch of small replies is one piece: the open one, which is not in the queue yet.
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
    #[inline]
    fn take(&mut self) -> Chunk {
        self.free.pop().unwrap_or_else(|| Box::new([0; CHUNK_BYTES]))
    }

    #[inline]
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

/// What [`Out::peek`] showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peeked {
    /// Pieces.
    pub pieces: usize,
    /// Bytes in them.
    pub bytes: usize,
}

/// The reply queue of one connection.
#[derive(Debug, Default)]
pub struct Out {
    /// Closed pieces; the open one comes behind them.
    pieces: VecDeque<Piece>,
    /// Chunks that are full, numbered from `first_chunk`; then comes `tail`.
    chunks: VecDeque<Chunk>,
    first_chunk: u32,
    /// The chunk that text goes into. The open piece is from `open` to `filled` of it.
    tail: Option<Chunk>,
    open: usize,
    filled: usize,
    /// Stream positions; see the module's text. `front` is where the first piece starts.
    front: u64,
    sent: u64,
    taken: u64,
    end: u64,
    /// First piece that may have bytes that wait (the open one, if past all closed ones), and the
    /// position where it starts.
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
        self.pieces.len() + usize::from(self.filled > self.open)
    }

    /// So much is queued that no more requests should be answered for now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.pieces.len() >= OUT_PIECES_MAX || (self.end - self.sent) as usize >= OUT_BYTES_MAX
    }

    /// Appends rendered bytes.
    #[inline]
    pub fn text(&mut self, pool: &mut ChunkPool, bytes: &[u8]) {
        if let Some(chunk) = &mut self.tail {
            if let Some(room) = chunk[self.filled..].get_mut(..bytes.len()) {
                room.copy_from_slice(bytes);
                self.filled += bytes.len();
                self.end += bytes.len() as u64;
                return;
            }
        } else if (1..=CHUNK_BYTES).contains(&bytes.len()) {
            // So begins nearly every batch of replies: what was before it is sent, and its chunk given back.
            let chunk = self.tail.insert(pool.take());
            chunk[..bytes.len()].copy_from_slice(bytes);
            (self.open, self.filled) = (0, bytes.len());
            self.end += bytes.len() as u64;
            return;
        }
        self.text_over_chunks(pool, bytes);
    }

    fn text_over_chunks(&mut self, pool: &mut ChunkPool, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.filled == CHUNK_BYTES {
                self.close();
                self.chunks.extend(self.tail.take());
                (self.open, self.filled) = (0, 0);
            }
            let chunk = self.tail.get_or_insert_with(|| pool.take());
            let len = bytes.len().min(CHUNK_BYTES - self.filled);
            let (now, later) = bytes.split_at(len);
            chunk[self.filled..self.filled + len].copy_from_slice(now);
            self.filled += len;
            self.end += len as u64;
            bytes = later;
        }
    }

    /// Number of the chunk that text goes into.
    fn tail_number(&self) -> u32 {
        self.first_chunk.wrapping_add(self.chunks.len() as u32)
    }

    /// Puts the open piece, if there is any, into the queue.
    fn close(&mut self) {
        if self.filled > self.open {
            let (at, len) = (self.open as u16, (self.filled - self.open) as u16);
            self.pieces.push_back(Piece::Text { chunk: self.tail_number(), at, len });
            self.open = self.filled;
        }
    }

    /// Appends bytes of an item; the reference is released when they have been sent.
    pub fn item(&mut self, item: ItemRef, at: usize, len: usize) {
        self.close();
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
        loop {
            let excess = (self.end - to) as usize;
            let cut = excess.min(self.filled - self.open);
            self.filled -= cut;
            self.end -= cut as u64;
            if cut == excess {
                return;
            }
            // The open piece is all gone. What is before it?
            match self.pieces.pop_back() {
                Some(Piece::Text { chunk, at, len }) => {
                    if chunk != self.tail_number() {
                        self.tail = self.chunks.pop_back();
                    }
                    self.open = usize::from(at);
                    self.filled = usize::from(at) + usize::from(len);
                }
                Some(Piece::Item { item, at, len }) if len as usize > excess - cut => {
                    let len = len - (excess - cut) as u32;
                    self.pieces.push_back(Piece::Item { item, at, len });
                    self.end = to;
                }
                Some(Piece::Item { item, len, .. }) => {
                    self.end -= u64::from(len);
                    store.release(item);
                }
                None => return,
            }
        }
    }

    /// Shows `f` up to `limit` pieces that wait, in order, without taking them.
    #[inline]
    pub fn peek<'a>(
        &'a self,
        store: &'a Store,
        limit: usize,
        mut f: impl FnMut(&'a [u8]),
    ) -> Peeked {
        let mut peeked = Peeked::default();
        let mut skip = (self.taken - self.next_start) as usize;
        let mut show = |bytes: &'a [u8]| {
            let bytes = &bytes[skip..];
            skip = 0;
            if !bytes.is_empty() && peeked.pieces < limit {
                peeked.pieces += 1;
                peeked.bytes += bytes.len();
                f(bytes);
            }
        };
        if self.next < self.pieces.len() {
            for piece in self.pieces.range(self.next..) {
                show(self.piece_bytes(store, piece));
            }
        }
        if let Some(tail) = &self.tail {
            show(&tail[self.open..self.filled]);
        }
        peeked
    }

    fn piece_bytes<'a>(&'a self, store: &'a Store, piece: &'a Piece) -> &'a [u8] {
        match piece {
            Piece::Text { chunk, at, len } => {
                let n = chunk.wrapping_sub(self.first_chunk) as usize;
                let chunk = self.chunks.get(n).or(self.tail.as_ref());
                let (at, len) = (usize::from(*at), usize::from(*len));
                chunk.map_or(&[], |chunk| &chunk[at..at + len])
            }
            Piece::Item { item, at, len } => store.bytes(item, *at as usize, *len as usize),
        }
    }

    /// `sendv` was given the next `bytes` that wait (and, as far as is known, took them).
    #[inline]
    pub fn take(&mut self, bytes: usize) {
        self.taken = (self.taken + bytes as u64).min(self.end);
        while let Some(piece) = self.pieces.get(self.next) {
            let end = self.next_start + piece.len() as u64;
            if end > self.taken {
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
    #[inline]
    pub fn sent(&mut self, store: &Store, pool: &mut ChunkPool, bytes: usize) {
        self.sent = (self.sent + bytes as u64).min(self.taken);
        if !self.pieces.is_empty() {
            self.release_pieces(store, pool);
        }
        if self.sent == self.end {
            (self.front, self.next, self.next_start) = (self.end, 0, self.end);
            (self.open, self.filled) = (0, 0);
            if let Some(tail) = self.tail.take() {
                // Chunk numbers go on: nothing refers to the old ones any more.
                pool.give(tail);
            }
        }
    }

    fn release_pieces(&mut self, store: &Store, pool: &mut ChunkPool) {
        while let Some(piece) = self.pieces.front() {
            let end = self.front + piece.len() as u64;
            if end > self.sent {
                return;
            }
            self.front = end;
            // A piece that is sent was taken: the next one is behind it.
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
        self.drop_chunks_before(pool, self.tail_number());
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

    /// The connection is gone: nothing refers to the pieces any more.
    pub fn clear(&mut self, store: &Store, pool: &mut ChunkPool) {
        self.take(self.waiting());
        self.sent(store, pool, self.in_flight());
    }
}
