//! Lines of standard output. Who has read enough (`| head`) closes it: then there is nobody to count for, and the program ends.
use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// Says a line, as `println!` does.
#[macro_export]
macro_rules! say {
    () => { $crate::say::line(format_args!("")) };
    ($($what:tt)*) => { $crate::say::line(format_args!($($what)*)) };
}

/// A line.
///
/// # Panics
/// If it cannot be written, other than because nobody reads it.
pub fn line(what: Arguments<'_>) {
    match writeln!(std::io::stdout(), "{what}") {
        Ok(()) => {}
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => panic!("cannot write to standard output: {e}"),
    }
}
