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

pub mod acl;
pub mod addresses;
pub mod app;
mod calls;
pub mod checksum;
pub mod config;
mod conn;
pub mod core_loop;
pub mod device;
pub mod dhcp;
pub mod engine;
mod events;
mod family;
mod fast;
mod fifo;
mod flow_table;
mod fragments;
mod group;
mod input;
mod ipv4;
mod ipv6;
pub mod lend;
pub mod limits;
mod local;
pub mod mbuf;
pub mod measure;
pub mod mesh;
pub mod message;
pub mod moves;
pub mod nd;
pub mod neighbor;
mod output;
mod owing;
pub mod platform;
mod ports;
mod prefetch;
pub mod profile;
pub mod rings;
pub mod rng;
pub mod rss;
mod settings;
pub mod slaac;
mod slab;
pub mod spsc;
pub mod steer;
pub mod tap;
mod tcp;
pub mod time;
mod tx;
mod udp;
pub mod usermem;
pub mod wheel;

pub use group::FlowGroup;
