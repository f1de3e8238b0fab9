//! All cores, the load, and a daemon that looks at them: everything in simulated time, from one seed.
//!
//! Cores touch each other only through moves, and those happen at the ends of slices of 50 µs: within a slice each core is
//! simulated by itself.
use super::curve::Curve;
use super::hist::Hist;
use super::node::{Node, Now, Waiting};
use super::power::Power;
use super::report::{Event, Point, Report, Totals, What};
use super::rng::Rng;
use super::service::Service;
use crate::daemon::{limits, reader};
use crate::policy::{Config, CoreLoad, Governor, Kind, Sample, Step};
use ix_kernel_core::demand::{Demand, Figures, Seen};
use ix_kernel_core::spread;

/// Time within which cores do not see each other, ns.
const SLICE: u64 = 50_000;
/// How often the load changes; also how often the kernel looks at its control page.
const TICK: u64 = 1_000_000;
/// Time to a point of the plots.
const POINT: u64 = 100_000_000;
/// Giving CPUs to a job and taking them back, ns: a few system calls. An assumption.
const LEND: u64 = 1_000_000;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The policy and its rules.
    pub config: Config,
    /// The load.
    pub curve: Curve,
    /// Cores of the dataplane.
    pub cores: u32,
    /// Flow groups.
    pub groups: u16,
    /// Connections that all send as much; a hash spreads them over the groups.
    pub connections: u32,
    /// Frames in a batch at most.
    pub batch: usize,
    /// Frames in a receive ring at most.
    pub ring: usize,
    /// What requests cost.
    pub service: Service,
    /// What cores draw.
    pub power: Power,
    /// Frequencies that there are, as shares of the highest.
    pub frequencies: Vec<f64>,
    /// The peak, requests per second; `None`: that at which the busiest core, with all serving, has `full`.
    pub peak_rps: Option<f64>,
    /// Share of a core's most that it has at the peak.
    pub full: f64,
    /// From which everything random comes.
    pub seed: u64,
}

impl Setup {
    /// The usual things around a policy and a load.
    pub fn new(config: Config, curve: Curve) -> Setup {
        let peak_rps = curve.peak_rps;
        Setup {
            config,
            curve,
            cores: 8,
            groups: 128,
            connections: 2_000,
            batch: 64,
            ring: 1_024,
            service: Service::default(),
            power: Power::default(),
            // 1.2 to 2.4 GHz, as the processor of IX's authors.
            frequencies: (6..=12).map(|step| f64::from(step) / 12.0).collect(),
            peak_rps,
            full: 0.93,
            seed: 1,
        }
    }
}

/// Runs it from the beginning to the end.
pub fn run(setup: &Setup) -> Report {
    run_with(setup, &mut |_| {})
}

/// The same, and tells after each tenth of a simulated second which share is done.
pub fn run_with(setup: &Setup, progress: &mut dyn FnMut(f64)) -> Report {
    let mut world = World::new(setup);
    let slices = (setup.curve.seconds() * 1e9 / SLICE as f64).round() as u64;
    for slice in 0..slices {
        world.slice(slice * SLICE);
        if slice % (POINT / SLICE) == 0 {
            progress(slice as f64 / slices as f64);
        }
    }
    world.report()
}

struct World<'a> {
    setup: &'a Setup,
    nodes: Vec<Node>,
    /// Each flow group's share of the load.
    shares: Vec<f64>,
    owners: Vec<u16>,
    peak: f64,
    governor: Governor,
    demand: Demand,
    /// Cores that may serve before the daemon is asked.
    granted: u32,
    /// What is in force.
    step: Step,
    /// What is to be, and when.
    due: Option<(u64, Step)>,
    /// CPUs that the job has, and from when on it has another number.
    lent: u32,
    lend: Option<(u64, u32)>,
    last_look: u64,
    all: Hist,
    point: Hist,
    totals: Totals,
    points: Vec<Point>,
    events: Vec<Event>,
}

