//! `cargo xtask fuzz`: libFuzzer on the targets of `tests/fuzz`, built by the pinned stable toolchain.
//!
//! The compiler's coverage pass is an LLVM pass like any other and needs no unstable flag. Debug
//! assertions and overflow checks are on (profile `fuzz`). What is found is kept in
//! `target/fuzz/findings`, and a target goes on after a finding as long as it has time.
use crate::packages::{self, Package};
use crate::say::say;
use crate::workspace::{cargo, output, quiet, run, target_dir};
use anyhow::{Context, Result, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// The target triple, named so that build scripts and macros are not instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
const COVERAGE: &str = "-Cforce-frame-pointers=yes -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares";
/// Seconds after which one input is a hang.
const HANG: u32 = 20;
/// Starts of one target: each ends with a finding, or with its time.
const STARTS_MAX: u32 = 8;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(10);

/// One target, as `ix-fuzz-corpus list` names it.
struct Target {
    name: String,
    bytes_max: u32,
    share: u32,
}

/// What a target's run came to.
#[derive(Default)]
struct Report {
    seconds: f64,
    executions: u64,
    edges: u64,
    features: u64,
    findings: usize,
}

/// Runs the targets whose names contain `filter` for `seconds` in all. Gives whether nothing was
/// found. With `keep`, the minimised corpora replace those in the tree.
pub fn fuzz(filter: Option<&str>, seconds: u64, keep: bool) -> Result<bool> {
    packages::install(&[Package::GXX], true)?;
    let binary = build()?;
    let mut targets = list()?;
    if let Some(filter) = filter {
        // A whole name means that target alone.
        let whole = targets.iter().any(|t| t.name == filter);
        targets.retain(|t| if whole { t.name == filter } else { t.name.contains(filter) });
    }
    ensure!(!targets.is_empty(), "no fuzz target's name contains {:?}", filter.unwrap_or(""));
    let shares: u32 = targets.iter().map(|t| t.share).sum();
    let mut lines = Vec::new();
    let mut findings = 0;
    for target in &targets {
        let part = seconds * u64::from(target.share) / u64::from(shares);
        let report = run_target(&binary, target, Duration::from_secs(part.max(1)))?;
        findings += report.findings;
        lines.push(format!(
            "{:<14} {:>7.0} s {:>12} executions {:>8.0} /s {:>6} edges {:>7} features {:>3} findings",
            target.name,
            report.seconds,
            report.executions,
            report.executions as f64 / report.seconds.max(0.001),
            report.edges,
            report.features,
            report.findings
        ));
        if keep {
            minimise(&binary, target)?;
        }
    }
    say!("{}", lines.join("\n"));
    if findings > 0 {
        say!(
            "{findings} findings are in {}: docs/testing.md tells how to run one",
            findings_dir().display()
        );
    }
    Ok(findings == 0)
}

fn fuzz_dir() -> PathBuf {
    target_dir().join("fuzz")
}

fn findings_dir() -> PathBuf {
    fuzz_dir().join("findings")
}

fn corpus_dir(target: &Target) -> PathBuf {
    fuzz_dir().join("corpus").join(&target.name)
}

/// The instrumented program.
fn build() -> Result<PathBuf> {
    say!("xtask: building the fuzz targets with coverage");
    let mut command = cargo();
    command.args(["build", "-p", "ix-fuzz", "--bin", "ix-fuzz", "--features", "link"]);
    command.args(["--profile", "fuzz", "--target", TRIPLE, "--target-dir"]).arg(fuzz_dir());
    command.args(quiet()).env("RUSTFLAGS", COVERAGE);
    run(&mut command)?;
    Ok(fuzz_dir().join(TRIPLE).join("fuzz").join("ix-fuzz"))
}

/// The program that knows the corpora; plainly built.
fn corpus_tool(words: &[&std::ffi::OsStr]) -> Result<String> {
    let mut command = cargo();
    command.args(["run", "--quiet", "-p", "ix-fuzz", "--bin", "ix-fuzz-corpus", "--"]).args(words);
    output(&mut command)
}

fn list() -> Result<Vec<Target>> {
    let text = corpus_tool(&["list".as_ref()])?;
    let target = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        Some(Target {
            name,
            bytes_max: words.next()?.parse().ok()?,
            share: words.next()?.parse().ok()?,
        })
    };
    text.lines()
        .map(|line| target(line).with_context(|| format!("a target's line: {line}")))
        .collect()
}

