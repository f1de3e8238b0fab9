//! What was said of a dataplane's policy: a file in its directory, which a daemon reads when it changes.
use crate::instance::{Instance, check_name};
use crate::policy::config::{self, Config, ConfigError};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::SystemTime;
use toml::{Table, Value};

/// The key of a daemon's file under which single dataplanes have their own settings.
const INSTANCES: &str = "instances";

/// The file.
pub fn path(instance: &Instance) -> PathBuf {
    instance.dir().join("policy.toml")
}

/// When it was written the last time; `None`: it is not there.
pub fn written(instance: &Instance) -> Option<SystemTime> {
    std::fs::metadata(path(instance)).and_then(|m| m.modified()).ok()
}

/// What it says.
pub fn read(instance: &Instance) -> Result<Table, ConfigError> {
    if path(instance).exists() { config::read(&path(instance)) } else { Ok(Table::new()) }
}

/// Writes it, whole or not at all.
pub fn write(instance: &Instance, changes: &Table) -> Result<()> {
    let path = path(instance);
    let fresh = path.with_extension("new");
    let text = toml::to_string(changes).context("cannot write these settings as TOML")?;
    let head =
        "# Written by `ixcp policy set`; `ixcp policy init` prints all keys with their meaning.\n";
    std::fs::write(&fresh, head.to_owned() + &text)
        .and_then(|()| std::fs::rename(&fresh, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// The defaults, then what the daemon was told of all dataplanes, then of this one, then the file.
pub fn load(instance: &Instance, daemon: &Table) -> Result<Config, ConfigError> {
    let (mut all, own) = split(daemon)?;
    if let Some(Value::Table(own)) = own.get(&instance.name) {
        config::overlay(&mut all, own.clone());
    }
    config::overlay(&mut all, read(instance)?);
    Config::from_table(all, &path(instance).display().to_string())
}

/// Whether a daemon can work with these changes, for whatever dataplanes come.
pub fn check(daemon: &Table) -> Result<(), ConfigError> {
    let (all, own) = split(daemon)?;
    Config::from_table(all.clone(), "the daemon's configuration")?;
    for (name, own) in own {
        let origin = format!("[{INSTANCES}.{name}]");
        let wrong = |words: &str| ConfigError::Syntax(origin.clone(), words.to_owned());
        check_name(&name).map_err(|e| wrong(&e.to_string()))?;
        let Value::Table(own) = own else { return Err(wrong("a table is wanted")) };
        let mut all = all.clone();
        config::overlay(&mut all, own);
        Config::from_table(all, &origin)?;
    }
    Ok(())
}

/// What is for all, and what is for single ones, by name.
fn split(daemon: &Table) -> Result<(Table, Table), ConfigError> {
    let mut all = daemon.clone();
    match all.remove(INSTANCES) {
        None => Ok((all, Table::new())),
        Some(Value::Table(own)) => Ok((all, own)),
        Some(_) => Err(ConfigError::Syntax(INSTANCES.to_owned(), "a table is wanted".to_owned())),
    }
}
