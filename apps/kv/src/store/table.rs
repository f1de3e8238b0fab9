//! The hash table: shards of buckets, each shard under its own spin lock.
use super::arena::{Arena, ItemId, NIL, PREFIX, get, set};
use crate::limits::SHARDS;
use alloc::boxed::Box;
use alloc::vec;
use core::hash::Hasher;
use core::sync::atomic::Ordering::Relaxed;
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;

/// The hash of a key: its shard and its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHash(pub(super) u32);

impl KeyHash {
    pub(super) fn shard(self) -> usize {
        self.0 as usize >> (32 - SHARDS.ilog2())
    }
}

/// What keeps clients from choosing keys that collide.
#[derive(Clone, Copy, Debug)]
pub struct Seed([u64; 4]);

impl From<[u64; 4]> for Seed {
    fn from(words: [u64; 4]) -> Seed {
        Seed(words)
    }
}

impl From<u64> for Seed {
    fn from(word: u64) -> Seed {
        Seed([word; 4])
    }
}

/// What a shard's lock guards.
#[derive(Debug)]
pub(super) struct Shard {
    /// Head of each bucket's chain; a power of two of them.
    heads: Box<[u32]>,
    /// How many versions have been stored in this shard.
    versions: u64,
    /// Items of older versions than this are flushed.
    pub flushed: u64,
    /// Low bits of the shard's version numbers.
    number: u64,
}

#[derive(Debug)]
#[repr(align(64))]
struct Line(spin::Mutex<Shard>);

/// All shards.
#[derive(Debug)]
pub(super) struct Table {
    shards: Box<[Line]>,
    seed: u64,
    shared_seed: SharedSeed,
}

pub(super) type ShardGuard<'a> = spin::MutexGuard<'a, Shard>;

impl Table {
    /// A table for `buckets` chains or a few more. `seed` keeps clients from choosing collisions.
    pub fn new(buckets: usize, Seed(seed): Seed) -> Table {
        let per_shard = (buckets / SHARDS).next_power_of_two().max(16);
        let shard = |number| {
            let heads = vec![NIL; per_shard].into_boxed_slice();
            Line(spin::Mutex::new(Shard { heads, versions: 1, flushed: 0, number }))
        };
        let shared_seed = SharedSeed::from_u64(seed[1] ^ seed[2].rotate_left(32) ^ seed[3]);
        Table { shards: (0..SHARDS as u64).map(shard).collect(), seed: seed[0], shared_seed }
    }

    pub fn buckets(&self) -> usize {
        SHARDS * self.shards[0].0.lock().heads.len()
    }

    #[inline]
    pub fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = FoldHasher::with_seed(self.seed, &self.shared_seed);
        hasher.write(key);
        let hash = hasher.finish();
        KeyHash((hash >> 32) as u32 ^ hash as u32)
    }

    #[inline]
    pub fn lock(&self, hash: KeyHash) -> ShardGuard<'_> {
        self.shards[hash.shard()].0.lock()
    }

    /// For those who already hold a class lock, and must not wait.
    pub fn try_lock(&self, hash: KeyHash) -> Option<ShardGuard<'_>> {
        self.shards[hash.shard()].0.try_lock()
    }

    /// Every shard, one after the other.
    pub fn each(&self, mut f: impl FnMut(&mut Shard)) {
        for line in &self.shards {
            f(&mut line.0.lock());
        }
    }
}

impl Shard {
    fn bucket(&self, hash: KeyHash) -> usize {
        hash.0 as usize & (self.heads.len() - 1)
    }

    /// The item with this key, dead or alive.
    #[inline]
    pub fn find(&self, arena: &Arena, hash: KeyHash, key: &[u8]) -> Option<ItemId> {
        let mut link = self.heads[self.bucket(hash)];
        while let Some(id) = arena.id_from_link(link) {
            let header = arena.header(id);
            if get(&header.hash) == hash.0
                && header.key_len() == key.len()
                && arena.bytes(id, PREFIX.len(), key.len()) == key
            {
                return Some(id);
            }
            link = get(&header.next);
        }
        None
    }

    /// Puts an item first in its bucket, as a new version.
    pub fn insert(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let bucket = self.bucket(KeyHash(get(&header.hash)));
        set(&header.next, self.heads[bucket]);
        self.heads[bucket] = id.link();
        header.cas.store(self.next_version(), Relaxed);
    }

    /// Takes an item out of its bucket.
    pub fn remove(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let bucket = self.bucket(KeyHash(get(&header.hash)));
        let after = get(&header.next);
        if self.heads[bucket] == id.link() {
            self.heads[bucket] = after;
            return;
        }
        let mut link = self.heads[bucket];
        while let Some(before) = arena.id_from_link(link) {
            let before = arena.header(before);
            link = get(&before.next);
            if link == id.link() {
                set(&before.next, after);
                return;
            }
        }
        debug_assert!(false, "a linked item is in its bucket");
    }

    /// A number that no version of any item has had.
    pub fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions * SHARDS as u64 + self.number
    }

    /// All versions so far are flushed.
    pub fn flush(&mut self) {
        self.flushed = self.next_version();
    }
}
