//! Storing, and read-modify-write: `set` and its relatives, `append`, `prepend`, `incr`, `decr`.
//!
//! Memory is never allocated under a shard's lock (an allocation may have to evict). What needs the
//! old value to size the new one is done optimistically: look, allocate, look again.
use super::arena::{ItemId, NewItem, STALE, TOKEN_SENT, get, set};
use super::table::ShardGuard;
use super::{KeyHash, Store, View, stock_item_bytes};
use crate::limits::{STOCK_CHUNK_BYTES_MAX, UPDATE_ROUNDS};
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

/// A storage command with all that meta commands may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// What to do.
    pub update: Update,
    /// For `Append` and `Prepend`: only if the version is still this one; 0 = whatever it is.
    pub expected: u64,
    /// For `Cas`: a version older than the item's stores, too, and marks the item as stale.
    pub stale: bool,
}

impl From<Update> for Terms {
    fn from(update: Update) -> Terms {
        Terms { update, expected: 0, stale: false }
    }
}

/// What `incr` or `decr` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Up, or down to 0.
    pub incr: bool,
    /// By how much.
    pub by: u64,
    /// Only if the version is still this one; 0 = whatever it is.
    pub expected: u64,
}

/// What became of a key that was to be removed or invalidated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Deleted,
    /// It is marked as stale.
    Invalidated,
    /// It has another version.
    Exists,
    /// No such key.
    NotFound,
}

/// What `incr` or `decr` did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// The new value.
    Value(u64),
    /// No such key.
    NotFound,
    /// It has another version.
    Exists,
    /// The value is not a number.
    NotNumeric,
    /// No memory for the new value.
    NoMemory,
}

impl Store {
    /// Stores a filled item under its key.
    pub fn store(&self, item: NewItem, update: Update, now: u32) -> Stored {
        self.store_on(item, update.into(), now).0
    }

    /// The same, on terms; with the version of what has been stored.
    pub fn store_on(&self, item: NewItem, terms: Terms, now: u32) -> (Stored, u64) {
        let Terms { update, expected, stale } = terms;
        if matches!(update, Update::Append | Update::Prepend) {
            let stored = self.extend(&item, update == Update::Append, expected, now);
            self.discard(item);
            return stored;
        }
        let (hash, key) = self.hash_and_key(&item);
        let mut shard = self.table.lock(hash);
        let old = self.live(&mut shard, hash, key, now).ok();
        let refused = match (update, old) {
            (Update::Add, Some(_)) | (Update::Replace, None) => Some(Stored::NotStored),
            (Update::Cas(_), None) => Some(Stored::NotFound),
            (Update::Cas(expected), Some(old)) => {
                let old = self.arena.header(old);
                let cas = old.cas.load(Relaxed);
                if stale && 0 < expected && expected < cas {
                    // What comes late is kept, for want of better, with its time and its marks.
                    let new = self.arena.header(item.id());
                    set(&new.expires, get(&old.expires));
                    new.set_mark(STALE, true);
                    new.set_mark(TOKEN_SENT, old.marked(TOKEN_SENT));
                    None
                } else {
                    (expected == 0 || cas != expected).then_some(Stored::Exists)
                }
            }
            _ => None,
        };
        if let Some(refused) = refused {
            drop(shard);
            self.discard(item);
            return (refused, 0);
        }
        (Stored::Stored, self.replace(&mut shard, old, item, now))
    }

