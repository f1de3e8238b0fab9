//! MSI-X: which core and vector a device's interrupt goes to (PCI 3.0, 6.8.2).

use ix_dataplane::device::Mmio;
use pci_types::capability::{MsixCapability, PciCapability};

use super::registers::Registers;
use super::{Function, config};
use crate::apic;

const ENTRY_BYTES: usize = 16;
const MASKED: u32 = 1;

/// A function's MSI-X table, all entries masked until set.
pub struct Msix {
    table: Registers,
    entries: u16,
}

impl Msix {
    /// Maps the table and switches MSI-X on. `None` if the function has none.
    pub fn enable(f: &Function) -> Option<Self> {
        let mut cap: MsixCapability = f.capabilities().into_iter().find_map(|c| match c {
            PciCapability::MsiX(m) => Some(m),
            _ => None,
        })?;
        let entries = cap.table_size();
        let bytes = u64::from(entries) * ENTRY_BYTES as u64;
        let table = f.map(cap.table_bar(), u64::from(cap.table_offset()), bytes)?;
        let msix = Self { table, entries };
        for n in 0..entries {
            msix.table.write32(usize::from(n) * ENTRY_BYTES + 12, MASKED);
        }
        cap.set_function_mask(false, config());
        cap.set_enabled(true, config());
        Some(msix)
    }

    pub fn entries(&self) -> u16 {
        self.entries
    }

    /// Sends entry `n` to `core` as `vector`, unmasked. `false`: there is no such entry.
    pub fn set(&self, n: u16, core: usize, vector: u8) -> bool {
        if n >= self.entries {
            return false;
        }
        let at = usize::from(n) * ENTRY_BYTES;
        let (address, data) = apic::msi_message(core, vector);
        self.table.write32(at + 12, MASKED);
        self.table.write32(at, address as u32);
        self.table.write32(at + 4, (address >> 32) as u32);
        self.table.write32(at + 8, data);
        self.table.write32(at + 12, 0);
        true
    }
}
