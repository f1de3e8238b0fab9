//! `cargo xtask`: images, runs and tests. The scripts are thin doors to this.
// Standard output may be closed or full: `say!` knows.
#![deny(unsafe_code, clippy::print_stdout)]

mod bochs;
mod bochs_run;
mod ci;
mod cost;
mod cpio;
mod defects;
mod fuzz;
mod image;
mod iso;
mod linux;
mod outcome;
mod packages;
mod programs;
mod qemu;
mod say;
mod slowest;
mod test;
mod watch;
mod workspace;

use clap::{Parser, Subcommand};
use say::say;
use std::ffi::OsString;
use std::process::ExitCode;

/// Images, runs and tests of IX.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds kernel and applications into build/images
    Image,
    /// Builds an image for real machines, BIOS and UEFI: build/images/ix.iso
    Iso(iso::Options),
    /// Builds the images and starts a dataplane: takes the options of `ixcp run`
    #[command(disable_help_flag = true)]
    Run {
        /// Options of `ixcp run`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Everything that CI checks; with a filter only the tests whose names contain it
    Test {
        /// Part of a test's name
        filter: Option<String>,
        /// Installs nothing, even as root
        #[arg(long)]
        no_install: bool,
    },
    /// The long tests: the same ones with many more seeds and steps
    Prove {
        /// Part of a test's name; `sim`: the simulation alone; `bridge`: beside Linux, with a table;
        /// `e2e-ixgbe`: the end-to-end tests with an 82599; `e2e-iommu`: behind an IOMMU, too
        filter: Option<String>,
        #[command(flatten)]
        walk: test::Walk,
    },
    /// Plants defects in a copy of the tree, each of which the simulation must find
    Defects(defects::Options),
    /// What messages cost, in instructions and in time: tables; takes the options of `benches`' program
    #[command(disable_help_flag = true)]
    Cost {
        /// Options of the program, see `--help`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Fetches Bochs into build/bochs, without root
    Bochs,
    /// Builds the images and starts them in Bochs, which has VT-x
    BochsRun(bochs_run::Options),
    /// Makes a Linux guest in build/linux: the distribution's kernel, fetched without root, and one program
    LinuxGuest {
        /// One for an Intel 82599, in build/linux-ixgbe
        #[arg(long)]
        ixgbe: bool,
    },
    /// Runs the fuzz targets guided by coverage
    Fuzz {
        /// A target, or part of the names of some
        target: Option<String>,
        /// Seconds for all of them
        #[arg(long, default_value_t = 600)]
        seconds: u64,
        /// Puts the minimised corpora into the tree
        #[arg(long)]
        keep: bool,
    },
    /// Fetches another QEMU of the distribution into build/qemu-VERSION, without root
    Qemu {
        /// Its major version
        #[arg(long, default_value_t = 10)]
        version: u32,
        /// One that takes devices of other processes (vfio-user), whatever its version, into build/qemu-vfio-user
        #[arg(long, conflicts_with = "version")]
        vfio_user: bool,
    },
}

fn main() -> ExitCode {
    let code = carry_out(Cli::parse().command);
    match say::not_said() {
        None => code,
        Some(error) => {
            eprintln!("xtask: cannot write to standard output: {error}");
            if code == ExitCode::SUCCESS { ExitCode::FAILURE } else { code }
        }
    }
}

fn carry_out(command: Command) -> ExitCode {
    if let Command::BochsRun(options) = &command {
        return bochs_run::run(options).map_or_else(failed, |status| {
            if status == bochs_run::IN_ORDER {
                eprintln!("xtask: the machine ended in order: status {status}, as QEMU's would be");
            }
            ExitCode::from(status)
        });
    }
    let result = match command {
        Command::Image => image::build().map(|()| true),
        Command::Iso(options) => iso::build(&options).map(|path| {
            say!("{}", path.display());
            true
        }),
        Command::Run { args } => image::run(&args).map(|()| true),
        Command::Test { filter, no_install } => match filter {
            Some(filter) => test::some(&filter, !no_install),
            None => ci::run(!no_install),
        },
        Command::Prove { filter, walk } => match filter.as_deref() {
            Some("sim") => test::prove_sim(&walk),
            Some("bridge") => test::prove_bridge(),
            Some("e2e-ixgbe") => test::prove_card(&[]),
            Some("e2e-iommu") => test::prove_card(&["--iommu"]),
            filter => test::prove(filter),
        },
        Command::Defects(options) => defects::run(&options),
        Command::Cost { args } => cost::run(&args),
        Command::Bochs => bochs::fetch().map(|path| {
            say!("{}", path.display());
            true
        }),
        Command::BochsRun(_) => Ok(true),
        Command::LinuxGuest { ixgbe } => linux::build(match ixgbe {
            true => &linux::IXGBE,
            false => &linux::VIRTIO,
        })
        .map(|path| {
            say!("{}", path.display());
            true
        }),
        Command::Fuzz { target, seconds, keep } => fuzz::fuzz(target.as_deref(), seconds, keep),
        Command::Qemu { version, vfio_user } => {
            let fetched = if vfio_user { qemu::fetch_vfio_user() } else { qemu::fetch(version) };
            fetched.map(|path| {
                say!("{}", path.display());
                true
            })
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(error),
    }
}

#[allow(clippy::needless_pass_by_value, reason = "it is passed as a function")]
fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("xtask: {error:#}");
    ExitCode::FAILURE
}
