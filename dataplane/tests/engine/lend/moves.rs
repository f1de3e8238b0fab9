//! Moves as a third core sees them, which polls the queue: who is told what, and when; and what leaves before a group goes.
use super::*;
use crate::support::family::set_tos;
use crate::support::talk::{CWR, ECE};
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_dataplane::config::Algorithm;

const ECT0: u8 = 2;
const CE: u8 = 3;

/// Bytes of the conversation, from its place `at`, at the door.
fn data(talk: &mut Talk, conn: &Conn, at: u32, payload: &[u8]) {
    talk.port = conn.port;
    let frame = talk.frame(ACK | PSH, conn.seq + at, conn.ack, 8000, &[], payload);
    talk.give(frame);
}

/// Acknowledgements of nothing new, at the door.
fn nothing(talk: &mut Talk, conn: &Conn, count: u32) {
    (0..count).for_each(|_| data(talk, conn, 0, b""));
}

/// It was stopped, and had none of the connections.
fn core_1_is_back_and_reset_nothing(talk: &mut Talk) {
    talk.station.machines[1].frozen = false;
    talk.station.engines[1].give_up();
    settle(talk);
    assert_eq!(forced(talk), 0);
    assert_owned(talk);
    talk.station.assert_buffers_conserved();
}

/// A conversation on core 1, in the last of its groups.
fn in_last_group(talk: &mut Talk) -> Conn {
    let last = groups(talk).filter(|group| owners(talk, *group) == [1]).last();
    let found = open(talk, 1, 12, 4000).into_iter().find(|conn| Some(conn.group) == last);
    all_events(talk);
    found.expect("one of twelve")
}

/// Core 1 has given all its groups to a core that has not looked since.
fn hand_over(talk: &mut Talk, to: u16) {
    for group in groups(talk) {
        if owners(talk, group) == [1] {
            wish(talk, group, to);
        }
    }
    for _ in 0..20 {
        run(talk, 0);
        run(talk, 1);
        if groups(talk).all(|group| owners(talk, group) != [1]) {
            return;
        }
    }
    panic!("core 1 keeps its groups");
}

#[test]
fn nobody_sends_frames_to_who_has_not_read_yet_that_the_group_is_its_own() {
    let mut talk = talk();
    let conn = in_last_group(&mut talk);
    // Core 1 takes its frames one by one: some wait in its ring when it gives away more groups than a core takes at once.
    const OLDER: u32 = 20;
    talk.station.engines[1].set_rx_batch(1);
    (0..OLDER).for_each(|at| data(&mut talk, &conn, at, b"o"));
    run(&mut talk, 0);
    hand_over(&mut talk, 2);
    (0..4).for_each(|_| run(&mut talk, 0));
    data(&mut talk, &conn, OLDER, b"younger");
    run(&mut talk, 0);
    run(&mut talk, 2);
    assert_eq!(owners(&talk, conn.group), [0; 0], "it is behind others");
    talk.station.engines[1].set_rx_batch(64);
    settle(&mut talk);
    assert_eq!(talk.station.count(Counter::TcpOutOfOrder), 0);
    let read = [lengths(&events(&mut talk, 1)), lengths(&events(&mut talk, 2))];
    assert!(read.iter().all(|lengths| !lengths.is_empty()), "{read:?}");
    assert_eq!(read.concat().iter().sum::<u32>(), OLDER + 7);
    let told = outcomes(&mut talk);
    assert!(told.iter().all(|(_, status)| *status == Status::Ok), "{told:?}");
    assert_owned(&talk);
    talk.station.assert_buffers_conserved();
}

