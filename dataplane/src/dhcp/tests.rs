use super::*;
use crate::rng::Rng;
use proptest::prelude::*;
use smoltcp::wire::DhcpOption;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 7]);
const SERVER: Ipv4Address = Ipv4Address::new(10, 0, 2, 2);
const ADDRESS: Ipv4Address = Ipv4Address::new(10, 0, 2, 15);

fn at(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn client(now: Instant) -> Client {
    Client::new(MAC, Rng::from_seed(1), now)
}

/// What the client sends, parsed.
#[derive(Debug)]
struct Sent {
    src: [u8; 4],
    dst: [u8; 4],
    kind: DhcpMessageType,
    xid: u32,
    secs: u16,
    client_ip: Ipv4Address,
    requested_ip: Option<Ipv4Address>,
    server: Option<Ipv4Address>,
    broadcast: bool,
}

#[track_caller]
fn sent(client: &mut Client, now: Instant) -> Sent {
    let Some(Action::Send(message)) = client.poll(now) else {
        panic!("nothing is sent at {now:?}")
    };
    assert!(message.payload.len() >= 300);
    let packet = DhcpPacket::new_checked(&message.payload[..]).unwrap();
    let repr = DhcpRepr::parse(&packet).unwrap();
    assert_eq!(repr.client_hardware_address, MAC);
    assert_eq!(repr.client_identifier, Some(MAC));
    assert!(client.next_deadline() > now);
    assert_eq!(client.poll(now), None);
    Sent {
        src: message.src,
        dst: message.dst,
        kind: repr.message_type,
        xid: repr.transaction_id,
        secs: repr.secs,
        client_ip: repr.client_ip,
        requested_ip: repr.requested_ip,
        server: repr.server_identifier,
        broadcast: repr.broadcast,
    }
}

/// What the server says; `options` beyond those of the usual case.
fn answer(
    kind: DhcpMessageType,
    xid: u32,
    options: &[DhcpOption<'_>],
    change: impl FnOnce(&mut DhcpRepr<'_>),
) -> alloc::vec::Vec<u8> {
    let mut repr = DhcpRepr {
        message_type: kind,
        transaction_id: xid,
        secs: 0,
        client_hardware_address: MAC,
        client_ip: Ipv4Address::UNSPECIFIED,
        your_ip: ADDRESS,
        server_ip: SERVER,
        router: None,
        subnet_mask: Some(Ipv4Address::new(255, 255, 255, 0)),
        relay_agent_ip: Ipv4Address::UNSPECIFIED,
        broadcast: false,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(SERVER),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: Some(1000),
        renew_duration: None,
        rebind_duration: None,
        additional_options: options,
    };
    change(&mut repr);
    let mut bytes = alloc::vec![0; repr.buffer_len()];
    repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).unwrap();
    bytes
}

fn lease() -> Lease {
    Lease { address: [10, 0, 2, 15], prefix: 24, router: None, dns: ArrayVec::new() }
}

/// A client that was bound at `now` with the usual lease of 1000 s.
fn bound(now: Instant) -> Client {
    let mut c = client(now);
    let discover = sent(&mut c, now);
    c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), now);
    let request = sent(&mut c, now);
    let ack = answer(DhcpMessageType::Ack, request.xid, &[], |_| ());
    assert_eq!(c.handle(&ack, now), Some(Action::Configure(lease())));
    c
}

