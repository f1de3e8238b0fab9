//! What the ACPI tables say: cores, timers, where PCI's configuration space is.
#![allow(unsafe_code, reason = "the acpi crate's handler maps tables by physical address")]

use core::ptr::NonNull;

use acpi::madt::{Madt, MadtEntry};
use acpi::{AcpiHandler, AcpiTables, PhysicalMapping};
use arrayvec::ArrayVec;
use ix_kernel_core::addr::Phys;

use crate::cpu::percore::CORES_MAX;
use crate::mem::{self, layout};

/// A piece of PCI configuration space in memory.
#[derive(Clone, Copy, Debug)]
pub struct Ecam {
    pub base: u64,
    pub segment: u16,
    pub first_bus: u8,
    pub last_bus: u8,
}

#[derive(Debug, Default)]
pub struct Firmware {
    /// APIC ids of usable cores, in MADT order.
    pub apic_ids: ArrayVec<u32, CORES_MAX>,
    /// Usable cores beyond the kernel's limit.
    pub more_cores: usize,
    /// I/O port and width of the PM timer.
    pub pm_timer: Option<(u16, u32)>,
    pub hpet: Option<Phys>,
    pub ecam: ArrayVec<Ecam, 4>,
}

#[derive(Clone)]
struct Mapper;

impl AcpiHandler for Mapper {
    unsafe fn map_physical_region<T>(&self, at: usize, size: usize) -> PhysicalMapping<Self, T> {
        let pa = Phys(at as u64);
        let va = if mem::is_direct(pa, size as u64) {
            layout::direct(pa)
        } else {
            mem::map_firmware(pa, size as u64).expect("address space for ACPI tables").0
        };
        let ptr = NonNull::new(va as *mut T).expect("kernel addresses are not null");
        // SAFETY: `size` bytes from `at` are mapped at `va`, for good.
        unsafe { PhysicalMapping::new(at, ptr, size, size, self.clone()) }
    }

    fn unmap_physical_region<T>(_: &PhysicalMapping<Self, T>) {}
}

/// Reads the tables. Errors name what is missing.
pub fn read(rsdp: u64) -> Result<Firmware, &'static str> {
    // SAFETY: the loader gave this address as the RSDP's; the crate checks signature and checksum.
    let tables = unsafe { AcpiTables::from_rsdp(Mapper, rsdp as usize) };
    let tables = tables.map_err(|_| "the ACPI tables are not valid")?;
    let mut fw = Firmware::default();
    let madt = tables.find_table::<Madt>().map_err(|_| "ACPI has no MADT: cores are unknown")?;
    for entry in madt.get().entries() {
        // Enabled (bit 0); online capable ones are not there yet.
        let id = match entry {
            MadtEntry::LocalApic(e) if { e.flags } & 1 != 0 => u32::from(e.apic_id),
            MadtEntry::LocalX2Apic(e) if { e.flags } & 1 != 0 => e.x2apic_id,
            _ => continue,
        };
        if !fw.apic_ids.contains(&id) && fw.apic_ids.try_push(id).is_err() {
            fw.more_cores += 1;
        }
    }
    if let Ok(fadt) = tables.find_table::<acpi::fadt::Fadt>()
        && let Ok(Some(block)) = fadt.pm_timer_block()
        && block.address_space == acpi::address::AddressSpace::SystemIo
    {
        let flags = { fadt.flags };
        let bits = if flags.pm_timer_is_32_bit() { 32 } else { 24 };
        fw.pm_timer = u16::try_from(block.address).ok().filter(|p| *p != 0).map(|p| (p, bits));
    }
    if let Ok(hpet) = acpi::HpetInfo::new(&tables) {
        fw.hpet = Some(Phys(hpet.base_address as u64));
    }
    if let Ok(mcfg) = tables.find_table::<acpi::mcfg::Mcfg>() {
        for e in mcfg.entries() {
            let ecam = Ecam {
                base: e.base_address,
                segment: e.pci_segment_group,
                first_bus: e.bus_number_start,
                last_bus: e.bus_number_end,
            };
            let _ = fw.ecam.try_push(ecam);
        }
    }
    Ok(fw)
}