#[test]
fn what_is_held_waits_for_the_old_owner_alone_however_much_others_send() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    let other = open(&mut talk, 2, 1, 4400).remove(0);
    all_events(&mut talk);
    wish(&mut talk, conn.group, 2);
    // Until core 0 has heard whose it is, and not yet the old owner that it has.
    [0, 1, 1, 1, 2, 1, 0].into_iter().for_each(|core| run(&mut talk, core));
    assert_eq!(owners(&talk, conn.group), [2]);
    assert_eq!(talk.station.engines[0].owner(conn.group), Some(CoreId(2)));
    // Core 2 takes frames one by one, and has always more to take.
    talk.station.engines[2].set_rx_batch(1);
    data(&mut talk, &conn, 0, b"younger");
    nothing(&mut talk, &other, 100);
    (0..3).for_each(|_| run(&mut talk, 0));
    run(&mut talk, 2);
    assert_eq!(talk.station.count(Counter::FramesHeld), 1);
    assert_eq!(lengths(&events(&mut talk, 2)), [0; 0], "its old owner may have older ones");
    (0..3).for_each(|_| run(&mut talk, 1));
    assert!(talk.station.engines[1].is_settled(), "it has forwarded its last");
    (0..3).for_each(|_| run(&mut talk, 2));
    assert_eq!(lengths(&events(&mut talk, 2)), [7]);
    assert!(talk.station.engines[2].is_settled());
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    talk.station.assert_buffers_conserved();
}

#[test]
fn an_old_owner_that_always_has_frames_to_take_has_forwarded_its_last_all_the_same() {
    let mut talk = talk();
    let conns = open(&mut talk, 1, 12, 4000);
    let conn = &conns[0];
    let other = conns.iter().find(|other| other.group != conn.group).expect("one of twelve");
    all_events(&mut talk);
    talk.station.engines[1].set_rx_batch(1);
    wish(&mut talk, conn.group, 2);
    [0, 1, 1, 1, 2, 1].into_iter().for_each(|core| run(&mut talk, core));
    assert_eq!(owners(&talk, conn.group), [2]);
    // What core 0 sends before it has turned, and then always more than core 1 takes.
    data(&mut talk, conn, 0, b"older");
    nothing(&mut talk, other, 9);
    run(&mut talk, 0);
    for turn in 0..12 {
        nothing(&mut talk, other, 2);
        run(&mut talk, 0);
        assert!(turn > 0 || !talk.station.engines[1].is_settled());
        run(&mut talk, 1);
    }
    assert!(talk.station.engines[1].is_settled());
    settle(&mut talk);
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_group_whose_old_owner_is_stopped_before_it_has_told_others_is_found() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    all_events(&mut talk);
    hand_over(&mut talk, 2);
    for _ in 0..3 {
        run(&mut talk, 2);
    }
    assert_eq!(owners(&talk, conn.group), [2]);
    assert_eq!(talk.station.engines[0].owner(conn.group), Some(AWAY), "it has not heard");
    talk.station.machines[1].frozen = true;
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b101), Status::Ok);
    settle(&mut talk);
    assert_owned(&talk);
    say(&mut talk, &conn, b"whole");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    core_1_is_back_and_reset_nothing(&mut talk);
}

#[test]
fn an_answer_about_the_move_before_is_none_about_this_one() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    all_events(&mut talk);
    hand_over(&mut talk, 0);
    (0..2).for_each(|_| run(&mut talk, 0));
    assert_eq!(owners(&talk, conn.group), [0]);
    outcomes(&mut talk);
    // Before core 2 has looked: its old owner is stopped, and the new one, which says whose the group is, gives it to core 2.
    talk.station.machines[1].frozen = true;
    let there = groups(&talk).find(|group| owners(&talk, *group) == [2]).expect("some");
    wish(&mut talk, there, 2);
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b101), Status::Ok);
    (0..2).for_each(|_| run(&mut talk, 0));
    wish(&mut talk, conn.group, 2);
    (0..4).for_each(|_| run(&mut talk, 0));
    assert_eq!(owners(&talk, conn.group), [0; 0], "on its way to core 2");
    outcomes(&mut talk);
    // That hears of the move before and answers, until it has the group.
    for _ in 0..40 {
        run(&mut talk, 2);
        if owners(&talk, conn.group) == [2] {
            break;
        }
        (0..4).for_each(|_| run(&mut talk, 0));
        let told = outcomes(&mut talk);
        assert!(!told.contains(&(conn.group, Status::Ok)), "core 2 does not have it: {told:?}");
    }
    settle(&mut talk);
    assert_owned(&talk);
    say(&mut talk, &conn, b"whole");
    assert_eq!(lengths(&events(&mut talk, 2)), [5], "core 1 did not have it");
    core_1_is_back_and_reset_nothing(&mut talk);
}

