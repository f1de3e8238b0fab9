//! A TAP interface of this machine.
#![allow(unsafe_code, reason = "choosing the interface is an ioctl that takes a pointer")]

use super::Sent;
use anyhow::{Context, Result};
use nix::libc::{IFF_NO_PI, IFF_TAP, IFNAMSIZ, c_short};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Linux's `struct ifreq`, as far as this call reads it.
#[repr(C)]
struct Request {
    name: [u8; IFNAMSIZ],
    flags: c_short,
    rest: [u8; 22],
}

nix::ioctl_write_ptr_bad!(
    set_interface,
    nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
    Request
);

/// The interface.
pub struct Tap(File);

impl Tap {
    /// One that exists, and that this user may have.
    pub fn open(name: &str) -> Result<Tap> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(nix::libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").context("cannot open /dev/net/tun")?;
        let mut request = Request { name: [0; IFNAMSIZ], flags: 0, rest: [0; 22] };
        request.flags = (IFF_TAP | IFF_NO_PI) as c_short;
        let bytes = name.as_bytes();
        request.name[..bytes.len()].copy_from_slice(bytes);
        // SAFETY: the structure has the layout and at least the size that the kernel reads and writes (40 bytes), and
        // its name ends with a zero: names are shorter than `IFNAMSIZ` (see `Place`).
        unsafe { set_interface(file.as_raw_fd(), &raw const request) }
            .with_context(|| format!("cannot have the TAP interface {name}"))?;
        Ok(Tap(file))
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn send(&mut self, frame: &[u8]) -> Sent {
        match self.0.write(frame) {
            Ok(_) => Sent::Yes,
            Err(e) if e.kind() == ErrorKind::WouldBlock => Sent::Full,
            Err(_) => Sent::Nobody,
        }
    }

    pub fn receive(&mut self, to: &mut [u8]) -> Option<usize> {
        self.0.read(to).ok()
    }
}
