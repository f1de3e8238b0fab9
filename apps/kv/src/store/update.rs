//! Storing, and read-modify-write: `set` and its relatives, `append`, `prepend`, `incr`, `decr`.
//!
//! Memory is never allocated under a shard's lock (an allocation may have to evict). What needs the
//! old value to size the new one is done optimistically: look, allocate, look again.
use super::arena::{ItemId, NewItem, get, set};
use super::table::ShardGuard;
use super::{KeyHash, Store, stock_item_bytes};
use crate::limits::{ITEM_BYTES_MAX, STOCK_CHUNK_BYTES_MAX, UPDATE_ROUNDS};
use crate::num::{parse_u64, write_u64};
use core::sync::atomic::Ordering::Relaxed;

/// The storage commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's names")]
pub enum Update {
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    /// Only if the version is still this one.
    Cas(u64),
}

/// What a storage command did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "memcached's answers")]
pub enum Stored {
    Stored,
    NotStored,
    Exists,
    NotFound,
}

/// What `incr` or `decr` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// The new value.
    Value(u64),
    /// No such key.
    NotFound,
    /// The value is not a number.
    NotNumeric,
    /// No memory for the new value.
    NoMemory,
}

impl Store {
    /// Stores a filled item under its key.
    pub fn store(&self, item: NewItem, update: Update, now: u32) -> Stored {
        if matches!(update, Update::Append | Update::Prepend) {
            let stored = self.extend(&item, update == Update::Append, now);
            self.discard(item);
            return stored;
        }
        let (hash, key) = self.hash_and_key(&item);
        let mut shard = self.table.lock(hash);
        let old = self.live(&mut shard, hash, key, now).ok();
        let refused = match (update, old) {
            (Update::Add, Some(old)) => {
                self.arena.header(old).active.store(1, Relaxed);
                Some(Stored::NotStored)
            }
            (Update::Replace, None) => Some(Stored::NotStored),
            (Update::Cas(_), None) => Some(Stored::NotFound),
            (Update::Cas(expected), Some(old)) => {
                let cas = self.arena.header(old).cas.load(Relaxed);
                (expected == 0 || cas != expected).then_some(Stored::Exists)
            }
            _ => None,
        };
        if let Some(refused) = refused {
            drop(shard);
            self.discard(item);
            return refused;
        }
        self.replace(&mut shard, old, item, now);
        Stored::Stored
    }

    fn hash_and_key(&self, item: &NewItem) -> (KeyHash, &[u8]) {
        let header = self.arena.header(item.id());
        let key = self.arena.bytes(item.id(), super::PREFIX.len(), header.key_len());
        (KeyHash(get(&header.hash)), key)
    }

    /// Links the new item in place of the old. The owner's reference becomes the table's.
    fn replace(&self, shard: &mut ShardGuard<'_>, old: Option<ItemId>, new: NewItem, now: u32) {
        if let Some(old) = old {
            self.unlink(shard, old);
        }
        self.link(shard, new.id(), now);
    }

    /// `append` or `prepend`: a new item with both values, the old one's flags and expiry.
    fn extend(&self, added: &NewItem, after: bool, now: u32) -> Stored {
        let (hash, key) = self.hash_and_key(added);
        let added_header = self.arena.header(added.id());
        let added_len = added_header.value_len();
        let added_value = self.arena.bytes(added.id(), added_header.value_at(), added_len);
        for _ in 0..UPDATE_ROUNDS {
            let mut shard = self.table.lock(hash);
            let Ok(old) = self.live(&mut shard, hash, key, now) else { return Stored::NotStored };
            let old_header = self.arena.header(old);
            let (version, old_len) = (old_header.cas.load(Relaxed), old_header.value_len());
            let (flags, expires) = (get(&old_header.flags), get(&old_header.expires));
            let reference = super::View { store: self, id: old }.share();
            drop(shard);

            let room = self.allocate(hash, key, flags, expires, old_len + added_len, now);
            let Some(mut new) = room else {
                self.release(reference);
                return Stored::NotStored;
            };
            let old_value = self.bytes(&reference, old_header.value_at(), old_len);
            let (first, second) =
                if after { (old_value, added_value) } else { (added_value, old_value) };
            self.fill(&mut new, 0, first);
            self.fill(&mut new, first.len(), second);
            self.fill(&mut new, old_len + added_len, b"\r\n");
            self.release(reference);
            if self.replace_version(hash, key, version, new, now) {
                return Stored::Stored;
            }
        }
        Stored::NotStored
    }

