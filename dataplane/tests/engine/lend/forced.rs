//! Cores that are taken by force: exactly their connections are reset, and each group has an heir.
use super::*;
use crate::support::talk::RST;
use ix_abi::call::SgEntry;
use ix_dataplane::app::Drain;
use ix_dataplane::core_loop::run_once;

fn run(talk: &mut Talk, core: usize) {
    let machine = &mut talk.station.machines[core];
    machine.now = talk.now;
    run_once(&mut talk.station.engines[core], machine);
    machine.tx.work();
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

fn close(talk: &mut Talk, core: usize, told: &[(Handle, DeadReason)]) {
    let calls: Vec<_> = told.iter().map(|(handle, _)| Call::new(Op::Close, *handle)).collect();
    call(talk, core, &calls);
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

/// The peer says something, and where the application of core 1 finds it.
fn held(talk: &mut Talk, conn: &Conn) -> SgEntry {
    say(talk, conn, b"held");
    let place = |e: &Condition| match e {
        Condition::Recv { addr, len, .. } => Some(SgEntry { addr: *addr, len: u64::from(*len) }),
        _ => None,
    };
    events(talk, 1).iter().find_map(place).expect("what was said")
}

/// What a core says when one of its connections is to send from there.
fn sends(talk: &mut Talk, core: usize, conn: &Conn, from: SgEntry) -> Status {
    let send = Call::sendv(conn.handle, 1, from, SgEntry::default());
    call(talk, core, &[send.with_result(55)]);
    let answer = |e: &Condition| match e {
        Condition::Result { tag: 55, status, .. } => Some(*status),
        _ => None,
    };
    events(talk, core).iter().find_map(answer).expect("an answer")
}

#[test]
fn what_is_held_of_a_group_on_the_move_is_its_new_owners_when_both_are_taken() {
    let mut talk = talk();
    let heirs = open(&mut talk, 0, 1, 5000).remove(0);
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    let held = held(&mut talk, &conn);
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, conn.group, 2);
    talk.step();
    script(&mut talk, 1).asleep = false;
    (0..2).for_each(|_| run(&mut talk, 1));
    (0..2).for_each(|_| run(&mut talk, 2));
    assert_eq!(owners(&talk, conn.group), [2]);
    assert_eq!(talk.station.engines[0].owner(conn.group), Some(AWAY), "it has not heard");
    for core in [1, 2] {
        talk.station.machines[core].frozen = true;
        assert_eq!(talk.station.engines[0].take_away(CoreId(core as u16), 0b001), Status::Ok);
    }
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [0, 2], "begun afresh; core 2 has not given up");
    assert_eq!(sends(&mut talk, 0, &heirs, held), Status::Fault);
    resumes(&mut talk);
    clear_to(&mut talk, 1);
    let other = open(&mut talk, 1, 1, 6000).remove(0);
    assert_eq!(sends(&mut talk, 1, &other, held), Status::Fault, "it had given it away");
    talk.station.machines[2].frozen = false;
    talk.station.engines[2].give_up();
    settle(&mut talk);
    let told = dead(&events(&mut talk, 2));
    assert_eq!(told, [(conn.handle, DeadReason::Reset)]);
    talk.station.assert_buffers_conserved();
    close(&mut talk, 2, &told);
    settle(&mut talk);
    assert_owned(&talk);
    talk.station.assert_buffers_conserved();
}

#[test]
fn what_was_left_the_first_time_is_still_held_when_a_core_was_taken_again() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    let held = held(&mut talk, &conn);
    for _ in 0..2 {
        taken(&mut talk);
        resumes(&mut talk);
    }
    let told = dead(&events(&mut talk, 1));
    assert_eq!(told, [(conn.handle, DeadReason::Reset)]);
    clear_to(&mut talk, 1);
    let other = open(&mut talk, 1, 1, 6000).remove(0);
    assert_eq!(sends(&mut talk, 1, &other, held), Status::Ok);
    close(&mut talk, 1, &told);
    talk.send(ACK, other.seq, other.ack + held.len as u32, 8000, &[]);
    settle(&mut talk);
    talk.station.assert_buffers_conserved();
}
