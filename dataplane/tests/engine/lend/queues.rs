//! Moves by a device that has a table, as the queues of the old owner and of the new one see them.
use super::*;
use ix_dataplane::limits::{MOVE_FLUSH_TIMEOUT, MOVE_HELD_MAX, MOVE_SETTLE_TIMEOUT};

/// Some iterations more.
const A_WHILE: Duration = Duration::from_ms(4);

/// A conversation of core 1's, with queues and a table.
fn with_conn() -> (Talk, Conn) {
    let mut talk = talk_with_table();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    with_queues(&mut talk);
    all_events(&mut talk);
    (talk, conn)
}

/// Bytes of the conversation, from its place `at`, in the queue of a core.
fn data(talk: &mut Talk, core: usize, conn: &Conn, at: u32, payload: &[u8]) {
    talk.port = conn.port;
    let frame = talk.frame(ACK | PSH, conn.seq + at, conn.ack, 8000, &[], payload);
    talk.station.machines[core].rx[0].inbox.push_back(frame);
}

/// The group goes, and those look who do; the device does not turn.
fn give(talk: &mut Talk, group: GroupId, to: u16, cores: &[usize]) {
    wish(talk, group, to);
    for _ in 0..6 {
        cores.iter().for_each(|core| run(talk, *core));
    }
    assert_eq!(owners(talk, group), [usize::from(to)]);
}

/// Time passes for these cores.
fn wait(talk: &mut Talk, time: Duration, cores: &[usize]) {
    let until = talk.now + time;
    while talk.now < until {
        talk.now = talk.now + A_BIT;
        cores.iter().for_each(|core| run(talk, *core));
    }
}

/// The device has done one thing more.
fn redirect_once(talk: &mut Talk) {
    assert!(talk.station.engines[0].redirect().is_some());
    talk.station.engines[0].redirected();
    (0..2).for_each(|_| (0..CORES).for_each(|core| run(talk, core)));
}

#[test]
fn an_old_owner_whose_queue_is_never_empty_has_forwarded_its_last_all_the_same() {
    let mut talk = talk_with_table();
    let conns = open(&mut talk, 1, 12, 4000);
    let conn = &conns[0];
    let other = conns.iter().find(|other| other.group != conn.group).expect("one of twelve");
    with_queues(&mut talk);
    all_events(&mut talk);
    talk.station.engines[1].set_rx_batch(1);
    give(&mut talk, conn.group, 2, &[0, 1, 2]);
    // What the device brings before it turns, and then always more than core 1 takes.
    (0..9).for_each(|_| data(&mut talk, 1, other, 0, b""));
    data(&mut talk, 1, conn, 0, b"older");
    redirect(&mut talk);
    for turn in 0..16 {
        (0..2).for_each(|_| data(&mut talk, 1, other, 0, b""));
        run(&mut talk, 0);
        run(&mut talk, 1);
        assert!(turn > 8 || !talk.station.engines[1].is_settled(), "it has forwarded nothing");
    }
    assert!(talk.station.engines[1].is_settled());
    settle(&mut talk);
    assert_eq!(lengths(&events(&mut talk, 2)), [5]);
    assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    talk.station.assert_buffers_conserved();
}

#[test]
fn what_the_device_has_done_for_the_move_before_it_has_not_for_this_one() {
    let (mut talk, conn) = with_conn();
    let all = [0, 1, 2];
    // There and back; nobody waits for the device any longer.
    for to in [2, 1] {
        give(&mut talk, conn.group, to, &all);
        wait(&mut talk, MOVE_FLUSH_TIMEOUT + A_WHILE, &all);
        assert_eq!(outcomes(&mut talk), [(conn.group, Status::Ok)]);
    }
    give(&mut talk, conn.group, 2, &all);
    for _ in 0..2 {
        redirect_once(&mut talk);
        assert!(!talk.station.engines[1].is_settled(), "the device has not turned");
    }
    redirect_once(&mut talk);
    assert!(talk.station.engines[1].is_settled());
    assert_eq!(talk.station.count(Counter::FramesUnordered), 0);
    assert_owned(&talk);
}

#[test]
fn the_last_word_about_the_move_before_is_not_that_about_this_one() {
    let (mut talk, conn) = with_conn();
    give(&mut talk, conn.group, 2, &[0, 1, 2]);
    // Core 1 sleeps before it has said its last word; the others do not wait for it.
    let others = [0, 2];
    wait(&mut talk, MOVE_SETTLE_TIMEOUT + A_WHILE, &others);
    give(&mut talk, conn.group, 0, &others);
    wait(&mut talk, MOVE_FLUSH_TIMEOUT + A_WHILE, &others);
    give(&mut talk, conn.group, 2, &others);
    data(&mut talk, 2, &conn, 0, b"younger");
    run(&mut talk, 2);
    assert_eq!(talk.station.count(Counter::FramesHeld), 1);
    // It says it now.
    (0..3).for_each(|_| run(&mut talk, 1));
    assert!(talk.station.engines[1].is_settled());
    (0..3).for_each(|_| run(&mut talk, 2));
    assert_eq!(lengths(&events(&mut talk, 2)), [0; 0], "core 0 may have older ones");
    (0..3).for_each(|_| redirect_once(&mut talk));
    settle(&mut talk);
    assert_eq!(lengths(&events(&mut talk, 2)), [7]);
    assert_eq!(talk.station.count(Counter::FramesUnordered), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn frames_that_may_overtake_others_are_counted() {
    let (mut talk, conn) = with_conn();
    give(&mut talk, conn.group, 2, &[0, 1, 2]);
    const MORE: usize = 3;
    for _ in 0..MOVE_HELD_MAX + MORE {
        data(&mut talk, 2, &conn, 0, b"");
        run(&mut talk, 2);
    }
    assert_eq!(talk.station.count(Counter::FramesHeld), MOVE_HELD_MAX as u64);
    assert_eq!(talk.station.count(Counter::FramesUnordered), MORE as u64);
    // And those that have waited in vain.
    wait(&mut talk, MOVE_SETTLE_TIMEOUT + A_WHILE, &[2]);
    assert_eq!(talk.station.count(Counter::FramesUnordered), (MOVE_HELD_MAX + MORE) as u64);
    assert!(talk.station.engines[2].is_settled());
    talk.station.assert_buffers_conserved();
}
