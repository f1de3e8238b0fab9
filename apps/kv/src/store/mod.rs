//! The store: one memory arena, one hash table, shared by all cores.
//!
//! Shards of the table have a spin lock each; nothing blocks while one is held. An item that a
//! reply points into is reference counted: an update links a new item and unlinks the old, whose
//! memory is free when its last reference is gone. `incr` and `decr` write in place only while no
//! reference is out.
mod arena;
mod crawl;
mod lists;
mod parts;
mod slab;
mod steal;
mod table;
mod tune;
mod update;
mod view;

use crate::limits::{ITEM_BYTES_DEFAULT, MEMORY_BYTES_MAX, PAGE_BYTES, STOCK_CHUNK_BYTES_MAX};
use crate::num::write_u32;
use alloc::vec::Vec;
use arena::{Arena, END, HEADER_BYTES, PREFIX, get, set};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use crawl::Crawl;
use slab::Slabs;
use table::{ShardGuard, Table};

pub use arena::{ItemId, NewItem};
pub use slab::{CLASSES, ClassFigures};
pub use table::{KeyHash, Seed};
pub use tune::Tune;
pub use update::{Arithmetic, Delta, Removed, Stored, Terms, Update};
pub use view::View;

/// Bytes before the value at most: `VALUE `, key, flags, length, spaces and line end.
const SUFFIX_BYTES_MAX: usize = 1 + 10 + 1 + 10 + 2;

/// Figures of the whole store, for `stats`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct StoreFigures {
    pub curr_items: u64,
    pub total_items: u64,
    pub bytes: u64,
    pub evictions: u64,
    pub reclaimed: u64,
    pub evicted_unfetched: u64,
    pub expired_unfetched: u64,
    pub lrutail_reflocked: u64,
    pub moves_within_lru: u64,
    pub moves_to_cold: u64,
    pub moves_to_warm: u64,
    pub crawler_reclaimed: u64,
    pub crawler_items_checked: u64,
    pub slab_global_page_pool: u64,
    pub slabs_moved: u64,
    pub total_pages: u64,
    pub hash_buckets: u64,
    pub used_chunks: u64,
}

/// What became of an operator's wish to move a page: memcached's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's names")]
pub enum Reassigned {
    Ok,
    Busy,
    BadClass,
    NoSpare,
    Same,
}

/// Why a look-up found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is no such key.
    Absent,
    /// It has just been removed: past its time.
    Expired,
    /// It has just been removed: older than the last `flush_all`.
    Flushed,
}

/// A reference to an item: its bytes stay what they are until [`Store::release`].
#[derive(Debug)]
#[must_use = "a reference that is not released keeps the item's memory for ever"]
pub struct ItemRef(ItemId);

/// The store.
#[derive(Debug)]
pub struct Store {
    arena: Arena,
    table: Table,
    slabs: Slabs,
    limit: usize,
    /// Items linked at or before this second are flushed, once it has come; 0 = none.
    flush_at: AtomicU32,
    /// The same for good, from delayed flushes whose time has come.
    flushed_to: AtomicU32,
    /// Largest item, as memcached counts it.
    item_max: usize,
    /// Something may have expired, or been flushed, since the last crawl began.
    may_expire: AtomicBool,
    crawl: spin::Mutex<Crawl>,
    /// What an operator may change.
    pub tune: Tune,
}

/// Bytes of an item as memcached 1.6 counts them against its limit of 1 MiB: a header of 48, the
/// version number, the key and its zero, flags unless 0, the value and its line end.
pub const fn stock_item_bytes(key_len: usize, flags: u32, value_len: usize) -> usize {
    48 + 8 + key_len + 1 + if flags == 0 { 0 } else { 4 } + value_len + 2
}

impl Store {
    /// A store in `memory`. `seed` is for the hash, and should differ from boot to boot.
    pub fn new(memory: &'static mut [u8], seed: impl Into<Seed>) -> Store {
        let kept = memory.len().min(MEMORY_BYTES_MAX);
        Self::over(Arena::from_static(&mut memory[..kept]), seed.into())
    }

    /// A store of `bytes` from the global allocator.
    pub fn with_capacity(bytes: usize, seed: impl Into<Seed>) -> Store {
        Self::over(Arena::from_heap(bytes.min(MEMORY_BYTES_MAX)), seed.into())
    }

    fn over(arena: Arena, seed: Seed) -> Store {
        let limit = arena.len();
        let slabs = Slabs::new(&arena);
        let table = Table::new(limit / 256, seed);
        let (flush_at, flushed_to) = (AtomicU32::new(0), AtomicU32::new(0));
        Store {
            arena,
            table,
            slabs,
            limit,
            flush_at,
            flushed_to,
            item_max: ITEM_BYTES_DEFAULT,
            may_expire: AtomicBool::new(false),
            crawl: spin::Mutex::default(),
            tune: Tune::default(),
        }
    }

    /// The same store for items of other sizes.
    #[must_use]
    pub fn with_item_max(self, bytes: usize) -> Store {
        Store { item_max: bytes, ..self }
    }

