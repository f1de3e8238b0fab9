//! A TAP interface of this machine, for TCP against Linux's own stack. Needs root.
use crate::need;
use crate::tools::run;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// A TAP that goes away with this value.
#[derive(Debug)]
pub struct Tap {
    ip: PathBuf,
    /// The interface's name.
    pub name: String,
    /// The guest's address on it, with the prefix length.
    pub guest: String,
}

impl Tap {
    /// Makes one, with an address for this machine; `None` after saying SKIPPED.
    pub fn make(multi_queue: bool) -> Option<Tap> {
        need::root()?;
        let ip = need::tool(&["ip"], "iproute2")?;
        if !std::path::Path::new("/dev/net/tun").exists() {
            need::skip("no /dev/net/tun");
            return None;
        }
        // Of this process alone, so that two runs on one machine do not meet.
        let id = std::process::id();
        let name = format!("ixt{}", id % 1_000_000);
        let (net, sub) = (64 + id % 64, (id >> 6) % 256);
        let mut add = Command::new(&ip);
        add.args(["tuntap", "add", "dev", &name, "mode", "tap"]);
        if multi_queue {
            add.arg("multi_queue");
        }
        let made = run(&mut add, LIMIT);
        if !made.ok() {
            need::skip(&format!("cannot make a TAP: {}", made.err.trim()));
            return None;
        }
        let tap = Tap { ip, name, guest: format!("100.{net}.{sub}.2/24") };
        tap.ip(&["address", "add", &format!("100.{net}.{sub}.1/24"), "dev", &tap.name]);
        tap.ip(&["link", "set", &tap.name, "up"]);
        Some(tap)
    }

    fn ip(&self, args: &[&str]) {
        let done = run(Command::new(&self.ip).args(args), LIMIT);
        assert!(done.ok(), "ip {args:?}: {}", done.err);
    }

    /// Sets the largest IP packet of this machine's end.
    pub fn set_mtu(&self, mtu: u16) {
        self.ip(&["link", "set", &self.name, "mtu", &mtu.to_string()]);
    }

    /// The guest's address.
    pub fn guest_ip(&self) -> std::net::Ipv4Addr {
        let ip = self.guest.split('/').next().unwrap_or_default();
        ip.parse().expect("an address")
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let _ = run(Command::new(&self.ip).args(["link", "delete", &self.name]), LIMIT);
    }
}
