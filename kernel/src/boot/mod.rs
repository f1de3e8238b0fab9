//! From the loader to [`crate::kernel_main`]: turns what the loader hands over into a
//! `bootloader_api::BootInfo`, whichever loader ran ([`pvh`], [`multiboot2`]).
//!
//! Everything but the modules is copied out of the loader's memory here; all of it, the modules and
//! the firmware's tables leave the memory map's usable part before anybody takes memory from there.
#![allow(unsafe_code, reason = "reads the loader's structures by physical address")]

mod multiboot2;
mod pvh;

use core::arch::global_asm;

use arrayvec::ArrayVec;
use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind, MemoryRegions, Optional};
use ix_kernel_core::acpi_tables::{self, Memory};
use ix_kernel_core::addr::{Phys, Virt};
use ix_kernel_core::archive;
use ix_kernel_core::cmdline;
use ix_kernel_core::efi;
use ix_kernel_core::memory_map::{Kind, MAX_ENTRIES};
use ix_kernel_core::multiboot2::{Framebuffer, FramebufferKind, MODULES_MAX};
use ix_kernel_core::pixels::Pixels;
use ix_kernel_core::placement::{Area, Plan};
use ix_kernel_core::smbios::{self, Text};

use crate::console::{self, Screen};
use crate::mem::layout;
use crate::once::BootCell;
use crate::unsupported;

global_asm!(include_str!("boot.S"), options(att_syntax, raw));

/// What the boot page tables map.
const BOOT_MAPPED: u64 = 4 << 30;
const RSDP_MAX: usize = 64;
/// ACPI tables whose names are remembered.
type Tables = ArrayVec<acpi_tables::Name, 48>;

/// Physical memory as the boot page tables show it.
pub struct BootMemory;

impl Memory for BootMemory {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let Some(from) = bytes(at, out.len() as u64) else { return false };
        out.copy_from_slice(from);
        true
    }
}

/// Loader's memory; `None` beyond what is mapped. Page 0 exists, address 0 means nothing.
fn bytes(at: u64, len: u64) -> Option<&'static [u8]> {
    if at == 0 || at.checked_add(len)? > BOOT_MAPPED {
        return None;
    }
    let ptr = layout::direct(Phys(at)) as *const u8;
    // SAFETY: mapped by the boot page tables, which are in force until `mem::init`; only the boot core
    // runs, and what it writes is the kernel's image, which the loader put elsewhere.
    Some(unsafe { core::slice::from_raw_parts(ptr, usize::try_from(len).ok()?) })
}

/// Reads a structure of the loader.
fn read<T: Copy>(at: u64) -> Option<T> {
    let from = bytes(at, size_of::<T>() as u64)?;
    // SAFETY: as long as `T`, which is plain integers, for which any bytes are valid.
    Some(unsafe { from.as_ptr().cast::<T>().read_unaligned() })
}

/// What a loader hands over, in one form.
pub struct Handover {
    pub protocol: &'static str,
    pub loader: Text,
    pub cmdline: &'static [u8],
    pub plan: Plan,
    /// Start and length of each.
    pub modules: ArrayVec<(u64, u64), MODULES_MAX>,
    pub more_modules: usize,
    /// An address, or a copy that the loader made.
    pub rsdp: Rsdp,
    pub framebuffer: Option<Framebuffer>,
    pub efi_system_table: Option<u64>,
}

