use super::*;
use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, Icmpv6Packet, Icmpv6Repr, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscRepr,
};

const MAC: Mac = [2, 0, 0, 0, 0, 1];
const THEIRS: Mac = [2, 0, 0, 0, 0, 2];

fn ip(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

/// What smoltcp, which shares nothing with this, makes of a frame; checks it on the way.
fn read(frame: &Frame) -> (Mac, Ipv6Repr, NdiscRepr<'_>) {
    let ethernet = EthernetFrame::new_checked(&frame[..]).unwrap();
    assert_eq!(ethernet.src_addr().0, MAC);
    let packet = Ipv6Packet::new_checked(&frame[14..]).unwrap();
    let repr = Ipv6Repr::parse(&packet).unwrap();
    assert_eq!(repr.hop_limit, 255);
    let icmp = Icmpv6Packet::new_checked(&frame[54..]).unwrap();
    let caps = ChecksumCapabilities::default();
    let parsed = Icmpv6Repr::parse(&repr.src_addr, &repr.dst_addr, &icmp, &caps).unwrap();
    let Icmpv6Repr::Ndisc(nd) = parsed else { panic!("{parsed:?}") };
    (ethernet.dst_addr().0, repr, nd)
}

#[test]
fn what_we_send_is_what_another_implementation_reads() {
    let (us, target) = (ip("fe80::1"), ip("2001:db8::12:3456"));
    let asked = solicit(MAC, &us, &target, None);
    let (to_mac, repr, nd) = read(&asked);
    assert_eq!(to_mac, [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    assert_eq!(repr.dst_addr.octets(), ip("ff02::1:ff12:3456"));
    let NdiscRepr::NeighborSolicit { target_addr, lladdr: Some(link) } = nd else {
        panic!("{nd:?}")
    };
    assert_eq!((target_addr.octets(), link.as_bytes()), (target, &MAC[..]));

    let confirm = solicit(MAC, &us, &target, Some(THEIRS));
    let (to_mac, repr, _) = read(&confirm);
    assert_eq!((to_mac, repr.dst_addr.octets()), (THEIRS, target));

    let probe = solicit(MAC, &UNSPECIFIED, &target, None);
    let (_, repr, nd) = read(&probe);
    assert!(repr.src_addr.is_unspecified());
    assert!(matches!(nd, NdiscRepr::NeighborSolicit { lladdr: None, .. }), "{nd:?}");

    let told = advert(MAC, &us, Some((target, THEIRS)));
    let (to_mac, repr, nd) = read(&told);
    assert_eq!((to_mac, repr.dst_addr.octets()), (THEIRS, target));
    let NdiscRepr::NeighborAdvert { flags, target_addr, .. } = nd else { panic!("{nd:?}") };
    assert_eq!((flags.bits(), target_addr.octets()), (0x60, us));

    let (to_mac, repr, nd) = {
        let all = advert(MAC, &us, None);
        let (m, r, n) = read(&all);
        (m, r, alloc::format!("{n:?}"))
    };
    assert_eq!((to_mac, repr.dst_addr), ([0x33, 0x33, 0, 0, 0, 1], Ipv6Address::from(ALL_NODES)));
    assert!(nd.contains("OVERRIDE") && !nd.contains("SOLICITED"), "{nd}");

    let routers = router_solicit(MAC, &us);
    let (_, repr, nd) = read(&routers);
    assert_eq!(repr.dst_addr.octets(), ALL_ROUTERS);
    assert!(matches!(nd, NdiscRepr::RouterSolicit { lladdr: Some(_) }), "{nd:?}");

    let announced = announce(MAC, &us);
    let (_, repr, nd) = read(&announced);
    assert_eq!(repr.dst_addr.octets(), ALL_ROUTERS);
    assert!(matches!(nd, NdiscRepr::NeighborAdvert { flags, .. } if flags.is_empty()), "{nd:?}");
}

#[test]
fn a_listener_report_names_the_group_behind_a_router_alert() {
    let f = report(MAC, &ip("fe80::1"), &ip("2001:db8::12:3456"));
    assert_eq!(f.len(), 90);
    assert_eq!(
        (f[18..22].to_vec(), f[54..62].to_vec()),
        (vec![0, 36, 0, 1], vec![58, 0, 5, 2, 0, 0, 1, 0])
    );
    let icmp = &f[62..];
    assert_eq!(
        (icmp[0], icmp[7], icmp[8], &icmp[12..28]),
        (143, 1, 4, &ip("ff02::1:ff12:3456")[..])
    );
    let pseudo = checksum::pseudo_v6(&ip("fe80::1"), &ip("ff02::16"), 58, 28);
    assert!(checksum::is_good(checksum::add(pseudo, checksum::sum(icmp))));
}

fn body(f: &Frame) -> Vec<u8> {
    f[54..].to_vec()
}

#[test]
fn solicitations_are_checked_as_the_rfc_says() {
    let (us, them) = (ip("fe80::1"), ip("fe80::2"));
    let group = ipv6::solicited_node(&us);
    let good = body(&solicit(THEIRS, &them, &us, None));
    let wanted = Message::Solicit { from: Some(them), link: Some(THEIRS), target: us };
    assert_eq!(parse(&good, &them, &group, 255), Some(wanted));
    assert_eq!(parse(&good, &them, &us, 255), Some(wanted), "one that confirms");
    assert_eq!(parse(&good, &them, &group, 254), None, "it was forwarded");
    assert_eq!(parse(&good, &UNSPECIFIED, &group, 255), None, "from nobody, with a link address");
    let probe = &good[..24];
    let wanted = Message::Solicit { from: None, link: None, target: us };
    assert_eq!(parse(probe, &UNSPECIFIED, &group, 255), Some(wanted));
    assert_eq!(parse(probe, &UNSPECIFIED, &us, 255), None, "a probe goes to the group");
    for (at, value) in [(1, 1), (8, 0xff), (25, 0), (25, 2), (25, 255)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad, &them, &group, 255), None, "byte {at} is {value}");
    }
    for len in [0, 1, 23, 25, 31] {
        assert_eq!(parse(&good[..len], &them, &group, 255), None, "{len} bytes");
    }
}

#[test]
fn advertisements_are_checked_as_the_rfc_says() {
    let (us, them) = (ip("fe80::1"), ip("fe80::2"));
    let good = body(&advert(THEIRS, &them, Some((us, MAC))));
    let Some(Message::Advert {
        target,
        link: Some(THEIRS),
        router: false,
        solicited: true,
        takes_over: true,
    }) = parse(&good, &them, &us, 255)
    else {
        panic!()
    };
    assert_eq!(target, them);
    assert_eq!(parse(&good, &them, &ALL_NODES, 255), None, "solicited, yet to all");
    let mut group = good.clone();
    group[26] = 1;
    let Some(Message::Advert { link: None, .. }) = parse(&group, &them, &us, 255) else { panic!() };
}

#[test]
fn a_router_speaks_of_prefixes_and_the_mtu() {
    let mut icmp = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend([1, 1]);
    icmp.extend(THEIRS);
    icmp.extend([5, 1, 0, 0, 0, 0, 5, 0]);
    icmp.extend([99, 1, 0, 0, 0, 0, 0, 0]);
    for (third, flags) in [(1, 0xc0), (2, 0x80)] {
        icmp.extend([3, 4, 64, flags, 0, 0, 0, 9, 0, 0, 0, 8, 0, 0, 0, 0]);
        icmp.extend(ip(&alloc::format!("2001:db8:{third}::77")));
    }
    let from = ip("fe80::2");
    let Some(Message::Router(advert)) = parse(&icmp, &from, &ALL_NODES, 255) else { panic!() };
    assert_eq!((advert.hops, advert.lifetime_s, advert.link), (64, 0x0708, Some(THEIRS)));
    assert_eq!(advert.options.mtu(), Some(1280));
    let prefixes: Vec<_> = advert.options.prefixes().collect();
    assert_eq!(prefixes.len(), 2);
    let first = Prefix {
        address: ip("2001:db8:1::"),
        len: 64,
        on_link: true,
        autonomous: true,
        valid_s: 9,
        preferred_s: 8,
    };
    assert_eq!(prefixes[0], first);
    assert!(prefixes[1].on_link && !prefixes[1].autonomous);
    assert_eq!(parse(&icmp, &ip("2001:db8::2"), &ALL_NODES, 255), None, "not link-local");
    icmp[42] = 129;
    let Some(Message::Router(advert)) = parse(&icmp, &from, &ALL_NODES, 255) else { panic!() };
    assert_eq!(advert.options.prefixes().count(), 1, "a prefix of 129 bits is none");
}

proptest! {
    #[test]
    fn anything_is_read_without_a_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 133u8..=137, from: [u8; 16], lengths in proptest::collection::vec(0u8..5, 4)) {
        if let [first, second, ..] = &mut bytes[..] {
            *first = kind;
            *second = 0;
        }
        let mut at = if kind == ROUTER_ADVERTISEMENT { 16 } else { 24 };
        for len in lengths {
            if let Some(byte) = bytes.get_mut(at + 1) {
                *byte = len;
            }
            at += usize::from(len) * 8;
        }
        for from in [from, ip("fe80::2"), UNSPECIFIED] {
            if let Some(Message::Router(advert)) = parse(&bytes, &from, &ALL_NODES, 255) {
                let _ = (advert.options.mtu(), advert.options.prefixes().count());
            }
        }
    }
}
