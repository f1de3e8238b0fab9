//! Receive-side scaling: the Toeplitz hash by tables, the flow group of a hash, and source ports
//! for connections whose answers shall arrive in a given group.
//!
//! Source and destination are always those of the *received* packet: the remote end first. The
//! hash is linear over XOR, so one table look-up per input byte is all it takes, and a candidate
//! source port costs two.
use alloc::boxed::Box;
use alloc::vec;
use core::ops::Range;
use ix_abi::GroupId;

#[cfg(test)]
mod tests;

/// Bytes of the largest input: two IPv6 addresses and two ports.
const INPUT_MAX: usize = 36;
/// Bytes of a key: as many as the largest input, and 32 bits for the window.
pub const KEY_BYTES: usize = INPUT_MAX + 4;

/// A key from `fill`'s random bytes that [`spreads`].
///
/// Not every key does: of those drawn blindly one in thousands leaves a core without a source port
/// whose answers it would get, many spread the connections of one client over half of the groups,
/// and one in two hundred gives a client's 200 connections from ports in a row to one of two cores.
pub fn draw_key(mut fill: impl FnMut(&mut [u8])) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    // One draw in four is not good enough; the bound is for the sake of having one.
    for _ in 0..1_000 {
        fill(&mut key);
        if spreads(&key) {
            break;
        }
    }
    key
}

/// Bits of the largest group number.
const GROUP_BITS: usize = ix_abi::limits::GROUPS_MAX.trailing_zeros() as usize;
/// The lowest bits of the hash, which choose between as many as 16 queues ([`initial_owner`](crate::config::initial_owner)).
const QUEUE_BITS: usize = 4;
/// Where the ports begin in the input, in bits: those of IPv4 and IPv6, of the sender and the receiver.
const SENDERS: [usize; 2] = [64, 256];
const RECEIVERS: [usize; 2] = [80, 272];

/// Whether ports alone reach every group, of up to 512, and ports in a row all queues.
///
/// The group is a linear function over GF(2) of the port's bits. It must have full rank over the 15
/// bits that [`SourcePorts`] varies, of the sender's and of the receiver's port. And a client that takes
/// one port after the other, or each second one as Linux does, varies the lowest bits only: those
/// of a sender's port, but for the very lowest, must reach as many as 16 queues. Of 128 such ports
/// from a multiple of 128 each queue gets the same number.
pub fn spreads(key: &[u8; KEY_BYTES]) -> bool {
    let everywhere =
        SENDERS.iter().chain(&RECEIVERS).all(|at| reaches(key, at + 1..at + 16, GROUP_BITS));
    everywhere && SENDERS.iter().all(|at| reaches(key, at + 9..at + 15, QUEUE_BITS))
}

/// Whether the input's bits `from` give the hash's lowest `count` bits every value: Gauss' elimination.
fn reaches(key: &[u8; KEY_BYTES], from: Range<usize>, count: usize) -> bool {
    let mut basis = [0_u32; GROUP_BITS];
    for bit in from {
        let mut vector = low_bits(key, bit, count);
        for i in (0..count).rev() {
            if vector >> i & 1 == 0 {
                continue;
            }
            if basis[i] == 0 {
                basis[i] = vector;
                break;
            }
            vector ^= basis[i];
        }
    }
    basis[..count].iter().all(|vector| *vector != 0)
}

/// What the input's bit `bit` contributes to the hash's lowest `count` bits.
fn low_bits(key: &[u8; KEY_BYTES], bit: usize, count: usize) -> u32 {
    (0..count).fold(0, |word, i| {
        let at = bit + 31 - i;
        word | u32::from(key[at / 8] >> (7 - at % 8) & 1) << i
    })
}

/// For input byte `i` of value `b`, `tables[i][b]` is its contribution to the hash. 36 KiB, of
/// which IPv4 with ports touches the first 12; share it by reference.
pub struct Toeplitz {
    tables: Box<[[u32; 256]; INPUT_MAX]>,
}

// The tables are the key, and the key is secret.
impl core::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Toeplitz").finish_non_exhaustive()
    }
}

impl Toeplitz {
    /// The tables of a key.
    pub fn new(key: &[u8; KEY_BYTES]) -> Toeplitz {
        let mut tables = vec![[0; 256]; INPUT_MAX].into_boxed_slice();
        for (i, table) in tables.iter_mut().enumerate() {
            let window = u64::from_be_bytes([
                key[i],
                key[i + 1],
                key[i + 2],
                key[i + 3],
                // Byte 5 of the window, then nothing: shifts are at most 7.
                key[i + 4],
                0,
                0,
                0,
            ]);
            for (value, entry) in table.iter_mut().enumerate() {
                *entry = (0..8)
                    .filter(|bit| value & (0x80 >> bit) != 0)
                    .fold(0, |hash, bit| hash ^ ((window << bit) >> 32) as u32);
            }
        }
        let Ok(tables) = tables.try_into() else { unreachable!("made with this length") };
        Toeplitz { tables }
    }

    #[inline(always)]
    fn sum<const N: usize>(&self, from: usize, bytes: [u8; N]) -> u32 {
        let mut hash = 0;
        let mut i = 0;
        while i < N {
            hash ^= self.tables[from + i][usize::from(bytes[i])];
            i += 1;
        }
        hash
    }

