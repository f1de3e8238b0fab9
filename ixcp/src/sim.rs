//! A simulator for policies: cores that poll, batches, flow groups that move, in simulated time (`docs/policies.md`). What
//! goes into it is measured where this project has measured it, and named where it is an assumption.
//!
//! - [`curve`] is the load; [`service`] what a request costs; [`power`] what a core draws;
//! - [`node`] is a core; [`world`] all of them with the kernel's wishes and the daemon; [`report`] what came of it.
pub mod curve;
pub mod hist;
pub mod node;
pub mod power;
pub mod report;
pub mod rng;
pub mod service;
pub mod world;

pub use curve::Curve;
pub use report::Report;
pub use service::Service;
pub use world::{Setup, run, run_with};

#[cfg(test)]
mod tests;
