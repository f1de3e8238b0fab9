//! The tables of what messages cost: `benches`' program, built as the kernel is.
use crate::packages::{self, Package};
use crate::workspace::cargo;
use anyhow::{Context, Result};
use std::ffi::OsString;

/// `cargo xtask cost`; whether all aims that it checks are met.
pub fn run(args: &[OsString]) -> Result<bool> {
    packages::install(&[Package::VALGRIND], true)?;
    let status = cargo()
        .args(["run", "--quiet", "--release", "-p", "ix-bench", "--bin", "cost", "--"])
        .args(args)
        .status()
        .context("cannot start cargo")?;
    Ok(status.success())
}
