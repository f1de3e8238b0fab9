//! The VM-execution, exit and entry controls by name (SDM 25.6 to 25.8), and which of them the monitor
//! wants set, has no use without, or must have clear.

use super::capability::{Allowed, Instructions, Msrs, Wanted};

/// A group of controls: one field of the VMCS, one capability MSR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Pin,
    Primary,
    Secondary,
    Exit,
    Entry,
}

impl Group {
    pub const ALL: [Self; 5] = [Self::Pin, Self::Primary, Self::Secondary, Self::Exit, Self::Entry];

    #[must_use]
    pub const fn allowed(self, msrs: &Msrs) -> Allowed {
        Allowed(match self {
            Self::Pin => msrs.pin,
            Self::Primary => msrs.primary,
            Self::Secondary => msrs.secondary,
            Self::Exit => msrs.exit,
            Self::Entry => msrs.entry,
        })
    }

    /// The SDM's name of the control at bit `n`.
    #[must_use]
    pub fn name(self, n: u32) -> &'static str {
        let names = match self {
            Self::Pin => pin::NAMES,
            Self::Primary => primary::NAMES,
            Self::Secondary => secondary::NAMES,
            Self::Exit => exit::NAMES,
            Self::Entry => entry::NAMES,
        };
        let found = names.iter().find(|(bits, _)| *bits == 1u32.checked_shl(n).unwrap_or(0));
        found.map_or("a control without a name", |(_, name)| name)
    }
}

