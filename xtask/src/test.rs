//! Everything that CI checks, in one go, with one line at the end that says how it went.
use crate::outcome::Outcome;
use crate::packages::{self, Package};
use crate::say::{self, say};
use crate::slowest::Slowest;
use crate::watch::{Shown, heading, watch};
use crate::workspace::{self, cargo};
use crate::{bochs, ci, fuzz, image, linux, qemu};
use anyhow::Result;
use std::process::Command;
use std::time::{Duration, Instant};

/// No step may take longer; all together stay below what design allows `scripts/test.sh`.
pub const STEP_MAX: Duration = Duration::from_secs(20 * 60);
/// What the long tests give to fuzzing.
const PROVE_FUZZ_SECONDS: u64 = 2 * 3600;
const PROVE_STEP_MAX: Duration = Duration::from_secs(24 * 3600);

/// `cargo xtask test` with a part of a test's name; gives whether all is well.
pub fn some(filter: &str, install: bool) -> Result<bool> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    if install {
        packages::install(&Package::TESTS, false)?;
    }
    let filter = Some(filter);
    // What is fetched comes while others compute.
    std::thread::scope(|scope| {
        scope.spawn(|| fetch(filter));
        prepare(&mut outcome, filter);
    });
    tests(&mut outcome, filter, false)?;
    finish(&outcome, start)
}

/// `cargo xtask prove`.
pub fn prove(filter: Option<&str>) -> Result<bool> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    if filter.is_none() {
        // 30 s of processor time for what is seldom wrong: too much for every run of CI.
        let docs = ["doc", "--quiet", "--workspace", "--no-deps"];
        check(&mut outcome, "rustdoc", cargo().args(docs).env("RUSTDOCFLAGS", "-Dwarnings"));
    }
    fetch(filter);
    prepare(&mut outcome, filter);
    tests(&mut outcome, filter, true)?;
    if filter.is_none() {
        heading("fuzz");
        let found_nothing = fuzz::fuzz(None, PROVE_FUZZ_SECONDS, false);
        outcome.step(
            "fuzz",
            found_nothing.unwrap_or_else(|e| {
                say!("{e:#}");
                false
            }),
        );
    }
    finish(&outcome, start)
}

/// Which seeds of the simulation.
#[derive(Debug, clap::Args)]
pub struct Walk {
    /// With `sim`: the first seed, to go on where a walk was ended
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// With `sim`: how many seeds
    #[arg(long, default_value_t = 100_000)]
    seeds: u64,
    /// With `sim`: threads; as many as there are cores if not given
    #[arg(long)]
    threads: Option<u64>,
}

/// `cargo xtask prove sim`: a long walk through the simulation's seeds, with a line of progress for each
/// thousand and a report at the end.
pub fn prove_sim(walk: &Walk) -> Result<bool> {
    let mut command = cargo();
    // As fast as can be, and with every assertion.
    command.args(["test", "--quiet", "--profile", "walk", "-p", "ix-tests", "--test", "sim", "--"]);
    command.args(["--nocapture", "--format=pretty", "--exact"]);
    command.arg("dataplanes_and_peers_hold_their_conversations_in_any_network");
    command.env("IX_PROVE", "1").env("RUST_BACKTRACE", "0");
    command.env("IX_SIM_FIRST", walk.first.to_string()).env("IX_SIM_SEEDS", walk.seeds.to_string());
    if let Some(threads) = walk.threads {
        command.env("IX_SIM_THREADS", threads.to_string());
    }
    watch(&mut command, PROVE_STEP_MAX, &Shown::AtOnce, |_| ())
}

/// `cargo xtask prove bridge`: IX and Linux, and Linux and Linux, by turns on one bridge; prints a table.
pub fn prove_bridge() -> Result<bool> {
    image::build()?;
    linux::build(&linux::VIRTIO)?;
    workspace::run(cargo().args(["build", "--quiet", "--release", "-p", "ixcp"]))?;
    let mut command = cargo();
    command.args(["test", "--quiet", "--release", "-p", "ix-tests", "--test", "e2e", "bridge::"]);
    command.args(["--", "--nocapture", "--format=pretty", "--test-threads=1"]);
    command.env("IX_PROVE", "1").env("IX_NEED_IMAGES", "1");
    watch(&mut command, PROVE_STEP_MAX, &Shown::AtOnce, |_| ())
}

