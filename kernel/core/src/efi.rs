//! The EFI system table, as far as it is of use after boot services have ended: who made the
//! firmware, and where the other tables are (UEFI 2.10, 4.3 and 4.6).

use crate::acpi_tables::Memory;
use crate::smbios::{Text, printable};

#[cfg(test)]
mod tests;

const TABLES_MAX: u64 = 128;
const VENDOR_MAX: usize = 64;
const SMBIOS3: [u8; 16] = [
    0x44, 0x15, 0xFD, 0xF2, 0x94, 0x97, 0x2C, 0x4A, 0x99, 0x2E, 0xE5, 0xBB, 0xCF, 0x20, 0xE3, 0x94,
];
const SMBIOS: [u8; 16] = [
    0x31, 0x2D, 0x9D, 0xEB, 0x88, 0x2D, 0xD3, 0x11, 0x9A, 0x16, 0x00, 0x90, 0x27, 0x3F, 0xC1, 0x4D,
];
const ACPI2: [u8; 16] = [
    0x71, 0xE8, 0x68, 0x88, 0xF1, 0xE4, 0xD3, 0x11, 0xBC, 0x22, 0x00, 0x80, 0xC7, 0x3C, 0x88, 0x81,
];

/// What the system table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SystemTable {
    pub vendor: Text,
    /// Of the specification: 0x0002_0046 is 2.7.
    pub revision: u32,
    pub firmware_revision: u32,
    /// Entry point of SMBIOS, the newer kind first.
    pub smbios: Option<u64>,
    pub rsdp: Option<u64>,
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

/// Reads a 64-bit system table; `None` if it is none.
pub fn read(m: &impl Memory, at: u64) -> Option<SystemTable> {
    let mut b = [0; 120];
    if !m.read(at, &mut b) || &b[..8] != b"IBI SYST" {
        return None;
    }
    let mut table = SystemTable {
        vendor: utf16(m, u64_at(&b, 24)),
        revision: u32_at(&b, 8),
        firmware_revision: u32_at(&b, 32),
        ..SystemTable::default()
    };
    let (count, first) = (u64_at(&b, 104).min(TABLES_MAX), u64_at(&b, 112));
    let mut old = None;
    for i in 0..count {
        let mut entry = [0; 24];
        if !first.checked_add(i * 24).is_some_and(|at| m.read(at, &mut entry)) {
            break;
        }
        let address = Some(u64_at(&entry, 16));
        match entry[..16].try_into().expect("sixteen bytes") {
            SMBIOS3 => table.smbios = address,
            SMBIOS => old = address,
            ACPI2 => table.rsdp = address,
            _ => {}
        }
    }
    table.smbios = table.smbios.or(old);
    Some(table)
}

fn utf16(m: &impl Memory, at: u64) -> Text {
    let unit = |i: usize| {
        let mut b = [0; 2];
        let ok = at != 0 && at.checked_add(2 * i as u64).is_some_and(|at| m.read(at, &mut b));
        let unit = u16::from_le_bytes(b);
        (ok && unit != 0).then(|| u8::try_from(unit).unwrap_or(b'?'))
    };
    printable((0..VENDOR_MAX).map_while(unit))
}
