//! A station in memory for the tests: an engine, a virtual clock, a NIC that gathers late, and an
//! application that speaks the ABI's records, all under the real core loop.
//!
//! # Safety
//! Every pointer here is to memory that `station::leak` gave for ever, of the size that is used.
#![allow(dead_code, reason = "each test program uses a part")]

pub mod app;
pub mod apps;
pub mod family;
pub mod gso;
pub mod icmp;
pub mod lro;
pub mod net;
pub mod nic;
pub mod peer;
pub mod sack;
pub mod station;
pub mod talk;
pub mod wire6;