    /// Stores a filled item if there is none with its key, and shows it to `f`; else gives it back.
    pub fn insert<R>(
        &self,
        item: NewItem,
        now: u32,
        f: impl FnOnce(&View<'_>) -> R,
    ) -> Result<R, NewItem> {
        let (hash, key) = self.hash_and_key(&item);
        let mut shard = self.table.lock(hash);
        if self.live(&mut shard, hash, key, now).is_ok() {
            drop(shard);
            return Err(item);
        }
        let id = item.id();
        self.replace(&mut shard, None, item, now);
        Ok(f(&View { store: self, id }))
    }

    /// Removes a key, or, if `invalidate`, marks its item as stale, for one client to fetch the value
    /// anew; `expires` is then its new expiry. Only if the version is `expected`, if that is given.
    pub fn remove(
        &self,
        hash: KeyHash,
        key: &[u8],
        expected: Option<u64>,
        invalidate: Option<Option<u32>>,
        now: u32,
    ) -> Removed {
        let mut shard = self.table.lock(hash);
        let Ok(id) = self.live(&mut shard, hash, key, now) else { return Removed::NotFound };
        let header = self.arena.header(id);
        if expected.is_some_and(|cas| cas != header.cas.load(Relaxed)) {
            return Removed::Exists;
        }
        let Some(expires) = invalidate else {
            self.unlink(&mut shard, id);
            return Removed::Deleted;
        };
        if let Some(expires) = expires {
            set(&header.expires, expires);
        }
        header.set_mark(STALE, true);
        header.set_mark(TOKEN_SENT, false);
        header.cas.store(shard.next_version(), Relaxed);
        Removed::Invalidated
    }

    fn hash_and_key(&self, item: &NewItem) -> (KeyHash, &[u8]) {
        let header = self.arena.header(item.id());
        let key = self.arena.bytes(item.id(), super::PREFIX.len(), header.key_len());
        (KeyHash(get(&header.hash)), key)
    }

    /// Links the new item in place of the old. The owner's reference becomes the table's.
    /// The new version's number.
    fn replace(
        &self,
        shard: &mut ShardGuard<'_>,
        old: Option<ItemId>,
        new: NewItem,
        now: u32,
    ) -> u64 {
        if let Some(old) = old {
            self.unlink(shard, old);
        }
        self.link(shard, new.id(), now);
        self.arena.header(new.id()).cas.load(Relaxed)
    }

    /// `append` or `prepend`: a new item with both values, the old one's flags and expiry.
    fn extend(&self, added: &NewItem, after: bool, expected: u64, now: u32) -> (Stored, u64) {
        let (hash, key) = self.hash_and_key(added);
        let added_header = self.arena.header(added.id());
        let added_len = added_header.value_len();
        for _ in 0..UPDATE_ROUNDS {
            let mut shard = self.table.lock(hash);
            let Ok(old) = self.live(&mut shard, hash, key, now) else {
                return (Stored::NotStored, 0);
            };
            let old_header = self.arena.header(old);
            let (version, old_len) = (old_header.cas.load(Relaxed), old_header.value_len());
            if expected != 0 && version != expected {
                return (Stored::Exists, 0);
            }
            let (flags, expires) = (get(&old_header.flags), get(&old_header.expires));
            let reference = View { store: self, id: old }.share();
            drop(shard);

            let room = self.allocate(hash, key, flags, expires, old_len + added_len, now);
            let Some(mut new) = room else {
                self.release(reference);
                return (Stored::NotStored, 0);
            };
            let at = self.arena.header(new.id()).value_at();
            let (old_at, added_at) = if after { (at, at + old_len) } else { (at + added_len, at) };
            self.copy_pieces((old, old_header.value_at()), &mut new, old_at, old_len);
            let added_from = (added.id(), added_header.value_at());
            self.copy_pieces(added_from, &mut new, added_at, added_len);
            self.fill(&mut new, old_len + added_len, b"\r\n");
            self.release(reference);
            let mut stored = 0;
            if self.replace_version(hash, version, new, now, &mut |view| stored = view.cas()) {
                return (Stored::Stored, stored);
            }
        }
        (Stored::NotStored, 0)
    }

    /// Replaces the key's item if it is still this version, and shows the new one to `done`; else
    /// discards it.
    fn replace_version(
        &self,
        hash: KeyHash,
        version: u64,
        new: NewItem,
        now: u32,
        done: &mut dyn FnMut(&View<'_>),
    ) -> bool {
        let (_, key) = self.hash_and_key(&new);
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
        let id = new.id();
        self.replace(&mut shard, Some(old), new, now);
        done(&View { store: self, id });
        true
    }

    /// `incr` (or `decr`, which stops at 0) by `delta`. A result that is shorter than the value it
    /// replaces is padded with spaces, as memcached does. The item with the result is shown to `done`.
    pub fn arithmetic(
        &self,
        hash: KeyHash,
        key: &[u8],
        delta: Delta,
        now: u32,
        done: &mut dyn FnMut(&View<'_>, u64),
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
            if chunked || old_len == 0 {
                return Arithmetic::NotNumeric;
            }
            if delta.expected != 0 && delta.expected != header.cas.load(Relaxed) {
                return Arithmetic::Exists;
            }
            let value = self.arena.bytes(id, value_at, old_len);
            let Some(number) = parse_u64(value) else {
                return Arithmetic::NotNumeric;
            };
            let result = if delta.incr {
                number.wrapping_add(delta.by)
            } else {
                number.saturating_sub(delta.by)
            };
            let mut digits = [0; 20];
            let digits_len = write_u64(&mut digits, result);
            let digits = &digits[..digits_len];
            if digits.len() <= old_len && self.arena.rewrite(&mut *shard, id, value_at, digits) {
                self.pad(&mut shard, id, value_at + digits.len(), old_len - digits.len());
                header.cas.store(shard.next_version(), Relaxed);
                done(&View { store: self, id }, result);
                return Arithmetic::Value(result);
            }
            let version = header.cas.load(Relaxed);
            drop(shard);

            let len = old_len.max(digits.len());
            let Some(mut new) = self.allocate(hash, key, flags, expires, len, now) else {
                return Arithmetic::NoMemory;
            };
            self.fill(&mut new, 0, digits);
            for at in digits.len()..len {
                self.fill(&mut new, at, b" ");
            }
            self.fill(&mut new, len, b"\r\n");
            let mut done = |view: &View<'_>| done(view, result);
            if self.replace_version(hash, version, new, now, &mut done) {
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
