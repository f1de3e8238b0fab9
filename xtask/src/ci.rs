//! Everything that CI checks, in an order that keeps two cores busy: machines are booted one after the other, as soon as what
//! they need is built; what only computes (clippy, the other programs' compilation, tests that no clock judges) gets the time
//! that they leave, in Linux's idle class, so that they do not notice.
use crate::outcome::Outcome;
use crate::programs::{self, Program, When};
use crate::say::{self, say};
use crate::slowest::Slowest;
use crate::test::{STEP_MAX, check, fetch, finish};
use crate::watch::{Shown, clock, heading, watch};
use crate::workspace::{cargo, target_dir};
use crate::{image, iso, packages};
use anyhow::Result;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

/// The end-to-end tests.
const E2E: &str = "tests/tests/e2e/";
/// Beginnings of the sources of tests that boot machines, too, measure times, or take both cores for a time that they choose:
/// after the end-to-end tests, one program after the other.
const ALONE: [&str; 4] = [
    "apps/kv/tests/lru.rs",
    "drivers/virtio-net/tests/qemu/",
    "kernel/tests/boot/",
    "tests/tests/sim.rs",
];
/// Of those that mostly wait, and have deadlines: beside the machines, but not after everybody else.
const IMPATIENT: [&str; 7] = [
    "apps/kv/",
    "drivers/loopback/tests/",
    "drivers/virtio-net/tests/driver/",
    "ixcp/",
    "models/ixgbe-vfio-user/",
    "tests/src/",
    "xtask/",
];

fn is_of(program: &Program, sources: &[&str]) -> bool {
    sources.iter().any(|source| program.source.starts_with(source))
}

/// `cargo xtask test`; gives whether all is well.
pub fn run(install: bool) -> Result<bool> {
    let start = Instant::now();
    let mut outcome = Outcome::default();
    check(&mut outcome, "rustfmt", cargo().args(["fmt", "--all", "--check"]));
    std::thread::scope(|scope| {
        // What is fetched comes while others compute.
        let fetched = scope.spawn(|| {
            if install {
                let _ = packages::install(&packages::Package::TESTS, false);
            }
            fetch(None);
        });
        let (e2e, images) = prepare(&mut outcome);
        let (found, alone) = channel();
        let beside = scope.spawn(|| beside(found));
        fetched.join().expect("no panic");
        if images {
            iso(&mut outcome);
        }
        machines(&mut outcome, &e2e, &alone);
        outcome.add(beside.join().expect("no panic"));
    });
    finish(&outcome, start)
}

/// What the end-to-end tests boot, and what boots it; gives their program, and whether there are images.
fn prepare(outcome: &mut Outcome) -> (Vec<Program>, bool) {
    heading("images");
    std::thread::scope(|scope| {
        let images = scope.spawn(image::build);
        let e2e = build_e2e();
        outcome.step("the end-to-end tests are built", !e2e.is_empty());
        let images = images.join().expect("no panic").map_err(|e| say!("{e:#}")).is_ok();
        outcome.step("images", images);
        heading("built");
        (e2e, images)
    })
}

/// The image for real machines, unless what makes it is not there: its tests say SKIPPED then.
pub fn iso(outcome: &mut Outcome) {
    if packages::missing(&iso::PACKAGES).is_empty() {
        let made = iso::build(&iso::Options::plain());
        outcome.step("iso", made.map_err(|e| say!("{e:#}")).is_ok());
    } else {
        say!("xtask: GRUB's image maker is not there: no ISO");
    }
}

/// All of the workspace as the programs of `cargo test --workspace` are built, so that nothing is built twice.
const ALL: [&str; 1] = ["--workspace"];

/// The end-to-end tests and the programs that they start, before everything else. Programs come with tests of theirs.
fn build_e2e() -> Vec<Program> {
    let tests = ["e2e", "launcher", "protocol"].map(|name| ["--test", name]).concat();
    let built = build(When::Always, &[&ALL[..], &tests].concat()).unwrap_or_default();
    built.into_iter().filter(|program| is_of(program, &[E2E])).collect()
}

fn build(when: When, args: &[&str]) -> Option<Vec<Program>> {
    programs::build(when, args).map_err(|e| say!("xtask: {e:#}")).ok()
}

/// The machines, one after the other, once what they boot was fetched; then what waits for their end.
fn machines(outcome: &mut Outcome, e2e: &[Program], alone: &Receiver<Vec<Program>>) {
    for program in e2e {
        shown(outcome, program);
    }
    heading("the end-to-end tests are over");
    for program in alone.iter().flatten() {
        shown(outcome, &program);
    }
}

/// The tests of one program, and then which of them took longest. Those of `tests` run one after the other.
fn shown(outcome: &mut Outcome, program: &Program) {
    heading(&program.source);
    let mut command = environment(program.command(When::Always));
    let in_turn = program.source.starts_with("tests/");
    command.args(in_turn.then_some("--test-threads=1"));
    let mut slow = Slowest::default();
    let before = outcome.failed;
    let ok = watch(&mut command, STEP_MAX, &Shown::AtOnce, |line| {
        outcome.line(line);
        slow.line(line, Instant::now());
    });
    if in_turn {
        say::bytes(slow.to_string().as_bytes());
    }
    told(outcome, before, &program.source, ok);
}

