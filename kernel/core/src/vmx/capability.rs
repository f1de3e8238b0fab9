//! What a CPU's VMX can do (SDM appendix A) and the controls that the monitor runs with. An error names
//! each control that is missing or cannot be switched off.

use core::fmt;

use super::control::{self, Group};

#[cfg(test)]
mod tests;

pub const IA32_FEATURE_CONTROL: u32 = 0x3A;
pub const IA32_VMX_BASIC: u32 = 0x480;
pub const IA32_VMX_MISC: u32 = 0x485;
pub const IA32_VMX_CR0_FIXED0: u32 = 0x486;
pub const IA32_VMX_CR0_FIXED1: u32 = 0x487;
pub const IA32_VMX_CR4_FIXED0: u32 = 0x488;
pub const IA32_VMX_CR4_FIXED1: u32 = 0x489;
pub const IA32_VMX_PROCBASED_CTLS2: u32 = 0x48B;
pub const IA32_VMX_EPT_VPID_CAP: u32 = 0x48C;
pub const IA32_VMX_TRUE_PINBASED_CTLS: u32 = 0x48D;
pub const IA32_VMX_TRUE_PROCBASED_CTLS: u32 = 0x48E;
pub const IA32_VMX_TRUE_EXIT_CTLS: u32 = 0x48F;
pub const IA32_VMX_TRUE_ENTRY_CTLS: u32 = 0x490;

const fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 != 0
}

/// IA32_FEATURE_CONTROL (SDM 24.7): whether VMXON may be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FeatureControl {
    /// Locked with VMX on: nothing to do.
    On,
    /// Not locked: this value is to be written first.
    Write(u64),
    /// The firmware has locked it with VMX off.
    LockedOff,
}

impl FeatureControl {
    #[must_use]
    pub const fn from_msr(value: u64) -> Self {
        const LOCK: u64 = 1 << 0;
        const OUTSIDE_SMX: u64 = 1 << 2;
        match (value & LOCK != 0, value & OUTSIDE_SMX != 0) {
            (true, true) => Self::On,
            (true, false) => Self::LockedOff,
            (false, _) => Self::Write(value | LOCK | OUTSIDE_SMX),
        }
    }
}

/// IA32_VMX_BASIC (SDM A.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Basic(pub u64);

impl Basic {
    /// The first word of a VMXON region and of a VMCS.
    #[must_use]
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7FFF_FFFF
    }

    /// Bytes of a VMXON region or a VMCS; at most 4096.
    #[must_use]
    pub const fn region_bytes(self) -> u32 {
        (self.0 >> 32) as u32 & 0x1FFF
    }

    /// The regions' addresses have 32 bits (CPUs without 64-bit mode).
    #[must_use]
    pub const fn addresses_are_32_bit(self) -> bool {
        bit(self.0, 48)
    }

    #[must_use]
    pub const fn regions_are_write_back(self) -> bool {
        self.0 >> 50 & 0xF == 6
    }

    /// INS and OUTS exits tell address and size in the instruction information.
    #[must_use]
    pub const fn tells_string_io(self) -> bool {
        bit(self.0, 54)
    }

    /// The four "TRUE" capability MSRs exist.
    #[must_use]
    pub const fn has_true_controls(self) -> bool {
        bit(self.0, 55)
    }
}

/// IA32_VMX_MISC (SDM A.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Misc(pub u64);

impl Misc {
    /// The preemption timer counts down by one when this bit of the TSC changes.
    #[must_use]
    pub const fn timer_shift(self) -> u32 {
        self.0 as u32 & 0x1F
    }

    /// The preemption timer's value for `us` microseconds, rounded up, at least 1; as much as it can
    /// hold at most.
    #[must_use]
    pub fn timer_value(self, us: u64, tsc_khz: u32) -> u32 {
        let ticks = u128::from(us) * u128::from(tsc_khz) / 1000;
        let value = ticks.div_ceil(1 << self.timer_shift());
        u32::try_from(value).unwrap_or(u32::MAX).max(1)
    }

    /// VM exits store EFER.LMA in the entry control "IA-32e mode guest": always so where there is
    /// "unrestricted guest".
    #[must_use]
    pub const fn stores_lma(self) -> bool {
        bit(self.0, 5)
    }

    /// A guest may be entered halted.
    #[must_use]
    pub const fn can_enter_halted(self) -> bool {
        bit(self.0, 6)
    }

    /// A guest may be entered waiting for a SIPI.
    #[must_use]
    pub const fn can_enter_waiting(self) -> bool {
        bit(self.0, 8)
    }

    #[must_use]
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16) as u32 & 0x1FF
    }
}

