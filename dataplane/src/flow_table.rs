//! The flow table of a group: connections by the RSS hash of their frames.
//!
//! Chained through the connections themselves: a bucket is one index, and the first connection of
//! a chain is nearly always the one that is looked for. There is memory for as many buckets as the group
//! may have connections, taken when the group gets its first; used are so many of them, at the front, as the
//! connections that there were at most need, so that they share few cache lines. Their number doubles by a copy of the heads: two
//! buckets then share a chain, until something is entered or taken out there, or their turn comes, four
//! pairs with each connection that is entered. Who looks for something notices nothing. Chains are short
//! because the hash is keyed. A chain has a limit, so that even an attacker who has learnt the key
//! cannot make look-ups slow.
use crate::conn::{CONN_LINES, Conns};
use crate::limits::FLOW_CHAIN_MAX;
use crate::prefetch;
use crate::slab::CHUNK;
use alloc::boxed::Box;
use alloc::vec::Vec;
use ix_abi::IpAddress;

/// No connection.
pub const NIL: u32 = u32::MAX;

/// Index of a connection in its group, as chains of the flow table have it: of two bytes, so that the table needs few cache
/// lines.
pub type Link = u16;
/// The end of a chain.
pub const END: Link = Link::MAX;
/// Connections that a table can have: so many that no slot has the number [`END`], in use or not.
pub const CAPACITY_MAX: u32 = END as u32 / CHUNK as u32 * CHUNK as u32;

/// What tells connections of one local address apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowKey {
    /// The peer.
    pub remote: IpAddress,
    /// Its port.
    pub remote_port: u16,
    /// Our port.
    pub local_port: u16,
}

impl FlowKey {
    /// An IPv4 peer's address and both ports in one word, in the order of a received header; of others the ports
    /// alone.
    pub fn tuple(&self) -> u64 {
        let remote = self.remote.to_v4().unwrap_or_default();
        let ([a, b], [c, d]) = (self.remote_port.to_be_bytes(), self.local_port.to_be_bytes());
        tuple(remote, [a, b, c, d])
    }
}

/// See [`FlowKey::tuple`]; `ports` as a header has them.
#[inline(always)]
pub const fn tuple(remote: [u8; 4], ports: [u8; 4]) -> u64 {
    u32::from_ne_bytes(remote) as u64 | (u32::from_ne_bytes(ports) as u64) << 32
}

/// Buckets of a table that is used for the first time. (With few, sources that differ in few bits may share them: the hash is linear.)
const FIRST: u32 = 256;
/// Their number doubles when there are fewer for each connection.
const BUCKETS_PER_CONNECTION: u32 = 4;

/// Heads of chains.
#[derive(Debug)]
pub struct FlowTable {
    /// Those in use, a power of two, then those to come.
    buckets: Box<[Link]>,
    limit: u32,
    shift: u32,
    /// Of those in use.
    mask: u32,
    /// Connections.
    len: u32,
    /// With so many more is to be done than to enter one: see [`FlowTable::prepare`].
    odd_from: u32,
    /// Pairs below this are told apart, of as many as half the buckets in use.
    told_apart: u32,
}

impl FlowTable {
    /// A table for at most `limit` connections, up to [`CAPACITY_MAX`], of one of `groups` groups.
    pub fn new(limit: u32, groups: u16) -> FlowTable {
        assert!(limit <= CAPACITY_MAX, "{limit} connections in one table");
        // The low bits of the hash are the group's number, the same for all of its connections.
        let shift = u32::from(groups).trailing_zeros();
        FlowTable {
            buckets: Box::default(),
            limit,
            shift,
            mask: 0,
            len: 0,
            odd_from: 0,
            told_apart: 0,
        }
    }

    /// Connections.
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The connection of a flow of our IPv4 address.
    #[inline]
    pub fn find(&self, conns: &Conns, hash: u32, key: &FlowKey) -> Option<u32> {
        self.find_at(conns, hash, key, 0)
    }

    /// The connection of a flow of our address in slot `local`. There is one of IPv4, in slot 0, and a
    /// remote address tells the family, so that for IPv4 the key says all.
    #[inline]
    pub fn find_at(&self, conns: &Conns, hash: u32, key: &FlowKey, local: u8) -> Option<u32> {
        let mut link = *self.buckets.get(self.bucket(hash))?;
        while link != END {
            let conn = conns.at(link.into());
            if conn.hash == hash
                && conn.remote == key.remote
                && conn.tuple == key.tuple()
                && (local == 0 || conn.local == local)
            {
                return Some(link.into());
            }
            link = conn.hash_next;
        }
        None
    }

    /// Where the first connection of the chain of `hash` is named.
    #[inline(always)]
    pub fn head(&self, hash: u32) -> Option<&Link> {
        self.buckets.get(self.bucket(hash))
    }

    /// The connection of an IPv4 flow by its [`tuple`].
    #[inline(always)]
    pub fn find_tuple(&self, conns: &Conns, hash: u32, tuple: u64) -> Option<u32> {
        let mut link = *self.head(hash)?;
        // The end is the number of no connection: so that is not asked apart.
        while let Some(conn) = conns.get(link.into()) {
            // All that a segment touches, at once: nothing of it depends on the first line.
            prefetch::behind(conn, CONN_LINES);
            if conn.tuple == tuple {
                return Some(link.into());
            }
            link = conn.hash_next;
        }
        None
    }

