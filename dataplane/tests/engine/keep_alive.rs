//! Keep-alive (RFC 9293 §3.8.4), user timeouts (§3.9.1) and the options that set them, in conversations.
use crate::support::family::V6;
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::limits::OPTION_TIME_MAX_US;
use ix_abi::stats::Counter;
use ix_abi::{
    Call, Condition, Congestion, Cookie, DeadReason, Handle, Op, SocketAddress, Status, TcpOption,
};
use ix_dataplane::time::Duration;

const PORT: SocketAddress = any(7);
const WINDOW: u16 = 1000;
const MINUTE: u64 = 60_000_000;

/// A listener whose connections begin with these options.
fn listening(options: &[(TcpOption, u64)]) -> Talk {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::listen(PORT, 4).with_result(1));
    let events = talk.events();
    let [Condition::Result { status: Status::Ok, handle, .. }] = events[..] else {
        panic!("{events:?}")
    };
    for (option, value) in options {
        talk.call(Call::set_option(handle, *option, *value).with_result(2));
        let events = talk.events();
        let set = Condition::Result {
            op: Op::SetOption.0,
            status: Status::Ok,
            handle,
            tag: 2,
            value: handle.0,
        };
        assert_eq!(events, [set]);
    }
    talk
}

fn accepted(talk: &mut Talk) -> (Handle, u32) {
    talk.handshake(0, WINDOW, &[])
}

fn sendv(handle: Handle, len: u64) -> Call {
    let entry = SgEntry { addr: HEAP_BASE, len };
    Call::sendv(handle, 1, entry, SgEntry::default())
}

/// The only segment is a probe: empty, one below what the peer expects.
#[track_caller]
fn probe(talk: &mut Talk, una: u32) {
    let segment = talk.one();
    let is = (segment.flags, segment.seq, segment.ack, segment.payload.len());
    assert_eq!(is, (ACK, una - 1, 1000, 0));
}

#[test]
fn nobody_is_asked_unless_the_application_wants_it() {
    let mut talk = listening(&[]);
    let _ = accepted(&mut talk);
    talk.pass(Duration::from_s(8 * 3600));
    talk.nothing();
    assert_eq!(talk.station.count(Counter::TcpConnections), 1);
    assert_eq!(talk.station.count(Counter::TcpKeepAliveProbes), 0);
}

#[test]
fn an_idle_peer_is_asked_after_the_time_set_and_its_answer_begins_it_anew() {
    let mut talk = listening(&[(TcpOption::KeepAlive, 10 * MINUTE)]);
    let (_, una) = accepted(&mut talk);
    for _ in 0..5 {
        talk.pass(Duration::from_s(10 * 60 - 1));
        talk.nothing();
        talk.pass(Duration::from_ms(1100));
        probe(&mut talk, una);
        talk.send(ACK, 1000, una, WINDOW, &[]);
        talk.nothing();
    }
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.count(Counter::TcpKeepAliveProbes), 5);
}

#[test]
fn a_silent_peer_is_given_up_after_the_number_of_probes_set() {
    let mut talk = listening(&[
        (TcpOption::KeepAlive, 10 * MINUTE),
        (TcpOption::KeepAliveInterval, MINUTE),
        (TcpOption::KeepAliveProbes, 3),
    ]);
    let (_, una) = accepted(&mut talk);
    talk.pass(Duration::from_s(601));
    probe(&mut talk, una);
    for _ in 0..2 {
        talk.pass(Duration::from_s(60));
        probe(&mut talk, una);
    }
    assert_eq!(talk.events(), []);
    talk.pass(Duration::from_s(60));
    assert_eq!(talk.one().flags & RST, RST);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::TimedOut, .. }]));
}

#[test]
fn a_peer_that_has_begun_anew_resets() {
    let mut talk = listening(&[(TcpOption::KeepAlive, MINUTE)]);
    let (_, una) = accepted(&mut talk);
    talk.pass(Duration::from_s(61));
    probe(&mut talk, una);
    talk.send(RST, 1000, 0, 0, &[]);
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::Reset, .. }]));
}

#[test]
fn a_connection_in_use_is_not_probed_and_its_silence_is_noticed_within_two_intervals() {
    let mut talk = listening(&[(TcpOption::KeepAlive, 10 * MINUTE)]);
    let (handle, una) = accepted(&mut talk);
    let mut at = 1000;
    for _ in 0..20 {
        talk.pass(Duration::from_s(5 * 60));
        talk.nothing();
        talk.send(ACK | PSH, at, una, WINDOW, b"x");
        at += 1;
        talk.call(Call::recv_done(handle, 1));
        talk.pass(Duration::from_s(1));
        assert_eq!(talk.one().ack, at);
    }
    talk.pass(Duration::from_s(9 * 60));
    talk.nothing();
    talk.pass(Duration::from_s(11 * 60));
    let segment = talk.sent().remove(0);
    assert_eq!((segment.seq, segment.ack), (una - 1, at));
}