    /// Replaces the key's item if it is still this version; else gives the new one back.
    fn replace_version(
        &self,
        hash: KeyHash,
        key: &[u8],
        version: u64,
        new: NewItem,
        now: u32,
    ) -> bool {
        let mut shard = self.table.lock(hash);
        let old = self.live(&mut shard, hash, key, now).ok();
        let same = old.filter(|&old| self.arena.header(old).cas.load(Relaxed) == version);
        let Some(old) = same else {
            drop(shard);
            self.discard(new);
            return false;
        };
        // `touch` does not make a new version: what it set meanwhile goes on.
        let expires = get(&self.arena.header(old).expires);
        set(&self.arena.header(new.id()).expires, expires);
        self.replace(&mut shard, Some(old), new, now);
        true
    }

    /// `incr` (or `decr`, which stops at 0) by `delta`. A result that is shorter than the value it
    /// replaces is padded with spaces, as memcached does.
    pub fn arithmetic(
        &self,
        hash: KeyHash,
        key: &[u8],
        incr: bool,
        delta: u64,
        now: u32,
    ) -> Arithmetic {
        for _ in 0..UPDATE_ROUNDS {
            let mut shard = self.table.lock(hash);
            let Ok(id) = self.live(&mut shard, hash, key, now) else {
                return Arithmetic::NotFound;
            };
            let header = self.arena.header(id);
            let (value_at, old_len) = (header.value_at(), header.value_len());
            let (flags, expires) = (get(&header.flags), get(&header.expires));
            let chunked = stock_item_bytes(key.len(), flags, old_len) > STOCK_CHUNK_BYTES_MAX;
            let value = self.arena.bytes(id, value_at, old_len);
            let Some(number) = (if chunked { None } else { parse_u64(value) }) else {
                return Arithmetic::NotNumeric;
            };
            let result =
                if incr { number.wrapping_add(delta) } else { number.saturating_sub(delta) };
            let mut digits = [0; 20];
            let digits_len = write_u64(&mut digits, result);
            let digits = &digits[..digits_len];
            if digits.len() <= old_len && self.arena.rewrite(&mut *shard, id, value_at, digits) {
                self.pad(&mut shard, id, value_at + digits.len(), old_len - digits.len());
                header.cas.store(shard.next_version(), Relaxed);
                return Arithmetic::Value(result);
            }
            let version = header.cas.load(Relaxed);
            drop(shard);

            let len = old_len.max(digits.len());
            let Some(mut new) = self.allocate(hash, key, flags, expires, len, now) else {
                let too_large = stock_item_bytes(key.len(), flags, len) > ITEM_BYTES_MAX;
                debug_assert!(!too_large, "a number is not that long");
                return Arithmetic::NoMemory;
            };
            self.fill(&mut new, 0, digits);
            for at in digits.len()..len {
                self.fill(&mut new, at, b" ");
            }
            self.fill(&mut new, len, b"\r\n");
            if self.replace_version(hash, key, version, new, now) {
                return Arithmetic::Value(result);
            }
        }
        Arithmetic::NoMemory
    }

    fn pad(&self, shard: &mut ShardGuard<'_>, id: ItemId, at: usize, len: usize) {
        for at in at..at + len {
            self.arena.rewrite(&mut **shard, id, at, b" ");
        }
    }
}
