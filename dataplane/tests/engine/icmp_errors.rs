//! What ICMP errors do to connections (RFC 1122 §4.2.3.9, RFC 5461), and what forged ones do not
//! (RFC 5927).
use crate::support::icmp::{about, error};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, SocketAddress, Status};
use ix_dataplane::time::Duration;

const HOST: (u8, u8) = (3, 1);
const PORT_CLOSED: (u8, u8) = (3, 3);
const PROHIBITED: (u8, u8) = (3, 13);
const TTL: (u8, u8) = (11, 0);

/// A `connect` whose SYN is out.
fn opening() -> (Talk, u32) {
    let mut talk = Talk::new(|_| {});
    let to = SocketAddress::v4(talk.ip, 80);
    talk.call(Call::connect(Cookie(5), to));
    let syn = talk.one();
    (talk.port, talk.local_port) = (syn.to, syn.from);
    (talk, syn.seq)
}

fn report(talk: &mut Talk, (kind, code): (u8, u8), seq: u32) {
    let frame = error(talk, kind, code, 0, seq, 44);
    talk.give(frame);
    talk.step();
}

#[test]
fn a_hard_error_ends_an_attempt_at_once() {
    for kind in [PORT_CLOSED, (3, 2), (3, 9), (3, 10), PROHIBITED] {
        let (mut talk, seq) = opening();
        report(&mut talk, kind, seq);
        let events = talk.events();
        assert!(
            matches!(events[..], [Condition::Connected { outcome: Status::Unreachable, .. }]),
            "{kind:?}: {events:?}"
        );
        talk.nothing();
        talk.station.assert_all_quiet();
    }
}

#[test]
fn a_soft_error_ends_an_attempt_when_it_comes_again() {
    // RFC 1122 §4.2.3.9 would wait for the timeout, RFC 5461 §5.1 tells of those who do not.
    for kind in [HOST, (3, 0), (3, 5), TTL, (12, 0)] {
        let (mut talk, seq) = opening();
        report(&mut talk, kind, seq);
        assert_eq!(talk.events(), []);
        talk.pass(Duration::from_ms(1100));
        assert_eq!(talk.one().seq, seq);
        report(&mut talk, kind, seq);
        let events = talk.events();
        assert!(
            matches!(events[..], [Condition::Connected { outcome: Status::Unreachable, .. }]),
            "{kind:?}: {events:?}"
        );
    }
}

#[test]
fn a_forged_error_does_nothing() {
    let (mut talk, seq) = opening();
    report(&mut talk, PORT_CLOSED, seq + 1);
    report(&mut talk, PORT_CLOSED, seq.wrapping_sub(1));
    talk.port += 1;
    report(&mut talk, PORT_CLOSED, seq);
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::IcmpUnproven), 3);
    assert_eq!(talk.station.count(Counter::IcmpErrors), 0);
}

#[test]
fn what_is_no_error_about_a_segment_of_ours_is_dropped_and_counted() {
    let (mut talk, _) = opening();
    let ours = talk.station.setup.address;
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 63, 6, 0, 0];
    packet.extend(ours);
    packet.extend([10, 0, 0, 2, 0, 7, 0x0f, 0xa0, 1, 2, 3, 4]);
    let mut foreign = packet.clone();
    foreign[12..16].copy_from_slice(&[10, 0, 0, 99]);
    let mut fragment = packet.clone();
    fragment[7] = 1;
    let mut udp = packet.clone();
    udp[9] = 17;
    let mut options = packet.clone();
    options[0] = 0x4f;
    let short = packet[..27].to_vec();
    let bad = [foreign, fragment, udp, options, short, vec![]];
    for (i, quoted) in bad.iter().enumerate() {
        talk.give(about(ours, 3, 3, 0, quoted));
        talk.step();
        assert_eq!(talk.station.dropped(Reason::Icmp), i as u64 + 1, "{quoted:02x?}");
    }
    // Source quench is deprecated (RFC 6633).
    talk.give(about(ours, 4, 0, 0, &packet));
    talk.step();
    assert_eq!(talk.station.dropped(Reason::Icmp), bad.len() as u64 + 1);
    talk.station.assert_buffers_conserved();
}

fn accepted() -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    let (handle, una) = talk.handshake(0, 60_000, &[]);
    (talk, handle, una)
}

#[test]
fn an_established_connection_outlives_every_error_and_says_why_when_it_dies_by_time() {
    // RFC 5461 §4.1.
    let (mut talk, handle, una) = accepted();
    let entry = SgEntry { addr: HEAP_BASE, len: 100 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    let _ = talk.sent();
    for kind in [HOST, PORT_CLOSED, PROHIBITED, TTL] {
        report(&mut talk, kind, una);
    }
    assert_eq!(talk.station.count(Counter::IcmpErrors), 4);
    talk.send(ACK, 1000, una + 100, 60_000, b"still here");
    let events = talk.events();
    assert!(events.iter().any(|e| matches!(e, Condition::Recv { len: 10, .. })), "{events:?}");
    // Now it really goes away, and routers say so.
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    talk.pass(Duration::from_s(5));
    report(&mut talk, HOST, una + 100);
    talk.pass(Duration::from_s(300));
    let events = talk.events();
    let dead = events.iter().find_map(|event| match event {
        Condition::Dead { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(dead, Some(DeadReason::Unreachable), "{events:?}");
}

#[test]
fn an_error_finds_its_connection_on_another_core() {
    let mut talk = Talk::new(|setup| setup.cores = 2);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 200));
    for port in 4000..4016 {
        // Whichever core these wake, the first is among them and leaves its calls.
        talk.port = port;
        talk.send_udp(WAKE, b"wake");
    }
    for port in 4000..4016 {
        talk.port = port;
        talk.send(SYN, 999, 0, 1000, &[]);
    }
    let answers = talk.sent();
    assert_eq!(answers.len(), 16);
    let on =
        |talk: &Talk, core: usize| talk.station.engines[core].stats().get(Counter::TcpConnections);
    assert!(
        on(&talk, 0) > 0 && on(&talk, 1) > 0,
        "ports on both cores: {} {}",
        on(&talk, 0),
        on(&talk, 1)
    );
    for answer in answers {
        talk.port = answer.to;
        report(&mut talk, PORT_CLOSED, answer.seq);
    }
    assert_eq!((on(&talk, 0), on(&talk, 1)), (0, 0));
    assert_eq!(talk.station.count(Counter::IcmpErrors), 16);
    talk.station.assert_buffers_conserved();
}
