use super::*;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn state(pid: i32) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.trim().chars().next().unwrap()
}

/// A shell with a child.
struct Busy(Child);

impl Busy {
    fn start() -> Busy {
        let child = Command::new("sh")
            .args(["-c", "sleep 60 & wait"])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let busy = Busy(child);
        let start = Instant::now();
        while tree(busy.pid()).len() < 2 {
            assert!(start.elapsed() < Duration::from_secs(10), "no child");
            std::thread::sleep(Duration::from_millis(5));
        }
        busy
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let tree = tree(self.pid());
        let _ = signal(&tree, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn config(pid: i32, cgroup: PathBuf) -> config::Job {
    config::Job { cgroup, pid, always: Vec::new() }
}

#[track_caller]
fn becomes(pid: i32, wanted: impl Fn(char) -> bool) {
    let start = Instant::now();
    while !wanted(state(pid)) {
        assert!(start.elapsed() < Duration::from_secs(10), "process {pid} is {}", state(pid));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_process_and_its_child_run_where_they_are_told_and_stand_still_without_a_cpu() {
    let busy = Busy::start();
    let child = tree(busy.pid())[1];
    let here = cpus::allowed(0).unwrap();
    let one: Cpus = [*here.first().unwrap()].into();
    let mut job = Job::open(&config(busy.pid(), PathBuf::new())).unwrap().unwrap();
    job.give(&one).unwrap();
    assert_eq!([busy.pid(), child].map(|p| cpus::allowed(p).unwrap()), [one.clone(), one.clone()]);
    job.give(&Cpus::new()).unwrap();
    [busy.pid(), child].iter().for_each(|p| becomes(*p, |s| s == 'T'));
    job.give(&one).unwrap();
    [busy.pid(), child].iter().for_each(|p| becomes(*p, |s| s != 'T'));
    job.give(&Cpus::new()).unwrap();
    job.release().unwrap();
    [busy.pid(), child].iter().for_each(|p| becomes(*p, |s| s != 'T'));
    assert_eq!([busy.pid(), child].map(|p| cpus::allowed(p).unwrap()), [here.clone(), here]);
}

#[test]
fn a_cgroup_gets_a_list_and_is_frozen_without_a_cpu() {
    let dir = temp_dir::TempDir::new().unwrap();
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    std::fs::write(dir.path().join("cpuset.cpus"), "0-7\n").unwrap();
    let mut wanted = config(0, dir.path().to_owned());
    wanted.always = vec![7];
    let mut job = Job::open(&wanted).unwrap().unwrap();
    job.give(&[2, 3].into()).unwrap();
    assert_eq!((read("cpuset.cpus").trim(), read("cgroup.freeze").trim()), ("2-3,7", "0"));
    job.give(&Cpus::new()).unwrap();
    assert_eq!((read("cpuset.cpus").trim(), read("cgroup.freeze").trim()), ("7", "0"));
    job.always.clear();
    job.give(&Cpus::new()).unwrap();
    assert_eq!(read("cgroup.freeze").trim(), "1");
    job.release().unwrap();
    assert_eq!((read("cpuset.cpus").trim(), read("cgroup.freeze").trim()), ("0-7", "0"));
}

#[test]
fn who_is_not_there_is_named() {
    let dir = temp_dir::TempDir::new().unwrap();
    let said = |c: config::Job| format!("{:#}", Job::open(&c).unwrap_err());
    assert!(said(config(0, dir.path().to_owned())).contains("cpuset"));
    assert!(said(config(i32::MAX, PathBuf::new())).contains("no process"));
    assert!(Job::open(&config(0, PathBuf::new())).unwrap().is_none());
    let mut ended = Busy::start();
    let mut job = Job::open(&config(ended.pid(), PathBuf::new())).unwrap().unwrap();
    let _ = signal(&tree(ended.pid()), Signal::SIGKILL);
    ended.0.wait().unwrap();
    assert!(job.give(&[0].into()).unwrap_err().to_string().contains("has ended"));
    job.release().unwrap();
}
