//! Simulation: whole dataplanes and smoltcp peers joined by a faulty network, under one seed and a
//! virtual clock.
//!
//! A seed draws everything (`swarm`): stations, cores, queues, offloads, pool sizes, faults, and
//! the conversations between applications. The engines run `core_loop::run_once`, the function that
//! the kernel runs, over an in-memory NIC (`nic`); their applications (`app`) speak the raw ABI;
//! the peers (`peer`) are smoltcp's sockets. Every byte of a conversation is a function of its
//! number and position (`book`), so that each side checks each byte as it comes.
//!
//! A failing seed panics; [`run`] is deterministic, so its number is all that is needed.
pub mod app;
pub mod asks;
pub mod book;
pub mod conn;
pub mod faults;
pub mod forge;
pub mod heap;
pub mod letters;
pub mod machine;
pub mod memory;
pub mod net;
pub mod nic;
pub mod peer;
pub mod phy;
pub mod referee;
pub mod rings;
pub mod rush;
pub mod swarm;
pub mod tables;
pub mod wire;
pub mod world;

pub use world::{Report, run, run_asking, run_moving, run_scarce};

/// Nanoseconds of virtual time.
pub type Time = u64;
/// A microsecond.
pub const US: Time = 1_000;
/// A millisecond.
pub const MS: Time = 1_000_000;
/// A second.
pub const S: Time = 1_000_000_000;
