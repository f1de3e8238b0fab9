//! Times, only as ratios within one run: contenders take turns, medians are compared.
use crate::app;
use crate::echo::Echo;
use crate::server::bare::Bare;
use crate::server::engine::{EngineServer, Setup};
use crate::server::smoltcp::{Does, Smoltcp};

/// Requests of one measurement.
const RPCS: usize = 64;
/// Connections of a busy server.
pub const MANY: usize = 10_000;

/// Nanoseconds per request of one contender: the measurements, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
    fn add(&mut self, ns: u64) {
        self.0.push(ns as f64 / RPCS as f64);
    }

    fn sort(&mut self) {
        self.0.sort_by(f64::total_cmp);
    }

    /// The median.
    pub fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    /// The quartiles.
    pub fn quartiles(&self) -> (f64, f64) {
        (self.0[self.0.len() / 4], self.0[self.0.len() * 3 / 4])
    }
}

/// All times of a run, at 1 and at [`MANY`] connections.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The engine.
    pub engine: [Times; 2],
    /// The bare responder.
    pub bare: [Times; 2],
    /// smoltcp.
    pub smoltcp: [Times; 2],
}

impl Found {
    /// The engine's time by smoltcp's, at 1 connection and at [`MANY`].
    pub fn by_smoltcp(&self) -> [f64; 2] {
        [0, 1].map(|i: usize| self.engine[i].median() / self.smoltcp[i].median())
    }

    /// How much more the engine's time grows from 1 to [`MANY`] connections than the bare responder's.
    pub fn growth(&self) -> f64 {
        let growth = |times: &[Times; 2]| times[1].median() / times[0].median();
        growth(&self.engine) / growth(&self.bare)
    }

    /// Prints the tables.
    pub fn print(&self) {
        println!("| ns per 64-byte echo, batch 1, checksums in software | 1 connection | {MANY} |");
        println!("|---|---|---|");
        for (name, times) in
            [("engine", &self.engine), ("bare responder", &self.bare), ("smoltcp", &self.smoltcp)]
        {
            let cells = times.iter().map(|times| {
                let (low, high) = times.quartiles();
                format!("{:.0} ({low:.0} to {high:.0})", times.median())
            });
            println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        let [one, many] = self.by_smoltcp();
        println!();
        println!("engine by smoltcp at 1 connection: {one:.3} (aim: at most 0.6)");
        println!("engine by smoltcp at {MANY}: 1/{:.0} (aim: at most 1/200)", 1.0 / many);
        let growth = self.growth();
        println!(
            "growth from 1 to {MANY} by the bare responder's: {growth:.2} (aim: at most 1.25)"
        );
    }
}

fn engine(connections: usize) -> Echo<EngineServer<app::Echo>> {
    let setup = Setup { connections, buffers: connections, offload: false, batch: 1 };
    Echo::new(EngineServer::new(setup, app::Echo::default()), connections, usize::MAX, 1)
}

fn bare(connections: usize) -> Echo<Bare> {
    Echo::new(Bare::new(connections, false, 1), connections, usize::MAX, 1)
}

fn smoltcp(connections: usize) -> Echo<Smoltcp> {
    let server = Smoltcp::new(Does::Echo, false, 1, connections);
    // Few talk before: each is slow.
    Echo::new(server, connections, 64, 1)
}

/// `rounds` measurements of each; of smoltcp with many connections, which takes much longer, a tenth.
pub fn run(rounds: usize) -> Found {
    let mut found = Found::default();
    let (mut engines, mut bares) = ([engine(1), engine(MANY)], [bare(1), bare(MANY)]);
    let mut smoltcps = [smoltcp(1), smoltcp(MANY)];
    for round in 0..rounds {
        for i in 0..2 {
            found.engine[i].add(engines[i].time(RPCS));
            found.bare[i].add(bares[i].time(RPCS));
            if i == 0 || round % 10 == 0 {
                found.smoltcp[i].add(smoltcps[i].time(RPCS));
            }
        }
    }
    for times in [&mut found.engine, &mut found.bare, &mut found.smoltcp] {
        times.iter_mut().for_each(Times::sort);
    }
    found
}
