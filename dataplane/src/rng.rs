//! Randomness from a key: SipHash-2-4 as a keyed hash, the generator made of it, and initial
//! sequence numbers.
//!
//! One primitive for all: what peers see of it (ports, transaction ids, sequence numbers) tells
//! them nothing about what comes next as long as the key is secret, and a simulation that gives the
//! key gets the same run again.
use crate::time::Instant;
use ix_abi::addr::SocketAddress;

#[cfg(test)]
mod tests;

/// A secret key for SipHash-2-4 (Aumasson, Bernstein 2012).
#[derive(Clone, Copy)]
pub struct SipKey(pub [u64; 2]);

// A secret does not belong into logs.
impl core::fmt::Debug for SipKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("SipKey(..)")
    }
}

impl SipKey {
    /// The hash of whole words, the same as that of their little-endian bytes.
    #[inline(always)]
    pub fn hash<const N: usize>(&self, words: [u64; N]) -> u64 {
        let [k0, k1] = self.0;
        let mut v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        for word in words {
            compress(&mut v, word);
        }
        // The last block holds the length in bytes, modulo 256, in its top byte.
        compress(&mut v, (N as u64 * 8) << 56);
        v[2] ^= 0xff;
        for _ in 0..4 {
            round(&mut v);
        }
        v[0] ^ v[1] ^ v[2] ^ v[3]
    }

    /// The initial sequence number of a connection (RFC 6528 §3): a clock of 4 µs plus a hash of
    /// the addresses, so that a new incarnation starts above the last and no one else can guess it.
    pub fn initial_sequence(
        &self,
        local: SocketAddress,
        remote: SocketAddress,
        now: Instant,
    ) -> u32 {
        self.initial_numbers(local, remote, now).0
    }

    /// The same, and what the connection adds to the clock of its timestamps (RFC 7323 §7.1): the
    /// other half of the hash, so that a new incarnation's timestamps go on where the last's ended
    /// and connections do not show each other's.
    pub fn initial_numbers(
        &self,
        local: SocketAddress,
        remote: SocketAddress,
        now: Instant,
    ) -> (u32, u32) {
        let ports = u64::from(local.port) << 16 | u64::from(remote.port);
        if let (Some(l), Some(r)) = (local.ip.to_v4(), remote.ip.to_v4()) {
            return self.initial_numbers_v4(l, r, (local.port, remote.port), now);
        }
        let [l0, l1] = local.ip.to_words();
        let [r0, r1] = remote.ip.to_words();
        numbers(self.hash([l0, l1, r0, r1, ports]), now)
    }

    /// The same between IPv4 addresses, from a hash of two words, which is none of five; ports are ours and the
    /// peer's.
    #[inline]
    pub fn initial_numbers_v4(
        &self,
        local: [u8; 4],
        remote: [u8; 4],
        ports: (u16, u16),
        now: Instant,
    ) -> (u32, u32) {
        let word = |ip| u64::from(u32::from_ne_bytes(ip));
        let ports = u64::from(ports.0) << 16 | u64::from(ports.1);
        numbers(self.hash([word(local) << 32 | word(remote), ports]), now)
    }
}

/// A sequence number and an offset of timestamps from a hash.
#[inline(always)]
fn numbers(hash: u64, now: Instant) -> (u32, u32) {
    let clock = (now.0 / 4_000) as u32;
    (clock.wrapping_add(hash as u32), (hash >> 32) as u32)
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

/// A generator: the keyed hash of a counter.
#[derive(Clone, Debug)]
pub struct Rng {
    key: SipKey,
    counter: u64,
}

impl Rng {
    /// The generator of a key with 128 bits of entropy.
    pub const fn from_key(key: SipKey) -> Rng {
        Rng { key, counter: 0 }
    }

    /// The generator of a small seed, for simulations and tests.
    pub fn from_seed(seed: u64) -> Rng {
        Rng::from_key(SipKey([seed, !seed]))
    }

    /// A generator of its own for somebody else; both go on independently.
    pub fn fork(&mut self) -> Rng {
        Rng::from_key(self.key())
    }

    /// A fresh key.
    pub fn key(&mut self) -> SipKey {
        SipKey([self.next_u64(), self.next_u64()])
    }

    /// 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        self.key.hash([self.counter])
    }

    /// 32 random bits.
    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        self.next_u64() as u32
    }

    /// A number below `n`; 0 if `n` is 0. The bias is at most `n / 2^64`.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Whether an event of probability `numerator / denominator` happens.
    #[inline]
    pub fn chance(&mut self, numerator: u64, denominator: u64) -> bool {
        if numerator == 0 {
            // Never, and what comes next is the same: the simulation asks this more than anything else.
            self.counter = self.counter.wrapping_add(1);
            return false;
        }
        self.below(denominator) < numerator
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
