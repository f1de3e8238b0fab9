//! A job of the host's that gets the CPUs that a dataplane does not need: a cgroup, or a process with its threads and children.
use super::cpus::{self, Cpus};
use crate::policy::config;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};

/// Generations of children that are looked for.
const DEPTH_MAX: u32 = 16;

/// Whom CPUs are lent to.
#[derive(Debug)]
pub struct Job {
    whom: Whom,
    /// CPUs that it has whatever happens.
    always: Cpus,
    /// What it was given last.
    has: Option<Cpus>,
}

#[derive(Debug)]
enum Whom {
    Cgroup { dir: PathBuf, before: String },
    Process { pid: i32, started: u64, before: Cpus },
}

impl Job {
    /// As the configuration names it; `None`: it names nobody.
    pub fn open(config: &config::Job) -> Result<Option<Job>> {
        let always = config.always.iter().copied().collect();
        let whom = if !config.cgroup.as_os_str().is_empty() {
            let file = config.cgroup.join("cpuset.cpus");
            let before = std::fs::read_to_string(&file).with_context(|| {
                format!(
                    "{} is no cgroup with cpusets (`echo +cpuset` into its parent's cgroup.subtree_control)",
                    config.cgroup.display()
                )
            })?;
            Whom::Cgroup { dir: config.cgroup.clone(), before }
        } else if config.pid > 0 {
            let pid = config.pid;
            let started = started(pid).with_context(|| {
                format!("there is no process {pid}: job.pid is the number of one that runs")
            })?;
            ensure!(pid != std::process::id() as i32, "process {pid} is this program");
            Whom::Process { pid, started, before: cpus::allowed(pid)? }
        } else {
            return Ok(None);
        };
        Ok(Some(Job { whom, always, has: None }))
    }

    /// It may run on these CPUs and its own, and on no others; without any it stands still.
    pub fn give(&mut self, free: &Cpus) -> Result<()> {
        let all: Cpus = free.union(&self.always).copied().collect();
        if self.has.as_ref() == Some(&all) {
            return Ok(());
        }
        match &self.whom {
            Whom::Cgroup { dir, .. } => {
                if all.is_empty() {
                    write(&dir.join("cgroup.freeze"), "1")?;
                } else {
                    write(&dir.join("cpuset.cpus"), &cpus::list(&all))?;
                    write(&dir.join("cgroup.freeze"), "0")?;
                }
            }
            Whom::Process { pid, started: then, .. } => {
                if started(*pid) != Some(*then) {
                    bail!("the job, process {pid}, has ended");
                }
                let tree = tree(*pid);
                if all.is_empty() {
                    signal(&tree, Signal::SIGSTOP)?;
                } else {
                    hold(&tree, &all)?;
                    if self.has.as_ref().is_none_or(Cpus::is_empty) {
                        signal(&tree, Signal::SIGCONT)?;
                    }
                }
            }
        }
        self.has = Some(all);
        Ok(())
    }

    /// CPUs that it has now.
    pub fn has(&self) -> Option<&Cpus> {
        self.has.as_ref()
    }

    /// As it was before.
    pub fn release(self) -> Result<()> {
        match self.whom {
            Whom::Cgroup { dir, before } => {
                write(&dir.join("cpuset.cpus"), before.trim())?;
                write(&dir.join("cgroup.freeze"), "0")
            }
            Whom::Process { pid, started: then, before } => {
                if started(pid) != Some(then) {
                    return Ok(());
                }
                let tree = tree(pid);
                hold(&tree, &before)?;
                signal(&tree, Signal::SIGCONT)
            }
        }
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, format!("{text}\n"))
        .with_context(|| format!("cannot write {text:?} to {}", file.display()))
}

/// When a process started: its number alone may be another's by now.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The process and what it has started.
fn tree(pid: i32) -> Vec<i32> {
    let mut all = vec![pid];
    let mut from = 0;
    for _ in 0..DEPTH_MAX {
        let parents = all[from..].to_vec();
        from = all.len();
        for parent in parents {
            for thread in cpus::threads(parent) {
                let file = format!("/proc/{parent}/task/{thread}/children");
                let text = std::fs::read_to_string(file).unwrap_or_default();
                all.extend(text.split_whitespace().filter_map(|p| p.parse::<i32>().ok()));
            }
        }
    }
    all
}

/// Some of them may end meanwhile, but not the first.
fn hold(tree: &[i32], cpus: &Cpus) -> Result<()> {
    for (i, pid) in tree.iter().enumerate() {
        let threads = cpus::threads(*pid);
        for thread in threads {
            let held = cpus::hold(thread, cpus);
            if i == 0 && thread == *pid {
                held?;
            }
        }
    }
    Ok(())
}

fn signal(tree: &[i32], signal: Signal) -> Result<()> {
    for (i, pid) in tree.iter().enumerate() {
        let sent = kill(Pid::from_raw(*pid), signal);
        if i == 0 {
            sent.with_context(|| format!("cannot send {signal} to process {pid}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
