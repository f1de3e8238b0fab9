//! Conversations over IPv6 with a whole station: addresses that come and go, neighbour discovery, ICMPv6,
//! extension headers. `over_v6.rs` has those of TCP and UDP.
mod ends;
mod large;
mod noise;
use crate::support::station::{Setup, Station};
use crate::support::talk::{ACK, FIN, MACS, RST, SYN, Script, Talk};
use crate::support::wire6::{self, summed};
use core::net::Ipv6Addr;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, IpAddress, SocketAddress, Status};
use ix_acl::{Action, Prefix, Protocol, Rule};
use ix_dataplane::checksum;
use ix_dataplane::rng::Rng;
use ix_dataplane::slaac::{Identifiers, Mode};
use ix_dataplane::time::Duration;

type Address = [u8; 16];

const ALL_NODES: &str = "ff02::1";
/// The peer.
const PEER: &str = "fe80::2";
/// Of the station, made of its hardware address.
const OWN: &str = "fe80::ff:fe00:1";
const GLOBAL: &str = "2001:db8::ff:fe00:1";

fn ip(text: &str) -> Address {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn auto() -> Talk {
    Talk::new(|setup| {
        setup.configure = |config| config.ipv6 = Mode::Auto(Identifiers::Eui64);
    })
}

/// A station with its link-local address and nothing else under way.
fn settled() -> Talk {
    let mut talk = auto();
    talk.pass(Duration::from_ms(2_500));
    assert_eq!(addresses(&talk), [ip(OWN)]);
    talk.others.clear();
    talk
}

fn addresses(talk: &Talk) -> Vec<Address> {
    talk.station.engines[0].ipv6().addresses().map(|slot| slot.address).collect()
}

/// Gives an ICMPv6 message; what the station then sends.
fn say(talk: &mut Talk, from: &str, to: &str, hops: u8, icmp: &[u8]) -> Vec<Vec<u8>> {
    let frame = wire6::icmp(MACS, (&ip(from), &ip(to)), hops, icmp);
    hear(talk, frame)
}

fn hear(talk: &mut Talk, frame: Vec<u8>) -> Vec<Vec<u8>> {
    talk.others.clear();
    talk.give(frame);
    talk.step();
    std::mem::take(&mut talk.others)
}

/// Lifetimes of the router, and valid and preferred of the prefix.
fn advert(router_s: u16, valid_s: u32, preferred_s: u32) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, 64, 0];
    icmp.extend(router_s.to_be_bytes());
    icmp.extend([0; 8]);
    icmp.extend([1, 1, 2, 0, 0, 0, 0, 2]);
    icmp.extend([3, 4, 64, 0xc0]);
    icmp.extend(valid_s.to_be_bytes());
    icmp.extend(preferred_s.to_be_bytes());
    icmp.extend([0; 4]);
    icmp.extend(ip("2001:db8::"));
    icmp
}

