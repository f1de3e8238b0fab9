//! A verified workload for a dataplane that talks to itself: every core serves `kv`, and every core has clients of it, which
//! connect to the dataplane's own address over the network card (`nic=loopback` brings back what is sent). They set and get values
//! that follow from a seed, and compare every byte of every answer. At the end there is one line, and `exit(0)` if nothing was
//! wrong; with `rounds=0` it goes on for ever, with a line a second at most.
//!
//! [`client`] knows requests and answers and no network; [`tally`] counts, across cores; [`app`] joins both, and kv's library, to libix.
#![no_std]
#![deny(unsafe_code, missing_docs)]

extern crate alloc;

pub mod app;
pub mod client;
mod options;
pub mod tally;

pub use app::{KvCheck, Shared};
pub use options::{Options, USAGE};
