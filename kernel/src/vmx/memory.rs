//! A dataplane's memory: one range of RAM. Its beginning stands for the first MiBs of a machine (start info, ACPI, the kernel
//! image); the rest is where it is on the machine too, so that a bus address is a physical address. Nothing else is mapped.
#![allow(unsafe_code, reason = "fills and scrubs memory by physical address")]

use core::sync::atomic::AtomicU64;

use ix_kernel_core::addr::{LARGE_PAGE, PAGE, Phys, align_down, align_up};
use ix_kernel_core::archive::Archive;
use ix_kernel_core::paging::{self, Entry, Tables as _};
use ix_kernel_core::vmx::ept::{self, Ept, EptError, Gpa, MemoryType, Range, Rights};
use ix_kernel_core::vmx::start_info::{self, MemoryRange, RAM, RESERVED, Told};

use crate::mem::{self, DirectTables, layout};

/// Stands for the machine's first 2 MiB.
const LOW_BYTES: u64 = LARGE_PAGE;
/// Where start info, command line and ACPI tables lie, and how long they may be.
const TOLD_AT: u64 = 0xE_0000;
const TOLD_BYTES: u64 = 0x1_0000;
/// What a PC has instead of RAM.
const HOLE: core::ops::Range<u64> = 0xA_0000..0x10_0000;

/// EPT tables in the monitor's own memory.
pub struct HostTables;

impl ept::Tables for HostTables {
    fn read(&self, table: Phys, index: usize) -> u64 {
        paging::Tables::read(&DirectTables, table, index).0
    }

    fn write(&mut self, table: Phys, index: usize, entry: u64) {
        DirectTables.write(table, index, Entry(entry));
    }

