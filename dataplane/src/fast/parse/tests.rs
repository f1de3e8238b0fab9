use super::*;

const US: [u8; 4] = [10, 0, 0, 1];

/// A segment to us.
fn segment() -> Headers {
    let mut h = [0; BELOW + HEADER + TIMESTAMPS];
    h[12..15].copy_from_slice(&[8, 0, 0x45]);
    h[20] = 0x40;
    h[23] = ipv4::TCP;
    h[30..34].copy_from_slice(&US);
    h
}

#[test]
fn what_has_no_addresses_and_ports_in_their_usual_place_is_hashed_by_who_reads_it_whole() {
    assert!(is_segment_to::<ANY>(US, &segment()));
    let not: [(&str, usize, u8); 8] = [
        ("IPv6", 12, 0x86),
        ("within a VLAN", 12, 0x81),
        ("version 6", 14, 0x65),
        ("options", 14, 0x46),
        ("its first fragment", 20, 0x20),
        ("a later fragment", 21, 1),
        ("UDP", 23, 17),
        ("to another", 33, 2),
    ];
    for (what, at, byte) in not {
        let mut h = segment();
        h[at] = byte;
        assert!(!is_segment_to::<ANY>(US, &h), "{what}");
    }
}

#[test]
fn marks_and_what_may_not_be_cut_to_pieces_are_as_usual() {
    for (at, byte) in [(15, 3), (20, 0), (20, 0x40), (22, 1)] {
        let mut h = segment();
        h[at] = byte;
        assert!(is_segment_to::<ANY>(US, &h), "byte {at} is {byte}");
        assert_eq!(is_segment_to::<NOT_MARKED>(US, &h), at != 15, "byte {at} is {byte}");
    }
}
