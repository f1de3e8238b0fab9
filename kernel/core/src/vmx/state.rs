//! Which field of the guest's state is not valid: after a VM-entry failure the CPU says only that one is
//! (reason 33). The checks of SDM 27.3.1 for an unrestricted guest outside SMM and SGX. Not checked: PDPTEs
//! (they are in the guest's memory) and shadow stacks.

use super::capability::Fixed;
use super::control::entry;
use super::exits::{Event, Interruption};
use super::fields::{self as f, Field};
use crate::addr::is_canonical;

#[cfg(test)]
mod tests;

/// A field that keeps the CPU from entering the guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invalid {
    pub field: Field,
    pub value: u64,
    pub why: &'static str,
}

impl core::fmt::Display for Invalid {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} is {:#x}: {}", self.field.name(), self.value, self.why)
    }
}

/// What the CPU fixes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// As for an unrestricted guest (`Fixed::unrestricted`).
    pub cr0: Fixed,
    pub cr4: Fixed,
    /// MAXPHYADDR.
    pub physical_bits: u32,
}

const CR0_PE: u64 = 1 << 0;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_CET: u64 = 1 << 23;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// SCE, LME, LMA, NXE.
const EFER_KNOWN: u64 = 0xD01;
const FLAG_TRAP: u64 = 1 << 8;
const FLAG_INTERRUPTS: u64 = 1 << 9;
const FLAG_V86: u64 = 1 << 17;
const BY_STI: u64 = 1 << 0;
const BY_MOV_SS: u64 = 1 << 1;
const BY_SMI: u64 = 1 << 2;
const BY_NMI: u64 = 1 << 3;
const DEBUGCTL_BTF: u64 = 1 << 1;
const PENDING_STEP: u64 = 1 << 14;

/// The access rights of a segment (SDM 25.4.1, table 25-2).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Access(u64);

impl Access {
    const fn kind(self) -> u64 {
        self.0 & 0xF
    }
    const fn is_code_or_data(self) -> bool {
        self.0 >> 4 & 1 != 0
    }
    const fn dpl(self) -> u64 {
        self.0 >> 5 & 3
    }
    const fn is_present(self) -> bool {
        self.0 >> 7 & 1 != 0
    }
    const fn is_long(self) -> bool {
        self.0 >> 13 & 1 != 0
    }
    const fn is_32_bit(self) -> bool {
        self.0 >> 14 & 1 != 0
    }
    const fn is_granular(self) -> bool {
        self.0 >> 15 & 1 != 0
    }
    const fn is_usable(self) -> bool {
        self.0 >> 16 & 1 == 0
    }
    const fn has_reserved(self) -> bool {
        self.0 & 0xFFFE_0F00 != 0
    }
}

/// A segment register's four fields: selector, base, limit, access.
type Segment = [Field; 4];

const CS: Segment = [f::GUEST_CS_SELECTOR, f::GUEST_CS_BASE, f::GUEST_CS_LIMIT, f::GUEST_CS_ACCESS];
const SS: Segment = [f::GUEST_SS_SELECTOR, f::GUEST_SS_BASE, f::GUEST_SS_LIMIT, f::GUEST_SS_ACCESS];
const DS: Segment = [f::GUEST_DS_SELECTOR, f::GUEST_DS_BASE, f::GUEST_DS_LIMIT, f::GUEST_DS_ACCESS];
const ES: Segment = [f::GUEST_ES_SELECTOR, f::GUEST_ES_BASE, f::GUEST_ES_LIMIT, f::GUEST_ES_ACCESS];
const FS: Segment = [f::GUEST_FS_SELECTOR, f::GUEST_FS_BASE, f::GUEST_FS_LIMIT, f::GUEST_FS_ACCESS];
const GS: Segment = [f::GUEST_GS_SELECTOR, f::GUEST_GS_BASE, f::GUEST_GS_LIMIT, f::GUEST_GS_ACCESS];
const TR: Segment = [f::GUEST_TR_SELECTOR, f::GUEST_TR_BASE, f::GUEST_TR_LIMIT, f::GUEST_TR_ACCESS];
const LDTR: Segment =
    [f::GUEST_LDTR_SELECTOR, f::GUEST_LDTR_BASE, f::GUEST_LDTR_LIMIT, f::GUEST_LDTR_ACCESS];

