//! A core's VMCS: controls, the monitor's own state, and the two states that a dataplane's core begins in.
#![allow(unsafe_code, reason = "reads the descriptor-table registers")]

use ix_kernel_core::addr::Phys;
use ix_kernel_core::vmx::control::{entry, primary, secondary};
use ix_kernel_core::vmx::exits::Interruption;
use ix_kernel_core::vmx::fields::{self as f, Field};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::Efer;
use x86_64::registers::segmentation::{CS, SS, Segment};

use super::instructions::{GuestRegisters, RBX, RDX, exit_address, rdmsr, write};
use super::support::Support;

const IA32_PAT: u32 = 0x277;
/// Power-on value.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const DR7_RESET: u64 = 0x400;
const FLAGS_RESET: u64 = 2;
const CR0_ET: u64 = 1 << 4;
const CR0_PE: u64 = 1;
const CR4_VMXE: u64 = Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS.bits();
const UNUSABLE: u64 = 1 << 16;

/// What the tables and bitmaps of a dataplane are to its cores.
#[derive(Clone, Copy, Debug)]
pub struct Fences {
    pub ept_pointer: u64,
    pub msr_bitmap: Phys,
    pub io_bitmap: Phys,
    /// Tag of the TLB's entries; not 0.
    pub vpid: u16,
}

/// Fills the current VMCS, all but the guest's state.
pub fn set_up(s: &Support, fences: &Fences) {
    let c = &s.controls;
    write(f::PIN_CONTROLS, u64::from(c.pin));
    write(f::PRIMARY_CONTROLS, u64::from(c.primary));
    write(f::SECONDARY_CONTROLS, u64::from(c.secondary));
    write(f::EXIT_CONTROLS, u64::from(c.exit));
    write(f::ENTRY_CONTROLS, u64::from(c.entry));
    if c.has_secondary(secondary::VPID) {
        write(f::VPID, u64::from(fences.vpid));
    }
    if c.has_secondary(secondary::ENCLS) {
        write(f::ENCLS_EXITING_BITMAP, u64::MAX);
    }
    if c.has_secondary(secondary::XSAVES) {
        write(f::XSS_EXITING_BITMAP, u64::MAX);
    }
    write(f::EPT_POINTER, fences.ept_pointer);
    write(f::MSR_BITMAP, fences.msr_bitmap.0);
    write(f::IO_BITMAP_A, fences.io_bitmap.0);
    write(f::IO_BITMAP_B, fences.io_bitmap.0 + 4096);
    for field in [
        f::EXCEPTION_BITMAP,
        f::PAGE_FAULT_MASK,
        f::PAGE_FAULT_MATCH,
        f::CR3_TARGET_COUNT,
        f::EXIT_MSR_STORE_COUNT,
        f::EXIT_MSR_LOAD_COUNT,
        f::ENTRY_MSR_LOAD_COUNT,
        f::ENTRY_INTERRUPTION_INFO,
    ] {
        write(field, 0);
    }
    write(f::VMCS_LINK, u64::MAX);
    // The guest owns CR0; of CR4 all but VMXE, which it neither sees nor sets, and machine checks, which are the monitor's.
    write(f::CR0_MASK, 0);
    write(f::CR0_SHADOW, 0);
    write(f::CR4_MASK, CR4_VMXE);
    write(f::CR4_SHADOW, 0);
    host();
}

/// This core as it is now.
fn host() {
    write(f::HOST_CR0, Cr0::read_raw());
    let (root, flags) = Cr3::read_raw();
    write(f::HOST_CR3, root.start_address().as_u64() | u64::from(flags));
    write(f::HOST_CR4, Cr4::read_raw());
    write(f::HOST_EFER, Efer::read_raw());
    write(f::HOST_PAT, rdmsr(IA32_PAT));
    write(f::HOST_CS_SELECTOR, u64::from(CS::get_reg().0));
    write(f::HOST_SS_SELECTOR, u64::from(SS::get_reg().0));
    for field in
        [f::HOST_DS_SELECTOR, f::HOST_ES_SELECTOR, f::HOST_FS_SELECTOR, f::HOST_GS_SELECTOR]
    {
        write(field, 0);
    }
    let (gdt, idt) = (sgdt(), sidt());
    let task = task_register();
    write(f::HOST_TR_SELECTOR, u64::from(task));
    write(f::HOST_TR_BASE, task_base(gdt.base.as_u64(), task));
    write(f::HOST_GDTR_BASE, gdt.base.as_u64());
    write(f::HOST_IDTR_BASE, idt.base.as_u64());
    for field in [
        f::HOST_FS_BASE,
        f::HOST_GS_BASE,
        f::HOST_SYSENTER_CS,
        f::HOST_SYSENTER_ESP,
        f::HOST_SYSENTER_EIP,
    ] {
        write(field, 0);
    }
    write(f::HOST_RIP, exit_address());
}

fn task_register() -> u16 {
    let task: u16;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("str {:x}", out(reg) task, options(nomem, nostack, preserves_flags));
    }
    task
}

/// The base in a TSS descriptor of 16 bytes (SDM vol. 3A, 8.2.3).
fn task_base(gdt: u64, selector: u16) -> u64 {
    let at = (gdt + u64::from(selector & !7)) as *const u64;
    // SAFETY: this core's own GDT (`descriptors::load`), which the task register was loaded from.
    let (low, high) = unsafe { (at.read_volatile(), at.add(1).read_volatile()) };
    (low >> 16 & 0xFF_FFFF) | (low >> 56 << 24) | high << 32
}

