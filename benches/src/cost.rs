//! The command: tables of counts, and the single runs that they are made of.
use crate::app;
use crate::callgrind::{self, Collected};
use crate::collect;
use crate::echo::Echo;
use crate::server::Server;
use crate::server::bare::Bare;
use crate::server::engine::{EngineServer, Setup};
use crate::server::smoltcp::Smoltcp;
use crate::stages;
use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// What messages cost, in instructions and in time.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Option<What>,
    #[command(flatten)]
    tables: Tables,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Args)]
struct Tables {
    /// Leaves out what takes longer than some seconds
    #[arg(long)]
    quick: bool,
}

#[derive(Debug, Subcommand)]
enum What {
    /// One scenario, once: what callgrind runs
    Run(Run),
    /// One scenario, counted
    Count {
        /// Where callgrind's profile goes
        #[arg(long)]
        profile: Option<PathBuf>,
        /// Tells where the instructions go: by stage, file, function and line, so many of the last two
        #[arg(long, num_args = 0..=1, default_missing_value = "40")]
        stages: Option<usize>,
        #[command(flatten)]
        run: Run,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// The engine
    Engine,
    /// The bare responder
    Bare,
    /// smoltcp
    Smoltcp,
}

/// A scenario.
#[derive(Clone, Copy, Debug, Args)]
pub struct Run {
    /// What is looked at
    #[arg(value_enum, default_value = "engine")]
    subject: Subject,
    /// Established connections
    #[arg(short, long, default_value_t = 1)]
    connections: usize,
    /// Frames of one turn
    #[arg(short, long, default_value_t = 1)]
    batch: usize,
    /// Operations
    #[arg(short = 'n', long, default_value_t = 2048)]
    operations: usize,
    /// The network card does checksums and hash
    #[arg(long)]
    offload: bool,
}

impl Run {
    fn args(&self) -> Vec<String> {
        let subject = self.subject.to_possible_value().expect("a name").get_name().to_owned();
        let mut args = vec![subject];
        for (name, value) in [("-c", self.connections), ("-b", self.batch), ("-n", self.operations)]
        {
            args.extend([name.to_owned(), value.to_string()]);
        }
        if self.offload {
            args.push("--offload".to_owned());
        }
        args
    }

    fn run(&self) {
        match self.subject {
            Subject::Engine => {
                let setup = Setup {
                    connections: self.connections,
                    buffers: self.connections.min(16_384) + 64,
                    offload: self.offload,
                    batch: 64,
                };
                self.echo(EngineServer::new(setup, app::Echo::default()));
            }
            Subject::Bare => self.echo(Bare::new(self.connections, self.offload)),
            Subject::Smoltcp => self.echo(Smoltcp::new(self.offload)),
        }
    }

    fn echo<S: Server>(&self, server: S) {
        let mut echo = Echo::new(server, self.connections, self.operations, self.batch);
        collect::instrument();
        let done = echo.count(self.operations, self.batch);
        let clients = &echo.clients;
        println!(
            "timestamps: {}, SACK: {}, shift: {:?}",
            clients.timestamps, clients.sack, clients.shift
        );
        println!("operations: {done}");
    }
}

/// The program.
pub fn main() -> Result<()> {
    let cli = Cli::parse();
    let program = std::env::current_exe()?;
    match cli.command {
        Some(What::Run(run)) => {
            run.run();
            Ok(())
        }
        Some(What::Count { profile, stages, run }) => {
            let kept = std::env::temp_dir().join(format!("cost-{}.callgrind", std::process::id()));
            let scratch = stages.is_some() && profile.is_none();
            let profile = profile.or(scratch.then_some(kept));
            let counted = callgrind::count(&program, &run.args(), profile.as_deref())?;
            println!("{:.1} instructions each, {counted:?}", counted.each());
            if let (Some(most), Some(profile)) = (stages, &profile) {
                stages::sums(&program, profile)?.print(counted.operations, most);
                if scratch {
                    std::fs::remove_file(profile)?;
                }
            }
            Ok(())
        }
        None => echo_table(&program, &cli.tables),
    }
}

fn cell(program: &Path, run: Run) -> String {
    let counted: Result<Collected> = callgrind::count(program, &run.args(), None);
    counted.map_or_else(
        |error| {
            eprintln!("{error}");
            "failed".to_owned()
        },
        |counted| format!("{:.0}", counted.each()),
    )
}

fn echo_table(program: &Path, tables: &Tables) -> Result<()> {
    let sizes: &[usize] =
        if tables.quick { &[1, 100, 10_000] } else { &[1, 100, 1_000, 10_000, 1_000_000] };
    println!("| 64-byte echo, instructions | batch | checksums | {} |", sizes.map_join());
    println!("|---|---|---|{}", "---|".repeat(sizes.len()));
    for subject in [Subject::Engine, Subject::Bare, Subject::Smoltcp] {
        for batch in [1, 64] {
            for offload in [false, true] {
                let mut row = Vec::new();
                for connections in sizes {
                    let most = if subject == Subject::Smoltcp { 10_000 } else { usize::MAX };
                    let operations =
                        if subject == Subject::Smoltcp && *connections > 100 { 64 } else { 2048 };
                    row.push(if *connections > most || batch > *connections {
                        String::new()
                    } else {
                        let run =
                            Run { subject, connections: *connections, batch, operations, offload };
                        cell(program, run)
                    });
                }
                let sums = if offload { "offloaded" } else { "software" };
                println!("| {subject:?} | {batch} | {sums} | {} |", row.join(" | "));
            }
        }
    }
    Ok(())
}

trait MapJoin {
    fn map_join(&self) -> String;
}

impl MapJoin for [usize] {
    fn map_join(&self) -> String {
        self.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
    }
}
