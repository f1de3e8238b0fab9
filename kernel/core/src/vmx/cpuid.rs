//! What CPUID tells a dataplane: the CPU's own features, by allow-list, without those that would need an
//! MSR or an instruction that the monitor does not pass, and with the monitor's own leaves.

#[cfg(test)]
mod tests;

/// EAX, EBX, ECX, EDX.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Leaf {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// The core that asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asker {
    pub apic_id: u32,
    /// The guest's CR4: tells whether OSXSAVE is on.
    pub cr4: u64,
    /// Guest-physical address of the monitor page.
    pub page: u64,
    pub tsc_khz: u32,
    /// Instructions that a control of the VMCS has switched on.
    pub instructions: super::capability::Instructions,
}

/// The monitor's name in leaf 40000000h.
pub const SIGNATURE: &[u8; 12] = b"IXmonitorIX\0";
/// The monitor's leaves: the name; the monitor page's address (EAX low, EBX high half).
pub const LEAF_SIGNATURE: u32 = 0x4000_0000;
pub const LEAF_PAGE: u32 = 0x4000_0001;
/// EAX: the TSC's kHz, as VMware and KVM tell it.
pub const LEAF_TSC: u32 = 0x4000_0010;

const BASIC_MAX: u32 = 0x1F;
const EXTENDED_MAX: u32 = 0x8000_0008;

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut i = 0;
    while i < list.len() {
        mask |= 1 << list[i];
        i += 1;
    }
    mask
}

/// Leaf 1 ECX: SSE3, PCLMUL, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, x2APIC, MOVBE, POPCNT, AES, XSAVE,
/// AVX, F16C, RDRAND. Not: MONITOR, VMX, SMX, TSC deadline (an MSR), performance and debug MSRs.
const FEATURES_ECX: u32 = bits(&[0, 1, 9, 12, 13, 17, 19, 20, 21, 22, 23, 25, 26, 28, 29, 30]);
/// Leaf 1 EDX. Not: SYSENTER, MTRRs, machine-check architecture, debug store, thermal MSRs.
const FEATURES_EDX: u32 =
    bits(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 15, 16, 17, 19, 23, 24, 25, 26, 27, 28]);
const OSXSAVE: u32 = 27;
const HYPERVISOR: u32 = 31;
/// Leaf 7 EBX. Not: TSC_ADJUST, SGX, MPX, cache allocation and monitoring, Processor Trace.
const MORE_EBX: u32 = bits(&[
    0, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31,
]);
const INVPCID: u32 = 10;
/// Leaf 7 ECX. Not: protection keys and CET (state that the monitor does not keep apart), user waits,
/// five levels of paging, key locker, ENQCMD.
const MORE_ECX: u32 = bits(&[0, 1, 2, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]);
const RDPID: u32 = 22;
/// Leaf 7 EDX: instructions only; speculation control, capabilities and hybrid features are MSRs.
const MORE_EDX: u32 = bits(&[2, 3, 4, 8, 10, 14, 16, 23]);
/// Leaf 80000001h.
const EXTENDED_ECX: u32 = bits(&[0, 5, 8]);
const EXTENDED_EDX: u32 = bits(&[11, 20, 26, 27, 29]);
const RDTSCP: u32 = 27;
const INVARIANT_TSC: u32 = 1 << 8;
/// Leaf 6 EAX: the APIC timer runs on while the core sleeps.
const ALWAYS_RUNNING_TIMER: u32 = 1 << 2;
/// Leaf 0Dh, subleaf 1: XSAVEOPT, XSAVEC, XGETBV with ECX = 1, XSAVES.
const XSAVE_MORE: u32 = 0xF;
const XSAVES: u32 = 1 << 3;

/// State components that a guest may enable in XCR0: x87, SSE, AVX, AVX-512.
pub const XCR0_ALLOWED: u64 = 0b1110_0111;
const AVX512: u64 = 0b1110_0000;

const CR4_OSXSAVE: u64 = 1 << 18;

