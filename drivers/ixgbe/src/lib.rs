//! The Intel 82599 (X520, X540) for the IX dataplane: polled, up to 16 queue pairs, and nothing that the chip writes is
//! trusted.
//!
//! [`pci::media`] tells whether a function is one; the kernel maps BAR 0; [`Port::open`] resets the chip, sets it up and
//! yields [`IxgbeRx`] and [`IxgbeTx`] values, which are handed to cores by move and own the registers that they write, and a
//! [`Control`] for the rare things (indirection table, link, filters, statistics, reset). `docs/drivers.md` tells the choices made here.
//!
//! Sections cited as "§" are those of the *Intel 82599 10 GbE Controller Datasheet*.
//!
//! All access to memory that the chip shares is in `memory` (the only unsafe code), as atomics; the fast path uses relaxed,
//! acquire and release accesses only, which are plain moves on x86.
#![no_std]
#![deny(unsafe_code, missing_docs)]

extern crate alloc;

mod chip;
pub mod control;
mod eeprom;
pub mod error;
mod events;
mod init;
pub mod link;
mod marks;
mod memory;
pub mod pci;
mod port;
pub mod regs;
mod rx;
pub mod sfp;
pub mod statistics;
mod tx;

pub use chip::Clock;
pub use control::{Control, Progress};
pub use error::{CommandError, InitError, LinkError};
pub use events::Events;
pub use link::Link;
pub use port::{Config, MTU_MAX, Port, Stopped};
pub use rx::IxgbeRx;
pub use statistics::Statistics;
pub use tx::IxgbeTx;

/// Entries of the indirection table: the number of flow groups (§7.1.2.8.1).
pub const GROUPS: usize = 128;
/// Bytes of the RSS key (§7.1.2.8).
pub const RSS_KEY_BYTES: usize = 40;
/// Queue pairs: as many as an entry of the table can name (§7.1.2.8).
pub const QUEUE_PAIRS_MAX: u16 = 16;

const _: () = assert!(cfg!(target_endian = "little"), "descriptors are little-endian");
