//! The IX kernel: bare metal from the loader to the dataplane's core loop. `docs/boot.md` tells the
//! path; `boot` is its beginning.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;
use ix_rt as _;

mod apic;
mod boot;
mod console;
mod control;
mod cpu;
mod crash;
mod entropy;
mod exit;
mod firmware;
mod iommu;
mod line;
mod loopback;
mod manager;
mod measure;
mod mem;
mod net;
mod nic;
mod once;
mod pci;
mod platform;
mod renew;
mod report;
mod selftest;
mod smp;
mod start;
mod time;
mod user;
mod vmx;
mod watch;

pub use start::{core_main, kernel_main};
