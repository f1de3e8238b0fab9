//! A core that is congested wakes another by itself, and gives it half of its load.
//! Core 0 alone has a receive queue; core 1 gets its frames through it.

use crate::support::talk::{ACK, PSH, SYN, Script, Talk, any};
use ix_abi::call::Call;
use ix_abi::stats::Counter;
use ix_abi::{Condition, Cookie, CoreId, GroupId, Handle, Op};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::moves::{Grant, Woken};
use ix_dataplane::time::Duration;

const GROUPS: u16 = 8;
const DELAY: Duration = Duration::from_us(100);

struct Conn {
    port: u16,
    group: GroupId,
    seq: u32,
    ack: u32,
}

/// Two cores, of which the first has all flow groups.
fn talk() -> Talk {
    let mut talk = Talk::new(|setup| (setup.cores, setup.groups) = (2, GROUPS));
    script(&mut talk, 0).calls.push(Call::listen(any(7), 64));
    wake(&mut talk);
    for group in (0..GROUPS).map(GroupId) {
        if !talk.station.engines[0].owns(group) {
            talk.station.engines[0].move_group(group, CoreId(0));
            wake(&mut talk);
        }
    }
    assert_eq!(groups(&talk, 0), usize::from(GROUPS));
    while talk.station.engines[0].move_outcome().is_some() {}
    talk
}

fn script(talk: &mut Talk, core: usize) -> &mut Script {
    talk.station.app(core)
}

fn wake(talk: &mut Talk) {
    for core in [0, 1] {
        talk.station.engines[core].tell_parking();
    }
    talk.step();
}

fn groups(talk: &Talk, core: usize) -> usize {
    (0..GROUPS).filter(|group| talk.station.engines[core].owns(GroupId(*group))).count()
}

/// A connection in each of the first `count` groups that the peer's ports lead to.
fn open(talk: &mut Talk, count: usize) -> Vec<Conn> {
    let mut open: Vec<Conn> = Vec::new();
    for port in 4000..6000 {
        if open.len() == count {
            break;
        }
        talk.port = port;
        talk.sent();
        talk.send(SYN, 100, 0, 8000, &[]);
        let ack = talk.one().seq.wrapping_add(1);
        talk.send(ACK, 101, ack, 8000, &[]);
        let knock = |e: &Condition| match e {
            Condition::Knock { handle, .. } => Some(*handle),
            _ => None,
        };
        let events = std::mem::take(&mut script(talk, 0).events);
        let handle: Handle = events.iter().find_map(knock).expect("a knock");
        let group = handle.group();
        if open.iter().any(|conn| conn.group == group) {
            script(talk, 0).calls.push(Call::new(Op::Reject, handle));
        } else {
            script(talk, 0).calls.push(Call::accept(handle, Cookie(u64::from(port))));
            open.push(Conn { port, group, seq: 101, ack });
        }
        wake(talk);
        talk.sent();
    }
    assert_eq!(open.len(), count);
    open
}

/// A request of each connection is in the queue.
fn offer(talk: &mut Talk, conns: &mut [Conn]) {
    for conn in conns {
        talk.port = conn.port;
        let frame = talk.frame(ACK | PSH, conn.seq, conn.ack, 8000, &[], &[1; 10]);
        conn.seq += 10;
        talk.give(frame);
    }
}

/// One iteration of one core, `after` the last.
fn run(talk: &mut Talk, core: usize, after: Duration) {
    talk.now = talk.now + after;
    let machine = &mut talk.station.machines[core];
    machine.now = talk.now;
    run_once(&mut talk.station.engines[core], machine);
    machine.tx.work();
}

fn grant(talk: &mut Talk, after_ns: u64) {
    let grant = Grant { to: CoreId(1), delay_ns: DELAY.0, after_ns };
    talk.station.engines[0].set_grant(Some(grant));
}

/// Iterations of core 0 that take twice as long as the threshold, and of core 1 once it is called; how many.
fn until_served(talk: &mut Talk, conns: &mut [Conn]) -> u32 {
    for turn in 0..1000 {
        offer(talk, conns);
        run(talk, 0, DELAY + DELAY);
        if talk.station.machines[0].woken.contains(&CoreId(1)) {
            run(talk, 1, Duration(0));
        }
        if talk.station.engines[1].measure().wake().served_ns != 0 {
            return turn;
        }
    }
    panic!("core 1 has served nothing");
}

fn received(talk: &mut Talk) -> u64 {
    talk.station.count(Counter::PayloadIn)
}