#[test]
fn discover_offer_request_ack() {
    let mut c = client(at(5));
    let discover = sent(&mut c, at(5));
    assert_eq!((discover.src, discover.dst), ([0; 4], [255; 4]));
    assert_eq!(discover.kind, DhcpMessageType::Discover);
    assert!(discover.broadcast);
    let offer = answer(DhcpMessageType::Offer, discover.xid, &[], |_| ());
    assert_eq!(c.handle(&offer, at(5)), None);
    let request = sent(&mut c, at(5));
    assert_eq!(request.kind, DhcpMessageType::Request);
    assert_eq!((request.dst, request.xid), ([255; 4], discover.xid));
    assert_eq!((request.requested_ip, request.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(request.client_ip, Ipv4Address::UNSPECIFIED);
    assert_eq!(c.lease(), None);
    let routers = [10, 0, 2, 1, 10, 0, 2, 9];
    let options = [DhcpOption { kind: OPTION_ROUTER, data: &routers }];
    let ack = answer(DhcpMessageType::Ack, request.xid, &options, |r| {
        r.dns_servers = Some([Ipv4Address::new(10, 0, 2, 3)].into_iter().collect());
    });
    let expected = Lease {
        router: Some([10, 0, 2, 1]),
        dns: [[10, 0, 2, 3]].into_iter().collect(),
        ..lease()
    };
    assert_eq!(c.handle(&ack, at(5)), Some(Action::Configure(expected.clone())));
    assert_eq!(c.lease(), Some(&expected));
    assert_eq!(c.next_deadline(), at(505));
}

#[test]
fn discovers_are_repeated_after_about_4_8_16_32_64_and_64_seconds() {
    let mut c = client(at(0));
    let mut now = at(0);
    let first = sent(&mut c, now);
    let mut elapsed = 0.0;
    for seconds in [4.0, 8.0, 16.0, 32.0, 64.0, 64.0] {
        let wait = c.next_deadline().since(now).0 as f64 / 1e9;
        assert!((wait - seconds).abs() <= 1.0, "{wait} for {seconds}");
        now = c.next_deadline();
        elapsed += wait;
        let again = sent(&mut c, now);
        assert_eq!((again.kind, again.xid), (DhcpMessageType::Discover, first.xid));
        assert_eq!(again.secs, elapsed as u16);
    }
}

#[test]
fn an_offer_whose_request_stays_unanswered_is_given_up() {
    let mut c = client(at(0));
    let discover = sent(&mut c, at(0));
    c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), at(0));
    for _ in 0..REQUEST_TRIES {
        let now = c.next_deadline();
        assert_eq!(sent(&mut c, now).kind, DhcpMessageType::Request);
    }
    let now = c.next_deadline();
    let anew = sent(&mut c, now);
    assert_eq!(anew.kind, DhcpMessageType::Discover);
    assert_ne!(anew.xid, discover.xid);
}

#[test]
fn a_refused_request_begins_anew_but_not_at_once() {
    let mut c = client(at(0));
    let discover = sent(&mut c, at(0));
    c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), at(0));
    let request = sent(&mut c, at(0));
    let nak = answer(DhcpMessageType::Nak, request.xid, &[], |_| ());
    assert_eq!(c.handle(&nak, at(0)), None);
    assert_eq!(c.poll(at(3)), None);
    assert_eq!(sent(&mut c, at(4)).kind, DhcpMessageType::Discover);
}

#[test]
fn a_lease_is_renewed_at_half_of_its_time_with_its_server() {
    let mut c = bound(at(0));
    assert_eq!(c.poll(at(499)), None);
    let renew = sent(&mut c, at(500));
    assert_eq!(
        (renew.kind, renew.src, renew.dst),
        (DhcpMessageType::Request, ADDRESS.octets(), SERVER.octets())
    );
    assert_eq!(renew.client_ip, ADDRESS);
    assert_eq!((renew.requested_ip, renew.server, renew.broadcast), (None, None, false));
    let ack = answer(DhcpMessageType::Ack, renew.xid, &[], |_| ());
    // The same configuration is no news.
    assert_eq!(c.handle(&ack, at(501)), None);
    assert_eq!(c.next_deadline(), at(1001));
    let renew = sent(&mut c, at(1001));
    let ack = answer(DhcpMessageType::Ack, renew.xid, &[], |r| {
        r.subnet_mask = Some(Ipv4Address::new(255, 255, 0, 0));
    });
    let changed = Lease { prefix: 16, ..lease() };
    assert_eq!(c.handle(&ack, at(1001)), Some(Action::Configure(changed)));
}

