//! The simulation's share of a test run. `IX_SIM_SEED=n` runs one seed (add `IX_SIM_TRACE=1` to see
//! every frame), `IX_SIM_SECONDS=n` runs for so long.
use ix_tests::sim;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

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
