//! How connections begin and end.

use super::*;

#[test]
fn an_aborted_connection_keeps_its_buffers_until_it_is_dead() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    kernel(|k| k.recv(handle, b"?"));
    rig.turn();
    rig.act(ABORT);
    assert_eq!(Arc::strong_count(&rig.app.answer), 2);
    rig.turn();
    assert_eq!(Arc::strong_count(&rig.app.answer), 1);
    assert_eq!(rig.app.seen, ["dead 7 aborted"]);
    assert!(rig.events.conns().is_empty());
    assert!(kernel(|k| k.connections.is_empty()));
}

#[test]
fn closing_an_idle_connection_takes_one_batch() {
    let (mut rig, handle) = Rig::with_conn(Does::Consume);
    calls();
    rig.act(CLOSE);
    kernel(|k| k.pending.push_back(Condition::Nop));
    rig.turn();
    assert_eq!(calls(), [Request::Close { handle }]);
}

#[test]
fn fin_does_not_overtake_bytes_that_the_window_refused() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    tcp(handle, |t| t.window = 5000);
    kernel(|k| {
        k.recv(handle, b"?");
        k.eof(handle); // closed in the same batch that sends
    });
    for _ in 0..4 {
        rig.turn();
    }
    assert!(!tcp(handle, |t| t.closed), "ten bytes wait");
    kernel(|k| k.ack(handle, 5000, 5000));
    for _ in 0..3 {
        rig.turn();
    }
    assert_eq!(tcp(handle, |t| (t.stream.len(), t.closed)), (5010, true));
    kernel(|k| {
        k.ack(handle, 10, 5000);
        k.dead(handle, DeadReason::Closed);
    });
    rig.turn();
    rig.turn();
    assert!(rig.events.conns().is_empty());
    assert_eq!(rig.app.seen, ["dead 7 closed"]);
    let closes = calls().iter().filter(|call| matches!(call, Request::Close { .. })).count();
    assert_eq!(closes, 1);
}

#[test]
fn fin_waits_for_a_sendv_that_the_kernel_has_not_got_round_to() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    tcp(handle, |t| t.window = 1000);
    kernel(|k| k.recv(handle, b"?"));
    rig.turn();
    kernel(|k| k.stalled = true);
    rig.act(CLOSE);
    kernel(|k| k.stalled = false);
    for _ in 0..3 {
        rig.turn();
    }
    assert_eq!(tcp(handle, |t| (t.stream.len(), t.closed)), (1000, false));
    kernel(|k| k.ack(handle, 1000, 10_000));
    for _ in 0..4 {
        rig.turn();
    }
    assert_eq!(tcp(handle, |t| (t.stream.len(), t.closed)), (5010, true));
}

#[test]
fn shutdown_follows_the_data_and_receiving_goes_on() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    tcp(handle, |t| t.window = 100);
    kernel(|k| k.recv(handle, b"?"));
    rig.turn();
    rig.act(SHUTDOWN);
    rig.turn();
    assert!(!tcp(handle, |t| t.shut));
    kernel(|k| k.ack(handle, 100, 10_000));
    for _ in 0..4 {
        rig.turn();
    }
    assert_eq!(tcp(handle, |t| (t.shut, t.stream.len())), (true, 5010));
    kernel(|k| k.recv(handle, b"more"));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 0, "received and consumed");
}

#[test]
fn a_reset_connection_is_closed_once_and_its_bytes_are_readable_until_then() {
    let (mut rig, handle) = Rig::with_conn(Does::Keep);
    kernel(|k| k.recv(handle, b"kept"));
    rig.turn();
    assert_eq!(rig.events.conns().get_mut(handle).unwrap().front(), b"kept");
    calls();
    kernel(|k| k.dead(handle, DeadReason::Reset));
    rig.turn();
    assert_eq!(rig.app.seen, ["dead 7 reset by peer"]);
    rig.turn();
    assert_eq!(calls(), [Request::Close { handle }]);
    assert!(kernel(|k| k.connections.is_empty()));
}

#[test]
fn dead_crossing_a_close_needs_no_second_close() {
    let (mut rig, handle) = Rig::with_conn(Does::Keep);
    rig.act(CLOSE); // the call waits in the ring
    calls();
    kernel(|k| k.dead(handle, DeadReason::Reset)); // the kernel wrote this before it saw it
    rig.turn();
    rig.turn();
    assert_eq!(calls(), [Request::Close { handle }]);
    assert!(kernel(|k| k.connections.is_empty()));
    assert!(rig.events.conns().is_empty());
}

