//! What a look-up shows of an item, and may change, while its shard is locked.
use super::arena::{ACTIVE, BINARY_KEY, END, FETCHED, ItemId, PREFIX, STALE, TOKEN_SENT, get, set};
use super::{ItemRef, Store, stock_item_bytes};
use crate::num::write_u64;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::Relaxed;

/// An item whose shard is locked.
#[derive(Debug)]
pub struct View<'a> {
    pub(super) store: &'a Store,
    pub(super) id: ItemId,
}

impl View<'_> {
    /// The whole reply of a `get`: `VALUE <key> <flags> <bytes>\r\n<value>\r\n`.
    pub fn reply(&self) -> Vec<u8> {
        self.copy(0, self.total_len())
    }

    fn copy(&self, at: usize, len: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(len);
        self.pieces(at, len, |at, len| copy.extend_from_slice(self.piece(at, len)));
        copy
    }

    /// Length of the whole reply.
    #[inline]
    pub fn total_len(&self) -> usize {
        self.store.arena.header(self.id).total_len()
    }

    /// The same with the line that ends the reply of a `get` whose last key this is.
    #[inline]
    pub fn len_to_end(&self) -> usize {
        self.total_len() + END.len()
    }

    /// The pieces that `len` bytes of the reply from `at` on lie in: calls `f` with the place in the
    /// reply and the length of each.
    #[inline]
    pub fn pieces(&self, at: usize, len: usize, f: impl FnMut(usize, usize)) {
        self.store.for_pieces(self.id, at, len, f);
    }

    /// The reply from `at` on, of an item that is kept in one piece.
    #[inline]
    pub fn whole(&self, at: usize, len: usize) -> &[u8] {
        self.store.arena.bytes(self.id, at, len)
    }

    /// A piece of the reply, or part of one.
    #[inline]
    pub fn piece(&self, at: usize, len: usize) -> &[u8] {
        let (part, offset) = self.store.locate(self.id, at);
        self.store.arena.bytes(part, offset, len)
    }

    /// Where the value begins in the reply, behind the first line.
    pub fn value_at(&self) -> usize {
        self.store.arena.header(self.id).value_at()
    }

    /// The value, without its line end.
    pub fn value(&self) -> Vec<u8> {
        self.copy(self.value_at(), self.value_len())
    }

    /// Client flags.
    pub fn flags(&self) -> u32 {
        get(&self.store.arena.header(self.id).flags)
    }

    /// The version's number.
    pub fn cas(&self) -> u64 {
        self.store.arena.header(self.id).cas.load(Relaxed)
    }

    /// The second from which it is expired; 0 = never.
    pub fn expires(&self) -> u32 {
        get(&self.store.arena.header(self.id).expires)
    }

    /// Changes when it expires.
    pub fn touch(&self, expires: u32) {
        self.store.note_expiry(expires);
        set(&self.store.arena.header(self.id).expires, expires);
    }

    /// The first line of a `gets` reply, whose number is not in the item, into `line`.
    pub fn line_with_cas<'a>(&self, line: &'a mut [u8; 320]) -> &'a [u8] {
        let first = self.store.arena.bytes(self.id, 0, self.value_at() - 2);
        line[..first.len()].copy_from_slice(first);
        let mut end = first.len();
        line[end] = b' ';
        end += 1;
        end += write_u64(&mut line[end..], self.cas());
        line[end..end + 2].copy_from_slice(b"\r\n");
        &line[..end + 2]
    }

    /// A reference that outlives the look-up.
    #[inline]
    pub fn share(&self) -> ItemRef {
        self.store.arena.header(self.id).refs.fetch_add(1, Relaxed);
        ItemRef(self.id)
    }

    /// Counts as a use: the first is remembered, from the second on the item is active, which saves
    /// it from eviction once; as in memcached.
    #[inline]
    pub fn bump(&self, now: u32) {
        let header = self.store.arena.header(self.id);
        let heat = header.heat.load(Relaxed);
        if heat != ACTIVE {
            header.heat.store(heat + 1, Relaxed);
            if heat == FETCHED {
                set(&header.time, now);
            }
        }
    }

    /// Whether it was fetched since it was stored.
    pub fn fetched(&self) -> bool {
        self.store.arena.header(self.id).heat.load(Relaxed) != 0
    }

    /// When it was stored, or when it became active.
    pub fn time(&self) -> u32 {
        get(&self.store.arena.header(self.id).time)
    }

    /// The key.
    pub fn key(&self) -> &[u8] {
        let header = self.store.arena.header(self.id);
        self.store.arena.bytes(self.id, PREFIX.len(), header.key_len())
    }

    /// Length of the value.
    pub fn value_len(&self) -> usize {
        self.store.arena.header(self.id).value_len()
    }

    /// Whether it is invalidated.
    pub fn is_stale(&self) -> bool {
        self.store.arena.header(self.id).marked(STALE)
    }

    /// Whether a client has been told to fetch the value anew.
    pub fn token_sent(&self) -> bool {
        self.store.arena.header(self.id).marked(TOKEN_SENT)
    }

    /// Remembers that a client has been told to fetch the value anew.
    pub fn send_token(&self) {
        self.store.arena.header(self.id).set_mark(TOKEN_SENT, true);
    }

    /// Whether the key was given in base64.
    pub fn has_binary_key(&self) -> bool {
        self.store.arena.header(self.id).marked(BINARY_KEY)
    }

    /// Number of its size class, from 1, as in `stats`.
    pub fn class(&self) -> usize {
        self.store.arena.header(self.id).class() + 1
    }

    /// Its size as memcached counts it.
    pub fn stock_bytes(&self) -> usize {
        let header = self.store.arena.header(self.id);
        stock_item_bytes(header.key_len(), get(&header.flags), header.value_len())
    }
}
