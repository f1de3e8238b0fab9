//! What a message costs: the engine through the interface that the kernel uses (frames in, events,
//! the application's batch, frames out), a bare responder as its floor, and smoltcp, all in one run.
//!
//! Clients are 16 bytes each and frames are made for them when they are needed, so that a million
//! connections fit. Nothing of what plays the network is counted or timed; the in-memory NIC's receive and
//! transmit functions and the application are.
#![deny(unsafe_code)]

pub mod app;
pub mod bulk;
pub mod callgrind;
pub mod clients;
pub mod collect;
pub mod cost;
pub mod echo;
pub mod flood;
pub mod heap;
pub mod idle;
pub mod life;
pub mod memory;
pub mod nic;
pub mod rings;
pub mod run;
pub mod say;
pub mod scaling;
pub mod server;
pub mod stages;
pub mod tables;
pub mod team;
pub mod timers;
pub mod times;
pub mod wire;
