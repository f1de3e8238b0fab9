//! Debian packages that the tools need: installed through apt where that is possible, with a word
//! about it. Which repository they come from is the system's own configuration.
use crate::workspace::{self, has};
use anyhow::{Context, Result, bail};
use std::path::Path;
use std::process::{Command, Stdio};

/// A package and how one sees that it is there.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Debian's name.
    pub name: &'static str,
    /// Whether what it provides is there.
    present: fn() -> bool,
}

impl Package {
    /// QEMU.
    pub const QEMU: Package =
        Package { name: "qemu-system-x86", present: || has("qemu-system-x86_64") };
    /// The stock memcached, which the tests compare with.
    pub const MEMCACHED: Package = Package { name: "memcached", present: || has("memcached") };
    /// `memccapable`, the conformance test of memcached's protocol.
    pub const MEMCCAPABLE: Package =
        Package { name: "libmemcached-tools", present: || has("memccapable") || has("memcapable") };
    /// A memcached client in Python.
    pub const PYMEMCACHE: Package = Package { name: "python3-pymemcache", present: has_pymemcache };
    /// `ip`, to make a TAP.
    pub const IPROUTE: Package = Package { name: "iproute2", present: || has("ip") };
    /// `grub-mkrescue`, and what it puts into an image: GRUB for BIOS and for UEFI.
    pub const GRUB: Package = Package { name: "grub-common", present: || has("grub-mkrescue") };
    pub const GRUB_BIOS: Package =
        Package { name: "grub-pc-bin", present: || is_there("/usr/lib/grub/i386-pc/cdboot.img") };
    pub const GRUB_EFI: Package = Package {
        name: "grub-efi-amd64-bin",
        present: || is_there("/usr/lib/grub/x86_64-efi/multiboot2.mod"),
    };
    pub const XORRISO: Package = Package { name: "xorriso", present: || has("xorriso") };
    pub const MTOOLS: Package = Package { name: "mtools", present: || has("mformat") };
    /// UEFI for QEMU.
    pub const OVMF: Package =
        Package { name: "ovmf", present: || is_there("/usr/share/ovmf/OVMF.fd") };

    /// Wireshark's tools, which read what `ixcp pcap` writes.
    pub const TSHARK: Package =
        Package { name: "tshark", present: || has("tshark") && has("capinfos") };

    /// A C++ compiler, for libFuzzer.
    pub const GXX: Package = Package { name: "g++", present: || has("c++") };

    /// Counts instructions.
    pub const VALGRIND: Package = Package { name: "valgrind", present: || has("valgrind") };

    /// All that the tests use.
    pub const TESTS: [Package; 13] = [
        Package::QEMU,
        Package::MEMCACHED,
        Package::MEMCCAPABLE,
        Package::PYMEMCACHE,
        Package::IPROUTE,
        Package::GRUB,
        Package::GRUB_BIOS,
        Package::GRUB_EFI,
        Package::XORRISO,
        Package::MTOOLS,
        Package::OVMF,
        Package::TSHARK,
        Package::VALGRIND,
    ];
}

fn is_there(file: &str) -> bool {
    Path::new(file).is_file()
}

/// The distribution's own Python: another one in the search path does not see its packages.
fn has_pymemcache() -> bool {
    Command::new("/usr/bin/python3")
        .args(["-c", "import pymemcache"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

/// Names of those that are not there.
pub fn missing(packages: &[Package]) -> Vec<&'static str> {
    packages.iter().filter(|p| !(p.present)()).map(|p| p.name).collect()
}

/// Installs what is missing. If that is not possible: an error if `required`, else a word.
pub fn install(packages: &[Package], required: bool) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let by_hand = format!("apt-get install --no-install-recommends {list}");
    let done = if !has("apt-get") {
        Err(anyhow::anyhow!("this system has no apt-get: install by hand what provides {list}"))
    } else if let Some(prefix) = root_prefix() {
        eprintln!("xtask: installing Debian packages: {list}");
        apt(&prefix, &missing).context(format!("cannot install {list}"))
    } else {
        Err(anyhow::anyhow!("missing packages; as root: {by_hand}"))
    };
    match done {
        Err(e) if required => Err(e),
        Err(e) => {
            eprintln!("xtask: {e:#}");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// What must stand before a command so that root runs it; `None` if that cannot be.
fn root_prefix() -> Option<Vec<&'static str>> {
    if nix::unistd::geteuid().is_root() {
        return Some(Vec::new());
    }
    let sudo = Command::new("sudo")
        .args(["-n", "true"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success());
    sudo.then(|| vec!["sudo", "-n"])
}

fn apt(prefix: &[&str], packages: &[&str]) -> Result<()> {
    let _quiet = NoServices::begin(prefix, packages)?;
    let apt = |words: &[&str]| {
        let all: Vec<&str> = prefix
            .iter()
            .copied()
            .chain(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y"])
            .chain(words.iter().copied())
            .collect();
        let mut command = Command::new(all[0]);
        command.args(&all[1..]).stdin(Stdio::null()).stdout(Stdio::null());
        workspace::run(&mut command)
    };
    let install: Vec<&str> = ["install", "--no-install-recommends"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect();
    // The lists may be there and fresh; a new machine has none.
    if apt(&install).is_ok() {
        return Ok(());
    }
    eprintln!("xtask: apt-get update");
    apt(&["update"])?;
    apt(&install)
}

/// Debian starts a service when it installs it. A memcached on port 11211 is not what the user asked
/// for, so for the time of the installation the system's own hook (policy-rc.d) says no.
struct NoServices {
    prefix: Vec<String>,
}

impl NoServices {
    const HOOK: &'static str = "/usr/sbin/policy-rc.d";

    fn begin(prefix: &[&str], packages: &[&str]) -> Result<Option<NoServices>> {
        if !packages.contains(&"memcached") || Path::new(NoServices::HOOK).exists() {
            return Ok(None);
        }
        let script =
            format!("printf '#!/bin/sh\\nexit 101\\n' > {0} && chmod 755 {0}", NoServices::HOOK);
        let guard = NoServices { prefix: prefix.iter().map(ToString::to_string).collect() };
        guard.sh(&script)?;
        Ok(Some(guard))
    }

    fn sh(&self, script: &str) -> Result<()> {
        let words = self.prefix.iter().map(String::as_str).chain(["sh", "-c", script]);
        let words: Vec<&str> = words.collect();
        workspace::run(Command::new(words[0]).args(&words[1..]))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if let Err(e) = self.sh(&format!("rm -f {}", NoServices::HOOK)) {
            eprintln!("xtask: cannot remove {}: {e:#}", NoServices::HOOK);
        }
    }
}

/// The distribution's release name, from os-release.
pub fn codename() -> Result<String> {
    let text = std::fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("VERSION_CODENAME=") {
            return Ok(name.trim_matches('"').to_owned());
        }
    }
    bail!("/etc/os-release names no release")
}