impl<'a> World<'a> {
    fn new(setup: &'a Setup) -> World<'a> {
        let mut rng = Rng::new(setup.seed);
        let mut shares = vec![0.0; usize::from(setup.groups.max(1))];
        let one = 1.0 / f64::from(setup.connections.max(1));
        for _ in 0..setup.connections.max(1) {
            shares[rng.below(u64::from(setup.groups.max(1))) as usize] += one;
        }
        let cores = setup.cores.clamp(1, 64);
        let nodes: Vec<Node> = (0..cores).map(|_| Node::new(rng.draw())).collect();
        let mut governor = Governor::new(&setup.config, cores, &setup.frequencies);
        // It has been quiet before: the policy is where that leaves it. The static one has what it has.
        let first = match setup.config.policy {
            Kind::Static => governor.step(),
            _ => governor.lowest(),
        };
        governor.begin(first);
        let mut world = World {
            setup,
            nodes,
            owners: (0..shares.len()).map(|group| (group % cores as usize) as u16).collect(),
            peak: 0.0,
            shares,
            demand: Demand::new(cores as u16),
            granted: governor.authorised(),
            governor,
            step: Step { cores, frequency: 1.0 },
            due: None,
            lent: 0,
            lend: None,
            last_look: 0,
            all: Hist::default(),
            point: Hist::default(),
            totals: Totals::default(),
            points: Vec::new(),
            events: Vec::new(),
        };
        world.peak = setup.peak_rps.unwrap_or_else(|| {
            let most = (0..cores).map(|core| world.share(core as u16)).fold(0.0, f64::max);
            setup.full * setup.service.most_per_core() / most
        });
        world.apply(0, first);
        world.nodes.iter_mut().for_each(|node| node.free_at = 0);
        world.totals = Totals::default();
        world.lent = world.idle_cores();
        world
    }

    fn share(&self, core: u16) -> f64 {
        self.owners.iter().zip(&self.shares).filter(|(o, _)| **o == core).map(|(_, s)| s).sum()
    }

    fn idle_cores(&self) -> u32 {
        self.nodes.iter().filter(|n| !n.serves).count() as u32
    }

    fn serving(&self) -> u32 {
        self.nodes.len() as u32 - self.idle_cores()
    }

    fn rps(&self, t: u64) -> f64 {
        self.setup.curve.at(t as f64 / 1e9) * self.peak
    }

    fn slice(&mut self, t: u64) {
        if t.is_multiple_of(TICK) {
            if let Some((_, step)) = self.due.take_if(|(at, _)| *at <= t) {
                self.apply(t, step);
            }
            if let Some((_, cores)) = self.lend.take_if(|(at, _)| *at <= t) {
                self.lent = cores;
            }
            let rps = self.rps(t);
            self.nodes.iter_mut().for_each(|node| node.scale(t, rps));
        }
        let now = Now {
            until: t + SLICE,
            frequency: self.step.frequency,
            batch: self.setup.batch.max(1),
            ring: self.setup.ring,
            congested: self.setup.config.rules().wake_delay_us,
        };
        for node in self.nodes.iter_mut().filter(|n| n.serves) {
            node.run(&now, &self.setup.service);
        }
        self.wake(now.until);
        self.account();
        if now.until.is_multiple_of(self.setup.config.interval_ms * 1_000_000) {
            self.look(now.until);
        }
        if now.until.is_multiple_of(POINT) {
            self.plot(now.until);
        }
    }

    /// The dataplane's own fast path: a congested core wakes one that was granted and gives it half of its load.
    fn wake(&mut self, now: u64) {
        let most = self.granted.min(self.nodes.len() as u32);
        let after = (self.setup.config.rules().wake_after_us * 1e3) as u64;
        let congested = |n: &Node| n.congested_since.is_some_and(|since| now >= since + after);
        if self.setup.config.policy == Kind::Static || self.serving() >= most {
            return;
        }
        let Some(from) = self.nodes.iter().position(|n| n.serves && congested(n)) else { return };
        let Some(to) = self.nodes.iter().position(|n| !n.serves) else { return };
        self.unpark(to, now);
        let (mut left, half) = (self.share(from as u16), self.share(from as u16) / 2.0);
        for group in 0..self.owners.len() {
            if usize::from(self.owners[group]) == from && left - self.shares[group] >= half {
                left -= self.shares[group];
                self.hand_over(group, to, now);
            }
        }
        self.totals.wakes += 1;
        self.step.cores = self.serving();
        self.spread_load(now);
        self.events.push(Event { seconds: now as f64 / 1e9, what: What::Woken(self.serving()) });
    }

    /// The daemon looks.
    fn look(&mut self, now: u64) {
        let window = (now - self.last_look) as f64;
        self.last_look = now;
        let now_ms = now / TICK;
        let cores: Vec<CoreLoad> =
            self.nodes.iter_mut().map(|n| n.look(window, &mut self.point)).collect();
        let wants = Some(self.demand(now, &cores));
        let Some(change) = self.governor.decide(&Sample { now_ms, cores, wants }) else {
            return;
        };
        let up = change.to.cores > change.from.cores;
        let lends = self.setup.config.policy == Kind::Background;
        let idle = self.nodes.len() as u32 - change.to.cores;
        // A CPU is taken from the job before the core runs, and given to it after the core is parked.
        let due = now + TICK + if lends && up { LEND } else { 0 };
        if up {
            self.lent = self.lent.min(idle);
            self.lend = None;
            self.totals.ups += 1;
        } else {
            self.lend = Some((due + LEND, idle));
            self.totals.downs += 1;
        }
        self.due = Some((due, change.to));
        self.events.push(Event { seconds: now as f64 / 1e9, what: What::Change(change) });
    }

    /// What the dataplane wants: the kernel's own code decides, within the limits that the daemon gives it.
    fn demand(&mut self, now: u64, cores: &[CoreLoad]) -> u32 {
        let active = cores.iter().enumerate().filter(|(_, c)| c.serves);
        let active = active.fold(0, |set, (core, _)| set | 1 << core);
        let limits =
            limits::limits(&self.setup.config, cores.len(), active, self.governor.authorised());
        if *self.demand.limits() != limits {
            self.demand.set_limits(limits);
        }
        let seen = |c: &CoreLoad| Seen {
            busy_permille: (c.busy * 1e3) as u64,
            delay_p99_ns: (c.delay_p99_us * 1e3) as u64,
            depth_max: c.queue as u64,
            frames: 0,
        };
        let seen = Figures::of(cores.iter().filter(|c| c.serves).map(seen));
        self.demand.look(now, &seen);
        u32::from(self.demand.want().0.cores)
    }

    fn apply(&mut self, now: u64, step: Step) {
        let cores = (step.cores.max(1) as usize).min(self.nodes.len());
        self.step = Step { cores: cores as u32, ..step };
        for core in 0..cores {
            if !self.nodes[core].serves {
                self.unpark(core, now);
            }
        }
        let mut moves = Vec::new();
        let serving = reader::all(cores);
        spread::moves(&self.owners, serving, |group, to| moves.push((group, to)));
        for (group, to) in moves {
            self.hand_over(usize::from(group), usize::from(to), now);
        }
        for node in &mut self.nodes[cores..] {
            if node.serves {
                // What it still has to do counts; nothing new comes.
                self.totals.core_ns += node.free_at.saturating_sub(now);
            }
            node.serves = false;
        }
        self.granted = self.governor.authorised();
        self.governor.carried_out(now / TICK);
        self.spread_load(now);
    }

    fn unpark(&mut self, core: usize, now: u64) {
        let node = &mut self.nodes[core];
        node.serves = true;
        node.free_at = now + self.setup.service.wake_ns as u64;
    }

    fn hand_over(&mut self, group: usize, to: usize, now: u64) {
        let from = usize::from(std::mem::replace(&mut self.owners[group], to as u16));
        let cost = self.setup.service.move_ns / self.step.frequency;
        let mut waiting: Vec<Waiting> = Vec::new();
        let share = self.shares[group];
        self.nodes[from].take(group as u16, share, &mut waiting);
        self.nodes[from].occupy(now, cost);
        self.nodes[to].occupy(now, cost);
        self.nodes[to].give(&waiting);
        self.totals.moves += 1;
    }

    fn spread_load(&mut self, now: u64) {
        let rps = self.rps(now);
        for core in 0..self.nodes.len() {
            let share = self.share(core as u16);
            self.nodes[core].load(now, rps, share);
        }
    }

    fn account(&mut self) {
        let serving = self.serving();
        self.totals.core_ns += u64::from(serving) * SLICE;
        self.totals.lent_ns += u64::from(self.lent) * SLICE;
        self.totals.joules +=
            self.setup.power.watts(serving, self.step.frequency) * SLICE as f64 / 1e9;
    }

    fn plot(&mut self, until: u64) {
        let requests = self.point.total();
        let seconds = (until - POINT / 2) as f64 / 1e9;
        let p99_us = self.point.quantile(0.99) as f64 / 1e3;
        self.points.push(Point {
            seconds,
            load: self.setup.curve.at(seconds),
            requests_per_s: requests as f64 * 1e9 / POINT as f64,
            cores: self.serving(),
            frequency: self.step.frequency,
            p50_us: self.point.quantile(0.5) as f64 / 1e3,
            p99_us,
            lent: self.lent,
        });
        self.all.add(&self.point);
        self.point.clear();
    }

    fn report(mut self) -> Report {
        self.nodes.iter_mut().for_each(|node| self.point.add(&node.window));
        self.all.add(&self.point);
        self.totals.dropped = self.nodes.iter().map(|n| n.dropped).sum();
        self.totals.requests = self.all.total();
        Report::new(self.setup, self.peak, self.totals, &self.all, self.points, self.events)
    }
}
