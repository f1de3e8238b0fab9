//! The firewall in an engine: what gets in, what gets out, and rules that change while packets fly.
use crate::support::talk::*;
use ix_abi::acl::{IN, OUT};
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, IpAddress, Op, SocketAddress, Status};
use ix_acl::{Action, Prefix, Protocol, Rule, RuleSet};
use ix_dataplane::checksum;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Duration;

const ECHO: SocketAddress = SocketAddress::v4([0; 4], 7);
const US: IpAddress = IpAddress::v4([10, 0, 0, 1]);
const PEER: IpAddress = IpAddress::v4([10, 0, 0, 2]);

fn tcp(action: Action, port: u16) -> Rule {
    let protocol = Some(Protocol::Tcp);
    Rule { action, protocol, local_ports: (port, port), directions: IN, ..Rule::ALLOW }
}

fn udp(action: Action, directions: u8, port: u16) -> Rule {
    let protocol = Some(Protocol::Udp);
    Rule { action, protocol, directions, local_ports: (port, port), ..Rule::ALLOW }
}

/// The way to the test's own script is always open.
fn set(rules: &[Rule], default_in: Action, default_out: Action) -> RuleSet {
    let mut all = vec![udp(Action::Allow, IN, WAKE)];
    all.extend(rules);
    ix_acl::decode(ix_acl::build::build(&all, [default_in, default_out], ""), US)
        .expect("good rules")
}

fn give(talk: &mut Talk, rules: &[Rule], default_in: Action, default_out: Action) {
    talk.station.engines[0].set_rules(set(rules, default_in, default_out)).expect("room");
    talk.step();
    assert!(talk.station.engines[0].rules_settled());
}

fn open(talk: &mut Talk) -> (Handle, u32) {
    talk.call(Call::listen(ECHO, 8));
    talk.handshake(0, 60_000, &[])
}

/// An IPv4 frame of the peer's.
fn frame(from: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0];
    f.extend((20 + payload.len() as u16).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    f.extend(from);
    f.extend([10, 0, 0, 1]);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend(payload);
    f
}

fn ping(from: [u8; 4], kind: u8) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4];
    let sum = checksum::finish(checksum::sum(&icmp));
    icmp[2..4].copy_from_slice(&sum);
    frame(from, 1, &icmp)
}

fn others(talk: &mut Talk) -> Vec<Vec<u8>> {
    talk.others.drain(..).filter(|f| f[12..14] == [8, 0]).collect()
}

#[test]
fn without_rules_nothing_is_judged() {
    let mut talk = Talk::new(|_| {});
    open(&mut talk);
    let denied = [Reason::AclDeniedIn, Reason::AclDeniedOut, Reason::AclEnded];
    assert!(denied.iter().all(|reason| talk.station.dropped(*reason) == 0));
    assert!(talk.station.engines[0].rules().is_none());
}

#[test]
fn a_denied_syn_gets_no_answer_and_a_rejected_one_a_reset() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(ECHO, 8));
    give(&mut talk, &[tcp(Action::Deny, 7)], Action::Allow, Action::Allow);
    talk.send(SYN, 999, 0, 60_000, &[]);
    talk.nothing();
    assert_eq!(talk.station.dropped(Reason::AclDeniedIn), 1);
    give(&mut talk, &[tcp(Action::Reject, 7)], Action::Allow, Action::Allow);
    talk.send(SYN, 999, 0, 60_000, &[]);
    let reset = talk.one();
    assert_eq!((reset.flags, reset.ack), (RST | ACK, 1000));
    give(&mut talk, &[tcp(Action::Allow, 7)], Action::Deny, Action::Deny);
    talk.send(SYN, 999, 0, 60_000, &[]);
    assert_eq!(talk.one().flags, SYN | ACK);
}

