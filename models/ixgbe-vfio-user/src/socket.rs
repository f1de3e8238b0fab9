//! The client's socket: whole messages, with the descriptors of files that come beside them.
#![allow(unsafe_code, reason = "descriptors arrive as numbers, which someone has to own")]

use crate::message::{FDS_MAX, HEADER_BYTES, Header};
use anyhow::{Context, Result, bail, ensure};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A client that stops in the middle of a message, or does not take an answer, for that long is given up.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client's request.
#[derive(Debug)]
pub struct Request {
    /// Its header.
    pub header: Header,
    /// What follows it.
    pub body: Vec<u8>,
    /// The files that came with it.
    pub fds: Vec<OwnedFd>,
}

/// A connected client.
#[derive(Debug)]
pub struct Socket {
    stream: UnixStream,
    /// Bodies are read into it, so that nothing is allocated for each.
    spare: Vec<u8>,
}

impl Socket {
    /// Takes an accepted connection.
    ///
    /// # Errors
    /// What setting its time limits says.
    pub fn new(stream: UnixStream) -> Result<Socket> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Socket { stream, spare: Vec::new() })
    }

    /// For waiting.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The next request; `None`: the client has left. Waits for the rest of one that has begun.
    ///
    /// # Errors
    /// What is no message of the protocol: there is no way to find the next one.
    pub fn receive(&mut self) -> Result<Option<Request>> {
        let mut head = [0; HEADER_BYTES];
        let mut fds = Vec::new();
        let mut have = 0;
        while have < HEADER_BYTES {
            match self.some(&mut head[have..], &mut fds)? {
                0 if have == 0 => return Ok(None),
                0 => bail!("the client left in the middle of a message"),
                n => have += n,
            }
        }
        let header = Header::parse(&head).map_err(anyhow::Error::msg)?;
        ensure!(fds.len() <= FDS_MAX, "message {} comes with {} files", header.id, fds.len());
        let mut body = std::mem::take(&mut self.spare);
        body.clear();
        body.resize(header.size as usize - HEADER_BYTES, 0);
        self.stream
            .read_exact(&mut body)
            .context("the client stopped in the middle of a message")?;
        Ok(Some(Request { header, body, fds }))
    }

    /// Gives a request's memory back, for the next one.
    pub fn done(&mut self, request: Request) {
        self.spare = request.body;
    }

    /// Sends an answer.
    ///
    /// # Errors
    /// The client is gone, or does not take it.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("the client does not take an answer")
    }

    /// Some bytes of a header. The files of a message come with its first byte.
    fn some(&self, to: &mut [u8], fds: &mut Vec<OwnedFd>) -> Result<usize> {
        let mut space = cmsg_space!([RawFd; FDS_MAX]);
        let mut parts = [IoSliceMut::new(to)];
        let fd = self.stream.as_raw_fd();
        let received = loop {
            match recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
                Err(Errno::EINTR) => {}
                other => break other,
            }
        };
        let received = match received {
            // One that ends while something is on its way to it.
            Err(Errno::ECONNRESET) => return Ok(0),
            other => other.context("the client stopped in the middle of a message")?,
        };
        // First what has arrived is owned, then complained about.
        for message in received.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = message {
                // SAFETY: the kernel has just made these descriptors for this process; nobody else knows of them.
                fds.extend(numbers.into_iter().map(|n| unsafe { OwnedFd::from_raw_fd(n) }));
            }
        }
        let truncated = received.flags.contains(MsgFlags::MSG_CTRUNC);
        ensure!(
            !truncated,
            "the client sends more files with a message than the {FDS_MAX} agreed to"
        );
        Ok(received.bytes)
    }
}
