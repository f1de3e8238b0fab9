//! The terminal's size. No safe function of the crates at hand asks for it.
#![allow(unsafe_code, reason = "asks the terminal by ioctl")]

use nix::libc;
use nix::pty::Winsize;
use std::os::fd::{AsRawFd, BorrowedFd};

nix::ioctl_read_bad!(size_of_window, libc::TIOCGWINSZ, Winsize);

/// Lines and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// From the top down.
    pub rows: usize,
    /// Characters of a line.
    pub columns: usize,
}

/// That of the terminal behind this file, if it is one and knows.
pub fn size(of: BorrowedFd<'_>) -> Option<Size> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the file is open as long as it is borrowed, and TIOCGWINSZ writes one `Winsize`, which this is.
    let asked = unsafe { size_of_window(of.as_raw_fd(), &raw mut size) };
    let known = asked.is_ok() && size.ws_row > 0 && size.ws_col > 0;
    known.then(|| Size { rows: size.ws_row.into(), columns: size.ws_col.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use std::os::fd::AsFd;

    #[test]
    fn a_terminal_tells_its_size_and_a_file_has_none() {
        let of = |ws_row, ws_col| {
            let size = Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 };
            let pty = openpty(&size, None).unwrap();
            super::size(pty.slave.as_fd())
        };
        assert_eq!(of(30, 100), Some(Size { rows: 30, columns: 100 }));
        assert_eq!(of(0, 0), None);
        assert_eq!(size(std::fs::File::open("/dev/null").unwrap().as_fd()), None);
    }
}
