//! Flow groups that move between cores by themselves: what the application, the device and the peer see.
//! Core 0 alone has a receive queue; core 1 gets its frames through it.
use crate::support::app::App;
use crate::support::talk::{ACK, PSH, RST, SYN, Script, Talk, any};
use ix_abi::call::{Call, SgEntry};
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Counter;
use ix_abi::{Condition, Cookie, CoreId, GroupId, Handle, Op, Status};
use ix_dataplane::app::Drain;
use ix_dataplane::core_loop::run_once;
use ix_dataplane::limits::{MOVE_DRAIN_TIMEOUT, MOVE_SETTLE_TIMEOUT, MOVE_TOLD_TIMEOUT};
use ix_dataplane::time::Duration;
use std::cell::RefCell;
use std::rc::Rc;

const A_BIT: Duration = Duration::from_ms(1);

struct Conn {
    handle: Handle,
    group: GroupId,
    seq: u32,
    ack: u32,
}

fn talk() -> Talk {
    let mut talk = Talk::new(|setup| setup.cores = 2);
    call(&mut talk, 0, &[Call::listen(any(7), 64)]);
    for core in [0, 1] {
        events(&mut talk, core);
    }
    talk
}

fn script(talk: &mut Talk, core: usize) -> &mut Script {
    talk.station.app(core)
}

/// Enters the application.
fn wake(talk: &mut Talk, core: usize) {
    talk.station.engines[core].tell_parking();
    talk.step();
}

fn call(talk: &mut Talk, core: usize, calls: &[Call]) {
    script(talk, core).calls.extend(calls);
    wake(talk, core);
}

/// What the application has read since the last look.
fn events(talk: &mut Talk, core: usize) -> Vec<Condition> {
    let mut events = std::mem::take(&mut script(talk, core).events);
    events.retain(|event| *event != Condition::Parking);
    events
}

/// One iteration of one core.
fn run(talk: &mut Talk, core: usize) {
    let machine = &mut talk.station.machines[core];
    machine.now = talk.now;
    run_once(&mut talk.station.engines[core], machine);
    machine.tx.work();
}

fn after(talk: &mut Talk, time: Duration) {
    talk.now = talk.now + time;
    talk.step();
}

/// A connection whose group is on `core`, accepted. It names the peer's port for what follows.
fn open(talk: &mut Talk, core: usize) -> Conn {
    for port in 4000..4100 {
        talk.port = port;
        talk.sent();
        talk.send(SYN, 100, 0, 8000, &[]);
        let ack = talk.one().seq.wrapping_add(1);
        talk.send(ACK, 101, ack, 8000, &[]);
        let knock = |e: &Condition| match e {
            Condition::Knock { handle, .. } => Some(*handle),
            _ => None,
        };
        let Some(handle) = events(talk, core).iter().find_map(knock) else { continue };
        call(talk, core, &[Call::accept(handle, Cookie(5))]);
        for core in [0, 1] {
            events(talk, core);
        }
        talk.sent();
        return Conn { handle, group: handle.group(), seq: 101, ack };
    }
    panic!("no port leads to core {core}");
}

fn data(talk: &Talk, conn: &Conn, at: u32, payload: &[u8]) -> Vec<u8> {
    talk.frame(ACK | PSH, conn.seq + at, conn.ack, 8000, &[], payload)
}

fn wish(talk: &mut Talk, group: GroupId, to: u16) {
    talk.station.engines[0].move_group(group, CoreId(to));
}

fn outcome(talk: &mut Talk) -> Option<(GroupId, Status)> {
    talk.station.engines[0].move_outcome()
}

fn owner(talk: &Talk, group: GroupId) -> Vec<usize> {
    (0..2).filter(|core| talk.station.engines[*core].owns(group)).collect()
}

fn lengths(events: &[Condition]) -> Vec<u32> {
    let len = |e: &Condition| match e {
        Condition::Recv { len, .. } | Condition::RecvSent { len, .. } => Some(*len),
        _ => None,
    };
    events.iter().filter_map(len).collect()
}