#[test]
fn what_arrives_after_close_is_returned_unseen() {
    let (mut rig, handle) = Rig::with_conn(Does::Answer);
    tcp(handle, |t| t.window = 0);
    kernel(|k| k.recv(handle, b"?"));
    rig.turn();
    rig.act(CLOSE);
    kernel(|k| k.recv(handle, b"ignored"));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| (t.outstanding, t.closed)), (0, false));
    assert_eq!(rig.app.told, 1, "of what came before");
    assert_eq!(rig.events.conns().get_mut(handle).unwrap().received_len(), 0);
}

#[test]
fn what_is_acknowledged_after_close_calls_nothing() {
    let (mut rig, handle) = Rig::with_conn(Does::Forward);
    kernel(|k| k.recv(handle, b"there and back"));
    rig.turn();
    rig.act(CLOSE); // the kernel has taken all: it goes with this batch
    kernel(|k| k.pending.push_back(Condition::Nop));
    rig.turn();
    assert!(matches!(calls()[..], [.., Request::Close { .. }]));
    kernel(|k| k.ack(handle, 14, 1000));
    rig.turn();
    kernel(|k| k.pending.push_back(Condition::Nop));
    rig.turn();
    assert_eq!(calls(), [], "`close` has returned them");
}

#[test]
fn an_unwelcome_knock_is_rejected() {
    let mut rig = Rig::new(Does::Keep);
    rig.app.welcome = false;
    let handle = kernel(|k| k.knock(1));
    rig.turn();
    rig.turn();
    assert_eq!(calls(), [Request::Reject { handle }]);
    assert!(rig.events.conns().is_empty());
}

#[test]
fn a_connection_that_goes_between_knock_and_accept_is_dead() {
    let mut rig = Rig::new(Does::Keep);
    let handle = kernel(|k| k.knock(1));
    kernel(|k| k.connections.remove(&handle.0));
    rig.turn();
    rig.turn();
    assert_eq!(rig.app.seen, ["dead 7 reset by peer"]);
    assert!(rig.events.conns().is_empty());
    rig.turn();
    assert_eq!(calls().len(), 1, "nothing but the accept");
}

#[test]
fn a_slot_used_again_is_another_connection() {
    let (mut rig, first) = Rig::with_conn(Does::Keep);
    rig.act(ABORT);
    rig.turn();
    let second = Handle::new(first.group(), 2, first.index());
    kernel(|k| {
        k.connections.insert(second.0, Tcp::new(second, false));
        let listener = Handle::NONE;
        k.pending.push_back(Condition::Knock {
            handle: second,
            listener,
            remote: PEER,
            local_port: 7,
        });
    });
    rig.turn();
    assert!(rig.events.conns().get_mut(first).is_none());
    assert_eq!(rig.events.conns().get_mut(second).map(|conn| conn.handle()), Some(second));
}

#[test]
fn a_connection_is_opened_by_result_and_connected() {
    let mut rig = Rig::new(Does::Consume);
    rig.act(DIAL);
    rig.turn();
    let handle =
        kernel(|k| k.connections.values().next().map(|_| Handle::new(GroupId(3), 1, 1000)));
    let handle = handle.expect("the kernel has it");
    let connected =
        |outcome| Condition::Connected { handle, cookie: Cookie(0), outcome, window: 9 };
    kernel(|k| k.pending.push_back(connected(Status::Ok)));
    rig.turn();
    assert_eq!(rig.app.seen, ["connected 9"]);
    kernel(|k| k.recv(handle, b"hi"));
    rig.turn();
    rig.turn();
    assert_eq!(tcp(handle, |t| t.outstanding), 0);
}

#[test]
fn a_connection_that_cannot_be_opened_gives_its_state_back() {
    let mut rig = Rig::new(Does::Consume);
    rig.act(DIAL);
    rig.turn();
    let handle = Handle::new(GroupId(3), 1, 1000);
    kernel(|k| {
        k.connections.clear();
        let (cookie, outcome) = (Cookie(0), Status::Refused);
        k.pending.push_back(Condition::Connected { handle, cookie, outcome, window: 0 });
    });
    rig.turn();
    assert_eq!(rig.app.seen, ["failed 9 connection refused"]);
    assert!(rig.events.conns().is_empty());
}
