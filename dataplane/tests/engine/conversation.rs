//! Conversations with a peer whose segments are written by hand: one behaviour each.
use crate::support::family::{BELOW, MSS_DEFAULT, MSS_OPTION, V6, pseudo, transport};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, DeadReason, Handle, Op, SocketAddress, Status};
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const COOKIE: Cookie = Cookie(0xc0ffee);

fn listening() -> Talk {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4).with_result(1));
    let events = talk.events();
    assert!(matches!(events[..], [Condition::Result { status: Status::Ok, .. }]), "{events:?}");
    talk
}

/// A connection that the peer opened with sequence number 1000, accepted; its handle, and the
/// station's next sequence number.
fn accepted(talk: &mut Talk, window: u16) -> (Handle, u32) {
    talk.send(SYN, 999, 0, window, &[]);
    let answer = talk.one();
    assert_eq!((answer.flags, answer.ack), (SYN | ACK, 1000));
    let una = answer.seq + 1;
    talk.send(ACK, 1000, una, window, &[]);
    let events = talk.events();
    let [Condition::Knock { handle, remote, local_port: 7, .. }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(remote, talk.remote());
    talk.call(Call::accept(handle, COOKIE));
    assert_eq!(talk.events(), []);
    talk.nothing();
    (handle, una)
}

fn sendv(handle: Handle, addr: u64, len: u64) -> Call {
    Call::sendv(handle, 1, SgEntry { addr, len }, SgEntry::default()).with_result(5)
}

fn sent_event(events: &[Condition]) -> Option<(u32, u32)> {
    events.iter().find_map(|event| match event {
        Condition::Sent { bytes, window, .. } => Some((*bytes, *window)),
        _ => None,
    })
}

#[test]
fn a_knock_comes_when_the_handshake_is_complete_and_data_only_after_accept() {
    let mut talk = listening();
    let options = [2, 4, 0x05, 0xb4, 1, 3, 3, 7];
    let syn = talk.frame(SYN, 999, 0, 64_000, &options, &[]);
    talk.give(syn);
    talk.step();
    let answer = talk.one();
    assert_eq!(answer.options, [&MSS_OPTION[..], &[1, 3, 3, 3]].concat());
    assert_eq!(talk.events(), [], "no knock before the handshake is complete");
    talk.send(ACK | PSH, 1000, answer.seq + 1, 500, b"early");
    let events = talk.events();
    let [Condition::Knock { handle, .. }] = events[..] else { panic!("{events:?}") };
    talk.call(Call::accept(handle, COOKIE));
    let events = talk.events();
    let [Condition::Recv { handle: h, cookie: COOKIE, addr, len: 5 }] = events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(h, handle);
    assert_eq!(talk.station.machines[0].context.bytes(addr, 5), b"early");
}

#[test]
fn a_peer_without_window_scaling_gets_none() {
    let mut talk = listening();
    talk.send(SYN, 999, 0, 1000, &[]);
    let answer = talk.one();
    assert_eq!(answer.options, MSS_OPTION);
}

#[test]
fn a_rejected_connection_is_reset_and_its_handle_is_gone() {
    let mut talk = listening();
    talk.send(SYN, 999, 0, 1000, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, 1000, &[]);
    let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!() };
    talk.call(Call::new(Op::Reject, handle));
    let rst = talk.one();
    assert_eq!((rst.flags & RST, rst.seq), (RST, una));
    talk.call(Call::accept(handle, COOKIE).with_tag(3));
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Result { status: Status::BadHandle, tag: 3, .. }]),
        "{events:?}"
    );
    talk.station.assert_all_quiet();
}

#[test]
fn the_backlog_bounds_handshakes_and_those_beyond_take_no_slot() {
    let mut talk = listening();
    for i in 0..6 {
        talk.port = 5000 + i;
        talk.send(SYN, 999, 0, 1000, &[]);
    }
    assert_eq!(talk.sent().len(), 6);
    assert_eq!(talk.station.count(Counter::SynCookiesSent), 2);
    assert_eq!(talk.station.count(Counter::TcpConnections), 4);
    talk.pass(Duration::from_s(40));
    assert_eq!(talk.station.count(Counter::TcpConnections), 0, "handshakes time out");
    let _ = talk.sent();
    talk.send(SYN, 999, 0, 1000, &[]);
    assert_eq!(talk.one().flags, SYN | ACK, "and leave room");
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
}