fn result(events: &[Condition], wanted: u64) -> Option<Status> {
    events.iter().find_map(|event| match event {
        Condition::Result { status, tag, .. } if *tag == wanted => Some(*status),
        _ => None,
    })
}

#[test]
fn group_out_is_written_when_the_application_has_nothing_under_way() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    talk.station.machines[1].hang = true;
    wake(&mut talk, 1);
    wish(&mut talk, conn.group, 0);
    talk.step();
    talk.station.machines[1].hang = false;
    run(&mut talk, 1);
    assert_eq!(events(&mut talk, 1), [], "it was taken off the core before it returned");
    talk.step();
    assert_eq!(events(&mut talk, 1), [Condition::GroupOut { group: conn.group, life: 0 }]);
    after(&mut talk, A_BIT);
    assert_eq!(outcome(&mut talk), Some((conn.group, Status::Ok)));
    assert_eq!(owner(&talk, conn.group), [0]);
}

#[test]
fn group_out_is_last_and_what_was_not_delivered_follows_group_in() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, conn.group, 0);
    talk.step();
    let frame = data(&talk, &conn, 0, b"late");
    talk.give(frame);
    talk.step();
    assert_eq!(owner(&talk, conn.group), [1], "it has not read that the group goes");
    script(&mut talk, 1).asleep = false;
    talk.step();
    let (group, told) = (conn.group, events(&mut talk, 1));
    assert_eq!(told, [Condition::GroupOut { group, life: 0 }]);
    after(&mut talk, A_BIT);
    let told = events(&mut talk, 0);
    assert_eq!(told[0], Condition::GroupIn { group, life: 0 });
    assert_eq!(lengths(&told[1..]), [4]);
    assert_eq!(outcome(&mut talk), Some((group, Status::Ok)));
    assert_eq!(events(&mut talk, 1), []);
}

#[test]
fn calls_made_with_group_out_are_executed_and_later_ones_answered_moved() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    let set = |tag| {
        Call::set_option(conn.handle, ix_abi::TcpOption::KeepAlive, 5_000_000).with_result(tag)
    };
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, conn.group, 0);
    talk.step();
    let script = script(&mut talk, 1);
    script.asleep = false;
    script.calls.push(set(1));
    // A frame that does not leave keeps the group here, silent.
    talk.station.machines[1].tx.stalled = true;
    let frame = talk.frame(ACK, conn.seq.wrapping_sub(1), conn.ack, 8000, &[], b"x");
    talk.give(frame);
    talk.step();
    call(&mut talk, 1, &[set(2)]);
    assert_eq!(owner(&talk, conn.group), [1]);
    let told = events(&mut talk, 1);
    assert_eq!(result(&told, 1), Some(Status::Ok));
    assert_eq!(result(&told, 2), Some(Status::Moved));
    talk.station.machines[1].tx.stalled = false;
    after(&mut talk, A_BIT);
    assert_eq!(owner(&talk, conn.group), [0]);
    call(&mut talk, 1, &[set(3)]);
    assert_eq!(result(&events(&mut talk, 1), 3), Some(Status::Moved));
}

#[test]
fn a_group_stays_with_an_application_that_does_not_read() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    let group = conn.group;
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, group, 0);
    talk.step();
    after(&mut talk, Duration(MOVE_TOLD_TIMEOUT.0 - 2 * A_BIT.0));
    assert_eq!(outcome(&mut talk), None);
    after(&mut talk, Duration(4 * A_BIT.0));
    assert_eq!(outcome(&mut talk), Some((group, Status::TimedOut)));
    assert_eq!(owner(&talk, group), [1]);
    assert!(talk.station.engines.iter().all(|engine| engine.is_settled()));
    script(&mut talk, 1).asleep = false;
    let frame = data(&talk, &conn, 0, b"stays");
    talk.give(frame);
    talk.step();
    let told = events(&mut talk, 1);
    assert_eq!(
        told[..2],
        [Condition::GroupOut { group, life: 0 }, Condition::GroupIn { group, life: 0 }]
    );
    assert_eq!(lengths(&told), [5]);
}

