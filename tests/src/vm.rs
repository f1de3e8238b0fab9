//! A booted machine for a test: `ixcp run` with a directory of its own, its output collected, every
//! wait with a deadline, ended with the test.
use crate::need::Built;
use crate::spread::Spread;
use ixcp::page::Page;
use ixcp::snapshot::{self, Snapshot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a boot may take, on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(60);
/// How long an end may take: `ixcp` itself gives up after 6 s.
const END_MAX: Duration = Duration::from_secs(15);
/// After which a core is taken for one that does not publish: those of a machine that stands still or has crashed.
const PUBLISH_MAX: Duration = Duration::from_secs(2);
/// How long what was done may take to show in the counters.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// What to boot.
#[derive(Clone, Debug)]
pub struct Config {
    built: Built,
    name: String,
    args: Vec<OsString>,
    app_args: Vec<String>,
    /// Where its directory is.
    runtime: Option<Arc<temp_dir::TempDir>>,
}

impl Config {
    /// An application on one core, with no ports forwarded.
    pub fn new(built: &Built, app: &str) -> Config {
        let mut config = Config {
            built: built.clone(),
            name: "test".to_owned(),
            args: Vec::new(),
            app_args: Vec::new(),
            runtime: None,
        };
        config.option("--app", app);
        config
    }

    fn option(&mut self, name: &str, value: impl Into<OsString>) {
        self.args.push(name.into());
        self.args.push(value.into());
    }

    /// One more option of `ixcp run`.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Config {
        self.option(name, value);
        self
    }

    /// One more option of `ixcp run` that has no value.
    pub fn flag(mut self, name: &str) -> Config {
        self.args.push(name.into());
        self
    }

    /// Of the same user as another machine, under a name of its own.
    pub fn beside(mut self, other: &Vm, name: &str) -> Config {
        self.name = name.to_owned();
        self.runtime = Some(Arc::clone(&other.runtime));
        self
    }

    /// Cores.
    pub fn cores(self, cores: u32) -> Config {
        self.with("--cores", cores.to_string())
    }

    /// A guest port that the test can reach through a free port of this machine: `7` or `7/udp`.
    pub fn forward(self, guest: &str) -> Config {
        self.with("--forward", format!("0:{guest}"))
    }

    /// A peer that listens on a Unix socket.
    pub fn stream(self, path: &Path) -> Config {
        let mut value = OsString::from("stream=");
        value.push(path);
        self.with("--net", value)
    }

    /// Arguments for QEMU.
    pub fn qemu_args(mut self, args: &[&str]) -> Config {
        for arg in args {
            self.option("--qemu-arg", *arg);
        }
        self
    }

    /// Instructions are counted: a time-stamp counter tick is one instruction (design §9).
    pub fn counted(self) -> Config {
        self.qemu_args(&["-icount", "shift=0,sleep=off", "-rtc", "base=2026-01-01,clock=vm"])
    }

    /// Arguments for the application.
    pub fn app_args(mut self, args: &[&str]) -> Config {
        self.app_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Starts it and waits until the application serves.
    pub fn boot(&self) -> Vm {
        let mut vm = self.start();
        vm.wait_ready(BOOT_MAX);
        vm
    }

    /// Starts it and does not wait.
    pub fn start(&self) -> Vm {
        let own = || Arc::new(temp_dir::TempDir::with_prefix("ix-e2e-").expect("a directory"));
        let runtime = self.runtime.clone().unwrap_or_else(own);
        let mut command = Command::new(&self.built.ixcp);
        command
            .env("IX_RUNTIME_DIR", runtime.path().join("ix"))
            .args(["run", "--name", &self.name, "--images"])
            .arg(&self.built.images)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // For whoever looks for the cause of a failure: `IX_RUN_ARGS="--idle poll"`; and another card for all.
        if let Ok(more) = std::env::var("IX_RUN_ARGS") {
            command.args(beside(&more, &self.args));
        }
        if !self.app_args.is_empty() {
            command.arg("--").args(&self.app_args);
        }
        let started = Instant::now();
        let mut child = command.spawn().expect("ixcp starts");
        let said = Arc::new(Mutex::new(Said::default()));
        collect(child.stdout.take(), said.clone(), |said| &mut said.out);
        collect(child.stderr.take(), said.clone(), |said| &mut said.err);
        let (built, name, spread) = (self.built.clone(), self.name.clone(), Mutex::default());
        Vm { child, runtime, said, started, built, name, spread }
    }
}

/// Of `more`, the options with their values that a test does not set itself.
fn beside<'a>(more: &'a str, own: &[OsString]) -> Vec<&'a str> {
    let mut all = Vec::new();
    let mut taken = true;
    for word in more.split_whitespace() {
        if word.starts_with("--") {
            taken = !own.iter().any(|arg| arg == word);
        }
        if taken {
            all.push(word);
        }
    }
    all
}

