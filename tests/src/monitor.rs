//! The kernel as a monitor in Bochs (`cargo xtask bochs-run`): a run from start to end, and what it said.
use crate::{bochs, need};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A run that has ended.
#[derive(Debug)]
pub struct Ended {
    /// As QEMU's would be (docs/boot.md).
    pub status: Option<i32>,
    /// What COM1 said.
    pub log: String,
}

/// The program that starts it; `None` after saying SKIPPED what is not there.
pub fn launcher() -> Option<Command> {
    need::built()?;
    bochs::root()?;
    need::tool(&["grub-mkrescue"], "grub-common")?;
    need::tool(&["xorriso"], "xorriso")?;
    let built = need::workspace().join("target/debug/xtask");
    let xtask = std::env::var_os("IX_XTASK").map_or(built, PathBuf::from);
    if !xtask.is_file() {
        need::skip("no xtask: cargo xtask test builds it");
        return None;
    }
    let mut command = Command::new(xtask);
    command.args(["bochs-run", "--no-build"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    Some(command)
}

/// Runs a machine to its end; `None` after saying SKIPPED. `dataplanes`: a boot configuration.
pub fn run(options: &str, dataplanes: Option<&str>, words: &str) -> Option<Ended> {
    let mut command = launcher()?;
    let _machine = need::machine();
    let dir = temp_dir::TempDir::with_prefix("ix-vtx-").expect("a directory");
    command.args(options.split_ascii_whitespace());
    if let Some(text) = dataplanes {
        command.arg("--dataplanes").arg(file(dir.path(), text));
    }
    let output = command.arg("--").arg(words).output().expect("xtask starts");
    let log = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    Some(Ended { status: output.status.code(), log })
}

fn file(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("dataplanes");
    std::fs::write(&path, text).expect("a boot configuration");
    path
}

impl Ended {
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
