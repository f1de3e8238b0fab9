//! Cores that leave and return, asked or by force: what becomes of their connections, of everybody else's, and of who waits.
//! Core 0 alone has a receive queue; the other two get their frames through it.
use crate::support::nic::Rx;
use crate::support::talk::{ACK, ECE, PSH, RST, SYN, Script, Talk, any};
use ix_abi::acl::IN;
use ix_abi::call::Call;
use ix_abi::stats::Counter;
use ix_abi::{Condition, Cookie, CoreId, DeadReason, GroupId, Handle, Op, Status, TcpOption};
use ix_acl::{Action, Protocol, Rule};
use ix_dataplane::app::Drain;
use ix_dataplane::core_loop::run_once;
use ix_dataplane::lend::Presence;
use ix_dataplane::time::Duration;

const A_BIT: Duration = Duration::from_ms(1);
const CORES: usize = 3;
const AWAY: CoreId = CoreId(1);

#[derive(Clone, Debug)]
struct Conn {
    handle: Handle,
    group: GroupId,
    port: u16,
    seq: u32,
    ack: u32,
}

fn talk() -> Talk {
    let mut talk = Talk::new(|setup| setup.cores = CORES as u16);
    call(&mut talk, 0, &[Call::listen(any(7), 64)]);
    all_events(&mut talk);
    talk
}

fn script(talk: &mut Talk, core: usize) -> &mut Script {
    talk.station.app(core)
}

fn call(talk: &mut Talk, core: usize, calls: &[Call]) {
    script(talk, core).calls.extend(calls);
    talk.station.engines[core].tell_parking();
    talk.step();
}

fn events(talk: &mut Talk, core: usize) -> Vec<Condition> {
    let mut events = std::mem::take(&mut script(talk, core).events);
    events.retain(|event| *event != Condition::Parking);
    events
}

fn all_events(talk: &mut Talk) {
    (0..CORES).for_each(|core| drop(events(talk, core)));
}

fn after(talk: &mut Talk, time: Duration) {
    talk.now = talk.now + time;
    talk.step();
}

/// Time for whatever is under way.
fn settle(talk: &mut Talk) {
    for _ in 0..5 {
        after(talk, A_BIT);
    }
}

fn run(talk: &mut Talk, core: usize) {
    let machine = &mut talk.station.machines[core];
    machine.now = talk.now;
    run_once(&mut talk.station.engines[core], machine);
    machine.tx.work();
}

fn knock(events: &[Condition]) -> Option<Handle> {
    events.iter().find_map(|event| match event {
        Condition::Knock { handle, .. } => Some(*handle),
        _ => None,
    })
}

/// Connections whose groups are on a core, accepted; `from`: the first port that is tried.
fn open(talk: &mut Talk, core: usize, count: usize, from: u16) -> Vec<Conn> {
    let mut conns = Vec::new();
    for port in from..from + 400 {
        if conns.len() == count {
            return conns;
        }
        talk.port = port;
        talk.sent();
        talk.send(SYN, 100, 0, 8000, &[]);
        let answer = talk.sent();
        let [answer] = &answer[..] else { panic!("{answer:?}") };
        let ack = answer.seq.wrapping_add(1);
        talk.send(ACK, 101, ack, 8000, &[]);
        for other in 0..CORES {
            let Some(handle) = knock(&events(talk, other)) else { continue };
            if other == core {
                call(talk, core, &[Call::accept(handle, Cookie(port.into()))]);
                conns.push(Conn { handle, group: handle.group(), port, seq: 101, ack });
            } else {
                call(talk, other, &[Call::new(Op::Reject, handle)]);
            }
        }
    }
    panic!("not {count} connections on core {core}");
}

/// The peer says something on a connection.
fn say(talk: &mut Talk, conn: &Conn, payload: &[u8]) {
    talk.port = conn.port;
    talk.sent();
    talk.send(ACK | PSH, conn.seq, conn.ack, 8000, payload);
}

fn lengths(events: &[Condition]) -> Vec<u32> {
    let len = |e: &Condition| match e {
        Condition::Recv { len, .. } | Condition::RecvSent { len, .. } => Some(*len),
        _ => None,
    };
    events.iter().filter_map(len).collect()
}

