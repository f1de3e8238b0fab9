//! Defects that the simulation found, each as the shortest conversation that shows it.
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::{EVENT_SLOTS, HEAP_BASE};
use ix_abi::{Call, Condition, Cookie, Handle, Op, SocketAddress, Status};

/// A connection that the peer opened with sequence number 1000, accepted.
fn accepted(talk: &mut Talk) -> (Handle, u32) {
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    talk.events();
    talk.handshake(0, 60_000, &[])
}

#[test]
fn data_behind_a_hole_cannot_keep_the_hole_open() {
    let mut talk = Talk::new(|setup| {
        setup.rx_depth = 64;
        setup.buffers = 64 + 96;
    });
    let (_, una) = accepted(&mut talk);
    talk.sent();
    // More one-byte segments behind a hole than the connection may hold buffers.
    for i in 1..60 {
        talk.send(ACK, 1000 + i, una, 60_000, &[i as u8]);
        assert_eq!(talk.sent().last().map(|segment| segment.ack), Some(1000));
    }
    talk.send(ACK, 1000, una, 60_000, &[0]);
    let ack = talk.sent().last().map(|segment| segment.ack);
    assert!(ack > Some(1000), "the hole is still open");
}

#[test]
fn a_window_is_heard_of_from_a_peer_that_has_filled_ours() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk);
    let entry = SgEntry { addr: HEAP_BASE, len: 100 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    let edge = 1000 + u32::from(talk.sent().last().expect("data").window);
    // The window shuts, then the application is refused.
    talk.send(ACK, 1000, una + 100, 0, &[]);
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    talk.events();
    // All that the peer sent up to the edge of our window was lost.
    talk.send(ACK, edge, una + 100, 5000, &[]);
    let heard = |event: &Condition| matches!(event, Condition::Sent { window: 1.., .. });
    assert!(talk.events().iter().any(heard), "the window is still shut");
}

#[test]
fn a_bare_ack_ahead_of_a_hole_is_not_answered() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = accepted(&mut talk);
    talk.sent();
    talk.send(ACK, 1100, una, 5000, &[]);
    talk.nothing();
}

#[test]
fn connections_of_a_core_without_a_queue_leave_buffers_to_the_core_that_has_it() {
    let mut talk = Talk::new(|setup| {
        setup.cores = 2;
        setup.rx_depth = 64;
        setup.buffers = 64 + 200;
    });
    // The datagram that wakes the application has to come to its first core.
    talk.script().calls.push(Call::listen(SocketAddress::v4([0; 4], 7), 64).with_result(1));
    for port in 100.. {
        talk.port = port;
        talk.calls(&[]);
        if !talk.events().is_empty() {
            break;
        }
    }
    // Connections in groups of both cores; nobody accepts them, so all that comes is kept.
    for port in 4000..4032 {
        talk.port = port;
        talk.send(SYN, 999, 0, 60_000, &[]);
        let answer = talk.one();
        assert_eq!(answer.flags, SYN | ACK);
        let una = answer.seq + 1;
        talk.send(ACK, 1000, una, 60_000, &[]);
        for i in 0..40 {
            talk.send(ACK, 1000 + i, una, 60_000, &[0]);
        }
        talk.sent();
    }
    let free = talk.station.engines[0].conservation().free;
    assert!(free >= 16, "{free} buffers are left for ACKs to arrive in");
}

#[test]
fn what_is_cut_off_from_a_batch_stays_in_it() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = accepted(&mut talk);
    talk.send(ACK, 1000, una, 100, &[]);
    talk.events();
    let piece = |len| Call::sendv(handle, 1, SgEntry { addr: HEAP_BASE, len }, SgEntry::default());
    // One record for the datagram that wakes the application, one for the refusal: no room for the last call.
    talk.script().asleep = true;
    let mut calls = vec![piece(150).with_tag(1)];
    calls.resize(EVENT_SLOTS as usize - 1, Call::new(Op::Nop, Handle::NONE).with_result(2));
    calls.push(piece(50).with_tag(3));
    talk.calls(&calls);
    assert_eq!(talk.one().payload.len(), 100);
    // The window opens, then the rest of the batch runs.
    talk.script().asleep = false;
    talk.send(ACK, 1000, una + 100, 1000, &[]);
    let events = talk.events();
    let refused = |tag, bytes| move |e: &Condition| matches!(e, Condition::Result { status: Status::Again, tag: t, value, .. } if (*t, *value) == (tag, bytes));
    assert!(events.iter().any(refused(1, 100)), "{:?}", events.last());
    let second = events.iter().position(refused(3, 0)).expect("the second is refused too");
    let window = |e: &Condition| matches!(e, Condition::Sent { window: 1.., .. });
    assert!(events[second..].iter().any(window), "told of no window after it");
    talk.nothing();
    talk.call(piece(50));
    assert_eq!(talk.one().payload.len(), 50);
}

#[test]
fn an_answer_to_a_syn_that_is_about_to_be_repeated_is_no_reason_to_be_silent() {
    let mut talk = Talk::new(|_| {});
    talk.local_port = 0;
    let remote = talk.remote();
    talk.call(Call::connect(Cookie(1), remote));
    let syn = talk.one();
    talk.local_port = syn.from;
    // Its timer has run out, but the device has no room.
    talk.station.machines[0].tx.depth = 0;
    talk.pass(ix_dataplane::time::Duration::from_s(5));
    talk.send(SYN | ACK, 999, syn.seq + 1, 60_000, &[]);
    talk.station.machines[0].tx.depth = 256;
    talk.pass(ix_dataplane::time::Duration::from_ms(10));
    let events = talk.events();
    let [Condition::Connected { handle, outcome: Status::Ok, .. }] = events[..] else {
        panic!("{events:?}")
    };
    talk.sent();
    let entry = SgEntry { addr: HEAP_BASE, len: 100 };
    talk.call(Call::sendv(handle, 1, entry, SgEntry::default()));
    let said = talk.one();
    assert_eq!((said.seq, said.payload.len()), (syn.seq + 1, 100));
}
