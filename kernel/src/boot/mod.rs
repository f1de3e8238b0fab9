//! From the loader to [`crate::kernel_main`]: turns what the loader hands over into a
//! `bootloader_api::BootInfo`. PVH today; the protocol number in the first argument leaves room for
//! multiboot2.
//!
//! Everything is copied out of the loader's memory here, before any of it can be written over.
#![allow(unsafe_code, reason = "reads the loader's structures by physical address")]

use core::arch::global_asm;

use bootloader_api::BootInfo;
use bootloader_api::info::{MemoryRegion, MemoryRegionKind, MemoryRegions, Optional};
use ix_kernel_core::addr::Phys;
use ix_kernel_core::cmdline;
use ix_kernel_core::memory_map::{Kind, MAX_ENTRIES, MemoryMap};

use crate::mem::layout;
use crate::once::BootCell;

global_asm!(include_str!("boot.S"), options(att_syntax, raw));

const PVH: u32 = 0x336e_c578;
/// What the boot page tables map.
const BOOT_MAPPED: u64 = 4 << 30;

/// hvm_start_info, version 1 (Xen: docs/misc/pvh.pandoc).
#[repr(C)]
#[derive(Clone, Copy)]
struct StartInfo {
    magic: u32,
    version: u32,
    flags: u32,
    modules: u32,
    module_list: u64,
    cmdline: u64,
    rsdp: u64,
    memmap: u64,
    memmap_entries: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Module {
    addr: u64,
    size: u64,
    cmdline: u64,
    reserved: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct MemmapEntry {
    addr: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

static REGIONS: BootCell<[MemoryRegion; MAX_ENTRIES]> =
    BootCell::new([MemoryRegion::empty(); MAX_ENTRIES]);
static INFO: BootCell<Option<BootInfo>> = BootCell::new(None);
static CMDLINE: BootCell<[u8; cmdline::BYTES_MAX]> = BootCell::new([0; cmdline::BYTES_MAX]);

/// Reads a structure at a physical address that the boot page tables map.
fn read<T: Copy>(at: u64) -> Option<T> {
    if at == 0 || at.checked_add(size_of::<T>() as u64)? > BOOT_MAPPED {
        return None;
    }
    let ptr = layout::direct(Phys(at)) as *const T;
    // SAFETY: the address is mapped by the boot page tables; `T` is plain integers, for which any
    // bytes are valid.
    Some(unsafe { ptr.read_unaligned() })
}

/// The first Rust code. Runs on the boot core with the boot page tables.
#[unsafe(no_mangle)]
extern "C" fn ix_boot_main(protocol: u32, info: u32) -> ! {
    crate::serial::init();
    assert!(protocol == PVH, "unknown boot protocol {protocol:#x}");
    let start: StartInfo = read(u64::from(info)).expect("start info is mapped");
    assert!(start.magic == PVH, "bad magic {:#x} in the PVH start info", start.magic);
    assert!(start.version >= 1, "PVH start info of version 0 has no memory map");
    let mut map = MemoryMap::new();
    for i in 0..u64::from(start.memmap_entries.min(1024)) {
        let at = start.memmap + i * size_of::<MemmapEntry>() as u64;
        let e: MemmapEntry = read(at).expect("memory map is mapped");
        map.add(e.addr, e.size, Kind::from_e820(e.kind));
    }
    let module: Option<Module> = (start.modules > 0).then(|| read(start.module_list)).flatten();
    let cmdline = copy_cmdline(start.cmdline);
    let mut boot = BootInfo::new(regions_of(&map));
    boot.rsdp_addr = if start.rsdp == 0 { Optional::None } else { Optional::Some(start.rsdp) };
    boot.physical_memory_offset = Optional::Some(layout::DIRECT_BASE);
    if let Some(m) = module {
        boot.ramdisk_addr = Optional::Some(m.addr);
        boot.ramdisk_len = m.size;
    }
    let image = layout::kernel_image();
    boot.kernel_addr = image.start;
    boot.kernel_len = image.end - image.start;
    boot.kernel_image_offset = layout::KERNEL_BASE;
    // SAFETY: only the boot core runs, once, and nothing else refers to the cell.
    let boot = unsafe { (*INFO.get()).insert(boot) };
    crate::kernel_main(boot, cmdline)
}

fn regions_of(map: &MemoryMap) -> MemoryRegions {
    // SAFETY: as in `ix_boot_main`: one core, once.
    let regions = unsafe { &mut *REGIONS.get() };
    let n = map.entries().len();
    for (region, e) in regions.iter_mut().zip(map.entries()) {
        let kind = match e.kind {
            Kind::Usable => MemoryRegionKind::Usable,
            Kind::Reserved => MemoryRegionKind::UnknownBios(2),
            Kind::AcpiReclaim => MemoryRegionKind::UnknownBios(3),
            Kind::AcpiNvs => MemoryRegionKind::UnknownBios(4),
            Kind::Bad => MemoryRegionKind::UnknownBios(5),
        };
        *region = MemoryRegion { start: e.start, end: e.end, kind };
    }
    MemoryRegions::from(&mut regions[..n])
}

fn copy_cmdline(at: u64) -> &'static str {
    // SAFETY: as in `ix_boot_main`: one core, once.
    let buffer = unsafe { &mut *CMDLINE.get() };
    let mut len = 0;
    while len < buffer.len() && at != 0 {
        match read::<u8>(at + len as u64) {
            None | Some(0) => break,
            Some(byte) => buffer[len] = byte,
        }
        len += 1;
    }
    core::str::from_utf8(&buffer[..len]).expect("the command line is not UTF-8 text")
}