#[test]
fn a_group_that_core_0_gives_to_who_has_answered_is_not_nobodys() {
    let mut talk = Talk::new(|setup| setup.cores = CORES as u16 + 1);
    call(&mut talk, 0, &[Call::listen(any(7), 64)]);
    let conn = open(&mut talk, 0, 1, 4000).remove(0);
    all_events(&mut talk);
    // Core 1 is stopped; core 2 says what it has; core 3 is long in coming.
    talk.station.machines[1].frozen = true;
    talk.station.machines[3].frozen = true;
    assert_eq!(talk.station.engines[0].take_away(AWAY, 0b1101), Status::Ok);
    settle(&mut talk);
    wish(&mut talk, conn.group, 2);
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [2]);
    // The move waits for core 3, but not for ever.
    after(&mut talk, ix_dataplane::limits::MOVE_FLUSH_TIMEOUT);
    settle(&mut talk);
    assert!(outcomes(&mut talk).contains(&(conn.group, Status::Ok)));
    talk.station.machines[3].frozen = false;
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [2]);
    say(&mut talk, &conn, b"whole");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    assert_eq!(forced(&talk), 0);
}

#[test]
fn a_group_that_its_new_owner_is_slow_to_read_is_told_of_in_the_end() {
    let mut talk = talk();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    all_events(&mut talk);
    talk.station.machines[2].frozen = true;
    hand_over(&mut talk, 2);
    after(&mut talk, Duration(ix_dataplane::limits::MOVE_FLUSH_TIMEOUT.0 / 2));
    assert_eq!(talk.station.engines[0].owner(conn.group), Some(AWAY));
    after(&mut talk, ix_dataplane::limits::MOVE_FLUSH_TIMEOUT);
    settle(&mut talk);
    assert_eq!(talk.station.engines[0].owner(conn.group), Some(CoreId(2)));
    assert!(talk.station.engines[1].is_settled());
    talk.station.machines[2].frozen = false;
    settle(&mut talk);
    say(&mut talk, &conn, b"whole");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    assert_owned(&talk);
}

#[test]
fn a_group_stays_while_there_is_no_room_for_it_where_it_is_to_go() {
    let mut talk = talk();
    let conn = open(&mut talk, 0, 1, 4000).remove(0);
    all_events(&mut talk);
    // Core 2 does not read its messages, of which there are more than a ring holds.
    talk.station.machines[2].frozen = true;
    let there = groups(&talk).find(|group| owners(&talk, *group) == [2]).expect("some");
    (0..100).for_each(|_| wish(&mut talk, there, 1));
    wish(&mut talk, conn.group, 2);
    settle(&mut talk);
    assert_eq!(events(&mut talk, 0), [Condition::GroupOut { group: conn.group, life: 0 }]);
    assert_eq!(owners(&talk, conn.group), [0], "nothing of it may be there before it");
    talk.station.machines[2].frozen = false;
    settle(&mut talk);
    assert_eq!(owners(&talk, conn.group), [2]);
    assert!(outcomes(&mut talk).contains(&(conn.group, Status::Ok)));
    say(&mut talk, &conn, b"hello");
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    assert_owned(&talk);
}

