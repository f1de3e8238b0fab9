//! Why a guest came out (SDM appendix C) and what the exit's fields say (28.2), decoded.

#[cfg(test)]
mod tests;

macro_rules! reasons {
    ($($number:literal $name:ident $text:literal,)*) => {
        /// A basic exit reason.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Reason {
            $(#[doc = $text] $name = $number,)*
        }

        impl Reason {
            #[must_use]
            pub const fn from_number(n: u16) -> Option<Self> {
                match n {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

reasons! {
    0 ExceptionOrNmi "exception or NMI",
    1 ExternalInterrupt "external interrupt",
    2 TripleFault "triple fault",
    3 Init "INIT signal",
    4 Sipi "start-up IPI",
    5 IoSmi "I/O SMI",
    6 OtherSmi "SMI",
    7 InterruptWindow "interrupt window",
    8 NmiWindow "NMI window",
    9 TaskSwitch "task switch",
    10 Cpuid "CPUID",
    11 Getsec "GETSEC",
    12 Hlt "HLT",
    13 Invd "INVD",
    14 Invlpg "INVLPG",
    15 Rdpmc "RDPMC",
    16 Rdtsc "RDTSC",
    17 Rsm "RSM",
    18 Vmcall "VMCALL",
    19 Vmclear "VMCLEAR",
    20 Vmlaunch "VMLAUNCH",
    21 Vmptrld "VMPTRLD",
    22 Vmptrst "VMPTRST",
    23 Vmread "VMREAD",
    24 Vmresume "VMRESUME",
    25 Vmwrite "VMWRITE",
    26 Vmxoff "VMXOFF",
    27 Vmxon "VMXON",
    28 ControlRegister "control-register access",
    29 DebugRegister "debug-register access",
    30 Io "I/O instruction",
    31 Rdmsr "RDMSR",
    32 Wrmsr "WRMSR",
    33 EntryGuestState "VM-entry failure: invalid guest state",
    34 EntryMsrLoad "VM-entry failure: MSR loading",
    36 Mwait "MWAIT",
    37 MonitorTrap "monitor trap flag",
    39 Monitor "MONITOR",
    40 Pause "PAUSE",
    41 EntryMachineCheck "VM-entry failure: machine-check event",
    43 TprThreshold "TPR below threshold",
    44 ApicAccess "APIC access",
    45 VirtualizedEoi "virtualised EOI",
    46 GdtrIdtr "access to GDTR or IDTR",
    47 LdtrTr "access to LDTR or TR",
    48 EptViolation "EPT violation",
    49 EptMisconfiguration "EPT misconfiguration",
    50 Invept "INVEPT",
    51 Rdtscp "RDTSCP",
    52 PreemptionTimer "preemption timer",
    53 Invvpid "INVVPID",
    54 Wbinvd "WBINVD",
    55 Xsetbv "XSETBV",
    56 ApicWrite "APIC write",
    57 Rdrand "RDRAND",
    58 Invpcid "INVPCID",
    59 Vmfunc "VMFUNC",
    60 Encls "ENCLS",
    61 Rdseed "RDSEED",
    62 PmlFull "page-modification log full",
    63 Xsaves "XSAVES",
    64 Xrstors "XRSTORS",
    65 Pconfig "PCONFIG",
    66 SubpageEvent "sub-page permission event",
    67 Umwait "UMWAIT",
    68 Tpause "TPAUSE",
    69 Loadiwkey "LOADIWKEY",
    70 Enclv "ENCLV",
    72 EnqcmdFault "ENQCMD PASID translation",
    73 EnqcmdsFault "ENQCMDS PASID translation",
    74 BusLock "bus lock",
    75 InstructionTimeout "instruction timeout",
    76 Seamcall "SEAMCALL",
    77 Tdcall "TDCALL",
}

impl Reason {
    /// Whether it is an instruction that is for a hypervisor, or for measured launches and enclaves: a guest of ours has
    /// none of them (its CPUID says so), and for an application they are invalid opcodes.
    #[must_use]
    pub const fn is_instruction_of_root(self) -> bool {
        matches!(
            self,
            Self::Vmcall
                | Self::Vmclear
                | Self::Vmlaunch
                | Self::Vmptrld
                | Self::Vmptrst
                | Self::Vmread
                | Self::Vmresume
                | Self::Vmwrite
                | Self::Vmxoff
                | Self::Vmxon
                | Self::Invept
                | Self::Invvpid
                | Self::Getsec
                | Self::Encls
        )
    }
}

/// How many counters of exits there are: one per number below, the last for all others.
pub const COUNTERS: usize = 80;

/// The name of counter `i`.
#[must_use]
pub fn counter_name(i: usize) -> &'static str {
    let known = u16::try_from(i).ok().and_then(Reason::from_number);
    known.map_or("another exit", Reason::name)
}

/// The exit-reason field (28.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit(pub u32);

impl Exit {
    /// The basic reason as a number, known or not.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0 as u16
    }

    #[must_use]
    pub const fn reason(self) -> Option<Reason> {
        Reason::from_number(self.number())
    }

    /// The guest was never entered (27.8).
    #[must_use]
    pub const fn is_entry_failure(self) -> bool {
        self.0 >> 31 != 0
    }

    /// The counter that it belongs to.
    #[must_use]
    pub fn counter(self) -> usize {
        usize::from(self.number()).min(COUNTERS - 1)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        self.reason().map_or("an exit that is not known", Reason::name)
    }
}

/// Why invalid guest state was found (27.8, the exit qualification with reason 33).
#[must_use]
pub const fn entry_failure_detail(qualification: u64) -> &'static str {
    match qualification {
        2 => "PDPTEs cannot be loaded",
        3 => "an NMI was to be injected while the guest blocks interrupts by STI or MOV SS",
        4 => "the VMCS link pointer is not valid",
        _ => "a field of the guest's state is not valid",
    }
}

/// Qualification of an EPT violation (28.2.1, table 28-7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EptViolation(pub u64);

impl EptViolation {
    #[must_use]
    pub const fn is_read(self) -> bool {
        self.0 & 1 != 0
    }

    #[must_use]
    pub const fn is_write(self) -> bool {
        self.0 >> 1 & 1 != 0
    }

    #[must_use]
    pub const fn is_fetch(self) -> bool {
        self.0 >> 2 & 1 != 0
    }

    /// Something is mapped there, but not for this.
    #[must_use]
    pub const fn is_mapped(self) -> bool {
        self.0 >> 3 & 7 != 0
    }

    /// The guest's linear address is known.
    #[must_use]
    pub const fn has_linear_address(self) -> bool {
        self.0 >> 7 & 1 != 0
    }

    /// The access was to the page that the linear address means, not to the guest's tables on the way.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.has_linear_address() && self.0 >> 8 & 1 != 0
    }

    /// IRET had unblocked NMIs when it faulted: the monitor must block them again (28.2.3).
    #[must_use]
    pub const fn unblocks_nmi(self) -> bool {
        self.0 >> 12 & 1 != 0
    }

    /// `read of`, `write to`, `fetch from`.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        if self.is_write() {
            "write to"
        } else if self.is_fetch() {
            "fetch from"
        } else {
            "read of"
        }
    }
}

