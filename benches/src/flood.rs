//! A flood of SYNs from made-up addresses, while established connections talk.
use crate::app::{self, Server as AppServer};
use crate::clients::Clients;
use crate::echo::MESSAGE;
use crate::heap;
use crate::say;
use crate::server::Server;
use crate::server::engine::{EngineServer, Setup};
use crate::wire::{self, ACK, PSH, SYN, Segment};
use ix_abi::stats::Counter;
use ix_dataplane::rng::Rng;

/// SYNs in a turn.
const SYNS: usize = 60;
/// The listener's backlog: what a flood may take before cookies are sent.
const BACKLOG: u32 = 1024;
/// Time between turns.
const TURN_NS: u64 = 60_000;
/// Every so many turns a new client connects.
const NEW_EVERY: usize = 1024;
/// Turns that an answer may take.
const PATIENCE: usize = 4096;

/// What a flood did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// SYNs that came.
    pub syns: usize,
    /// What strangers were sent.
    pub answers: u64,
    /// Requests of established connections, all answered.
    pub requests: usize,
    /// New clients that connected and were served meanwhile.
    pub newcomers: usize,
    /// Bytes that the engine had taken before, that it took until a tenth of the flood was over, and after that.
    pub bytes: [i64; 3],
    /// Connections of the engine's at the end, half-open ones included.
    pub connections: u64,
}

impl Found {
    /// Prints it.
    pub fn print(&self) {
        let Found { syns, answers, requests, newcomers, bytes, connections } = self;
        let [before, first, rest] = bytes;
        say!("spoofed SYNs: {syns}");
        say!("  answered to strangers: {answers}");
        say!("  requests of established connections answered, none lost: {requests}");
        say!("  newcomers served: {newcomers}");
        say!("  connections at the end, half-open ones included: {connections}");
        say!("  bytes allocated before: {before}");
        say!("  more during the first tenth: {first}");
        say!("  after that: {rest}");
    }
}

/// `established` connections talk, `syns` SYNs come.
pub fn run(established: usize, syns: usize) -> Found {
    let turns = syns.div_ceil(SYNS);
    let newcomers = turns / NEW_EVERY;
    let mut clients = Clients::new(established + newcomers + 1);
    let before = heap::live();
    let setup =
        Setup { connections: established, buffers: 8192, offload: false, tso: false, batch: 64 };
    let mut server =
        EngineServer::new(setup, app::Echo(AppServer { backlog: BACKLOG, ..AppServer::default() }));
    let mut flood = Flood { server: &mut server, clients: &mut clients, rng: Rng::from_seed(4) };
    flood.clients.open_first(flood.server, established);
    for i in 0..established {
        flood.ask(i);
    }
    let mut found = Found::default();
    found.bytes[0] = heap::live() - before;
    let mut next = established;
    for turn in 0..turns {
        for _ in 0..SYNS {
            flood.spoof();
        }
        found.syns += SYNS;
        flood.ask(turn % next);
        found.requests += 1;
        if turn % NEW_EVERY == NEW_EVERY / 2 && next < established + newcomers {
            flood.connect(next);
            next += 1;
            found.newcomers += 1;
        }
        if turn == turns / 10 {
            found.bytes[1] = heap::live() - before - found.bytes[0];
        }
    }
    found.bytes[2] = heap::live() - before - found.bytes[0] - found.bytes[1];
    // Nobody was lost.
    for i in 0..next {
        flood.ask(i);
    }
    found.answers = flood.clients.strangers;
    found.connections = server.stats().get(Counter::TcpConnections);
    assert_eq!(server.app().0.dead, 0, "nothing established ended");
    found
}

struct Flood<'a> {
    server: &'a mut EngineServer<app::Echo>,
    clients: &'a mut Clients,
    rng: Rng,
}

impl Flood<'_> {
    /// A SYN from somewhere in 20.0.0.0/6, which never answers.
    fn spoof(&mut self) {
        let random = self.rng.next_u64();
        let ip = (20 << 24 | random as u32 & 0x03ff_ffff).to_be_bytes();
        let options = wire::syn_options(1460, 7, random as u32);
        let segment = Segment {
            from: (ip, (random >> 32) as u16 | 1024),
            port: app::PORT,
            seq: (random >> 20) as u32,
            flags: SYN,
            window: u16::MAX,
            options: &options,
            ..Segment::default()
        };
        self.server.deliver(usize::MAX, &mut |frame| segment.write(frame));
    }

    fn turn(&mut self) -> (usize, usize) {
        self.server.pass_ns(TURN_NS);
        self.server.turn();
        let (mut bytes, mut syns) = (0, 0);
        self.clients.receive(self.server, |_, _, _, answer| {
            bytes += answer.payload;
            syns += usize::from(answer.flags & SYN != 0);
        });
        (bytes, syns)
    }

    /// Client `i` gets its answer, and acknowledges it.
    fn ask(&mut self, i: usize) {
        self.clients.send(self.server, i, ACK | PSH, MESSAGE);
        let answered = (0..PATIENCE).any(|_| self.turn().0 == MESSAGE);
        assert!(answered, "client {i}: no answer: {}", self.server.explain());
        self.clients.send(self.server, i, ACK, 0);
    }

    /// Client `i` connects and is served.
    fn connect(&mut self, i: usize) {
        self.clients.send(self.server, i, SYN, 0);
        let answered = (0..PATIENCE).any(|_| self.turn().1 == 1);
        assert!(answered, "client {i} cannot connect: {}", self.server.explain());
        self.clients.send(self.server, i, ACK, 0);
        self.ask(i);
    }
}
