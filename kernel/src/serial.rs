//! The serial console: every line starts with `ix: `. Boot, control and panics write here; nothing on
//! the packet path does.
#![allow(unsafe_code, reason = "owns the UART's I/O ports")]

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use spin::Mutex;
use uart_16550::backend::PioBackend;
use uart_16550::{BaudRate, Config, Uart16550};

const COM1: u16 = 0x3F8;
/// How often a full transmitter is asked before the text is dropped: no log may hang the kernel.
const PATIENCE: u32 = 200_000;

static PORT: Mutex<Option<Uart16550<PioBackend>>> = Mutex::new(None);
static LOGGER: Logger = Logger;
static CRASHED: AtomicBool = AtomicBool::new(false);

/// Starts the port and the `log` crate's output. Without a UART everything else works, silently.
pub fn init() {
    // SAFETY: these are COM1's ports by the PC's convention, and nobody else uses them.
    let Ok(mut uart) = (unsafe { Uart16550::new_port(COM1) }) else { return };
    let config = Config { baud_rate: BaudRate::Baud115200, ..Config::default() };
    if uart.init(config).is_ok() {
        *PORT.lock() = Some(uart);
    }
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(log::LevelFilter::Info);
}

struct Line<'a>(&'a mut Uart16550<PioBackend>);

impl Write for Line<'_> {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for part in s.split_inclusive('\n') {
            match part.strip_suffix('\n') {
                Some(text) => {
                    self.bytes(text.as_bytes());
                    self.bytes(b"\r\n");
                }
                None => self.bytes(part.as_bytes()),
            }
        }
        Ok(())
    }
}

impl Line<'_> {
    fn bytes(&mut self, mut bytes: &[u8]) {
        let mut patience = PATIENCE;
        while !bytes.is_empty() && patience > 0 {
            let n = self.0.send_bytes(bytes);
            bytes = &bytes[n..];
            patience = if n == 0 { patience - 1 } else { PATIENCE };
        }
    }
}

/// Writes one line, whole: cores do not mix within it.
pub fn line(args: fmt::Arguments<'_>) {
    if CRASHED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(uart) = PORT.lock().as_mut() {
        let _ = Line(uart).write_fmt(format_args!("ix: {args}\n"));
    }
}

/// From now on only [`crash_line`] writes: the core that crashed has the console.
pub fn crash_begin() {
    CRASHED.store(true, Ordering::Relaxed);
    // The lock's holder may be the crashed core itself, or finish its line now.
    for _ in 0..10_000_000 {
        if PORT.try_lock().is_some() {
            return;
        }
        core::hint::spin_loop();
    }
    // SAFETY: the holder does not come back: it is this core, or one that hangs; `line` writes
    // nothing more. At worst one line is garbled.
    unsafe { PORT.force_unlock() };
}

/// Writes one line of a crash report.
pub fn crash_line(args: fmt::Arguments<'_>) {
    if let Some(mut port) = PORT.try_lock()
        && let Some(uart) = port.as_mut()
    {
        let _ = Line(uart).write_fmt(format_args!("ix: {args}\n"));
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
