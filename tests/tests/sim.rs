//! The simulation. What a seed contains, and the figures of this file, are in `docs/testing.md`.
//!
//! `IX_SIM_SEED=n` runs one seed (add `IX_SIM_TRACE=1` to see every frame); `IX_SIM_FIRST`,
//! `IX_SIM_SEEDS` and `IX_SIM_THREADS` say which, how many, and on how many cores;
//! `IX_SIM_FAILURES`, after how many failures it is enough.
use ix_tests::sim::{self, Report};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds of a normal run, and of `cargo xtask prove`.
const SEEDS: u64 = 3_000;
const PROVE_SEEDS: u64 = 100_000;
/// A normal run ends then, however few it has come to; the log says so.
const LIMIT: Duration = Duration::from_secs(40);
/// Flow groups that move between eight cores, in a normal run and in `cargo xtask prove`.
const MOVES: u64 = 10_000;
const PROVE_MOVES: u64 = 100_000;
/// Seeds of which each has conversations of requests and answers.
const FOLDING: u64 = 25;
/// Failures after which it is no use to go on.
const FAILURES_MAX: u64 = 10;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// What many seeds came to.
#[derive(Default)]
struct Total {
    seeds: u64,
    failed: Vec<(u64, String)>,
    talks: usize,
    bytes: u64,
    hours: f64,
    excused: usize,
    moved: u64,
    calls: u64,
    restarts: usize,
    lent: (u64, u64),
    datagrams: usize,
    folded: (u64, u64),
    faults: Vec<u64>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.talks += report.talks;
        self.bytes += report.bytes;
        self.hours += report.time as f64 / 3.6e12;
        self.excused += report.excused;
        self.moved += report.moved;
        self.calls += report.calls;
        self.restarts += report.restarts;
        self.lent.0 += report.lent.0;
        self.lent.1 += report.lent.1;
        self.datagrams += report.datagrams;
        self.folded.0 += report.folded.0;
        self.folded.1 += report.folded.1;
        self.faults.resize(report.faults.len(), 0);
        for (sum, n) in self.faults.iter_mut().zip(report.faults) {
            *sum += n;
        }
    }

    fn print(&self, first: u64, took: Duration) {
        let Total { seeds, talks, bytes, hours, excused, moved, .. } = self;
        let Total { calls, restarts, datagrams, lent: (left, taken), .. } = self;
        println!(
            "{seeds} seeds from {first} in {} s: {talks} conversations, {datagrams} datagrams, {} MB, \
             {hours:.1} virtual hours, {moved} groups moved, {calls} cores called, {left} left, {taken} taken, {restarts} applications restarted, \
             {excused} conversations excused by defects of smoltcp",
            took.as_secs(),
            bytes / 1_000_000,
        );
        let (looked, found) = self.folded;
        println!(
            "a core had folded connections after {found} of {looked} questions and answers that were looked at"
        );
        let of = |what: sim::net::Done| self.faults.get(what as usize).copied().unwrap_or(0);
        use sim::net::Done::{
            Corrupted, Cut, Doubled, Forged, Lost, Marked, Overflowed, Reordered,
        };
        println!(
            "frames lost {}, doubled {}, reordered {}, corrupted {}, cut {}, overflowed {}, marked {}, \
             forged {}",
            of(Lost),
            of(Doubled),
            of(Reordered),
            of(Corrupted),
            of(Cut),
            of(Overflowed),
            of(Marked),
            of(Forged)
        );
        for (seed, text) in &self.failed {
            println!("seed {seed} fails: IX_SIM_SEED={seed} repeats it: {text}");
        }
    }
}

/// The first line of what a panic says.
fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    let text = owned.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?");
    text.chars().take(200).map(|c| if c == '\n' { ' ' } else { c }).collect()
}

/// Runs `count` seeds from `first` on some threads, until the time is over or `enough` says so.
fn walk(
    (first, count): (u64, u64),
    threads: u64,
    limit: Option<Duration>,
    run: impl Fn(u64) -> Report + Sync,
    enough: impl Fn(&Total) -> bool + Sync,
) -> Total {
    let started = Instant::now();
    let failures_max = number("IX_SIM_FAILURES").unwrap_or(FAILURES_MAX);
    let (next, total) = (AtomicU64::new(first), Mutex::new(Total::default()));
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = limit.is_some_and(|limit| started.elapsed() > limit);
            if seed >= first + count || late {
                return;
            }
            let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
            let mut total = total.lock().expect("no panic while it is held");
            match result {
                Ok(report) => total.add(&report),
                Err(panic) => total.failed.push((seed, text(&*panic))),
            }
            if total.failed.len() as u64 >= failures_max || enough(&total) {
                return;
            }
            progress(&total, seed, count, started);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    total.into_inner().expect("no panic while it was held")
}

