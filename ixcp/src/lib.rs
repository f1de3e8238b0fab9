//! The IX control process on Linux: launches dataplanes, reads their control page, sends commands.
//!
//! - [`page`] maps the control page and reads its words; [`snapshot`] makes sense of them;
//! - [`command`] sends commands; [`instance`] knows what runs and where its files are;
//! - [`net`], [`qemu`] and [`launch`] start a machine; [`control`] speaks to it; [`render`] draws.
//!
//! Nothing that the kernel writes is trusted: sizes, versions, counts and texts are checked.
#![deny(unsafe_code)]

pub mod cli;
pub mod command;
pub mod control;
pub mod instance;
pub mod launch;
pub mod net;
pub mod page;
pub mod qemu;
pub mod render;
pub mod serial;
pub mod snapshot;
mod sys;

#[cfg(test)]
mod fake;
