//! `ixcp daemon` on live machines: it acts on what they ask for, and whatever happens to it, they go on.
use crate::{Kv, serves};
use ix_abi::control::{command, header};
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use nix::sys::signal::{Signal, kill};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

fn boot() -> Option<Vm> {
    Some(Config::new(&need::built()?, "kv").cores(4).forward("11211").boot())
}

/// A daemon beside a machine; dropping it ends it.
struct Daemon {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Daemon {
    fn start(vm: &Vm, args: &[&str]) -> Daemon {
        let mut command = vm.ixcp_command(&[&["daemon"], args].concat());
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ixcp starts");
        let said = Arc::<Mutex<String>>::default();
        let (from, to) = (child.stdout.take().expect("piped"), said.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                to.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let daemon = Daemon { child, said };
        daemon.wait_for("watches");
        daemon
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    #[track_caller]
    fn wait_for(&self, words: &str) {
        wait(|| self.said().contains(words), || format!("no {words:?}: {}", self.said()));
    }

    /// As `kill -9` does.
    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// As Ctrl-C does.
    fn interrupt(mut self) -> String {
        kill(ixcp::pid_of(&self.child), Signal::SIGINT).expect("it runs");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {}", self.said());
        self.wait_for("ended");
        self.said()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn wait(what: impl Fn() -> bool, otherwise: impl Fn() -> String) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < PATIENCE, "{}", otherwise());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn wait_serving(vm: &Vm, daemon: &Daemon, wanted: impl Fn(u32) -> bool) {
    let page = vm.page();
    let serving = || page.load(header::ACTIVE).count_ones();
    wait(|| wanted(serving()), || format!("{} cores serve: {}", serving(), daemon.said()));
}

/// Connections that ask and check without a pause.
struct Load(Arc<AtomicBool>, Vec<std::thread::JoinHandle<u64>>);

impl Load {
    fn start(vm: &Vm) -> Load {
        let stop = Arc::<AtomicBool>::default();
        let threads = (0..4).map(|thread| {
            let mut streams: Vec<_> = (0..8).map(|_| vm.connect(11211)).collect();
            let stop = stop.clone();
            std::thread::spawn(move || {
                let mut answers = 0;
                // Several requests under way on each connection: cores have something to do.
                let ask = format!("get nothing{thread}\r\n").repeat(16);
                let wanted = "END\r\n".repeat(16);
                let mut got = vec![0; wanted.len()];
                while !stop.load(Ordering::Relaxed) {
                    for stream in &mut streams {
                        stream.write_all(ask.as_bytes()).expect("the guest takes it");
                    }
                    for stream in &mut streams {
                        stream.read_exact(&mut got).expect("an answer in time");
                        assert!(got == wanted.as_bytes());
                        answers += 16;
                    }
                }
                answers
            })
        });
        let threads = threads.collect();
        Load(stop, threads)
    }

    fn end(self) -> u64 {
        self.0.store(true, Ordering::Relaxed);
        self.1.into_iter().map(|thread| thread.join().expect("no error")).sum()
    }
}

#[test]
fn cores_come_with_the_load_and_go_with_it_and_the_log_says_why() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let daemon = Daemon::start(&vm, &["--policy", "latency"]);
    wait_serving(&vm, &daemon, |serving| serving == 1);
    let load = Load::start(&vm);
    wait_serving(&vm, &daemon, |serving| serving > 1);
    println!("{} answers", load.end());
    wait_serving(&vm, &daemon, |serving| serving == 1);
    let log = vm.ixcp_ok(&["policy", "log"]);
    assert!(log.contains("p99 queueing delay") && log.contains("less will do"), "{log}");
    let shown = vm.ixcp_ok(&["policy", "show"]);
    assert!(shown.contains("decides") && shown.contains("the dataplane wants"), "{shown}");
    // A policy that is set is taken over at once.
    vm.ixcp_ok(&["policy", "set", "static", "static.cores=3"]);
    wait_serving(&vm, &daemon, |serving| serving == 3);
    serves(&vm);
    println!("{}", daemon.interrupt());
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_of_a_move_is_followed_by_the_next() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let load = Load::start(&vm);
    for round in 0..6 {
        let count = if round % 2 == 0 { 1 } else { 4 };
        let page = vm.page();
        let (sequence, moves) = (page.load(command::SEQUENCE), page.load(header::MOVES));
        let daemon = Daemon::start(&vm, &["--set", &format!("static.cores={count}")]);
        // It has asked, and groups are on their way, or not yet.
        wait(|| page.load(command::SEQUENCE) != sequence, || daemon.said());
        daemon.kill();
        // The kernel does to the end what it was told.
        wait(
            || page.load(header::ACTIVE).count_ones() == count,
            || format!("{} moves of {moves}", page.load(header::MOVES)),
        );
    }
    let daemon = Daemon::start(&vm, &["--set", "static.cores=2"]);
    wait_serving(&vm, &daemon, |serving| serving == 2);
    assert!(load.end() > 0);
    serves(&vm);
}

#[test]
fn a_grant_does_not_outlive_its_daemon() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let daemon = Daemon::start(&vm, &["--policy", "latency", "--set", "cores.max=2"]);
    wait_serving(&vm, &daemon, |serving| serving == 1);
    let granted = || {
        let shown = vm.ixcp_ok(&["policy", "show", "--json"]);
        serde_json::from_str::<serde_json::Value>(&shown).expect("JSON")["granted"].as_u64()
    };
    wait(|| granted() == Some(0b10), || daemon.said());
    daemon.kill();
    wait(|| granted() == Some(0), || "the lease does not end".to_owned());
    assert!(vm.ixcp_ok(&["policy", "show"]).contains("NO DAEMON RUNS"));
    serves(&vm);
}

#[test]
fn one_daemon_looks_after_all_dataplanes_each_by_its_own_policy() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let kv = Config::new(&built, "kv").cores(2).forward("11211");
    let first = kv.boot();
    let daemon = Daemon::start(&first, &["--policy", "latency"]);
    wait_serving(&first, &daemon, |serving| serving == 1);
    // One that comes later is found.
    let second = kv.beside(&first, "other").boot();
    wait_serving(&second, &daemon, |serving| serving == 1);
    let list = first.ixcp_ok(&["ls"]);
    assert!(list.contains("test") && list.contains("other"), "{list}");
    // Whoever does not say which is told that there are two.
    let out = first.ixcp(&["policy", "set", "static"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("other"), "{said}");
    first.ixcp_ok(&["policy", "set", "--name", "other", "static", "static.cores=2"]);
    wait_serving(&second, &daemon, |serving| serving == 2);
    // On a busy machine the first may have wanted a second core for a moment.
    wait_serving(&first, &daemon, |serving| serving == 1);
    serves(&first);
    serves(&second);
    // One that goes takes nothing with it.
    drop(second);
    first.ixcp_ok(&["policy", "set", "static", "static.cores=2"]);
    wait_serving(&first, &daemon, |serving| serving == 2);
    serves(&first);
    println!("{}", daemon.interrupt());
}

#[test]
fn there_is_one_daemon_and_the_second_names_it() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let daemon = Daemon::start(&vm, &[]);
    let second = vm.ixcp(&["daemon"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(1));
    assert!(said.contains(&format!("process {}", daemon.child.id())), "{said}");
    serves(&vm);
}

#[test]
fn a_corrupted_page_and_a_command_from_the_future_leave_the_dataplane_serving_and_the_daemon_watching()
 {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let page = vm.page();
    page.store(command::EPOCH, u64::MAX);
    page.store(command::CODE, u64::MAX);
    page.store_release(command::SEQUENCE, u64::MAX - 1);
    let daemon = Daemon::start(&vm, &["--set", "static.cores=2"]);
    wait_serving(&vm, &daemon, |serving| serving == 2);
    serves(&vm);
    let cores = page.load(header::CORES);
    page.store(header::CORES, u64::MAX);
    daemon.wait_for("corrupted");
    serves(&vm);
    page.store(header::CORES, cores);
    vm.ixcp_ok(&["policy", "set", "static", "static.cores=3"]);
    wait_serving(&vm, &daemon, |serving| serving == 3);
    let mut client = Kv::connect(&vm);
    client.set("a", b"1");
    assert_eq!(client.get("a"), Some(b"1".to_vec()));
}

#[test]
fn a_run_is_recorded_and_drawn_and_its_load_tried_out() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let dir = temp_dir::TempDir::new().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let load = Load::start(&vm);
    vm.ixcp_ok(&["record", "--seconds", "2", "--interval", "0.1", "-w", &path("run.csv")]);
    load.end();
    let csv = std::fs::read_to_string(path("run.csv")).expect("written");
    assert!(csv.lines().count() > 10, "{csv}");
    vm.ixcp_ok(&["plot", &path("run.csv"), "-w", &path("run.svg")]);
    let svg = std::fs::read_to_string(path("run.svg")).expect("drawn");
    assert!(svg.starts_with("<svg") && svg.contains("requests/s"), "{svg}");
    let tried = vm.ixcp_ok(&["policy", "simulate", "--load", &path("run.csv"), "--cores", "4"]);
    assert!(tried.contains("core-seconds"), "{tried}");
    let top = vm.ixcp_ok(&["top", "--svg", "-"]);
    assert!(top.starts_with("<svg") && top.contains("cores serve"), "{top}");
}

#[test]
fn one_core_is_parked_by_its_number_and_serves_again() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let page = vm.page();
    vm.ixcp_ok(&["cores", "park", "2"]);
    assert_eq!(page.load(header::ACTIVE), 0b1011);
    serves(&vm);
    let refused = vm.ixcp(&["cores", "park", "4"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("there is no core 4"));
    vm.ixcp_ok(&["cores", "unpark", "2"]);
    assert_eq!(page.load(header::ACTIVE), 0b1111);
    serves(&vm);
}