struct Guest<'a> {
    read: &'a dyn Fn(Field) -> u64,
    limits: &'a Limits,
    is_long: bool,
}

type Checked = Result<(), Invalid>;

/// Looks at the current VMCS by `read`; the first field that is not valid, in the SDM's order.
pub fn check(read: &dyn Fn(Field) -> u64, limits: &Limits) -> Checked {
    let is_long = read(f::ENTRY_CONTROLS) & u64::from(entry::GUEST_64) != 0;
    let g = Guest { read, limits, is_long };
    g.control_registers()?;
    g.msrs()?;
    g.segments()?;
    g.tables()?;
    g.flow()?;
    g.rest()
}

impl Guest<'_> {
    fn get(&self, field: Field) -> u64 {
        (self.read)(field)
    }

    fn need(&self, field: Field, is_valid: bool, why: &'static str) -> Checked {
        if is_valid { Ok(()) } else { Err(Invalid { field, value: self.get(field), why }) }
    }

    fn access(&self, segment: Segment) -> Access {
        Access(self.get(segment[3]))
    }

    /// 27.3.1.1.
    fn control_registers(&self) -> Checked {
        let (cr0, cr4) = (self.get(f::GUEST_CR0), self.get(f::GUEST_CR4));
        let paging = cr0 & CR0_PG != 0;
        self.need(f::GUEST_CR0, self.limits.cr0.allows(cr0), "bits that VMX fixes")?;
        self.need(f::GUEST_CR0, !paging || cr0 & CR0_PE != 0, "paging without protection")?;
        self.need(f::GUEST_CR4, self.limits.cr4.allows(cr4), "bits that VMX fixes")?;
        self.need(f::GUEST_CR4, cr4 & CR4_CET == 0 || cr0 & CR0_WP != 0, "CET without CR0.WP")?;
        if self.is_long {
            self.need(f::GUEST_CR0, paging, "IA-32e mode without paging")?;
            self.need(f::GUEST_CR4, cr4 & CR4_PAE != 0, "IA-32e mode without PAE")?;
        } else {
            self.need(f::GUEST_CR4, cr4 & CR4_PCIDE == 0, "PCIDs outside IA-32e mode")?;
        }
        let beyond = u64::MAX.checked_shl(self.limits.physical_bits).unwrap_or(0);
        self.need(
            f::GUEST_CR3,
            self.get(f::GUEST_CR3) & beyond == 0,
            "more bits than addresses have",
        )
    }

    fn msrs(&self) -> Checked {
        let controls = self.get(f::ENTRY_CONTROLS);
        let loads = |control: u32| controls & u64::from(control) != 0;
        if loads(entry::LOAD_DEBUG) {
            self.need(f::GUEST_DEBUGCTL, self.get(f::GUEST_DEBUGCTL) >> 16 == 0, "reserved bits")?;
            self.need(f::GUEST_DR7, self.get(f::GUEST_DR7) >> 32 == 0, "bits 63:32")?;
        }
        for field in [f::GUEST_SYSENTER_ESP, f::GUEST_SYSENTER_EIP] {
            self.need(field, is_canonical(self.get(field)), "not canonical")?;
        }
        if loads(entry::LOAD_PAT) {
            let types = self.get(f::GUEST_PAT).to_le_bytes();
            let known = types.iter().all(|t| matches!(t, 0 | 1 | 4..=7));
            self.need(f::GUEST_PAT, known, "a memory type that does not exist")?;
        }
        if loads(entry::LOAD_EFER) {
            let efer = self.get(f::GUEST_EFER);
            let (lma, lme) = (efer & EFER_LMA != 0, efer & EFER_LME != 0);
            let paging = self.get(f::GUEST_CR0) & CR0_PG != 0;
            self.need(f::GUEST_EFER, efer & !EFER_KNOWN == 0, "reserved bits")?;
            self.need(f::GUEST_EFER, lma == self.is_long, "LMA is not as the entry control says")?;
            self.need(f::GUEST_EFER, !paging || lma == lme, "LMA is not LME, with paging on")?;
        }
        Ok(())
    }

    /// 27.3.1.2.
    fn segments(&self) -> Checked {
        let is_v86 = self.get(f::GUEST_RFLAGS) & FLAG_V86 != 0;
        self.need(TR[0], self.get(TR[0]) & 4 == 0, "a selector of the LDT")?;
        if self.access(LDTR).is_usable() {
            self.need(LDTR[0], self.get(LDTR[0]) & 4 == 0, "a selector of the LDT")?;
            self.need(LDTR[1], is_canonical(self.get(LDTR[1])), "not canonical")?;
        }
        for segment in [TR, FS, GS] {
            self.need(segment[1], is_canonical(self.get(segment[1])), "not canonical")?;
        }
        for segment in [CS, SS, DS, ES, FS, GS] {
            if is_v86 {
                self.v86_segment(segment)?;
            } else {
                self.segment(segment)?;
            }
        }
        if !is_v86 {
            self.code_and_stack()?;
        }
        let task = self.access(TR).kind();
        let is_busy = task == 11 || (task == 3 && !self.is_long);
        self.need(TR[3], is_busy && self.access(TR).is_usable(), "not a busy TSS")?;
        self.system_segment(TR)?;
        if self.access(LDTR).is_usable() {
            self.need(LDTR[3], self.access(LDTR).kind() == 2, "not an LDT")?;
            self.system_segment(LDTR)?;
        }
        Ok(())
    }

    fn v86_segment(&self, [selector, base, limit, access]: Segment) -> Checked {
        let paragraph = self.get(selector) << 4;
        self.need(base, self.get(base) == paragraph, "not the selector's, in virtual-8086 mode")?;
        self.need(limit, self.get(limit) == 0xFFFF, "not FFFFh, in virtual-8086 mode")?;
        self.need(access, self.get(access) == 0xF3, "not F3h, in virtual-8086 mode")
    }

    fn segment(&self, segment: Segment) -> Checked {
        let [_, base, _, access] = segment;
        let a = self.access(segment);
        let is_code = segment == CS;
        if !is_code && !a.is_usable() {
            return Ok(());
        }
        if segment != FS && segment != GS {
            self.need(base, self.get(base) >> 32 == 0, "bits 63:32")?;
        }
        self.need(access, !is_code || a.is_usable(), "unusable")?;
        self.need(access, a.is_code_or_data(), "a system segment")?;
        self.need(access, a.is_present(), "not present")?;
        self.need(access, !a.has_reserved(), "reserved bits")?;
        if !is_code && segment != SS {
            let kind = a.kind();
            self.need(access, kind & 1 != 0, "not accessed")?;
            self.need(access, kind & 8 == 0 || kind & 2 != 0, "code that cannot be read")?;
        }
        self.granularity(segment)
    }

    fn code_and_stack(&self) -> Checked {
        let (code, stack) = (self.access(CS), self.access(SS));
        let is_real = self.get(f::GUEST_CR0) & CR0_PE == 0;
        let needs_0 = is_real || code.kind() == 3;
        self.need(SS[3], !needs_0 || stack.dpl() == 0, "a privilege other than 0")?;
        let dpl_fits = match code.kind() {
            3 => code.dpl() == 0,
            9 | 11 => code.dpl() == stack.dpl(),
            13 | 15 => code.dpl() <= stack.dpl(),
            _ => return self.need(CS[3], false, "neither code nor accessed data"),
        };
        self.need(CS[3], dpl_fits, "a privilege that does not go with SS")?;
        let both = self.is_long && code.is_long() && code.is_32_bit();
        self.need(CS[3], !both, "64 and 32 bits at once")?;
        if stack.is_usable() {
            self.need(SS[3], matches!(stack.kind(), 3 | 7), "not data that can be written")?;
        }
        Ok(())
    }

    fn system_segment(&self, segment: Segment) -> Checked {
        let a = self.access(segment);
        self.need(segment[3], !a.is_code_or_data(), "not a system segment")?;
        self.need(segment[3], a.is_present(), "not present")?;
        self.need(segment[3], !a.has_reserved(), "reserved bits")?;
        self.granularity(segment)
    }

    fn granularity(&self, segment: Segment) -> Checked {
        let limit = self.get(segment[2]);
        let g = self.access(segment).is_granular();
        let fits = if g { limit & 0xFFF == 0xFFF } else { limit >> 20 == 0 };
        self.need(segment[2], fits, "a limit that its granularity cannot say")
    }

    /// 27.3.1.3.
    fn tables(&self) -> Checked {
        for base in [f::GUEST_GDTR_BASE, f::GUEST_IDTR_BASE] {
            self.need(base, is_canonical(self.get(base)), "not canonical")?;
        }
        for limit in [f::GUEST_GDTR_LIMIT, f::GUEST_IDTR_LIMIT] {
            self.need(limit, self.get(limit) >> 16 == 0, "more than 64 KiB")?;
        }
        Ok(())
    }

    /// 27.3.1.4.
    fn flow(&self) -> Checked {
        let (rip, flags) = (self.get(f::GUEST_RIP), self.get(f::GUEST_RFLAGS));
        if self.is_long && self.access(CS).is_long() {
            self.need(f::GUEST_RIP, is_canonical(rip), "not canonical")?;
        } else {
            self.need(f::GUEST_RIP, rip >> 32 == 0, "bits 63:32 outside 64-bit mode")?;
        }
        let reserved = flags >> 22 != 0 || flags & 0x8028 != 0 || flags & 2 == 0;
        self.need(f::GUEST_RFLAGS, !reserved, "reserved bits")?;
        let is_real = self.get(f::GUEST_CR0) & CR0_PE == 0;
        let v86_fits = flags & FLAG_V86 == 0 || !(self.is_long || is_real);
        self.need(f::GUEST_RFLAGS, v86_fits, "virtual-8086 in a mode that has none")?;
        let injected = self.injected();
        let opens = injected != Some(Event::External) || flags & FLAG_INTERRUPTS != 0;
        self.need(f::GUEST_RFLAGS, opens, "an interrupt is injected with interrupts off")
    }

    fn injected(&self) -> Option<Event> {
        let info = Interruption(self.get(f::ENTRY_INTERRUPTION_INFO) as u32);
        info.is_valid().then(|| info.event())
    }

    /// 27.3.1.5.
    fn rest(&self) -> Checked {
        const ACTIVE: u64 = 0;
        const HALTED: u64 = 1;
        let activity = self.get(f::GUEST_ACTIVITY);
        let blocked = self.get(f::GUEST_INTERRUPTIBILITY);
        let flags = self.get(f::GUEST_RFLAGS);
        let is_after = blocked & (BY_STI | BY_MOV_SS) != 0;
        let halted_user = activity == HALTED && self.access(SS).dpl() != 0;
        self.need(f::GUEST_ACTIVITY, activity <= 3, "an activity state that does not exist")?;
        self.need(f::GUEST_ACTIVITY, !halted_user, "halted outside ring 0")?;
        self.need(
            f::GUEST_ACTIVITY,
            !is_after || activity == ACTIVE,
            "asleep right after STI or MOV SS",
        )?;
        let field = f::GUEST_INTERRUPTIBILITY;
        self.need(field, blocked >> 5 == 0, "reserved bits")?;
        self.need(field, blocked & BY_SMI == 0, "blocked by an SMI outside SMM")?;
        let both = blocked & BY_STI != 0 && blocked & BY_MOV_SS != 0;
        self.need(field, !both, "blocked by STI and by MOV SS at once")?;
        let after_sti = blocked & BY_STI == 0 || flags & FLAG_INTERRUPTS != 0;
        self.need(field, after_sti, "blocked by STI with interrupts off")?;
        match self.injected() {
            Some(Event::External) => {
                self.need(field, !is_after, "an interrupt is injected while blocked")?;
            }
            Some(Event::Nmi) => {
                self.need(field, !is_after, "an NMI is injected while blocked")?;
                self.need(field, blocked & BY_NMI == 0, "an NMI is injected into an NMI")?;
            }
            _ => {}
        }
        self.pending_debug(is_after || activity == HALTED)?;
        let link = self.get(f::VMCS_LINK);
        self.need(f::VMCS_LINK, link == u64::MAX, "not all ones: there is no shadow VMCS")
    }

    fn pending_debug(&self, is_held: bool) -> Checked {
        let pending = self.get(f::GUEST_PENDING_DEBUG);
        let reserved = pending & 0xAFF0 != 0 || pending >> 17 != 0;
        self.need(f::GUEST_PENDING_DEBUG, !reserved, "reserved bits")?;
        let is_traced = self.get(f::GUEST_RFLAGS) & FLAG_TRAP != 0
            && self.get(f::GUEST_DEBUGCTL) & DEBUGCTL_BTF == 0;
        let fits = !is_held || (pending & PENDING_STEP != 0) == is_traced;
        self.need(f::GUEST_PENDING_DEBUG, fits, "a single step that does not go with TF")
    }
}
