//! Bochs, unpacked into `build/bochs`: an emulator that plays CPUs of certain makers and years where QEMU
//! plays one of its own, so it finds what QEMU forgives. Not installed, no root.
use crate::qemu;
use crate::workspace::build_dir;
use anyhow::{Result, ensure};
use std::path::PathBuf;

/// The stable release whose Bochs is known to work: it does not move.
const SUITE: &str = "trixie";
/// The last one is not wanted.
const PACKAGES: [&str; 5] = ["bochs", "bochs-term", "bochsbios", "vgabios", "bochs-wx-"];

/// Fetches it unless it is there; gives the directory that stands for its root.
pub fn fetch() -> Result<PathBuf> {
    let dir = build_dir().join("bochs");
    let root = dir.join("root");
    let program = root.join("usr/bin/bochs-bin");
    if program.is_file() && !dir.join("apt").exists() {
        return Ok(root);
    }
    eprintln!("xtask: fetching Bochs of {SUITE} into {}", dir.display());
    let _ = std::fs::remove_dir_all(&dir);
    qemu::unpack(&dir, &[SUITE], &PACKAGES)?;
    ensure!(program.is_file(), "{SUITE} has no Bochs");
    Ok(root)
}
