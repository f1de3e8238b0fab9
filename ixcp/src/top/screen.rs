//! The terminal: taken, written to at each look, and given back however this ends.
//!
//! Written by escape sequences that every terminal of today knows: what is drawn is text in a table, and a crate for more
//! would turn on `std` in crates that the kernel is built of.
use super::window::{self, Size};
use super::{Seen, Watch, text};
use crate::control::print;
use crate::instance::Base;
use crate::observe;
use crate::render::count;
use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A signal is noticed so fast.
const NOTICE: Duration = Duration::from_millis(100);
/// Looks that a graph shows.
const HISTORY: usize = 60;
/// The other screen, without a cursor; and back.
const TAKE: &str = "\x1b[?1049h\x1b[?25l";
const GIVE_BACK: &str = "\x1b[?25h\x1b[?1049l";
/// The top left corner; to the end of the line, of the screen: cleared.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_BELOW: &str = "\x1b[J";

/// The terminal as it was, which it is again when this is dropped.
struct Taken(Termios);

impl Taken {
    fn take() -> Result<Taken> {
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut raw = before.clone();
        // Keys come one by one and are not echoed; Ctrl-C stays a signal.
        raw.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO);
        tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        print(TAKE);
        Ok(Taken(before))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        print(GIVE_BACK);
        let _as_good_as_can_be = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

/// What has been seen of a dataplane, look by look.
#[derive(Debug, Default)]
struct History {
    rx_pps: VecDeque<f64>,
    serving: VecDeque<f64>,
}

/// Shows the named dataplane, or all, until it is asked to end.
pub fn run(base: &Base, name: Option<&str>, interval: Duration) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot watch for signals")?;
    }
    let _taken = Taken::take().context("cannot use the terminal: `ixcp top --once` needs none")?;
    let (mut watch, mut history) = (Watch::default(), HashMap::new());
    while !ended.load(Ordering::Relaxed) {
        let next = Instant::now() + interval;
        let seen = watch.look(observe::look(base, name)?, Instant::now());
        remember(&mut history, &seen);
        print(&picture(&seen, &history, window::size(std::io::stdout().as_fd())));
        if wait(next, &ended)? {
            break;
        }
    }
    Ok(())
}

fn remember(history: &mut HashMap<String, History>, seen: &[Seen]) {
    history.retain(|name, _| seen.iter().any(|s| s.name == *name));
    for Seen { name, frame } in seen {
        let Ok(frame) = frame else { continue };
        let of = history.entry(name.clone()).or_default();
        for (graph, value) in [
            (&mut of.rx_pps, frame.total.rx_pps.unwrap_or(0.0)),
            (&mut of.serving, frame.serving as f64),
        ] {
            if graph.len() == HISTORY {
                graph.pop_front();
            }
            graph.push_back(value);
        }
    }
}

/// Everything, as it is written to a terminal of this size; of one that does not tell it, all.
fn picture(seen: &[Seen], history: &HashMap<String, History>, size: Option<Size>) -> String {
    let mut lines = String::new();
    for Seen { name, frame } in seen {
        match frame {
            Ok(frame) => lines += &text::frame(frame),
            Err(e) => {
                let _ = writeln!(lines, "{name}: {e}");
            }
        }
        if let Some(of) = history.get(name) {
            let _ = writeln!(lines, "packets/s  {}", graph(&of.rx_pps));
            let _ = writeln!(lines, "cores      {}", graph(&of.serving));
        }
        lines.push('\n');
    }
    if seen.is_empty() {
        lines += "no dataplane runs\n";
    }
    fitted(&lines, "q quits", size)
}

/// The lines from the top left corner on, and a last one below them; what does not fit is left out. A line that is too long, or one too
/// many, would move all others.
fn fitted(lines: &str, last: &str, size: Option<Size>) -> String {
    let Size { rows, columns } = size.unwrap_or(Size { rows: usize::MAX, columns: usize::MAX });
    let mut text = HOME.to_owned();
    // Cleared first: at its end the cursor of a full line stands on its last character.
    for line in lines.lines().take(rows - 1) {
        text += CLEAR_LINE;
        text.extend(line.chars().take(columns));
        text += "\r\n";
    }
    text += CLEAR_BELOW;
    let hidden = lines.lines().count().saturating_sub(rows - 1);
    let last = match hidden {
        0 => last.to_owned(),
        _ => format!("{last}; the window is too small for {}", count(hidden as u64, "more line")),
    };
    text.extend(last.chars().take(columns));
    text
}

/// A row of bars, the highest of which is the largest value.
fn graph(values: &VecDeque<f64>) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let part = if most > 0.0 { value / most } else { 0.0 };
        BARS[((part * 8.0).ceil() as usize).min(8)]
    };
    values.iter().map(bar).collect()
}

/// Waits for a key until the time for the next look has come; whether it is to end.
fn wait(until: Instant, ended: &AtomicBool) -> Result<bool> {
    while !ended.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        let patience = PollTimeout::try_from(left.min(NOTICE)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, patience) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e).context("cannot wait for the keyboard"),
        }
        let mut keys = [0; 16];
        let count = std::io::stdin().read(&mut keys).context("cannot read the keyboard")?;
        // An end of the keyboard is an end, too.
        if count == 0 || keys[..count].contains(&b'q') {
            return Ok(true);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
