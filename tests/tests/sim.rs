//! The simulation's share of a test run. `IX_SIM_SEED=n` runs one seed (add `IX_SIM_TRACE=1` to see
//! every frame), `IX_SIM_SECONDS=n` runs for so long.
use ix_tests::sim;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

/// Runs a seed, and says which one it was if it fails.
fn run(seed: u64, machines: bool) -> sim::Report {
    catch_unwind(AssertUnwindSafe(|| sim::run(seed, machines))).unwrap_or_else(|panic| {
        eprintln!("seed {seed} fails: IX_SIM_SEED={seed} repeats it");
        resume_unwind(panic)
    })
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn peers_alone_hold_their_conversations_in_any_network() {
    let seeds = number("IX_SIM_SEED").map_or(0..200, |seed| seed..seed + 1);
    for seed in seeds {
        run(seed, false);
    }
}

#[test]
fn dataplanes_and_peers_hold_their_conversations_in_any_network() {
    if let Some(seed) = number("IX_SIM_SEED") {
        println!("{:?}", run(seed, true));
        return;
    }
    let until = Instant::now() + Duration::from_secs(number("IX_SIM_SECONDS").unwrap_or(60));
    let mut total = sim::Report::default();
    let mut seeds = 0;
    for seed in number("IX_SIM_FIRST").unwrap_or(1).. {
        if Instant::now() > until {
            break;
        }
        let report = run(seed, true);
        seeds += 1;
        total.talks += report.talks;
        total.bytes += report.bytes;
        total.excused += report.excused;
    }
    println!("{seeds} seeds: {total:?}");
}