fn dead(events: &[Condition]) -> Vec<(Handle, DeadReason)> {
    let dead = |e: &Condition| match e {
        Condition::Dead { handle, reason, .. } => Some((*handle, *reason)),
        _ => None,
    };
    events.iter().filter_map(dead).collect()
}

fn wish(talk: &mut Talk, group: GroupId, to: u16) {
    talk.station.engines[0].move_group(group, CoreId(to));
}

fn outcomes(talk: &mut Talk) -> Vec<(GroupId, Status)> {
    std::iter::from_fn(|| talk.station.engines[0].move_outcome()).collect()
}

fn owners(talk: &Talk, group: GroupId) -> Vec<usize> {
    (0..CORES).filter(|core| talk.station.engines[*core].owns(group)).collect()
}

fn groups(talk: &Talk) -> impl Iterator<Item = GroupId> + use<> {
    (0..talk.station.setup.groups).map(GroupId)
}

/// All groups of the core go to others.
fn clear(talk: &mut Talk, core: usize) {
    let ours: Vec<_> = groups(talk).filter(|group| owners(talk, *group) == [core]).collect();
    for (n, group) in ours.iter().enumerate() {
        let others: Vec<_> = (0..CORES as u16).filter(|to| usize::from(*to) != core).collect();
        wish(talk, *group, others[n % others.len()]);
    }
    settle(talk);
    let told = outcomes(talk);
    assert!(told.len() == ours.len() && told.iter().all(|(_, s)| *s == Status::Ok), "{told:?}");
}

fn presence(talk: &Talk) -> Presence {
    talk.station.engines[0].presence(AWAY)
}

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

/// Stopped where it is.
fn taken(talk: &mut Talk) {
    talk.station.machines[usize::from(AWAY.0)].frozen = true;
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b101), Status::Ok);
    settle(talk);
    assert_eq!(presence(talk), Presence::Taken);
}

fn resumes(talk: &mut Talk) {
    let core = usize::from(AWAY.0);
    talk.station.machines[core].frozen = false;
    talk.station.engines[core].give_up();
    settle(talk);
    assert_eq!((presence(talk), talk.station.engines[core].is_out()), (Presence::Here, false));
}

fn forced(talk: &Talk) -> u64 {
    talk.station.count(Counter::TcpForceResets)
}

/// Each group has one owner, who is there, and everybody else who is there knows which.
#[track_caller]
fn assert_owned(talk: &Talk) {
    for group in groups(talk) {
        let there = |core: &usize| !talk.station.machines[*core].frozen;
        let owners: Vec<_> = owners(talk, group).into_iter().filter(there).collect();
        let [owner] = owners[..] else { panic!("{group:?} is owned by {owners:?}") };
        for core in (0..CORES).filter(there) {
            let known = talk.station.engines[core].owner(group);
            assert_eq!(known, Some(CoreId(owner as u16)), "{group:?} as core {core} knows it");
        }
    }
}

