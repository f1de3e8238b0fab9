//! One run: stations, network and clock, from a seed to its end.
use super::asks;
use super::book::{SharedBook, Side, Talk, Weather};
use super::faults;
use super::machine::Machine;
use super::net::{DONE, Network, StationId};
use super::peer::Peer;
use super::referee::ACK_MAX;
use super::swarm::{self, Swarm};
use super::{S, Time};
use ix_dataplane::rng::Rng;

/// How long after the network has healed nothing may happen in any conversation. (smoltcp sends
/// whole windows again after up to 60 s each time: this is no bound on how long it all takes.)
const LIVENESS: Time = 200 * S;
/// Steps after which a run is said not to end.
const STEPS_MAX: u64 = 12_000_000;

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Conversations.
    pub talks: usize,
    /// Bytes that were read, and checked.
    pub bytes: u64,
    /// Virtual time.
    pub time: Time,
    /// Steps of the world.
    pub steps: u64,
    /// Conversations that a defect of smoltcp cut short.
    pub excused: usize,
    /// What the network did to frames, see [`Network::done`].
    pub faults: [u64; DONE],
    /// Flow groups that have moved.
    pub moved: u64,
    /// How often a core that was behind has called another.
    pub calls: u64,
    /// Applications that were restarted.
    pub restarts: usize,
    /// Cores that have left, and that were stopped.
    pub lent: (u64, u64),
    /// Datagrams that have come.
    pub datagrams: usize,
    /// Calls that asked or answered and were looked at, and how often a connection was folded then.
    pub folded: (u64, u64),
    /// What was made to fail inside, see [`faults::Kind`].
    pub struck: [u64; faults::KINDS],
    /// Of all frames and their times: two runs with the same are the same.
    pub digest: u64,
}

struct World {
    now: Time,
    book: SharedBook,
    network: Network,
    machines: Vec<Machine>,
    peers: Vec<(StationId, Peer)>,
    talks: Vec<(Time, Talk)>,
    /// What a machine has sent in this step.
    frames: Vec<Vec<u8>>,
    report: Report,
}

/// Runs a seed in which every dataplane has eight cores, and flow groups move between them all the time.
pub fn run_moving(seed: u64) -> Report {
    let mut rng = Rng::from_seed(seed);
    let mut swarm = swarm::draw(&mut rng, true);
    for machine in &mut swarm.machines {
        machine.cores = 8;
        machine.queues = 1 + rng.below(8) as u16;
        machine.groups = machine.groups.max(8);
        machine.moves = 64;
        if rng.chance(1, 2) {
            // Cores are behind only if something else has them now and then.
            (machine.grants, machine.stalls) = (64, 16);
        }
        (machine.lends, machine.takes) = [(0, 0), (64, 0), (16, 16)][rng.below(3) as usize];
    }
    faults::begin(None, 0);
    run_swarm(swarm, rng)
}

/// Runs a seed of which most conversations are of requests and answers.
pub fn run_asking(seed: u64) -> Report {
    let mut rng = Rng::from_seed(seed);
    let mut swarm = swarm::draw(&mut rng, true);
    asks::draw(&mut swarm, &mut rng);
    faults::begin(None, 0);
    run_swarm(swarm, rng)
}

/// Runs a seed; panics at the first thing that must not be. Without `machines`, peers only.
pub fn run(seed: u64, machines: bool) -> Report {
    let mut rng = Rng::from_seed(seed);
    let swarm = swarm::draw(&mut rng, machines);
    faults::begin(None, 0);
    run_swarm(swarm, rng)
}

/// Runs a seed with scarcity inside ([`faults`]).
pub fn run_scarce(seed: u64) -> Report {
    let mut rng = Rng::from_seed(seed);
    let mut swarm = swarm::draw(&mut rng, true);
    let plan = faults::draw(&mut swarm, &mut rng);
    faults::begin(Some(plan), rng.next_u64());
    let report = run_swarm(swarm, rng);
    faults::begin(None, 0);
    report
}

/// One conversation of a run that was only watched.
#[derive(Clone, Debug)]
pub struct Watched {
    /// Which.
    pub talk: Talk,
    /// When the acceptor had read everything.
    pub complete_at: Option<Time>,
    /// What it had read at each mark.
    pub received: Vec<u64>,
}

