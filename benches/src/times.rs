//! Times, only as ratios within one run: contenders take turns, medians are compared.
use crate::app;
use crate::echo::Echo;
use crate::say;
use crate::server::Server;
use crate::server::bare::Bare;
use crate::server::engine::{EngineServer, Setup};
use crate::server::smoltcp::{Does, Smoltcp};

/// Requests that are laid up at once.
const CHUNK: usize = 64;
/// How often, in one measurement.
const CHUNKS: usize = 16;
/// Frames of a turn where there is a batch of them.
const BATCH: usize = CHUNK;
/// Connections of a server that has batches and fits its caches.
pub const SOME: usize = 100;
/// Connections of a busy server.
pub const MANY: usize = 10_000;

/// Nanoseconds per request of one contender: the measurements, sorted.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<f64>);

impl Times {
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
    /// The engine in batches of [`BATCH`], at [`SOME`] and at [`MANY`] connections.
    pub engine_batch: [Times; 2],
    /// The bare responder, likewise.
    pub bare_batch: [Times; 2],
    /// The engine again, beside smoltcp.
    pub engine_then: [Times; 2],
    /// smoltcp.
    pub smoltcp: [Times; 2],
}

impl Found {
    /// The engine's time by smoltcp's, at 1 connection and at [`MANY`].
    pub fn by_smoltcp(&self) -> [f64; 2] {
        [0, 1].map(|i: usize| self.engine_then[i].median() / self.smoltcp[i].median())
    }

    /// How much more the engine's time grows from 1 to [`MANY`] connections than the bare responder's.
    pub fn growth(&self) -> f64 {
        growth(&self.engine) / growth(&self.bare)
    }

    /// The same in batches, from [`SOME`].
    pub fn growth_batch(&self) -> f64 {
        growth(&self.engine_batch) / growth(&self.bare_batch)
    }

    /// Prints the tables.
    pub fn print(&self) {
        say!("| ns per 64-byte echo, batch 1, checksums in software | 1 connection | {MANY} |");
        say!("|---|---|---|");
        line("engine", &self.engine);
        line("bare responder, by turns with it", &self.bare);
        line("engine", &self.engine_then);
        line("smoltcp, by turns with it", &self.smoltcp);
        say!();
        say!("| the same in batches of {BATCH} | {SOME} connections | {MANY} |");
        say!("|---|---|---|");
        line("engine", &self.engine_batch);
        line("bare responder, by turns with it", &self.bare_batch);
        let [one, many] = self.by_smoltcp();
        say!();
        say!("engine by smoltcp at 1 connection: {one:.3} (aim: at most 0.6)");
        let inverse = 1.0 / many;
        say!("engine by smoltcp at {MANY} connections: {many:.5}, 1/{inverse:.0} (aim: 1/200)");
        let growth = self.growth();
        say!(
            "growth from 1 to {MANY} connections by the bare responder's: {growth:.3} (aim: 1.25)"
        );
        let growth = self.growth_batch();
        say!(
            "growth from {SOME} to {MANY}, in batches of {BATCH}, by the bare responder's: {growth:.3}"
        );
    }
}

/// By how much the time of `[few, many]` connections grows.
fn growth(times: &[Times; 2]) -> f64 {
    times[1].median() / times[0].median()
}

fn line(name: &str, times: &[Times; 2]) {
    let cells = times.iter().map(|times| {
        let (low, high) = times.quartiles();
        format!("{:.0} ({low:.0} to {high:.0})", times.median())
    });
    say!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
}

fn engine(connections: usize) -> Echo<EngineServer<app::Echo>> {
    let setup = Setup { connections, buffers: connections, offload: false, tso: false, batch: 64 };
    Echo::new(EngineServer::new(setup, app::Echo::default()), connections, usize::MAX, 1)
}

fn bare(connections: usize, batch: usize) -> Echo<Bare> {
    Echo::new(Bare::new(connections, false, batch), connections, usize::MAX, 1)
}

fn smoltcp(connections: usize) -> Echo<Smoltcp> {
    let server = Smoltcp::new(Does::Echo, false, 1, connections);
    // Few talk before: each is slow.
    Echo::new(server, connections, 64, 1)
}

/// One measurement: its first part warms the caches again that others have used.
fn measure<S: Server>(echo: &mut Echo<S>, times: &mut Times, chunks: usize, batch: usize) {
    for _ in 0..chunks.div_ceil(2) {
        echo.time(CHUNK, batch);
    }
    let ns: u64 = (0..chunks).map(|_| echo.time(CHUNK, batch)).sum();
    times.0.push(ns as f64 / (chunks * CHUNK) as f64);
}

/// `rounds` measurements of each: first the engine and the bare responder by turns, then the engine and smoltcp,
/// which with many connections takes so long and uses so much of the caches that it is measured less often.
pub fn run(rounds: usize) -> Found {
    let mut found = Found::default();
    let (mut engines, mut bares) = ([engine(1), engine(MANY)], [bare(1, 1), bare(MANY, 1)]);
    for _ in 0..rounds {
        for i in 0..2 {
            measure(&mut engines[i], &mut found.engine[i], CHUNKS, 1);
            measure(&mut bares[i], &mut found.bare[i], CHUNKS, 1);
        }
    }
    batches(rounds / 2, &mut found);
    let mut smoltcps = [smoltcp(1), smoltcp(MANY)];
    for round in 0..rounds {
        for i in 0..2 {
            let few = i == 1;
            if !few || round % 10 == 0 {
                measure(&mut engines[i], &mut found.engine_then[i], CHUNKS, 1);
                let chunks = if few { 1 } else { CHUNKS };
                measure(&mut smoltcps[i], &mut found.smoltcp[i], chunks, 1);
            }
        }
    }
    let Found { engine, bare, engine_batch, bare_batch, engine_then, smoltcp } = &mut found;
    for times in [engine, bare, engine_batch, bare_batch, engine_then, smoltcp] {
        times.iter_mut().for_each(|times| times.0.sort_by(f64::total_cmp));
    }
    found
}

/// The engine and the bare responder by turns, in batches.
fn batches(rounds: usize, found: &mut Found) {
    let mut engines = [engine(SOME), engine(MANY)];
    let mut bares = [bare(SOME, BATCH), bare(MANY, BATCH)];
    for _ in 0..rounds {
        for i in 0..2 {
            measure(&mut engines[i], &mut found.engine_batch[i], CHUNKS, BATCH);
            measure(&mut bares[i], &mut found.bare_batch[i], CHUNKS, BATCH);
        }
    }
}
