//! A card of this machine that is passed to the guest by VFIO (`ixcp run --vfio 01:00.0`): what has to be so before QEMU starts.
//!
//! Everything is read from sysfs and its like, and nothing is changed: a card that another driver has is taken from it by whoever
//! knows what that driver is needed for. Each refusal says what is the matter, where, and what to do.
use anyhow::{Context, Result, bail, ensure};
use ix_abi::control::PAGE_BYTES;
use std::fmt;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::str::FromStr;

mod advice;
mod function;
mod host;

pub use function::{Function, driver};
pub use host::{Host, kvm_trouble};

/// The driver of Linux that lends functions.
const LENDER: &str = "vfio-pci";
/// Drivers that keep a function from others and do nothing with it.
const HARMLESS: [&str; 2] = [LENDER, "pci-stub"];
/// What QEMU maps for the card beside the guest's memory and the control page: firmware, video.
const MAPPED_BESIDE_BYTES: u64 = 16 << 20;

/// Where a function is: domain, bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bdf {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for Bdf {
    type Err = String;
    /// As `lspci` writes it, with the domain or without: `01:00.0`, `0000:01:00.0`.
    fn from_str(s: &str) -> Result<Bdf, String> {
        let parse = || {
            let (domain, rest) = match s.split(':').count() {
                3 => s.split_once(':')?,
                _ => ("0", s),
            };
            let (bus, rest) = rest.split_once(':')?;
            let (device, function) = rest.split_once('.')?;
            let number = |text: &str, max: u16| {
                let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
                u16::from_str_radix(text, 16).ok().filter(|n| digits && *n <= max)
            };
            Some(Bdf {
                domain: number(domain, u16::MAX)?,
                bus: number(bus, 0xff)? as u8,
                device: number(device, 0x1f)? as u8,
                function: number(function, 7)? as u8,
            })
        };
        parse().ok_or_else(|| {
            "a PCI function like 01:00.0 or 0000:01:00.0 is wanted (lspci -D shows them)".to_owned()
        })
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bdf { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

/// A card that can be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// Where it is.
    pub bdf: Bdf,
    /// What is to be said of it: what it is, its group, its interrupts, its reset.
    pub told: Vec<String>,
}

/// Whether a function can be passed to a guest of so much memory.
pub fn check(host: &Host, bdf: Bdf, memory_mib: u32) -> Result<Passed> {
    let card = Function::read(host, bdf)?;
    let Some(name) = driver(card.vendor, card.device) else {
        bail!(
            "{bdf} is {:04x}:{:04x}, class {:06x}: the kernel has no driver for it. It has for the Intel 82599, X520 and X540 \
             (8086:10fb and its like) and for virtio-net (1af4:1041); `lspci -D -nn` shows what this machine has",
            card.vendor,
            card.device,
            card.class
        );
    };
    let group = card.group(host)?;
    let members = group.members(host)?;
    let strangers: Vec<&Function> = members
        .iter()
        .filter(|f| f.bdf != bdf && !f.is_bridge())
        .filter(|f| f.driver.as_ref().is_some_and(|d| !HARMLESS.contains(&d.as_str())))
        .collect();
    if card.driver.as_deref() != Some(LENDER) || !strangers.is_empty() {
        bail!(advice::binding(host, &card, &strangers, group.number));
    }
    may_open(host, &host.dev.join("vfio/vfio"), bdf)?;
    may_open(host, &host.dev.join("vfio").join(group.number.to_string()), bdf)?;
    may_pin(host, memory_mib)?;
    let mut told = vec![format!("{bdf} is {name} ({:04x}:{:04x})", card.vendor, card.device)];
    told.push(group.tell(&members, bdf));
    told.extend(card.tell_abilities(host));
    Ok(Passed { bdf, told })
}

/// Whether this user may have a file of VFIO's; nobody else may have the group open.
fn may_open(host: &Host, path: &Path, bdf: Bdf) -> Result<()> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(_) => Ok(()),
        Err(error) => bail!(advice::device_file(host, path, bdf, &error)),
    }
}

/// All that the card may reach stays in memory, and Linux bounds how much of that a user may have.
fn may_pin(host: &Host, memory_mib: u32) -> Result<()> {
    let wanted = (u64::from(memory_mib) << 20) + PAGE_BYTES as u64 + MAPPED_BESIDE_BYTES;
    let limit = host.memory_lock()?;
    ensure!(
        limit.is_none_or(|limit| limit >= wanted),
        advice::memory_lock(limit.unwrap_or(0), wanted, memory_mib)
    );
    Ok(())
}

/// The card may reach the control page, too, and Linux lets no device write into files of a disk.
pub fn check_control(file: &Path) -> Result<()> {
    use nix::sys::statfs::{HUGETLBFS_MAGIC, TMPFS_MAGIC, statfs};
    let kind = statfs(file).with_context(|| format!("cannot examine {}", file.display()))?;
    let in_memory = [TMPFS_MAGIC, HUGETLBFS_MAGIC].contains(&kind.filesystem_type());
    ensure!(
        in_memory,
        "the control page {} is on a disk, where Linux keeps it from VFIO, and QEMU would end: set IX_RUNTIME_DIR to a directory \
         in memory (mkdir -m 700 /dev/shm/ix; IX_RUNTIME_DIR=/dev/shm/ix), for `ixcp status` and the like, too; or use \
         --control serial",
        file.display()
    );
    Ok(())
}

/// A link's last component.
fn link_name(path: &PathBuf) -> Option<String> {
    let target = std::fs::read_link(path).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