#[test]
fn a_group_stays_if_the_device_does_not_send() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    let group = conn.group;
    talk.station.machines[1].tx.stalled = true;
    call(&mut talk, 1, &[Call::new(Op::Shutdown, conn.handle)]);
    wish(&mut talk, group, 0);
    talk.step();
    assert_eq!(events(&mut talk, 1), [Condition::GroupOut { group, life: 0 }]);
    // What has to be answered at once is not: nothing may follow what is to leave.
    let before = talk.station.machines[1].tx.waiting();
    let ahead = data(&talk, &conn, 1000, b"behind a hole");
    talk.give(ahead);
    talk.step();
    assert_eq!(talk.station.machines[1].tx.waiting(), before, "a group that drains sends");
    after(&mut talk, Duration(MOVE_DRAIN_TIMEOUT.0 - 2 * A_BIT.0));
    assert_eq!((outcome(&mut talk), owner(&talk, group)), (None, vec![1]));
    after(&mut talk, Duration(4 * A_BIT.0));
    assert_eq!(outcome(&mut talk), Some((group, Status::TimedOut)));
    assert_eq!(events(&mut talk, 1), [Condition::GroupIn { group, life: 0 }]);
    assert_eq!(owner(&talk, group), [1]);
    // It can go when the device works.
    talk.station.machines[1].tx.stalled = false;
    wish(&mut talk, group, 0);
    talk.step();
    after(&mut talk, A_BIT);
    assert_eq!(outcome(&mut talk), Some((group, Status::Ok)));
}

#[test]
fn what_cannot_move_is_refused() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    let group = conn.group;
    wish(&mut talk, GroupId(8), 0);
    assert_eq!(outcome(&mut talk), Some((GroupId(8), Status::Invalid)));
    wish(&mut talk, group, 2);
    assert_eq!(outcome(&mut talk), Some((group, Status::Invalid)));
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, group, 0);
    talk.step();
    wish(&mut talk, group, 0);
    talk.step();
    assert_eq!(outcome(&mut talk), Some((group, Status::Again)), "it moves");
    script(&mut talk, 1).asleep = false;
    talk.step();
    after(&mut talk, A_BIT);
    assert_eq!(outcome(&mut talk), Some((group, Status::Ok)), "the first goes on");
}

/// Core 1 has been told to give the group to core 0, and does at its next iteration.
fn about_to_go(talk: &mut Talk, group: GroupId) {
    wish(talk, group, 0);
    for _ in 0..20 {
        if script(talk, 1).events.contains(&Condition::GroupOut { group, life: 0 }) {
            return;
        }
        run(talk, 0);
        run(talk, 1);
    }
    panic!("the application is not told");
}

#[test]
fn frames_that_come_directly_wait_for_those_that_the_old_owner_forwards() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    about_to_go(&mut talk, conn.group);
    let frame = data(&talk, &conn, 0, b"one");
    talk.give(frame);
    run(&mut talk, 0);
    run(&mut talk, 1);
    assert_eq!(owner(&talk, conn.group), [0; 0], "on its way");
    let frame = data(&talk, &conn, 3, b"three");
    talk.give(frame);
    run(&mut talk, 0);
    assert_eq!(talk.station.count(Counter::FramesHeld), 1);
    assert_eq!(lengths(&events(&mut talk, 0)), [3]);
    after(&mut talk, A_BIT);
    assert_eq!(lengths(&events(&mut talk, 0)), [5]);
    assert_eq!(talk.station.count(Counter::TcpOutOfOrder), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn frames_are_not_held_longer_than_the_last_word_may_take() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    about_to_go(&mut talk, conn.group);
    run(&mut talk, 1);
    run(&mut talk, 0);
    assert_eq!(owner(&talk, conn.group), [0]);
    let frame = data(&talk, &conn, 0, b"held");
    talk.give(frame);
    let mut passed = Duration(0);
    while passed.0 < MOVE_SETTLE_TIMEOUT.0 - A_BIT.0 {
        run(&mut talk, 0);
        assert_eq!(lengths(&events(&mut talk, 0)), [0; 0]);
        (talk.now, passed) = (talk.now + A_BIT, Duration(passed.0 + A_BIT.0));
    }
    assert_eq!(talk.station.count(Counter::FramesHeld), 1);
    for _ in 0..3 {
        talk.now = talk.now + A_BIT;
        run(&mut talk, 0);
    }
    assert_eq!(lengths(&events(&mut talk, 0)), [4]);
}

