//! Control registers and MSRs: protection on where the CPU has it, the SYSCALL entry.
#![allow(unsafe_code, reason = "writes control registers and MSRs")]

use core::sync::atomic::{AtomicBool, Ordering};

use x86_64::VirtAddr;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags, Efer, EferFlags};
use x86_64::registers::model_specific::{FsBase, GsBase, LStar, Msr, SFMask};
use x86_64::registers::rflags::RFlags;

use super::descriptors::{KERNEL_CS, USER_SS};

static SMAP: AtomicBool = AtomicBool::new(false);

const IA32_STAR: u32 = 0xC000_0081;
const IA32_PAT: u32 = 0x277;
/// Power-on value: entry 0 write-back, 1 write-through, 2 and 3 uncached.
const PAT_DEFAULT: u64 = 0x0007_0406_0007_0406;

unsafe extern "C" {
    static ix_syscall_stubs: [u64; super::percore::CORES_MAX];
}

/// Protection that not every CPU has.
pub struct Protection {
    pub smep: bool,
    pub smap: bool,
    pub umip: bool,
}

/// What is missing of what only 64-bit mode shows (SDM vol. 2A, CPUID 80000001h, EDX bit 11).
pub fn lacks() -> Option<&'static str> {
    let e = raw_cpuid::CpuId::new().get_extended_processor_and_feature_identifiers();
    (!e.is_some_and(|e| e.has_syscall_sysret())).then_some("SYSCALL")
}

/// What of the optional protection this CPU has. What else the kernel cannot do without, boot.S has checked
/// and named (`ix_cpu_needs`): no CPU that lacks it gets here.
pub fn protection() -> Protection {
    let cpuid = raw_cpuid::CpuId::new();
    let x = cpuid.get_extended_feature_info();
    Protection {
        smep: x.as_ref().is_some_and(raw_cpuid::ExtendedFeatures::has_smep),
        smap: x.as_ref().is_some_and(raw_cpuid::ExtendedFeatures::has_smap),
        umip: x.as_ref().is_some_and(raw_cpuid::ExtendedFeatures::has_umip),
    }
}

/// Sets this core's control registers and SYSCALL entry.
pub fn enable(core: usize) {
    let p = protection();
    let mut cr4 = Cr4Flags::PHYSICAL_ADDRESS_EXTENSION
        | Cr4Flags::OSFXSR
        | Cr4Flags::OSXMMEXCPT_ENABLE
        | Cr4Flags::PAGE_GLOBAL
        | Cr4Flags::MACHINE_CHECK_EXCEPTION;
    cr4.set(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION, p.smep);
    cr4.set(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION, p.smap);
    cr4.set(Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION, p.umip);
    let cr0 = Cr0Flags::PROTECTED_MODE_ENABLE
        | Cr0Flags::MONITOR_COPROCESSOR
        | Cr0Flags::EXTENSION_TYPE
        | Cr0Flags::NUMERIC_ERROR
        | Cr0Flags::WRITE_PROTECT
        | Cr0Flags::PAGING;
    let efer = EferFlags::SYSTEM_CALL_EXTENSIONS
        | EferFlags::LONG_MODE_ENABLE
        | EferFlags::LONG_MODE_ACTIVE
        | EferFlags::NO_EXECUTE_ENABLE;
    // SAFETY: the table is filled by the assembler, `core` is below its length.
    let entry = unsafe { ix_syscall_stubs[core] };
    let star = (u64::from(KERNEL_CS) << 32) | (u64::from(USER_SS - 8) << 48);
    let masked = RFlags::INTERRUPT_FLAG
        | RFlags::TRAP_FLAG
        | RFlags::DIRECTION_FLAG
        | RFlags::NESTED_TASK
        | RFlags::ALIGNMENT_CHECK;
    // SAFETY: boot.S has checked what the flags ask for on the boot core; the flags keep 64-bit paging as it is. FSGSBASE and
    // OSXSAVE stay off: ring 3 has no AVX state that would have to be kept apart.
    unsafe {
        Cr4::write(cr4);
        Cr0::write(cr0);
        Efer::write(efer);
        Msr::new(IA32_PAT).write(PAT_DEFAULT);
        Msr::new(IA32_STAR).write(star);
    }
    LStar::write(VirtAddr::new(entry));
    SFMask::write(masked);
    GsBase::write(VirtAddr::zero());
    FsBase::write(VirtAddr::zero());
    SMAP.store(p.smap, Ordering::Relaxed);
}
