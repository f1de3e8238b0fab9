//! The core loop: one iteration of a core's life, for the kernel, the simulation and benchmarks.
use crate::engine::Engine;
use crate::platform::{Platform, Work};
use crate::time::Instant;

/// One iteration. What follows it (spinning, halting until `Work::deadline`) is the platform's.
pub fn run_once<P: Platform>(engine: &mut Engine, platform: &mut P) -> Work {
    platform.control(engine);
    Work { busy: false, deadline: Instant::NEVER }
}