pub enum Rsdp {
    At(u64),
    Copy(&'static [u8]),
    /// To be looked for where a BIOS puts it.
    Unknown,
}

/// What the boot report wants to know of it afterwards.
pub struct Facts {
    pub protocol: &'static str,
    pub loader: Text,
    pub areas: ArrayVec<Area, { ix_kernel_core::placement::AREAS_MAX }>,
    /// Ranges of the memory map that did not fit.
    pub ranges_dropped: usize,
    pub modules: usize,
    /// Names of ACPI's tables.
    pub tables: Tables,
    /// Where DMAR is, which names the IOMMUs, and how long.
    pub dmar: Option<(u64, u64)>,
    pub efi: Option<efi::SystemTable>,
    pub machine: smbios::Machine,
    /// Why there is no screen although the loader left one.
    pub screen_trouble: Option<&'static str>,
}

static REGIONS: BootCell<[MemoryRegion; MAX_ENTRIES]> =
    BootCell::new([MemoryRegion::empty(); MAX_ENTRIES]);
static INFO: BootCell<Option<BootInfo>> = BootCell::new(None);
static CMDLINE: BootCell<[u8; cmdline::BYTES_MAX]> = BootCell::new([0; cmdline::BYTES_MAX]);
static RSDP: BootCell<[u8; RSDP_MAX]> = BootCell::new([0; RSDP_MAX]);
static FACTS: spin::Once<Facts> = spin::Once::new();

pub fn facts() -> &'static Facts {
    FACTS.get().expect("set by ix_boot_main")
}

/// Who made the firmware, as far as is known.
pub fn maker() -> &'static str {
    FACTS.get().map_or("", |f| f.machine.firmware_vendor.as_str())
}

/// The first Rust code. Runs on the boot core with the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn ix_boot_main(protocol: u32, info: u32) -> ! {
    crate::vmx::keep_data();
    console::init();
    let mut h = match protocol {
        pvh::MAGIC => pvh::hand_over(u64::from(info)),
        ix_kernel_core::multiboot2::MAGIC => multiboot2::hand_over(u64::from(info)),
        other => unsupported!(
            "started by an unknown boot protocol ({other:#x}): PVH or multiboot2 is wanted"
        ),
    };
    let screen_trouble = start_screen(&h);
    let image = layout::kernel_image();
    if let Err(e) = h.plan.image(image.start, image.end - image.start) {
        unsupported!("{e}");
    }
    for i in 0..h.modules.len() {
        let (start, len) = h.modules[i];
        if let Err(e) = h.plan.apart("module", start, len) {
            unsupported!("{e}");
        }
    }
    let mut tables = ArrayVec::new();
    let mut dmar = None;
    let rsdp = keep_acpi(&mut h, &mut tables, &mut dmar);
    let efi = h.efi_system_table.and_then(|at| efi::read(&BootMemory, at));
    let cmdline = copy_cmdline(h.cmdline);
    let mut boot = BootInfo::new(regions_of(&h.plan));
    boot.rsdp_addr = rsdp.map_or(Optional::None, Optional::Some);
    boot.physical_memory_offset = Optional::Some(layout::DIRECT_BASE);
    if let Some((start, len)) = archive_among(&h.modules) {
        boot.ramdisk_addr = Optional::Some(start);
        boot.ramdisk_len = len;
    }
    boot.kernel_addr = image.start;
    boot.kernel_len = image.end - image.start;
    boot.kernel_image_offset = layout::KERNEL_BASE;
    FACTS.call_once(|| Facts {
        protocol: h.protocol,
        loader: h.loader,
        areas: h.plan.areas().iter().copied().collect(),
        ranges_dropped: h.plan.map().dropped(),
        modules: h.modules.len() + h.more_modules,
        tables,
        dmar,
        machine: efi
            .as_ref()
            .map_or_else(|| smbios::find(&BootMemory), |t| t.smbios)
            .and_then(|entry| smbios::read(&BootMemory, entry))
            .unwrap_or_default(),
        efi,
        screen_trouble,
    });
    // SAFETY: only the boot core runs, once, and nothing else refers to the cell.
    let boot = unsafe { (*INFO.get()).insert(boot) };
    crate::kernel_main(boot, cmdline)
}

