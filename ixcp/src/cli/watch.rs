//! The command line of what watches: `top`, `metrics`; and of `completions`.
use super::{Cli, Target, seconds};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// `ixcp top`.
#[derive(Debug, Args)]
pub struct Top {
    /// Which dataplane.
    #[command(flatten)]
    pub target: Target,
    /// Seconds between two looks: rates are of this time
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    pub interval: Duration,
    /// Prints one frame as plain text and ends
    #[arg(long)]
    pub once: bool,
    /// Prints one frame as JSON and ends
    #[arg(long)]
    pub json: bool,
    /// Draws one frame into this file, as SVG, and ends; `-` is standard output
    #[arg(long, value_name = "FILE", conflicts_with = "json")]
    pub svg: Option<PathBuf>,
}

/// `ixcp metrics`.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Where to listen, on this machine only; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9478", value_parser = loopback)]
    pub listen: SocketAddr,
    /// Prints the text once and ends
    #[arg(long)]
    pub once: bool,
}

/// `ixcp completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// For which shell
    pub shell: Shell,
}

impl Completions {
    /// The script.
    pub fn script(&self) -> String {
        let mut bytes = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ixcp", &mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// An interval that neither keeps a core busy nor looks like a hang.
fn interval(text: &str) -> Result<Duration, String> {
    let interval = seconds(text)?;
    if (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&interval) {
        Ok(interval)
    } else {
        Err("0.1 to 3600 seconds are wanted".to_owned())
    }
}

/// The counters tell who talks to whom, and the server knows no passwords: it does not leave the machine.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "an address and a port are wanted, such as 127.0.0.1:9478".to_owned())?;
    // Not `::ffff:127.0.0.1`: what a mapped address reaches is up to the system's settings.
    if address.ip().is_loopback() {
        return Ok(address);
    }
    let own = match address.ip() {
        IpAddr::V4(_) => "127.0.0.1",
        IpAddr::V6(_) => "[::1]",
    };
    Err(format!(
        "{} can be reached from other machines, and there is no access control: listen on {own}:{} and let a \
         proxy or a tunnel lead to it",
        address.ip(),
        address.port()
    ))
}

#[cfg(test)]
mod tests;
