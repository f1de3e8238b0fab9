//! A core that is asked to leave while groups of its own still move: whoever waits for an answer gets it, so that it leaves as
//! soon as the last has come, and no frame overtakes another.
use super::*;
use ix_dataplane::limits::{MOVE_FLUSH_TIMEOUT, MOVE_SETTLE_TIMEOUT};

/// More groups of each core than a ring takes messages.
fn talk_with_groups() -> Talk {
    let mut talk = Talk::new(|setup| (setup.cores, setup.groups) = (CORES as u16, 256));
    settle(&mut talk);
    talk
}

/// All groups of core 1 are handed over to another; the device has not turned.
fn hand_over_all(talk: &mut Talk, to: u16) {
    for group in groups(talk).filter(|group| owners(talk, *group) == [1]).collect::<Vec<_>>() {
        wish(talk, group, to);
    }
    after(talk, A_BIT);
    assert!(groups(talk).all(|group| owners(talk, group) != [1]));
    assert_eq!(outcomes(talk), [], "they flush");
}

/// How long core 1 takes to leave.
#[track_caller]
fn assert_leaves_at_once(talk: &mut Talk) {
    let since = talk.now;
    settle(talk);
    let took = talk.now.since(since);
    assert!(talk.station.engines[1].take_leave(), "it has not left after {took:?}");
    assert!(took < MOVE_FLUSH_TIMEOUT);
    assert_eq!(presence(talk), Presence::Away);
    let told = outcomes(talk);
    assert!(told.iter().all(|(_, status)| *status == Status::Ok), "{told:?}");
}

#[test]
fn who_leaves_hears_that_the_device_has_turned() {
    let mut talk = talk_with_table();
    hand_over_all(&mut talk, 0);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    after(&mut talk, A_BIT);
    redirect(&mut talk);
    assert_leaves_at_once(&mut talk);
}

#[test]
fn who_leaves_hears_that_another_core_has_turned() {
    let mut talk = talk();
    // It hears of the groups when it knows that their old owner leaves.
    talk.station.machines[2].frozen = true;
    hand_over_all(&mut talk, 0);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    after(&mut talk, A_BIT);
    talk.station.machines[2].frozen = false;
    assert_leaves_at_once(&mut talk);
}

#[test]
fn who_was_to_leave_and_gets_a_group_hears_that_it_has_settled() {
    let mut talk = talk();
    let group = groups(&talk).find(|group| owners(&talk, *group) == [2]).expect("it has some");
    clear(&mut talk, 1);
    wish(&mut talk, group, 1);
    // Core 0 has not heard that it goes there.
    run(&mut talk, 0);
    for _ in 0..5 {
        run(&mut talk, 2);
    }
    run(&mut talk, 1);
    assert_eq!(owners(&talk, group), [1]);
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    // The old owner has done its part before it hears that the core stays.
    for core in [0, 0, 2, 2, 2, 2] {
        run(&mut talk, core);
    }
    let since = talk.now;
    settle(&mut talk);
    assert!(talk.now.since(since) < MOVE_SETTLE_TIMEOUT);
    assert_eq!(presence(&talk), Presence::Here, "it has a group");
    assert!(talk.station.engines[1].is_settled(), "it waits for the old owner's last word");
    assert_owned(&talk);
}

#[test]
fn what_a_core_that_leaves_still_forwards_is_not_overtaken() {
    let mut talk = talk_with_table();
    let conn = open(&mut talk, 1, 1, 4000).remove(0);
    with_queues(&mut talk);
    hand_over_all(&mut talk, 2);
    // The last frame that the device brings to the old owner, and the first to the new one.
    talk.station.machines[1].frozen = true;
    redirect(&mut talk);
    talk.port = conn.port;
    let frames = [101, 102].map(|seq| talk.frame(ACK | PSH, seq, conn.ack, 8000, &[], b"x"));
    for (core, frame) in [1, 2].into_iter().zip(frames) {
        talk.station.machines[core].rx[0].inbox.push_back(frame);
    }
    talk.sent();
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    redirect(&mut talk);
    settle(&mut talk);
    assert!(talk.sent().is_empty(), "the second frame was taken before the first");
    talk.station.machines[1].frozen = false;
    assert_leaves_at_once(&mut talk);
    assert_eq!(lengths(&events(&mut talk, 2)).iter().sum::<u32>(), 2);
}

#[test]
fn answers_for_which_there_is_no_room_yet_are_not_lost() {
    let mut talk = talk_with_groups();
    talk.station.machines[2].frozen = true;
    hand_over_all(&mut talk, 0);
    settle(&mut talk);
    // A ring full of answers, which the old owner does not read; and it asks for more.
    (0..40).for_each(|_| run(&mut talk, 2));
    run(&mut talk, 1);
    (0..40).for_each(|_| run(&mut talk, 2));
    (0..60).for_each(|_| run(&mut talk, 0));
    (talk.station.machines[1].frozen, talk.station.machines[2].frozen) = (true, false);
    assert!(!talk.station.engines[2].is_settled(), "all answers found room");
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    settle(&mut talk);
    talk.station.machines[1].frozen = false;
    assert_leaves_at_once(&mut talk);
}

#[test]
fn who_leaves_is_waited_for_until_it_has_turned_if_it_hears_of_the_group() {
    let mut talk = talk_with_groups();
    clear(&mut talk, 1);
    talk.station.machines[1].frozen = true;
    let ours: Vec<_> = groups(&talk).filter(|group| owners(&talk, *group) == [2]).collect();
    for group in &ours {
        wish(&mut talk, *group, 0);
    }
    settle(&mut talk);
    assert!(ours.iter().all(|group| owners(&talk, *group) != [2]));
    assert_eq!(talk.station.engines[0].send_away(AWAY), Status::Ok);
    settle(&mut talk);
    // For the others there was no room in its ring.
    let told = outcomes(&mut talk).len();
    assert!(told > 0 && ours.len() - told == 64, "{told} of {} have moved", ours.len());
    talk.station.machines[1].frozen = false;
    assert_leaves_at_once(&mut talk);
    assert!(talk.station.engines[2].is_settled(), "it waits for a core that is away");
}