/// Runs a swarm until it is over, or until the last of `marks`, and tells how its conversations did,
/// in the order of their beginnings, what was done to frames, and how many bytes were sent again.
pub fn watch(swarm: Swarm, rng: Rng, marks: &[Time]) -> (Vec<Watched>, [u64; DONE], u64) {
    faults::begin(None, 0);
    let mut world = World::new(swarm, rng);
    let received = |world: &World| {
        let book = world.book.borrow();
        let of = |entry: &super::book::Entry| entry.sides[Side::Acceptor as usize].received;
        book.entries().map(of).collect::<Vec<_>>()
    };
    let mut at_marks = Vec::new();
    for mark in marks {
        while world.next_time() <= *mark {
            world.step();
        }
        at_marks.push(received(&world));
    }
    while marks.is_empty() && !world.book.borrow().is_done() {
        world.step();
    }
    let book = world.book.borrow();
    let watched = book.entries().enumerate().map(|(at, entry)| Watched {
        talk: entry.talk.clone(),
        complete_at: entry.sides[Side::Acceptor as usize].complete_at,
        received: at_marks.iter().map(|mark| mark[at]).collect(),
    });
    let mut watched: Vec<_> = watched.collect();
    watched.sort_by_key(|watched| watched.talk.start);
    (watched, world.network.done, world.network.referee.sent_again)
}

fn run_swarm(swarm: Swarm, rng: Rng) -> Report {
    if std::env::var_os("IX_SIM_TRACE").is_some() {
        eprintln!("{swarm:#?}");
    }
    let weather = swarm.weather;
    let scaled = swarm.peers.iter().any(|peer| peer.rx_buffer > 65_535);
    let heals = swarm.faults.healed_at;
    let mut world = World::new(swarm, rng);
    let (mut looked_at, mut progress_at, mut last_progress) = (0, 0, 0);
    while !world.is_over() {
        world.step();
        if world.report.steps > STEPS_MAX {
            world.dump();
            panic!("no end after {STEPS_MAX} steps, at {} ns", world.now);
        }
        if world.now > looked_at + 10 * S {
            looked_at = world.now;
            let progress = world.book.borrow().progress();
            if std::mem::replace(&mut last_progress, progress) != progress {
                progress_at = world.now;
            }
        }
        if world.now > progress_at.max(heals) + LIVENESS {
            world.dump();
            panic!("not over in time: {:#x?}", world.book.borrow().unfinished());
        }
    }
    if std::env::var_os("IX_SIM_TRACE").is_some() {
        world.dump();
    }
    // Gauges are published now and then, buffers still go home, and datagrams still come.
    world.machines.iter_mut().for_each(Machine::retire);
    let end = world.now + 5 * S;
    while (world.now < end || !world.is_over()) && !world.machines.is_empty() {
        world.step();
        assert!(world.now < end + LIVENESS, "no rest");
    }
    // Idle cores publish when they wake up, the laziest after a second; one may have come back just now.
    let published = world.now + S + S / 100;
    while world.now < published && !world.machines.is_empty() {
        world.step();
    }
    world.machines.iter().for_each(Machine::check_conservation);
    let book = world.book.borrow();
    let aborts = book.entries().any(|entry| entry.talk.abort.is_some());
    // smoltcp rounds a scaled window up, and then has no room for the last bytes of it.
    let short = scaled || faults::planned() || world.machines.iter().any(Machine::was_short);
    let undisturbed = !aborts && book.rejected.is_empty() && book.restarts.is_empty();
    let undisturbed = undisturbed && book.taken.is_empty();
    if weather == Weather::Clean && undisturbed && !short {
        let referee = &world.network.referee;
        let calm = |machine: &Machine| machine.check_calm(referee.syns_unheard(machine.id));
        let probes: u64 = world.machines.iter().map(calm).sum();
        let again = referee.sent_again;
        assert!(again <= probes * 1460, "{again} bytes sent again, and nothing was lost");
        let owed = referee.longest_owed;
        assert!(owed < ACK_MAX, "data was not acknowledged for {owed} ns");
        // smoltcp's answers may find no room.
        let must_come = |from: StationId| from.0 < book.machines;
        let mut letters = book.datagrams.iter();
        let missing = letters.find(|(_, d)| must_come(d.from) && d.awaited && d.arrived != 1);
        assert!(missing.is_none(), "a datagram came not once: {missing:?}");
    }
    drop(book);
    world.report.excused = world.book.borrow().check_ends(weather);
    world.report()
}

