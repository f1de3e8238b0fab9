//! The protocol engine of IX: one per core, sans-IO.
//!
//! Nothing here touches a device, reads a clock or ring 0: time, frames and randomness come in as
//! arguments, devices and the application's entry are behind the traits of [`device`] and
//! [`platform`]. Memory is allocated when an engine is made, never when it is warm; no locks; every
//! table has a limit (`limits`), every drop a counter (`ix_abi::stats::Drop`).
//!
//! The life of a packet is [`core_loop::run_once`], which the kernel, the simulation and the
//! benchmarks all run.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

pub mod app;
pub mod checksum;
pub mod config;
pub mod core_loop;
pub mod device;
pub mod dhcp;
pub mod engine;
pub mod limits;
pub mod mbuf;
pub mod mesh;
pub mod neighbor;
pub mod platform;
pub mod rings;
pub mod rng;
pub mod rss;
pub mod spsc;
pub mod steer;
pub mod time;
pub mod usermem;
pub mod wheel;
