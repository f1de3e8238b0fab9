//! TIME-WAIT and when its place may be taken: RFC 1122 §4.2.2.13, RFC 1337, RFC 6191, in conversations.
use crate::support::talk::*;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, Op, SocketAddress, Status};
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const WINDOW: u16 = 1000;

fn stamp(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

fn value(segment: &Segment) -> u32 {
    let at = segment.options.windows(2).position(|w| w == [8, 10]).expect("timestamps") + 2;
    u32::from_be_bytes(segment.options[at..at + 4].try_into().unwrap())
}

/// A connection that we closed first, in TIME-WAIT: the peer's SYN had sequence number 999 and timestamp
/// 500, its FIN 1000 and 510. Our last sequence number, and our last timestamp.
fn waiting(timestamps: bool) -> (Talk, u32, u32) {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4));
    let stamp = |value, echo| if timestamps { stamp(value, echo) } else { Vec::new() };
    talk.send_options(SYN, (999, 0), WINDOW, &stamp(500, 0), &[]);
    let una = talk.one().seq + 1;
    talk.send_options(ACK, (1000, una), WINDOW, &stamp(501, 0), &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.calls(&[Call::accept(handle, Cookie(1)), Call::new(Op::Close, handle)]);
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send_options(ACK | FIN, (1000, una + 1), WINDOW, &stamp(510, 0), &[]);
    let last = talk.one();
    assert_eq!(last.ack, 1001);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
    (talk, una + 1, if timestamps { value(&last) } else { 0 })
}

/// The SYN has opened a new connection: our first sequence number.
#[track_caller]
fn opened(talk: &mut Talk) -> Segment {
    let answer = talk.one();
    assert_eq!(answer.flags, SYN | ACK);
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    answer
}

/// It has not, and is told how things stand.
#[track_caller]
fn kept(talk: &mut Talk, una: u32) {
    let answer = talk.one();
    assert_eq!((answer.flags, answer.seq, answer.ack), (ACK, una, 1001));
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
}

#[test]
fn without_timestamps_a_syn_beyond_the_old_stream_opens() {
    // RFC 1122 §4.2.2.13, RFC 6191 §2.
    let (mut talk, una, _) = waiting(false);
    for seq in [1001, 1000, 999, 5, 0x8000_0000 + 1002] {
        talk.send(SYN, seq, 0, WINDOW, &[]);
        kept(&mut talk, una);
    }
    talk.send(SYN | ACK, 5000, una, WINDOW, &[]);
    kept(&mut talk, una);
    talk.send(SYN, 1002, 0, WINDOW, &[]);
    let answer = opened(&mut talk);
    assert_eq!(answer.ack, 1003);
    assert!(answer.seq.wrapping_sub(una) < 1 << 31, "ours goes on beyond its old end");
    talk.send(ACK, 1003, answer.seq + 1, WINDOW, &[]);
    assert!(matches!(talk.events()[..], [Condition::Knock { .. }]));
}

#[test]
fn with_timestamps_the_later_one_opens_whatever_its_sequence_number() {
    // RFC 6191 §2.
    for seq in [5, 1002, 0x9000_0000] {
        let (mut talk, una, ours) = waiting(true);
        talk.send_options(SYN, (seq, 0), WINDOW, &stamp(509, 0), &[]);
        kept(&mut talk, una);
        talk.pass(Duration::from_ms(3));
        talk.send_options(SYN, (seq, 0), WINDOW, &stamp(511, 0), &[]);
        let answer = opened(&mut talk);
        assert_eq!(answer.ack, seq + 1);
        let ahead = value(&answer).wrapping_sub(ours);
        assert!(ahead > 0 && ahead < 10, "ours go on as well: {ahead}");
    }
}

#[test]
fn an_equal_timestamp_or_none_leaves_it_to_the_sequence_number() {
    let (mut talk, una, _) = waiting(true);
    talk.send_options(SYN, (1001, 0), WINDOW, &stamp(510, 0), &[]);
    kept(&mut talk, una);
    talk.send_options(SYN, (1002, 0), WINDOW, &stamp(510, 0), &[]);
    opened(&mut talk);
    let (mut talk, una, _) = waiting(true);
    talk.send(SYN, 1001, 0, WINDOW, &[]);
    kept(&mut talk, una);
    talk.send(SYN, 1002, 0, WINDOW, &[]);
    opened(&mut talk);
}

#[test]
fn a_syn_with_timestamps_after_a_connection_without_opens() {
    let (mut talk, _, _) = waiting(false);
    talk.send_options(SYN, (5, 0), WINDOW, &stamp(1, 0), &[]);
    opened(&mut talk);
}

#[test]
fn a_reset_does_not_end_it() {
    // RFC 1337.
    let (mut talk, una, _) = waiting(false);
    for seq in [1001, 1000, 1500] {
        talk.send(RST, seq, una, 0, &[]);
        talk.nothing();
    }
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    // Nor does an old duplicate of a SYN, which the peer's own RST would follow.
    talk.send(SYN, 999, 0, WINDOW, &[]);
    kept(&mut talk, una);
}

