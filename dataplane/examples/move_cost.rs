//! What it costs to move a flow group, on both cores together: from the wish until both are settled, loops and
//! application included. `move_cost.sh` has callgrind count it.
//!
//! ```text
//! move_cost CONNECTIONS [full]
//! ```
//! CONNECTIONS are in the group that moves; `full`: as many in each other group.
#[path = "../tests/support/mod.rs"]
mod support;

use ix_abi::{Call, Condition, Cookie, CoreId, GroupId};
use ix_dataplane::rss::{Toeplitz, group_of};
use ix_dataplane::time::{Duration, Instant};
use support::app::{App, Context};
use support::station::Station;
use support::talk::{ACK, SYN, Talk, any};

const GROUPS: u16 = 8;
const MOVED: GroupId = GroupId(1);

/// Accepts.
struct Server {
    listens: bool,
    accepted: u32,
}

impl App for Server {
    fn run(&mut self, context: &mut Context) {
        if std::mem::take(&mut self.listens) {
            context.call(Call::listen(any(7), 65_536));
        }
        for event in context.events() {
            if let Condition::Knock { handle, .. } = event {
                self.accepted += 1;
                context.call(Call::accept(handle, Cookie(0)));
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// An iteration of each core; core 0 answers for the device.
fn turn(station: &mut Station, now: Instant) {
    station.step(now);
    if station.engines[0].redirect().is_some() {
        station.engines[0].redirected();
    }
}

/// What callgrind collects, under a name that it finds.
#[inline(never)]
fn measured(station: &mut Station, now: Instant) {
    turn(station, now);
}

fn is_over(station: &Station) -> bool {
    station.engines.iter().all(|engine| engine.is_settled())
}

fn move_group(talk: &mut Talk, to: u16, turn: fn(&mut Station, Instant)) -> u32 {
    let station = &mut talk.station;
    station.engines[0].move_group(MOVED, CoreId(to));
    let mut turns = 0;
    while turns < 2 || !is_over(station) {
        talk.now = talk.now + Duration(1000);
        turn(station, talk.now);
        turns += 1;
    }
    assert!(station.engines[usize::from(to)].owns(MOVED), "it has moved");
    turns
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let connections: u32 = args.first().map_or(0, |arg| arg.parse().expect("a number"));
    let full = args.get(1).is_some_and(|arg| arg == "full");
    let mut talk = Talk::new(|setup| {
        (setup.cores, setup.groups, setup.connections) = (2, GROUPS, 8192);
        setup.configure = |config| config.capabilities.rss = true;
    });
    for core in 0..2 {
        let server = Server { listens: core == 0, accepted: 0 };
        talk.station.machines[core].app = Some(Box::new(server));
        talk.station.engines[core].tell_parking();
    }
    talk.step();
    let key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
    let toeplitz = Toeplitz::new(&key);
    let mut open = [0; GROUPS as usize];
    for port in 1024.. {
        let group = group_of(toeplitz.hash_v4(talk.ip, [10, 0, 0, 1], port, 7), GROUPS);
        let here = &mut open[usize::from(group.0)];
        if *here == connections || !full && group != MOVED {
            if open[usize::from(MOVED.0)] == connections
                && (!full || open.iter().all(|n| *n == connections))
            {
                break;
            }
            continue;
        }
        *here += 1;
        talk.port = port;
        talk.send(SYN, 100, 0, 8000, &[]);
        let ack = talk.one().seq.wrapping_add(1);
        talk.send(ACK, 101, ack, 8000, &[]);
        talk.sent();
    }
    let accepted: u32 = (0..2).map(|core| talk.station.app::<Server>(core).accepted).sum();
    assert_eq!(accepted, open.iter().sum::<u32>());
    // Warm: what a move allocates is there.
    for to in [0, 1] {
        move_group(&mut talk, to, turn);
    }
    let turns = move_group(&mut talk, 0, measured);
    println!(
        "{accepted} connections, {connections} of them in the group: {turns} iterations of each core"
    );
}
