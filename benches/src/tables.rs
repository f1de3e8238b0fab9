//! Tables of counts.
use crate::callgrind;
use crate::run::{Run, Scenario, Subject};
use crate::say;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::Path;

/// Which tables.
#[derive(Debug, Args)]
pub struct Tables {
    /// Leaves out what takes longer than some seconds
    #[arg(long)]
    quick: bool,
    /// One table only
    #[arg(long, value_enum)]
    only: Option<Table>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    Echo,
    Life,
    Bulk,
    Timers,
}

/// Prints them.
pub fn print(program: &Path, tables: &Tables) -> Result<()> {
    let wanted = |table| tables.only.is_none_or(|only| only == table);
    let printer = Printer { program, quick: tables.quick };
    anyhow::ensure!(callgrind::valgrind().is_some(), "no valgrind (Debian package valgrind)");
    for table in [Table::Echo, Table::Life, Table::Bulk, Table::Timers] {
        if !wanted(table) {
            continue;
        }
        match table {
            Table::Echo => printer.echo(),
            Table::Life => printer.life(),
            Table::Bulk => printer.bulk(),
            Table::Timers => printer.timers(),
        }
        say!();
    }
    Ok(())
}

struct Printer<'a> {
    program: &'a Path,
    quick: bool,
}

impl Printer<'_> {
    /// Instructions of one operation, or why there is no number.
    fn cell(&self, run: Run, digits: usize) -> String {
        match callgrind::count(self.program, &run.args(), None, false) {
            Ok(counted) => format!("{:.digits$}", counted.each()),
            Err(error) => {
                eprintln!("{error}");
                "failed".to_owned()
            }
        }
    }

    fn head(title: &str, columns: &[String]) {
        say!("| {title} | {} |", columns.join(" | "));
        say!("|---|{}", "---|".repeat(columns.len()));
    }

    fn echo(&self) {
        let sizes: &[usize] =
            if self.quick { &[1, 100, 10_000] } else { &[1, 100, 1_000, 10_000, 1_000_000] };
        let columns: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        Self::head("instructions per 64-byte echo, by connections", &columns);
        for subject in [Subject::Engine, Subject::Contract, Subject::Bare, Subject::Smoltcp] {
            for (batch, offload) in [(1, false), (1, true), (64, false), (64, true)] {
                let cells = sizes.iter().map(|connections| {
                    let slow = subject == Subject::Smoltcp && *connections > 100;
                    let too_many = subject == Subject::Smoltcp && *connections > 10_000;
                    if too_many || batch > *connections {
                        return String::new();
                    }
                    let operations = if slow { 64 } else { 2048 };
                    let connections = *connections;
                    self.cell(
                        Run { subject, connections, batch, operations, offload, ..Run::default() },
                        0,
                    )
                });
                let cells: Vec<String> = cells.collect();
                say!("| {} | {} |", row(subject, batch, offload), cells.join(" | "));
            }
        }
    }

    fn life(&self) {
        Self::head(
            "connect, one request, close: instructions each",
            &["software".to_owned(), "offloaded".to_owned()],
        );
        for subject in [Subject::Engine, Subject::Smoltcp] {
            for batch in [1, 32] {
                let cells = [false, true].map(|offload| {
                    let operations = 512;
                    let scenario = Scenario::Life;
                    self.cell(
                        Run { subject, scenario, batch, operations, offload, ..Run::default() },
                        0,
                    )
                });
                say!("| {}, batch {batch} | {} |", name(subject), cells.join(" | "));
            }
        }
    }

    fn bulk(&self) {
        let columns = ["batch 1", "batch 16", "batch 64"].map(str::to_owned);
        Self::head("one stream, offloaded: instructions by payload byte", &columns);
        for subject in [Subject::Engine, Subject::Smoltcp] {
            for (what, scenario) in [("receive", Scenario::Receive), ("send", Scenario::Send)] {
                let cells = [1, 16, 64].map(|batch| {
                    let (operations, offload) = (2_000_000, true);
                    self.cell(
                        Run { subject, scenario, batch, operations, offload, ..Run::default() },
                        3,
                    )
                });
                say!("| {}, {what} | {} |", name(subject), cells.join(" | "));
            }
        }
    }

    fn timers(&self) {
        let sizes = [1, 1_000, 1_000_000];
        let columns: Vec<String> = sizes.iter().map(ToString::to_string).collect();
        Self::head("instructions by timer, of so many", &columns);
        for (what, scenario) in [
            ("wheel: arm", Scenario::Arm),
            ("wheel: arm for another time", Scenario::Rearm),
            ("wheel: cancel", Scenario::Cancel),
            ("wheel: fire, after sleeping to the deadline", Scenario::Fire),
            ("the application's: event, call, set again", Scenario::AppTimers),
        ] {
            let cells = sizes.map(|connections| {
                // An application may have 4,096.
                if scenario == Scenario::AppTimers && connections > 4096 {
                    return String::new();
                }
                self.cell(Run { scenario, connections, ..Run::default() }, 0)
            });
            say!("| {what} | {} |", cells.join(" | "));
        }
    }
}

fn name(subject: Subject) -> &'static str {
    match subject {
        Subject::Engine => "engine",
        Subject::Bare => "bare responder",
        Subject::Contract => "responder with the contract",
        Subject::Smoltcp => "smoltcp",
    }
}

fn row(subject: Subject, batch: usize, offload: bool) -> String {
    let checksums = if offload { "offloaded" } else { "software" };
    format!("{}, batch {batch}, {checksums}", name(subject))
}