#[test]
fn strays_are_judged_and_their_resets_too() {
    let mut talk = Talk::new(|_| {});
    for (default_in, default_out, answers) in [
        (Action::Allow, Action::Allow, 1),
        (Action::Deny, Action::Allow, 0),
        (Action::Reject, Action::Deny, 1),
        (Action::Allow, Action::Deny, 0),
    ] {
        give(&mut talk, &[], default_in, default_out);
        for (flags, port) in [(ACK, 7), (SYN, 99), (FIN | ACK, 12_345)] {
            talk.local_port = port;
            talk.send(flags, 999, 77, 60_000, &[]);
            assert_eq!(talk.sent().len(), answers, "{default_in:?} {default_out:?} {flags:x}");
        }
        talk.send(RST, 999, 77, 60_000, &[]);
        talk.nothing();
    }
}

#[test]
fn an_established_connection_goes_on_under_rules_that_admit_it() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = open(&mut talk);
    give(&mut talk, &[tcp(Action::Allow, 7)], Action::Deny, Action::Deny);
    talk.send(ACK | PSH, 1000, una, 60_000, b"hello");
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 5, .. }]));
    talk.pass(Duration::from_ms(100));
    assert_eq!(talk.one().ack, 1005, "the acknowledgement gets out, as part of the connection");
    assert_eq!(talk.station.dropped(Reason::AclEnded), 0);
}

#[test]
fn a_connection_that_new_rules_deny_ends_without_a_word() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = open(&mut talk);
    // Data in flight that would be retransmitted.
    let piece = SgEntry { addr: HEAP_BASE, len: 100 };
    talk.call(Call::sendv(handle, 1, piece, SgEntry::default()));
    assert_eq!(talk.one().payload.len(), 100);
    give(&mut talk, &[tcp(Action::Deny, 7)], Action::Allow, Action::Allow);
    talk.nothing();
    talk.pass(Duration::from_s(5));
    talk.nothing();
    let dead = |e: &Condition| matches!(e, Condition::Dead { reason: DeadReason::Evicted, .. });
    assert!(talk.events().iter().any(dead));
    assert_eq!(talk.station.dropped(Reason::AclEnded), 1);
    talk.send(ACK, 1000, una, 60_000, &[]);
    talk.nothing();
    talk.call(Call::new(Op::Close, handle));
    talk.station.assert_all_quiet();
}

#[test]
fn a_connection_that_new_rules_reject_is_reset_when_it_next_says_something() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = open(&mut talk);
    give(&mut talk, &[tcp(Action::Reject, 7)], Action::Allow, Action::Allow);
    talk.nothing();
    talk.send(ACK | PSH, 1000, una, 60_000, b"hello");
    assert_eq!(talk.one().flags, RST | ACK);
    let dead = |e: &Condition| matches!(e, Condition::Dead { reason: DeadReason::Evicted, .. });
    let events = talk.events();
    assert!(events.iter().any(dead) && events.len() == 1, "{events:?}");
    talk.call(Call::new(Op::Close, handle));
    talk.station.assert_all_quiet();
}

#[test]
fn a_reset_that_waits_is_not_sent_to_whom_new_rules_deny() {
    let mut talk = Talk::new(|_| {});
    let (handle, _) = open(&mut talk);
    // The queue takes nothing, so that the RST stays.
    talk.station.machines[0].tx.depth = 0;
    talk.call(Call::new(Op::Abort, handle));
    give(&mut talk, &[tcp(Action::Deny, 7)], Action::Allow, Action::Allow);
    talk.station.machines[0].tx.depth = 256;
    talk.pass(Duration::from_s(1));
    talk.nothing();
    talk.station.assert_all_quiet();
}

#[test]
fn connect_is_judged_and_what_a_peer_answers_belongs_to_it() {
    let mut talk = Talk::new(|_| {});
    let out = |action| Rule {
        action,
        protocol: Some(Protocol::Tcp),
        directions: OUT,
        remote: Prefix::new(PEER.0, 128).unwrap(),
        remote_ports: (4000, 4000),
        ..Rule::ALLOW
    };
    let to = SocketAddress::v4([10, 0, 0, 2], 4000);
    give(&mut talk, &[out(Action::Deny)], Action::Allow, Action::Allow);
    talk.call(Call::connect(Cookie(5), to));
    talk.nothing();
    assert_eq!(talk.statuses(), [Status::Denied]);
    give(&mut talk, &[out(Action::Allow)], Action::Deny, Action::Deny);
    talk.call(Call::connect(Cookie(5), to));
    let syn = talk.one();
    assert_eq!(syn.flags, SYN);
    talk.local_port = syn.from;
    talk.send(SYN | ACK, 500, syn.seq + 1, 60_000, &[]);
    assert_eq!(talk.one().flags, ACK);
    let connected = |e: &Condition| matches!(e, Condition::Connected { outcome: Status::Ok, .. });
    assert!(talk.events().iter().any(connected));
}