/// IA32_VMX_EPT_VPID_CAP (SDM A.10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EptVpid(pub u64);

impl EptVpid {
    #[must_use]
    pub const fn execute_only(self) -> bool {
        bit(self.0, 0)
    }

    #[must_use]
    pub const fn four_levels(self) -> bool {
        bit(self.0, 6)
    }

    /// The tables themselves may be uncached.
    #[must_use]
    pub const fn tables_uncached(self) -> bool {
        bit(self.0, 8)
    }

    #[must_use]
    pub const fn tables_write_back(self) -> bool {
        bit(self.0, 14)
    }

    #[must_use]
    pub const fn large_pages(self) -> bool {
        bit(self.0, 16)
    }

    #[must_use]
    pub const fn huge_pages(self) -> bool {
        bit(self.0, 17)
    }

    #[must_use]
    pub const fn accessed_and_dirty(self) -> bool {
        bit(self.0, 21)
    }

    #[must_use]
    pub const fn invept_single(self) -> bool {
        bit(self.0, 20) && bit(self.0, 25)
    }

    #[must_use]
    pub const fn invept_all(self) -> bool {
        bit(self.0, 20) && bit(self.0, 26)
    }

    #[must_use]
    pub const fn invvpid_single(self) -> bool {
        bit(self.0, 32) && bit(self.0, 41)
    }

    #[must_use]
    pub const fn invvpid_all(self) -> bool {
        bit(self.0, 32) && bit(self.0, 42)
    }
}

/// The bits of CR0 or CR4 that VMX operation fixes (SDM A.7, A.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fixed {
    pub must: u64,
    pub may: u64,
}

impl Fixed {
    const PE_PG: u64 = 1 << 31 | 1;

    /// From FIXED0 (bits that are 1 there must be 1) and FIXED1 (bits that are 0 there must be 0).
    #[must_use]
    pub const fn from_msrs(fixed0: u64, fixed1: u64) -> Self {
        Self { must: fixed0, may: fixed1 }
    }

    /// CR0's for an unrestricted guest: protection and paging are its own affair.
    #[must_use]
    pub const fn unrestricted(self) -> Self {
        Self { must: self.must & !Self::PE_PG, may: self.may }
    }

    #[must_use]
    pub const fn apply(self, value: u64) -> u64 {
        (value | self.must) & self.may
    }

    #[must_use]
    pub const fn allows(self, value: u64) -> bool {
        value & self.must == self.must && value & !self.may == 0
    }
}

/// What the CPU has to say, as the MSRs above say it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msrs {
    pub basic: u64,
    pub misc: u64,
    pub pin: u64,
    pub primary: u64,
    /// 0 where the primary controls cannot activate the secondary ones: the MSR is not there then.
    pub secondary: u64,
    pub exit: u64,
    pub entry: u64,
    /// 0 where the secondary controls have neither EPT nor VPID: the MSR is not there then.
    pub ept_vpid: u64,
}

impl Msrs {
    /// Reads what exists, and nothing else: a read of an MSR that is not there is a #GP. Without the
    /// "TRUE" MSRs nothing is read of them, and `choose` refuses.
    pub fn read(mut rdmsr: impl FnMut(u32) -> u64) -> Self {
        let basic = rdmsr(IA32_VMX_BASIC);
        let mut found = Self {
            basic,
            misc: rdmsr(IA32_VMX_MISC),
            pin: 0,
            primary: 0,
            secondary: 0,
            exit: 0,
            entry: 0,
            ept_vpid: 0,
        };
        if !Basic(basic).has_true_controls() {
            return found;
        }
        found.pin = rdmsr(IA32_VMX_TRUE_PINBASED_CTLS);
        found.primary = rdmsr(IA32_VMX_TRUE_PROCBASED_CTLS);
        found.exit = rdmsr(IA32_VMX_TRUE_EXIT_CTLS);
        found.entry = rdmsr(IA32_VMX_TRUE_ENTRY_CTLS);
        if Allowed(found.primary).may() & control::primary::SECONDARY != 0 {
            found.secondary = rdmsr(IA32_VMX_PROCBASED_CTLS2);
        }
        if Allowed(found.secondary).may() & (control::secondary::EPT | control::secondary::VPID)
            != 0
        {
            found.ept_vpid = rdmsr(IA32_VMX_EPT_VPID_CAP);
        }
        found
    }
}

/// A capability MSR of a group of controls: allowed-0 settings below, allowed-1 settings above (A.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed(pub u64);

impl Allowed {
    /// Bits that must be 1.
    #[must_use]
    pub const fn must(self) -> u32 {
        self.0 as u32
    }

