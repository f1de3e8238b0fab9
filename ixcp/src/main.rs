//! `ixcp`: the control process of IX. Everything happens in the library; here errors become text.
#![deny(unsafe_code, clippy::print_stdout)]

use clap::Parser;
use ixcp::cli::{Cli, Command};
use ixcp::{
    acl, capture, control, daemon, events, launch, metrics, plot, policy, record, steer, top,
};
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => launch::run(&options),
        Command::Status(options) => control::status(&options),
        Command::Stop(options) => control::stop(&options),
        Command::RestartApp(options) => control::restart_app(&options),
        Command::Ls(options) => control::ls(&options),
        Command::Top(options) => top::run(&options),
        Command::Metrics(options) => metrics::run(&options),
        Command::Cores(options) => steer::cores(&options),
        Command::Flows(options) => steer::flows(&options),
        Command::Batch(options) => steer::batch(&options),
        Command::Daemon(options) => daemon::run(&options),
        Command::Policy(options) => policy::command::run(&options),
        Command::Record(options) => record::run(&options),
        Command::Plot(options) => plot::run(&options),
        Command::Pcap(options) => capture::pcap(&options),
        Command::Trace(options) => capture::trace(&options),
        Command::Events(options) => events::events(&options),
        Command::Acl(options) => acl::run(&options),
        Command::Completions(options) => {
            control::print(&options.script());
            Ok(0)
        }
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("ixcp: {error:#}");
        1
    });
    match control::not_printed() {
        None => ExitCode::from(code),
        Some(error) => {
            eprintln!("ixcp: cannot write to standard output: {error}");
            ExitCode::from(code.max(1))
        }
    }
}