#[test]
fn a_syn_that_waits_for_an_address_is_not_sent_under_rules_that_deny_it() {
    let mut talk = Talk::new(|_| {});
    talk.ip = [10, 0, 0, 99];
    let to = SocketAddress::v4([10, 0, 0, 2], 4000);
    talk.call(Call::connect(Cookie(5), to));
    talk.nothing();
    give(&mut talk, &[], Action::Allow, Action::Deny);
    talk.ip = [10, 0, 0, 2];
    talk.pass(Duration::from_s(10));
    talk.nothing();
    talk.station.assert_all_quiet();
}

#[test]
fn datagrams_are_judged_in_both_directions() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::udp_bind(SocketAddress::v4([0; 4], 50), Cookie(3)).with_result(1));
    let events = talk.events();
    let [Condition::Result { handle, .. }] = events[..] else { panic!("{events:?}") };
    let remote = SocketAddress::v4([10, 0, 0, 2], 4000);
    let piece = SgEntry { addr: HEAP_BASE, len: 10 };
    let send = Call::udp_sendv(handle, remote, 1, piece);
    give(&mut talk, &[udp(Action::Deny, IN | OUT, 50)], Action::Allow, Action::Allow);
    talk.send_udp(50, b"in");
    talk.call(send);
    assert_eq!(talk.statuses(), [Status::Denied]);
    assert!(others(&mut talk).is_empty());
    assert_eq!(talk.station.dropped(Reason::AclDeniedIn), 1);
    assert_eq!(talk.station.dropped(Reason::AclDeniedOut), 1);
    give(&mut talk, &[udp(Action::Allow, IN | OUT, 50)], Action::Deny, Action::Deny);
    talk.send_udp(50, b"in");
    talk.call(send);
    assert_eq!(others(&mut talk).len(), 1);
    let events = talk.events();
    assert!(matches!(events[0], Condition::UdpRecv { len: 2, .. }), "{events:?}");
    // Rejected: ICMP says so, and quotes the datagram.
    give(&mut talk, &[udp(Action::Reject, IN, 50)], Action::Deny, Action::Deny);
    talk.send_udp(50, b"in");
    let answers = others(&mut talk);
    assert_eq!(answers.len(), 1);
    let f = &answers[0];
    assert_eq!((f[23], &f[34..36], &f[30..34]), (1, &[3, 13][..], &[10, 0, 0, 2][..]));
    assert!(checksum::is_good(checksum::sum(&f[34..70])) && f[42] == 0x45 && f.len() == 70);
    assert_eq!(f[64..66], [0, 50], "the port that was asked for");
}

#[test]
fn a_datagram_that_waits_for_an_address_is_judged_by_the_rules_of_its_departure() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::udp_bind(SocketAddress::v4([0; 4], 50), Cookie(3)).with_result(1));
    let events = talk.events();
    let [Condition::Result { handle, .. }] = events[..] else { panic!("{events:?}") };
    talk.ip = [10, 0, 0, 99];
    let remote = SocketAddress::v4([10, 0, 0, 2], 4000);
    let piece = SgEntry { addr: HEAP_BASE, len: 10 };
    talk.call(Call::udp_sendv(handle, remote, 1, piece));
    give(&mut talk, &[], Action::Allow, Action::Deny);
    talk.ip = [10, 0, 0, 2];
    talk.pass(Duration::from_s(5));
    assert!(others(&mut talk).is_empty());
    assert_eq!(talk.station.dropped(Reason::AclDeniedOut), 1);
    assert_eq!(talk.station.memory.pins_total(), 0, "its memory is the application's again");
}