struct Descriptor {
    selector: u64,
    base: u64,
    limit: u64,
    access: u64,
}

const SEGMENTS: [[Field; 4]; 6] = [
    [f::GUEST_ES_SELECTOR, f::GUEST_ES_BASE, f::GUEST_ES_LIMIT, f::GUEST_ES_ACCESS],
    [f::GUEST_SS_SELECTOR, f::GUEST_SS_BASE, f::GUEST_SS_LIMIT, f::GUEST_SS_ACCESS],
    [f::GUEST_DS_SELECTOR, f::GUEST_DS_BASE, f::GUEST_DS_LIMIT, f::GUEST_DS_ACCESS],
    [f::GUEST_FS_SELECTOR, f::GUEST_FS_BASE, f::GUEST_FS_LIMIT, f::GUEST_FS_ACCESS],
    [f::GUEST_GS_SELECTOR, f::GUEST_GS_BASE, f::GUEST_GS_LIMIT, f::GUEST_GS_ACCESS],
    [f::GUEST_CS_SELECTOR, f::GUEST_CS_BASE, f::GUEST_CS_LIMIT, f::GUEST_CS_ACCESS],
];
const CS_PLACE: usize = 5;

fn segment(fields: [Field; 4], d: &Descriptor) {
    let [selector, base, limit, access] = fields;
    write(selector, d.selector);
    write(base, d.base);
    write(limit, d.limit);
    write(access, d.access);
}

/// How a core of a dataplane begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// At PVH's entry: 32-bit, paging off, EBX at the start info.
    Boot { entry: u64, start_info: u64 },
    /// After a start-up IPI: real mode at `page * 4096`.
    Startup { page: u8 },
}

/// Writes the guest's state into the current VMCS and its registers.
pub fn begin(s: &Support, start: Start, registers: &mut GuestRegisters) {
    *registers = GuestRegisters::new();
    let (code, data, ip, protected) = match start {
        Start::Boot { entry, start_info } => {
            registers.general[RBX] = start_info;
            let flat =
                |selector, access| Descriptor { selector, base: 0, limit: 0xFFFF_FFFF, access };
            (flat(0x08, 0xC09B), flat(0x10, 0xC093), entry, CR0_PE)
        }
        Start::Startup { page } => {
            let page = u64::from(page);
            let code =
                Descriptor { selector: page << 8, base: page << 12, limit: 0xFFFF, access: 0x9B };
            (code, Descriptor { selector: 0, base: 0, limit: 0xFFFF, access: 0x93 }, 0, 0)
        }
    };
    registers.general[RDX] = u64::from(raw_cpuid::cpuid!(1).eax);
    for (place, fields) in SEGMENTS.into_iter().enumerate() {
        segment(fields, if place == CS_PLACE { &code } else { &data });
    }
    let task = [f::GUEST_TR_SELECTOR, f::GUEST_TR_BASE, f::GUEST_TR_LIMIT, f::GUEST_TR_ACCESS];
    segment(task, &Descriptor { selector: 0, base: 0, limit: 0xFFFF, access: 0x8B });
    let local =
        [f::GUEST_LDTR_SELECTOR, f::GUEST_LDTR_BASE, f::GUEST_LDTR_LIMIT, f::GUEST_LDTR_ACCESS];
    segment(local, &Descriptor { selector: 0, base: 0, limit: 0, access: UNUSABLE });
    for (base, limit) in
        [(f::GUEST_GDTR_BASE, f::GUEST_GDTR_LIMIT), (f::GUEST_IDTR_BASE, f::GUEST_IDTR_LIMIT)]
    {
        write(base, 0);
        write(limit, 0xFFFF);
    }
    write(f::GUEST_CR0, s.cr0.apply(CR0_ET | protected));
    write(f::GUEST_CR3, 0);
    write(f::GUEST_CR4, CR4_VMXE);
    write(f::GUEST_EFER, 0);
    write(f::GUEST_PAT, PAT_RESET);
    write(f::GUEST_DR7, DR7_RESET);
    write(f::GUEST_RIP, ip);
    write(f::GUEST_RSP, 0);
    write(f::GUEST_RFLAGS, FLAGS_RESET);
    for field in [
        f::GUEST_DEBUGCTL,
        f::GUEST_INTERRUPTIBILITY,
        f::GUEST_ACTIVITY,
        f::GUEST_PENDING_DEBUG,
        f::GUEST_SYSENTER_CS,
        f::GUEST_SYSENTER_ESP,
        f::GUEST_SYSENTER_EIP,
        f::ENTRY_INTERRUPTION_INFO,
    ] {
        write(field, 0);
    }
    write(f::ENTRY_CONTROLS, u64::from(s.controls.entry & !entry::GUEST_64));
}

/// Injects an event at the next entry.
pub fn inject(event: Interruption, error: u64, length: u64) {
    write(f::ENTRY_INTERRUPTION_INFO, u64::from(event.0));
    if event.has_error() {
        write(f::ENTRY_EXCEPTION_ERROR, error);
    }
    if event.needs_length() {
        write(f::ENTRY_INSTRUCTION_LENGTH, length);
    }
}

/// Makes the guest come out as soon as it can take an NMI, or not.
pub fn watch_nmi_window(s: &Support, on: bool) {
    let value = if on {
        s.controls.primary | primary::NMI_WINDOW
    } else {
        s.controls.primary & !primary::NMI_WINDOW
    };
    write(f::PRIMARY_CONTROLS, u64::from(value));
}
