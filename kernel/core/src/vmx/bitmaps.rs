//! MSR and I/O bitmaps (SDM 25.6.9, 25.6.4) by allow-list: a new one lets nothing through, and only what
//! is named passes without an exit. Both are laid out as the CPU reads them.

#[cfg(test)]
mod tests;

/// An MSR that no bitmap covers: accesses to it always exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotCovered(pub u32);

/// What of an MSR passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    Read,
    Write,
    Both,
}

/// 4 KiB: reads of low and high MSRs, writes of low and high MSRs, a bit each; 1 exits.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C, align(4096))]
pub struct MsrBitmap([u8; 4096]);

const MSR_WRITES: usize = 2048;
const MSR_HIGH: usize = 1024;
const MSR_HIGH_FIRST: u32 = 0xC000_0000;
const MSRS: u32 = 0x2000;

impl MsrBitmap {
    /// Every access exits.
    #[must_use]
    pub const fn none() -> Self {
        Self([0xFF; 4096])
    }

    pub fn allow(&mut self, msr: u32, pass: Pass) -> Result<(), NotCovered> {
        let (byte, bit) = Self::place(msr).ok_or(NotCovered(msr))?;
        if pass != Pass::Write {
            self.0[byte] &= !bit;
        }
        if pass != Pass::Read {
            self.0[MSR_WRITES + byte] &= !bit;
        }
        Ok(())
    }

    /// Whether a read passes without an exit.
    #[must_use]
    pub fn reads(&self, msr: u32) -> bool {
        Self::place(msr).is_some_and(|(byte, bit)| self.0[byte] & bit == 0)
    }

    #[must_use]
    pub fn writes(&self, msr: u32) -> bool {
        Self::place(msr).is_some_and(|(byte, bit)| self.0[MSR_WRITES + byte] & bit == 0)
    }

    fn place(msr: u32) -> Option<(usize, u8)> {
        let (part, n) = if msr < MSRS {
            (0, msr)
        } else {
            (MSR_HIGH, msr.checked_sub(MSR_HIGH_FIRST).filter(|n| *n < MSRS)?)
        };
        Some((part + n as usize / 8, 1 << (n % 8)))
    }

    #[must_use]
    pub const fn bytes(&self) -> &[u8; 4096] {
        &self.0
    }
}

/// 8 KiB: bitmap A for ports below 8000h, bitmap B (the next page) for the others; 1 exits. An access
/// passes if all its ports do; one that wraps past FFFFh always exits.
#[derive(Clone, PartialEq, Eq, Debug)]
#[repr(C, align(4096))]
pub struct IoBitmap([u8; 8192]);

impl IoBitmap {
    /// Every access exits.
    #[must_use]
    pub const fn none() -> Self {
        Self([0xFF; 8192])
    }

    /// Lets `count` ports from `first` on pass; ports past FFFFh do not exist.
    pub fn allow(&mut self, first: u16, count: u16) {
        for port in usize::from(first)..(usize::from(first) + usize::from(count)).min(0x1_0000) {
            self.0[port / 8] &= !(1 << (port % 8));
        }
    }

    /// Whether an access of `width` bytes passes without an exit.
    #[must_use]
    pub fn passes(&self, port: u16, width: u8) -> bool {
        let mut ports = usize::from(port)..usize::from(port) + usize::from(width.max(1));
        ports.end <= 0x1_0000 && ports.all(|p| self.0[p / 8] >> (p % 8) & 1 == 0)
    }

    #[must_use]
    pub const fn bytes(&self) -> &[u8; 8192] {
        &self.0
    }
}

/// x2APIC registers (as MSRs, SDM 12.12.1) that a dataplane reads and writes without an exit: none reaches
/// beyond its own core. The ICR is not among them, nor the LVT entries that can raise SMIs.
pub const X2APIC_PASSED: &[(u32, Pass)] = &[
    (0x802, Pass::Read),  // ID
    (0x803, Pass::Read),  // version
    (0x808, Pass::Both),  // task priority
    (0x80A, Pass::Read),  // processor priority
    (0x80B, Pass::Write), // end of interrupt
    (0x80D, Pass::Read),  // logical destination
    (0x80F, Pass::Read),  // spurious interrupt vector
    (0x810, Pass::Read),  // in service
    (0x811, Pass::Read),
    (0x812, Pass::Read),
    (0x813, Pass::Read),
    (0x814, Pass::Read),
    (0x815, Pass::Read),
    (0x816, Pass::Read),
    (0x817, Pass::Read),
    (0x820, Pass::Read), // requested
    (0x821, Pass::Read),
    (0x822, Pass::Read),
    (0x823, Pass::Read),
    (0x824, Pass::Read),
    (0x825, Pass::Read),
    (0x826, Pass::Read),
    (0x827, Pass::Read),
    (0x828, Pass::Both), // error status
    (0x830, Pass::Read), // ICR: reading tells what was sent last
    (0x832, Pass::Read), // LVT timer
    (0x835, Pass::Read), // LVT LINT0 and LINT1: a write could ask for SMI, NMI or ExtINT
    (0x836, Pass::Read),
    (0x837, Pass::Read), // LVT error
    (0x838, Pass::Both), // initial count
    (0x839, Pass::Read), // current count
    (0x83E, Pass::Both), // divide configuration
];

/// x2APIC LVT LINT0 and LINT1: only "masked" may be written.
pub const X2APIC_LINT: [u32; 2] = [0x835, 0x836];

/// Whether a dataplane may write this to LINT0 or LINT1: masked, fixed delivery, nothing else.
#[must_use]
pub const fn lint_allowed(value: u64) -> bool {
    const MASKED: u64 = 1 << 16;
    value & !0xFF == MASKED
}

/// x2APIC registers that hold a vector which this core is interrupted with: spurious, LVT timer, LVT error. They are written at
/// boot only, so that their writes exit costs nothing.
pub const X2APIC_VECTORS: [u32; 3] = [0x80F, 0x832, 0x837];

/// Whether a dataplane may write this to one of [`X2APIC_VECTORS`]. A vector below 32 that is pending when the core goes to another
/// dataplane would be an exception there. Bits that not every CPU has would be a #GP in the monitor.
#[must_use]
pub const fn vector_allowed(msr: u32, value: u64) -> bool {
    const MASKED: u64 = 1 << 16;
    const PERIODIC: u64 = 1 << 17;
    const ENABLED: u64 = 1 << 8;
    let more = match msr {
        0x80F => ENABLED,
        0x832 => MASKED | PERIODIC,
        _ => MASKED,
    };
    // A masked one is written again before it interrupts.
    value & !(0xFF | more) == 0 && (value & 0xFF >= 32 || value & more & MASKED != 0)
}
