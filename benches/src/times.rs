//! Times, only as ratios within one run: contenders take turns, medians are compared.
use crate::app;
use crate::echo::Echo;
use crate::server::Server;
use crate::server::bare::Bare;
use crate::server::engine::{EngineServer, Setup};
use crate::server::smoltcp::{Does, Smoltcp};

/// Requests that are laid up at once.
const CHUNK: usize = 64;
/// How often, in one measurement.
const CHUNKS: usize = 16;
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
        let growth = |times: &[Times; 2]| times[1].median() / times[0].median();
        growth(&self.engine) / growth(&self.bare)
    }

    /// Prints the tables.
    pub fn print(&self) {
        println!("| ns per 64-byte echo, batch 1, checksums in software | 1 connection | {MANY} |");
        println!("|---|---|---|");
        for (name, times) in [
            ("engine", &self.engine),
            ("bare responder, by turns with it", &self.bare),
            ("engine", &self.engine_then),
            ("smoltcp, by turns with it", &self.smoltcp),
        ] {
            let cells = times.iter().map(|times| {
                let (low, high) = times.quartiles();
                format!("{:.0} ({low:.0} to {high:.0})", times.median())
            });
            println!("| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
        let [one, many] = self.by_smoltcp();
        println!();
        println!("engine by smoltcp at 1 connection: {one:.3} (aim: at most 0.6)");
        let inverse = 1.0 / many;
        println!("engine by smoltcp at {MANY} connections: {many:.5}, 1/{inverse:.0} (aim: 1/200)");
        let growth = self.growth();
        println!(
            "growth from 1 to {MANY} connections by the bare responder's: {growth:.3} (aim: 1.25)"
        );
    }
}

fn engine(connections: usize) -> Echo<EngineServer<app::Echo>> {
    let setup = Setup { connections, buffers: connections, offload: false, tso: false, batch: 64 };
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

/// One measurement: its first part warms the caches again that others have used.
fn measure<S: Server>(echo: &mut Echo<S>, times: &mut Times, chunks: usize) {
    for _ in 0..chunks.div_ceil(2) {
        echo.time(CHUNK);
    }
    let ns: u64 = (0..chunks).map(|_| echo.time(CHUNK)).sum();
    times.0.push(ns as f64 / (chunks * CHUNK) as f64);
}

/// `rounds` measurements of each: first the engine and the bare responder by turns, then the engine and smoltcp,
/// which with many connections takes so long and uses so much of the caches that it is measured less often.
pub fn run(rounds: usize) -> Found {
    let mut found = Found::default();
    let (mut engines, mut bares) = ([engine(1), engine(MANY)], [bare(1), bare(MANY)]);
    for _ in 0..rounds {
        for i in 0..2 {
            measure(&mut engines[i], &mut found.engine[i], CHUNKS);
            measure(&mut bares[i], &mut found.bare[i], CHUNKS);
        }
    }
    let mut smoltcps = [smoltcp(1), smoltcp(MANY)];
    for round in 0..rounds {
        for i in 0..2 {
            let few = i == 1;
            if !few || round % 10 == 0 {
                measure(&mut engines[i], &mut found.engine_then[i], CHUNKS);
                measure(&mut smoltcps[i], &mut found.smoltcp[i], if few { 1 } else { CHUNKS });
            }
        }
    }
    for times in [&mut found.engine, &mut found.bare, &mut found.engine_then, &mut found.smoltcp] {
        times.iter_mut().for_each(|times| times.0.sort_by(f64::total_cmp));
    }
    found
}
