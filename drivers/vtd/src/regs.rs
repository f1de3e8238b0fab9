//! Registers of a unit, by offset, and their fields (§11.4).
use bitflags::bitflags;

/// Version (§11.4.1).
pub const VER: usize = 0x00;
/// Capabilities (§11.4.2).
pub const CAP: usize = 0x08;
/// Extended capabilities (§11.4.3).
pub const ECAP: usize = 0x10;
/// Global command (§11.4.4.1): one bit is written at a time, over those of [`GSTS`].
pub const GCMD: usize = 0x18;
/// Global status (§11.4.4.2).
pub const GSTS: usize = 0x1c;
/// Root table address (§11.4.5).
pub const RTADDR: usize = 0x20;
/// Context command (§11.4.6.5.1).
pub const CCMD: usize = 0x28;
/// Fault status (§11.4.7.1); bits are cleared by writing 1.
pub const FSTS: usize = 0x34;
/// Fault event control (§11.4.7.2).
pub const FECTL: usize = 0x38;
/// Protected memory enable (§11.4.8.1).
pub const PMEN: usize = 0x64;

bitflags! {
    /// Bits of GCMD and GSTS.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Global: u32 {
        /// Translation is on.
        const TRANSLATION = 1 << 31;
        /// The root table is taken.
        const ROOT = 1 << 30;
        /// The write buffer is being flushed.
        const WRITE_BUFFER = 1 << 27;
        /// Invalidation by a queue.
        const QUEUE = 1 << 26;
        /// Interrupts are remapped.
        const INTERRUPTS = 1 << 25;
    }
}

/// Those bits of GSTS that stay as they are while another is commanded: all that are no one-shot commands (§11.4.4.1).
pub const KEPT: u32 = 0x96ff_ffff;

/// CCMD: invalidate; it reads as 1 until done. Globally.
pub const CCMD_GLOBAL: u64 = 1 << 63 | 1 << 61;
/// IOTLB: invalidate; it reads as 1 until done. Globally, with reads and writes drained.
pub const IOTLB_GLOBAL: u64 = 1 << 63 | 1 << 60 | 1 << 49 | 1 << 48;
/// Both are under way while this is set.
pub const UNDER_WAY: u64 = 1 << 63;

/// FSTS: a fault could not be recorded.
pub const FSTS_OVERFLOW: u32 = 1;
/// FSTS: a fault is recorded.
pub const FSTS_PENDING: u32 = 1 << 1;
/// FECTL: no interrupt.
pub const FECTL_MASK: u32 = 1 << 31;
/// The upper half of a fault record: there is one; cleared by writing 1 (its last doubleword).
pub const FAULT: u32 = 1 << 31;
/// PMEN: memory is protected from all devices.
pub const PMEN_ENABLE: u32 = 1 << 31;

/// What CAP and ECAP say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    cap: u64,
    ecap: u64,
}

impl Capabilities {
    /// Of both registers.
    pub const fn new(cap: u64, ecap: u64) -> Capabilities {
        Capabilities { cap, ecap }
    }

    /// Widths of tables, a bit each (SAGAW): bit 1 three levels, bit 2 four.
    pub const fn widths(self) -> u8 {
        (self.cap >> 8 & 0x1f) as u8
    }

    /// Bits of an address that it translates (MGAW).
    pub const fn address_bits(self) -> u32 {
        (self.cap >> 16 & 0x3f) as u32 + 1
    }

    /// Pages of 2 MiB (SLLPS).
    pub const fn has_large_pages(self) -> bool {
        self.cap >> 34 & 1 != 0
    }

    /// A write buffer has to be flushed after tables were written (RWBF).
    pub const fn has_write_buffer(self) -> bool {
        self.cap >> 4 & 1 != 0
    }

    /// It caches that something is not there (CM).
    pub const fn caches_absence(self) -> bool {
        self.cap >> 7 & 1 != 0
    }

    /// It looks into the processors' caches when it reads tables (ECAP.C).
    pub const fn is_coherent(self) -> bool {
        self.ecap & 1 != 0
    }

    /// Where fault records are, and how many (FRO, NFR).
    pub const fn faults(self) -> (usize, usize) {
        ((self.cap >> 24 & 0x3ff) as usize * 16, (self.cap >> 40 & 0xff) as usize + 1)
    }

    /// Where the register is that invalidates translations (IRO).
    pub const fn iotlb(self) -> usize {
        (self.ecap >> 8 & 0x3ff) as usize * 16 + 8
    }
}
