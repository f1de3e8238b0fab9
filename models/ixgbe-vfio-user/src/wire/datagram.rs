//! A Unix datagram socket: a frame each.
use super::Sent;
use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

/// Our end and where the other one is.
pub struct Datagram {
    socket: UnixDatagram,
    peer: PathBuf,
}

impl Datagram {
    /// The peer need not be there yet.
    pub fn bind(ours: &Path, theirs: &Path) -> Result<Datagram> {
        let cannot = || format!("cannot make the socket {}", ours.display());
        let socket = UnixDatagram::bind(ours).with_context(cannot)?;
        socket.set_nonblocking(true)?;
        Ok(Datagram { socket, peer: theirs.to_owned() })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn send(&mut self, frame: &[u8]) -> Sent {
        match self.socket.send_to(frame, &self.peer) {
            Ok(_) => Sent::Yes,
            Err(e) if e.kind() == ErrorKind::WouldBlock => Sent::Full,
            Err(_) => Sent::Nobody,
        }
    }

    pub fn receive(&mut self, to: &mut [u8]) -> Option<usize> {
        self.socket.recv(to).ok()
    }
}
