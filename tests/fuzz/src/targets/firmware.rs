//! What loaders and firmware hand over: multiboot2's structure, and tables in memory that any pointer
//! may lead to.
use crate::input::Input;
use ix_kernel_core::acpi_tables::{self, Memory};
use ix_kernel_core::multiboot2::{self, Info, MODULES_MAX};
use ix_kernel_core::{efi, smbios};

/// Most tables and records that one input may be asked about.
const FOUND_MAX: usize = 200;

/// A multiboot2 structure: what is told lies within it.
pub fn multiboot(bytes: &[u8]) {
    let info = Info::parse(bytes);
    assert!(info.modules.len() <= MODULES_MAX);
    assert!(info.modules.iter().all(|module| module.start < module.end));
    let range = bytes.as_ptr_range();
    for part in [Some(info.cmdline), Some(info.loader), info.rsdp].into_iter().flatten() {
        let of = part.as_ptr_range();
        assert!(part.is_empty() || (range.start <= of.start && of.end <= range.end));
    }
    assert!(info.memory().count() <= bytes.len());
    assert!(info.efi_taken().count() <= bytes.len());
    let _there = info.has_memory_map();
    if let Some(first) = bytes.first_chunk() {
        assert!(multiboot2::total_bytes(u32::from_le_bytes(*first)).is_none_or(|n| n >= 16));
    }
}

/// Memory of which a few pages are there, with the input in them.
struct Sparse<'a> {
    pages: [(u64, &'a [u8]); 3],
}

impl Memory for Sparse<'_> {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        self.pages.iter().any(|(start, page)| {
            let Some(from) = at.checked_sub(*start).and_then(|n| usize::try_from(n).ok()) else {
                return false;
            };
            let part = from.checked_add(out.len()).and_then(|end| page.get(from..end));
            part.is_some_and(|part| {
                out.copy_from_slice(part);
                true
            })
        })
    }
}

/// ACPI's, EFI's and SMBIOS' tables.
pub fn tables(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (high, low) = (input.u8() & 1 == 1, usize::from(input.u8()) * 4);
    let rest = input.rest();
    let (first, second) = rest.split_at(low.min(rest.len()));
    let last = if high { u64::MAX - 4095 } else { 0x10_0000 };
    let pages = [(0xF_0000, first), (0x1000, second), (last, rest)];
    let memory = Sparse { pages };
    let mut found = 0;
    let places = [acpi_tables::find_rsdp(&memory), Some(0xF_0000), Some(0x1000), Some(last)];
    for rsdp in places.into_iter().flatten() {
        acpi_tables::for_each(&memory, rsdp, |_, _, _| found += 1);
    }
    assert!(found <= 5 * FOUND_MAX);
    for at in [0xF_0000, 0x1000, last] {
        if let Some(table) = efi::read(&memory, at) {
            assert!(table.vendor.len() <= 256);
        }
        let _machine = smbios::read(&memory, at);
    }
    if let Some(entry) = smbios::find(&memory) {
        let _machine = smbios::read(&memory, entry);
    }
}
