//! IPv4 headers (RFC 791): writing ours.
use crate::checksum;

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Where a header has its sum.
pub const SUM: core::ops::Range<usize> = 10..12;

/// Writes a header. Every packet of ours is atomic: DF set, identification 0 (RFC 6864 §4.1).
#[inline(always)]
pub fn emit(h: &mut [u8], from: [u8; 4], to: [u8; 4], protocol: u8, total_len: u16) {
    emit_marked(h, 0, from, to, protocol, total_len);
}

/// The same with `tos` as the second byte: differentiated services and congestion notification
/// (RFC 3168 §5).
#[inline(always)]
pub fn emit_marked(
    h: &mut [u8],
    tos: u8,
    from: [u8; 4],
    to: [u8; 4],
    protocol: u8,
    total_len: u16,
) {
    let Some(h) = h.first_chunk_mut::<HEADER>() else { return };
    let [len_high, len_low] = total_len.to_be_bytes();
    h[0..8].copy_from_slice(&[0x45, tos, len_high, len_low, 0, 0, 0x40, 0]);
    h[8..12].copy_from_slice(&[64, protocol, 0, 0]);
    h[12..16].copy_from_slice(&from);
    h[16..20].copy_from_slice(&to);
    let word = |bytes: [u8; 4]| u64::from(u32::from_ne_bytes(bytes));
    let sum = word([0x45, tos, len_high, len_low])
        + word([0, 0, 0x40, 0])
        + word([64, protocol, 0, 0])
        + word(from)
        + word(to);
    h[SUM].copy_from_slice(&checksum::finish(sum));
}