#[test]
fn a_handshake_ends_by_time_also_if_its_answer_never_gets_its_turn() {
    let mut talk = listening();
    talk.station.machines[0].tx.depth = 0;
    talk.send(SYN, 999, 0, 1000, &[]);
    talk.pass(Duration::from_s(14));
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    talk.pass(Duration::from_s(20));
    assert_eq!(talk.station.count(Counter::TcpConnections), 0);
    talk.nothing();
    talk.station.machines[0].tx.depth = 256;
    talk.pass(Duration::from_ms(1));
    talk.nothing();
    talk.station.assert_all_quiet();
}

#[test]
fn a_connect_ends_by_time_also_if_its_syn_never_gets_its_turn() {
    let mut talk = listening();
    talk.send(SYN, 999, 0, 1000, &[]);
    let _ = talk.one();
    talk.station.machines[0].tx.depth = 0;
    talk.call(Call::connect(COOKIE, talk.host(80)));
    talk.pass(Duration::from_s(29));
    assert!(V6 || talk.script().events.is_empty());
    talk.pass(Duration::from_s(32));
    // Over IPv6 the neighbour has to be asked meanwhile (RFC 4861 §7.3), and that cannot be sent either.
    let expected = |outcome| outcome == Status::TimedOut || V6 && outcome == Status::Unreachable;
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Connected { outcome, .. }] if expected(outcome)),
        "{events:?}"
    );
}

#[test]
fn a_lost_syn_ack_is_sent_again_by_time_and_by_a_repeated_syn() {
    let mut talk = listening();
    talk.send(SYN, 999, 0, 1000, &[]);
    let first = talk.one();
    talk.pass(Duration::from_ms(1100));
    assert_eq!(talk.one(), first);
    talk.send(SYN, 999, 0, 1000, &[]);
    assert_eq!(talk.one(), first);
}

#[test]
fn memory_is_reported_sent_when_acknowledged_and_data_rides_on_the_answer() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.station.machines[0].context.fill(HEAP_BASE + 10, b"answer");
    talk.send(ACK | PSH, 1000, una, 1000, b"question");
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 8, .. }]));
    talk.nothing();
    talk.calls(&[sendv(handle, HEAP_BASE + 10, 6), Call::recv_done(handle, 8)]);
    let segment = talk.one();
    assert_eq!((&segment.payload[..], segment.ack), (&b"answer"[..], 1008));
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Result { status: Status::Ok, value: 6, tag: 5, .. }]),
        "{events:?}"
    );
    assert_eq!(talk.station.memory.pins_total(), 1);
    talk.send(ACK, 1008, una + 6, 1000, &[]);
    assert_eq!(sent_event(&talk.events()), Some((6, 1000)));
    assert_eq!(talk.station.memory.pins_total(), 0);
}

#[test]
fn an_acknowledgement_without_data_waits_for_the_delayed_ack_timer() {
    let mut talk = listening();
    let (_, una) = accepted(&mut talk, 1000);
    talk.send(ACK | PSH, 1000, una, 1000, b"x");
    talk.nothing();
    talk.pass(Duration::from_ms(50));
    let ack = talk.one();
    assert_eq!((ack.flags, ack.ack, ack.payload.len()), (ACK, 1001, 0));
}

#[test]
fn out_of_order_segments_are_acknowledged_at_once_and_delivered_in_order() {
    let mut talk = listening();
    let (_, una) = accepted(&mut talk, 1000);
    talk.send(ACK, 1005, una, 1000, b"67890");
    assert_eq!(talk.one().ack, 1000);
    talk.send(ACK, 1003, una, 1000, b"4567");
    assert_eq!(talk.one().ack, 1000);
    assert_eq!(talk.events(), []);
    talk.send(ACK, 1000, una, 1000, b"1234");
    assert_eq!(talk.one().ack, 1010);
    let mut stream = Vec::new();
    for event in talk.events() {
        let Condition::Recv { addr, len, .. } = event else { panic!("{event:?}") };
        stream.extend_from_slice(talk.station.machines[0].context.bytes(addr, u64::from(len)));
    }
    assert_eq!(stream, b"1234567890");
    talk.station.assert_buffers_conserved();
}

#[test]
fn three_duplicate_acknowledgements_bring_the_missing_segment_without_a_timeout() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 60_000);
    talk.call(sendv(handle, HEAP_BASE, 5 * u64::from(MSS_DEFAULT)));
    let sent = talk.sent();
    assert_eq!(sent.len(), 5);
    for _ in 0..3 {
        talk.send(ACK, 1000, una, 60_000, &[]);
    }
    let again = talk.one();
    assert_eq!((again.seq, again.payload.len()), (una, MSS_DEFAULT as usize));
    talk.send(ACK, 1000, una + 5 * MSS_DEFAULT, 60_000, &[]);
    assert_eq!(sent_event(&talk.events()).map(|(bytes, _)| bytes), Some(5 * MSS_DEFAULT));
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
}