fn close(talk: &mut Talk, core: usize, told: &[(Handle, DeadReason)]) {
    let calls: Vec<_> = told.iter().map(|(handle, _)| Call::new(Op::Close, *handle)).collect();
    call(talk, core, &calls);
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

#[test]
fn exactly_the_connections_of_a_core_that_was_taken_are_reset_and_counted() {
    let mut talk = talk();
    let lost = open(&mut talk, 1, 5, 4000);
    let others = [open(&mut talk, 0, 2, 5000), open(&mut talk, 2, 2, 6000)].concat();
    // Of one the application holds bytes, and of one it was not told.
    say(&mut talk, &lost[0], b"held");
    assert_eq!(lengths(&events(&mut talk, 1)), [4]);
    script(&mut talk, 1).asleep = true;
    say(&mut talk, &lost[1], b"untold");
    taken(&mut talk);
    assert_owned(&talk);
    assert_eq!(forced(&talk), 0, "nobody but itself knows how many");
    all_events_but(&mut talk, 1);
    for conn in &lost {
        say(&mut talk, &Conn { seq: 110, ..conn.clone() }, b"anybody?");
        let answer = talk.one();
        assert_eq!((answer.flags, answer.seq), (RST, conn.ack), "{conn:?}");
    }
    for conn in &others {
        say(&mut talk, conn, b"hello");
        assert!(talk.sent().iter().all(|s| s.flags & RST == 0));
        let told = [events(&mut talk, 0), events(&mut talk, 2)].concat();
        assert_eq!(lengths(&told), [5], "{conn:?}");
    }
    script(&mut talk, 1).asleep = false;
    resumes(&mut talk);
    let told = dead(&events(&mut talk, 1));
    let mut handles: Vec<_> = told.iter().map(|(handle, _)| *handle).collect();
    let mut expected: Vec<_> = lost.iter().map(|conn| conn.handle).collect();
    handles.sort_by_key(|handle| handle.0);
    expected.sort_by_key(|handle| handle.0);
    assert_eq!(handles, expected);
    assert!(told.iter().all(|(_, reason)| *reason == DeadReason::Reset));
    assert_eq!(forced(&talk), 5);
    assert_eq!(talk.station.engines[1].conservation().connections, 5, "until it lets go");
    talk.station.assert_buffers_conserved();
    close(&mut talk, 1, &told);
    settle(&mut talk);
    assert_eq!(talk.station.engines[1].conservation().connections, 0);
    assert_eq!(talk.station.count(Counter::TcpConnections), 4);
    assert!(talk.station.engines.iter().all(|engine| engine.is_settled()));
    talk.station.assert_buffers_conserved();
    assert_owned(&talk);
}

fn all_events_but(talk: &mut Talk, but: usize) {
    (0..CORES).filter(|core| *core != but).for_each(|core| drop(events(talk, core)));
}

#[test]
fn a_group_that_begins_afresh_serves_with_handles_of_its_own() {
    let mut talk = talk();
    let old = open(&mut talk, 1, 1, 4000).remove(0);
    taken(&mut talk);
    let heir = owners(&talk, old.group).into_iter().find(|core| *core != 1).expect("an heir");
    let told = events(&mut talk, heir);
    assert!(told.contains(&Condition::GroupIn { group: old.group, life: 1 }), "{told:?}");
    all_events_but(&mut talk, 1);
    // The same peer and ports, in the same slot.
    talk.port = old.port;
    talk.sent();
    talk.send(SYN, 9100, 0, 8000, &[]);
    let ack = talk.one().seq.wrapping_add(1);
    talk.send(ACK, 9101, ack, 8000, &[]);
    let handle = knock(&events(&mut talk, heir)).expect("it listens");
    call(&mut talk, heir, &[Call::accept(handle, Cookie(1))]);
    assert_eq!((handle.group(), handle.index()), (old.group, old.handle.index()));
    assert_ne!(handle.generation(), old.handle.generation());
    resumes(&mut talk);
    assert_eq!(dead(&events(&mut talk, 1)), [(old.handle, DeadReason::Reset)]);
    // The group comes to where what is left of it still is.
    wish(&mut talk, old.group, 1);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk).last(), Some(&(old.group, Status::Ok)));
    let new = Conn { handle, seq: 9101, ack, ..old.clone() };
    say(&mut talk, &new, b"hello");
    assert_eq!(lengths(&events(&mut talk, 1)), [5]);
    call(&mut talk, 1, &[Call::recv_done(handle, 5), Call::new(Op::Close, old.handle)]);
    assert_eq!(dead(&events(&mut talk, 1)), []);
    assert_eq!(talk.station.engines[1].conservation().connections, 1);
    assert_eq!(forced(&talk), 1);
    talk.station.assert_buffers_conserved();
}

