use super::*;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use proptest::prelude::*;

fn ip(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// A packet of these extension headers, each with the number that names it, and TCP behind.
fn packet(headers: &[(u8, &[u8])]) -> Vec<u8> {
    let mut p = vec![0; HEADER];
    let named: Vec<u8> = headers.iter().map(|(number, _)| *number).chain([6]).collect();
    p[6] = named[0];
    for (i, (_, body)) in headers.iter().enumerate() {
        let at = p.len();
        p.extend_from_slice(body);
        p[at] = named[i + 1];
    }
    p.extend_from_slice(&[0; 20]);
    p
}

const PADDED: &[u8] = &[0, 0, 1, 4, 0, 0, 0, 0];
const ATOMIC: &[u8] = &[0, 0, 0, 0, 1, 2, 3, 4];

#[test]
fn a_plain_packet_and_one_with_every_header_lead_to_tcp() {
    let plain = walk(&packet(&[])).unwrap();
    assert_eq!(plain, Payload { protocol: 6, at: 40, named_at: 6, fragment: None });
    let long = [0, 1, 5, 2, 0, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let routed = [0, 0, 4, 0, 0, 0, 0, 0];
    let all = packet(&[(0, &long), (60, PADDED), (43, &routed), (44, ATOMIC), (60, PADDED)]);
    let found = walk(&all).unwrap();
    assert_eq!((found.protocol, found.at, found.fragment), (6, 40 + 16 + 4 * 8, None));
    assert_eq!(all[found.named_at], 6);
}

#[test]
fn fragments_are_told_from_atomic_ones() {
    let second = walk(&packet(&[(60, PADDED), (44, &[0, 0, 0, 8, 9, 9, 9, 9])])).unwrap();
    assert_eq!(second.fragment, Some((1, false, 0x0909_0909)));
    let first = walk(&packet(&[(44, &[0, 0, 0, 1, 0, 0, 0, 7])])).unwrap();
    assert_eq!((first.fragment, first.at, first.protocol), (Some((0, true, 7)), 48, 6));
}

fn refused(code: u8, pointer: u32, even_group: bool) -> Result<Payload, Fault> {
    Err(Fault::Problem { code, pointer, even_group })
}

#[test]
fn what_wants_to_be_forwarded_is_refused_where_it_says_so() {
    for kind in [0, 2, 4, 200] {
        let routed = [0, 0, kind, 1, 0, 0, 0, 0];
        assert_eq!(walk(&packet(&[(43, &routed)])), refused(problem::FIELD, 42, false));
    }
    let late = packet(&[(60, PADDED), (0, PADDED)]);
    assert_eq!(walk(&late), refused(problem::NEXT_HEADER, 40, false));
}

#[test]
fn unknown_options_do_what_their_numbers_say() {
    let with = |kind: u8| walk(&packet(&[(60, &[0, 0, 1, 0, kind, 2, 0, 0])]));
    assert_eq!(with(0x1e).unwrap().protocol, 6);
    assert_eq!(with(0x40), Err(Fault::Discard));
    assert_eq!(with(0x80), refused(problem::OPTION, 44, true));
    assert_eq!(with(0xc2), refused(problem::OPTION, 44, false));
}

#[test]
fn the_walk_has_an_end() {
    let many: Vec<_> = (0..=EXTENSION_HEADERS_MAX).map(|_| (60, PADDED)).collect();
    assert_eq!(walk(&packet(&many)), Err(Fault::TooMany));
    assert!(walk(&packet(&many[1..])).is_ok());
    let mut options = vec![0, 5];
    options.extend([0x1e, 0].repeat(EXTENSION_OPTIONS_MAX + 1));
    options.resize(48, 0);
    assert_eq!(walk(&packet(&[(60, &options)])), Err(Fault::TooMany));
    let mut zeros = vec![0; 2048];
    zeros[1] = 255;
    assert_eq!(walk(&packet(&[(60, &zeros)])), Err(Fault::TooMany));
    let whole = packet(&[(0, PADDED), (44, ATOMIC)]);
    for len in 0..56 {
        assert_eq!(walk(&whole[..len]), Err(Fault::Truncated), "{len}");
    }
}

proptest! {
    #[test]
    fn anything_is_walked_without_a_panic_and_within_the_packet(bytes in proptest::collection::vec(any::<u8>(), 0..400), first in prop::sample::select(&[0u8, 43, 44, 60, 6][..])) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.get_mut(6) {
            *byte = first;
        }
        if let Ok(found) = walk(&bytes) {
            prop_assert!(found.at <= bytes.len().max(HEADER) && found.named_at < found.at);
        }
    }
}

#[test]
fn addresses_are_told_apart() {
    for host in ["fe80::1", "2001:db8::7", "fec0::2", "fd00::1", "::2", "64:ff9b::1"] {
        assert!(is_host(&ip(host)), "{host}");
    }
    for none in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
        assert!(!is_host(&ip(none)), "{none}");
    }
    assert!(is_link_local(&ip("febf::1")) && !is_link_local(&ip("fec0::1")));
    let scopes = ["fe80::1", "::1", "fec0::1", "2001:db8::1", "fd00::1", "ff02::1", "ff05::2"];
    assert_eq!(scopes.map(|a| scope(&ip(a))), [2, 2, 5, 14, 14, 2, 5]);
    assert_eq!(solicited_node(&ip("2001:db8::12:3456")), ip("ff02::1:ff12:3456"));
    assert_eq!(group_mac(&ip("ff02::1:ff12:3456")), [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    assert_eq!(common_prefix(&ip("2001:db8::"), &ip("2001:db9::")), 31);
    assert!(in_prefix(&ip("2001:db8:1::5"), &ip("2001:db8::"), 32));
    assert!(!in_prefix(&ip("2001:db9::5"), &ip("2001:db8::"), 32));
    assert!(in_prefix(&ip("::5"), &ip("ff::"), 0));
}