#[test]
fn a_retransmission_timeout_goes_back_to_one_segment_and_backs_off() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 60_000);
    talk.call(sendv(handle, HEAP_BASE, 4 * u64::from(MSS_DEFAULT)));
    assert_eq!(talk.sent().len(), 4);
    talk.pass(Duration::from_ms(250));
    let first = talk.one();
    assert_eq!((first.seq, first.payload.len()), (una, MSS_DEFAULT as usize));
    talk.pass(Duration::from_ms(300));
    talk.nothing();
    talk.pass(Duration::from_ms(200));
    assert_eq!(talk.one().seq, una);
    talk.send(ACK, 1000, una + MSS_DEFAULT, 60_000, &[]);
    assert_eq!(talk.sent().len(), 2, "slow start");
}

#[test]
fn a_shut_window_admits_nothing_is_probed_and_announced_when_it_opens() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.calls(&[sendv(handle, HEAP_BASE, 3000), sendv(handle, HEAP_BASE, 10)]);
    let results: Vec<_> = talk
        .events()
        .into_iter()
        .map(|event| match event {
            Condition::Result { status, value, .. } => (status, value),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(results, [(Status::Again, 1000), (Status::Again, 0)], "no holes");
    assert_eq!(talk.sent().iter().map(|s| s.payload.len()).sum::<usize>(), 1000);
    talk.send(ACK, 1000, una + 1000, 0, &[]);
    assert_eq!(sent_event(&talk.events()), Some((1000, 0)));
    talk.pass(Duration::from_ms(250));
    let probe = talk.one();
    assert_eq!((probe.seq, probe.payload.len()), (una + 999, 0));
    talk.send(ACK, 1000, una + 1000, 0, &[]);
    assert_eq!(talk.events(), []);
    // The window update was lost; the next probe brings it.
    talk.pass(Duration::from_ms(500));
    assert_eq!(talk.sent().len(), 1);
    talk.send(ACK, 1000, una + 1000, 2000, &[]);
    assert_eq!(sent_event(&talk.events()), Some((0, 2000)));
    talk.call(sendv(handle, HEAP_BASE, 100));
    assert_eq!(talk.one().payload.len(), 100);
}

#[test]
fn our_window_closes_with_what_the_application_holds_and_opens_as_it_returns_it() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    let mut seq = 1000;
    let mut edge = 0;
    for _ in 0..100 {
        talk.send(ACK, seq, una, 1000, &[7; 1400]);
        seq += 1400;
        for segment in talk.sent() {
            edge = segment.ack + u32::from(segment.window);
        }
        if edge != 0 && edge < seq + 1400 {
            break;
        }
    }
    let held: u32 = talk
        .events()
        .iter()
        .map(|e| if let Condition::Recv { len, .. } = e { *len } else { 0 })
        .sum();
    assert!(held > 60_000 && held <= 65_535, "{held} bytes held");
    talk.call(Call::recv_done(handle, u64::from(held) - 1));
    let update = talk.one();
    assert!(update.window > 60_000);
    talk.call(Call::recv_done(handle, 2).with_tag(4));
    assert!(matches!(
        talk.events()[..],
        [Condition::Result { status: Status::Invalid, tag: 4, .. }]
    ));
    talk.call(Call::recv_done(handle, 1));
    talk.station.assert_buffers_conserved();
    assert_eq!(talk.station.engines[0].conservation().received, 0);
}

#[test]
fn the_peer_closes_first() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.send(ACK | FIN, 1000, una, 1000, b"bye");
    assert_eq!(talk.one().ack, 1004);
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Recv { len: 3, .. }, Condition::Eof { .. }]),
        "{events:?}"
    );
    talk.calls(&[sendv(handle, HEAP_BASE, 4), Call::new(Op::Close, handle)]);
    let last = talk.one();
    assert_eq!((last.flags, last.payload.len(), last.seq), (ACK | PSH | FIN, 4, una));
    let _ = talk.events();
    talk.send(ACK, 1004, una + 5, 1000, &[]);
    let events = talk.events();
    assert!(
        matches!(
            events[..],
            [Condition::Sent { bytes: 4, .. }, Condition::Dead { reason: DeadReason::Closed, .. }]
        ),
        "{events:?}"
    );
    talk.station.assert_all_quiet();
}