#[test]
fn pings_and_their_answers_are_judged_by_type() {
    let mut talk = Talk::new(|_| {});
    let icmp = |action, directions, kind| Rule {
        action,
        directions,
        protocol: Some(Protocol::Icmp),
        icmp: Some((kind, None)),
        ..Rule::ALLOW
    };
    for (rule, default_in, default_out, answer) in [
        (icmp(Action::Deny, IN, 13), Action::Allow, Action::Allow, Some(0)),
        (icmp(Action::Deny, IN, 8), Action::Allow, Action::Allow, None),
        (icmp(Action::Deny, OUT, 0), Action::Allow, Action::Allow, None),
        (icmp(Action::Allow, IN | OUT, 8), Action::Deny, Action::Deny, None),
        (icmp(Action::Reject, IN, 8), Action::Allow, Action::Deny, Some(3)),
    ] {
        give(&mut talk, &[rule], default_in, default_out);
        talk.give(ping([10, 0, 0, 2], 8));
        talk.step();
        let kinds: Vec<u8> = others(&mut talk).iter().map(|f| f[34]).collect();
        assert_eq!(kinds, answer.into_iter().collect::<Vec<_>>(), "{rule:?}");
        // An error is never answered by an error.
        talk.give(ping([10, 0, 0, 2], 3));
        talk.step();
        assert!(others(&mut talk).is_empty());
    }
    talk.station.assert_buffers_conserved();
}

#[test]
fn an_echo_that_waits_for_the_queue_is_judged_by_the_rules_of_its_departure() {
    let mut talk = Talk::new(|_| {});
    talk.station.machines[0].tx.depth = 0;
    talk.give(ping([10, 0, 0, 2], 8));
    talk.local_port = 99;
    talk.send(SYN, 999, 0, 60_000, &[]);
    give(&mut talk, &[], Action::Allow, Action::Deny);
    talk.station.machines[0].tx.depth = 256;
    talk.pass(Duration::from_ms(10));
    assert!(others(&mut talk).is_empty());
    talk.nothing();
    assert_eq!(talk.station.dropped(Reason::AclDeniedOut), 2);
    talk.station.assert_buffers_conserved();
}

#[test]
fn rejected_senders_are_told_at_a_bounded_rate() {
    let mut talk = Talk::new(|_| {});
    give(&mut talk, &[], Action::Reject, Action::Allow);
    for _ in 0..200 {
        talk.give(ping([10, 0, 0, 2], 8));
    }
    talk.step();
    let told = others(&mut talk).len();
    assert!((50..60).contains(&told), "{told}");
    assert_eq!(talk.station.dropped(Reason::AclUntold) as usize, 200 - told);
}

#[test]
fn a_source_has_its_rate_and_its_connections_and_no_more() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(ECHO, 64));
    let limited = Rule { rate: Some((10, 5)), connections: Some(3), ..tcp(Action::Allow, 7) };
    give(&mut talk, &[limited], Action::Deny, Action::Allow);
    let mut tried = 0;
    let mut knock = |talk: &mut Talk| {
        tried += 1;
        talk.port = 5000 + tried;
        talk.send(SYN, 999, 0, 60_000, &[]);
        let answers = talk.sent();
        let Some(una) = answers.first().map(|a| a.seq + 1) else { return false };
        talk.send(ACK, 1000, una, 60_000, &[]);
        true
    };
    assert_eq!((0..10).filter(|_| knock(&mut talk)).count(), 3);
    assert_eq!(talk.station.dropped(Reason::AclConnections), 7);
    // Each that ends makes room for another, as far as the rate goes.
    let events = talk.events();
    for event in &events {
        if let Condition::Knock { handle, .. } = event {
            talk.call(Call::accept(*handle, Cookie(1)));
            talk.call(Call::new(Op::Abort, *handle));
        }
    }
    talk.sent();
    assert_eq!((0..10).filter(|_| knock(&mut talk)).count(), 2);
    assert_eq!(talk.station.dropped(Reason::AclRate), 8);
    talk.pass(Duration::from_ms(101));
    assert!(knock(&mut talk) && !knock(&mut talk));
    assert_eq!(talk.station.dropped(Reason::AclConnections), 8);
    // Another source has its own.
    talk.ip = [10, 0, 0, 3];
    assert!(knock(&mut talk));
    talk.station.assert_buffers_conserved();
}

