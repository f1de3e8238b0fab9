//! Cores that leave and return: what becomes of their connections, of everybody else's, and of who waits.
//! Core 0 alone has a receive queue (but for [`with_queues`]); the other two get their frames through it.
mod answers;
mod asked;
mod forced;
mod moves;
mod queues;

use crate::support::nic::Rx;
use crate::support::talk::{ACK, PSH, SYN, Script, Talk, any};
use ix_abi::call::Call;
use ix_abi::stats::Counter;
use ix_abi::{Condition, Cookie, CoreId, DeadReason, GroupId, Handle, Op, Status};
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

/// As [`talk`], with a device that has an indirection table, and more buffers than a group that moves may hold.
fn talk_with_table() -> Talk {
    let mut talk = Talk::new(|setup| {
        setup.cores = CORES as u16;
        setup.buffers = 2048;
        setup.configure = |config| config.capabilities.rss = true;
    });
    call(&mut talk, 0, &[Call::listen(any(7), 64)]);
    all_events(&mut talk);
    talk
}

/// Cores 1 and 2 have queues of their own.
fn with_queues(talk: &mut Talk) {
    let area = talk.station.area;
    for core in [1, 2] {
        talk.station.machines[core].rx.push(Rx::new(area, 64));
    }
    talk.step();
}

/// The device does all that it is told.
fn redirect(talk: &mut Talk) {
    while talk.station.engines[0].redirect().is_some() {
        talk.station.engines[0].redirected();
    }
}

/// One iteration of one core.
fn run(talk: &mut Talk, core: usize) {
    let machine = &mut talk.station.machines[core];
    machine.now = talk.now;
    run_once(&mut talk.station.engines[core], machine);
    machine.tx.work();
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
