//! Machines in Bochs: a run from start to end, or one that is watched and steered meanwhile, and what it said.
use crate::{bochs, need};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    /// As QEMU's would be (docs/boot.md).
    pub status: Option<i32>,
    /// What COM1 said.
    pub log: String,
}

/// Runs a machine with the images to its end; `None` after saying SKIPPED. `dataplanes`: a boot configuration.
pub fn run(options: &str, dataplanes: Option<&str>, words: &str) -> Option<Ended> {
    let mut command = bochs::images()?;
    let dir = temp_dir::TempDir::with_prefix("ix-vtx-").expect("a directory");
    command.args(options.split_ascii_whitespace());
    if let Some(text) = dataplanes {
        command.arg("--dataplanes").arg(file(dir.path(), text));
    }
    command.arg("--").arg(words);
    Some(Ended::of(command))
}

/// Runs a machine with the ISO until one of the texts is said; `None` after saying SKIPPED.
pub fn run_iso(model: &str, until: &[&str], patience: Duration) -> Option<Ended> {
    let mut command = bochs::iso(model)?;
    command.arg("--time").arg(patience.as_secs().to_string());
    until.iter().for_each(|text| {
        command.args(["--until", text]);
    });
    Some(Ended::of(command))
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("dataplanes");
    std::fs::write(&path, text).expect("a boot configuration");
    path
}

impl Ended {
    fn of(mut command: Command) -> Ended {
        let _machine = need::machine();
        let output = command.output().expect("xtask starts");
        let log = String::from_utf8_lossy(&output.stdout).replace('\r', "");
        Ended { status: output.status.code(), log }
    }

    /// Fails with the log if one of these was not said.
    #[track_caller]
    pub fn said(&self, texts: &[&str]) {
        for text in texts {
            assert!(
                self.log.contains(text),
                "no {text:?} (status {:?}):\n{}",
                self.status,
                self.log
            );
        }
    }

    /// The lines that contain this.
    pub fn lines<'a>(&'a self, text: &'a str) -> impl Iterator<Item = &'a str> {
        self.log.lines().filter(move |line| line.contains(text))
    }

    /// Fails with the log unless it ended so.
    #[track_caller]
    pub fn ended(&self, status: i32) {
        assert_eq!(self.status, Some(status), "{}", self.log);
    }
}

/// Serial ports that a machine has beside its console: the launcher's option, and the name of the socket.
const LINES: [(&str, &str); 2] = [("--com2", "com2"), ("--com3", "com3")];

/// A machine that runs, with its control page over COM2, a second dataplane's over COM3; dropping it ends it.
#[derive(Debug)]
pub struct Live {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    dir: temp_dir::TempDir,
    ixcp: PathBuf,
    _machine: MutexGuard<'static, ()>,
}

impl Live {
    /// Starts one with the images; `None` after saying SKIPPED.
    pub fn start(options: &str, dataplanes: Option<&str>, words: &str) -> Option<Live> {
        let mut command = bochs::images()?;
        let dir = temp_dir::TempDir::with_prefix("ix-vtx-").expect("a directory");
        command.args(options.split_ascii_whitespace());
        if let Some(text) = dataplanes {
            command.arg("--dataplanes").arg(file(dir.path(), text));
        }
        Live::of(command, dir, &["--", words])
    }

    /// Starts one with the ISO; `None` after saying SKIPPED.
    pub fn start_iso(model: &str) -> Option<Live> {
        let dir = temp_dir::TempDir::with_prefix("ix-bochs-").expect("a directory");
        let mut command = bochs::iso(model)?;
        command.args(["--time", "240"]);
        Live::of(command, dir, &[])
    }

    fn of(mut command: Command, dir: temp_dir::TempDir, words: &[&str]) -> Option<Live> {
        let ixcp = need::built()?.ixcp;
        let machine = need::machine();
        command.arg("--tied");
        for (port, line) in LINES {
            let Some(terminal) = bochs::terminal_at(&dir.path().join(line)) else {
                need::skip("no pseudo-terminal");
                return None;
            };
            command.arg(port).arg(terminal);
        }
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("xtask starts");
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (child.stdout.take().expect("piped"), said.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                to.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes[..n]);
            }
        });
        Some(Live { child, said, dir, ixcp, _machine: machine })
    }

    /// What COM1 has said.
    pub fn log(&self) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&said).replace('\r', "")
    }

    /// Waits for a text.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, patience: Duration) {
        let deadline = Instant::now() + patience;
        while !self.log().contains(text) {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            assert!(!ended && Instant::now() < deadline, "no {text:?}:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `ixcp` over COM2; what it prints.
    #[track_caller]
    pub fn ixcp(&self, args: &[&str]) -> String {
        self.ixcp_at("com2", args).unwrap_or_else(|e| panic!("{args:?}: {e}\n{}", self.log()))
    }

    /// Runs `ixcp` over `com2` or `com3`; what it prints, or says when it fails.
    pub fn ixcp_at(&self, port: &str, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.ixcp);
        command.env("IX_RUNTIME_DIR", self.dir.path().join("ix")).arg(args[0]).arg("--serial");
        let out = command.arg(self.dir.path().join(port)).args(&args[1..]).output();
        let out = out.expect("ixcp starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if out.status.success() { Ok(text(&out.stdout)) } else { Err(text(&out.stderr)) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
