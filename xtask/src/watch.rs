//! Running programs with their output passed on, read line by line, and with a time limit.
use crate::say::say;
use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// What programs get to end in order at the time limit.
const LAST_WORDS: Duration = Duration::from_secs(8);

/// The time since it was first asked for, in minutes and seconds.
pub fn clock() -> String {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let elapsed = FIRST.get_or_init(Instant::now).elapsed().as_secs();
    format!("{}:{:02}", elapsed / 60, elapsed % 60)
}

/// With the time: where it goes is the first question about a run that is too long.
pub fn heading(text: &str) {
    say!("--- {} {text}", clock());
}

/// When one sees what a program says.
#[derive(Debug)]
pub enum Shown<'a> {
    /// At once, on standard output and standard error.
    AtOnce,
    /// Later, and until then here: something else is being shown.
    Later(&'a Mutex<Vec<u8>>),
}

/// Runs a program with its output passed on and read line by line; ends it at the limit. Gives whether it did well.
pub fn watch(
    command: &mut Command,
    limit: Duration,
    shown: &Shown<'_>,
    line: impl FnMut(&str) + Send,
) -> Result<bool> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let line = Mutex::new(line);
    let deadline = Instant::now() + limit;
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(out, shown, |bytes| show(io::stdout(), bytes), &line));
        scope.spawn(|| pass_on(err, shown, |bytes| show(io::stderr(), bytes), &line));
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status.success());
            }
            if Instant::now() > deadline {
                say!("xtask: over the time limit of {} s", limit.as_secs());
                // Not waited for yet: the number is its own. With it go all that it started.
                let group = i32::try_from(child.id()).expect("process numbers are small");
                // First a word: `ixcp run` ends the machine that it started.
                let _ = killpg(Pid::from_raw(group), Signal::SIGTERM);
                std::thread::sleep(LAST_WORDS);
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                child.wait()?;
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    })
}

fn show(mut to: impl Write, bytes: &[u8]) {
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

fn pass_on(
    from: Option<impl Read>,
    shown: &Shown<'_>,
    show: impl Fn(&[u8]),
    line: &Mutex<impl FnMut(&str)>,
) {
    let Some(from) = from else { return };
    let mut reader = BufReader::new(from);
    let mut bytes = Vec::new();
    while reader.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        match shown {
            Shown::AtOnce => show(&bytes),
            Shown::Later(all) => {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend(&bytes);
            }
        }
        if let Ok(mut line) = line.lock() {
            line(String::from_utf8_lossy(&bytes).trim_end());
        }
        bytes.clear();
    }
}
