//! What rustix leaves out without its `std` feature: paths as arguments, errors as `io::Error`.
//!
//! That feature would turn on `std` in a crate that the kernel uses too (docs/testing.md).
use rustix::io::Errno;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A path as rustix takes it.
pub(crate) fn arg(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A system call's error as the standard library's.
pub(crate) fn error(errno: Errno) -> std::io::Error {
    std::io::Error::from_raw_os_error(errno.raw_os_error())
}