/// A line every 1,000 seeds of a long walk, past the test harness's capture. A walk that was ended
/// goes on with `--first`.
fn progress(total: &Total, seed: u64, count: u64, started: Instant) {
    if count < PROVE_SEEDS / 10 || !total.seeds.is_multiple_of(1_000) {
        return;
    }
    let (seconds, failed) = (started.elapsed().as_secs(), total.failed.len());
    let left = (seconds * count / total.seeds.max(1)).saturating_sub(seconds);
    let line = format!(
        "{} of {count} seeds, at {seed}, {failed} failed, {seconds} s, {left} s left\n",
        total.seeds
    );
    let _ = std::io::stderr().write_all(line.as_bytes());
}

#[test]
fn peers_alone_hold_their_conversations_in_any_network() {
    for seed in number("IX_SIM_SEED").map_or(0..200, |seed| seed..seed + 1) {
        catch_unwind(AssertUnwindSafe(|| sim::run(seed, false))).unwrap_or_else(|panic| {
            eprintln!("seed {seed} fails: IX_SIM_SEED={seed} repeats it");
            resume_unwind(panic)
        });
    }
}

#[test]
fn connections_that_are_asked_and_answer_are_folded() {
    let mut folded = (0, 0);
    let (first, seeds) = (number("IX_SIM_FIRST"), number("IX_SIM_SEEDS"));
    let first = first.unwrap_or(1);
    for seed in first..first + seeds.unwrap_or(FOLDING) {
        let report = sim::run_asking(seed);
        folded = (folded.0 + report.folded.0, folded.1 + report.folded.1);
    }
    let (looked, found) = folded;
    println!("{found} of {looked}");
    assert!(4 * found > looked && looked > 100, "folded after {found} of {looked} calls only");
}

fn threads() -> u64 {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    number("IX_SIM_THREADS").unwrap_or(cores)
}

#[test]
fn conversations_hold_while_flow_groups_move_between_eight_cores_all_the_time() {
    if let Some(seed) = number("IX_SIM_SEED") {
        println!("{:?}", sim::run_moving(seed));
        return;
    }
    let moves = if std::env::var_os("IX_PROVE").is_some() { PROVE_MOVES } else { MOVES };
    let moves = number("IX_SIM_MOVES").unwrap_or(moves);
    let first = number("IX_SIM_FIRST").unwrap_or(1);
    let started = Instant::now();
    let enough = |total: &Total| total.moved >= moves;
    let total = walk((first, u64::MAX - first), threads(), None, sim::run_moving, enough);
    total.print(first, started.elapsed());
    assert!(total.failed.is_empty(), "{} seeds fail", total.failed.len());
    assert!(total.moved >= moves && total.talks as u64 > total.seeds);
    assert!(moves < MOVES || total.lent.0 > 0 && total.lent.1 > 0, "no core has left");
}

#[test]
fn dataplanes_and_peers_hold_their_conversations_in_any_network() {
    if let Some(seed) = number("IX_SIM_SEED") {
        println!("{:?}", sim::run(seed, true));
        return;
    }
    let prove = std::env::var_os("IX_PROVE").is_some();
    let seeds = if prove { PROVE_SEEDS } else { SEEDS };
    let (first, seeds) =
        (number("IX_SIM_FIRST").unwrap_or(1), number("IX_SIM_SEEDS").unwrap_or(seeds));
    let threads = threads();
    let limit = (!prove && number("IX_SIM_SEEDS").is_none()).then_some(LIMIT);
    let started = Instant::now();
    let total = walk((first, seeds), threads, limit, |seed| sim::run(seed, true), |_| false);
    total.print(first, started.elapsed());
    if total.seeds < seeds {
        println!(
            "{} seeds in place of {seeds}: the time was over, or too many failed",
            total.seeds
        );
    }
    assert!(total.failed.is_empty(), "{} seeds fail", total.failed.len());
    let all = total.moved > 0 && total.calls > 0 && total.restarts > 0 && total.datagrams > 0;
    let all = all && total.lent.0 > 0 && total.lent.1 > 0;
    let tried = total.faults.iter().all(|n| *n > 0);
    // (A walk that was cut short has tried what it could.)
    let whole = total.seeds == seeds;
    assert!(seeds < 1_000 || !whole || all && tried, "not everything was tried");
}