/// Shows lines from here on, if the loader left a screen that is understood.
fn start_screen(h: &Handover) -> Option<&'static str> {
    let f = h.framebuffer?;
    let screen = match f.kind {
        FramebufferKind::Text if f.width == 80 && f.pitch == 160 => {
            Screen::text(f.addr, f.height as usize)
        }
        FramebufferKind::Text => return Some("text of another width than 80 columns"),
        _ => match Pixels::new(&f) {
            Ok(pixels) => Screen::pixels(pixels),
            Err(e) => return Some(e),
        },
    };
    console::add_screen(screen, BOOT_MAPPED);
    None
}

/// Takes ACPI's tables out of the usable memory, whatever the map says; gives the RSDP's address.
fn keep_acpi(h: &mut Handover, tables: &mut Tables, dmar: &mut Option<(u64, u64)>) -> Option<u64> {
    let rsdp = match h.rsdp {
        Rsdp::At(at) => at,
        Rsdp::Copy(copy) => {
            // SAFETY: as in `ix_boot_main`: one core, once.
            let buffer = unsafe { &mut *RSDP.get() };
            let len = copy.len().min(RSDP_MAX);
            buffer[..len].copy_from_slice(&copy[..len]);
            layout::image_phys(Virt(RSDP.get() as u64)).0
        }
        Rsdp::Unknown => acpi_tables::find_rsdp(&BootMemory)?,
    };
    acpi_tables::for_each(&BootMemory, rsdp, |name, at, len| {
        h.plan.keep("ACPI table", at, len, Kind::AcpiReclaim);
        let _ = tables.try_push(name);
        if &name == b"DMAR" {
            *dmar = Some((at, len));
        }
    });
    Some(rsdp)
}

/// The first module that looks like an archive; without one the first, so that the error names it.
fn archive_among(modules: &[(u64, u64)]) -> Option<(u64, u64)> {
    let looks_right = |&&(at, _): &&(u64, u64)| {
        bytes(at, archive::MAGIC.len() as u64).is_some_and(|b| b == archive::MAGIC)
    };
    modules.iter().find(looks_right).or(modules.first()).copied()
}

fn regions_of(plan: &Plan) -> MemoryRegions {
    // SAFETY: as in `ix_boot_main`: one core, once.
    let regions = unsafe { &mut *REGIONS.get() };
    let entries = plan.map().entries();
    for (region, e) in regions.iter_mut().zip(entries) {
        let kind = match e.kind {
            Kind::Usable => MemoryRegionKind::Usable,
            Kind::Loader => MemoryRegionKind::Bootloader,
            Kind::Reserved => MemoryRegionKind::UnknownBios(2),
            Kind::AcpiReclaim => MemoryRegionKind::UnknownBios(3),
            Kind::AcpiNvs => MemoryRegionKind::UnknownBios(4),
            Kind::Bad => MemoryRegionKind::UnknownBios(5),
        };
        *region = MemoryRegion { start: e.start, end: e.end, kind };
    }
    MemoryRegions::from(&mut regions[..entries.len()])
}

fn copy_cmdline(from: &[u8]) -> &'static str {
    // SAFETY: as in `ix_boot_main`: one core, once.
    let buffer = unsafe { &mut *CMDLINE.get() };
    if from.len() > buffer.len() {
        unsupported!(
            "the command line has {} bytes, at most {} are read",
            from.len(),
            buffer.len()
        );
    }
    buffer[..from.len()].copy_from_slice(from);
    match core::str::from_utf8(&buffer[..from.len()]) {
        Ok(text) => text,
        Err(_) => unsupported!("the command line is not UTF-8 text"),
    }
}

/// A text of the loader's, to its zero byte.
fn c_string(at: u64, max: usize) -> &'static [u8] {
    let room = BOOT_MAPPED.saturating_sub(at).min(max as u64);
    let text = bytes(at, room).unwrap_or_default();
    text.split(|b| *b == 0).next().unwrap_or_default()
}

fn name(text: &[u8]) -> Text {
    smbios::printable(text.iter().copied())
}