#[test]
fn we_close_first_and_stay_in_time_wait() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(Call::new(Op::Close, handle));
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send(ACK, 1000, una + 1, 1000, &[]);
    assert_eq!(talk.events(), []);
    talk.send(ACK | FIN, 1000, una + 1, 1000, &[]);
    assert_eq!(talk.one().ack, 1001);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
    // The ACK was lost: the FIN comes again.
    talk.send(ACK | FIN, 1000, una + 1, 1000, &[]);
    assert_eq!(talk.one().ack, 1001);
    talk.call(Call::new(Op::Close, handle).with_tag(9));
    assert!(matches!(
        talk.events()[..],
        [Condition::Result { status: Status::BadHandle, tag: 9, .. }]
    ));
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    talk.pass(Duration::from_s(61));
    talk.station.assert_all_quiet();
}

#[test]
fn connections_in_time_wait_make_room_for_new_ones() {
    let mut talk = Talk::new(|s| {
        s.connections = 3;
        s.groups = 1;
    });
    talk.call(Call::listen(PORT, 4));
    for i in 0..10 {
        talk.port = 6000 + i;
        let (handle, una) = accepted(&mut talk, 1000);
        talk.call(Call::new(Op::Close, handle));
        let _ = talk.sent();
        talk.send(ACK | FIN, 1000, una + 1, 1000, &[]);
        assert_eq!(talk.one().ack, 1001);
        assert!(matches!(talk.events()[..], [Condition::Dead { .. }]));
    }
    assert_eq!(talk.station.dropped(Reason::TcpTableFull), 0);
    assert_eq!(talk.station.count(Counter::TcpConnections), 3);
    talk.pass(Duration::from_s(61));
    talk.station.assert_all_quiet();
}

#[test]
fn both_close_at_once() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(Call::new(Op::Close, handle));
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send(ACK | FIN, 1000, una, 1000, &[]);
    assert_eq!(talk.one().ack, 1001);
    talk.send(ACK, 1001, una + 1, 1000, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
    talk.pass(Duration::from_s(61));
    talk.station.assert_all_quiet();
}

#[test]
fn after_shutdown_the_peer_may_go_on_sending() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(Call::new(Op::Shutdown, handle));
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send(ACK, 1000, una + 1, 1000, b"more");
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 4, .. }]));
    talk.call(sendv(handle, HEAP_BASE, 1));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::State, .. }]));
    talk.send(ACK | FIN, 1004, una + 1, 1000, &[]);
    assert!(matches!(talk.events()[..], [Condition::Eof { .. }]));
    talk.call(Call::new(Op::Close, handle));
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Closed, .. }]));
    talk.pass(Duration::from_s(61));
    talk.station.assert_all_quiet();
}

#[test]
fn data_after_close_resets() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(Call::new(Op::Close, handle));
    let _ = talk.sent();
    talk.send(ACK, 1000, una + 1, 1000, b"too late");
    assert_eq!(talk.one().flags & RST, RST);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Aborted, .. }]));
    assert_eq!(talk.station.dropped(Reason::TcpAfterClose), 1);
    talk.station.assert_all_quiet();
}

#[test]
fn a_closed_connection_whose_peer_never_closes_ends_by_time() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(Call::new(Op::Close, handle));
    talk.send(ACK, 1000, una + 1, 1000, &[]);
    let _ = talk.sent();
    talk.pass(Duration::from_s(61));
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::TimedOut, .. }]));
    talk.station.assert_all_quiet();
}

#[test]
fn only_the_exact_reset_resets_and_the_application_then_closes() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.send(ACK, 1000, una, 1000, b"kept");
    let events = talk.events();
    let [Condition::Recv { addr, .. }] = events[..] else { panic!("{events:?}") };
    talk.send(RST, 1010, 0, 0, &[]);
    assert_eq!(talk.one().ack, 1004, "a challenge");
    talk.send(RST, 900, 0, 0, &[]);
    talk.send(SYN, 1004, 0, 1000, &[]);
    assert_eq!(talk.one().ack, 1004, "a challenge");
    talk.send(RST, 1004, 0, 0, &[]);
    talk.nothing();
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Reset, .. }]));
    assert_eq!(talk.station.machines[0].context.bytes(addr, 4), b"kept");
    assert_eq!(talk.station.engines[0].conservation().received, 1);
    talk.call(Call::new(Op::Close, handle));
    talk.station.assert_all_quiet();
    talk.call(Call::new(Op::Close, handle));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::BadHandle, .. }]));
}

