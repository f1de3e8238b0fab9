//! Multiboot2: how GRUB starts us, on BIOS and on UEFI. The parsing is `ix_kernel_core::multiboot2`'s.

use arrayvec::ArrayVec;
use ix_kernel_core::memory_map::Kind;
use ix_kernel_core::multiboot2::{FramebufferKind, Info, total_bytes};
use ix_kernel_core::placement::Plan;

use super::{Handover, Rsdp, bytes, name, read};
use crate::unsupported;

pub fn hand_over(at: u64) -> Handover {
    let all = read::<u32>(at).and_then(total_bytes).and_then(|len| bytes(at, u64::from(len)));
    let Some(all) = all else {
        unsupported!("multiboot2: no boot information at {at:#x}");
    };
    let info = Info::parse(all);
    if !info.has_memory_map() {
        unsupported!("multiboot2: the loader gives no memory map");
    }
    let mut plan = Plan::new();
    for (start, len, kind) in info.memory() {
        plan.range(start, len, kind);
    }
    // A loader's own map may be kinder than the firmware's.
    for (start, len, kind) in info.efi_taken() {
        plan.range(start, len, kind);
    }
    // All of it is copied, but a crash report or a late look must not find it written over.
    plan.keep("boot information", at, all.len() as u64, Kind::Loader);
    if let Some(f) = &info.framebuffer {
        let rows = if f.kind == FramebufferKind::Text { 25 } else { f.height };
        let len = u64::from(f.pitch).saturating_mul(u64::from(rows));
        plan.keep("framebuffer", f.addr, len, Kind::Reserved);
    }
    let modules = info.modules.iter().map(|m| (m.start, m.end - m.start));
    Handover {
        protocol: "multiboot2",
        loader: name(info.loader),
        cmdline: info.cmdline,
        modules: modules.collect::<ArrayVec<_, _>>(),
        more_modules: info.more_modules,
        plan,
        rsdp: info.rsdp.map_or(Rsdp::Unknown, Rsdp::Copy),
        framebuffer: info.framebuffer,
        efi_system_table: info.efi_system_table,
    }
}
