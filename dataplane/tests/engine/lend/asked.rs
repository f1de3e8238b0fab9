//! Cores that are asked to leave: nothing is lost, and they learn what they have missed.
use super::*;
use crate::support::nic::Rx;
use crate::support::talk::ECE;
use ix_abi::TcpOption;
use ix_abi::acl::IN;
use ix_acl::{Action, Protocol, Rule};

/// Asked to leave, it does.
fn leaves(talk: &mut Talk) {
    let core = usize::from(AWAY.0);
    clear(talk, core);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    settle(talk);
    assert!(talk.station.engines[core].take_leave());
    assert_eq!(presence(talk), Presence::Away);
    talk.station.machines[core].frozen = true;
}

fn is_back(talk: &mut Talk) {
    let core = usize::from(AWAY.0);
    talk.station.machines[core].frozen = false;
    talk.station.engines[core].come_back();
    settle(talk);
    assert_eq!((presence(talk), talk.station.engines[core].is_out()), (Presence::Here, false));
}

#[test]
fn a_core_that_is_asked_leaves_and_returns_and_nothing_is_lost() {
    let mut talk = talk();
    let conns = [open(&mut talk, 1, 3, 4000), open(&mut talk, 2, 1, 5000)].concat();
    leaves(&mut talk);
    all_events(&mut talk);
    for conn in &conns {
        say(&mut talk, conn, b"hello");
        settle(&mut talk);
        let told = [events(&mut talk, 0), events(&mut talk, 2)].concat();
        assert_eq!(lengths(&told), [5], "{conn:?}");
    }
    assert_owned(&talk);
    is_back(&mut talk);
    assert_owned(&talk);
    wish(&mut talk, conns[0].group, 1);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(conns[0].group, Status::Ok)]);
    let conn = Conn { seq: 106, ..conns[0].clone() };
    say(&mut talk, &conn, b"again");
    assert_eq!(lengths(&events(&mut talk, 1)), [5]);
    assert_eq!((forced(&talk), talk.station.count(Counter::TcpResetsSent)), (0, rejected(&talk)));
    talk.station.assert_buffers_conserved();
}

/// Resets of connections that [`open`] did not want.
fn rejected(talk: &Talk) -> u64 {
    talk.station.count(Counter::TcpAccepted) - 4
}

#[test]
fn who_cannot_leave_is_refused() {
    let mut talk = talk();
    let engine = &mut talk.station.engines[0];
    assert_eq!(engine.send_away(CoreId(0)), Status::Invalid);
    assert_eq!(engine.take_away(CoreId(0), 0b110), Status::Invalid);
    assert_eq!(engine.send_away(CoreId(3)), Status::Invalid);
    assert_eq!(engine.send_away(AWAY), Status::InUse, "it has groups");
    leaves(&mut talk);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::State);
    assert_eq!(talk.station.engines[0].take_away(AWAY, 1), Status::State, "it has left");
    wish(&mut talk, GroupId(0), 1);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(GroupId(0), Status::TimedOut)]);
    assert_eq!(owners(&talk, GroupId(0)), [0]);
}

#[test]
fn a_core_that_was_asked_and_is_called_back_serves_as_before() {
    let mut talk = talk();
    clear(&mut talk, 1);
    // It does not hear that it is to leave.
    talk.station.machines[1].frozen = true;
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    settle(&mut talk);
    assert_eq!(presence(&talk), Presence::Leaving);
    call(&mut talk, 0, &[Call::listen(any(8), 64)]);
    talk.station.engines[0].recall(AWAY);
    talk.station.machines[1].frozen = false;
    settle(&mut talk);
    assert_eq!(presence(&talk), Presence::Here);
    assert!(!talk.station.engines[1].take_leave());
    assert!(talk.station.engines[1].ports_in_use().any(|port| port == 8), "it has missed that");
    wish(&mut talk, GroupId(0), 1);
    settle(&mut talk);
    assert_eq!(owners(&talk, GroupId(0)), [1]);
    assert_owned(&talk);
}