fn run_target(binary: &Path, target: &Target, time: Duration) -> Result<Report> {
    let corpus = corpus_dir(target);
    let before = known_findings(target)?;
    corpus_tool(&["unpack".as_ref(), target.name.as_ref(), corpus.as_ref()])?;
    let mut report = Report::default();
    let start = Instant::now();
    for _ in 0..STARTS_MAX {
        let left = time.saturating_sub(start.elapsed());
        if left < Duration::from_secs(1) {
            break;
        }
        once(binary, target, left, &mut report)?;
    }
    report.seconds = start.elapsed().as_secs_f64();
    report.findings = known_findings(target)?.difference(&before).count();
    Ok(report)
}

/// Names of the inputs that were found to break the target.
fn known_findings(target: &Target) -> Result<BTreeSet<String>> {
    fs::create_dir_all(findings_dir())?;
    let prefix = format!("{}-", target.name);
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(findings_dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.strip_prefix(&prefix).is_some_and(|rest| !rest.contains("slow")) {
            names.insert(name);
        }
    }
    Ok(names)
}

fn command(binary: &Path, target: &Target) -> Command {
    let mut command = Command::new(binary);
    command.env("IX_FUZZ_TARGET", &target.name).stdin(Stdio::null());
    command.arg(format!("-max_len={}", target.bytes_max)).arg(format!("-timeout={HANG}"));
    command.arg(format!("-artifact_prefix={}/{}-", findings_dir().display(), target.name));
    command
}

/// One run of libFuzzer, which ends at the first finding.
fn once(binary: &Path, target: &Target, time: Duration, report: &mut Report) -> Result<()> {
    let mut command = command(binary, target);
    command.arg(format!("-max_total_time={}", time.as_secs().max(1))).arg("-print_final_stats=1");
    command.arg(corpus_dir(target)).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot start the fuzzer")?;
    let lines = BufReader::new(child.stderr.take().context("its output")?);
    let mut told = Instant::now();
    for line in lines.lines() {
        let line = line.unwrap_or_default();
        if let Some(edges) = number_after(&line, "cov: ") {
            report.edges = report.edges.max(edges);
            report.features = report.features.max(number_after(&line, "ft: ").unwrap_or(0));
            if told.elapsed() >= PROGRESS {
                told = Instant::now();
                say!("{}: {line}", target.name);
            }
        } else if let Some(executions) = number_after(&line, "stat::number_of_executed_units:") {
            report.executions += executions;
        } else if line.contains("panicked at") || line.contains("ERROR: libFuzzer") {
            say!("{}: {line}", target.name);
        }
    }
    child.wait()?;
    Ok(())
}

/// The number that stands behind `what`.
fn number_after(line: &str, what: &str) -> Option<u64> {
    let rest = line.split(what).nth(1)?.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

/// Keeps the smallest inputs that reach all that the corpus reaches, in the tree.
fn minimise(binary: &Path, target: &Target) -> Result<()> {
    let small = fuzz_dir().join("small").join(&target.name);
    if small.exists() {
        fs::remove_dir_all(&small)?;
    }
    fs::create_dir_all(&small)?;
    let mut command = command(binary, target);
    command.args(["-merge=1", "-use_value_profile=0"]).arg(&small).arg(corpus_dir(target));
    run(command.stdout(Stdio::null()).stderr(Stdio::null()))?;
    corpus_tool(&["pack".as_ref(), target.name.as_ref(), small.as_ref()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::number_after;

    #[test]
    fn numbers_are_read_out_of_the_fuzzer_s_lines() {
        let line = "#8683\tNEW    cov: 1743 ft: 5285 corp: 413/2990b lim: 11 exec/s: 4341";
        assert_eq!(number_after(line, "cov: "), Some(1743));
        assert_eq!(number_after(line, "ft: "), Some(5285));
        assert_eq!(number_after(line, "nothing: "), None);
        let line = "stat::number_of_executed_units: 27937";
        assert_eq!(number_after(line, "stat::number_of_executed_units:"), Some(27_937));
    }
}