#[test]
fn the_rate_of_packets_without_connection_is_bounded_too() {
    let mut talk = Talk::new(|_| {});
    let limited = Rule { rate: Some((100, 10)), protocol: Some(Protocol::Icmp), ..Rule::ALLOW };
    give(&mut talk, &[limited], Action::Deny, Action::Allow);
    for _ in 0..50 {
        talk.give(ping([10, 0, 0, 2], 8));
    }
    talk.step();
    assert_eq!(others(&mut talk).len(), 10);
    assert_eq!(talk.station.dropped(Reason::AclRate), 40);
    talk.give(ping([10, 0, 0, 9], 8));
    talk.step();
    assert_eq!(talk.station.count(Counter::IcmpEchoes), 11);
}

/// Calls of a hostile application, and what may leave at all.
#[test]
fn no_batch_of_calls_sends_anything_that_the_rules_or_ownership_forbid() {
    for seed in 1..=20 {
        let mut rng = Rng::from_seed(seed);
        let mut talk = Talk::new(|_| {});
        talk.call(Call::listen(ECHO, 8));
        talk.call(Call::udp_bind(SocketAddress::v4([0; 4], 50), Cookie(3)).with_result(1));
        let bound = talk.events().into_iter().find_map(|e| match e {
            Condition::Result { handle, .. } => Some(handle),
            _ => None,
        });
        let bound = bound.expect("a binding");
        // Only UDP from port 50 to port 4000, and TCP to ports below 1000.
        let rules = [
            Rule { remote_ports: (4000, 4000), ..udp(Action::Allow, OUT, 50) },
            Rule {
                protocol: Some(Protocol::Tcp),
                directions: OUT,
                remote_ports: (0, 999),
                ..Rule::ALLOW
            },
        ];
        give(&mut talk, &rules, Action::Allow, Action::Deny);
        let mut frames = 0;
        for _ in 0..300 {
            let remote = SocketAddress::v4(
                [10, 0, 0, 2 + rng.below(2) as u8],
                [4000, 80, 53, 999, 1000, 0][rng.below(6) as usize],
            );
            let handle = match rng.below(3) {
                0 => bound,
                1 => Handle(bound.0 ^ 1 << rng.below(64)),
                _ => Handle(rng.next_u64()),
            };
            let piece = SgEntry { addr: HEAP_BASE + rng.below(1000), len: rng.below(100) };
            let mut call = match rng.below(4) {
                0 => Call::connect(Cookie(9), remote),
                1 => Call::sendv(handle, 1, piece, SgEntry::default()),
                2 => Call::new(Op::Abort, handle),
                _ => Call::udp_sendv(handle, remote, 1, piece),
            };
            if rng.chance(1, 5) {
                call.words[rng.below(5) as usize] ^= 1 << rng.below(64);
            }
            talk.call(call);
            if rng.chance(1, 10) {
                talk.give(ping([10, 0, 0, 2], 8));
                talk.local_port = rng.next_u32() as u16;
                talk.send(ACK, 1, 1, 1, &[]);
            }
            for f in others(&mut talk) {
                frames += 1;
                let port = |at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
                assert_eq!((f[23], &f[26..30]), (17, &[10, 0, 0, 1][..]), "seed {seed}: {f:x?}");
                assert_eq!((port(34), port(36)), (50, 4000), "seed {seed}");
            }
            for segment in talk.sent() {
                frames += 1;
                assert!(segment.flags == SYN && segment.to < 1000, "seed {seed}: {segment:?}");
                assert!(segment.from >= 1024, "seed {seed}: {segment:?}");
            }
        }
        assert!(frames > 10, "seed {seed}: {frames} frames");
        // And under rules that let nothing out, nothing comes, however long one waits.
        give(&mut talk, &[], Action::Allow, Action::Deny);
        talk.pass(Duration::from_s(60));
        assert!(others(&mut talk).is_empty() && talk.sent().is_empty(), "seed {seed}");
        talk.station.assert_buffers_conserved();
    }
}
