//! What a distribution's start-up does, as far as a peer needs it.
use crate::netlink;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs;
use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where the archive has the modules, named so that their order is that of their needs.
const MODULES: &str = "/modules";
/// The only card.
const CARD: &str = "eth0";
/// How long the card may take to appear.
const CARD_MAX: Duration = Duration::from_secs(10);

/// From a bare kernel to a station on the network.
pub fn boot() -> Result<()> {
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)?;
    load_modules()?;
    let line = fs::read_to_string("/proc/cmdline")?;
    let (ip, prefix) = address(&line)
        .ok_or_else(|| Error::other("the command line has no ix.address=A.B.C.D/LENGTH"))?;
    let deadline = Instant::now() + CARD_MAX;
    while nix::net::if_::if_nametoindex(CARD).is_err() {
        if Instant::now() > deadline {
            return Err(Error::other("no network card"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    netlink::configure(CARD, ip, prefix)?;
    // What one connection has learnt of the path must not decide how the next one begins.
    fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")?;
    settings(&line)
}

/// `ix.sysctl=net.ipv4.tcp_sack=0`, any number of them.
fn settings(line: &str) -> Result<()> {
    for setting in line.split_whitespace().filter_map(|w| w.strip_prefix("ix.sysctl=")) {
        let (name, value) =
            setting.split_once('=').ok_or_else(|| Error::other("ix.sysctl=NAME=VALUE"))?;
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(&path, value.replace(',', " "))
            .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

fn address(line: &str) -> Option<(Ipv4Addr, u8)> {
    let value = line.split_whitespace().find_map(|w| w.strip_prefix("ix.address="))?;
    let (ip, prefix) = value.split_once('/')?;
    Some((ip.parse().ok()?, prefix.parse().ok()?))
}

fn load_modules() -> Result<()> {
    let mut files: Vec<_> =
        fs::read_dir(MODULES)?.map(|e| e.map(|e| e.path())).collect::<Result<_>>()?;
    files.sort();
    for path in files {
        let file = fs::File::open(&path)?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .map_err(|e| Error::other(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

/// Ends the machine.
pub fn power_off() -> ! {
    let _ = reboot(RebootMode::RB_POWER_OFF);
    // The kernel panics when its first process ends; that ends the machine, too.
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_among_other_words() {
        let line = "console=ttyS0 ix.address=10.0.2.101/24 quiet\n";
        assert_eq!(address(line), Some((Ipv4Addr::new(10, 0, 2, 101), 24)));
        assert_eq!(address("quiet"), None);
    }
}
