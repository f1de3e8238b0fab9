//! Intel VT-d: between a device and memory, so that the device reaches what its driver gave it and nothing else.
//!
//! [`dmar::units`] reads from ACPI's table where the units are and whose requests they see; a [`Unit`] is one of them, by its
//! registers; a [`Domain`] is what a device reaches, as tables in memory, where each page has its own address or none.
//! Legacy mode only, invalidation by registers: what every unit has. No unsafe code: whoever embeds it brings memory ([`Memory`])
//! and registers (`Mmio`).
//!
//! Sections cited as "§" are those of the *Intel Virtualization Technology for Directed I/O Architecture Specification*,
//! revision 4.1.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod dmar;
mod domain;
mod error;
mod fault;
mod regs;
mod unit;

pub use domain::{Domain, MapError, Memory, Rights};
pub use error::VtdError;
pub use fault::Fault;
pub use unit::{Clock, Unit};

/// Bytes of a unit's registers that are used at most, its fault and invalidation registers aside (§11.4).
pub const REGISTER_BYTES: u64 = 4096;

/// A function's place on its segment: bus in bits 8–15, device in 3–7, function in 0–2 (§3.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceId(pub u16);

impl SourceId {
    /// Of a function.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> SourceId {
        SourceId((bus as u16) << 8 | (device as u16 & 31) << 3 | (function as u16 & 7))
    }

    /// Its bus.
    #[must_use]
    pub const fn bus(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Device and function: its entry in the table of its bus.
    #[must_use]
    pub const fn entry(self) -> usize {
        (self.0 & 0xff) as usize
    }
}

impl core::fmt::Display for SourceId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let entry = self.entry();
        write!(f, "{:02x}:{:02x}.{}", self.bus(), entry >> 3, entry & 7)
    }
}