    /// Bits that may be 1.
    #[must_use]
    pub const fn may(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// What is wanted of a group of controls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Must be 1.
    pub on: u32,
    /// 1 where the CPU has it.
    pub optional: u32,
    /// 0 at first, but it must be possible to set it.
    pub later: u32,
    /// Must be 0.
    pub off: u32,
}

/// Controls that the CPU does not have, or does not let go of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lacking {
    pub missing: u32,
    pub forced: u32,
}

impl Wanted {
    /// The value for the VMCS: what is wanted, and what the CPU insists on (reserved bits that are 1).
    pub const fn adjust(self, allowed: Allowed) -> Result<u32, Lacking> {
        let missing = (self.on | self.later) & !allowed.may();
        let forced = (self.off | self.later) & allowed.must();
        if missing != 0 || forced != 0 {
            return Err(Lacking { missing, forced });
        }
        Ok(self.on | (self.optional & allowed.may()) | allowed.must())
    }
}

/// The value of each group's field in the VMCS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Controls {
    pub pin: u32,
    pub primary: u32,
    pub secondary: u32,
    pub exit: u32,
    pub entry: u32,
}

impl Controls {
    #[must_use]
    pub const fn has_secondary(&self, bits: u32) -> bool {
        self.secondary & bits == bits
    }
}

/// Optional instructions that a guest can use only if a control says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Instructions {
    pub rdtscp: bool,
    pub invpcid: bool,
    pub xsaves: bool,
}

/// All that a CPU lacks for the monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Unfit {
    pub groups: [Lacking; Group::ALL.len()],
    pub others: Others,
}

/// What is wanted beside controls.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Others {
    pub no_true_controls: bool,
    pub no_four_levels: bool,
    pub no_write_back_tables: bool,
    pub no_invept: bool,
    pub no_write_back_regions: bool,
    pub cannot_enter_halted: bool,
}

impl Others {
    fn list(&self) -> [(bool, &'static str); 6] {
        [
            (self.no_true_controls, "capability MSRs with the default-1 controls"),
            (self.no_four_levels, "EPT of four levels"),
            (self.no_write_back_tables, "write-back EPT tables"),
            (self.no_invept, "INVEPT"),
            (self.no_write_back_regions, "a write-back VMCS"),
            (self.cannot_enter_halted, "entry of a halted guest"),
        ]
    }

    fn any(&self) -> bool {
        self.list().iter().any(|(lacks, _)| *lacks)
    }
}

/// The monitor's controls on this CPU, or all that it lacks for them.
pub fn choose(msrs: &Msrs, instructions: Instructions) -> Result<Controls, Unfit> {
    let basic = Basic(msrs.basic);
    let ept = EptVpid(msrs.ept_vpid);
    let mut unfit = Unfit::default();
    unfit.others.no_true_controls = !basic.has_true_controls();
    if unfit.others.no_true_controls {
        return Err(unfit);
    }
    let mut value = [0; Group::ALL.len()];
    for group in Group::ALL {
        let i = group as usize;
        match control::wanted(group, instructions).adjust(group.allowed(msrs)) {
            Ok(v) => value[i] = v,
            Err(lacking) => unfit.groups[i] = lacking,
        }
    }
    unfit.others.no_write_back_regions = !basic.regions_are_write_back();
    unfit.others.cannot_enter_halted = !Misc(msrs.misc).can_enter_halted();
    if Allowed(msrs.secondary).may() & control::secondary::EPT != 0 {
        unfit.others.no_four_levels = !ept.four_levels();
        unfit.others.no_write_back_tables = !ept.tables_write_back();
        unfit.others.no_invept = !ept.invept_single() && !ept.invept_all();
    }
    if unfit.others.any() || unfit.groups.iter().any(|l| *l != Lacking::default()) {
        return Err(unfit);
    }
    let [pin, primary, secondary, exit, entry] = value;
    Ok(Controls { pin, primary, secondary, exit, entry })
}

/// `EPT, unrestricted guest, no way to switch off HLT exiting`.
impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut word = |f: &mut fmt::Formatter<'_>, before: &str, name: &str| {
            let comma = if core::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{before}{name}")
        };
        for (lacks, name) in self.others.list() {
            if lacks {
                word(f, "", name)?;
            }
        }
        for group in Group::ALL {
            let lacking = self.groups[group as usize];
            for n in 0..32 {
                if lacking.missing >> n & 1 != 0 {
                    word(f, "", group.name(n))?;
                }
                if lacking.forced >> n & 1 != 0 {
                    word(f, "no way to switch off ", group.name(n))?;
                }
            }
        }
        Ok(())
    }
}