    /// Enters a connection under `hash`, which is its own; `false` if the chain is at its limit, or there is no
    /// memory for the table.
    #[inline(always)]
    pub fn insert(&mut self, conns: &mut Conns, index: u32, hash: u32) -> bool {
        if self.len >= self.odd_from && !self.prepare(conns, hash) {
            return false;
        }
        let bucket = self.bucket(hash);
        let head = core::mem::replace(&mut self.buckets[bucket], index as Link);
        conns.at_mut(index).hash_next = head;
        if head != END && self.is_too_long(conns, head) {
            self.buckets[bucket] = head;
            return false;
        }
        self.len += 1;
        true
    }

    /// Before a connection is entered, if there is no table yet, some buckets still share a chain, or they are few. `false`: there
    /// is no memory for a table.
    #[cold]
    fn prepare(&mut self, conns: &mut Conns, hash: u32) -> bool {
        if self.buckets.is_empty() && !self.make() {
            return false;
        }
        if self.odd_from != 0 && self.len >= self.odd_from {
            self.double();
        }
        // Before their number doubles again, all are.
        for _ in 0..BUCKETS_PER_CONNECTION {
            if self.told_apart < self.half() {
                self.tell_apart(conns, self.told_apart);
                self.told_apart += 1;
            }
        }
        self.tell_apart_for(conns, hash);
        if self.told_apart >= self.half() {
            self.odd_from = match self.mask as usize + 1 {
                count if count < self.buckets.len() => count as u32 / BUCKETS_PER_CONNECTION,
                _ => u32::MAX,
            };
        }
        true
    }

    /// Takes as many buckets again into use, each with the chain of its twin.
    fn double(&mut self) {
        let count = self.mask as usize + 1;
        self.buckets.copy_within(..count, count);
        self.mask = 2 * self.mask + 1;
        (self.odd_from, self.told_apart) = (0, 0);
    }

    fn half(&self) -> u32 {
        self.mask / 2 + 1
    }

    /// The bucket of a hash gets a chain of its own, if it shares one.
    #[cold]
    fn tell_apart_for(&mut self, conns: &mut Conns, hash: u32) {
        let bucket = self.bucket(hash) as u32;
        self.tell_apart(conns, bucket & (self.mask >> 1));
    }

    /// Bucket `low` and its twin get a chain each, if they share one: then both have the same head.
    fn tell_apart(&mut self, conns: &mut Conns, low: u32) {
        let (low, high) = (low as usize, (low + self.half()) as usize);
        let mut at = self.buckets[low];
        if at == END || at != self.buckets[high] {
            return;
        }
        (self.buckets[low], self.buckets[high]) = (END, END);
        while at != END {
            let bucket = self.bucket(conns.at(at.into()).hash);
            debug_assert!(bucket == low || bucket == high);
            let head = core::mem::replace(&mut self.buckets[bucket], at);
            at = core::mem::replace(&mut conns.at_mut(at.into()).hash_next, head);
        }
    }

    /// Makes the buckets; `false`: there is no memory.
    #[cold]
    fn make(&mut self) -> bool {
        let count = (self.limit.max(FIRST)).next_power_of_two() as usize;
        let mut buckets = Vec::new();
        if buckets.try_reserve_exact(count).is_err() {
            return false;
        }
        buckets.resize(count, END);
        self.buckets = buckets.into_boxed_slice();
        (self.mask, self.told_apart) = (FIRST - 1, FIRST / 2);
        self.odd_from = FIRST / BUCKETS_PER_CONNECTION;
        true
    }

    /// Whether a chain that begins with `at` takes no more.
    #[inline(never)]
    fn is_too_long(&self, conns: &Conns, mut at: Link) -> bool {
        let mut length = 0;
        while at != END {
            length += 1;
            at = conns.at(at.into()).hash_next;
        }
        length >= FLOW_CHAIN_MAX
    }

    /// Takes a connection out; nothing if it is not in.
    #[inline]
    pub fn remove(&mut self, conns: &mut Conns, index: u32) {
        let mut conn = conns.at(index);
        if self.odd_from == 0 {
            let hash = conn.hash;
            self.tell_apart_for(conns, hash);
            conn = conns.at(index);
        }
        let (next, bucket) = (conn.hash_next, self.bucket(conn.hash));
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if u32::from(*head) == index {
            *head = next;
            self.len -= 1;
            return;
        }
        let at = *head;
        self.len -= u32::from(unlink(conns, index, at, next));
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> usize {
        (hash >> self.shift & self.mask) as usize
    }
}

/// Takes a connection that is followed by `next` out of a chain, which begins with `at`; whether it was there.
#[inline(never)]
fn unlink(conns: &mut Conns, index: u32, mut at: Link, next: Link) -> bool {
    while at != END {
        let after = conns.at(at.into()).hash_next;
        if u32::from(after) == index {
            conns.at_mut(at.into()).hash_next = next;
            return true;
        }
        at = after;
    }
    false
}

#[cfg(test)]
mod tests;