/// Of core 1: a conversation about congestion by DCTCP, the device's queue with room for one frame.
fn marked() -> (Talk, Conn) {
    let mut talk = Talk::new(|setup| {
        setup.cores = CORES as u16;
        setup.configure = |config| config.congestion = Algorithm::Dctcp;
    });
    call(&mut talk, 0, &[Call::listen(any(7), 64)]);
    all_events(&mut talk);
    for port in 4000..4100 {
        talk.port = port;
        talk.sent();
        talk.send(SYN | ECE | CWR, 100, 0, 8000, &[]);
        let ack = talk.one().seq.wrapping_add(1);
        talk.send(ACK, 101, ack, 8000, &[]);
        let Some(handle) = knock(&events(&mut talk, 1)) else { continue };
        call(&mut talk, 1, &[Call::accept(handle, Cookie(5))]);
        all_events(&mut talk);
        talk.sent();
        talk.station.machines[1].tx.depth = 1;
        return (talk, Conn { handle, group: handle.group(), port, seq: 101, ack });
    }
    panic!("no port leads to core 1");
}

/// Bytes with this code point arrive at core 1.
fn coded(talk: &mut Talk, conn: &Conn, at: u32, code: u8) {
    let mut frame = talk.frame(ACK, conn.seq + at, conn.ack, 8000, &[], b"coded");
    set_tos(&mut frame, code);
    talk.give(frame);
    run(talk, 0);
    run(talk, 1);
}

#[test]
fn acknowledgements_that_wait_for_room_leave_before_the_group_goes() {
    let (mut talk, conn) = marked();
    talk.station.machines[1].tx.stalled = true;
    let piece = SgEntry { addr: HEAP_BASE, len: 10 };
    call(&mut talk, 1, &[Call::sendv(conn.handle, 1, piece, SgEntry::default())]);
    assert_eq!(talk.station.machines[1].tx.waiting(), 1, "the queue is full");
    coded(&mut talk, &conn, 0, ECT0);
    coded(&mut talk, &conn, 5, CE);
    wish(&mut talk, conn.group, 0);
    talk.step();
    let out = Condition::GroupOut { group: conn.group, life: 0 };
    assert_eq!(events(&mut talk, 1).last(), Some(&out), "it is silent from now on");
    // Of what comes in between, none is acknowledged by this core.
    coded(&mut talk, &conn, 10, ECT0);
    // The data leaves; the acknowledgement of what came unmarked then is in the queue.
    talk.station.machines[1].tx.stalled = false;
    run(&mut talk, 1);
    talk.station.machines[1].tx.stalled = true;
    for _ in 0..4 {
        run(&mut talk, 1);
    }
    assert_eq!(owners(&talk, conn.group), [1], "what it has sent has not left");
    assert_eq!(talk.station.machines[1].tx.waiting(), 1);
    talk.station.machines[1].tx.stalled = false;
    for _ in 0..3 {
        run(&mut talk, 1);
    }
    assert_ne!(owners(&talk, conn.group), [1]);
    assert_eq!(talk.station.machines[1].tx.outbox.len(), 2, "all that it has sent");
    settle(&mut talk);
    let sent = talk.sent();
    let apart = sent.iter().find(|segment| segment.payload.is_empty()).expect("apart");
    assert_eq!((apart.ack, apart.flags & ECE), (conn.seq + 5, 0), "{sent:?}");
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    assert_eq!(owners(&talk, conn.group), [0]);
    talk.pass(Duration::from_ms(100));
    let sent = talk.sent();
    assert_eq!(sent.last().map(|segment| segment.ack), Some(conn.seq + 15), "{sent:?}");
}

#[test]
fn acknowledgements_that_wait_longer_than_a_move_may_keep_the_group() {
    let (mut talk, conn) = marked();
    talk.station.machines[1].tx.stalled = true;
    let piece = SgEntry { addr: HEAP_BASE, len: 10 };
    call(&mut talk, 1, &[Call::sendv(conn.handle, 1, piece, SgEntry::default())]);
    coded(&mut talk, &conn, 0, ECT0);
    coded(&mut talk, &conn, 5, CE);
    wish(&mut talk, conn.group, 0);
    talk.step();
    after(&mut talk, ix_dataplane::limits::MOVE_DRAIN_TIMEOUT);
    settle(&mut talk);
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::TimedOut)]);
    assert_eq!(owners(&talk, conn.group), [1]);
}
