//! The command line of what decides: `daemon`, `policy`; and of `record` and `plot`.
use super::{Target, seconds};
use crate::policy::Kind;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// `ixcp daemon`.
#[derive(Debug, Args)]
pub struct Daemon {
    /// Only this dataplane; may be repeated. Default: all, also those that come later
    #[arg(long)]
    pub name: Vec<String>,
    /// Policy of those for which `ixcp policy set` has said nothing [default: static, which leaves cores alone]
    #[arg(long)]
    pub policy: Option<Kind>,
    /// Configuration; what it does not say is as `ixcp policy init` prints it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One more setting, like latency.target_us=50; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Prints the documented configuration and ends
    #[arg(long)]
    pub print_config: bool,
}

/// `ixcp policy`.
#[derive(Debug, Args)]
pub struct Policy {
    /// What to do.
    #[command(subcommand)]
    pub action: PolicyAction,
    /// Name of the dataplane; not needed if only one runs, or if it is about none
    #[arg(long, global = true)]
    pub name: Option<String>,
}

/// What is done about policies.
#[derive(Debug, Subcommand)]
pub enum PolicyAction {
    /// Shows which policy decides about a dataplane, and by which numbers
    Show(PolicyShow),
    /// Sets the policy of a dataplane; a daemon takes it over at once, or when it starts
    Set(PolicySet),
    /// Shows what the daemon has decided, and from which figures
    Log(PolicyLog),
    /// Prints the documented configuration, with its defaults
    Init,
    /// Shows what a policy would do under a load, in simulated time; needs no dataplane
    Simulate(Box<Simulate>),
}

/// `ixcp policy show`.
#[derive(Debug, Args)]
pub struct PolicyShow {
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// `ixcp policy set`.
#[derive(Debug, Args)]
pub struct PolicySet {
    /// Which policy
    pub policy: Kind,
    /// Settings, like latency.target_us=50 or job.pid=4711; they stay until others are given
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// Forgets earlier settings first
    #[arg(long)]
    pub reset: bool,
}

/// `ixcp policy log`.
#[derive(Debug, Args)]
pub struct PolicyLog {
    /// Goes on with what is decided, until the dataplane ends or Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Prints JSON (with --follow one object a line)
    #[arg(long)]
    pub json: bool,
}

/// `ixcp policy simulate`.
#[derive(Debug, Args)]
pub struct Simulate {
    /// Which policy
    #[arg(long, default_value = "latency")]
    pub policy: Kind,
    /// The load: ramp, mirror, step, sine, or a file of comma-separated values (see docs/policies.md)
    #[arg(long, default_value = "ramp", value_name = "CURVE|FILE")]
    pub load: String,
    /// Cores of the dataplane
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub cores: u32,
    /// Requests per second at the peak [default: a recording's own, else what all cores carry]
    #[arg(long, value_name = "REQUESTS", value_parser = positive)]
    pub peak: Option<f64>,
    /// Connections, which a hash spreads over the flow groups
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub connections: u32,
    /// From which everything random comes
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Configuration, as the daemon takes it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// One more setting, like latency.target_us=50; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Draws it into this file, as SVG
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,
    /// Writes it into this file, as comma-separated values
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Prints every decision
    #[arg(long)]
    pub decisions: bool,
    /// Prints JSON
    #[arg(long)]
    pub json: bool,
}

/// `ixcp record`.
#[derive(Debug, Args)]
pub struct Record {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Ends after so many seconds [default: when the dataplane ends, or Ctrl-C]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Seconds between two lines
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = interval)]
    pub interval: Duration,
    /// File to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
}

/// `ixcp plot`.
#[derive(Debug, Args)]
pub struct Plot {
    /// What `ixcp record` or `ixcp policy simulate --csv` has written
    pub file: PathBuf,
    /// File to write; `-` is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
    /// What stands above it [default: the file's name]
    #[arg(long)]
    pub title: Option<String>,
    /// Draws a line at this delay, µs
    #[arg(long, value_name = "MICROSECONDS", value_parser = positive)]
    pub target: Option<f64>,
}

fn positive(text: &str) -> Result<f64, String> {
    let wanted = "a number above 0 is wanted";
    let value: f64 = text.parse().map_err(|_| wanted)?;
    if value > 0.0 && value.is_finite() { Ok(value) } else { Err(wanted.to_owned()) }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if (Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("0.01 to 3600 seconds are wanted".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Command};
    use clap::Parser;

    #[test]
    fn the_name_may_stand_before_and_after_what_is_done() {
        for words in [
            "policy --name kv show",
            "policy show --name kv --json",
            "policy set --name kv latency latency.target_us=50",
            "policy --name kv set latency",
            "policy --name kv log --follow",
        ] {
            let cli = Cli::try_parse_from(["ixcp"].into_iter().chain(words.split(' '))).unwrap();
            let Command::Policy(policy) = cli.command else { panic!("not policy") };
            assert_eq!(policy.name.as_deref(), Some("kv"), "{words}: {policy:?}");
        }
        // What is at the end of a line has no files that a policy could be kept in.
        assert!(Cli::try_parse_from(["ixcp", "policy", "show", "--serial", "line"]).is_err());
    }
}
