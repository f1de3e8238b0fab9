//! `cargo xtask defects`: plants each defect of `tests/defects` in a copy of the tree and looks at which
//! seed the simulation finds it. One that it does not find says that the simulation is too weak.
use crate::say::say;
use crate::workspace::{cargo, root, target_dir};
use anyhow::{Context, Result, ensure};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Which, and how far.
#[derive(Debug, Args)]
pub struct Options {
    /// Part of a defect's name
    filter: Option<String>,
    /// Seeds that each is looked for in
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Threads that look; as many as there are cores if not given
    #[arg(long)]
    threads: Option<u64>,
}

/// What became of one.
enum Outcome {
    Found { seed: u64, says: String },
    Survives,
    DoesNotApply(String),
    DoesNotBuild,
}

/// Gives whether every defect was found.
pub fn run(options: &Options) -> Result<bool> {
    let scratch = Scratch::new()?;
    let mut rows = Vec::new();
    for patch in patches(options.filter.as_deref())? {
        let name = patch.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        say!("--- {name}");
        let outcome = scratch.look_for(&patch, options)?;
        let row = match &outcome {
            Outcome::Found { seed, says } => format!("{name:28} | {seed:>5} | {says}"),
            Outcome::Survives => format!("{name:28} |  none | NOT FOUND in {}", options.seeds),
            Outcome::DoesNotApply(why) => format!("{name:28} |     - | DOES NOT APPLY: {why}"),
            Outcome::DoesNotBuild => format!("{name:28} |     - | DOES NOT BUILD"),
        };
        say!("{row}");
        rows.push((matches!(outcome, Outcome::Found { .. }), row));
    }
    let count = rows.len();
    let found = rows.iter().filter(|(found, _)| *found).count();
    say!("\ndefect                       |  seed | what it was found by");
    say!("-----------------------------|-------|---------------------");
    rows.iter().for_each(|(_, row)| say!("{row}"));
    say!("{found} of {count} defects found");
    Ok(found == count && count > 0)
}

fn patches(filter: Option<&str>) -> Result<Vec<PathBuf>> {
    let mut patches: Vec<_> = fs::read_dir(root().join("tests/defects"))
        .context("no tests/defects")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "patch"))
        .filter(|path| filter.is_none_or(|f| path.to_string_lossy().contains(f)))
        .collect();
    patches.sort();
    ensure!(!patches.is_empty(), "no such defect");
    Ok(patches)
}

/// A copy of the tree as it is now, uncommitted changes and all, with a build directory of its own.
struct Scratch {
    tree: PathBuf,
    build: PathBuf,
}

impl Scratch {
    fn new() -> Result<Scratch> {
        let base = target_dir().join("defects");
        let scratch = Scratch { tree: base.join("tree"), build: base.join("build") };
        fs::create_dir_all(&scratch.tree)?;
        Ok(scratch)
    }

    /// Makes the copy what the tree is. Files that are the same keep their time, so that little is
    /// built again.
    fn refresh(&self) -> Result<()> {
        let list = Command::new("git")
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .context("git does not run")?;
        ensure!(list.status.success(), "git cannot list the files");
        let names = String::from_utf8(list.stdout)?;
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            let (from, to) = (root().join(name), self.tree.join(name));
            let Ok(wanted) = fs::read(&from) else {
                let _gone = fs::remove_file(&to);
                continue;
            };
            if fs::read(&to).is_ok_and(|present| present == wanted) {
                continue;
            }
            fs::create_dir_all(to.parent().unwrap_or(&self.tree))?;
            fs::write(&to, wanted)?;
        }
        Ok(())
    }

    fn look_for(&self, patch: &Path, options: &Options) -> Result<Outcome> {
        self.refresh()?;
        let applied = Command::new("git")
            .args(["apply", "-C1"])
            .arg(patch)
            .current_dir(&self.tree)
            // The copy lies within the repository, but is none of its.
            .env("GIT_CEILING_DIRECTORIES", self.tree.parent().unwrap_or(&self.tree))
            .output()?;
        if !applied.status.success() {
            let why = String::from_utf8_lossy(&applied.stderr);
            return Ok(Outcome::DoesNotApply(why.lines().next().unwrap_or("?").to_owned()));
        }
        let built = self.sim(&["--no-run", "--quiet"]).stdin(Stdio::null()).status()?;
        if !built.success() {
            return Ok(Outcome::DoesNotBuild);
        }
        let mut run = self.sim(&["--", "--nocapture", "--exact"]);
        run.arg("dataplanes_and_peers_hold_their_conversations_in_any_network")
            .env("IX_SIM_SEEDS", options.seeds.to_string())
            .env("IX_SIM_FAILURES", "1")
            .env("RUST_BACKTRACE", "0");
        if let Some(threads) = options.threads {
            run.env("IX_SIM_THREADS", threads.to_string());
        }
        let ran = run.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&ran.stdout);
        let failure = |line: &str| {
            let (seed, says) = line.strip_prefix("seed ")?.split_once(" fails: ")?;
            let says = says.split_once("repeats it: ")?.1.chars().take(90).collect();
            Some((seed.parse().ok()?, says))
        };
        Ok(match text.lines().filter_map(failure).min() {
            Some((seed, says)) => Outcome::Found { seed, says },
            None if ran.status.success() => Outcome::Survives,
            // The program itself has ended, in whatever seed it was.
            None => Outcome::Found { seed: 0, says: format!("the program ends: {}", ran.status) },
        })
    }

    fn sim(&self, args: &[&str]) -> Command {
        let mut command = cargo();
        command
            .args(["test", "-p", "ix-tests", "--test", "sim"])
            .args(args)
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.build);
        command
    }
}