/// Whether XSETBV may load this into XCR0 (SDM 13.3): else the guest gets a #GP on a CPU, and the monitor
/// must never execute it.
#[must_use]
pub const fn xcr0_allowed(value: u64, supported: u64) -> bool {
    let known = value & !(XCR0_ALLOWED & supported) == 0;
    let x87 = value & 1 != 0;
    let avx = value & 0b100 == 0 || value & 0b10 != 0;
    let avx512 = value & AVX512 == 0 || (value & AVX512 == AVX512 && value & 0b100 != 0);
    known && x87 && avx && avx512
}

/// What a leaf tells, given what the CPU's own says when this core executes it (`host`).
#[must_use]
pub fn answer(leaf: u32, subleaf: u32, host: Leaf, who: &Asker) -> Leaf {
    match leaf {
        0 => Leaf { eax: host.eax.min(BASIC_MAX), ..host },
        1 => features(host, who),
        // Caches and their topology; the TSC's and the core's frequencies.
        2 | 4 | 0x15 | 0x16 => host,
        6 => Leaf { eax: host.eax & ALWAYS_RUNNING_TIMER, ..Leaf::default() },
        7 if subleaf == 0 => more_features(host, who),
        0xB | 0x1F => Leaf { edx: who.apic_id, ..host },
        0xD => xsave(subleaf, host, who),
        0x8000_0000 => Leaf { eax: host.eax.min(EXTENDED_MAX), ..Leaf::default() },
        0x8000_0001 => {
            let edx = without(host.edx & EXTENDED_EDX, RDTSCP, who.instructions.rdtscp);
            Leaf { ecx: host.ecx & EXTENDED_ECX, edx, ..Leaf::default() }
        }
        0x8000_0002..=0x8000_0006 => host,
        0x8000_0007 => Leaf { edx: host.edx & INVARIANT_TSC, ..Leaf::default() },
        0x8000_0008 => Leaf { eax: host.eax, ..Leaf::default() },
        LEAF_SIGNATURE => {
            let word = |i: usize| {
                u32::from_le_bytes([
                    SIGNATURE[i],
                    SIGNATURE[i + 1],
                    SIGNATURE[i + 2],
                    SIGNATURE[i + 3],
                ])
            };
            Leaf { eax: LEAF_TSC, ebx: word(0), ecx: word(4), edx: word(8) }
        }
        LEAF_PAGE => Leaf { eax: who.page as u32, ebx: (who.page >> 32) as u32, ..Leaf::default() },
        LEAF_TSC => Leaf { eax: who.tsc_khz, ..Leaf::default() },
        _ => Leaf::default(),
    }
}

/// `word` without bit `n`, unless `keep`.
const fn without(word: u32, n: u32, keep: bool) -> u32 {
    if keep { word } else { word & !(1 << n) }
}

fn features(host: Leaf, who: &Asker) -> Leaf {
    let mut ecx = host.ecx & FEATURES_ECX | 1 << HYPERVISOR;
    if who.cr4 & CR4_OSXSAVE != 0 {
        ecx |= 1 << OSXSAVE;
    }
    Leaf {
        eax: host.eax,
        ebx: host.ebx & 0x00FF_FFFF | who.apic_id << 24,
        ecx,
        edx: host.edx & FEATURES_EDX,
    }
}

fn more_features(host: Leaf, who: &Asker) -> Leaf {
    Leaf {
        eax: 0,
        ebx: without(host.ebx & MORE_EBX, INVPCID, who.instructions.invpcid),
        // RDPID and RDTSCP hang on the same control.
        ecx: without(host.ecx & MORE_ECX, RDPID, who.instructions.rdtscp),
        edx: host.edx & MORE_EDX,
    }
}

/// The sizes (EBX) are those of the XCR0 that is loaded: the guest's own, since XSETBV loads it for real.
fn xsave(subleaf: u32, host: Leaf, who: &Asker) -> Leaf {
    match subleaf {
        0 => Leaf { eax: host.eax & XCR0_ALLOWED as u32, edx: 0, ..host },
        1 => {
            let eax = host.eax & XSAVE_MORE;
            let eax = if who.instructions.xsaves { eax } else { eax & !XSAVES };
            Leaf { eax, ebx: host.ebx, ..Leaf::default() }
        }
        2..=63 if XCR0_ALLOWED >> subleaf & 1 != 0 => host,
        _ => Leaf::default(),
    }
}
