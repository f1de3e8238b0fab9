//! Headers as devices write them.
use super::*;

/// A buffer with a header of 12 bytes and an IPv4 frame of 60 bytes with a right header checksum.
fn ipv4() -> [u8; 72] {
    let mut b = [0; 72];
    b[24..26].copy_from_slice(&[0x08, 0x00]);
    // RFC 1071's usual example header, checksum 0xb861.
    b[26..46].copy_from_slice(&[
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ]);
    b
}

const GOOD: Verdict = Verdict::Checksum(RxChecksum::Good);
const UNKNOWN: Verdict = Verdict::Checksum(RxChecksum::Unknown);

#[test]
fn a_frame_without_flags_is_unknown_and_a_validated_one_good() {
    let mut b = ipv4();
    assert_eq!(verdict::<BYTES>(&b, 60), UNKNOWN);
    b[0] = DATA_VALID;
    assert_eq!(verdict::<BYTES>(&b, 60), GOOD);
}

#[test]
fn a_partial_checksum_is_good_if_it_lies_within_the_frame() {
    let mut b = ipv4();
    b[0] = NEEDS_CSUM;
    b[6..10].copy_from_slice(&[34, 0, 16, 0]);
    assert_eq!(verdict::<BYTES>(&b, 60), GOOD);
    assert_eq!(verdict::<BYTES>(&b, 52), GOOD);
    assert_eq!(verdict::<BYTES>(&b, 51), Verdict::Nonsense);
    b[6..10].copy_from_slice(&[0xff; 4]);
    assert_eq!(verdict::<BYTES>(&b, 60), Verdict::Nonsense);
}

#[test]
fn a_validated_frame_with_a_broken_ip_header_is_unknown() {
    for byte in 26..46 {
        for bit in 0..8 {
            let mut b = ipv4();
            b[0] = DATA_VALID;
            b[byte] ^= 1 << bit;
            assert_eq!(verdict::<BYTES>(&b, 60), UNKNOWN, "byte {byte} bit {bit}");
        }
    }
}

#[test]
fn fragments_and_what_is_not_ip_stay_unknown() {
    let mut b = ipv4();
    b[0] = DATA_VALID;
    // More fragments, the checksum made right again: 0xb861 - 0x2000 + (0x4000 taken away).
    b[32] = 0x20;
    b[36..38].copy_from_slice(&[0xd8, 0x61]);
    assert_eq!(verdict::<BYTES>(&b, 60), UNKNOWN);
    b[32] = 0x00;
    b[36..38].copy_from_slice(&[0xf8, 0x61]);
    assert_eq!(verdict::<BYTES>(&b, 60), GOOD, "same header without the flag");
    b[24..26].copy_from_slice(&[0x08, 0x06]);
    assert_eq!(verdict::<BYTES>(&b, 60), UNKNOWN);
    b[24..26].copy_from_slice(&[0x86, 0xdd]);
    for (next_header, expected) in [(6, GOOD), (17, GOOD), (58, UNKNOWN), (44, UNKNOWN)] {
        b[32] = next_header;
        assert_eq!(verdict::<BYTES>(&b, 60), expected, "IPv6 next header {next_header}");
    }
    b[32] = 6;
    assert_eq!(verdict::<BYTES>(&b, 33), UNKNOWN, "too short to hold the header");
}

#[test]
fn a_validated_frame_that_is_neither_tcp_nor_udp_is_unknown() {
    let mut b = ipv4();
    b[0] = DATA_VALID;
    // ICMP instead of UDP, the header checksum made right again.
    b[35] = 1;
    b[36..38].copy_from_slice(&[0xb8, 0x71]);
    assert_eq!(verdict::<BYTES>(&b, 60), UNKNOWN);
    b[35] = 6;
    b[36..38].copy_from_slice(&[0xb8, 0x6c]);
    assert_eq!(verdict::<BYTES>(&b, 60), GOOD);
}

#[test]
fn only_hashes_over_ports_are_reported() {
    let mut b = [0; 40];
    b[12..16].copy_from_slice(&0x0102_0304_u32.to_le_bytes());
    for report in 0..=u16::MAX {
        b[16..18].copy_from_slice(&report.to_le_bytes());
        let expected = matches!(report, 2 | 3 | 5 | 6).then_some(0x0102_0304);
        assert_eq!(hash(&b), expected, "report {report}");
    }
}

#[test]
fn a_transmit_header_holds_start_and_offset_where_the_specification_says() {
    let (low, high) = words(pack(Some(TxChecksum { start: 0x1234, offset: 0x0010 }), None));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&low.to_le_bytes());
    bytes[8..].copy_from_slice(&high.to_le_bytes());
    assert_eq!(bytes[..12], [1, 0, 0, 0, 0, 0, 0x34, 0x12, 0x10, 0, 0, 0]);
    assert_eq!(words(pack(None, None)), (0, 0));
}
