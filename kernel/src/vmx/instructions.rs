//! The instructions of VMX and the registers that switch it on, and what of the CPU's own state a guest changes past the VMCS.
#![allow(unsafe_code, reason = "VMX instructions, MSRs and control registers")]

use core::arch::{asm, global_asm};

use ix_kernel_core::addr::Phys;
use ix_kernel_core::vmx::capability::{FeatureControl, IA32_FEATURE_CONTROL};
use ix_kernel_core::vmx::fields::Field;
use x86_64::registers::control::{Cr4, Cr4Flags};
use x86_64::registers::model_specific::Msr;

global_asm!(include_str!("switch.S"), options(att_syntax, raw));

unsafe extern "C" {
    fn ix_vmx_enter(registers: *mut GuestRegisters, launched: u32) -> u32;
    fn ix_vmx_unblock_nmi();
    static ix_vmx_exit: u8;
    static ix_pvh_start: u8;
}

/// What the VMCS does not keep of a guest; `switch.S` knows the layout. Registers are in the order of their numbers.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct GuestRegisters {
    fx: [u8; 512],
    pub general: [u64; 16],
    pub cr2: u64,
}

pub const RAX: usize = 0;
pub const RCX: usize = 1;
pub const RDX: usize = 2;
pub const RBX: usize = 3;
pub const RBP: usize = 5;

impl GuestRegisters {
    /// As after power-on: all zero, x87 and SSE exceptions masked.
    pub fn new() -> Self {
        let mut fx = [0; 512];
        fx[..2].copy_from_slice(&0x037Fu16.to_le_bytes());
        fx[24..28].copy_from_slice(&0x1F80u32.to_le_bytes());
        Self { fx, general: [0; 16], cr2: 0 }
    }
}

/// An instruction did not succeed: VMfailInvalid or VMfailValid.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Failed;

/// Where the CPU comes back to from a guest.
pub fn exit_address() -> u64 {
    &raw const ix_vmx_exit as u64
}

/// Where a hypervisor enters the kernel (boot.S): in 32-bit mode with paging off.
pub fn pvh_entry() -> u64 {
    &raw const ix_pvh_start as u64
}

pub fn rdmsr(msr: u32) -> u64 {
    // SAFETY: the callers read MSRs that the CPU has said to have.
    unsafe { Msr::new(msr).read() }
}

pub fn wrmsr(msr: u32, value: u64) {
    // SAFETY: the callers write MSRs that the CPU has, with values that this folder makes, or that were judged by allow-list.
    unsafe { Msr::new(msr).write(value) };
}

/// Switches VMX on for this core; `region` begins with the revision.
pub fn switch_on(region: Phys) -> Result<(), &'static str> {
    match FeatureControl::from_msr(rdmsr(IA32_FEATURE_CONTROL)) {
        FeatureControl::On => {}
        FeatureControl::Write(value) => wrmsr(IA32_FEATURE_CONTROL, value),
        FeatureControl::LockedOff => return Err("the firmware has locked VMX off"),
    }
    // SAFETY: VMX is there; the bit changes nothing but that its instructions work.
    unsafe { Cr4::update(|cr4| cr4.insert(Cr4Flags::VIRTUAL_MACHINE_EXTENSIONS)) };
    let failed: u8;
    // SAFETY: the region is a page of the monitor's own, for this core alone.
    unsafe {
        asm!("vmxon [{}]", "setna {}", in(reg) &raw const region.0, out(reg_byte) failed);
    }
    if failed == 0 { Ok(()) } else { Err("VMXON failed") }
}

/// Writes a VMCS back and makes it one that was not launched.
pub fn clear(vmcs: Phys) -> Result<(), Failed> {
    let failed: u8;
    // SAFETY: a page of the monitor's own that is a VMCS.
    unsafe { asm!("vmclear [{}]", "setna {}", in(reg) &raw const vmcs.0, out(reg_byte) failed) };
    if failed == 0 { Ok(()) } else { Err(Failed) }
}

/// Makes a VMCS this core's current one.
pub fn load(vmcs: Phys) -> Result<(), Failed> {
    let failed: u8;
    // SAFETY: as in `clear`.
    unsafe { asm!("vmptrld [{}]", "setna {}", in(reg) &raw const vmcs.0, out(reg_byte) failed) };
    if failed == 0 { Ok(()) } else { Err(Failed) }
}