#[test]
fn a_lease_that_its_server_does_not_renew_is_asked_of_all_and_then_lost() {
    let mut c = bound(at(0));
    let mut renewals = 0;
    let mut rebinds = 0;
    let mut last = at(0);
    let lost = loop {
        let now = c.next_deadline();
        if now >= at(1000) {
            break now;
        }
        let message = sent(&mut c, now);
        // 60 s apart, but for the first one to all, which comes when its time has come.
        assert!(now.since(last) >= RENEW_RETRY_MIN || now == at(875));
        last = now;
        if message.dst == SERVER.octets() {
            assert!(now >= at(500) && now < at(875));
            renewals += 1;
        } else {
            assert_eq!(message.dst, [255; 4]);
            assert!(now >= at(875));
            rebinds += 1;
        }
        assert_eq!(message.client_ip, ADDRESS);
    };
    assert!(renewals >= 2 && rebinds >= 2, "{renewals} {rebinds}");
    assert_eq!(lost, at(1000));
    assert_eq!(c.poll(lost), Some(Action::Deconfigure));
    assert_eq!(c.lease(), None);
    assert_eq!(sent(&mut c, lost).kind, DhcpMessageType::Discover);
}

#[test]
fn a_refused_renewal_ends_the_lease() {
    let mut c = bound(at(0));
    let renew = sent(&mut c, at(500));
    let nak = answer(DhcpMessageType::Nak, renew.xid, &[], |_| ());
    assert_eq!(c.handle(&nak, at(500)), Some(Action::Deconfigure));
    assert_eq!(sent(&mut c, at(500)).kind, DhcpMessageType::Discover);
}

#[test]
fn the_servers_own_renewal_times_count_if_they_make_sense() {
    for (t1, t2, expected) in [(100, 200, 100), (300, 200, 500), (100, 2000, 500), (0, 1, 500)] {
        let mut c = client(at(0));
        let discover = sent(&mut c, at(0));
        c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), at(0));
        sent(&mut c, at(0));
        let (t1_bytes, t2_bytes) = (u32::to_be_bytes(t1), u32::to_be_bytes(t2));
        let options = [
            DhcpOption { kind: OPTION_T1, data: &t1_bytes },
            DhcpOption { kind: OPTION_T2, data: &t2_bytes },
        ];
        c.handle(&answer(DhcpMessageType::Ack, discover.xid, &options, |_| ()), at(0));
        assert_eq!(c.next_deadline(), at(expected), "{t1} {t2}");
    }
}

#[test]
fn an_infinite_lease_is_never_renewed_and_a_tiny_one_not_believed() {
    for (seconds, expected) in [(u32::MAX, Instant::NEVER), (0, at(30)), (1, at(30))] {
        let mut c = client(at(0));
        let discover = sent(&mut c, at(0));
        c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), at(0));
        sent(&mut c, at(0));
        let ack = answer(DhcpMessageType::Ack, discover.xid, &[], |r| {
            r.lease_duration = Some(seconds);
        });
        assert!(c.handle(&ack, at(0)).is_some());
        assert_eq!(c.next_deadline(), expected);
    }
}

