//! The host that a dataplane runs on: CPUs, their frequency, threads of QEMU, and jobs that get what is free.
pub mod cpus;
pub mod frequency;
pub mod job;
