//! Two cores of one dataplane, each on a pinned thread of its own, beside two dataplanes of one core each: what
//! being one dataplane costs. Contenders take turns; a rate is of what the two threads did at the same time.
use crate::app;
use crate::echo::Echo;
use crate::say;
use crate::server::engine::{EngineServer, Setup};
use crate::team::Team;
use anyhow::{Context, Result, ensure};
use std::sync::Barrier;

/// Cores of the dataplane.
pub const CORES: usize = 2;
/// Connections of each core, about.
const CONNECTIONS: usize = 500;
/// Requests that are laid up at once.
const CHUNK: usize = 64;
/// How often, in one measurement.
const CHUNKS: usize = 64;

type Core = Echo<EngineServer<app::Echo>>;

fn setup(connections: usize) -> Setup {
    Setup { connections, buffers: 4096, offload: true, tso: false, batch: 64 }
}

/// The cores of one dataplane, their clients connected.
pub fn together() -> Vec<Core> {
    let connections = CORES * CONNECTIONS;
    Team::new(setup(connections), CORES as u16).split(connections)
}

/// As many dataplanes of one core.
pub fn apart() -> Vec<Core> {
    let one = || EngineServer::new(setup(CONNECTIONS), app::Echo::default());
    (0..CORES).map(|_| Echo::new(one(), CONNECTIONS, usize::MAX, 1)).collect()
}

/// What was measured: requests in a microsecond of both threads together, the measurements sorted.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// One dataplane.
    pub together: Vec<f64>,
    /// Two.
    pub apart: Vec<f64>,
}

impl Found {
    /// The medians' ratio.
    pub fn ratio(&self) -> f64 {
        self.together[self.together.len() / 2] / self.apart[self.apart.len() / 2]
    }

    /// Prints it.
    pub fn print(&self) {
        for (name, rates) in
            [("one dataplane of two cores", &self.together), ("two of one", &self.apart)]
        {
            let at = |part: usize| rates[rates.len() * part / 4];
            say!("{name}: {:.3} ({:.3} to {:.3}) requests in a microsecond", at(2), at(1), at(3));
        }
        say!("rate by that of two dataplanes: {:.3} (aim: at least 0.95)", self.ratio());
    }
}

/// Runs both at the same time, each thread on a processor of its own; the sum of their rates.
fn measure(cores: &mut [Core], processors: &[usize]) -> Result<f64> {
    let barrier = Barrier::new(cores.len());
    let rate = |core: &mut Core, processor: usize| -> Result<f64> {
        pin(processor)?;
        // Warms the caches again that others have used.
        for _ in 0..CHUNKS / 4 {
            core.time(CHUNK, 1);
        }
        barrier.wait();
        let ns: u64 = (0..CHUNKS).map(|_| core.time(CHUNK, 1)).sum();
        Ok((CHUNKS * CHUNK) as f64 * 1e3 / ns as f64)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = cores
            .iter_mut()
            .zip(processors)
            .map(|(core, processor)| scope.spawn(|| rate(core, *processor)))
            .collect();
        threads.into_iter().map(|t| t.join().expect("it does not panic")).sum()
    })
}

fn pin(processor: usize) -> Result<()> {
    use nix::sched::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).context("cannot pin a thread")
}

/// `rounds` measurements of each by turns.
pub fn run(rounds: usize) -> Result<Found> {
    use nix::sched::sched_getaffinity;
    let all = sched_getaffinity(nix::unistd::Pid::from_raw(0))?;
    let processors: Vec<usize> = (0..nix::sched::CpuSet::count())
        .filter(|i| all.is_set(*i).unwrap_or(false))
        .take(CORES)
        .collect();
    ensure!(processors.len() == CORES, "{CORES} processors are needed");
    let (mut one, mut two) = (together(), apart());
    let mut found = Found::default();
    for _ in 0..rounds {
        found.together.push(measure(&mut one, &processors)?);
        found.apart.push(measure(&mut two, &processors)?);
    }
    for rates in [&mut found.together, &mut found.apart] {
        rates.sort_by(f64::total_cmp);
    }
    Ok(found)
}
