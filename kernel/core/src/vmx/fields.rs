//! The fields of a VMCS and what their encodings say (SDM 25.11.2 and appendix B). The tests hold every
//! constant against `fields.csv`, which was typed by name, width, type and index, not by encoding.

use core::fmt;

#[cfg(test)]
mod tests;

/// How wide a field is (bits 14:13 of the encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Bits16,
    Bits64,
    Bits32,
    /// 64 bits on every CPU that has 64-bit mode.
    Natural,
}

impl Width {
    /// The largest value that a field of this width holds.
    #[must_use]
    pub const fn max(self) -> u64 {
        match self {
            Self::Bits16 => u16::MAX as u64,
            Self::Bits32 => u32::MAX as u64,
            Self::Bits64 | Self::Natural => u64::MAX,
        }
    }
}

/// What a field is for (bits 11:10 of the encoding).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Control,
    /// Written by the CPU at VM exits; read-only on many CPUs.
    ExitInformation,
    Guest,
    Host,
}

/// The encoding of a VMCS field, as VMREAD and VMWRITE take it. Always the whole field, never the
/// upper half of a 64-bit one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(u32);

impl Field {
    #[must_use]
    pub const fn encoding(self) -> u32 {
        self.0
    }

    #[must_use]
    pub const fn width(self) -> Width {
        match self.0 >> 13 & 3 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    #[must_use]
    pub const fn kind(self) -> Kind {
        match self.0 >> 10 & 3 {
            0 => Kind::Control,
            1 => Kind::ExitInformation,
            2 => Kind::Guest,
            _ => Kind::Host,
        }
    }

    /// Which of the fields of its width and kind it is.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 >> 1 & 0x1FF
    }

    /// Its name in this file; for logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        ALL.iter().find(|(_, field)| *field == self).map_or("unknown field", |(name, _)| name)
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#06x})", self.name(), self.0)
    }
}

