//! Blind attacks (RFC 5961) and the order of checks (RFC 9293 §3.10.7), in conversations.
use crate::support::family::BELOW;
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, SocketAddress, Status};
use ix_dataplane::limits::CHALLENGES_PER_SECOND;
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const WINDOW: u16 = 1000;
const URG: u8 = 32;

/// A connection whose peer comes next with 1000; its handle and our next sequence number.
fn accepted() -> (Talk, Handle, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4));
    let (handle, una) = talk.handshake(0, WINDOW, &[]);
    (talk, handle, una)
}

/// The segment is answered with what we have, and the connection lives.
#[track_caller]
fn challenged(talk: &mut Talk, una: u32) {
    let ack = talk.one();
    assert_eq!((ack.flags, ack.seq, ack.ack, ack.payload.len()), (ACK, una, 1000, 0));
    assert_eq!(talk.events(), []);
}

#[test]
fn a_reset_within_the_window_is_challenged_and_one_outside_is_dropped() {
    // §3.2.
    let (mut talk, _, una) = accepted();
    for seq in [1001, 1000 + 60_000] {
        talk.send(RST, seq, 0, 0, &[]);
        challenged(&mut talk, una);
    }
    for seq in [999, 1000 + 70_000, 0x8000_0000] {
        talk.send(RST, seq, 0, 0, &[]);
        talk.nothing();
    }
    assert_eq!(talk.station.count(Counter::TcpChallengeAcks), 2);
    assert_eq!(talk.station.dropped(Reason::TcpOutOfWindow), 5);
    talk.send(RST, 1000, 0, 0, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Reset, .. }]));
}

#[test]
fn a_reset_with_data_does_not_hit_by_the_part_of_it_that_lies_in_the_window() {
    let (mut talk, _, una) = accepted();
    // Starts below the window and reaches into it.
    talk.send(RST | ACK, 990, una, 0, &[0; 100]);
    challenged(&mut talk, una);
    talk.send(RST | ACK, 1000, una, 0, b"the reason");
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Reset, .. }]));
}

#[test]
fn a_syn_is_challenged_whatever_its_number_and_a_peer_that_began_anew_resets() {
    // §4.2.
    let (mut talk, _, una) = accepted();
    for (seq, flags) in [(1000, SYN), (1500, SYN), (5, SYN), (999, SYN), (1000, SYN | ACK)] {
        talk.send(flags, seq, una, WINDOW, &[]);
        challenged(&mut talk, una);
    }
    // What a peer that does not know the connection makes of the challenge.
    talk.send(RST, 1000, 0, 0, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Reset, .. }]));
}

#[test]
fn data_counts_only_with_an_acknowledgement_of_what_was_lately_sent() {
    // §5.2: SND.UNA - MAX.SND.WND <= SEG.ACK <= SND.NXT.
    let (mut talk, handle, una) = accepted();
    let entry = SgEntry { addr: HEAP_BASE, len: 500 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    assert_eq!(talk.one().payload.len(), 500);
    for ack in [una + 501, una - 1001, una.wrapping_add(1 << 30), una.wrapping_sub(1 << 30)] {
        talk.send(ACK | PSH, 1000, ack, WINDOW, b"injected");
        let answer = talk.one();
        assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, una + 500, 1000), "{ack}");
        assert_eq!(talk.events(), []);
    }
    talk.send(ACK | PSH, 1000, una - u32::from(WINDOW), WINDOW, b"late");
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 4, .. }]));
}

#[test]
fn a_segment_without_ack_is_dropped_silently() {
    // RFC 9293 §3.10.7.4, fifth.
    let (mut talk, _, _) = accepted();
    talk.send(PSH, 1000, 0, WINDOW, b"none");
    talk.send(FIN, 1000, 0, WINDOW, &[]);
    talk.nothing();
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.dropped(Reason::TcpMalformed), 2);
}