/// `cargo xtask prove e2e-ixgbe` and `e2e-iommu`: all end-to-end tests with an 82599 in place of virtio-net.
pub fn prove_card(more: &[&str]) -> Result<bool> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    prepare(&mut outcome, None);
    let programs = ["build", "--quiet", "-p", "ixcp", "-p", "ixgbe-vfio-user"];
    workspace::run(cargo().args(programs))?;
    let qemu = qemu::fetch_vfio_user()?;
    let built = workspace::target_dir().join("debug");
    let (ixcp, player) = (built.join("ixcp"), built.join("ixgbe-vfio-user"));
    let paths = [qemu.to_str(), player.to_str()].map(Option::unwrap_or_default);
    let card = ["--nic", "ixgbe", "--qemu", paths[0], "--nic-program", paths[1]];
    let mut command = cargo();
    command.args(["test", "--quiet", "-p", "ix-tests", "--test", "e2e", "--"]);
    command.args(["--format=pretty", "--test-threads=1"]);
    command.env("IX_NEED_IMAGES", "1").env("IX_IXCP", ixcp);
    command.env("IX_RUN_ARGS", [&card[..], more].concat().join(" "));
    heading("the end-to-end tests with an 82599");
    watch(&mut command, PROVE_STEP_MAX, &Shown::AtOnce, |line| outcome.line(line))?;
    finish(&outcome, start)
}

/// What the end-to-end tests boot, of the project's own.
fn prepare(outcome: &mut Outcome, filter: Option<&str>) {
    heading("images");
    let images = image::build();
    if let Err(e) = &images {
        say!("{e:#}");
    }
    outcome.step("images", images.is_ok());
    if filter.is_none_or(|f| f.contains("iso")) && images.is_ok() {
        ci::iso(outcome);
    }
}

/// Emulators and guests that the distribution has: two at a time, since each waits for a server and unpacks by turns.
pub fn fetch(filter: Option<&str>) {
    std::thread::scope(|scope| {
        scope.spawn(|| fetch_for_ixgbe(filter));
        fetch_others(filter);
    });
}

fn fetch_for_ixgbe(filter: Option<&str>) {
    if filter.is_none_or(|f| f.contains("ixgbe")) {
        heading("a QEMU and a Linux guest for an 82599");
        // Their tests say SKIPPED without them.
        let fetched = qemu::fetch_vfio_user().and_then(|_| linux::build(&linux::IXGBE));
        if let Err(e) = fetched {
            say!("xtask: no QEMU or no Linux guest to test the 82599 with: {e:#}");
        }
    }
}

fn fetch_others(filter: Option<&str>) {
    if filter.is_none_or(|f| ["iso", "serial", "vtx"].iter().any(|name| f.contains(name))) {
        heading("Bochs");
        // Its tests say SKIPPED without it.
        if let Err(e) = bochs::fetch() {
            say!("xtask: no Bochs to test with: {e:#}");
        }
    }
    if filter.is_none() || filter.is_some_and(|f| f.contains("qemu")) {
        heading("QEMU 10");
        // Its test says SKIPPED without it.
        if let Err(e) = qemu::fetch(10) {
            say!("xtask: no QEMU 10 to test with: {e:#}");
        }
    }
    // Last: its program is compiled, and cargo does one thing at a time.
    if filter.is_none_or(|f| f.contains("bridge")) {
        heading("the Linux guest");
        // Its tests say SKIPPED without it.
        if let Err(e) = linux::build(&linux::VIRTIO) {
            say!("xtask: no Linux guest to test with: {e:#}");
        }
    }
}

fn tests(outcome: &mut Outcome, filter: Option<&str>, prove: bool) -> Result<()> {
    // End-to-end tests boot machines: one at a time, after everything else.
    let packages: [&[&str]; 2] = [&["--workspace", "--exclude", "ix-tests"], &["-p", "ix-tests"]];
    for (which, threads) in packages.into_iter().zip([None, Some("--test-threads=1")]) {
        let mut command = cargo();
        command.args(["test", "--quiet", "--no-fail-fast"]).args(which);
        // The tests of `ixcp` have it built, the first of the two steps.
        if prove {
            command.arg("--release").env("IX_PROVE", "1");
        } else {
            command.env("IX_IXCP", workspace::target_dir().join("debug/ixcp"));
            ci::seeded(&mut command);
        }
        ci::with_images(&mut command);
        command.args(filter).arg("--").arg("--format=pretty").args(threads);
        heading(&format!("cargo test {}", which.join(" ")));
        let before = outcome.failed;
        let limit = if prove { PROVE_STEP_MAX } else { STEP_MAX };
        let mut slow = Slowest::default();
        let mut built = false;
        let ok = watch(&mut command, limit, &Shown::AtOnce, |line| {
            if !built && line.starts_with("running ") {
                built = true;
                heading("built");
            }
            outcome.line(line);
            slow.line(line, Instant::now());
        });
        if threads.is_some() {
            say::bytes(slow.to_string().as_bytes());
        }
        // A build error is such, too.
        ci::told(outcome, before, &format!("cargo test {}", which.join(" ")), ok);
    }
    Ok(())
}

pub fn check(outcome: &mut Outcome, name: &str, command: &mut Command) {
    heading(name);
    let ok = command.status().is_ok_and(|s| s.success());
    outcome.step(name, ok);
}

pub fn finish(outcome: &Outcome, start: Instant) -> Result<bool> {
    heading(&format!("done in {} s", start.elapsed().as_secs()));
    for line in &outcome.skipped {
        say!("{line}");
    }
    for name in &outcome.failures {
        say!("FAILED {name}");
    }
    say!("{}", outcome.summary());
    Ok(outcome.failed == 0)
}
