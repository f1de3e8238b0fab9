//! The IX control process on Linux: launches dataplanes, reads their control page, sends commands.
//!
//! - [`page`] maps the control page and reads its words, or has them told over a serial line ([`mod@line`]); [`snapshot`] makes sense of them;
//! - [`command`] sends commands; [`instance`] knows what runs and where its files are;
//! - [`capture`] takes packets out of its rings, [`events`] its last events;
//! - [`acl`] reads rules files and shows what the firewall does;
//! - [`observe`] looks at all dataplanes; [`top`] shows their rates, [`metrics`] serves their counters;
//! - [`policy`] decides about cores; [`daemon`] has it decide about all dataplanes, [`host`] is what it has of the host;
//!   [`sim`] tries policies in simulated time;
//! - [`record`] writes down a run, [`plot`] draws it, [`svg`] is how;
//! - [`net`], [`qemu`], [`nic`], [`vfio`] and [`launch`] start a machine; [`control`] speaks to it; [`render`] draws.
//!
//! Nothing that the kernel writes is trusted: sizes, versions, counts and texts are checked.
// Standard output may be closed or full: `control::print` knows.
#![deny(unsafe_code, clippy::print_stdout)]

pub mod acl;
pub mod app_end;
pub mod capture;
pub mod cli;
pub mod command;
pub mod control;
pub mod daemon;
pub mod events;
pub mod host;
pub mod instance;
pub mod launch;
pub mod line;
pub mod measured;
pub mod metrics;
pub mod net;
pub mod nic;
pub mod observe;
pub mod page;
pub mod plot;
pub mod policy;
pub mod qemu;
pub mod record;
pub mod render;
pub mod serial;
pub mod sim;
pub mod snapshot;
pub mod steer;
pub mod svg;
pub mod top;
pub mod vfio;

#[cfg(test)]
mod fake;

/// A child's process number. The child must not have been waited for: only then is it its own.
pub fn pid_of(child: &std::process::Child) -> nix::unistd::Pid {
    let pid = i32::try_from(child.id()).expect("the system's process numbers are small");
    nix::unistd::Pid::from_raw(pid)
}