#[test]
fn what_is_not_an_answer_to_this_client_is_ignored() {
    let none = |_: &mut DhcpRepr<'_>| ();
    let mut c = client(at(0));
    // Before anything was asked; the number is guessed right.
    let xid = c.xid;
    c.handle(&answer(DhcpMessageType::Offer, xid, &[], none), at(0));
    let discover = sent(&mut c, at(0));
    assert_eq!(discover.kind, DhcpMessageType::Discover);
    let bad: [alloc::vec::Vec<u8>; 7] = [
        answer(DhcpMessageType::Offer, discover.xid ^ 1, &[], none),
        answer(DhcpMessageType::Offer, discover.xid, &[], |r| r.client_hardware_address.0[5] = 8),
        answer(DhcpMessageType::Offer, discover.xid, &[], |r| r.server_identifier = None),
        answer(DhcpMessageType::Offer, discover.xid, &[], |r| r.your_ip = Ipv4Address::BROADCAST),
        answer(DhcpMessageType::Offer, discover.xid, &[], |r| {
            r.your_ip = Ipv4Address::UNSPECIFIED;
        }),
        answer(DhcpMessageType::Ack, discover.xid, &[], none),
        answer(DhcpMessageType::Nak, discover.xid, &[], none),
    ];
    for message in &bad {
        assert_eq!(c.handle(message, at(1)), None);
        assert_eq!(c.poll(at(1)), None);
    }
    c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], none), at(1));
    sent(&mut c, at(1));
    let other = Ipv4Address::new(10, 0, 2, 99);
    for message in [
        answer(DhcpMessageType::Ack, discover.xid, &[], |r| r.server_identifier = Some(other)),
        answer(DhcpMessageType::Ack, discover.xid, &[], |r| r.your_ip = other),
        answer(DhcpMessageType::Ack, discover.xid, &[], |r| {
            r.subnet_mask = Some(Ipv4Address::new(255, 0, 255, 0));
        }),
        answer(DhcpMessageType::Nak, discover.xid, &[], |r| r.server_identifier = Some(other)),
    ] {
        assert_eq!(c.handle(&message, at(2)), None);
        assert_eq!(c.lease(), None);
    }
    let ack = answer(DhcpMessageType::Ack, discover.xid, &[], none);
    assert!(c.handle(&ack, at(2)).is_some());
    // And once it is bound, nobody can unbind it without being asked.
    let nak = answer(DhcpMessageType::Nak, discover.xid, &[], none);
    assert_eq!(c.handle(&nak, at(3)), None);
    assert_eq!(c.lease(), Some(&lease()));
}

#[test]
fn without_a_mask_the_class_of_the_address_decides() {
    for (address, prefix) in [([10, 0, 0, 1], 8), ([172, 16, 0, 1], 16), ([192, 168, 0, 1], 24)] {
        let bytes = answer(DhcpMessageType::Ack, 1, &[], |r| {
            r.subnet_mask = None;
            r.your_ip = Ipv4Address::from(address);
        });
        let packet = DhcpPacket::new_checked(&bytes[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(super::lease(&packet, &repr).unwrap().prefix, prefix);
    }
}

proptest! {
    #[test]
    fn no_bytes_can_panic_it(
        noise in proptest::collection::vec(any::<u8>(), 0..400),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..12),
        cut in any::<usize>(),
        kind in prop_oneof![Just(DhcpMessageType::Offer), Just(DhcpMessageType::Ack)],
    ) {
        let mut c = client(at(0));
        c.handle(&noise, at(0));
        let discover = sent(&mut c, at(0));
        if kind == DhcpMessageType::Ack {
            c.handle(&answer(DhcpMessageType::Offer, discover.xid, &[], |_| ()), at(0));
            sent(&mut c, at(0));
        }
        let routers = [10, 0, 2, 1];
        let options = [DhcpOption { kind: OPTION_ROUTER, data: &routers }];
        let mut bytes = answer(kind, discover.xid, &options, |_| ());
        for (at, byte) in flips {
            // The options mostly: the fixed part is 240 bytes.
            let at = if at % 4 == 0 { at % bytes.len() } else { 236 + at % (bytes.len() - 236) };
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - if cut % 2 == 0 { 0 } else { cut % bytes.len() });
        c.handle(&bytes, at(0));
        for _ in 0..20 {
            let now = c.next_deadline();
            if now == Instant::NEVER {
                break;
            }
            prop_assert!(c.poll(now).is_some());
        }
    }
}
