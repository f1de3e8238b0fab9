//! A PCI device of another process: what QEMU (10.1 and later) attaches with `-device vfio-user-pci`.
//!
//! The chip is `ix-model-ixgbe`'s; here is what stands between it and a machine: the protocol (vfio-user, as
//! QEMU's `docs/interop/vfio-user.rst` describes it), the function's configuration space, the client's memory, its interrupts, and
//! a wire. One thread, one client; the program ends with it.
//!
//! Nothing that the client says is trusted: sizes, offsets, indices and descriptors of files are checked, and an
//! address leads nowhere but into memory that the client has mapped and that is there.
#![deny(unsafe_code)]
#![warn(missing_docs)]

pub mod config;
pub mod device;
pub mod eventfd;
pub mod irqs;
pub mod maps;
pub mod message;
pub mod piece;
pub mod run;
pub mod server;
pub mod socket;
pub mod wire;

pub use device::Device;