/// A folded one, over IPv4: while it talks the wheel does not look at when the peer is to be asked.
#[test]
fn a_connection_that_only_answers_is_asked_once_it_is_silent() {
    let mut talk = listening(&[(TcpOption::KeepAlive, 1_000_000)]);
    let (handle, mut una) = accepted(&mut talk);
    let mut at = 1000;
    for _ in 0..50 {
        talk.send(ACK | PSH, at, una, WINDOW, b"x");
        at += 1;
        talk.calls(&[Call::recv_done(handle, 1), sendv(handle, 1)]);
        assert_eq!(talk.one().ack, at);
        una += 1;
        talk.pass(Duration::from_ms(100));
        talk.nothing();
    }
    assert_eq!(talk.station.engines[0].conservation().folded, usize::from(!V6));
    talk.send(ACK, at, una, WINDOW, &[]);
    talk.pass(Duration::from_ms(800));
    talk.nothing();
    talk.pass(Duration::from_ms(1_300));
    let segment = talk.sent().remove(0);
    assert_eq!((segment.seq, segment.ack), (una - 1, at));
}

#[test]
fn what_is_out_is_watched_by_the_retransmission_timer_alone() {
    let mut talk = listening(&[(TcpOption::KeepAlive, 1_000_000)]);
    let (handle, una) = accepted(&mut talk);
    talk.call(sendv(handle, 10));
    talk.pass(Duration::from_s(10));
    for segment in talk.sent() {
        assert_eq!((segment.seq, segment.payload.len()), (una, 10));
    }
    assert_eq!(talk.station.count(Counter::TcpKeepAliveProbes), 0);
}

#[test]
fn a_half_closed_connection_is_watched_too() {
    // RFC 9293 §3.6: half-close. The peer may go on sending for hours, or be gone.
    let mut talk = listening(&[(TcpOption::KeepAlive, MINUTE), (TcpOption::KeepAliveProbes, 1)]);
    let (handle, una) = accepted(&mut talk);
    talk.call(Call::new(Op::Shutdown, handle));
    assert_eq!(talk.one().flags & FIN, FIN);
    talk.send(ACK, 1000, una + 1, WINDOW, &[]);
    talk.pass(Duration::from_s(121));
    let sent = talk.sent();
    assert_eq!(sent[0].seq, una, "below what is acknowledged");
    talk.pass(Duration::from_s(61));
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::TimedOut, .. }]));
}

#[test]
fn the_option_works_on_a_connection_at_any_time_and_can_be_taken_back() {
    let mut talk = listening(&[]);
    let (handle, una) = accepted(&mut talk);
    talk.pass(Duration::from_s(3600));
    talk.nothing();
    talk.call(Call::set_option(handle, TcpOption::KeepAlive, MINUTE));
    assert_eq!(talk.events(), [], "success needs no result");
    talk.pass(Duration::from_s(61));
    probe(&mut talk, una);
    talk.call(Call::set_option(handle, TcpOption::KeepAlive, 0));
    talk.pass(Duration::from_s(3600));
    talk.nothing();
    assert_eq!(talk.events(), []);
}

#[test]
fn thousands_of_idle_peers_that_answer_are_alive_after_two_hours_and_take_no_more_memory() {
    const PEERS: u16 = 10_000;
    let mut talk = Talk::new(|s| {
        s.connections = 2048;
        s.buffers = 4096;
    });
    talk.call(Call::listen(PORT, 64).with_result(1));
    let [Condition::Result { handle: listener, .. }] = talk.events()[..] else { panic!() };
    talk.call(Call::set_option(listener, TcpOption::KeepAlive, 10 * MINUTE));
    let mut next = Vec::new();
    for i in 0..PEERS {
        talk.port = 10_000 + i;
        let (_, una) = accepted(&mut talk);
        next.push(una);
    }
    let _ = talk.sent();
    let slots = talk.station.engines[0].conservation().slots;
    let mut answers = 0;
    for _ in 0..720 {
        talk.pass(Duration::from_s(10));
        for probes in talk.sent().chunks(200) {
            for probe in probes {
                talk.port = probe.to;
                let una = next[usize::from(probe.to - 10_000)];
                assert_eq!((probe.flags, probe.seq), (ACK, una - 1));
                let frame = talk.frame(ACK, 1000, una, WINDOW, &[], &[]);
                talk.give(frame);
                answers += 1;
            }
            talk.step();
        }
    }
    assert_eq!(talk.events(), []);
    assert_eq!(talk.station.count(Counter::TcpConnections), u64::from(PEERS));
    assert_eq!(talk.station.count(Counter::TcpKeepAliveProbes), answers);
    // Once in ten minutes, and up to ten seconds that the answers took here.
    assert!((11 * 10_000..=12 * 10_000).contains(&answers), "{answers}");
    assert_eq!(talk.station.engines[0].conservation().slots, slots);
}