/// Lines of `ixcp run`, each with the time of its arrival.
#[derive(Debug, Default)]
struct Said {
    out: Vec<(Instant, String)>,
    err: Vec<(Instant, String)>,
}

fn collect(
    from: Option<impl Read + Send + 'static>,
    to: Arc<Mutex<Said>>,
    part: fn(&mut Said) -> &mut Vec<(Instant, String)>,
) {
    let Some(from) = from else { return };
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut said = to.lock().unwrap_or_else(PoisonError::into_inner);
            part(&mut said).push((Instant::now(), line));
        }
    });
}

/// A machine that runs; dropping it ends it.
#[derive(Debug)]
pub struct Vm {
    child: Child,
    runtime: Arc<temp_dir::TempDir>,
    said: Arc<Mutex<Said>>,
    started: Instant,
    built: Built,
    name: String,
    spread: Mutex<Spread>,
}

impl Vm {
    fn said<T>(&self, read: impl FnOnce(&Said) -> T) -> T {
        read(&self.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What `ixcp run` has printed on standard output.
    pub fn stdout(&self) -> Vec<String> {
        self.said(|s| s.out.iter().map(|(_, line)| line.clone()).collect())
    }

    /// Its standard error: the serial log, QEMU's words, `ixcp`'s own.
    pub fn stderr(&self) -> Vec<String> {
        self.said(|s| s.err.iter().map(|(_, line)| line.clone()).collect())
    }

    /// Waits for `ix: ready`.
    #[track_caller]
    pub fn wait_ready(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.ready_after().is_none() {
            if let Ok(Some(status)) = self.child.try_wait() {
                std::thread::sleep(Duration::from_millis(50));
                panic!("ixcp ended ({status}) before ix: ready:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "no ix: ready in {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// From the start of `ixcp run` to its line `ix: ready`.
    pub fn ready_after(&self) -> Option<Duration> {
        self.said(|s| s.out.iter().find(|(_, line)| line.starts_with("ix: ready")).map(|l| l.0))
            .map(|at| at - self.started)
    }

    /// Waits for a line of the serial log that contains `text`.
    #[track_caller]
    pub fn wait_for(&self, text: &str, patience: Duration) -> String {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(line) = self.stderr().into_iter().find(|line| line.contains(text)) {
                return line;
            }
            assert!(Instant::now() < deadline, "no line {text:?} in {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Everything that was printed.
    pub fn log(&self) -> String {
        [self.stdout(), self.stderr()].concat().join("\n")
    }

    /// A directory that only its user can enter, which the temporary one above it may not be.
    fn base(&self) -> PathBuf {
        self.runtime.path().join("ix")
    }

    /// The machine's files.
    pub fn dir(&self) -> PathBuf {
        self.base().join(&self.name)
    }

    /// The program that plays the network card, if QEMU does not.
    pub fn card_pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.dir().join("instance.json")).ok()?;
        let json: serde_json::Value = serde_json::from_str(&text).ok()?;
        json["nic_pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw)
    }

    /// The network card's address.
    #[track_caller]
    pub fn mac(&self) -> [u8; 6] {
        let text = self.snapshot().mac;
        let octets = text.split(':').map(|octet| u8::from_str_radix(octet, 16));
        let octets: Result<Vec<u8>, _> = octets.collect();
        octets.ok().and_then(|octets| octets.try_into().ok()).expect("an address")
    }

    /// How many free buffers there may be more or less than before though none was lost: an 82599 gets new ones for each queue
    /// when 16 are missing.
    pub fn buffers_slack(&self, cores: u32) -> u64 {
        if self.card_pid().is_some() { 15 * u64::from(cores) } else { 0 }
    }

    /// Where a guest port can be reached.
    #[track_caller]
    pub fn address(&self, guest: u16, protocol: &str) -> SocketAddr {
        let text = std::fs::read_to_string(self.dir().join("instance.json")).expect("described");
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let forwards = json["forwards"].as_array().expect("forwards");
        let found = forwards.iter().find(|f| f["guest"] == guest && f["protocol"] == protocol);
        let host = found.and_then(|f| f["host"].as_str()).expect("the port is forwarded");
        host.parse().expect("an address")
    }

    /// A TCP connection to a forwarded guest port, with time limits. Its own port, which the guest sees, is one of a [`Spread`].
    #[track_caller]
    pub fn connect(&self, guest: u16) -> TcpStream {
        // QEMU's network keeps a backlog of one: who comes while it is full waits for a second.
        std::thread::sleep(Duration::from_millis(5));
        let SocketAddr::V4(address) = self.address(guest, "tcp") else {
            panic!("forwarded ports are of IPv4");
        };
        let mut spread = self.spread.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = spread.connect(address).expect("connects");
        drop(spread);
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.set_write_timeout(Some(Duration::from_secs(30))).expect("a time limit");
        stream.set_nodelay(true).expect("no delay");
        stream
    }

    /// A UDP socket connected to a forwarded guest port.
    #[track_caller]
    pub fn udp(&self, guest: u16) -> UdpSocket {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        socket.connect(self.address(guest, "udp")).expect("an address");
        socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a time limit");
        socket
    }

    /// The control page, read by this process.
    #[track_caller]
    pub fn page(&self) -> Page {
        Page::open(&self.dir().join("control")).expect("a control page")
    }

    /// What the control page says once the counters of this moment have been published.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshot {
        let page = self.page();
        let read = || snapshot::read(&page).expect("a readable control page");
        let before = read();
        let deadline = Instant::now() + PUBLISH_MAX;
        // What is on its way to the guest is given time to come.
        std::thread::sleep(Duration::from_millis(50));
        loop {
            let now = read();
            // Cores publish about every millisecond, those that have a CPU of this machine. The first may have been begun before.
            let mut both = before.cores.iter().zip(&now.cores);
            let told = both.all(|(b, n)| !n.serves || n.published >= b.published + 2);
            if told || Instant::now() > deadline {
                return now;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it says once `done`, or at the deadline: for what takes its time on a busy machine.
    #[track_caller]
    pub fn snapshot_when(&self, done: impl Fn(&Snapshot) -> bool) -> Snapshot {
        let deadline = Instant::now() + SETTLE_MAX;
        loop {
            let now = self.snapshot();
            if done(&now) || Instant::now() > deadline {
                return now;
            }
        }
    }

    /// What it says once no frame comes or goes any more.
    #[track_caller]
    pub fn snapshot_at_rest(&self) -> Snapshot {
        let frames =
            |s: &Snapshot| ["rx_packets", "tx_packets"].map(|name| s.total.counters.get(name));
        let before = std::cell::Cell::new(None);
        self.snapshot_when(|now| before.replace(Some(frames(now))) == Some(frames(now)))
    }

    /// Another `ixcp` command beside it, to be started.
    pub fn ixcp_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.built.ixcp);
        command.env("IX_RUNTIME_DIR", self.base()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs another `ixcp` command beside it.
    pub fn ixcp(&self, args: &[&str]) -> Output {
        self.ixcp_command(args).output().expect("ixcp starts")
    }

    /// Runs a command that must do well; its standard output.
    #[track_caller]
    pub fn ixcp_ok(&self, args: &[&str]) -> String {
        let output = self.ixcp(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ixcp {args:?}: {err}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Waits until `ixcp run` ends by itself; its exit code.
    #[track_caller]
    pub fn wait_end(&mut self, patience: Duration) -> i32 {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("waited for") {
                // Its last lines may still be on their way through the pipes.
                std::thread::sleep(Duration::from_millis(50));
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() < deadline, "did not end in {patience:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends it as Ctrl-C does; its exit code.
    #[track_caller]
    pub fn interrupt(&mut self) -> i32 {
        self.signal(Signal::SIGINT);
        self.wait_end(END_MAX)
    }

    fn signal(&self, signal: Signal) {
        // Only ever called before the child was waited for, so the number is its own.
        let _ = kill(ixcp::pid_of(&self.child), signal);
    }

    /// Process number of the launcher.
    pub fn launcher_pid(&self) -> u32 {
        self.child.id()
    }

    /// QEMU's process number, as the instance tells it.
    pub fn qemu_pid(&self) -> Option<Pid> {
        let base = ixcp::instance::Base::at(self.base()).ok()?;
        base.find(Some(&self.name)).ok()?.qemu_pid()
    }

    /// Kills the launcher without a word, as `kill -9` does. QEMU goes on.
    pub fn kill_launcher(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = match Page::open(&self.dir().join("control")) {
                Ok(page) => match snapshot::read(&page) {
                    Ok(snapshot) => ixcp::render::status(&self.name, &snapshot),
                    Err(e) => e.to_string(),
                },
                Err(e) => e.to_string(),
            };
            eprintln!("--- the machine said:\n{}\n--- its status:\n{status}---", self.log());
        }
        let qemu = self.qemu_pid();
        if let Ok(None) = self.child.try_wait() {
            self.signal(Signal::SIGTERM);
            let deadline = Instant::now() + END_MAX;
            while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        // If the launcher did not end it: asked again, so that no other process is meant.
        if let (Some(pid), true) = (qemu, qemu == self.qemu_pid()) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}