/// A program that did not even come to a result line: a crash, the time limit.
pub fn told(outcome: &mut Outcome, before: usize, name: &str, ok: Result<bool>) {
    let ok = ok.unwrap_or_else(|e| {
        say!("xtask: {e:#}");
        false
    });
    if !ok && outcome.failed == before {
        outcome.step(name, false);
    }
}

fn environment(mut command: Command) -> Command {
    command.env("IX_IXCP", target_dir().join("debug/ixcp"));
    with_images(&mut command);
    seeded(&mut command);
    command
}

/// Property tests draw the same cases in every normal run, unless another seed is asked for: what they have not found yet
/// is for long runs to find, and not for whoever's change is tested just then.
pub fn seeded(command: &mut Command) {
    const SEED: &str = "PROPTEST_RNG_SEED";
    if std::env::var_os(SEED).is_none() {
        command.env(SEED, "1");
    }
}

/// With images built, a test that finds none is wrong, not skipped.
pub fn with_images(command: &mut Command) {
    command.env("IX_NEED_IMAGES", "1");
    if let Ok(this) = std::env::current_exe() {
        command.env("IX_XTASK", this);
    }
}

/// What is done beside the machines. Tells the programs that are not to be run beside them.
fn beside(alone: Sender<Vec<Program>>) -> Outcome {
    let mut outcome = Outcome::default();
    // With the fuzzer's door, which ordinary builds leave out.
    let clippy = ["clippy", "--quiet", "--workspace", "--all-targets", "--features"];
    let strict = ["ix-fuzz/libfuzzer", "--", "-D", "warnings"];
    let mut command = When::Idle.cargo();
    let ok = quietly("clippy", command.args(clippy).args(strict), |_| ());
    outcome.step("clippy", ok.unwrap_or(false));
    let Some(built) = build(When::Idle, &ALL) else {
        outcome.step("the tests are built", false);
        return outcome;
    };
    say!("--- {} all tests are built", clock());
    let of_others = |program: &Program| is_of(program, &[E2E]) || is_of(program, &ALONE);
    let _ = alone.send(built.iter().filter(|p| is_of(p, &ALONE)).cloned().collect());
    drop(alone);
    let mut programs: Vec<_> = built.iter().filter(|p| !of_others(p)).collect();
    // What takes longest, and on one core, is not left for the end, when the other would have nothing to do.
    programs.sort_by_key(|program| !is_of(program, &["tests/tests/"]));
    for program in programs {
        let when = if is_of(program, &IMPATIENT) { When::Always } else { When::Idle };
        let before = outcome.failed;
        let mut command = environment(program.command(when));
        let ok = quietly(&program.source, &mut command, |line| outcome.line(line));
        told(&mut outcome, before, &program.source, ok);
    }
    // What stands in comments has no program of its own.
    let before = outcome.failed;
    let mut command = environment(When::Idle.cargo());
    command
        .args(["test", "--quiet", "--doc", "--no-fail-fast"])
        .args(ALL)
        .args(["--", "--format=pretty"]);
    let ok = quietly("examples in comments", &mut command, |line| outcome.line(line));
    told(&mut outcome, before, "examples in comments", ok);
    outcome
}

/// Runs a program whose words are shown when it has ended, in one piece.
fn quietly(name: &str, command: &mut Command, line: impl FnMut(&str) + Send) -> Result<bool> {
    let (start, said) = (Instant::now(), Mutex::new(Vec::new()));
    let ok = watch(command, STEP_MAX, &Shown::Later(&said), line);
    let seconds = start.elapsed().as_secs_f64();
    let said = said.into_inner().unwrap_or_default();
    // At once, so that nothing comes in between.
    let heading = format!("--- {} beside: {name} ({seconds:.1} s)\n", clock());
    say::bytes(&[heading.as_bytes(), &said].concat());
    ok
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    #[test]
    fn what_is_treated_otherwise_is_there() {
        for source in [&[E2E][..], &ALONE, &IMPATIENT].concat() {
            assert!(root().join(source).exists(), "{source}");
        }
    }

    #[test]
    fn what_was_said_beside_is_read_and_a_failure_of_it_is_one() {
        let mut outcome = Outcome::default();
        let script =
            "echo 'test a ... FAILED'; echo 'test result: F. 1 passed; 1 failed' >&2; exit 1";
        let mut command = When::Idle.command("sh".as_ref());
        let ok = quietly("a shell", command.args(["-c", script]), |line| outcome.line(line));
        told(&mut outcome, 0, "a shell", ok);
        assert_eq!(outcome.summary(), "1 passed, 1 failed, 0 skipped");
        // It did not come to a line.
        let mut command = When::Idle.command("false".as_ref());
        let ok = quietly("false", &mut command, |_| ());
        let before = outcome.failed;
        told(&mut outcome, before, "false", ok);
        assert_eq!(outcome.failures, ["a", "false"]);
    }
}
