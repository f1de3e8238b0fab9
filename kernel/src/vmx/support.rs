//! Whether this machine can run dataplanes under the monitor, and what of VMX it then uses.

use alloc::string::{String, ToString};

use ix_kernel_core::vmx::capability::{self, Controls, EptVpid, Fixed, Instructions, Misc, Msrs};
use ix_kernel_core::vmx::capability::{
    FeatureControl, IA32_FEATURE_CONTROL, IA32_VMX_CR0_FIXED0, IA32_VMX_CR0_FIXED1,
    IA32_VMX_CR4_FIXED0, IA32_VMX_CR4_FIXED1,
};
use ix_kernel_core::vmx::control::secondary;
use ix_kernel_core::vmx::ept::MaxPage;
use raw_cpuid::CpuId;

use super::instructions::rdmsr;
use crate::{apic, report};

/// What the CPU can do, read once: the cores of a machine are alike.
#[derive(Clone, Copy, Debug)]
pub struct Support {
    pub controls: Controls,
    pub revision: u32,
    pub misc: Misc,
    /// Of an unrestricted guest.
    pub cr0: Fixed,
    pub cr4: Fixed,
    pub max_page: MaxPage,
    pub invept_single: bool,
    pub physical_bits: u32,
    pub instructions: Instructions,
    /// State components that XCR0 can have; 0: no XSAVE.
    pub xcr0: u64,
}

/// `Err`: what is missing, for a person to read.
pub fn find(even_under_a_hypervisor: bool) -> Result<Support, String> {
    let cpuid = CpuId::new();
    let features = cpuid.get_feature_info();
    if !features.as_ref().is_some_and(raw_cpuid::FeatureInfo::has_vmx) {
        return Err("this CPU does not show VMX".to_string());
    }
    if report::has_hypervisor() && !even_under_a_hypervisor {
        return Err("this is a virtual machine already (vmx=on tries all the same)".to_string());
    }
    if apic::mode() != "x2APIC" {
        return Err("this CPU has no x2APIC".to_string());
    }
    if FeatureControl::from_msr(rdmsr(IA32_FEATURE_CONTROL)) == FeatureControl::LockedOff {
        return Err("the firmware has locked VMX off".to_string());
    }
    let more = cpuid.get_extended_feature_info();
    let other = cpuid.get_extended_processor_and_feature_identifiers();
    let has = Instructions {
        rdtscp: other.as_ref().is_some_and(|o| o.has_rdtscp()),
        invpcid: more.as_ref().is_some_and(|m| m.has_invpcid()),
        xsaves: cpuid.get_extended_state_info().is_some_and(|x| x.has_xsaves_xrstors()),
    };
    let msrs = Msrs::read(rdmsr);
    let controls = capability::choose(&msrs, has).map_err(|unfit| unfit.to_string())?;
    let ept = EptVpid(msrs.ept_vpid);
    let max_page = match (ept.huge_pages(), ept.large_pages()) {
        (true, true) => MaxPage::Huge,
        (_, true) => MaxPage::Large,
        _ => MaxPage::Small,
    };
    let cr0 = Fixed::from_msrs(rdmsr(IA32_VMX_CR0_FIXED0), rdmsr(IA32_VMX_CR0_FIXED1));
    let sizes = cpuid.get_processor_capacity_feature_info();
    Ok(Support {
        controls,
        revision: capability::Basic(msrs.basic).revision(),
        misc: Misc(msrs.misc),
        cr0: cr0.unrestricted(),
        cr4: Fixed::from_msrs(rdmsr(IA32_VMX_CR4_FIXED0), rdmsr(IA32_VMX_CR4_FIXED1)),
        max_page,
        invept_single: ept.invept_single(),
        physical_bits: sizes.map_or(36, |s| u32::from(s.physical_address_bits())),
        instructions: Instructions {
            rdtscp: controls.has_secondary(secondary::RDTSCP),
            invpcid: controls.has_secondary(secondary::INVPCID),
            xsaves: controls.has_secondary(secondary::XSAVES),
        },
        xcr0: xcr0(&cpuid),
    })
}

fn xcr0(cpuid: &CpuId<raw_cpuid::CpuIdReaderNative>) -> u64 {
    let has = cpuid.get_feature_info().is_some_and(|f| f.has_xsave());
    let leaf = has.then(|| raw_cpuid::cpuid!(0xD, 0));
    leaf.map_or(0, |leaf| u64::from(leaf.edx) << 32 | u64::from(leaf.eax))
}