#[test]
fn a_frame_that_is_quicker_than_its_group_is_kept() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    // Frames wait at core 1, which takes one at a time and rings as it sends each buffer home.
    talk.station.engines[1].set_rx_batch(1);
    for _ in 0..8 {
        let frame = talk.frame(ACK, conn.seq, conn.ack, 8000, &[], &[]);
        talk.give(frame);
    }
    let frame = data(&talk, &conn, 0, b"early");
    talk.give(frame);
    run(&mut talk, 0);
    about_to_go(&mut talk, conn.group);
    talk.station.engines[1].set_rx_batch(64);
    // Core 1 hands over and forwards when core 0 has taken its messages and not yet its frames.
    let machine = talk.station.machines.remove(1);
    let engine = talk.station.engines.remove(1);
    let core_1 = Rc::new(RefCell::new((engine, machine)));
    let inside = Rc::clone(&core_1);
    let now = talk.now;
    talk.station.machines[0].rx[0].meanwhile = Some(Box::new(move || {
        let (engine, machine) = &mut *inside.borrow_mut();
        machine.now = now;
        run_once(engine, machine);
    }));
    run(&mut talk, 0);
    let Ok(core_1) = Rc::try_unwrap(core_1) else { panic!("it has run") };
    let (engine, machine) = core_1.into_inner();
    talk.station.engines.push(engine);
    talk.station.machines.push(machine);
    assert!(!talk.station.engines[0].is_settled(), "it keeps the frame");
    assert_eq!(owner(&talk, conn.group), [0; 0], "of which it has not heard");
    talk.step();
    after(&mut talk, A_BIT);
    assert_eq!(lengths(&events(&mut talk, 0)), [5]);
    assert_eq!(talk.station.count(Counter::TcpOutOfOrder), 0);
    talk.station.assert_buffers_conserved();
}

#[test]
fn a_frame_that_is_read_after_its_group_has_gone_for_good_follows_it() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    // Core 1 is so slow that it has not read all when it gives up flushing what is forwarded to it.
    talk.station.engines[1].set_rx_batch(1);
    for _ in 0..60 {
        let frame = talk.frame(ACK, conn.seq, conn.ack, 8000, &[], &[]);
        talk.give(frame);
    }
    let frame = data(&talk, &conn, 0, b"late");
    talk.give(frame);
    run(&mut talk, 0);
    about_to_go(&mut talk, conn.group);
    for _ in 0..6 {
        run(&mut talk, 1);
        run(&mut talk, 0);
        talk.now = talk.now + MOVE_SETTLE_TIMEOUT;
    }
    assert_eq!(owner(&talk, conn.group), [0]);
    assert_eq!(lengths(&events(&mut talk, 0)), [0; 0], "it waits at core 1");
    talk.station.engines[1].set_rx_batch(64);
    for _ in 0..4 {
        after(&mut talk, A_BIT);
    }
    assert_eq!(lengths(&events(&mut talk, 0)), [4]);
    assert!(talk.station.engines.iter().all(|engine| engine.is_settled()));
    talk.station.assert_buffers_conserved();
}

