//! Lines of standard output. Who has read enough (`| head`) closes it, which is no failure: what was begun is brought to its end. That
//! it takes nothing for another reason is, and told at the end.
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::OnceLock;

/// Why standard output has not taken everything.
static NOT_SAID: OnceLock<io::Error> = OnceLock::new();

/// Says a line, as `println!` does.
macro_rules! say {
    ($($what:tt)*) => { $crate::say::line(format_args!($($what)*)) };
}
pub(crate) use say;

/// A line.
pub fn line(what: Arguments<'_>) {
    bytes(format!("{what}\n").as_bytes());
}

/// What a machine says, as it is.
pub fn bytes(what: &[u8]) {
    if cfg!(test) {
        return captured(what);
    }
    write(&mut io::stdout().lock(), what, &NOT_SAID);
}

/// What a test says is its harness's: among CI's own lines that would be read as a result.
#[allow(clippy::print_stdout, reason = "this alone is captured")]
fn captured(what: &[u8]) {
    print!("{}", String::from_utf8_lossy(what));
}

/// The reason why something was not said, if that is a failure.
pub fn not_said() -> Option<&'static io::Error> {
    NOT_SAID.get()
}

fn write(to: &mut dyn Write, what: &[u8], failure: &OnceLock<io::Error>) {
    match to.write_all(what).and_then(|()| to.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            // The first one counts.
            let _ = failure.set(e);
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing, for this reason.
    struct Full(ErrorKind);

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure_and_a_full_disk_is_one() {
        let failure = OnceLock::new();
        let mut said = Vec::new();
        write(&mut said, b"a 1\n", &failure);
        assert_eq!(said, b"a 1\n");
        write(&mut Full(ErrorKind::BrokenPipe), b"b", &failure);
        assert!(failure.get().is_none());
        write(&mut Full(ErrorKind::StorageFull), b"c", &failure);
        assert_eq!(failure.get().map(io::Error::kind), Some(ErrorKind::StorageFull));
    }
}
