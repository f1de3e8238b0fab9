//! A network card that another program plays (`models/ixgbe-vfio-user`): found, started before QEMU, ended after it.
use crate::cli::{Nic, Run};
use crate::instance::Instance;
use crate::net::Backend;
use crate::qemu::{self, Card};
use anyhow::{Context, Result, bail, ensure};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to begin.
const BEGIN_MAX: Duration = Duration::from_secs(10);
/// How long it may take to see that QEMU has ended.
const END_MAX: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);
/// Unix sockets have short names (`sun_path`).
const SOCKET_PATH_MAX: usize = 107;

/// What is needed to play a card.
#[derive(Clone, Debug)]
pub struct Player {
    program: PathBuf,
    net: Backend,
}

impl Player {
    /// What the options ask for; `None`: QEMU plays it itself.
    pub fn find(options: &Run) -> Result<Option<Player>> {
        if options.nic != Nic::Ixgbe {
            return Ok(None);
        }
        let program = find_program(options.nic_program.as_deref())?;
        Ok(Some(Player { program, net: options.net.clone() }))
    }

    /// As QEMU finds it, for an instance's directory.
    pub fn card(dir: &Path) -> Card {
        Card::VfioUser { socket: dir.join("nic"), wire: dir.join("wire") }
    }

    /// Its arguments.
    pub fn args(&self, dir: &Path) -> Vec<OsString> {
        let wire = match &self.net {
            Backend::User => joined("listen=", &dir.join("wire")),
            Backend::Stream(path) => joined("stream=", path),
            Backend::Tap(name) => format!("tap={name}").into(),
        };
        vec!["--socket".into(), dir.join("nic").into(), "--wire".into(), wire]
    }

    /// The command as one could type it into a shell.
    pub fn shell(&self, dir: &Path) -> String {
        qemu::shell_words(&self.program, &self.args(dir))
    }

    /// Starts it, and waits until QEMU can come.
    pub fn start(&self, instance: &Instance) -> Result<Played> {
        let socket = instance.dir().join("nic");
        let long = socket.as_os_str().len().max(instance.dir().join("wire").as_os_str().len());
        ensure!(
            long <= SOCKET_PATH_MAX,
            "{} is too long for the name of a socket: set IX_RUNTIME_DIR to a directory with a shorter one",
            socket.display()
        );
        let log = File::create(instance.nic_log())?;
        let child = Command::new(&self.program)
            .args(self.args(instance.dir()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // As QEMU, which it ends with.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut played = Played { child, log: instance.nic_log() };
        let deadline = Instant::now() + BEGIN_MAX;
        while !socket.exists() {
            if let Some(status) = played.ended()? {
                bail!("the network card could not be had ({status}):\n{}", played.said());
            }
            ensure!(Instant::now() < deadline, "the network card does not begin");
            std::thread::sleep(LOOK);
        }
        Ok(played)
    }
}

/// A card that is being played; dropping it ends it.
#[derive(Debug)]
pub struct Played {
    child: Child,
    log: PathBuf,
}

impl Played {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, which it does with QEMU.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot wait for the network card")
    }

    /// What it has complained about.
    pub fn said(&self) -> String {
        let said = std::fs::read(&self.log).unwrap_or_default();
        let lines = said.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(crate::serial::printable).collect::<Vec<_>>().join("\n")
    }

    /// QEMU has ended: so does this. How it ended, if by itself.
    pub fn end(&mut self) -> Option<ExitStatus> {
        let deadline = Instant::now() + END_MAX;
        loop {
            match self.child.try_wait() {
                Ok(None) if Instant::now() <= deadline => std::thread::sleep(LOOK),
                Ok(Some(status)) => return Some(status),
                _ => break,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn joined(head: &str, path: &Path) -> OsString {
    let mut text = OsString::from(head);
    text.push(path);
    text
}

/// As given, or beside this program, or beside its release when this one is a debug build.
fn find_program(given: Option<&Path>) -> Result<PathBuf> {
    const NAME: &str = "ixgbe-vfio-user";
    if let Some(given) = given {
        ensure!(qemu::runs(given), "there is no program {}", given.display());
        return Ok(given.to_owned());
    }
    let exe = std::env::current_exe().context("where is this program?")?;
    let beside = exe.parent().map(|dir| dir.join(NAME));
    let release = exe.ancestors().nth(2).map(|target| target.join("release").join(NAME));
    let found = [beside, release].into_iter().flatten().find(|path| qemu::runs(path));
    found.with_context(|| {
        format!(
            "there is no {NAME}, which plays the card: build it (cargo build --release -p {NAME}), or name it \
             with --nic-program PATH"
        )
    })
}

/// A QEMU that takes such a card: as given, the one that `cargo xtask qemu --vfio-user` fetches, or the installed one.
pub fn find_qemu(options: &Run, images: &Path) -> Result<PathBuf> {
    let search = std::env::var_os("PATH");
    let fetched = images.parent().map(|build| build.join("qemu-vfio-user/qemu-system-x86_64"));
    let qemu = match (&options.qemu, fetched.filter(|path| qemu::runs(path))) {
        (None, Some(fetched)) => fetched,
        (given, _) => qemu::find(given.as_deref(), search)?,
    };
    ensure!(
        has_vfio_user(&qemu),
        "{} takes no devices of other programs (vfio-user, QEMU 10.1 and later): cargo xtask qemu --vfio-user \
         fetches one that does, without root; or name one with --qemu PATH",
        qemu.display()
    );
    Ok(qemu)
}

/// Whether a QEMU takes devices that other programs play.
pub fn has_vfio_user(qemu: &Path) -> bool {
    let asked = Command::new(qemu).args(["-device", "vfio-user-pci,help"]).output();
    asked.is_ok_and(|o| o.status.success() && o.stdout.starts_with(b"vfio-user-pci options"))
}

#[cfg(test)]
mod tests;