#[test]
fn nobody_waits_for_a_core_that_is_away_and_it_learns_what_it_has_missed() {
    let mut talk = talk();
    leaves(&mut talk);
    // More than any ring takes.
    for n in 0..100 {
        let handle = listener(&mut talk, 1000 + n);
        if n % 10 != 0 {
            call(&mut talk, 0, &[Call::new(Op::Unlisten, handle)]);
        }
    }
    let handle = listener(&mut talk, 80);
    call(&mut talk, 0, &[Call::set_option(handle, TcpOption::KeepAlive, 5_000_000)]);
    shut(&mut talk, 9999);
    assert!(talk.station.engines[0].rules_settled(), "they wait for a core that is away");
    wish(&mut talk, GroupId(0), 2);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(GroupId(0), Status::Ok)]);
    wish(&mut talk, GroupId(0), 0);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(GroupId(0), Status::Ok)]);
    is_back(&mut talk);
    assert!(talk.station.engines[0].rules_settled());
    let ports = |core: usize| talk.station.engines[core].ports_in_use().collect::<Vec<_>>();
    assert_eq!(ports(1), ports(0));
    assert_owned(&talk);
    // A listener's option came along, and the rules did.
    wish(&mut talk, GroupId(0), 1);
    settle(&mut talk);
    talk.local_port = 80;
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    talk.pass(Duration::from_s(6));
    talk.port = conn.port;
    assert!(talk.sent().iter().any(|s| s.seq == conn.ack.wrapping_sub(1)), "no keep-alive probe");
    let before = talk.station.engines[1].stats().dropped(ix_abi::stats::Drop::AclDeniedIn);
    (talk.local_port, talk.port) = (9999, conn.port);
    for port in 4000..4040 {
        talk.port = port;
        talk.send(SYN, 100, 0, 8000, &[]);
    }
    let dropped = talk.station.engines[1].stats().dropped(ix_abi::stats::Drop::AclDeniedIn);
    assert!(dropped > before, "it judges by no rules");
}

#[test]
fn a_neighbour_that_answered_while_the_core_was_away_is_not_asked_for_again() {
    let mut talk = talk();
    talk.deaf = true;
    let remote = talk.remote();
    call(&mut talk, 0, &[Call::connect(Cookie(1), remote)]);
    after(&mut talk, Duration::from_ms(900));
    // Its own request is young when the answer to core 0's second one comes.
    let asks = |talk: &Talk| talk.station.engines[1].stats().get(Counter::RxSteeredIn) > 0;
    talk.port = (5000..5400)
        .find(|port| {
            talk.port = *port;
            talk.send(SYN, 100, 0, 8000, &[]);
            asks(&talk)
        })
        .expect("none of 400 ports is core 1's");
    talk.nothing();
    leaves(&mut talk);
    talk.deaf = false;
    after(&mut talk, Duration::from_ms(100));
    settle(&mut talk);
    is_back(&mut talk);
    for group in groups(&talk) {
        wish(&mut talk, group, 1);
    }
    settle(&mut talk);
    talk.sent();
    talk.send(SYN, 100, 0, 8000, &[]);
    assert_eq!(talk.one().flags & !ECE, SYN | ACK);
}

fn listener(talk: &mut Talk, port: u16) -> Handle {
    call(talk, 0, &[Call::listen(any(port), 64).with_result(u64::from(port))]);
    let made = events(talk, 0);
    let handle = made.iter().find_map(|event| match event {
        Condition::Result { handle, status: Status::Ok, .. } => Some(*handle),
        _ => None,
    });
    handle.unwrap_or_else(|| panic!("port {port}: {made:?}"))
}

/// Nobody gets in at a port.
fn shut(talk: &mut Talk, port: u16) {
    let protocol = Some(Protocol::Tcp);
    let action = Action::Deny;
    let rule = Rule { action, protocol, local_ports: (port, port), directions: IN, ..Rule::ALLOW };
    let bytes = ix_acl::build::build(&[rule], [Action::Allow; 2], "");
    let rules = ix_acl::decode(bytes, ix_abi::IpAddress::v4([10, 0, 0, 1])).expect("good rules");
    talk.station.engines[0].set_rules(rules).expect("there is room");
    settle(talk);
}

#[test]
fn buffers_of_a_core_that_is_away_wait_for_it() {
    let mut talk = talk();
    let conn = open(&mut talk, 2, 1, 4000).remove(0);
    // Frames come to core 1 for a while.
    let area = talk.station.area;
    talk.station.machines[1].rx.push(Rx::new(area, 64));
    talk.step();
    for n in 0..10 {
        talk.port = conn.port;
        let frame = talk.frame(ACK | PSH, 101 + n, conn.ack, 8000, &[], b"x");
        talk.station.machines[1].rx[0].inbox.push_back(frame);
        talk.step();
    }
    leaves(&mut talk);
    all_events(&mut talk);
    let on = owners(&talk, conn.group)[0];
    call(&mut talk, on, &[Call::recv_done(conn.handle, 10)]);
    settle(&mut talk);
    let books = talk.station.engines[on].conservation();
    assert_eq!((books.away, books.received), (10, 0));
    // It has nothing to do about them.
    let work = talk.station.step(talk.now);
    assert!(!work.busy);
    is_back(&mut talk);
    assert_eq!(talk.station.engines[on].conservation().away, 0);
    talk.station.assert_buffers_conserved();
}