impl World {
    fn new(swarm: Swarm, mut rng: Rng) -> World {
        let book = SharedBook::default();
        let first = swarm.machines.len();
        let stations = first + swarm.peers.len();
        let network = Network::new(swarm.faults, stations as u8, first as u8, rng.fork());
        book.borrow_mut().machines = first as u8;
        book.borrow_mut().stations = stations as u8;
        let mut talks = swarm.talks;
        talks.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (_, talk) in &talks {
            book.borrow_mut().plan(talk.clone());
        }
        let peers = (first..).map(|n| StationId(n as u8)).zip(swarm.peers);
        let peers =
            peers.map(|(id, draw)| (id, Peer::new(id, draw, book.clone(), rng.fork()))).collect();
        let machines = (0..).map(StationId).zip(swarm.machines).map(|(id, draw)| {
            let ours = talks.iter().filter(|(_, talk)| talk.opener == id).cloned().collect();
            Machine::new(id, draw, book.clone(), ours, rng.fork())
        });
        let machines: Vec<_> = machines.collect();
        talks.retain(|(_, talk)| usize::from(talk.opener.0) >= first);
        let (frames, report) = (Vec::new(), Report::default());
        World { now: 0, book, network, machines, peers, talks, frames, report }
    }

    fn dump(&self) {
        self.machines.iter().for_each(Machine::dump);
        self.peers.iter().for_each(|(_, peer)| peer.dump());
    }

    fn is_over(&self) -> bool {
        self.talks.is_empty()
            && self.machines.iter().all(Machine::is_idle)
            && self.book.borrow().is_done()
            && self.peers.iter().all(|(_, peer)| peer.connections() == 0)
    }

    fn step(&mut self) {
        self.report.steps += 1;
        self.now = self.next_time();
        self.book.borrow_mut().now = self.now;
        while let Some((to, frame)) = self.network.arrived(self.now) {
            if let Some(machine) = self.machines.get_mut(usize::from(to.0)) {
                machine.receive(&frame, self.now);
            } else if let Some((_, peer)) = self.peers.iter_mut().find(|(id, _)| *id == to) {
                peer.receive(frame, self.now);
            }
        }
        while self.talks.last().is_some_and(|(at, _)| *at <= self.now) {
            let (_, talk) = self.talks.pop().expect("just seen");
            if let Some((_, peer)) = self.peers.iter_mut().find(|(id, _)| *id == talk.opener) {
                peer.open(talk, self.now);
            }
        }
        for machine in &mut self.machines {
            if machine.next_run() <= self.now {
                machine.run(self.now, &mut self.frames);
                for frame in self.frames.drain(..) {
                    self.network.send(machine.id, &frame, self.now);
                }
            }
        }
        for (id, peer) in &mut self.peers {
            if peer.next_run() <= self.now {
                peer.run(self.now);
            }
            while let Some(frame) = peer.transmitted() {
                self.network.send(*id, &frame, self.now);
            }
        }
    }

    /// The next time at which anything happens.
    fn next_time(&self) -> Time {
        let mut next = self.network.next_arrival().unwrap_or(Time::MAX);
        if let Some((at, _)) = self.talks.last() {
            next = next.min(*at);
        }
        for machine in &self.machines {
            next = next.min(machine.next_run());
        }
        for (_, peer) in &self.peers {
            next = next.min(peer.next_run());
        }
        assert_ne!(next, Time::MAX, "nothing will ever happen again");
        next.max(self.now)
    }

    fn report(mut self) -> Report {
        let book = self.book.borrow();
        self.report.talks = book.entries().count();
        self.report.bytes =
            book.entries().flat_map(|entry| &entry.sides).map(|side| side.received).sum();
        self.report.time = self.now;
        self.report.faults = self.network.done;
        self.report.digest = self.network.digest;
        self.report.moved = self.machines.iter().map(Machine::moved).sum();
        self.report.calls = self.machines.iter().map(Machine::calls).sum();
        let lent = self.machines.iter().map(Machine::lent);
        let folded = self.machines.iter().map(Machine::folded);
        self.report.folded = folded.fold((0, 0), |(a, b), (looked, found)| (a + looked, b + found));
        self.report.lent = lent.fold((0, 0), |(a, b), (left, taken)| (a + left, b + taken));
        self.report.restarts = book.restarts.len();
        self.report.datagrams = book.datagrams.values().filter(|d| d.arrived > 0).count();
        self.report.struck = faults::done();
        self.report.clone()
    }
}
