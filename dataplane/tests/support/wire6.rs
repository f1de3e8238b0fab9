//! IPv6 frames by hand.
use ix_dataplane::checksum;

/// An IPv6 packet of `protocol` (or what comes before it) from one host to another.
pub fn packet(
    macs: [[u8; 6]; 2],
    (from, to): (&[u8; 16], &[u8; 16]),
    hops: u8,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let mut f = [macs[1], macs[0]].concat();
    if to[0] == 0xff {
        f[..6].copy_from_slice(&[0x33, 0x33, to[12], to[13], to[14], to[15]]);
    }
    f.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    f.extend((payload.len() as u16).to_be_bytes());
    f.extend([protocol, hops]);
    f.extend(from);
    f.extend(to);
    f.extend(payload);
    f
}

/// The checksum of a message behind whatever extension headers, filled in at `at`.
pub fn summed(ends: (&[u8; 16], &[u8; 16]), protocol: u8, at: usize, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    payload[at..at + 2].fill(0);
    let pseudo = checksum::pseudo_v6(ends.0, ends.1, protocol, payload.len() as u16);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&payload)));
    payload[at..at + 2].copy_from_slice(&sum);
    payload
}

/// An ICMPv6 message, its checksum filled in.
pub fn icmp(macs: [[u8; 6]; 2], ends: (&[u8; 16], &[u8; 16]), hops: u8, icmp: &[u8]) -> Vec<u8> {
    packet(macs, ends, hops, 58, &summed(ends, 58, 2, icmp))
}