/// Qualification of an I/O instruction (table 28-5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Io(pub u64);

impl Io {
    /// 1, 2 or 4 bytes.
    #[must_use]
    pub const fn width(self) -> u8 {
        match self.0 & 7 {
            0 => 1,
            1 => 2,
            _ => 4,
        }
    }

    #[must_use]
    pub const fn is_in(self) -> bool {
        self.0 >> 3 & 1 != 0
    }

    /// INS or OUTS.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    #[must_use]
    pub const fn has_rep(self) -> bool {
        self.0 >> 5 & 1 != 0
    }

    #[must_use]
    pub const fn port(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// RAX after an IN: 8 and 16 bits leave the rest alone, 32 clear the upper half.
    #[must_use]
    pub const fn merge(self, rax: u64, value: u32) -> u64 {
        match self.width() {
            1 => rax & !0xFF | value as u64 & 0xFF,
            2 => rax & !0xFFFF | value as u64 & 0xFFFF,
            _ => value as u64,
        }
    }

    /// What an OUT writes.
    #[must_use]
    pub const fn outgoing(self, rax: u64) -> u32 {
        match self.width() {
            1 => rax as u32 & 0xFF,
            2 => rax as u32 & 0xFFFF,
            _ => rax as u32,
        }
    }
}

/// Qualification of a control-register access (table 28-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrAccess {
    /// MOV to CR: `cr` from general register `register`.
    To {
        cr: u8,
        register: u8,
    },
    /// MOV from CR.
    From {
        cr: u8,
        register: u8,
    },
    Clts,
    /// LMSW with this operand.
    Lmsw(u16),
}

