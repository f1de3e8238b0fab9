//! Fuzz targets: plain functions of bytes that panic when something must not be.
//!
//! Ordinary tests replay the corpus and run seeded mutations (`tests/replay.rs`); `cargo xtask fuzz`
//! runs them guided by coverage. `docs/testing.md` tells how.
#![deny(unsafe_code)]

pub mod corpus;
pub mod engine;
#[path = "../../../drivers/virtio-net/tests/driver/fake/mod.rs"]
mod fake;
pub mod input;
pub mod liar;
mod memory;
pub mod mutate;
pub mod program;
pub mod seeds;
pub mod targets;
mod trace;

use targets::{acl, boot, commands, control, firmware, kv, memory as kernel_memory, records};

/// A target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its corpus, and on the command line.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Bytes of the longest input that makes sense.
    pub bytes_max: usize,
    /// Its part of a run over all targets.
    pub share: u32,
}

const fn of(name: &'static str, run: fn(&[u8]), bytes_max: usize, share: u32) -> Target {
    Target { name, run, bytes_max, share }
}

/// All targets.
pub const TARGETS: &[Target] = &[
    of("engine", engine::run, 2048, 40),
    of("driver", liar::driver, 1024, 8),
    of("lying_device", liar::engine, 2048, 12),
    of("libix", program::run, 1024, 8),
    of("kv", kv::streams, 1024, 12),
    of("kv_datagrams", kv::datagrams, 2048, 6),
    of("dhcp", records::dhcp, 2048, 3),
    of("neighbors", records::neighbors, 512, 3),
    of("calls", records::calls, 512, 1),
    of("events", records::events, 512, 1),
    of("pci", records::pci_capabilities, 256, 2),
    of("cmdline", boot::command_line, 512, 2),
    of("archive", boot::archive, 1024, 2),
    of("symbols", boot::symbols, 2048, 2),
    of("elf", boot::elf, 2048, 3),
    of("memory_map", boot::memory_map, 512, 3),
    of("clock", boot::clock, 16, 1),
    of("frames", kernel_memory::frames, 512, 3),
    of("page_tables", kernel_memory::page_tables, 512, 4),
    of("multiboot", firmware::multiboot, 1024, 3),
    of("firmware_tables", firmware::tables, 2048, 3),
    of("acl_sets", acl::sets, 2048, 5),
    of("acl_files", acl::files, 1024, 3),
    of("control_page", control::page, 1024, 3),
    of("serial", control::serial, 512, 1),
    of("commands", commands::commands, 512, 1),
    of("capture_filters", commands::capture_filters, 512, 1),
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
