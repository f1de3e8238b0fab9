//! The command.
use crate::callgrind;
use crate::flood;
use crate::idle;
use crate::run::{CONNECTIONS_MAX, Run, up_to};
use crate::say;
use crate::scaling;
use crate::stages;
use crate::tables::{self, Tables};
use crate::times;
use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What messages cost, in instructions and in time. Without a command: all tables.
#[derive(Debug, Parser)]
#[command(name = "cost")]
struct Cli {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    tables: Tables,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One scenario, once: what callgrind runs
    Run(Run),
    /// One scenario, counted under callgrind
    Count {
        /// Where callgrind's profile goes
        #[arg(long)]
        profile: Option<PathBuf>,
        /// Tells where the instructions go: by stage, file, function and line, so many of the last two
        #[arg(long, num_args = 0..=1, default_missing_value = "40")]
        stages: Option<usize>,
        /// Tells of data that is not in a simulated second-level cache of 512 KiB, instead of instructions
        #[arg(long, requires = "stages")]
        misses: bool,
        #[command(flatten)]
        run: Run,
    },
    /// Times against smoltcp and the bare responder
    Times {
        /// Measurements of each
        #[arg(long, default_value_t = 400, value_parser = up_to::<10_000>)]
        rounds: usize,
    },
    /// Two cores of one dataplane beside two dataplanes of one, each thread pinned
    Scaling {
        /// Measurements of each
        #[arg(long, default_value_t = 100, value_parser = up_to::<10_000>)]
        rounds: usize,
    },
    /// Memory of idle connections, and how they are kept alive
    Idle {
        /// Connections
        #[arg(short, long, default_value_t = 1_000_000, value_parser = up_to::<CONNECTIONS_MAX>)]
        connections: usize,
        /// Hours of virtual time; 0: without keep-alive
        #[arg(long, default_value_t = 2)]
        hours: u64,
    },
    /// Spoofed SYNs while established connections talk
    Flood {
        /// Established connections
        #[arg(short, long, default_value_t = 1_000, value_parser = up_to::<100_000>)]
        connections: usize,
        /// SYNs
        #[arg(long, default_value_t = 1_000_000, value_parser = up_to::<{ usize::MAX }>)]
        syns: usize,
    },
}

/// The program.
pub fn main() -> Result<()> {
    let cli = Cli::parse();
    let program = std::env::current_exe()?;
    match cli.command {
        Some(What::Run(run)) => {
            run.check()?;
            say!("operations: {}", run.run());
        }
        Some(What::Count { profile, stages, misses, run }) => {
            count(&program, &run, profile, stages, misses)?;
        }
        Some(What::Times { .. }) if std::env::var_os(LARGE_PAGES.0).is_none() => {
            again_in_large_pages(&program)?;
        }
        Some(What::Times { rounds }) => times::run(rounds).print(),
        Some(What::Scaling { rounds }) => scaling::run(rounds)?.print(),
        Some(What::Idle { connections, hours }) => idle::run(connections, hours).print(hours),
        Some(What::Flood { connections, syns }) => flood::run(connections, syns).print(),
        None => tables::print(&program, &cli.tables)?,
    }
    Ok(())
}

/// Memory in pages of 2 MiB, as the kernel has all of its own; to be said before a program starts.
const LARGE_PAGES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");

/// Runs the program with the same arguments where `malloc` asks for large pages.
fn again_in_large_pages(program: &Path) -> Result<()> {
    let arguments = std::env::args_os().skip(1);
    let status =
        Command::new(program).args(arguments).env(LARGE_PAGES.0, LARGE_PAGES.1).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn count(
    program: &Path,
    run: &Run,
    profile: Option<PathBuf>,
    stages: Option<usize>,
    misses: bool,
) -> Result<()> {
    run.check()?;
    let scratch = std::env::temp_dir().join(format!("cost-{}.callgrind", std::process::id()));
    let kept = profile.is_some();
    let profile = profile.or(stages.map(|_| scratch));
    let counted = callgrind::count(program, &run.args(), profile.as_deref(), misses)?;
    let callgrind::Collected { instructions, operations } = counted;
    let events = if misses { stages::MISSES } else { stages::INSTRUCTIONS };
    let read = |profile: &PathBuf| stages::sums(program, profile, events);
    let sums = if stages.is_some() { profile.as_ref().map(read).transpose()? } else { None };
    // Before anything is said, which may end the program.
    if let (false, Some(profile)) = (kept, &profile) {
        std::fs::remove_file(profile)?;
    }
    say!("instructions each: {:.3} ({instructions} for {operations})", counted.each());
    if let (Some(most), Some(sums)) = (stages, sums) {
        sums.print(counted.operations, most);
    }
    Ok(())
}