    fn new_table(&mut self) -> Option<Phys> {
        mem::alloc_page()
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Memory {
    base: Phys,
    bytes: u64,
}

/// What could not be laid into the memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooSmall;

fn image_bytes() -> u64 {
    let end = layout::kernel_image().end;
    align_up(end, LARGE_PAGE).unwrap_or(end) - LOW_BYTES
}

impl Memory {
    /// Less than this is not worth starting with.
    pub fn least() -> u64 {
        LOW_BYTES + image_bytes() + (16 << 20)
    }

    /// Takes so much of the machine's free memory, scrubbed.
    pub fn take(bytes: u64) -> Option<Self> {
        let bytes = align_down(bytes, LARGE_PAGE);
        if bytes < Self::least() {
            return None;
        }
        Some(Self { base: mem::alloc_contiguous(bytes, LARGE_PAGE)?, bytes })
    }

    /// As much as there is in one piece, less what the monitor keeps for itself.
    pub fn take_most(kept: u64) -> Option<Self> {
        let free = align_down(mem::free_bytes().saturating_sub(kept), LARGE_PAGE);
        (0..free / LARGE_PAGE).find_map(|less| Self::take(free - less * LARGE_PAGE))
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An address in it, for `hints`.
    pub fn somewhere(&self) -> u64 {
        self.ram().0
    }

    fn ram(&self) -> (u64, u64) {
        let skipped = LOW_BYTES + image_bytes();
        (self.base.0 + skipped, self.bytes - skipped)
    }

    /// Maps it for the dataplane.
    pub fn map(&self, ept: &Ept) -> Result<(), EptError> {
        let (ram, len) = self.ram();
        let skipped = ram - self.base.0;
        for (gpa, hpa, len) in [(0, self.base.0, skipped), (ram, ram, len)] {
            let (gpa, hpa, rights, memory) =
                (Gpa(gpa), Phys(hpa), Rights::All, MemoryType::WriteBack);
            ept.map(&mut HostTables, Range { gpa, hpa, len, rights, memory })?;
        }
        Ok(())
    }

    fn host(&self, gpa: u64) -> Phys {
        Phys(if gpa < self.ram().0 - self.base.0 { self.base.0 + gpa } else { gpa })
    }

    /// The memory behind `gpa`.
    ///
    /// # Safety
    /// No core of the dataplane runs, and nobody else has such a slice.
    unsafe fn slice(&self, gpa: u64, len: u64) -> &'static mut [u8] {
        let at = layout::direct(self.host(gpa)) as *mut u8;
        // SAFETY: RAM that belongs to the dataplane for good and so to nothing of the monitor; the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(at, len as usize) }
    }

    /// Forgets everything that was in it.
    ///
    /// # Safety
    /// No core of the dataplane runs.
    pub unsafe fn scrub(&self) {
        let at = layout::direct(self.base) as *mut u8;
        // SAFETY: as in `slice`.
        unsafe { core::ptr::write_bytes(at, 0, self.bytes as usize) };
    }

    /// Lays the kernel as it was before it ran, the archive and the start info into scrubbed memory; the start info's address.
    ///
    /// # Safety
    /// No core of the dataplane runs.
    pub unsafe fn load(
        &self,
        archive: Option<&Archive<'_>>,
        command_line: &str,
        apic_ids: &[u32],
    ) -> Result<u64, TooSmall> {
        // SAFETY: the caller's promise, for this and the slices below; they follow one another.
        unsafe { self.load_image() };
        let (ram, ram_bytes) = self.ram();
        let module = match archive {
            Some(archive) => {
                let bytes = archive.bytes();
                let len = align_up(bytes.len() as u64, PAGE).ok_or(TooSmall)?;
                let at = (ram + ram_bytes).checked_sub(len).filter(|at| *at > ram);
                let at = at.ok_or(TooSmall)?;
                // SAFETY: as above.
                unsafe { self.slice(at, bytes.len() as u64) }.copy_from_slice(bytes);
                Some((at, bytes.len() as u64))
            }
            None => None,
        };
        let range = |start, end, kind| MemoryRange { start, len: end - start, kind };
        let map = [
            range(0, HOLE.start, RAM),
            range(HOLE.start, HOLE.end, RESERVED),
            range(HOLE.end, ram - self.base.0, RAM),
            range(ram, ram + ram_bytes, RAM),
        ];
        let told = Told { command_line, memory: &map, module, apic_ids };
        // SAFETY: as above.
        let buffer = unsafe { self.slice(TOLD_AT, TOLD_BYTES) };
        start_info::build(buffer, TOLD_AT, &told).map(|b| b.start_info).map_err(|_| TooSmall)
    }

    /// The image: text and constants are never written, `.data` was copied before anything ran, `.bss` is zero. `.boot` is
    /// as it is now: what changes there is written before it is read (`smp.rs`), but for the marks that the CPU makes in tables.
    ///
    /// # Safety
    /// As for [`Memory::load`].
    unsafe fn load_image(&self) {
        let image = layout::kernel_image();
        let [text, rodata, data] = layout::sections();
        let boot = layout::direct(Phys(image.start));
        let boot_bytes = layout::image_phys(ix_kernel_core::addr::Virt(text.start)).0 - image.start;
        let (written, pristine) = layout::data_and_copy();
        for (from, at, len) in [
            (boot, image.start, boot_bytes),
            (text.start, phys(text.start), text.end - text.start),
            (rodata.start, phys(rodata.start), rodata.end - rodata.start),
            (pristine, phys(data.start), written.end - written.start),
        ] {
            // SAFETY: sections of the running image, which are read only (`.pristine` since `keep_data`).
            let from = unsafe { core::slice::from_raw_parts(from as *const u8, len as usize) };
            // SAFETY: the caller's promise.
            unsafe { self.slice(at, len) }.copy_from_slice(from);
        }
    }
}

fn phys(va: u64) -> u64 {
    layout::image_phys(ix_kernel_core::addr::Virt(va)).0
}

/// Copies `.data` to where it is kept. Before anything has written it: the first thing that compiled code does.
pub fn keep_data() {
    let (data, copy) = layout::data_and_copy();
    // SAFETY: the linker has made room of the same length; one core runs, and nothing else refers to the copy.
    unsafe {
        let len = (data.end - data.start) as usize;
        core::ptr::copy_nonoverlapping(data.start as *const u8, copy as *mut u8, len);
    }
}

/// Whole pages of zeroed words for the monitor page, and their address.
pub fn shared_words(words: usize) -> Option<(&'static [AtomicU64], Phys)> {
    let pa = mem::alloc_contiguous(words as u64 * 8, PAGE)?;
    // SAFETY: fresh RAM in the direct map, given to nobody else, never freed.
    let slice =
        unsafe { core::slice::from_raw_parts(layout::direct(pa) as *const AtomicU64, words) };
    Some((slice, pa))
}

/// Copies a bitmap that the CPU reads into frames of its own.
pub fn bitmap(bytes: &[u8]) -> Option<Phys> {
    let pa = mem::alloc_contiguous(bytes.len() as u64, PAGE)?;
    let at = layout::direct(pa) as *mut u8;
    // SAFETY: fresh RAM in the direct map, as long as the source at least.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
    Some(pa)
}

/// A page for VMXON or a VMCS, beginning with the revision.
pub fn region(revision: u32) -> Option<Phys> {
    let pa = mem::alloc_page()?;
    DirectTables.write(pa, 0, Entry(u64::from(revision)));
    Some(pa)
}

/// Reads a word of a dataplane's memory.
pub fn word(ept: &Ept, gpa: u64) -> Option<u64> {
    if !gpa.is_multiple_of(8) {
        return None;
    }
    let range =
        ept.translate(&HostTables, Gpa(gpa)).filter(|r| r.memory == MemoryType::WriteBack)?;
    let table = Phys(align_down(range.hpa.0, PAGE));
    Some(paging::Tables::read(&DirectTables, table, (range.hpa.0 % PAGE) as usize / 8).0)
}

/// A dataplane's page tables, through its EPT.
pub struct GuestTables<'a>(pub &'a Ept);

impl paging::Tables for GuestTables<'_> {
    fn read(&self, table: Phys, index: usize) -> Entry {
        Entry(word(self.0, table.0 + index as u64 * 8).unwrap_or(0))
    }

    fn write(&mut self, _: Phys, _: usize, _: Entry) {}

    fn new_table(&mut self) -> Option<Phys> {
        None
    }
}
