//! A machine in Bochs, as `cargo xtask bochs` unpacks it: it boots a disc and is ended when its serial port
//! has said what was waited for.
use crate::need;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg};
use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Bochs' root directory; `None` after saying SKIPPED.
pub fn root() -> Option<PathBuf> {
    let root = need::workspace().join("build/bochs/root");
    if root.join("usr/bin/bochs-bin").is_file() {
        return Some(root);
    }
    need::skip("no Bochs: cargo xtask bochs fetches it");
    None
}

/// A terminal for a serial port; what is there can be reached at a Unix socket, by one client at a time. `None`: this system
/// has no pseudo-terminals.
pub fn terminal_at(socket: &Path) -> Option<PathBuf> {
    let pty = nix::pty::openpty(None, None).ok()?;
    let path = nix::unistd::ttyname(&pty.slave).ok()?;
    let listener = UnixListener::bind(socket).expect("a socket");
    // Both ends live as long as the threads, which end with this program.
    std::thread::spawn(move || relay(&listener, &File::from(pty.master), &pty.slave));
    Some(path)
}

/// Boots a disc on a CPU model until one of the texts is said; what the serial port said.
pub fn boot(root: &Path, iso: &Path, model: &str, until: &[&str], patience: Duration) -> String {
    let dir = temp_dir::TempDir::with_prefix("ix-bochs-").expect("a directory");
    let mut machine = Running::start_with(root, iso, model, (dir, None));
    machine.wait_for_any(until, patience);
    // Whatever it says while it is ended belongs to it.
    machine.end();
    machine.log()
}

/// A machine that runs; dropping it ends it.
#[derive(Debug)]
pub struct Running {
    dir: temp_dir::TempDir,
    child: Child,
}

impl Running {
    /// Boots a disc on a CPU model. What is at its second serial port can be reached at [`Running::line`], by one client at a
    /// time. `None`: this system has no pseudo-terminals.
    pub fn start(root: &Path, iso: &Path, model: &str) -> Option<Running> {
        let dir = temp_dir::TempDir::with_prefix("ix-bochs-").expect("a directory");
        let terminal = terminal_at(&dir.path().join("line"))?;
        Some(Running::start_with(root, iso, model, (dir, Some(&terminal))))
    }

    fn start_with(
        root: &Path,
        iso: &Path,
        model: &str,
        (dir, com2): (temp_dir::TempDir, Option<&Path>),
    ) -> Running {
        let rc = dir.path().join("bochsrc");
        let text = config(root, iso, model, dir.path(), com2);
        std::fs::write(&rc, text).expect("a configuration");
        let libraries = root.join("usr/lib/x86_64-linux-gnu");
        let child = Command::new(root.join("lib64/ld-linux-x86-64.so.2"))
            .arg("--library-path")
            .arg(format!("{}:{}/lib/x86_64-linux-gnu", libraries.display(), root.display()))
            .arg(root.join("usr/bin/bochs-bin"))
            .args(["-q", "-f"])
            .arg(&rc)
            .env("TERM", "linux")
            .env("LTDL_LIBRARY_PATH", libraries.join("bochs/plugins"))
            .env("BXSHARE", root.join("usr/share/bochs"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("Bochs starts");
        Running { dir, child }
    }

    /// What its first serial port has said.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(self.dir.path().join("serial")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The Unix socket that leads to its second serial port.
    pub fn line(&self) -> PathBuf {
        self.dir.path().join("line")
    }

    /// Waits for a text.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, patience: Duration) {
        self.wait_for_any(&[text], patience);
        let log = self.log();
        assert!(log.contains(text), "no {text:?} in {patience:?}:\n{log}");
    }

    fn wait_for_any(&mut self, texts: &[&str], patience: Duration) {
        let deadline = Instant::now() + patience;
        while !texts.iter().any(|text| self.log().contains(text)) {
            if Instant::now() > deadline || !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// It does not listen to a word: killed, and by its number, which is its own until it is waited for.
    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

fn config(root: &Path, iso: &Path, model: &str, dir: &Path, com2: Option<&Path>) -> String {
    let mut config = String::new();
    for line in [
        format!("romimage: file={}/usr/share/bochs/BIOS-bochs-latest", root.display()),
        format!("vgaromimage: file={}/usr/share/vgabios/vgabios.bin", root.display()),
        "megs: 256".to_owned(),
        format!("ata0-master: type=cdrom, path={}, status=inserted", iso.display()),
        "boot: cdrom".to_owned(),
        format!("com1: enabled=1, mode=file, dev={}/serial", dir.display()),
        format!("log: {}/log", dir.display()),
        "panic: action=fatal".to_owned(),
        "pci: enabled=1, chipset=i440fx".to_owned(),
        "clock: sync=none, time0=local".to_owned(),
        "display_library: term".to_owned(),
        format!("cpu: model={model}, count=2, ips=50000000, reset_on_triple_fault=0"),
        "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy".to_owned(),
    ] {
        let _ = writeln!(config, "{line}");
    }
    if let Some(terminal) = com2 {
        let _ = writeln!(config, "com2: enabled=1, mode=term, dev={}", terminal.display());
    }
    config
}

/// Carries bytes between clients, one after the other, and a terminal. `slave` keeps it alive while nobody else has it, and
/// makes it carry bytes as they are: Bochs leaves the processing of output on.
fn relay(listener: &UnixListener, terminal: &File, slave: &OwnedFd) {
    for client in listener.incoming().map_while(Result::ok) {
        if let Ok(mut settings) = termios::tcgetattr(slave) {
            termios::cfmakeraw(&mut settings);
            let _ = termios::tcsetattr(slave, SetArg::TCSANOW, &settings);
        }
        let mut bytes = [0; 512];
        loop {
            let mut fds = [
                PollFd::new(client.as_fd(), PollFlags::POLLIN),
                PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
            ];
            if poll(&mut fds, PollTimeout::NONE).is_err() {
                break;
            }
            let [from_client, from_terminal] = fds.map(|fd| fd.any() == Some(true));
            let passed = match (from_client, from_terminal) {
                (true, _) => pass(&client, terminal, &mut bytes),
                (_, true) => pass(terminal, &client, &mut bytes),
                _ => Some(()),
            };
            if passed.is_none() {
                break;
            }
        }
    }
}

fn pass(mut from: impl Read, mut to: impl io::Write, bytes: &mut [u8]) -> Option<()> {
    let count = from.read(bytes).ok().filter(|count| *count > 0)?;
    to.write_all(&bytes[..count]).ok()
}
