//! One core's set-up: descriptor tables, control registers, the SYSCALL entry.

pub mod descriptors;
pub mod features;
pub mod percore;
pub mod trap;

/// Brings the calling core from the boot state to the state that the kernel runs in.
pub fn init(core: usize) {
    descriptors::load(core);
    features::enable(core);
}