/// A field of the current VMCS; 0 if there is none such.
pub fn read(field: Field) -> u64 {
    let (value, failed): (u64, u8);
    // SAFETY: reads the current VMCS.
    unsafe {
        asm!(
            "vmread {}, {}",
            "setna {}",
            out(reg) value,
            in(reg) u64::from(field.encoding()),
            out(reg_byte) failed,
            options(nostack)
        );
    }
    if failed == 0 { value } else { 0 }
}

/// Writes a field of the current VMCS. What makes no sense there is found at the entry, and named.
pub fn write(field: Field, value: u64) {
    let failed: u8;
    // SAFETY: changes the current VMCS, which nothing but entries and exits of this core looks at.
    unsafe {
        asm!(
            "vmwrite {}, {}",
            "setna {}",
            in(reg) u64::from(field.encoding()),
            in(reg) value,
            out(reg_byte) failed,
            options(nostack)
        );
    }
    assert!(failed == 0, "VMWRITE of {field:?} failed");
}

/// Forgets what was cached of a dataplane's EPT (all of them, where the CPU cannot do one).
pub fn flush_ept(pointer: u64, single: bool) {
    let descriptor = [if single { pointer } else { 0 }, 0];
    let kind = if single { 1u64 } else { 2 };
    // SAFETY: only makes the CPU look tables up again.
    unsafe { asm!("invept {}, [{}]", in(reg) kind, in(reg) descriptor.as_ptr()) };
}

/// How an entry went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entered {
    /// The guest ran, or its entry failed; the exit reason says it.
    Exited,
    /// The instruction was refused; the VMCS has the error, if there is a current one.
    Refused,
}

/// Runs the guest of the current VMCS until it comes out.
pub fn enter(registers: &mut GuestRegisters, launched: bool) -> Entered {
    // SAFETY: the current VMCS was set up by `vmcs`: its host state is this core's, its EPT shows the dataplane's memory alone.
    // The assembly keeps what the calling convention asks for.
    match unsafe { ix_vmx_enter(registers, u32::from(launched)) } {
        0 => Entered::Exited,
        _ => Entered::Refused,
    }
}

/// After an exit by NMI: lets the next one come.
pub fn unblock_nmi() {
    // SAFETY: returns to the next instruction with all registers that the calling convention keeps.
    unsafe { ix_vmx_unblock_nmi() };
}

/// Lets interrupts that a guest has left pending come, to be acknowledged by the handlers of `trap`.
pub fn drain_interrupts() {
    // SAFETY: on a stack of the kernel, as at its halts.
    unsafe { asm!("sti", "nop", "nop", "cli") };
}

/// Runs `f` with CR4.OSXSAVE on.
fn with_osxsave<T>(f: impl FnOnce() -> T) -> T {
    let before = Cr4::read_raw();
    // SAFETY: the callers ask for it where the CPU has XSAVE; the bit changes nothing but that its instructions work.
    unsafe { Cr4::write_raw(before | Cr4Flags::OSXSAVE.bits()) };
    let result = f();
    // SAFETY: as it was.
    unsafe { Cr4::write_raw(before) };
    result
}

/// Loads XCR0.
pub fn set_xcr0(value: u64) {
    // SAFETY: the CPU has XSAVE and `cpuid::xcr0_allowed` has allowed the value, or it is 1, which always is. The monitor
    // itself uses no state beyond SSE.
    with_osxsave(|| unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") value as u32, in("edx") (value >> 32) as u32);
    });
}

/// XCR0, where the CPU has XSAVE.
pub fn xcr0() -> u64 {
    with_osxsave(|| {
        let (low, high): (u32, u32);
        // SAFETY: reads a register.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high) };
        u64::from(high) << 32 | u64::from(low)
    })
}

/// Runs `f`, which uses XSAVE or XRSTOR, with XCR0 at `value`.
pub fn with_xcr0(value: u64, f: impl FnOnce()) {
    let before = xcr0();
    set_xcr0(value);
    with_osxsave(f);
    set_xcr0(before);
}
