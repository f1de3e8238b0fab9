//! The `log` crate's facade, and `logln!`, on the kernel's log.

use crate::syscall::log_line;
use core::fmt::{self, Write};
use ix_abi::limits::LOG_BYTES_MAX;
use log::{Level, LevelFilter, Log, Metadata, Record};

/// One line at level info, formatted as by `println!`; what is too long is cut off.
#[macro_export]
macro_rules! logln {
    ($($arg:tt)*) => { $crate::logging::print(format_args!($($arg)*)) };
}

/// A line in the making, on the stack: logging allocates nothing.
pub(crate) struct Line {
    bytes: [u8; LOG_BYTES_MAX],
    len: usize,
}

impl Line {
    pub(crate) fn format(args: fmt::Arguments<'_>) -> Line {
        let mut line = Line { bytes: [0; LOG_BYTES_MAX], len: 0 };
        // An error means that the line is full: it is cut off.
        let _ = line.write_fmt(args);
        line
    }

    pub(crate) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut n = text.len().min(LOG_BYTES_MAX - self.len);
        while !text.is_char_boundary(n) {
            n -= 1;
        }
        self.bytes[self.len..self.len + n].copy_from_slice(&text.as_bytes()[..n]);
        self.len += n;
        if n < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

/// Writes a line at level info: what [`logln!`] calls.
pub fn print(args: fmt::Arguments<'_>) {
    log_line(Line::format(args).as_str(), Level::Info as u64);
}

struct KernelLog;

impl Log for KernelLog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        log_line(Line::format(*record.args()).as_str(), record.level() as u64);
    }

    fn flush(&self) {}
}

/// Sends what is logged through the `log` crate to the kernel, up to level info; programs may set
/// another maximum. Each context calls it; only the first call counts.
pub fn init() {
    if log::set_logger(&KernelLog).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_too_long_is_cut_at_a_character() {
        let euros = "€".repeat(LOG_BYTES_MAX);
        let line = Line::format(format_args!("{euros}"));
        assert_eq!(line.as_str().len(), LOG_BYTES_MAX / 3 * 3);
        assert!(line.as_str().chars().all(|c| c == '€'));
    }
}
