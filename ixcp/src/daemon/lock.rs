//! Only one daemon decides: it holds a lock in the runtime directory, which the system takes back however it ends.
use crate::instance::Base;
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// The lock file.
pub fn path(base: &Base) -> PathBuf {
    base.directory("daemon.lock")
}

/// Takes it, and writes who holds it. Held until the file is dropped.
pub fn take(base: &Base) -> Result<File> {
    let path = path(base);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut who = String::new();
            let _ = file.take(32).read_to_string(&mut who);
            let who =
                who.trim().parse::<u32>().map_or(String::new(), |pid| format!(" (process {pid})"));
            bail!(
                "a daemon decides here already{who}: one does for all dataplanes. End it first (it holds {})",
                path.display()
            );
        }
        Err(TryLockError::Error(e)) => {
            return Err(e).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    // What is in it is for people; the lock is what counts.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The process that holds it, if one does.
pub fn holder(base: &Base) -> Option<u32> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path(base))
        .ok()?;
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut who = String::new();
    file.take(32).read_to_string(&mut who).ok()?;
    who.trim().parse().ok()
}