#[test]
fn moves_under_way_with_a_core_that_is_taken_end() {
    let mut talk = talk();
    let (source, target, bystander) = {
        let a = open(&mut talk, 1, 1, 4000).remove(0);
        let b = open(&mut talk, 2, 1, 5000).remove(0);
        let c = open(&mut talk, 0, 1, 6000).remove(0);
        (a, b, c)
    };
    all_events(&mut talk);
    // Its application is told, and does not read it.
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, source.group, 2);
    talk.step();
    talk.station.machines[1].frozen = true;
    wish(&mut talk, target.group, 1);
    wish(&mut talk, bystander.group, 2);
    talk.step();
    assert_eq!(outcomes(&mut talk), [], "all wait for it");
    assert_eq!(owners(&talk, target.group), [0; 0], "on its way there");
    taken(&mut talk);
    let mut told = outcomes(&mut talk);
    told.sort_by_key(|(group, _)| group.0);
    let mut expected = vec![
        (source.group, Status::TimedOut),
        (target.group, Status::Ok),
        (bystander.group, Status::Ok),
    ];
    expected.sort_by_key(|(group, _)| group.0);
    assert_eq!(told, expected, "within milliseconds");
    assert!(talk.station.engines[0].is_settled() && talk.station.engines[2].is_settled());
    assert_owned(&talk);
    say(&mut talk, &bystander, b"hello");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    script(&mut talk, 1).asleep = false;
    resumes(&mut talk);
    let told = events(&mut talk, 1);
    let (out, back) = (
        Condition::GroupOut { group: source.group, life: 0 },
        Condition::GroupIn { group: source.group, life: 0 },
    );
    let at = |wanted: Condition| told.iter().position(|event| *event == wanted);
    assert!(at(out).is_some() && at(out) < at(back), "what was laid aside comes back: {told:?}");
    // What was on its way to it when it was stopped comes back to it, too.
    assert!(at(Condition::GroupIn { group: target.group, life: 0 }).is_some(), "{told:?}");
    let ended = dead(&told);
    assert_eq!(ended.len(), 2, "{told:?}");
    assert_eq!(forced(&talk), 2);
    close(&mut talk, 1, &ended);
    settle(&mut talk);
    assert_owned(&talk);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_move_to_a_core_that_is_taken_is_over_where_it_came_from_too() {
    let mut talk = talk();
    let group = GroupId(0);
    talk.station.machines[1].frozen = true;
    wish(&mut talk, group, 1);
    talk.step();
    assert_eq!((owners(&talk, group), outcomes(&mut talk)), (vec![], vec![]), "on its way there");
    // It begins afresh on the core that has sent it.
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b001), Status::Ok);
    settle(&mut talk);
    assert_eq!((owners(&talk, group), outcomes(&mut talk)), (vec![0], vec![(group, Status::Ok)]));
    assert!(talk.station.engines[0].is_settled());
}

#[test]
fn a_group_that_was_sent_before_its_core_was_taken_arrives_whole() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    all_events(&mut talk);
    talk.station.machines[2].frozen = true;
    wish(&mut talk, conn.group, 2);
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [0; 0], "in the ring to core 2");
    talk.station.machines[1].frozen = true;
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b101), Status::Ok);
    settle(&mut talk);
    talk.station.machines[2].frozen = false;
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [2]);
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    say(&mut talk, &conn, b"whole");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    resumes(&mut talk);
    assert_eq!(forced(&talk), 0);
    assert_owned(&talk);
}

