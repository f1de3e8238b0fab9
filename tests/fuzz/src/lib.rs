//! Fuzz targets: plain functions of bytes that panic when something must not be.
//!
//! Ordinary tests replay the corpus and run seeded mutations (`tests/replay.rs`); `cargo xtask fuzz`
//! runs them guided by coverage. `docs/testing.md` tells how.
#![deny(unsafe_code)]

pub mod engine;
pub mod input;
mod memory;
mod trace;

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

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "engine", run: engine::run, bytes_max: 2048, share: 30 },
];

/// The target of that name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