    /// Largest item, as memcached counts it.
    pub fn item_max(&self) -> usize {
        self.item_max
    }

    /// Bytes given at start.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The least memory that holds any item at all.
    pub const fn smallest_memory() -> usize {
        PAGE_BYTES + 64
    }

    /// The hash of a key.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        self.table.hash(key)
    }

    /// Looks a key up and shows the item to `f` under the shard's lock.
    #[inline]
    pub fn get<R>(
        &self,
        hash: KeyHash,
        key: &[u8],
        now: u32,
        f: impl FnOnce(&View<'_>) -> R,
    ) -> Result<R, Miss> {
        self.peek(hash, key, now, |view| {
            view.bump(now);
            f(view)
        })
    }

    /// The same, without counting as a use of the item.
    #[inline]
    pub fn peek<R>(
        &self,
        hash: KeyHash,
        key: &[u8],
        now: u32,
        f: impl FnOnce(&View<'_>) -> R,
    ) -> Result<R, Miss> {
        let mut shard = self.table.lock(hash);
        let id = self.live_here(&mut shard, hash, key, now)?;
        Ok(f(&View { store: self, id }))
    }

    /// The live item of a key; a dead one is unlinked.
    fn live(
        &self,
        shard: &mut ShardGuard<'_>,
        hash: KeyHash,
        key: &[u8],
        now: u32,
    ) -> Result<ItemId, Miss> {
        self.live_here(shard, hash, key, now)
    }

    /// The same, for look-ups, which are many: in their own code.
    #[inline(always)]
    fn live_here(
        &self,
        shard: &mut ShardGuard<'_>,
        hash: KeyHash,
        key: &[u8],
        now: u32,
    ) -> Result<ItemId, Miss> {
        let id = shard.find(&self.arena, hash, key).ok_or(Miss::Absent)?;
        match self.why_dead(shard, id, now) {
            None => Ok(id),
            Some(why) => {
                self.unlink(shard, id);
                Err(why)
            }
        }
    }

    #[inline]
    fn why_dead(&self, shard: &ShardGuard<'_>, id: ItemId, now: u32) -> Option<Miss> {
        let header = self.arena.header(id);
        let (expires, time) = (get(&header.expires), get(&header.time));
        let flushed = header.cas.load(Relaxed) < shard.flushed || self.flushed_by_time(time, now);
        if flushed {
            Some(Miss::Flushed)
        } else if expires != 0 && expires <= now {
            Some(Miss::Expired)
        } else {
            None
        }
    }

    fn link(&self, shard: &mut ShardGuard<'_>, id: ItemId, now: u32) {
        set(&self.arena.header(id).time, now);
        shard.insert(&self.arena, id);
        self.slabs.link(&self.arena, &self.tune, id, now);
    }

    fn unlink(&self, shard: &mut ShardGuard<'_>, id: ItemId) {
        shard.remove(&self.arena, id);
        self.slabs.unlink(&self.arena, id);
    }

    /// Memory for an item, with its first reply line rendered; the value is still to be filled in.
    pub fn allocate(
        &self,
        hash: KeyHash,
        key: &[u8],
        flags: u32,
        expires: u32,
        value_len: usize,
        now: u32,
    ) -> Option<NewItem> {
        let stock_bytes = stock_item_bytes(key.len(), flags, value_len);
        if stock_bytes > self.item_max {
            return None;
        }
        let mut suffix = [b' '; SUFFIX_BYTES_MAX];
        let mut end = 1 + write_u32(&mut suffix[1..], flags);
        suffix[end] = b' ';
        end += 1;
        end += write_u32(&mut suffix[end..], value_len as u32);
        suffix[end..end + 2].copy_from_slice(b"\r\n");
        let suffix = &suffix[..end + 2];

        let len = PREFIX.len() + key.len() + suffix.len() + value_len + 2;
        let mut item = if stock_bytes > STOCK_CHUNK_BYTES_MAX {
            self.allocate_parts(len + END.len(), now)?
        } else {
            let bytes = HEADER_BYTES + len + END.len();
            self.slabs.allocate(&self.arena, &self.table, &self.tune, bytes, now)?
        };
        self.note_expiry(expires);
        let head = item.id();
        let header = self.arena.header(item.id());
        set(&header.hash, hash.0);
        set(&header.flags, flags);
        set(&header.expires, expires);
        set(&header.value_len, value_len as u32);
        header.key_len.store(key.len() as u8, Relaxed);
        header.suffix_len.store(suffix.len() as u8, Relaxed);
        self.arena.fill(&mut item, head, 0, PREFIX);
        self.arena.fill(&mut item, head, PREFIX.len(), key);
        self.arena.fill(&mut item, head, PREFIX.len() + key.len(), suffix);
        self.write_pieces(&mut item, len, END);
        Some(item)
    }

    /// Writes bytes of the value, and of the `\r\n` behind it, at `at`. What does not fit is cut.
    pub fn fill(&self, item: &mut NewItem, at: usize, bytes: &[u8]) {
        let header = self.arena.header(item.id());
        let room = (header.value_len() + 2).saturating_sub(at);
        let bytes = &bytes[..bytes.len().min(room)];
        self.write_pieces(item, header.value_at() + at, bytes);
    }

    /// The key was given in base64, and is to be shown like that.
    pub fn mark_binary_key(&self, item: &mut NewItem) {
        self.arena.header(item.id()).set_mark(arena::BINARY_KEY, true);
    }

    /// The key of an item that is not stored yet, and whether it was given in base64.
    pub fn key<'a>(&'a self, item: &'a NewItem) -> (&'a [u8], bool) {
        let header = self.arena.header(item.id());
        let key = self.arena.bytes(item.id(), PREFIX.len(), header.key_len());
        (key, header.marked(arena::BINARY_KEY))
    }

    /// The last two bytes that were filled in: a correct data block ends in `\r\n`.
    pub fn is_terminated(&self, item: &NewItem) -> bool {
        let header = self.arena.header(item.id());
        let end = header.value_at() + header.value_len();
        let byte = |at| {
            let (part, offset) = self.locate(item.id(), at);
            self.arena.bytes(part, offset, 1)[0]
        };
        byte(end) == b'\r' && byte(end + 1) == b'\n'
    }

    /// Gives an item back that will not be stored.
    pub fn discard(&self, item: NewItem) {
        self.slabs.release(&self.arena, item.id());
    }

    /// Takes a key out. False if it was not there.
    pub fn delete(&self, hash: KeyHash, key: &[u8], now: u32) -> bool {
        let mut shard = self.table.lock(hash);
        let found = self.live(&mut shard, hash, key, now);
        found.is_ok_and(|id| {
            self.unlink(&mut shard, id);
            true
        })
    }

    /// The bytes of a referenced item: first reply line, value, line end. Those of a large item lie in
    /// several places: only what [`View::pieces`] showed as one piece can be had at once.
    #[inline]
    pub fn bytes(&self, item: &ItemRef, at: usize, len: usize) -> &[u8] {
        let (part, offset) = self.locate(item.0, at);
        self.arena.bytes(part, offset, len)
    }

    /// A copy of the bytes of a referenced item.
    pub fn copy(&self, item: &ItemRef, at: usize, len: usize) -> Vec<u8> {
        let mut copy = Vec::with_capacity(len);
        self.for_pieces(item.0, at, len, |at, len| {
            copy.extend_from_slice(self.bytes(item, at, len));
        });
        copy
    }

    /// Gives a reference back.
    pub fn release(&self, item: ItemRef) {
        self.slabs.release(&self.arena, item.0);
    }

    /// Everything stored so far is gone; a flush that is still to come is called off.
    pub fn flush(&self, now: u32) {
        self.settle_flush(now);
        self.flush_at.store(0, Relaxed);
        self.note_expiry(now);
        self.table.each(|shard| shard.flush());
    }

    /// Everything stored before second `at` is gone when it comes.
    pub fn flush_at(&self, at: u32, now: u32) {
        self.settle_flush(now);
        self.note_expiry(at);
        self.flush_at.store(at.saturating_sub(1).max(1), Relaxed);
    }

    /// A delayed flush whose time has come stays done when another takes its place.
    fn settle_flush(&self, now: u32) {
        let at = get(&self.flush_at);
        if at != 0 && at <= now {
            self.flushed_to.fetch_max(at, Relaxed);
        }
    }

    /// When the last delayed flush is due; 0 = none.
    pub fn oldest(&self) -> u32 {
        get(&self.flush_at)
    }

    /// Figures of one size class.
    pub fn class_figures(&self, class: usize, now: u32) -> ClassFigures {
        self.slabs.figures(&self.arena, class, now)
    }

    /// Figures of the whole store.
    pub fn figures(&self) -> StoreFigures {
        let mut all = StoreFigures {
            slab_global_page_pool: self.slabs.free_page_count() as u64,
            slabs_moved: self.slabs.moved.load(Relaxed),
            total_pages: self.slabs.pages() as u64,
            hash_buckets: self.table.buckets() as u64,
            ..StoreFigures::default()
        };
        for class in 0..CLASSES {
            let class = self.slabs.figures(&self.arena, class, 0);
            all.curr_items += class.number;
            all.total_items += class.total_items;
            all.bytes += class.mem_requested;
            all.evictions += class.evicted;
            all.reclaimed += class.reclaimed;
            all.evicted_unfetched += class.evicted_unfetched;
            all.expired_unfetched += class.expired_unfetched;
            all.lrutail_reflocked += class.lrutail_reflocked;
            all.moves_within_lru += class.moves_within_lru;
            all.moves_to_cold += class.moves_to_cold;
            all.moves_to_warm += class.moves_to_warm;
            all.crawler_reclaimed += class.crawler_reclaimed;
            all.crawler_items_checked += class.crawler_items_checked;
            all.used_chunks += class.used_chunks;
        }
        all
    }
}