macro_rules! controls {
    ($module:ident, $about:literal: $($bit:literal $name:ident $text:literal,)*) => {
        #[doc = $about]
        pub mod $module {
            $(#[doc = $text] pub const $name: u32 = 1 << $bit;)*
            pub(super) const NAMES: &[(u32, &str)] = &[$(($name, $text),)*];
        }
    };
}

controls! { pin, "Pin-based controls (25.6.1).":
    0 EXTERNAL_INTERRUPT "external-interrupt exiting",
    3 NMI "NMI exiting",
    5 VIRTUAL_NMIS "virtual NMIs",
    6 PREEMPTION_TIMER "VMX-preemption timer",
    7 POSTED_INTERRUPTS "posted interrupts",
}

controls! { primary, "Primary processor-based controls (25.6.2).":
    2 INTERRUPT_WINDOW "interrupt-window exiting",
    3 TSC_OFFSETTING "TSC offsetting",
    7 HLT "HLT exiting",
    9 INVLPG "INVLPG exiting",
    10 MWAIT "MWAIT exiting",
    11 RDPMC "RDPMC exiting",
    12 RDTSC "RDTSC exiting",
    15 CR3_LOAD "CR3-load exiting",
    16 CR3_STORE "CR3-store exiting",
    17 TERTIARY "tertiary controls",
    19 CR8_LOAD "CR8-load exiting",
    20 CR8_STORE "CR8-store exiting",
    21 TPR_SHADOW "TPR shadow",
    22 NMI_WINDOW "NMI-window exiting",
    23 MOV_DR "MOV-DR exiting",
    24 UNCONDITIONAL_IO "unconditional I/O exiting",
    25 IO_BITMAPS "I/O bitmaps",
    27 MONITOR_TRAP_FLAG "monitor trap flag",
    28 MSR_BITMAPS "MSR bitmaps",
    29 MONITOR "MONITOR exiting",
    30 PAUSE "PAUSE exiting",
    31 SECONDARY "secondary controls",
}

controls! { secondary, "Secondary processor-based controls (25.6.2).":
    0 VIRTUALIZE_APIC "virtualised APIC accesses",
    1 EPT "EPT",
    2 DESCRIPTOR_TABLE "descriptor-table exiting",
    3 RDTSCP "RDTSCP",
    4 VIRTUALIZE_X2APIC "virtualised x2APIC mode",
    5 VPID "VPID",
    6 WBINVD "WBINVD exiting",
    7 UNRESTRICTED "unrestricted guest",
    8 APIC_REGISTERS "APIC-register virtualisation",
    9 INTERRUPT_DELIVERY "virtual-interrupt delivery",
    10 PAUSE_LOOP "PAUSE-loop exiting",
    11 RDRAND "RDRAND exiting",
    12 INVPCID "INVPCID",
    13 VM_FUNCTIONS "VM functions",
    14 VMCS_SHADOWING "VMCS shadowing",
    15 ENCLS "ENCLS exiting",
    16 RDSEED "RDSEED exiting",
    17 PML "page-modification logging",
    18 VIOLATION_EXCEPTION "EPT-violation #VE",
    19 CONCEAL_TRACING "concealment from Processor Trace",
    20 XSAVES "XSAVES/XRSTORS",
    22 MODE_BASED_EXECUTE "mode-based execute control",
    23 SUBPAGES "sub-page write permissions",
    25 TSC_SCALING "TSC scaling",
    26 USER_WAIT "user wait and pause",
    27 PCONFIG "PCONFIG",
    28 ENCLV "ENCLV exiting",
}

controls! { exit, "VM-exit controls (25.7.1).":
    2 SAVE_DEBUG "saving of debug controls at exits",
    9 HOST_64 "64-bit host",
    12 LOAD_PERF_GLOBAL "loading of IA32_PERF_GLOBAL_CTRL at exits",
    15 ACKNOWLEDGE_INTERRUPT "acknowledgement of interrupts at exits",
    18 SAVE_PAT "saving of IA32_PAT at exits",
    19 LOAD_PAT "loading of IA32_PAT at exits",
    20 SAVE_EFER "saving of IA32_EFER at exits",
    21 LOAD_EFER "loading of IA32_EFER at exits",
    22 SAVE_TIMER "saving of the preemption timer at exits",
    23 CLEAR_BNDCFGS "clearing of IA32_BNDCFGS at exits",
    24 CONCEAL_TRACING "concealment of exits from Processor Trace",
}

controls! { entry, "VM-entry controls (25.8.1).":
    2 LOAD_DEBUG "loading of debug controls at entries",
    9 GUEST_64 "IA-32e mode guest",
    10 SMM "entry to SMM",
    11 END_DUAL_MONITOR "deactivation of the dual-monitor treatment",
    13 LOAD_PERF_GLOBAL "loading of IA32_PERF_GLOBAL_CTRL at entries",
    14 LOAD_PAT "loading of IA32_PAT at entries",
    15 LOAD_EFER "loading of IA32_EFER at entries",
    16 LOAD_BNDCFGS "loading of IA32_BNDCFGS at entries",
    17 CONCEAL_TRACING "concealment of entries from Processor Trace",
}

/// What the monitor wants of a group. Interrupts go straight to the guest and HLT, CR3, INVLPG, RDTSC
/// and PAUSE do not exit, so those must be off; whatever could reach beyond the dataplane exits.
#[must_use]
pub const fn wanted(group: Group, instructions: Instructions) -> Wanted {
    let none = Wanted { on: 0, optional: 0, later: 0, off: 0 };
    match group {
        Group::Pin => Wanted {
            // Without virtual NMIs an injected NMI would never be unblocked by the guest's IRET
            // (SDM 26.3), and the monitor's own NMI would not come through meanwhile.
            on: pin::NMI | pin::VIRTUAL_NMIS | pin::PREEMPTION_TIMER,
            off: pin::EXTERNAL_INTERRUPT | pin::POSTED_INTERRUPTS,
            ..none
        },
        Group::Primary => Wanted {
            // MWAIT can stop the preemption timer (SDM 26.5.1) and the watchdog with it.
            on: primary::MWAIT
                | primary::MONITOR
                | primary::RDPMC
                | primary::MOV_DR
                | primary::IO_BITMAPS
                | primary::MSR_BITMAPS
                | primary::SECONDARY,
            later: primary::NMI_WINDOW,
            off: primary::INTERRUPT_WINDOW
                | primary::TSC_OFFSETTING
                | primary::HLT
                | primary::INVLPG
                | primary::RDTSC
                | primary::CR3_LOAD
                | primary::CR3_STORE
                | primary::TERTIARY
                | primary::CR8_LOAD
                | primary::CR8_STORE
                | primary::TPR_SHADOW
                | primary::UNCONDITIONAL_IO
                | primary::MONITOR_TRAP_FLAG
                | primary::PAUSE,
            ..none
        },
        Group::Secondary => {
            let mut optional = secondary::VPID | secondary::WBINVD | secondary::ENCLS;
            if instructions.rdtscp {
                optional |= secondary::RDTSCP;
            }
            if instructions.invpcid {
                optional |= secondary::INVPCID;
            }
            if instructions.xsaves {
                optional |= secondary::XSAVES;
            }
            Wanted {
                on: secondary::EPT | secondary::UNRESTRICTED,
                optional,
                off: secondary::VIRTUALIZE_APIC
                    | secondary::DESCRIPTOR_TABLE
                    | secondary::VIRTUALIZE_X2APIC
                    | secondary::APIC_REGISTERS
                    | secondary::INTERRUPT_DELIVERY
                    | secondary::PAUSE_LOOP
                    | secondary::RDRAND
                    | secondary::VM_FUNCTIONS
                    | secondary::VMCS_SHADOWING
                    | secondary::RDSEED
                    | secondary::PML
                    | secondary::VIOLATION_EXCEPTION
                    | secondary::MODE_BASED_EXECUTE
                    | secondary::SUBPAGES
                    | secondary::TSC_SCALING
                    | secondary::USER_WAIT
                    | secondary::PCONFIG,
                ..none
            }
        }
        Group::Exit => Wanted {
            // The timer is saved, so that a guest that exits all the time does not put it off.
            on: exit::SAVE_DEBUG
                | exit::HOST_64
                | exit::SAVE_PAT
                | exit::LOAD_PAT
                | exit::SAVE_EFER
                | exit::LOAD_EFER
                | exit::SAVE_TIMER,
            off: exit::LOAD_PERF_GLOBAL | exit::ACKNOWLEDGE_INTERRUPT | exit::CLEAR_BNDCFGS,
            ..none
        },
        Group::Entry => Wanted {
            on: entry::LOAD_DEBUG | entry::LOAD_PAT | entry::LOAD_EFER,
            // The CPU sets it at exits as the guest's EFER.LMA is.
            later: entry::GUEST_64,
            off: entry::SMM
                | entry::END_DUAL_MONITOR
                | entry::LOAD_PERF_GLOBAL
                | entry::LOAD_BNDCFGS,
            ..none
        },
    }
}
