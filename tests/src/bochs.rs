//! Bochs as a user starts it, by `cargo xtask bochs-run`: the program, and a terminal for the machine's second serial port.
use crate::need;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{self, SetArg};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A machine that boots the images as they are; `None` after saying SKIPPED what is not there.
pub fn images() -> Option<Command> {
    need::built()?;
    need::tool(&["grub-mkrescue"], "grub-common")?;
    need::tool(&["xorriso"], "xorriso")?;
    let mut command = launcher()?;
    command.arg("--no-build");
    Some(command)
}

/// A machine of two cores that boots the image for real machines; `None` after saying SKIPPED.
pub fn iso(model: &str) -> Option<Command> {
    let iso = need::iso()?;
    let mut command = launcher()?;
    command.arg("--disc").arg(iso).args(["--cores", "2", "--model", model]);
    Some(command)
}

fn launcher() -> Option<Command> {
    let root = need::workspace().join("build/bochs/root");
    if !root.join("usr/bin/bochs-bin").is_file() {
        need::skip("no Bochs: cargo xtask bochs fetches it");
        return None;
    }
    let built = need::workspace().join("target/debug/xtask");
    let xtask = std::env::var_os("IX_XTASK").map_or(built, PathBuf::from);
    if !xtask.is_file() {
        need::skip("no xtask: cargo xtask test builds it");
        return None;
    }
    let mut command = Command::new(xtask);
    command.arg("bochs-run").stdin(Stdio::null()).stderr(Stdio::inherit());
    Some(command)
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
