//! The console: lines that start with `ix: `, on the serial port and, where the loader left one, on
//! the screen. Boot, control and crash reports write here; nothing on the packet path does.
#![allow(unsafe_code, reason = "takes the console away from a core that crashed with it")]

mod screen;
mod serial;

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;

pub use screen::Screen;
use serial::Serial;

/// What was said before there was a screen to show it.
const EARLY_BYTES: usize = 2048;

struct Console {
    serial: Option<Serial>,
    screen: Option<Screen>,
    early: [u8; EARLY_BYTES],
    early_len: usize,
}

static CONSOLE: Mutex<Console> =
    Mutex::new(Console { serial: None, screen: None, early: [0; EARLY_BYTES], early_len: 0 });
static LOGGER: Logger = Logger;
static CRASHED: AtomicBool = AtomicBool::new(false);

/// Starts the serial port and the `log` crate's output. Without a port everything else works.
pub fn init() {
    CONSOLE.lock().serial = Serial::open();
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

/// A screen whose memory can be reached from `mem::init` on, and before it if it lies below
/// `mapped`.
pub fn add_screen(mut screen: Screen, mapped: u64) {
    let mut c = CONSOLE.lock();
    screen.boot(mapped);
    c.screen = Some(screen);
    c.replay();
}

/// The boot mapping is about to go: nothing may touch the screen until [`screen_mapped`].
pub fn screen_unmapped() {
    if let Some(s) = CONSOLE.lock().screen.as_mut() {
        s.unmapped();
    }
}

/// The real page tables are in force: maps the screen in them.
pub fn screen_mapped() {
    let mut c = CONSOLE.lock();
    let Some(s) = c.screen.as_mut() else { return };
    let first = !s.is_blank_slate_done();
    s.map();
    if first {
        c.replay();
    }
}

/// What is written to, for the boot report.
pub fn report(out: &mut impl Write) -> fmt::Result {
    let c = CONSOLE.lock();
    out.write_str(if c.serial.is_some() { "COM1" } else { "no serial port at COM1" })?;
    match &c.screen {
        Some(screen) => write!(out, ", {screen}"),
        None => out.write_str(", no screen"),
    }
}

impl Console {
    /// Shows what was said before.
    fn replay(&mut self) {
        if let Some(s) = self.screen.as_mut().filter(|s| s.is_shown()) {
            let text = core::str::from_utf8(&self.early[..self.early_len]).unwrap_or("?\n");
            let _ = s.write_str(text);
        }
    }
}

impl Write for Console {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if let Some(serial) = &mut self.serial {
            serial.write(s);
        }
        match &mut self.screen {
            Some(screen) if screen.is_shown() => screen.write_str(s)?,
            _ => {
                let room = EARLY_BYTES - self.early_len;
                if s.len() <= room {
                    self.early[self.early_len..][..s.len()].copy_from_slice(s.as_bytes());
                    self.early_len += s.len();
                }
            }
        }
        Ok(())
    }
}

/// Writes one line, whole: cores do not mix within it.
pub fn line(args: fmt::Arguments<'_>) {
    if !CRASHED.load(Ordering::Relaxed) {
        let _ = CONSOLE.lock().write_fmt(format_args!("ix: {args}\n"));
    }
}

/// Writes a line of a dataplane, which is this one's guest.
pub fn guest_line(name: &str, args: fmt::Arguments<'_>) {
    if !CRASHED.load(Ordering::Relaxed) {
        let _ = CONSOLE.lock().write_fmt(format_args!("{name}: {args}\n"));
    }
}

/// From now on only [`crash_line`] writes: the core that crashed has the console.
pub fn crash_begin() {
    CRASHED.store(true, Ordering::Relaxed);
    // The lock's holder may be the crashed core itself, or finish its line now.
    for _ in 0..10_000_000 {
        if CONSOLE.try_lock().is_some() {
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder does not come back: it is this core, or one that hangs; `line` writes
    // nothing more. At worst one line is garbled.
    unsafe { CONSOLE.force_unlock() };
}

/// Writes one line of a crash report, or the very last line: whoever has the console, if it can be had.
pub fn crash_line(args: fmt::Arguments<'_>) {
    if let Some(mut console) = CONSOLE.try_lock() {
        let _ = console.write_fmt(format_args!("ix: {args}\n"));
    }
}

/// Waits until the serial port has sent everything: what is in it is lost when the machine goes off.
pub fn drain() {
    if let Some(console) = CONSOLE.try_lock()
        && let Some(serial) = &console.serial
    {
        serial.drain();
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let prefix = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            log::Level::Info => "",
            log::Level::Debug => "debug: ",
            log::Level::Trace => "trace: ",
        };
        if record.level() >= log::Level::Debug {
            let us = crate::time::now_ns() / 1000;
            line(format_args!("{prefix}[{us} us] {}", record.args()));
        } else {
            line(format_args!("{prefix}{}", record.args()));
        }
    }

    fn flush(&self) {}
}
