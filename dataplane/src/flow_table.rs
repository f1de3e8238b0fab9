//! The flow table of a group: connections by the RSS hash of their frames.
//!
//! Chained through the connections themselves: a bucket is one index, and the first connection of
//! a chain is nearly always the one that is looked for. The table is as large as the group may
//! have connections, made when the group gets its first: it never rehashes, and chains are short
//! because the hash is keyed. A chain has a limit, so that even an attacker who has learnt the key
//! cannot make look-ups slow.
use crate::conn::CONN_LINES;
use crate::conn::Conn;
use crate::limits::FLOW_CHAIN_MAX;
use crate::prefetch;
use crate::slab::Slab;
use alloc::boxed::Box;
use alloc::vec::Vec;
use ix_abi::IpAddress;

/// No connection.
pub const NIL: u32 = u32::MAX;

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

/// Heads of chains.
#[derive(Debug)]
pub struct FlowTable {
    buckets: Box<[u32]>,
    limit: u32,
    shift: u32,
}

impl FlowTable {
    /// A table for at most `limit` connections of one of `groups` groups.
    pub fn new(limit: u32, groups: u16) -> FlowTable {
        // The low bits of the hash are the group's number, the same for all of its connections.
        FlowTable { buckets: Box::default(), limit, shift: u32::from(groups).trailing_zeros() }
    }

    /// The connection of a flow of our IPv4 address.
    #[inline]
    pub fn find(&self, conns: &Slab<Conn>, hash: u32, key: &FlowKey) -> Option<u32> {
        self.find_at(conns, hash, key, 0)
    }

    /// The connection of a flow of our address in slot `local`. There is one of IPv4, in slot 0, and a
    /// remote address tells the family, so that for IPv4 the key says all.
    #[inline]
    pub fn find_at(&self, conns: &Slab<Conn>, hash: u32, key: &FlowKey, local: u8) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(hash))?;
        while index != NIL {
            let conn = &conns[index];
            if conn.hash == hash
                && conn.remote == key.remote
                && conn.tuple == key.tuple()
                && (local == 0 || conn.local == local)
            {
                return Some(index);
            }
            index = conn.hash_next;
        }
        None
    }

    /// The first connection of the bucket of `hash`.
    #[inline(always)]
    pub fn first(&self, hash: u32) -> u32 {
        self.buckets.get(self.bucket(hash)).copied().unwrap_or(NIL)
    }

    /// The same for an IPv4 flow by its [`tuple`].
    #[inline(always)]
    pub fn find_tuple(&self, conns: &Slab<Conn>, hash: u32, tuple: u64) -> Option<u32> {
        let mut index = *self.buckets.get(self.bucket(hash))?;
        while index != NIL {
            let conn = &conns[index];
            // All that a segment touches, at once: nothing of it depends on the first line.
            prefetch::lines(conn, CONN_LINES);
            if conn.tuple == tuple {
                return Some(index);
            }
            index = conn.hash_next;
        }
        None
    }

    /// Enters a connection under its `hash`; `false` if the chain is at its limit, or there is no
    /// memory for the table.
    #[inline(always)]
    pub fn insert(&mut self, conns: &mut Slab<Conn>, index: u32) -> bool {
        if self.buckets.is_empty() && !self.make() {
            return false;
        }
        let conn = &mut conns[index];
        let bucket = self.bucket(conn.hash);
        let head = core::mem::replace(&mut self.buckets[bucket], index);
        conn.hash_next = head;
        if head != NIL && self.is_too_long(conns, head) {
            self.buckets[bucket] = head;
            return false;
        }
        true
    }

    /// Makes the buckets; `false`: there is no memory.
    #[cold]
    fn make(&mut self) -> bool {
        let count = self.limit.next_power_of_two() as usize;
        let mut buckets = Vec::new();
        if buckets.try_reserve_exact(count).is_err() {
            return false;
        }
        buckets.resize(count, NIL);
        self.buckets = buckets.into_boxed_slice();
        true
    }

    /// Whether a chain that begins with `at` takes no more.
    #[inline(never)]
    fn is_too_long(&self, conns: &Slab<Conn>, mut at: u32) -> bool {
        let mut length = 0;
        while at != NIL {
            length += 1;
            at = conns[at].hash_next;
        }
        length >= FLOW_CHAIN_MAX
    }

    /// Takes a connection out; nothing if it is not in.
    #[inline]
    pub fn remove(&mut self, conns: &mut Slab<Conn>, index: u32) {
        let conn = &conns[index];
        let (next, bucket) = (conn.hash_next, self.bucket(conn.hash));
        let Some(head) = self.buckets.get_mut(bucket) else { return };
        if *head == index {
            *head = next;
            return;
        }
        let at = *head;
        unlink(conns, index, at, next);
    }

    #[inline(always)]
    fn bucket(&self, hash: u32) -> usize {
        (hash >> self.shift) as usize & self.buckets.len().wrapping_sub(1)
    }
}

/// Takes a connection that is followed by `next` out of a chain, which begins with `at`.
#[inline(never)]
fn unlink(conns: &mut Slab<Conn>, index: u32, mut at: u32, next: u32) {
    while at != NIL {
        let after = conns[at].hash_next;
        if after == index {
            conns[at].hash_next = next;
            return;
        }
        at = after;
    }
}

#[cfg(test)]
mod tests;