#[test]
fn a_connect_keeps_its_peer_alive_too() {
    let mut talk = Talk::new(|_| {});
    talk.call(Call::connect(Cookie(1), talk.host(80)).with_result(3));
    let [Condition::Result { handle, status: Status::Ok, .. }] = talk.events()[..] else {
        panic!()
    };
    talk.call(Call::set_option(handle, TcpOption::KeepAlive, MINUTE));
    let syn = talk.one();
    (talk.port, talk.local_port) = (80, syn.from);
    talk.send(SYN | ACK, 999, syn.seq + 1, WINDOW, &[]);
    assert_eq!(talk.one().flags, ACK);
    talk.pass(Duration::from_s(61));
    probe(&mut talk, syn.seq + 1);
}

#[test]
fn a_user_timeout_ends_what_nobody_acknowledges_and_no_sooner() {
    let mut talk = listening(&[(TcpOption::UserTimeout, 3_000_000)]);
    let (handle, _) = accepted(&mut talk);
    talk.pass(Duration::from_s(100));
    talk.call(sendv(handle, 10));
    talk.pass(Duration::from_ms(2900));
    assert_eq!(talk.events(), []);
    talk.pass(Duration::from_ms(200));
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::TimedOut, .. }]));
    assert_eq!(talk.sent().last().map(|s| s.flags & RST), Some(RST));
}

#[test]
fn a_longer_user_timeout_than_the_default_is_kept() {
    let mut talk = listening(&[]);
    let (handle, una) = accepted(&mut talk);
    talk.call(Call::set_option(handle, TcpOption::UserTimeout, 30 * MINUTE));
    talk.call(sendv(handle, 10));
    talk.pass(Duration::from_s(20 * 60));
    assert_eq!(talk.events(), []);
    talk.send(ACK, 1000, una + 10, WINDOW, &[]);
    assert!(matches!(talk.events()[..], [Condition::Sent { bytes: 10, .. }]));
}

#[test]
fn a_user_timeout_bounds_keep_alive_and_connect() {
    let mut talk =
        listening(&[(TcpOption::KeepAlive, MINUTE), (TcpOption::UserTimeout, 5_000_000)]);
    let (_, una) = accepted(&mut talk);
    talk.pass(Duration::from_s(61));
    probe(&mut talk, una);
    talk.pass(Duration::from_s(5));
    assert!(matches!(talk.events()[..], [Condition::Dead { reason: DeadReason::TimedOut, .. }]));
    let _ = talk.sent();
    talk.call(Call::connect(Cookie(1), talk.host(80)).with_result(3));
    let [Condition::Result { handle, status: Status::Ok, .. }] = talk.events()[..] else {
        panic!()
    };
    talk.call(Call::set_option(handle, TcpOption::UserTimeout, 2_000_000));
    talk.pass(Duration::from_s(4));
    let events = talk.events();
    assert!(
        matches!(events[..], [Condition::Connected { outcome: Status::TimedOut, .. }]),
        "{events:?}"
    );
}

#[test]
fn an_address_that_was_missing_for_a_while_is_no_reason_to_give_up_later() {
    // What waits for an address starts the clock; it must not run on when nothing waits any more.
    let mut talk = listening(&[]);
    let (handle, una) = accepted(&mut talk);
    talk.deaf = true;
    talk.pass(Duration::from_s(70));
    // Something to acknowledge: the old address still serves, and is asked for anew, in vain.
    talk.send(ACK, 999, una, WINDOW, &[0]);
    assert_eq!(talk.sent().len(), 1);
    talk.pass(Duration::from_s(20));
    talk.send(ACK, 999, una, WINDOW, &[0]);
    talk.nothing();
    talk.deaf = false;
    talk.pass(Duration::from_s(5));
    assert_eq!(talk.sent().len(), 1, "now it is known again");
    talk.pass(Duration::from_s(600));
    talk.call(sendv(handle, 10));
    talk.pass(Duration::from_s(2));
    assert!(talk.sent().len() > 1, "sent again");
    talk.send(ACK, 1000, una + 10, WINDOW, &[]);
    let events = talk.events();
    assert!(matches!(events[..], [Condition::Sent { bytes: 10, .. }]), "{events:?}");
}

