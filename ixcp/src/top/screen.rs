//! The terminal: taken, drawn to at each look, and given back however this ends.
use super::Watch;
use super::draw::View;
use crate::instance::Base;
use crate::observe;
use anyhow::{Context, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A signal is noticed so fast.
const NOTICE: Duration = Duration::from_millis(100);

/// Gives the terminal back when dropped. A panic aborts the program and drops nothing: the hook that `try_init`
/// sets does it then, before the message.
struct Taken;

impl Drop for Taken {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows the named dataplane, or all, until it is asked to end.
pub fn run(base: &Base, name: Option<&str>, interval: Duration) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).context("cannot watch for signals")?;
    }
    // Before it is taken: a failure half way leaves it half changed.
    let taken = Taken;
    let mut terminal =
        ratatui::try_init().context("cannot use the terminal: `ixcp top --once` needs none")?;
    let (mut watch, mut view) = (Watch::default(), View::default());
    while !ended.load(Ordering::Relaxed) {
        let now = Instant::now();
        view.update(watch.look(observe::look(base, name)?, now));
        let next = now + interval;
        loop {
            terminal.draw(|to| view.draw(to)).context("cannot write to the terminal")?;
            if !wait(next, &ended)? {
                break;
            }
            match act(&event::read().context("cannot read the keyboard")?) {
                Act::Quit => return Ok(()),
                Act::Choose(by) => view.choose(by),
                Act::Redraw => {}
            }
        }
    }
    drop(taken);
    Ok(())
}

/// Waits for the keyboard; false when the time for the next look, or the end, has come.
fn wait(until: Instant, ended: &AtomicBool) -> Result<bool> {
    while !ended.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        match event::poll(left.min(NOTICE)) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).context("cannot wait for the keyboard"),
        }
    }
    Ok(false)
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Quit,
    /// So many dataplanes further on.
    Choose(isize),
    /// Nothing, or the terminal has another size.
    Redraw,
}

fn act(event: &Event) -> Act {
    let Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) = event else {
        return Act::Redraw;
    };
    match code {
        KeyCode::Char('q') | KeyCode::Esc => Act::Quit,
        // The terminal sends it as a key now, not as a signal.
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Act::Quit,
        KeyCode::Left | KeyCode::Up => Act::Choose(-1),
        KeyCode::Right | KeyCode::Down => Act::Choose(1),
        _ => Act::Redraw,
    }
}

#[cfg(test)]
mod tests;