#[test]
fn a_congested_core_wakes_the_one_that_it_was_granted_and_gives_it_half_of_its_load() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 6);
    grant(&mut talk, 0);
    let turns = until_served(&mut talk, &mut conns);
    assert!(turns <= 8, "{turns} iterations");
    assert!(talk.station.engines[1].take_call(), "core 1 was called");
    assert!(!talk.station.engines[1].take_call(), "once");
    let woken = Woken { core: CoreId(1), by: CoreId(0) };
    assert_eq!(talk.station.engines[0].woken(), Some(woken));
    assert_eq!(talk.station.engines[0].woken(), None);
    let wake = *talk.station.engines[0].measure().wake();
    assert_eq!((wake.count, wake.to, wake.late_ns), (1, 1, 0));
    assert!(wake.delay_ns > DELAY.0 && wake.began_ns < wake.given_ns, "{wake:?}");
    let woken = *talk.station.engines[1].measure().wake();
    assert!(wake.began_ns < woken.taken_ns && woken.taken_ns <= woken.found_ns, "{woken:?}");
    assert!(woken.found_ns <= woken.served_ns, "{woken:?}");
    // The rest goes on its own.
    for _ in 0..50 {
        both(&mut talk);
    }
    let loaded =
        |talk: &Talk| conns.iter().filter(|c| talk.station.engines[1].owns(c.group)).count();
    assert_eq!(loaded(&talk), 3);
    assert_eq!((groups(&talk, 0), groups(&talk, 1)), (4, 4));
    assert!(talk.station.engines.iter().all(ix_dataplane::engine::Engine::is_settled));
    // Nothing is lost on the way.
    let wanted: u64 = conns.iter().map(|conn| u64::from(conn.seq - 101)).sum();
    assert_eq!(received(&mut talk), wanted);
    assert_eq!(talk.station.count(Counter::TcpOutOfOrder), 0);
    // Polls take what they may again, and one grant serves once.
    for _ in 0..20 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
        run(&mut talk, 1, Duration(0));
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 1);
    assert_eq!(full_poll(&mut talk, &mut conns), 6);
}

/// Frames that a poll of core 0 takes when each connection has sent one.
fn full_poll(talk: &mut Talk, conns: &mut [Conn]) -> u64 {
    let before = talk.station.count(Counter::RxPackets);
    offer(talk, conns);
    run(talk, 0, Duration::from_us(10));
    talk.station.count(Counter::RxPackets) - before
}

fn both(talk: &mut Talk) {
    run(talk, 0, Duration::from_us(10));
    run(talk, 1, Duration(0));
}

#[test]
fn it_has_to_be_late_for_as_long_as_the_grant_says() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 4);
    grant(&mut talk, Duration::from_us(900).0);
    let wakes = |talk: &Talk| talk.station.engines[0].measure().wake().count;
    for round in 0..5 {
        for _ in 0..4 {
            offer(&mut talk, &mut conns);
            run(&mut talk, 0, DELAY + DELAY);
        }
        assert_eq!(wakes(&talk), 0, "round {round}");
        // A poll that finds frames in time, or none, ends it.
        if round % 2 == 0 {
            offer(&mut talk, &mut conns);
        }
        run(&mut talk, 0, Duration::from_us(10));
    }
    for _ in 0..8 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
    }
    assert_eq!(wakes(&talk), 1);
    assert!(talk.station.engines[0].measure().wake().late_ns >= 900_000);
}

#[test]
fn long_iterations_without_frames_wake_nobody() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 4);
    grant(&mut talk, 0);
    for _ in 0..20 {
        // Busy, but nothing waits.
        talk.station.engines[0].tell_parking();
        run(&mut talk, 0, DELAY + DELAY);
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 0);
    talk.station.engines[0].set_grant(None);
    for _ in 0..20 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 0, "without a grant");
}

#[test]
fn what_is_one_groups_load_stays() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 1);
    grant(&mut talk, 0);
    for _ in 0..20 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 0);
    assert_eq!(groups(&talk, 0), usize::from(GROUPS));
}

#[test]
fn the_last_group_stays() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 1);
    let only = conns[0].group;
    for group in (0..GROUPS).map(GroupId).filter(|group| *group != only) {
        talk.station.engines[0].move_group(group, CoreId(1));
        wake(&mut talk);
    }
    assert_eq!(groups(&talk, 0), 1);
    // It has had nothing to do for so long that it weighs nothing.
    for _ in 0..30 {
        run(&mut talk, 0, Duration::from_us(1000));
    }
    grant(&mut talk, 0);
    // Something else keeps the core for too long, and a request waits meanwhile.
    talk.give(vec![0; 60]);
    run(&mut talk, 0, Duration::from_us(10));
    offer(&mut talk, &mut conns);
    run(&mut talk, 0, DELAY + DELAY);
    assert_eq!(talk.station.engines[0].measure().wake().count, 0);
    assert_eq!(groups(&talk, 0), 1);
}

#[test]
fn a_backlog_is_late_even_if_no_iteration_is_long() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 4);
    talk.station.engines[0].set_rx_batch(2);
    grant(&mut talk, 0);
    for _ in 0..20 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, Duration::from_us(20));
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 1);
}

#[test]
fn an_application_that_does_not_return_holds_nothing_up_for_good() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 4);
    grant(&mut talk, 0);
    talk.station.machines[0].hang = true;
    for _ in 0..200 {
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
        run(&mut talk, 1, Duration(0));
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 1);
    assert_eq!(groups(&talk, 0), usize::from(GROUPS), "not let go of");
    talk.station.machines[0].hang = false;
    // One batch is as large as ever.
    assert_eq!(full_poll(&mut talk, &mut conns), 4);
    for _ in 0..100 {
        both(&mut talk);
    }
    assert_eq!(groups(&talk, 1), 4);
}

#[test]
fn grants_that_make_no_sense_are_none() {
    let mut talk = talk();
    let mut conns = open(&mut talk, 4);
    for to in [0, 2, u16::MAX] {
        let grant = Grant { to: CoreId(to), delay_ns: 0, after_ns: 0 };
        talk.station.engines[0].set_grant(Some(grant));
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
        offer(&mut talk, &mut conns);
        run(&mut talk, 0, DELAY + DELAY);
    }
    assert_eq!(talk.station.engines[0].measure().wake().count, 0);
}
