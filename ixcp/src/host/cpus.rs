//! CPUs of this host, and which thread may run on which.
use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

/// Numbers of CPUs.
pub type Cpus = BTreeSet<usize>;

/// Those that a thread may run on; 0: this one.
pub fn allowed(thread: i32) -> Result<Cpus> {
    let set = sched_getaffinity(Pid::from_raw(thread))
        .with_context(|| format!("cannot ask on which CPUs thread {thread} may run"))?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu) == Ok(true)).collect())
}

/// Holds a thread on these CPUs.
pub fn hold(thread: i32, cpus: &Cpus) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).with_context(|| format!("there can be no CPU {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(thread), &set)
        .with_context(|| format!("cannot hold thread {thread} on the CPUs {}", list(cpus)))
}

/// As the kernel writes sets of CPUs: `0-2,5`.
pub fn list(cpus: &Cpus) -> String {
    let mut out = String::new();
    let mut rest = cpus.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while rest.next_if_eq(&(last + 1)).is_some() {
            last += 1;
        }
        let comma = if out.is_empty() { "" } else { "," };
        let _ = match last {
            _ if last == first => write!(out, "{comma}{first}"),
            _ => write!(out, "{comma}{first}-{last}"),
        };
    }
    out
}

/// The threads of a process.
pub fn threads(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let names = tasks.into_iter().flatten().flatten().map(|e| e.file_name());
    names.filter_map(|name| name.to_str()?.parse().ok()).collect()
}

/// The threads of a QEMU that run virtual cores, by core. QEMU calls them `CPU 0/TCG`, `CPU 1/KVM`, …
pub fn virtual_cores(qemu: i32) -> Vec<(usize, i32)> {
    let core = |thread: &i32| {
        let comm = PathBuf::from(format!("/proc/{qemu}/task/{thread}/comm"));
        let name = std::fs::read_to_string(comm).ok()?;
        core_of(&name)
    };
    let mut found: Vec<_> =
        threads(qemu).into_iter().filter_map(|thread| Some((core(&thread)?, thread))).collect();
    found.sort_unstable();
    found
}

fn core_of(name: &str) -> Option<usize> {
    name.trim().strip_prefix("CPU ")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_written_as_the_kernel_does() {
        let text = |cpus: &[usize]| list(&cpus.iter().copied().collect());
        assert_eq!(text(&[]), "");
        assert_eq!(text(&[3]), "3");
        assert_eq!(text(&[5, 0, 1, 2]), "0-2,5");
        assert_eq!(text(&[0, 2, 3]), "0,2-3");
    }

    #[test]
    fn threads_of_virtual_cores_are_known_by_their_names() {
        assert_eq!(core_of("CPU 12/TCG\n"), Some(12));
        assert_eq!(core_of("CPU 0/KVM"), Some(0));
        assert_eq!(core_of("qemu-system-x86"), None);
        assert_eq!(core_of("CPU x/TCG"), None);
    }

    #[test]
    fn a_thread_is_held_where_it_may_run_already() {
        let here = allowed(0).unwrap();
        assert!(!here.is_empty());
        hold(0, &here).unwrap();
        assert_eq!(allowed(0).unwrap(), here);
        let far: Cpus = [CpuSet::count() + 1].into();
        assert!(hold(0, &far).unwrap_err().to_string().contains("there can be no CPU"));
        assert!(threads(std::process::id() as i32).len() >= 2);
        assert!(virtual_cores(std::process::id() as i32).is_empty());
    }
}