fn solicitation(target: &str, link: bool) -> Vec<u8> {
    let mut icmp = vec![135, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(ip(target));
    if link {
        icmp.extend([1, 1, 2, 0, 0, 0, 0, 2]);
    }
    icmp
}

fn advertisement(target: &str, flags: u8, last: u8) -> Vec<u8> {
    let mut icmp = vec![136, 0, 0, 0, flags, 0, 0, 0];
    icmp.extend(ip(target));
    icmp.extend([2, 1, 2, 0, 0, 0, 0, last]);
    icmp
}

/// Source, destination, and the ICMPv6 message of a frame, whose checksum is checked.
#[track_caller]
fn icmp(f: &[u8]) -> (Address, Address, Vec<u8>) {
    assert_eq!((&f[12..15], f[20]), (&[0x86, 0xdd, 0x60][..], 58), "{f:02x?}");
    let (from, to) = (f[22..38].try_into().unwrap(), f[38..54].try_into().unwrap());
    let len = u16::from_be_bytes([f[18], f[19]]);
    assert_eq!(f.len(), 54 + usize::from(len));
    let pseudo = checksum::pseudo_v6(&from, &to, 58, len);
    assert!(checksum::is_good(checksum::add(pseudo, checksum::sum(&f[54..]))));
    (from, to, f[54..].to_vec())
}

/// A station with an address of the prefix that the peer, a router, has announced.
fn routed() -> Talk {
    let mut talk = settled();
    say(&mut talk, PEER, ALL_NODES, 255, &advert(1800, 86_400, 43_200));
    talk.pass(Duration::from_ms(2_500));
    assert_eq!(addresses(&talk), [ip(OWN), ip(GLOBAL)]);
    talk.others.clear();
    talk
}

#[test]
fn an_address_is_asked_for_in_vain_then_used_then_routers_are_asked_for() {
    let mut talk = auto();
    talk.pass(Duration::from_ms(2_500));
    let sent: Vec<(u8, Address, Address)> = talk
        .others
        .iter()
        .filter(|f| f[12..14] == [0x86, 0xdd])
        .map(|f| {
            let kind = if f[20] == 58 { f[54] } else { f[62] };
            (kind, f[22..38].try_into().unwrap(), f[38..54].try_into().unwrap())
        })
        .collect();
    let (own, group) = (ip(OWN), ip("ff02::1:ff00:1"));
    let expected = [
        (143, [0; 16], ip("ff02::16")),
        (135, [0; 16], group),
        (136, own, ip("ff02::2")),
        (133, own, ip("ff02::2")),
    ];
    assert_eq!(sent, expected);
    talk.station.assert_all_quiet();
}

#[test]
fn a_solicitation_is_answered_and_its_asker_remembered_until_it_has_to_be_confirmed() {
    let mut talk = settled();
    let sent = say(&mut talk, PEER, "ff02::1:ff00:1", 255, &solicitation(OWN, true));
    let [answer] = &sent[..] else { panic!("{sent:02x?}") };
    assert_eq!(answer[..6], MACS[0]);
    let (from, to, body) = icmp(answer);
    assert_eq!((from, to, body[0], body[4]), (ip(OWN), ip(PEER), 136, 0x60));
    assert_eq!((&body[8..24], &body[24..]), (&ip(OWN)[..], &[2, 1, 2, 0, 0, 0, 0, 1][..]));
    // A probe of somebody who wants our address is answered to all.
    let sent = say(&mut talk, "::", "ff02::1:ff00:1", 255, &solicitation(OWN, false));
    let (_, to, body) = icmp(&sent[0]);
    assert_eq!((to, body[4]), (ip(ALL_NODES), 0x20));
    // What the asker said of itself serves an answer at once, but is confirmed.
    connect(&mut talk, PEER);
    let sent = std::mem::take(&mut talk.others);
    assert!(sent.iter().any(|f| f[20] == 6 && f[..6] == MACS[0]), "{sent:02x?}");
    talk.others.clear();
    talk.pass(Duration::from_ms(5_500));
    let asked = talk.others.iter().find(|f| f[20] == 58 && f[54] == 135).expect("a solicitation");
    assert_eq!((&asked[..6], &asked[38..54]), (&MACS[0][..], &ip(PEER)[..]), "to itself alone");
}

#[test]
fn what_is_not_from_this_link_or_not_for_us_is_not_answered() {
    let mut talk = settled();
    let before = talk.station.dropped(Reason::NdMalformed);
    assert!(say(&mut talk, PEER, OWN, 254, &solicitation(OWN, true)).is_empty());
    assert!(say(&mut talk, PEER, ALL_NODES, 64, &advert(1800, 86_400, 43_200)).is_empty());
    assert_eq!(talk.station.dropped(Reason::NdMalformed) - before, 2);
    assert!(
        say(&mut talk, PEER, "ff02::1:ff00:1", 255, &solicitation("fe80::1:1:1", true)).is_empty()
    );
    assert!(say(&mut talk, PEER, "ff02::5", 255, &solicitation(OWN, true)).is_empty());
    assert_eq!(addresses(&talk), [ip(OWN)]);
    talk.station.assert_all_quiet();
}

#[test]
fn a_router_gives_an_address_a_route_and_takes_both_away_again() {
    let mut talk = routed();
    connect(&mut talk, "2600::1");
    talk.step();
    let sent = std::mem::take(&mut talk.others);
    let syn = sent.iter().find(|f| f[20] == 6).expect("a SYN");
    assert_eq!(
        (&syn[..6], &syn[22..38], &syn[38..54]),
        (&MACS[0][..], &ip(GLOBAL)[..], &ip("2600::1")[..])
    );
    // A router that is one no longer, and an hour later still.
    say(&mut talk, PEER, ALL_NODES, 255, &advert(0, 7200, 0));
    talk.events();
    assert_eq!(connect(&mut talk, "2600::2"), Status::Unreachable);
    assert_eq!(connect(&mut talk, "2001:db8::77"), Status::Ok, "on the link all the same");
    talk.pass(Duration::from_s(7_300));
    assert_eq!(addresses(&talk), [ip(OWN)]);
}

/// Opens a connection; the outcome of the call.
fn connect(talk: &mut Talk, to: &str) -> Status {
    let remote = SocketAddress { ip: IpAddress(ip(to)), port: 80, scope: 0 };
    talk.call(Call::connect(Cookie(5), remote).with_result(9));
    let events = talk.events();
    let status = events.iter().find_map(|event| match event {
        Condition::Result { status, tag: 9, .. } => Some(*status),
        _ => None,
    });
    status.unwrap_or_else(|| panic!("{events:?}"))
}

#[test]
fn a_duplicate_is_not_used() {
    for (from, icmp) in [("::", solicitation(OWN, false)), (OWN, advertisement(OWN, 0x20, 9))] {
        let mut talk = auto();
        talk.pass(Duration::from_ms(1_000));
        let to = if from == "::" { "ff02::1:ff00:1" } else { ALL_NODES };
        say(&mut talk, from, to, 255, &icmp);
        talk.pass(Duration::from_s(10));
        assert!(addresses(&talk).is_empty(), "from {from}");
        assert_eq!(talk.station.count(Counter::Ipv6Duplicates), 1);
    }
    // Our own probe that a switch sends back is no duplicate.
    let mut talk = auto();
    let mut frame =
        wire6::icmp(MACS, (&[0; 16], &ip("ff02::1:ff00:1")), 255, &solicitation(OWN, false));
    frame[6..12].copy_from_slice(&MACS[1]);
    hear(&mut talk, frame);
    talk.pass(Duration::from_ms(2_500));
    assert_eq!(addresses(&talk), [ip(OWN)]);
}

fn echo_request(payload: &[u8]) -> Vec<u8> {
    [&[128, 0, 0, 0, 1, 2, 3, 4][..], payload].concat()
}

#[test]
fn a_ping_is_answered_from_the_address_that_was_asked() {
    let mut talk = routed();
    for to in [OWN, GLOBAL] {
        let sent = say(&mut talk, "2001:db8::7", to, 64, &echo_request(b"0123456789"));
        let [answer] = &sent[..] else { panic!("{sent:02x?}") };
        let (from, back, body) = icmp(answer);
        assert_eq!((from, back), (ip(to), ip("2001:db8::7")));
        assert_eq!((body[0], &body[4..]), (129, &echo_request(b"0123456789")[4..]));
    }
    let sent = say(&mut talk, PEER, ALL_NODES, 64, &echo_request(b"anybody?"));
    assert_eq!(icmp(&sent[0]).0, ip(OWN));
    assert_eq!(talk.station.count(Counter::IcmpEchoes), 3);
    let mut bad = wire6::icmp(MACS, (&ip(PEER), &ip(OWN)), 64, &echo_request(b"x"));
    bad[60] ^= 1;
    assert!(hear(&mut talk, bad).is_empty());
    assert_eq!(talk.station.dropped(Reason::Icmp), 1, "a wrong checksum");
    talk.station.assert_all_quiet();
}

#[test]
fn a_ping_behind_extension_headers_is_answered_without_them() {
    let mut talk = settled();
    let ends = (&ip(PEER), &ip(OWN));
    let ping = summed(ends, 58, 2, &echo_request(b"behind"));
    let padded = [0, 0, 1, 4, 0, 0, 0, 0];
    let mut payload = padded.to_vec();
    payload[0] = 44;
    payload.extend([60, 0, 0, 0, 9, 9, 9, 9]);
    payload.extend([58, 0, 1, 4, 0, 0, 0, 0]);
    payload.extend(&ping);
    let sent = hear(&mut talk, wire6::packet(MACS, ends, 64, 0, &payload));
    let (_, _, body) = icmp(&sent[0]);
    assert_eq!(body[4..], ping[4..], "hop-by-hop, an atomic fragment, destination options");
}

/// The ICMPv6 error for a packet: type, code, pointer.
#[track_caller]
fn error_for(talk: &mut Talk, first: u8, payload: &[u8]) -> Option<(u8, u8, u32)> {
    let frame = wire6::packet(MACS, (&ip(PEER), &ip(OWN)), 64, first, payload);
    let sent = hear(talk, frame.clone());
    assert!(sent.len() <= 1, "{sent:02x?}");
    let (from, to, body) = icmp(sent.first()?);
    assert_eq!((from, to), (ip(OWN), ip(PEER)));
    let quoted = (frame.len() - 14).min(1280 - 48);
    assert_eq!(body[8..], frame[14..14 + quoted], "as much of it as fits");
    Some((body[0], body[1], u32::from_be_bytes(body[4..8].try_into().unwrap())))
}

#[test]
fn what_cannot_be_understood_is_answered_with_where() {
    let mut talk = settled();
    let route = [6, 0, 0, 1, 0, 0, 0, 0];
    assert_eq!(error_for(&mut talk, 43, &route), Some((4, 0, 42)), "routing type 0");
    let option = [6, 0, 0x8a, 0, 0, 0, 0, 0];
    assert_eq!(error_for(&mut talk, 60, &option), Some((4, 2, 42)), "an unknown option");
    assert_eq!(error_for(&mut talk, 200, &[0; 1400]), Some((4, 1, 6)), "an unknown protocol");
    let behind = [200, 0, 1, 4, 0, 0, 0, 0];
    assert_eq!(error_for(&mut talk, 60, &behind), Some((4, 1, 40)));
    let discard = [6, 0, 0x4a, 0, 0, 0, 0, 0];
    assert_eq!(error_for(&mut talk, 60, &discard), None);
    assert_eq!(talk.station.count(Counter::IcmpErrorsSent), 4);
    talk.station.assert_all_quiet();
}

#[test]
fn a_datagram_for_nobody_is_answered_and_one_without_a_checksum_is_not_even_read() {
    let mut talk = settled();
    let datagram = [0x30, 0, 0x40, 0, 0, 9, 0, 0, 7];
    let ends = (&ip(PEER), &ip(OWN));
    let good = summed(ends, 17, 6, &datagram);
    assert_eq!(error_for(&mut talk, 17, &good), Some((1, 4, 0)));
    assert_eq!(error_for(&mut talk, 17, &datagram), None, "no checksum");
    assert_eq!(talk.station.dropped(Reason::UdpChecksum), 1);
}

#[test]
fn errors_are_not_answered_nor_are_groups_and_the_rate_is_bounded() {
    let mut talk = settled();
    // An error about something, behind an option that we do not know.
    let inner = [1, 0, 0, 0, 0, 0, 0, 0];
    let unknown = summed((&ip(PEER), &ip(OWN)), 58, 2, &inner);
    assert_eq!(error_for(&mut talk, 58, &unknown), None);
    let to_group = wire6::packet(MACS, (&ip(PEER), &ip(ALL_NODES)), 64, 200, &[0; 8]);
    assert!(hear(&mut talk, to_group).is_empty());
    let option =
        wire6::packet(MACS, (&ip(PEER), &ip(ALL_NODES)), 64, 60, &[6, 0, 0x8a, 0, 0, 0, 0, 0]);
    assert_eq!(hear(&mut talk, option).len(), 1, "RFC 4443 §2.4 e.3");
    let nobody = wire6::packet(MACS, (&[0; 16], &ip(OWN)), 64, 200, &[0; 8]);
    assert!(hear(&mut talk, nobody).is_empty());
    let mut told = 0;
    for _ in 0..200 {
        told += u32::from(error_for(&mut talk, 200, &[0; 8]).is_some());
    }
    assert!((15..=25).contains(&told), "{told}");
    assert_eq!(talk.station.dropped(Reason::IcmpUntold), u64::from(200 - told));
    talk.station.assert_buffers_conserved();
}

#[test]
fn an_ipv4_address_in_disguise_a_group_or_ourselves_is_no_sender() {
    let mut talk = settled();
    let before = talk.station.dropped(Reason::IpMalformed);
    for from in ["::ffff:10.0.0.2", "::1", "ff02::1", OWN] {
        assert!(say(&mut talk, from, OWN, 64, &echo_request(b"x")).is_empty(), "{from}");
    }
    assert_eq!(talk.station.dropped(Reason::IpMalformed) - before, 4);
}

/// Accepts a connection from the peer's `port` to `to`; its handle and our next sequence number.
fn accepted(talk: &mut Talk, to: &str, port: u16) -> (Handle, u32) {
    let answer = segment(talk, to, port, SYN, 999, 0);
    let una = answer.1 + 1;
    assert_eq!(answer.0, SYN | ACK);
    let frame = tcp(to, port, ACK, 1000, una);
    hear(talk, frame);
    let events = talk.events();
    let [Condition::Knock { handle, remote, .. }] = events[..] else { panic!("{events:?}") };
    assert_eq!((remote.ip, remote.port, remote.scope), (IpAddress(ip(PEER)), port, 1));
    talk.call(Call::accept(handle, Cookie(u64::from(port))));
    (handle, una)
}

fn tcp(to: &str, port: u16, flags: u8, seq: u32, ack: u32) -> Vec<u8> {
    let ends = (&ip(PEER), &ip(to));
    let mut t = port.to_be_bytes().to_vec();
    t.extend([0, 7]);
    t.extend(seq.to_be_bytes());
    t.extend(ack.to_be_bytes());
    t.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    wire6::packet(MACS, ends, 64, 6, &summed(ends, 6, 16, &t))
}

/// Sends a segment; flags and sequence number of the only answer, which comes from where it went.
#[track_caller]
fn segment(talk: &mut Talk, to: &str, port: u16, flags: u8, seq: u32, ack: u32) -> (u8, u32) {
    let sent = hear(talk, tcp(to, port, flags, seq, ack));
    let answers: Vec<_> = sent.iter().filter(|f| f[20] == 6).collect();
    let [answer] = answers[..] else { panic!("{sent:02x?}") };
    assert_eq!((&answer[22..38], &answer[38..54]), (&ip(to)[..], &ip(PEER)[..]));
    (answer[67], u32::from_be_bytes(answer[58..62].try_into().unwrap()))
}

fn listen(talk: &mut Talk, at: IpAddress) -> Status {
    talk.call(Call::listen(SocketAddress { ip: at, port: 7, scope: 0 }, 16).with_result(1));
    match talk.events()[..] {
        [Condition::Result { status, .. }] => status,
        ref other => panic!("{other:?}"),
    }
}

#[test]
fn off_by_default_and_then_nothing_is_said_or_heard() {
    let mut talk = Talk::new(|_| {});
    talk.pass(Duration::from_s(5));
    let sent = say(&mut talk, PEER, ALL_NODES, 255, &advert(1800, 86_400, 43_200));
    assert!(sent.is_empty());
    assert_eq!(talk.station.dropped(Reason::EtherType), 1);
    assert_eq!(connect(&mut talk, "2001:db8::1"), Status::Unreachable);
}

#[test]
fn every_core_learns_the_addresses_and_the_neighbours() {
    let setup = Setup {
        cores: 4,
        configure: |config| config.ipv6 = Mode::Auto(Identifiers::Stable),
        ..Setup::new(1)
    };
    let mut station = Station::new(setup);
    station.start((0..4).map(|_| Box::new(Script::default()) as Box<_>).collect());
    let mut now = ix_dataplane::time::Instant(1_000_000);
    let mut run = |station: &mut Station, frame: Option<Vec<u8>>, ms: u64| {
        station.machines[0].rx[0].inbox.extend(frame);
        for _ in 0..ms * 2 {
            station.step(now);
            now = now + Duration::from_us(500);
        }
    };
    run(&mut station, None, 2_500);
    let frame = wire6::icmp(MACS, (&ip(PEER), &ip(ALL_NODES)), 255, &advert(1800, 86_400, 43_200));
    run(&mut station, Some(frame), 2_500);
    let first = station.engines[0].ipv6().clone();
    assert_eq!((first.addresses().count(), first.routers.len(), first.on_link.len()), (2, 1, 1));
    for engine in &station.engines {
        assert_eq!(engine.ipv6(), &first);
    }
    station.assert_all_quiet();
}

#[test]
fn rules_judge_what_comes_over_ipv6_and_leave_neighbour_discovery_alone() {
    let give = |talk: &mut Talk, rules: &[Rule], default_in| {
        let source = ix_acl::build::build(rules, [default_in, Action::Allow], "");
        let set = ix_acl::decode(source, IpAddress::v4([10, 0, 0, 1])).expect("good rules");
        talk.station.engines[0].set_rules(set).expect("room");
        talk.step();
    };
    let remote = |text: &str, len| Prefix::new(ip(text), len).unwrap();
    let tcp_from =
        Rule { protocol: Some(Protocol::Tcp), remote: remote("fe80::", 10), ..Rule::ALLOW };
    let wake = Rule { protocol: Some(Protocol::Udp), ..Rule::ALLOW };
    let to_global = Rule {
        protocol: Some(Protocol::Icmp),
        icmp: Some((128, None)),
        local: remote(GLOBAL, 128),
        ..Rule::ALLOW
    };
    let mut talk = routed();
    assert_eq!(listen(&mut talk, IpAddress::UNSPECIFIED), Status::Ok);
    give(&mut talk, &[wake, tcp_from, to_global], Action::Reject);
    // The peer's prefix may connect; other sources may not.
    assert_eq!(segment(&mut talk, OWN, 4000, SYN, 999, 0).0, SYN | ACK);
    let ends = (&ip("2001:db8::7"), &ip(OWN));
    let syn = tcp(OWN, 4001, SYN, 999, 0)[54..].to_vec();
    let frame = wire6::packet(MACS, ends, 64, 6, &summed(ends, 6, 16, &syn));
    let sent = hear(&mut talk, frame);
    assert!(matches!(&sent[..], [f] if f[20] == 6 && f[67] == RST | ACK), "{sent:02x?}");
    // Type 128 to one address only; the other's sender is told that it is prohibited.
    let sent = say(&mut talk, PEER, GLOBAL, 64, &echo_request(b"x"));
    assert_eq!(icmp(&sent[0]).2[0], 129);
    let sent = say(&mut talk, PEER, OWN, 64, &echo_request(b"x"));
    let (_, _, body) = icmp(&sent[0]);
    assert_eq!((body[0], body[1]), (1, 1));
    // Neighbour discovery goes on whatever the rules say.
    give(&mut talk, &[], Action::Deny);
    let sent = say(&mut talk, PEER, "ff02::1:ff00:1", 255, &solicitation(OWN, true));
    assert_eq!(icmp(&sent[0]).2[0], 136);
    assert!(say(&mut talk, PEER, OWN, 64, &echo_request(b"x")).is_empty());
    talk.station.assert_buffers_conserved();
}