#[test]
fn an_application_that_ends_while_a_group_is_under_way_leaves_nothing() {
    let mut talk = talk();
    let conn = open(&mut talk, 1);
    let piece = SgEntry { addr: HEAP_BASE, len: 100 };
    call(&mut talk, 1, &[Call::sendv(conn.handle, 1, piece, SgEntry::default())]);
    assert!(talk.station.memory.pins_total() > 0);
    about_to_go(&mut talk, conn.group);
    run(&mut talk, 1);
    assert_eq!(owner(&talk, conn.group), [0; 0], "on its way");
    talk.sent();
    for core in [0, 1] {
        talk.station.machines[core].app = None;
        talk.station.engines[core].detach_app();
    }
    assert_eq!(talk.station.engines[1].drain(), Drain::Pending);
    talk.step();
    after(&mut talk, A_BIT);
    for core in [0, 1] {
        assert_eq!(talk.station.engines[core].drain(), Drain::Done);
    }
    assert!(talk.sent().iter().any(|segment| segment.flags & RST != 0));
    talk.station.assert_all_quiet();
}

#[test]
fn the_next_application_is_told_again_of_a_group_that_was_leaving() {
    let mut talk = talk();
    let group = open(&mut talk, 1).group;
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, group, 0);
    talk.step();
    for core in [0, 1] {
        talk.station.engines[core].detach_app();
    }
    let scripts = |_| Box::new(Script::default()) as Box<dyn App>;
    talk.station.start((0..2).map(scripts).collect());
    talk.step();
    let told = events(&mut talk, 1);
    let at = |wanted| told.iter().position(|event| *event == wanted);
    let (came, left) =
        (at(Condition::GroupIn { group, life: 0 }), at(Condition::GroupOut { group, life: 0 }));
    assert!(came.is_some() && came < left, "{told:?}");
    after(&mut talk, A_BIT);
    assert_eq!(outcome(&mut talk), Some((group, Status::Ok)));
    assert!(events(&mut talk, 0).contains(&Condition::GroupIn { group, life: 0 }));
}

#[test]
fn new_connections_keep_off_a_group_that_leaves() {
    let mut talk = talk();
    let group = open(&mut talk, 1).group;
    script(&mut talk, 1).asleep = true;
    wish(&mut talk, group, 0);
    talk.step();
    let to = talk.host(80);
    let calls: Vec<_> = (0..40).map(|i| Call::connect(Cookie(i), to).with_result(i)).collect();
    call(&mut talk, 1, &calls);
    script(&mut talk, 1).asleep = false;
    talk.step();
    let told = events(&mut talk, 1);
    let mut groups = Vec::new();
    for event in &told {
        if let Condition::Result { op, status: Status::Ok, handle, .. } = event
            && *op == Op::Connect.0
        {
            groups.push(handle.group());
        }
    }
    assert_eq!(groups.len(), 40, "{told:?}");
    assert!(!groups.contains(&group), "{groups:?}");
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), 3, "all others of the core are used");
}

/// Each core asks for addresses by itself: what a connection waits for is asked for anew where it goes.
#[test]
fn who_waits_for_an_address_does_not_wait_longer_for_a_move() {
    let mut talk = talk();
    talk.deaf = true;
    let to = talk.host(80);
    call(&mut talk, 1, &[Call::connect(Cookie(1), to).with_result(1)]);
    let opened = |event: &Condition| match event {
        Condition::Result { status: Status::Ok, handle, .. } => Some(*handle),
        _ => None,
    };
    let handle = events(&mut talk, 1).iter().find_map(opened).expect("it is under way");
    talk.nothing();
    talk.deaf = false;
    wish(&mut talk, handle.group(), 0);
    after(&mut talk, A_BIT);
    assert_eq!(owner(&talk, handle.group()), [0]);
    assert_eq!(talk.one().flags & (SYN | ACK), SYN);
    // Both know now: the answer comes to who has asked first, too.
    talk.pass(Duration::from_ms(500));
    talk.nothing();
}
