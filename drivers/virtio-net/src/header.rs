//! `struct virtio_net_hdr` in front of every frame (virtio 1.2 §5.1.6).
//!
//! ```text
//!  0 flags  1 gso_type  2 hdr_len  4 gso_size  6 csum_start  8 csum_offset  10 num_buffers
//! 12 hash_value  16 hash_report  18 padding        (with HASH_REPORT only)
//! ```
use ix_dataplane::device::{Gso, RxChecksum, TxChecksum};

/// Without the hash. VERSION_1 always has `num_buffers`.
pub(crate) const BYTES: u16 = 12;
/// With the hash.
pub(crate) const BYTES_HASH: u16 = 20;
/// Bytes of an Ethernet header: less is no frame.
pub(crate) const ETHERNET_BYTES: u16 = 14;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
/// `gso_type` (§5.1.6).
const GSO_TCPV4: u64 = 1;
const GSO_TCPV6: u64 = 4;
/// IP protocol numbers.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// `hash_report` values of hashes over ports too: TCP and UDP over IPv4 and IPv6 (§5.1.6.4.4).
const REPORTS_WITH_PORTS: u32 = 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6;

/// The fields of a transmit header that vary, packed: `flags` 8 bits, `gso_type` 8, `gso_size` 16,
/// `csum_start` 16, `csum_offset` 8, `hdr_len` 8: more than a header slot has, and more than any
/// transport's header. What is packed to 0 is an all-zero header.
#[inline]
pub(crate) fn pack(checksum: Option<TxChecksum>, gso: Option<Gso>) -> u64 {
    let sum = checksum.map_or(0, |c| {
        u64::from(NEEDS_CSUM) | u64::from(c.start) << 32 | u64::from(c.offset & 0xff) << 48
    });
    match gso {
        None => sum,
        Some(gso) => sum | pack_gso(gso),
    }
}

fn pack_gso(gso: Gso) -> u64 {
    let kind = if gso.ipv6 { GSO_TCPV6 } else { GSO_TCPV4 };
    kind << 8 | u64::from(gso.size) << 16 | u64::from(gso.header_len & 0xff) << 56
}

/// The part of what was packed that wishes for checksums, and that for segments.
pub(crate) const SUM_MASK: u64 = 0x00ff_ffff_0000_00ff;
/// See [`SUM_MASK`].
pub(crate) const GSO_MASK: u64 = !SUM_MASK;

/// Bytes 0 to 7 and 8 to 15 of the header that was packed.
pub(crate) const fn words(packed: u64) -> (u64, u64) {
    let flags_and_type = packed & 0xffff;
    let size = packed >> 16 & 0xffff;
    let start = packed >> 32 & 0xffff;
    let offset = packed >> 48 & 0xff;
    let header_len = packed >> 56;
    (flags_and_type | header_len << 16 | size << 32 | start << 48, offset)
}

/// How many buffers the frame takes, with mergeable buffers.
#[inline(always)]
pub(crate) fn buffers(buffer: &[u8]) -> u16 {
    u16::from_le_bytes([buffer[10], buffer[11]])
}

/// Payload of each segment of which the device has made the frame (§5.1.6.4): `Some(0)` if it is one that was
/// sent so, `None` if the header makes no sense.
pub(crate) fn merged(buffer: &[u8]) -> Option<u16> {
    let size = u16::from_le_bytes([buffer[4], buffer[5]]);
    match u64::from(buffer[1]) {
        0 => Some(0),
        GSO_TCPV4 | GSO_TCPV6 if size != 0 => Some(size),
        _ => None,
    }
}

/// What a receive header says about the checksums of the frame behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Checksum(RxChecksum),
    /// A partial checksum that lies outside the frame.
    Nonsense,
}

/// Judges a frame of `len` bytes behind a header of `HEADER` bytes. `buffer` holds both.
///
/// `DATA_VALID`: the device has checked the transport checksum. `NEEDS_CSUM`: the frame never left
/// this machine and its checksum field holds the pseudo-header sum only; there is nothing to verify
/// (§5.1.6.4.2). Both speak of the transport only, so the IPv4 header is summed here.
#[inline]
pub(crate) fn verdict<const HEADER: u16>(buffer: &[u8], len: u16) -> Verdict {
    let flags = buffer[0];
    if flags & (NEEDS_CSUM | DATA_VALID) == 0 {
        return Verdict::Checksum(RxChecksum::Unknown);
    }
    if flags & NEEDS_CSUM != 0 {
        let start = u16::from_le_bytes([buffer[6], buffer[7]]);
        let offset = u16::from_le_bytes([buffer[8], buffer[9]]);
        if u32::from(start) + u32::from(offset) + 2 > u32::from(len) {
            return Verdict::Nonsense;
        }
    }
    let good = buffer
        .get(usize::from(HEADER)..)
        .and_then(|bytes| bytes.first_chunk())
        .is_some_and(|bytes| len >= 34 && network_header_is_good(bytes));
    Verdict::Checksum(if good { RxChecksum::Good } else { RxChecksum::Unknown })
}

/// TCP or UDP directly behind IPv6, or behind IPv4 without options and with a right header checksum;
/// no fragment, of which no single one has a transport checksum that could be right. For other
/// protocols it is not clear what a device has checked. `bytes` are the Ethernet header and the first
/// 20 bytes behind.
#[inline]
fn network_header_is_good(bytes: &[u8; 34]) -> bool {
    let type_and_version = le32(bytes, 12) & 0x00ff_ffff;
    if type_and_version != 0x0045_0008 {
        return type_and_version & 0xffff == 0xdd86 && matches!(bytes[20], TCP | UDP);
    }
    // Fragment bits and offset, TTL, protocol.
    let fragment_and_protocol = le32(bytes, 20) & 0xff00_ff3f;
    if !matches!(fragment_and_protocol, 0x0600_0000 | 0x1100_0000) {
        return false;
    }
    // RFC 1071: one's complement sums come out the same in any byte order and in wider words. A
    // right header sums up to a multiple of 0xffff, and never to 0 with a version in it.
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    let sum = halves(le64(bytes, 14)) + halves(le64(bytes, 22)) + u64::from(le32(bytes, 30));
    sum.is_multiple_of(0xffff)
}

#[inline]
fn le32(bytes: &[u8; 34], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn le64(bytes: &[u8; 34], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// The reported hash, if it is one over addresses and ports.
#[inline]
pub(crate) fn hash(buffer: &[u8]) -> Option<u32> {
    let report = u16::from_le_bytes([buffer[16], buffer[17]]);
    let value = u32::from_le_bytes([buffer[12], buffer[13], buffer[14], buffer[15]]);
    (report < 32 && REPORTS_WITH_PORTS >> report & 1 != 0).then_some(value)
}

#[cfg(test)]
mod tests;
