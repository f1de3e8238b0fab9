//! What both floors know of a frame of TCP over IPv4 without options of IP: whose it is, and its checksums.
use crate::wire::{ETHERNET, TCP};
use ix_dataplane::checksum;

/// Whose: three words of the headers, as they stand there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The sender's address.
    pub remote: u32,
    /// Ours.
    pub local: u32,
    /// Both ports, the sender's first.
    pub ports: u32,
}

impl Key {
    /// Of a frame with all its headers.
    #[inline(always)]
    pub fn of(f: &[u8]) -> Key {
        Key { remote: word(f, 26), local: word(f, 30), ports: word(f, 34) }
    }
}

/// Four bytes, in their order in memory.
#[inline(always)]
pub fn word(f: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes([f[at], f[at + 1], f[at + 2], f[at + 3]])
}

/// Whether both checksums of a frame of `total` bytes of IP are right.
#[inline(always)]
pub fn is_intact(f: &[u8], total: usize) -> bool {
    let sum = checksum::add(pseudo(f, total), checksum::sum(&f[TCP..ETHERNET + total]));
    checksum::is_good(checksum::sum(&f[ETHERNET..TCP])) && checksum::is_good(sum)
}

/// Writes both checksums of a frame of `total` bytes of IP, of which the first are here, with 0 in their places; the rest has this sum.
#[inline(always)]
pub fn sign(f: &mut [u8], total: usize, rest: u64) {
    let sum = checksum::finish(checksum::sum(&f[ETHERNET..TCP]));
    f[24..26].copy_from_slice(&sum);
    let here = checksum::add(pseudo(f, total), checksum::sum(&f[TCP..]));
    let sum = checksum::finish(checksum::add(here, rest));
    f[50..52].copy_from_slice(&sum);
}

/// The pseudo-header's sum.
#[inline(always)]
fn pseudo(f: &[u8], total: usize) -> u64 {
    let len = u64::from(((total - 20) as u16).to_be());
    checksum::add(checksum::sum(&f[26..TCP]), len + 0x0600)
}
