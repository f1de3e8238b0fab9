//! Only one daemon decides: it holds a lock in the runtime directory, which the system takes back however it ends.
use crate::instance::{Base, Instance};
use crate::policy::{Config, config::ConfigError};
use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use toml::Table;

/// What is read of the file at most.
const BYTES_MAX: u64 = 1 << 20;

/// What a daemon does, as its lock file tells after the line with its process number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// The dataplanes that it watches; none: all.
    pub names: Vec<String>,
    /// What it was told of policies, by file or arguments.
    pub settings: Table,
}

/// A daemon that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Its process number.
    pub pid: u32,
    /// What it does.
    pub task: Task,
}

impl Holder {
    /// Whether it decides about this one. One behind a serial line without a directory is nobody's.
    pub fn watches(&self, instance: &Instance) -> bool {
        let names = &self.task.names;
        !instance.is_line() && (names.is_empty() || names.contains(&instance.name))
    }

    /// By which configuration it decides about this one.
    pub fn config(&self, instance: &Instance) -> Result<Config, ConfigError> {
        super::store::load(instance, &self.task.settings)
    }
}

/// The daemon that decides about this dataplane, if one does.
pub fn decides(base: &Base, instance: &Instance) -> Option<Holder> {
    holder(base).filter(|holder| holder.watches(instance))
}

/// The lock file.
pub fn path(base: &Base) -> PathBuf {
    base.directory("daemon.lock")
}

/// Takes it, and writes who holds it, for what. Held until the file is dropped.
pub fn take(base: &Base, task: &Task) -> Result<File> {
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
            let _ = file.take(BYTES_MAX).read_to_string(&mut who);
            let first = who.lines().next().unwrap_or_default();
            let who = first.parse::<u32>().map_or(String::new(), |pid| format!(" (process {pid})"));
            bail!(
                "a daemon decides here already{who}: one does for all dataplanes. End it first (it holds {})",
                path.display()
            );
        }
        Err(TryLockError::Error(e)) => {
            return Err(e).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    // What is in it is for other commands and for people; the lock is what counts.
    let text = toml::to_string(task).context("cannot write these settings as TOML")?;
    let text = format!("{}\n{text}", std::process::id());
    let _ = file.set_len(0).and_then(|()| file.write_all(text.as_bytes()));
    Ok(file)
}

/// The daemon that holds it, if one does.
pub fn holder(base: &Base) -> Option<Holder> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(path(base))
        .ok()?;
    if !matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return None;
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).ok()?;
    let (pid, task) = text.split_once('\n').unwrap_or((&text, ""));
    Some(Holder { pid: pid.parse().ok()?, task: toml::from_str(task).unwrap_or_default() })
}
