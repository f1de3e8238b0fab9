//! `ixcp daemon`: one for all dataplanes of this user. It looks at each every few milliseconds, and does what that one's
//! policy says. Whatever happens to it, the dataplanes go on; the next daemon finds everything on their control pages.
//!
//! - [`lock`] lets there be only one; [`reader`] makes samples of control pages; [`limits`] are what the kernel is told;
//! - [`pilot`] looks at one dataplane and acts; [`log`] remembers what was decided, and from which figures.
use crate::cli::Daemon;
use crate::control::print;
use crate::instance::{Base, Instance, check_name};
use crate::policy::{Config, config};
use anyhow::{Context, Result};
use pilot::Pilot;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use toml::Table;

pub mod limits;
pub mod lock;
pub mod log;
pub mod pilot;
pub mod reader;
pub mod store;

/// Time between two looks for dataplanes that have come.
const ARRIVALS: Duration = Duration::from_millis(200);

/// `ixcp daemon`.
pub fn run(options: &Daemon) -> Result<u8> {
    let mut changes = Table::new();
    if let Some(file) = &options.config {
        changes = config::read(file)?;
    }
    for text in &options.set {
        config::overlay(&mut changes, config::setting(text)?);
    }
    if let Some(kind) = options.policy {
        config::overlay(&mut changes, config::setting(&format!("policy={kind}"))?);
    }
    if options.print_config {
        print(config::DEFAULT);
        return Ok(0);
    }
    // Now, rather than when the first dataplane comes.
    store::check(&changes)?;
    let base = Base::from_env()?;
    for name in &options.name {
        check_name(name)?;
    }
    let task = lock::Task { names: options.name.clone(), settings: changes.clone() };
    let _lock = lock::take(&base, &task)?;
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot handle signals")?;
    }
    let whom = match options.name.as_slice() {
        [] => base.directory("").display().to_string(),
        names => format!("only {} in {}", names.join(", "), base.directory("").display()),
    };
    print(&format!("ixcp daemon: watches {whom}; Ctrl-C ends it, and the dataplanes go on\n"));
    if let Some(text) = missing(&base, &options.name)? {
        eprintln!("ixcp daemon: {text}");
    }
    watch(&base, &options.name, &changes, &ended)?;
    print("ixcp daemon: ended; nobody decides about cores now\n");
    Ok(0)
}

/// Names that were given and of which no dataplane runs: they may come, but they may also be mistyped.
fn missing(base: &Base, names: &[String]) -> Result<Option<String>> {
    let there: Vec<String> = base.list()?.into_iter().map(|instance| instance.name).collect();
    let absent: Vec<&str> = names.iter().filter(|n| !there.contains(n)).map(|n| &**n).collect();
    if absent.is_empty() {
        return Ok(None);
    }
    let these = match there.is_empty() {
        true => "none runs at all".to_owned(),
        false => format!("these do: {}", there.join(", ")),
    };
    let names = absent.join(", ");
    Ok(Some(format!("warning: no dataplane named {names} runs ({these}); it is waited for")))
}

/// A thread for each dataplane: none waits for another's moves.
fn watch(base: &Base, names: &[String], changes: &Table, ended: &Arc<AtomicBool>) -> Result<()> {
    let mut threads: HashMap<String, JoinHandle<()>> = HashMap::new();
    while !ended.load(Ordering::Relaxed) {
        threads.retain(|_, thread| !thread.is_finished());
        for instance in base.list()? {
            let wanted = names.is_empty() || names.contains(&instance.name);
            if wanted && !threads.contains_key(&instance.name) {
                let (name, changes, ended) =
                    (instance.name.clone(), changes.clone(), ended.clone());
                let thread = std::thread::Builder::new()
                    .name(format!("ix {name}"))
                    .spawn(move || follow(instance, changes, &ended))
                    .context("cannot start a thread")?;
                threads.insert(name, thread);
            }
        }
        std::thread::sleep(ARRIVALS);
    }
    for (_, thread) in threads {
        let _ = thread.join();
    }
    Ok(())
}

/// Stays with a dataplane until it ends.
fn follow(instance: Instance, changes: Table, ended: &AtomicBool) {
    let mut pilot = Pilot::new(instance, changes);
    while !ended.load(Ordering::Relaxed) && pilot.instance().lives() {
        let next = Instant::now() + pilot.interval();
        pilot.look(Instant::now());
        // A look that took long is not made up for.
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    pilot.end();
}

/// The configuration of a dataplane: the defaults, what the daemon was told of all and of this one, what `ixcp policy set`
/// said.
pub fn configure(instance: &Instance, changes: &Table) -> Result<Config, config::ConfigError> {
    store::load(instance, changes)
}

#[cfg(test)]
mod tests;
