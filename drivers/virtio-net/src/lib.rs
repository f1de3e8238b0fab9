//! virtio-net for the IX dataplane (virtio 1.2, modern PCI transport, split queues): polled, 1..N
//! queue pairs, and nothing that the device writes is trusted.
//!
//! [`pci::parse`] finds the register windows, the kernel maps them, [`Transport`] holds them,
//! [`Port::open`] resets the device, negotiates, sets the queues up and yields [`VirtioRx`] and
//! [`VirtioTx`] values, which are handed to cores by move, and a [`Control`] for the rare things
//! (indirection table, link, reset). `docs/drivers.md` tells the choices made here.
//!
//! All access to memory that the device shares is in `memory` (the only unsafe code), as atomics;
//! the fast path uses relaxed, acquire and release accesses only, which are plain moves on x86.
#![no_std]
#![deny(unsafe_code, missing_docs)]

extern crate alloc;

pub mod control;
pub mod error;
pub mod features;
mod header;
mod memory;
pub mod pci;
mod port;
mod ring;
mod rx;
pub mod transport;
mod tx;

pub use control::{Control, Progress};
pub use error::{CommandError, InitError};
pub use features::Features;
pub use port::{Config, Port, Stopped};
pub use rx::VirtioRx;
pub use transport::Transport;
pub use tx::VirtioTx;

/// Entries of the indirection table: the number of flow groups. 128 as on the 82599; every device
/// with RSS takes at least as many (virtio 1.2 §5.1.4.1).
pub const GROUPS: usize = 128;
/// Bytes of the RSS key (virtio 1.2 §5.1.4.1: every device with RSS takes at least 40).
pub const RSS_KEY_BYTES: usize = 40;

const _: () = assert!(cfg!(target_endian = "little"), "virtio 1.x structures are little-endian");