macro_rules! fields {
    ($($name:ident = $encoding:literal,)*) => {
        $(#[allow(missing_docs, reason = "the SDM's names")] pub const $name: Field = Field($encoding);)*
        /// Every field with its name.
        pub const ALL: &[(&str, Field)] = &[$((stringify!($name), $name),)*];
    };
}

fields! {
    // 16 bits: B.1.
    VPID = 0x0000,
    POSTED_INTERRUPT_VECTOR = 0x0002,
    EPTP_INDEX = 0x0004,
    GUEST_ES_SELECTOR = 0x0800,
    GUEST_CS_SELECTOR = 0x0802,
    GUEST_SS_SELECTOR = 0x0804,
    GUEST_DS_SELECTOR = 0x0806,
    GUEST_FS_SELECTOR = 0x0808,
    GUEST_GS_SELECTOR = 0x080A,
    GUEST_LDTR_SELECTOR = 0x080C,
    GUEST_TR_SELECTOR = 0x080E,
    GUEST_INTERRUPT_STATUS = 0x0810,
    PML_INDEX = 0x0812,
    HOST_ES_SELECTOR = 0x0C00,
    HOST_CS_SELECTOR = 0x0C02,
    HOST_SS_SELECTOR = 0x0C04,
    HOST_DS_SELECTOR = 0x0C06,
    HOST_FS_SELECTOR = 0x0C08,
    HOST_GS_SELECTOR = 0x0C0A,
    HOST_TR_SELECTOR = 0x0C0C,
    // 64 bits: B.2.
    IO_BITMAP_A = 0x2000,
    IO_BITMAP_B = 0x2002,
    MSR_BITMAP = 0x2004,
    EXIT_MSR_STORE = 0x2006,
    EXIT_MSR_LOAD = 0x2008,
    ENTRY_MSR_LOAD = 0x200A,
    EXECUTIVE_VMCS = 0x200C,
    PML_ADDRESS = 0x200E,
    TSC_OFFSET = 0x2010,
    VIRTUAL_APIC = 0x2012,
    APIC_ACCESS = 0x2014,
    POSTED_INTERRUPT_DESCRIPTOR = 0x2016,
    VM_FUNCTION_CONTROLS = 0x2018,
    EPT_POINTER = 0x201A,
    EOI_EXIT_0 = 0x201C,
    EOI_EXIT_1 = 0x201E,
    EOI_EXIT_2 = 0x2020,
    EOI_EXIT_3 = 0x2022,
    EPTP_LIST = 0x2024,
    VMREAD_BITMAP = 0x2026,
    VMWRITE_BITMAP = 0x2028,
    VIRTUALIZATION_EXCEPTION = 0x202A,
    XSS_EXITING_BITMAP = 0x202C,
    ENCLS_EXITING_BITMAP = 0x202E,
    SUBPAGE_PERMISSION_TABLE = 0x2030,
    TSC_MULTIPLIER = 0x2032,
    TERTIARY_CONTROLS = 0x2034,
    ENCLV_EXITING_BITMAP = 0x2036,
    GUEST_PHYSICAL_ADDRESS = 0x2400,
    VMCS_LINK = 0x2800,
    GUEST_DEBUGCTL = 0x2802,
    GUEST_PAT = 0x2804,
    GUEST_EFER = 0x2806,
    GUEST_PERF_GLOBAL_CTRL = 0x2808,
    GUEST_PDPTE_0 = 0x280A,
    GUEST_PDPTE_1 = 0x280C,
    GUEST_PDPTE_2 = 0x280E,
    GUEST_PDPTE_3 = 0x2810,
    GUEST_BNDCFGS = 0x2812,
    GUEST_RTIT_CTL = 0x2814,
    GUEST_PKRS = 0x2818,
    HOST_PAT = 0x2C00,
    HOST_EFER = 0x2C02,
    HOST_PERF_GLOBAL_CTRL = 0x2C04,
    HOST_PKRS = 0x2C06,
    // 32 bits: B.3.
    PIN_CONTROLS = 0x4000,
    PRIMARY_CONTROLS = 0x4002,
    EXCEPTION_BITMAP = 0x4004,
    PAGE_FAULT_MASK = 0x4006,
    PAGE_FAULT_MATCH = 0x4008,
    CR3_TARGET_COUNT = 0x400A,
    EXIT_CONTROLS = 0x400C,
    EXIT_MSR_STORE_COUNT = 0x400E,
    EXIT_MSR_LOAD_COUNT = 0x4010,
    ENTRY_CONTROLS = 0x4012,
    ENTRY_MSR_LOAD_COUNT = 0x4014,
    ENTRY_INTERRUPTION_INFO = 0x4016,
    ENTRY_EXCEPTION_ERROR = 0x4018,
    ENTRY_INSTRUCTION_LENGTH = 0x401A,
    TPR_THRESHOLD = 0x401C,
    SECONDARY_CONTROLS = 0x401E,
    PLE_GAP = 0x4020,
    PLE_WINDOW = 0x4022,
    INSTRUCTION_ERROR = 0x4400,
    EXIT_REASON = 0x4402,
    EXIT_INTERRUPTION_INFO = 0x4404,
    EXIT_INTERRUPTION_ERROR = 0x4406,
    IDT_VECTORING_INFO = 0x4408,
    IDT_VECTORING_ERROR = 0x440A,
    EXIT_INSTRUCTION_LENGTH = 0x440C,
    EXIT_INSTRUCTION_INFO = 0x440E,
    GUEST_ES_LIMIT = 0x4800,
    GUEST_CS_LIMIT = 0x4802,
    GUEST_SS_LIMIT = 0x4804,
    GUEST_DS_LIMIT = 0x4806,
    GUEST_FS_LIMIT = 0x4808,
    GUEST_GS_LIMIT = 0x480A,
    GUEST_LDTR_LIMIT = 0x480C,
    GUEST_TR_LIMIT = 0x480E,
    GUEST_GDTR_LIMIT = 0x4810,
    GUEST_IDTR_LIMIT = 0x4812,
    GUEST_ES_ACCESS = 0x4814,
    GUEST_CS_ACCESS = 0x4816,
    GUEST_SS_ACCESS = 0x4818,
    GUEST_DS_ACCESS = 0x481A,
    GUEST_FS_ACCESS = 0x481C,
    GUEST_GS_ACCESS = 0x481E,
    GUEST_LDTR_ACCESS = 0x4820,
    GUEST_TR_ACCESS = 0x4822,
    GUEST_INTERRUPTIBILITY = 0x4824,
    GUEST_ACTIVITY = 0x4826,
    GUEST_SMBASE = 0x4828,
    GUEST_SYSENTER_CS = 0x482A,
    GUEST_PREEMPTION_TIMER = 0x482E,
    HOST_SYSENTER_CS = 0x4C00,
    // Natural width: B.4.
    CR0_MASK = 0x6000,
    CR4_MASK = 0x6002,
    CR0_SHADOW = 0x6004,
    CR4_SHADOW = 0x6006,
    CR3_TARGET_0 = 0x6008,
    CR3_TARGET_1 = 0x600A,
    CR3_TARGET_2 = 0x600C,
    CR3_TARGET_3 = 0x600E,
    EXIT_QUALIFICATION = 0x6400,
    EXIT_IO_RCX = 0x6402,
    EXIT_IO_RSI = 0x6404,
    EXIT_IO_RDI = 0x6406,
    EXIT_IO_RIP = 0x6408,
    GUEST_LINEAR_ADDRESS = 0x640A,
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_ES_BASE = 0x6806,
    GUEST_CS_BASE = 0x6808,
    GUEST_SS_BASE = 0x680A,
    GUEST_DS_BASE = 0x680C,
    GUEST_FS_BASE = 0x680E,
    GUEST_GS_BASE = 0x6810,
    GUEST_LDTR_BASE = 0x6812,
    GUEST_TR_BASE = 0x6814,
    GUEST_GDTR_BASE = 0x6816,
    GUEST_IDTR_BASE = 0x6818,
    GUEST_DR7 = 0x681A,
    GUEST_RSP = 0x681C,
    GUEST_RIP = 0x681E,
    GUEST_RFLAGS = 0x6820,
    GUEST_PENDING_DEBUG = 0x6822,
    GUEST_SYSENTER_ESP = 0x6824,
    GUEST_SYSENTER_EIP = 0x6826,
    GUEST_S_CET = 0x6828,
    GUEST_SSP = 0x682A,
    GUEST_INTERRUPT_SSP_TABLE = 0x682C,
    HOST_CR0 = 0x6C00,
    HOST_CR3 = 0x6C02,
    HOST_CR4 = 0x6C04,
    HOST_FS_BASE = 0x6C06,
    HOST_GS_BASE = 0x6C08,
    HOST_TR_BASE = 0x6C0A,
    HOST_GDTR_BASE = 0x6C0C,
    HOST_IDTR_BASE = 0x6C0E,
    HOST_SYSENTER_ESP = 0x6C10,
    HOST_SYSENTER_EIP = 0x6C12,
    HOST_RSP = 0x6C14,
    HOST_RIP = 0x6C16,
    HOST_S_CET = 0x6C18,
    HOST_SSP = 0x6C1A,
    HOST_INTERRUPT_SSP_TABLE = 0x6C1C,
}
