//! GDT, TSS and IDT. One IDT for all cores; a GDT and a TSS for each.
#![allow(unsafe_code, reason = "loads descriptor tables")]

use core::arch::{asm, global_asm};

use ix_kernel_core::stacks::{self, Ist};

use crate::cpu::percore::CORES_MAX;
use crate::once::BootCell;

global_asm!(include_str!("traps.S"), options(att_syntax, raw));

/// Selectors. SYSRET wants user data right below user code (0x23, used in `enter.S`).
pub const KERNEL_CS: u16 = 0x08;
pub const KERNEL_SS: u16 = 0x10;
pub const USER_SS: u16 = 0x1B;
const TSS: u16 = 0x28;

#[repr(C, packed(4))]
#[derive(Clone, Copy)]
struct TaskState {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Past the limit: no I/O port is open to ring 3.
    io_map: u16,
}

const TSS_BYTES: usize = size_of::<TaskState>();

impl TaskState {
    const fn new() -> Self {
        Self {
            reserved0: 0,
            rsp: [0; 3],
            reserved1: 0,
            ist: [0; 7],
            reserved2: 0,
            reserved3: 0,
            io_map: TSS_BYTES as u16,
        }
    }
}

#[repr(C, align(64))]
#[derive(Clone, Copy)]
struct Tables {
    gdt: [u64; 7],
    tss: TaskState,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Gate {
    low: u64,
    high: u64,
}

#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

static TABLES: BootCell<[Tables; CORES_MAX]> =
    BootCell::new([Tables { gdt: [0; 7], tss: TaskState::new() }; CORES_MAX]);
static IDT: BootCell<[Gate; 256]> = BootCell::new([Gate { low: 0, high: 0 }; 256]);

unsafe extern "C" {
    static ix_trap_stubs: [u64; 256];
}

/// The interrupt stack of each vector: exceptions and device interrupts apart, the three that can
/// come at any instruction on their own.
fn ist_of(vector: usize) -> Ist {
    match vector {
        2 => Ist::Nmi,
        8 => Ist::DoubleFault,
        18 => Ist::MachineCheck,
        0..32 => Ist::Exception,
        _ => Ist::Interrupt,
    }
}

/// Fills the IDT. Once, before any core loads it.
pub fn init_idt() {
    // SAFETY: only the boot core runs; no core has loaded the table.
    let idt = unsafe { &mut *IDT.get() };
    for (vector, gate) in idt.iter_mut().enumerate() {
        // SAFETY: filled by the assembler.
        let at = unsafe { ix_trap_stubs[vector] };
        let ist = ist_of(vector) as u64 + 1;
        // Present, DPL 0 (`int n` in ring 3 is a #GP), interrupt gate: IF is cleared.
        let kind = 0x8E00u64;
        let low = (at & 0xFFFF)
            | (u64::from(KERNEL_CS) << 16)
            | ((kind | ist) << 32)
            | ((at & 0xFFFF_0000) << 32);
        *gate = Gate { low, high: at >> 32 };
    }
}

/// Loads this core's tables and clears the data segments.
pub fn load(core: usize) {
    // SAFETY: each core writes its own element, before it takes interrupts.
    let t = unsafe { &mut (*TABLES.get())[core] };
    t.tss.rsp[0] = stacks::main_stack(core).1;
    let mut ist = [0; 7];
    for i in Ist::ALL {
        ist[i as usize] = stacks::ist_stack(core, i).1;
    }
    t.tss.ist = ist;
    let tss = &raw const t.tss as u64;
    let limit = TSS_BYTES as u64 - 1;
    let tss_low = limit | ((tss & 0xFF_FFFF) << 16) | (0x89 << 40) | (((tss >> 24) & 0xFF) << 56);
    t.gdt = [
        0,
        0x00AF_9B00_0000_FFFF,
        0x00CF_9300_0000_FFFF,
        0x00CF_F300_0000_FFFF,
        0x00AF_FB00_0000_FFFF,
        tss_low,
        tss >> 32,
    ];
    let gdtr = Pointer { limit: size_of_val(&t.gdt) as u16 - 1, base: t.gdt.as_ptr() as u64 };
    let idtr = Pointer { limit: size_of::<[Gate; 256]>() as u16 - 1, base: IDT.get() as u64 };
    // SAFETY: both tables are static and complete; the far return reloads CS with the same kind of
    // segment, the data segments are null, which ring 0 may use for everything but SS.
    unsafe {
        asm!(
            "lgdt [{gdtr}]",
            "push {cs}",
            "lea {tmp}, [rip + 2f]",
            "push {tmp}",
            "retfq",
            "2:",
            "mov ss, {ss:e}",
            "xor {tmp:e}, {tmp:e}",
            "mov ds, {tmp:e}",
            "mov es, {tmp:e}",
            "mov fs, {tmp:e}",
            "mov gs, {tmp:e}",
            "ltr {tss:x}",
            // After reset the LDT has base 0 and a limit of 64 KiB: ring 3 could make it be read.
            "lldt {tmp:x}",
            "lidt [{idtr}]",
            gdtr = in(reg) &raw const gdtr,
            idtr = in(reg) &raw const idtr,
            cs = in(reg) u64::from(KERNEL_CS),
            ss = in(reg) u32::from(KERNEL_SS),
            tss = in(reg) TSS,
            tmp = out(reg) _,
        );
    }
}

/// Null selectors in DS, ES, FS and GS, with them their bases: a program starts with none of another's.
pub fn clear_data_segments() {
    // SAFETY: 64-bit code uses none of them; the kernel keeps nothing in FS or GS.
    unsafe {
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0);
    }
}

/// For `selftest=double`: makes this core's exception stack unusable.
pub fn break_exception_stack() {
    // SAFETY: this core's own TSS; the CPU reads it at the next exception.
    unsafe { (*TABLES.get())[super::percore::id()].tss.ist[Ist::Exception as usize] = 0x10 };
}
