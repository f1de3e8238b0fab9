//! PVH: how QEMU's `-kernel` starts us (Xen: docs/misc/pvh.pandoc, start info of version 1).

use arrayvec::ArrayVec;
use ix_kernel_core::cmdline;
use ix_kernel_core::memory_map::Kind;
use ix_kernel_core::multiboot2::{Framebuffer, FramebufferKind};
use ix_kernel_core::placement::Plan;

use super::{Handover, Rsdp, c_string, name, read};
use crate::unsupported;

pub const MAGIC: u32 = 0x336E_C578;
/// The BIOS data area's video mode and columns.
const BDA_MODE: u64 = 0x449;
const BDA_COLUMNS: u64 = 0x44A;

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

pub fn hand_over(info: u64) -> Handover {
    let start: StartInfo = match read(info) {
        Some(start) => start,
        None => unsupported!("PVH: the start info at {info:#x} is out of reach"),
    };
    if start.magic != MAGIC || start.version < 1 {
        unsupported!(
            "PVH: start info with magic {:#x}, version {}: version 1 with a memory map is wanted",
            start.magic,
            start.version
        );
    }
    let mut plan = Plan::new();
    for i in 0..u64::from(start.memmap_entries.min(1024)) {
        let at = start.memmap.saturating_add(i * size_of::<MemmapEntry>() as u64);
        if let Some(e) = read::<MemmapEntry>(at) {
            plan.range(e.addr, e.size, Kind::from_e820(e.kind));
        }
    }
    let mut modules = ArrayVec::new();
    let mut more_modules = 0;
    for i in 0..u64::from(start.modules.min(1024)) {
        let at = start.module_list.saturating_add(i * size_of::<Module>() as u64);
        if let Some(m) = read::<Module>(at)
            && m.size > 0
            && modules.try_push((m.addr, m.size)).is_err()
        {
            more_modules += 1;
            plan.keep("module", m.addr, m.size, Kind::Loader);
        }
    }
    Handover {
        protocol: "PVH",
        loader: name(b"the hypervisor"),
        cmdline: c_string(start.cmdline, cmdline::BYTES_MAX + 1),
        plan,
        modules,
        more_modules,
        rsdp: if start.rsdp == 0 { Rsdp::Unknown } else { Rsdp::At(start.rsdp) },
        framebuffer: vga_text(),
        efi_system_table: None,
    }
}

/// PVH tells nothing of a screen; a BIOS that has set one up leaves word in its data area.
fn vga_text() -> Option<Framebuffer> {
    let is_text = read::<u8>(BDA_MODE)? == 3 && read::<u16>(BDA_COLUMNS)? == 80;
    is_text.then_some(Framebuffer {
        addr: 0xB_8000,
        pitch: 160,
        width: 80,
        height: 25,
        bits: 16,
        kind: FramebufferKind::Text,
    })
}
