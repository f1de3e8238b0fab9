//! `ixcp top` as a program on a terminal: what it takes it gives back, however it ends.
mod scene;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use scene::Scene;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// `ixcp` on a terminal of the usual kind.
fn ixcp(scene: &Scene, args: &[&str]) -> Command {
    let mut command = scene.ixcp();
    command.env("TERM", "xterm").args(args);
    command
}

fn output(scene: &Scene, args: &[&str]) -> Output {
    ixcp(scene, args).stdin(Stdio::null()).output().unwrap()
}

/// A terminal with `ixcp top` on it.
struct Terminal {
    master: File,
    /// Held open, so that its settings can be read when the program has ended.
    slave: OwnedFd,
    child: Child,
    pieces: Receiver<Vec<u8>>,
    shown: Vec<u8>,
}

impl Terminal {
    fn start(scene: &Scene, rows: u16) -> Terminal {
        let size = Winsize { ws_row: rows, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(&size, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let mut command = ixcp(scene, &["top", "--interval", "0.2"]);
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(pty.master);
        let (mut from, (to, pieces)) = (master.try_clone().unwrap(), channel());
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut piece) {
                if to.send(piece[..n].to_vec()).is_err() {
                    break;
                }
            }
        });
        Terminal { master, slave: pty.slave, child, pieces, shown: Vec::new() }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.windows(text.len()).any(|w| w == text.as_bytes()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left);
            let shown = String::from_utf8_lossy(&self.shown).into_owned();
            self.shown.extend(piece.unwrap_or_else(|_| panic!("no {text:?} in {shown:?}")));
        }
    }

    /// The program has to end by itself, and the terminal to be as it was.
    fn ends(mut self) {
        self.wait_for("\x1b[?1049l");
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                None => {
                    self.child.kill().unwrap();
                    panic!("it does not end");
                }
            }
        };
        assert!(status.success(), "{status}");
        assert!(!self.is_raw());
    }
}

#[test]
fn the_terminal_is_given_back_on_keys_and_signals() {
    let scene = Scene::new();
    let ways: [(&[u8], Option<Signal>); 4] = [
        (b"q", None),
        (b"", Some(Signal::SIGINT)),
        (b"", Some(Signal::SIGTERM)),
        (b"", Some(Signal::SIGHUP)),
    ];
    for (keys, signal) in ways {
        let mut terminal = Terminal::start(&scene, 24);
        // Of the words only the table's head is written in one piece.
        terminal.wait_for("CORE STATE");
        assert!(terminal.is_raw());
        terminal.master.write_all(keys).unwrap();
        if let Some(signal) = signal {
            kill(ixcp::pid_of(&terminal.child), signal).unwrap();
        }
        terminal.ends();
    }
}

#[test]
fn a_small_window_is_asked_for_its_size() {
    let scene = Scene::new();
    let mut terminal = Terminal::start(&scene, 5);
    terminal.wait_for("q quits; the window is too small for 4 more lines");
    terminal.master.write_all(b"q").unwrap();
    terminal.ends();
}

#[test]
fn elsewhere_it_prints_one_frame_and_metrics_prints_its_text() {
    let scene = Scene::new();
    let text = |args: &[&str]| {
        let output = output(&scene, args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let frame = text(&["top", "--interval", "0.1"]);
    assert!(frame.starts_with("kv: ") && !frame.contains('\x1b'), "{frame}");
    let json: serde_json::Value =
        serde_json::from_str(&text(&["top", "--json", "--interval", "0.1"])).unwrap();
    assert_eq!(json[0]["name"], "kv");
    assert!(text(&["metrics", "--once"]).contains("ix_alive{dataplane=\"kv\"} 0\n"));
    assert!(text(&["completions", "zsh"]).starts_with("#compdef ixcp"));
    let refused = output(&scene, &["top", "--once", "--name", "other"]);
    let words = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && words.contains("these do: kv"), "{words}");
}