#[test]
fn abort_resets_and_its_memory_comes_back_with_dead() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.calls(&[sendv(handle, HEAP_BASE, 500), Call::new(Op::Abort, handle)]);
    let sent = talk.sent();
    assert_eq!(sent.last().map(|s| s.flags & RST), Some(RST));
    let _ = una;
    let events = talk.events();
    assert!(
        matches!(events.last(), Some(Condition::Dead { reason: DeadReason::Aborted, .. })),
        "{events:?}"
    );
    talk.station.assert_all_quiet();
}

#[test]
fn dead_waits_until_no_frame_refers_to_the_memory() {
    let mut talk = listening();
    let (handle, _) = accepted(&mut talk, 1000);
    talk.station.machines[0].tx.stalled = true;
    talk.call(sendv(handle, HEAP_BASE, 500));
    let _ = talk.events();
    talk.call(Call::new(Op::Abort, handle));
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.memory.pins_total(), 1);
    talk.station.machines[0].tx.stalled = false;
    talk.pass(Duration::from_ms(1));
    assert!(matches!(talk.events()[..], [Condition::Dead { .. }]));
    talk.station.assert_all_quiet();
}

#[test]
fn acknowledged_memory_is_not_returned_while_a_retransmission_is_queued() {
    let mut talk = listening();
    let (handle, una) = accepted(&mut talk, 1000);
    talk.call(sendv(handle, HEAP_BASE, 500));
    let _ = (talk.events(), talk.sent());
    talk.station.machines[0].tx.stalled = true;
    talk.pass(Duration::from_ms(250));
    assert_eq!(talk.station.machines[0].tx.waiting(), 1, "a retransmission waits in the queue");
    talk.send(ACK, 1000, una + 500, 1000, &[]);
    assert_eq!(sent_event(&talk.events()), None);
    talk.station.machines[0].tx.stalled = false;
    talk.pass(Duration::from_ms(1));
    assert_eq!(sent_event(&talk.events()).map(|(bytes, _)| bytes), Some(500));
}

#[test]
fn a_datagram_is_received_answered_from_its_own_buffer_and_returned() {
    let mut talk = Talk::new(|_| {});
    let at = SocketAddress { port: 53, ..SocketAddress::default() };
    talk.call(Call::udp_bind(at, COOKIE).with_result(1));
    let events = talk.events();
    let [Condition::Result { status: Status::Ok, handle, .. }] = events[..] else {
        panic!("{events:?}")
    };
    talk.call(Call::udp_bind(at, COOKIE).with_tag(2));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::InUse, .. }]));
    talk.send_udp(53, b"datagram");
    let events = talk.events();
    let [Condition::UdpRecv { addr, len: 8, remote, cookie: COOKIE, .. }] = events[..] else {
        panic!("{events:?}")
    };
    let entry = SgEntry { addr, len: 8 };
    talk.calls(&[
        Call::udp_sendv(handle, remote, 1, entry).with_tag(6),
        Call::udp_recv_done(handle, addr),
        Call::udp_recv_done(handle, addr).with_tag(7),
    ]);
    talk.pass(Duration::from_ms(1));
    let events = talk.events();
    assert!(
        matches!(
            events[..],
            [
                Condition::Result { status: Status::Invalid, tag: 7, .. },
                Condition::UdpSent { tag: 6, bytes: 8, .. }
            ]
        ),
        "{events:?}"
    );
    let is_udp = |f: &&Vec<u8>| matches!(transport(f), Some((17, _)));
    let answer = talk.others.iter().find(is_udp).expect("a datagram");
    assert_eq!(&answer[BELOW + 8..], b"datagram");
    let pseudo = pseudo([10, 0, 0, 1], talk.ip, 17, 16);
    let sum = ix_dataplane::checksum::sum(&answer[BELOW..]);
    assert!(ix_dataplane::checksum::is_good(ix_dataplane::checksum::add(pseudo, sum)));
    talk.station.assert_all_quiet();
}

#[test]
fn a_timer_fires_once_and_a_cancelled_one_never() {
    let mut talk = Talk::new(|_| {});
    talk.calls(&[
        Call::timer_set(Cookie(1), 1000).with_result(1),
        Call::timer_set(Cookie(2), 2000).with_result(2),
    ]);
    let events = talk.events();
    let [_, Condition::Result { status: Status::Ok, handle, .. }] = events[..] else {
        panic!("{events:?}")
    };
    talk.call(Call::new(Op::TimerCancel, handle));
    assert_eq!(talk.events(), []);
    talk.pass(Duration::from_ms(10));
    assert!(matches!(talk.events()[..], [Condition::Timer { cookie: Cookie(1), .. }]));
    talk.call(Call::new(Op::TimerCancel, handle));
    assert!(matches!(talk.events()[..], [Condition::Result { status: Status::BadHandle, .. }]));
}
