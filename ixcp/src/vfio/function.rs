//! PCI functions and their IOMMU groups, as sysfs shows them.
use super::{Bdf, Host, LENDER, advice, link_name};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};

/// Upper 16 bits of the class of bridges between PCI buses.
const CLASS_BRIDGE: u32 = 0x0604;
/// Ids of capabilities (PCI code and ID assignment specification).
const CAPABILITY_PCI_EXPRESS: u8 = 0x10;
const CAPABILITY_MSIX: u8 = 0x11;
/// Whoever is not root sees so much of configuration space.
const CONFIG_PUBLIC_BYTES: usize = 64;

/// What the kernel calls what it has a driver for. Held against the drivers' own tables by a test.
pub fn driver(vendor: u16, device: u16) -> Option<&'static str> {
    match (vendor, device) {
        (
            0x8086,
            0x10fb | 0x1529 | 0x1507 | 0x154d | 0x1557 | 0x154a | 0x10f7 | 0x10f8 | 0x10f9 | 0x10fc
            | 0x1514 | 0x1517,
        ) => Some("an Intel 82599"),
        (0x8086, 0x1528 | 0x1560) => Some("an Intel X540"),
        (0x1af4, 0x1000 | 0x1041) => Some("a virtio-net card"),
        _ => None,
    }
}

/// A function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Where it is.
    pub bdf: Bdf,
    /// Whose it is.
    pub vendor: u16,
    /// What it is.
    pub device: u16,
    /// What kind of thing: class, subclass, interface.
    pub class: u32,
    /// The driver of Linux that has it.
    pub driver: Option<String>,
    /// Its network interfaces.
    pub interfaces: Vec<String>,
}

fn directory(host: &Host, bdf: Bdf) -> PathBuf {
    host.sys.join("bus/pci/devices").join(bdf.to_string())
}

fn number(path: &Path) -> Result<u32> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16)
        .with_context(|| format!("{} is not a number: {text:?}", path.display()))
}

impl Function {
    /// Reads what sysfs has of it.
    pub fn read(host: &Host, bdf: Bdf) -> Result<Function> {
        let dir = directory(host, bdf);
        ensure!(
            dir.exists(),
            "this machine has no PCI function {bdf} (there is no {}): `lspci -D` lists those that it has",
            dir.display()
        );
        let short = |name: &str| number(&dir.join(name)).map(|value| value as u16);
        let entries = std::fs::read_dir(dir.join("net")).into_iter().flatten().flatten();
        let mut interfaces: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        interfaces.sort();
        Ok(Function {
            bdf,
            vendor: short("vendor")?,
            device: short("device")?,
            class: number(&dir.join("class"))?,
            driver: link_name(&dir.join("driver")),
            interfaces,
        })
    }

    /// Whether it is a bridge, which VFIO leaves to its driver.
    pub fn is_bridge(&self) -> bool {
        self.class >> 8 == CLASS_BRIDGE
    }

    /// The functions that an IOMMU cannot tell from this one.
    pub fn group(&self, host: &Host) -> Result<Group> {
        let link = directory(host, self.bdf).join("iommu_group");
        let Some(number) = link_name(&link).and_then(|name| name.parse().ok()) else {
            bail!(advice::no_iommu(host, self.bdf));
        };
        let group = Group { number };
        let name = std::fs::read_to_string(group.directory(host).join("name")).unwrap_or_default();
        ensure!(
            name.trim() != "vfio-noiommu",
            "{} is in a group without an IOMMU (VFIO's mode for that), which QEMU does not take: {}",
            self.bdf,
            advice::no_iommu(host, self.bdf)
        );
        Ok(group)
    }

    /// Interrupts and reset: told, not asked for.
    pub fn tell_abilities(&self, host: &Host) -> Vec<String> {
        let dir = directory(host, self.bdf);
        let config = std::fs::read(dir.join("config")).unwrap_or_default();
        let msix = match msix_vectors(&config) {
            Some(0) => "MSI-X: none, so cores that halt are woken by the clock alone".to_owned(),
            Some(vectors) => format!("MSI-X: {vectors} vectors"),
            None => "MSI-X: only root can see".to_owned(),
        };
        let methods = std::fs::read_to_string(dir.join("reset_method")).unwrap_or_default();
        let flr = methods.split_whitespace().any(|m| m == "flr" || m == "af_flr")
            || has_function_reset(&config);
        let reset = match (flr, dir.join("reset").exists()) {
            (true, _) => "reset: of this function alone (FLR)",
            (false, true) => {
                "reset: not of this function alone (no FLR), so its neighbours are reset with it"
            }
            (false, false) => {
                "reset: NONE; if it does not work in a second guest, switch the machine off and on"
            }
        };
        vec![msix, reset.to_owned()]
    }
}

/// Where a capability is; `None`: not known, `Some(None)`: there is none.
fn capability(config: &[u8], id: u8) -> Option<Option<&[u8]>> {
    if config.len() <= CONFIG_PUBLIC_BYTES {
        return None;
    }
    let mut at = usize::from(*config.get(0x34)? & 0xfc);
    // More than fit are a loop.
    for _ in 0..48 {
        let Some([found, next, ..]) = config.get(at..).filter(|_| at != 0) else { break };
        if *found == id {
            return Some(config.get(at..));
        }
        at = usize::from(*next & 0xfc);
    }
    Some(None)
}

fn msix_vectors(config: &[u8]) -> Option<u16> {
    let Some(found) = capability(config, CAPABILITY_MSIX)? else { return Some(0) };
    let control = found.get(2..4)?;
    Some((u16::from_le_bytes([control[0], control[1]]) & 0x7ff) + 1)
}

/// Device capabilities, bit 28.
fn has_function_reset(config: &[u8]) -> bool {
    let found = capability(config, CAPABILITY_PCI_EXPRESS).flatten();
    found.and_then(|found| found.get(7)).is_some_and(|byte| byte & 0x10 != 0)
}

/// An IOMMU group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number, by which `/dev/vfio` knows it.
    pub number: u32,
}

impl Group {
    fn directory(self, host: &Host) -> PathBuf {
        host.sys.join("kernel/iommu_groups").join(self.number.to_string())
    }

    /// All functions in it.
    pub fn members(self, host: &Host) -> Result<Vec<Function>> {
        let dir = self.directory(host).join("devices");
        let entries =
            std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let mut found: Vec<Bdf> = names.filter_map(|name| name.parse().ok()).collect();
        found.sort_unstable();
        found.into_iter().map(|bdf| Function::read(host, bdf)).collect()
    }

    /// Who is in it.
    pub fn tell(self, members: &[Function], card: Bdf) -> String {
        let others: Vec<String> =
            members.iter().filter(|f| f.bdf != card).map(tell_member).collect();
        let with = if others.is_empty() { "nobody else".to_owned() } else { others.join(", ") };
        format!("IOMMU group {}, with {with}", self.number)
    }
}

fn tell_member(f: &Function) -> String {
    let state = match f.driver.as_deref() {
        _ if f.is_bridge() => "a bridge",
        None => "without a driver",
        Some(LENDER) => LENDER,
        Some(other) => other,
    };
    format!("{} ({state})", f.bdf)
}