#[test]
fn the_peers_last_fin_begins_the_time_anew_and_nothing_else_does() {
    // RFC 9293 §3.10.7.4, eighth.
    let (mut talk, una, _) = waiting(false);
    talk.pass(Duration::from_s(50));
    talk.send(ACK | FIN, 1000, una, WINDOW, &[]);
    kept(&mut talk, una);
    talk.pass(Duration::from_s(50));
    talk.send(ACK | FIN, 990, una, WINDOW, &[]);
    kept(&mut talk, una);
    talk.send(ACK | PSH, 1000, una, WINDOW, b"x");
    kept(&mut talk, una);
    talk.send(ACK, 1001, una, WINDOW, &[]);
    talk.nothing();
    talk.pass(Duration::from_s(11));
    assert_eq!(talk.station.count(Counter::TcpConnections), 0);
    talk.station.assert_all_quiet();
}

#[test]
fn without_room_for_a_handshake_it_is_left_alone() {
    // A cookie could not know where the old stream ended.
    let mut talk = Talk::new(|s| s.groups = 1);
    talk.call(Call::listen(PORT, 1));
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.calls(&[Call::accept(handle, Cookie(1)), Call::new(Op::Close, handle)]);
    talk.send(ACK | FIN, 1000, una + 1, WINDOW, &[]);
    let _ = (talk.sent(), talk.events());
    talk.port = 2001;
    talk.send(SYN, 7, 0, WINDOW, &[]);
    assert_eq!(talk.one().flags, SYN | ACK);
    talk.port = 4000;
    talk.send(SYN, 5000, 0, WINDOW, &[]);
    talk.nothing();
    assert_eq!(talk.station.dropped(Reason::TcpSynQueueFull), 1);
    assert_eq!(talk.station.count(Counter::TcpConnections), 2);
}

/// `connect`s until there are no more ports; those that were opened, with their ports.
fn connect_all(talk: &mut Talk, timestamps: bool) -> Vec<(Handle, u16, u32)> {
    let mut open = Vec::new();
    loop {
        talk.call(Call::connect(Cookie(1), talk.host(80)).with_result(3));
        let Some(Condition::Result { handle, status, .. }) = talk.events().pop() else { panic!() };
        if status != Status::Ok {
            assert_eq!(status, Status::Limit);
            return open;
        }
        let syn = talk.one();
        (talk.port, talk.local_port) = (80, syn.from);
        let options = if timestamps { stamp(700, value(&syn)) } else { Vec::new() };
        talk.send_options(SYN | ACK, (999, syn.seq + 1), WINDOW, &options, &[]);
        let _ = (talk.sent(), talk.events());
        open.push((handle, syn.from, syn.seq + 1));
    }
}

#[test]
fn connect_takes_no_port_in_time_wait_unless_timestamps_make_it_safe() {
    // RFC 6191 §4. An engine tries 256 of its 32,768 ports; so that these are all, all others are taken.
    for timestamps in [false, true] {
        let mut talk = Talk::new(|s| {
            s.groups = 1;
            s.connections = 40_000;
        });
        let open = connect_all(&mut talk, timestamps);
        assert!(open.len() > 20_000, "{}", open.len());
        // Some of them end.
        let mut ended = Vec::new();
        for (handle, port, una) in open.iter().take(3000) {
            (talk.port, talk.local_port) = (80, *port);
            talk.call(Call::new(Op::Close, *handle));
            let options = if timestamps { stamp(701, 0) } else { Vec::new() };
            talk.send_options(ACK | FIN, (1000, una + 1), WINDOW, &options, &[]);
            ended.push((*port, una + 1));
        }
        let _ = (talk.sent(), talk.events());
        // Where one of these ports was taken again: its SYN, and where the old stream ended.
        let mut again = Vec::new();
        let connect = |talk: &mut Talk, again: &mut Vec<(u32, u32)>| {
            for _ in 0..1000 {
                talk.call(Call::connect(Cookie(1), talk.host(80)).with_result(3));
                if matches!(talk.events()[..], [Condition::Result { status: Status::Limit, .. }]) {
                    continue;
                }
                let syn = talk.one();
                let old = ended.iter().find(|(port, _)| *port == syn.from);
                again.extend(old.map(|(_, una)| (syn.seq, *una)));
            }
        };
        connect(&mut talk, &mut again);
        assert_eq!(again, [], "within a second: never");
        talk.pass(Duration::from_ms(1500));
        let _ = (talk.sent(), talk.events());
        connect(&mut talk, &mut again);
        assert_eq!(again.len() > 100, timestamps, "{}", again.len());
        assert!(again.iter().all(|(seq, una)| seq.wrapping_sub(*una) < 1 << 31), "and beyond");
    }
}