impl CrAccess {
    #[must_use]
    pub const fn decode(qualification: u64) -> Self {
        let cr = qualification as u8 & 0xF;
        // As instructions number them: 0 RAX, 1 RCX, 2 RDX, 3 RBX, 4 RSP, 5 RBP, 6 RSI, 7 RDI, R8…
        let register = (qualification >> 8) as u8 & 0xF;
        match qualification >> 4 & 3 {
            0 => Self::To { cr, register },
            1 => Self::From { cr, register },
            2 => Self::Clts,
            _ => Self::Lmsw((qualification >> 16) as u16),
        }
    }
}

/// What kind of event an interruption-information field is about (25.8.3, 28.2.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    External,
    Nmi,
    HardwareException,
    SoftwareInterrupt,
    PrivilegedSoftwareException,
    SoftwareException,
    Other,
}

/// VM-exit interruption information, or IDT-vectoring information: the same layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interruption(pub u32);

impl Interruption {
    /// To be written into the entry's field: an NMI for the guest.
    pub const INJECT_NMI: Self = Self(1 << 31 | 2 << 8 | 2);

    /// A hardware exception to inject, with an error code that goes into its own field.
    #[must_use]
    pub const fn exception(vector: u8, has_error: bool) -> Self {
        Self(1 << 31 | (has_error as u32) << 11 | 3 << 8 | (vector & 31) as u32)
    }

    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 >> 31 != 0
    }

    #[must_use]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    #[must_use]
    pub const fn event(self) -> Event {
        match self.0 >> 8 & 7 {
            0 => Event::External,
            2 => Event::Nmi,
            3 => Event::HardwareException,
            4 => Event::SoftwareInterrupt,
            5 => Event::PrivilegedSoftwareException,
            6 => Event::SoftwareException,
            _ => Event::Other,
        }
    }

    #[must_use]
    pub const fn is_nmi(self) -> bool {
        self.is_valid() && matches!(self.event(), Event::Nmi)
    }

    #[must_use]
    pub const fn has_error(self) -> bool {
        self.0 >> 11 & 1 != 0
    }

    /// IRET had unblocked NMIs when it faulted (exits only).
    #[must_use]
    pub const fn unblocks_nmi(self) -> bool {
        self.0 >> 12 & 1 != 0
    }

    /// An event whose delivery the exit broke off, as it is to be injected again: without the bits that
    /// are undefined or reserved in the entry's field. `None`: there was none.
    #[must_use]
    pub const fn again(self) -> Option<Self> {
        if self.is_valid() { Some(Self(self.0 & 0x8000_0FFF)) } else { None }
    }

    /// Injecting it needs the instruction's length.
    #[must_use]
    pub const fn needs_length(self) -> bool {
        matches!(
            self.event(),
            Event::SoftwareInterrupt
                | Event::PrivilegedSoftwareException
                | Event::SoftwareException
        )
    }
}

/// The VM-instruction error field (31.4): why VMLAUNCH, VMPTRLD and so on failed.
#[must_use]
pub const fn instruction_error(number: u32) -> &'static str {
    match number {
        1 => "VMCALL in VMX root operation",
        2 => "VMCLEAR with an invalid address",
        3 => "VMCLEAR with the VMXON pointer",
        4 => "VMLAUNCH with a VMCS that is not clear",
        5 => "VMRESUME with a VMCS that is not launched",
        6 => "VMRESUME after VMXOFF",
        7 => "VM entry with invalid control fields",
        8 => "VM entry with invalid host-state fields",
        9 => "VMPTRLD with an invalid address",
        10 => "VMPTRLD with the VMXON pointer",
        11 => "VMPTRLD with another revision of VMCS",
        12 => "VMREAD or VMWRITE of a field that is not there",
        13 => "VMWRITE to a read-only field",
        15 => "VMXON in VMX root operation",
        16 => "VM entry with an invalid executive-VMCS pointer",
        17 => "VM entry with an executive VMCS that is not launched",
        18 => "VM entry with an executive-VMCS pointer that is not the VMXON pointer",
        19 => "VMCALL with a VMCS that is not clear",
        20 => "VMCALL with invalid VM-exit control fields",
        22 => "VMCALL with an incorrect MSEG revision identifier",
        23 => "VMXOFF under the dual-monitor treatment",
        24 => "VMCALL with invalid SMM-monitor features",
        25 => "VM entry with invalid VM-execution control fields in the executive VMCS",
        26 => "VM entry with events blocked by MOV SS",
        28 => "INVEPT or INVVPID with an invalid operand",
        _ => "an error that is not known",
    }
}