#[test]
fn options_and_values_that_are_none_are_refused_and_nothing_changes() {
    let mut talk = listening(&[]);
    talk.send(SYN, 999, 0, WINDOW, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 1000, una, WINDOW, &[]);
    let [Condition::Knock { handle, listener, .. }] = talk.events()[..] else { panic!() };
    let refused = |talk: &mut Talk, handle: Handle, option: u16, value: u64, status: Status| {
        talk.call(Call::set_option(handle, TcpOption(option), value).with_tag(9));
        let events = talk.events();
        assert!(
            matches!(events[..], [Condition::Result { status: s, tag: 9, .. }] if s == status),
            "{option} {value}: {events:?}"
        );
    };
    let keep_alive = TcpOption::KeepAlive.0;
    refused(&mut talk, handle, keep_alive, MINUTE, Status::State);
    talk.call(Call::accept(handle, Cookie(1)));
    for handle in [handle, listener] {
        refused(&mut talk, handle, 0, 1, Status::Unsupported);
        refused(&mut talk, handle, 6, 1, Status::Unsupported);
        refused(&mut talk, handle, keep_alive, OPTION_TIME_MAX_US + 1, Status::Invalid);
        refused(&mut talk, handle, TcpOption::KeepAliveProbes.0, 128, Status::Invalid);
        refused(&mut talk, handle, TcpOption::Congestion.0, 4, Status::Invalid);
    }
    refused(&mut talk, Handle(1), keep_alive, MINUTE, Status::BadHandle);
    let stale = Handle::new(listener.group(), listener.generation() + 1, listener.index());
    refused(&mut talk, stale, keep_alive, MINUTE, Status::BadHandle);
    let timer = Handle::new(listener.group(), 1, 128);
    refused(&mut talk, timer, keep_alive, MINUTE, Status::BadHandle);
    talk.pass(Duration::from_s(3600));
    talk.nothing();
}

#[test]
fn every_congestion_control_can_be_chosen_and_carries_data() {
    for way in Congestion::ALL {
        let mut talk = listening(&[(TcpOption::Congestion, u64::from(way.0))]);
        let (handle, una) = accepted(&mut talk);
        for other in Congestion::ALL {
            talk.call(Call::set_option(handle, TcpOption::Congestion, u64::from(other.0)));
        }
        assert_eq!(talk.events(), []);
        talk.call(sendv(handle, 10));
        assert_eq!(talk.one().payload.len(), 10);
        talk.send(ACK, 1000, una + 10, WINDOW, &[]);
        assert!(matches!(talk.events()[..], [Condition::Sent { bytes: 10, .. }]));
    }
}

#[test]
fn a_listeners_options_reach_every_core() {
    let mut talk = Talk::new(|s| s.cores = 2);
    // Datagrams of many ports wake both.
    let wake = |talk: &mut Talk| {
        for port in 3000..3050 {
            talk.port = port;
            talk.send_udp(WAKE, b"wake");
        }
    };
    talk.script().calls.push(Call::listen(PORT, 64).with_result(1));
    wake(&mut talk);
    let [Condition::Result { handle: listener, .. }] = talk.events()[..] else { panic!() };
    // By way of core 0, whose answer comes later.
    let option = Call::set_option(listener, TcpOption::KeepAlive, MINUTE).with_result(2);
    talk.station.app::<Script>(1).calls.push(option);
    wake(&mut talk);
    let events = std::mem::take(&mut talk.station.app::<Script>(1).events);
    let set = |e: &Condition| matches!(e, Condition::Result { status: Status::Ok, tag: 2, .. });
    assert!(events.iter().any(set), "{events:?}");
    let mut cores = [0, 0];
    for port in 4000..4016 {
        talk.port = port;
        talk.send(SYN, 999, 0, WINDOW, &[]);
        let Some(answer) = talk.sent().pop() else { continue };
        if answer.flags == SYN | ACK {
            talk.send(ACK, 1000, answer.seq + 1, WINDOW, &[]);
        }
    }
    talk.pass(Duration::from_s(70));
    for (core, count) in cores.iter_mut().enumerate() {
        *count = talk.station.engines[core].stats().get(Counter::TcpKeepAliveProbes);
    }
    assert!(cores.iter().all(|probes| *probes > 0), "{cores:?}");
}