#[test]
fn challenges_are_limited_and_honest_peers_are_answered_all_the_same() {
    // §7; how many there are in a second is drawn, so that nobody can count what is left.
    let (mut talk, _, una) = accepted();
    let challenges = |talk: &mut Talk| {
        let mut sent = 0;
        for _ in 0..2 * CHALLENGES_PER_SECOND {
            talk.send(RST, 1005, 0, 0, &[]);
            sent += talk.sent().len() as u32;
        }
        assert!((CHALLENGES_PER_SECOND / 2..=CHALLENGES_PER_SECOND).contains(&sent), "{sent}");
        sent
    };
    let first = challenges(&mut talk);
    let left = u64::from(2 * CHALLENGES_PER_SECOND - first);
    assert_eq!(talk.station.dropped(Reason::TcpChallenge), left);
    // A keep-alive probe, a probe of the window, a lost answer to data: all below the window.
    talk.send(ACK, 999, una, WINDOW, &[]);
    challenged(&mut talk, una);
    talk.send(ACK, 999, una, WINDOW, &[0]);
    challenged(&mut talk, una);
    talk.send(ACK | PSH, 900, una, WINDOW, &[7; 100]);
    challenged(&mut talk, una);
    // But nothing says anything to a bare ACK of long ago, or a SYN.
    talk.send(ACK, 500, una, WINDOW, &[]);
    talk.send(SYN, 5, 0, WINDOW, &[]);
    talk.nothing();
    talk.pass(Duration::from_s(2));
    let others: Vec<u32> = (0..4)
        .map(|_| {
            talk.pass(Duration::from_s(2));
            challenges(&mut talk)
        })
        .collect();
    assert!(others.iter().any(|n| *n != first), "{first} {others:?}");
}

#[test]
fn urgent_data_is_in_line_and_a_wild_pointer_points_at_nothing() {
    // RFC 6093 §6: no data is taken out of the stream, and nothing is read where the pointer points.
    let (mut talk, _, una) = accepted();
    for (pointer, seq) in [(1u16, 1000), (0, 1003), (0xffff, 1006), (3, 1009)] {
        let mut frame = talk.frame(ACK | PSH | URG, seq, una, WINDOW, &[], b"abc");
        frame[BELOW + 18..BELOW + 20].copy_from_slice(&pointer.to_be_bytes());
        // The checksum is that of a pointer of 0: less what was added.
        let sum = u16::from_be_bytes([frame[BELOW + 16], frame[BELOW + 17]]);
        let old = !sum;
        let sum = u32::from(old) + u32::from(pointer);
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        frame[BELOW + 16..BELOW + 18].copy_from_slice(&sum.to_be_bytes());
        talk.give(frame);
        talk.step();
    }
    let mut stream = Vec::new();
    for event in talk.events() {
        let Condition::Recv { addr, len, .. } = event else { panic!("{event:?}") };
        stream.extend_from_slice(talk.station.machines[0].context.bytes(addr, u64::from(len)));
    }
    assert_eq!(stream, b"abcabcabcabc");
    // URG without data, and with what is no ACK.
    talk.send(ACK | URG, 1012, una, WINDOW, &[]);
    talk.send(URG, 1012, una, WINDOW, b"x");
    assert_eq!(talk.events(), []);
}

#[test]
fn a_handshake_is_reset_by_the_exact_number_only() {
    // RFC 9293 §3.10.7.4, SYN-RECEIVED.
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4));
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let answer = talk.one();
    talk.send(RST, 1001, 0, 0, &[]);
    assert_eq!(talk.one(), answer, "a challenge repeats the SYN-ACK");
    talk.send(ACK, 1000, answer.seq + 5, WINDOW, &[]);
    let rst = talk.one();
    assert_eq!((rst.flags, rst.seq), (RST, answer.seq + 5), "an ACK of what was not sent");
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    talk.send(RST, 1000, 0, 0, &[]);
    assert_eq!(talk.station.count(Counter::TcpConnections), 0);
    assert_eq!(talk.events(), [], "nobody was told of it");
    talk.station.assert_all_quiet();
}

#[test]
fn a_connect_believes_only_what_acknowledges_its_syn() {
    // RFC 9293 §3.10.7.3.
    let mut talk = Talk::new(|_| {});
    talk.call(Call::connect(Cookie(1), talk.host(80)));
    let syn = talk.one();
    (talk.port, talk.local_port) = (80, syn.from);
    for ack in [syn.seq, syn.seq + 2, syn.seq.wrapping_sub(100)] {
        talk.send(SYN | ACK, 5000, ack, WINDOW, &[]);
        let rst = talk.one();
        assert_eq!((rst.flags, rst.seq), (RST, ack));
        talk.send(RST | ACK, 0, ack, 0, &[]);
        talk.nothing();
    }
    talk.send(RST, 5000, 0, 0, &[]);
    talk.send(FIN | ACK, 5000, syn.seq + 1, WINDOW, &[]);
    talk.nothing();
    assert_eq!(talk.events(), []);
    talk.send(RST | ACK, 0, syn.seq + 1, 0, &[]);
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Connected { outcome: Status::Refused, .. }]),
        "{events:?}"
    );
    talk.station.assert_all_quiet();
}