#[test]
fn a_group_that_was_sent_too_late_ends_where_it_comes_to() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    all_events(&mut talk);
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, conn.group, 2);
    talk.step();
    taken(&mut talk);
    outcomes(&mut talk);
    // It runs on for a moment, and does not know: its application reads that the group goes.
    script(&mut talk, 1).asleep = false;
    for _ in 0..4 {
        run(&mut talk, 1);
    }
    assert!(!talk.station.engines[1].owns(conn.group), "it has sent it");
    settle(&mut talk);
    let told = events(&mut talk, 2);
    assert_eq!(dead(&told), [(conn.handle, DeadReason::Reset)], "{told:?}");
    assert!(told.contains(&Condition::GroupIn { group: conn.group, life: 0 }));
    assert_eq!(forced(&talk), 1);
    close(&mut talk, 2, &dead(&told));
    resumes(&mut talk);
    assert_eq!((forced(&talk), dead(&events(&mut talk, 1)).len()), (1, 0));
    assert_owned(&talk);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_group_that_lies_in_the_ring_of_a_core_that_is_taken_never_lives_there_again() {
    let mut talk = talk();
    clear(&mut talk, 1);
    let conn = open(&mut talk, 0, 1, 4000).remove(0);
    // Core 1 reads nothing any more.
    talk.station.machines[1].frozen = true;
    wish(&mut talk, conn.group, 1);
    settle(&mut talk);
    assert!(owners(&talk, conn.group).is_empty(), "it is not under way");
    taken(&mut talk);
    // It begins afresh elsewhere. Core 1 runs again, and core 0 has not heard that yet.
    talk.station.machines[1].frozen = false;
    talk.station.engines[1].give_up();
    for _ in 0..3 {
        run(&mut talk, 1);
        assert!(!talk.station.engines[1].owns(conn.group), "it is another's");
    }
    settle(&mut talk);
    assert_eq!((presence(&talk), talk.station.engines[1].is_out()), (Presence::Here, false));
    assert_eq!(dead(&events(&mut talk, 1)), [(conn.handle, DeadReason::Reset)]);
    close(&mut talk, 1, &[(conn.handle, DeadReason::Reset)]);
    assert_owned(&talk);
    assert_eq!(forced(&talk), 1);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_core_that_was_asked_and_then_taken_does_not_leave_when_it_runs_again() {
    let mut talk = talk();
    clear(&mut talk, 1);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    // It answers that it has heard who is there, and is not told more before it is stopped.
    for core in [0, 1, 2, 0] {
        run(&mut talk, core);
    }
    taken(&mut talk);
    resumes(&mut talk);
    settle(&mut talk);
    assert!(!talk.station.engines[1].take_leave());
    assert_eq!(presence(&talk), Presence::Here);
}

#[test]
fn a_request_of_a_core_that_is_taken_is_answered_when_it_is_back() {
    let mut talk = talk();
    script(&mut talk, 1).calls.push(Call::listen(any(99), 8).with_result(77));
    talk.station.engines[1].tell_parking();
    run(&mut talk, 1);
    taken(&mut talk);
    resumes(&mut talk);
    let told = events(&mut talk, 1);
    let answer = |e: &Condition| matches!(e, Condition::Result { tag: 77, status: Status::Ok, .. });
    assert!(told.iter().any(answer), "{told:?}");
    assert!(talk.station.engines[1].ports_in_use().any(|port| port == 99));
}

#[test]
fn an_application_that_ends_takes_what_was_left_with_it() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    say(&mut talk, &conn, b"held");
    taken(&mut talk);
    resumes(&mut talk);
    assert_eq!(dead(&events(&mut talk, 1)).len(), 1);
    for engine in &mut talk.station.engines {
        engine.detach_app();
    }
    settle(&mut talk);
    for engine in &mut talk.station.engines {
        assert_eq!(engine.drain(), Drain::Done);
    }
    talk.pass(Duration::from_s(1));
    talk.station.assert_buffers_conserved();
    assert_eq!(talk.station.engines[1].conservation().connections, 0);
}

#[test]
fn a_core_is_taken_again_and_again() {
    let mut talk = talk();
    for round in 0..20 {
        clear_to(&mut talk, 1);
        let port = 4000 + round * 400;
        let conns = open(&mut talk, 1, 2, port);
        taken(&mut talk);
        resumes(&mut talk);
        let told = dead(&events(&mut talk, 1));
        assert_eq!(told.len(), 2, "round {round}: {conns:?}");
        close(&mut talk, 1, &told);
        assert_eq!(forced(&talk), 2 * u64::from(round + 1));
        assert_owned(&talk);
        all_events(&mut talk);
    }
    talk.station.assert_buffers_conserved();
}

/// A few groups go to a core.
fn clear_to(talk: &mut Talk, core: u16) {
    for group in groups(talk).filter(|group| group.0 % 3 == 1).collect::<Vec<_>>() {
        wish(talk, group, core);
    }
    settle(talk);
    outcomes(talk);
}