    /// IPv4 with ports: TCP, and UDP where the port hashes it so.
    #[inline(always)]
    pub fn hash_v4(&self, src: [u8; 4], dst: [u8; 4], sport: u16, dport: u16) -> u32 {
        self.hash_v4_addresses(src, dst)
            ^ self.sum(8, sport.to_be_bytes())
            ^ self.sum(10, dport.to_be_bytes())
    }

    /// What [`Toeplitz::hash_v4`] has of the destination alone: the same for all that arrives at an address.
    pub fn destination_v4(&self, dst: [u8; 4]) -> u32 {
        self.sum(4, dst)
    }

    /// [`Toeplitz::hash_v4`] from the rest of it; both ports as a header has them.
    #[inline]
    pub fn hash_to_v4(&self, destination: u32, src: [u8; 4], ports: [u8; 4]) -> u32 {
        destination ^ self.sum(0, src) ^ self.sum(8, ports)
    }

    /// IPv4 without ports: fragments and other protocols.
    #[inline]
    pub fn hash_v4_addresses(&self, src: [u8; 4], dst: [u8; 4]) -> u32 {
        self.sum(0, src) ^ self.sum(4, dst)
    }

    /// IPv6 with ports.
    #[inline]
    pub fn hash_v6(&self, src: [u8; 16], dst: [u8; 16], sport: u16, dport: u16) -> u32 {
        self.hash_v6_addresses(src, dst)
            ^ self.sum(32, sport.to_be_bytes())
            ^ self.sum(34, dport.to_be_bytes())
    }

    /// IPv6 without ports.
    #[inline]
    pub fn hash_v6_addresses(&self, src: [u8; 16], dst: [u8; 16]) -> u32 {
        self.sum(0, src) ^ self.sum(16, dst)
    }

    /// Source ports for a connection from `local` to `remote`, with the hash that the answers will
    /// have: the caller takes the first that suits it. Each port once, in an order drawn by `random`.
    pub fn source_ports_v4(
        &self,
        local: [u8; 4],
        remote: [u8; 4],
        remote_port: u16,
        random: u32,
    ) -> SourcePorts<'_> {
        // A zero byte contributes nothing: this is the hash without the local port.
        SourcePorts::new(self, 10, self.hash_v4(remote, local, remote_port, 0), random)
    }

    /// The same for IPv6.
    pub fn source_ports_v6(
        &self,
        local: [u8; 16],
        remote: [u8; 16],
        remote_port: u16,
        random: u32,
    ) -> SourcePorts<'_> {
        SourcePorts::new(self, 34, self.hash_v6(remote, local, remote_port, 0), random)
    }
}

/// The flow group of a hash: the index into the indirection table (82599 datasheet §7.1.2.8,
/// virtio 1.2 §5.1.6.4.3). `groups` is a power of two.
#[inline]
pub const fn group_of(hash: u32, groups: u16) -> GroupId {
    debug_assert!(groups.is_power_of_two());
    GroupId((hash & (groups as u32 - 1)) as u16)
}

/// Lowest source port that [`SourcePorts`] gives.
pub const SOURCE_PORT_MIN: u16 = 1 << 15;
/// How many there are; a power of two.
pub const SOURCE_PORTS: u32 = 1 << 15;

/// Candidates for a source port, each once, with the hash of the packets that will arrive for it.
///
/// Start and stride are random (the purpose of RFC 6056): an odd stride visits every port. Of `c`
/// cores with equal shares, the caller's predicate takes one in `c`; bound it with `take`. The ports are stirred: the
/// hash is linear, and those of a small stride, or of one near a large power of two, differ in few bits, on which a
/// core's groups may not depend at all.
#[derive(Clone, Debug)]
pub struct SourcePorts<'a> {
    toeplitz: &'a Toeplitz,
    port_at: usize,
    without_port: u32,
    next: u32,
    stride: u32,
    left: u32,
}

impl<'a> SourcePorts<'a> {
    fn new(toeplitz: &'a Toeplitz, port_at: usize, without_port: u32, random: u32) -> Self {
        let stride = (random >> 16) | 1;
        SourcePorts { toeplitz, port_at, without_port, next: random, stride, left: SOURCE_PORTS }
    }
}

/// Each of the numbers below [`SOURCE_PORTS`] for another of them, in no order that bits would show.
const fn stirred(number: u32) -> u32 {
    let folded = number ^ number >> 8;
    let spread = folded.wrapping_mul(0x6b4d) & (SOURCE_PORTS - 1);
    spread ^ spread >> 7
}

impl Iterator for SourcePorts<'_> {
    type Item = (u16, u32);

    fn next(&mut self) -> Option<(u16, u32)> {
        self.left = self.left.checked_sub(1)?;
        let port = SOURCE_PORT_MIN | stirred(self.next & (SOURCE_PORTS - 1)) as u16;
        self.next = self.next.wrapping_add(self.stride);
        Some((port, self.without_port ^ self.toeplitz.sum(self.port_at, port.to_be_bytes())))
    }
}
