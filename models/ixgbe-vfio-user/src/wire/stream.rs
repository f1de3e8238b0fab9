//! A Unix stream socket: each frame after its length, 32 bits, big-endian.
use super::{BUFFER_BYTES, Sent};
use crate::run;
use anyhow::Result;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

const HEAD_BYTES: usize = 4;
/// What may wait for a peer that does not read.
const QUEUE_BYTES_MAX: usize = 4 << 20;
/// A length beyond that is no length: the two sides speak differently.
const LENGTH_MAX: usize = BUFFER_BYTES - HEAD_BYTES;

/// One end of it.
pub struct Stream {
    listener: Option<UnixListener>,
    peer: Option<UnixStream>,
    /// Bytes that have come, from where to where they were not taken yet.
    input: Vec<u8>,
    taken: usize,
    filled: usize,
    /// Bytes to send, and how many of them were sent.
    output: Vec<u8>,
    sent: usize,
}

impl Stream {
    fn new(listener: Option<UnixListener>, peer: Option<UnixStream>) -> Stream {
        let input = vec![0; BUFFER_BYTES];
        Stream { listener, peer, input, taken: 0, filled: 0, output: Vec::new(), sent: 0 }
    }

    /// Where a peer listens.
    pub fn connect(path: &Path) -> Result<Stream> {
        let peer = UnixStream::connect(path)?;
        peer.set_nonblocking(true)?;
        Ok(Stream::new(None, Some(peer)))
    }

    /// Where a peer is to come.
    pub fn listen(path: &Path) -> Result<Stream> {
        let listener = run::listen(path)?;
        listener.set_nonblocking(true)?;
        Ok(Stream::new(Some(listener), None))
    }

    pub fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let listener = self.listener.as_ref().map(AsFd::as_fd);
        self.peer.as_ref().map(AsFd::as_fd).or(listener)
    }

    pub fn is_behind(&self) -> bool {
        self.peer.is_some() && self.sent < self.output.len()
    }

    /// Whether a frame, or what is none, has been read already.
    pub fn has_input(&self) -> bool {
        let have = &self.input[self.taken..self.filled];
        have.split_first_chunk::<HEAD_BYTES>().is_some_and(|(head, rest)| {
            let len = u32::from_be_bytes(*head) as usize;
            rest.len() >= len || len > LENGTH_MAX
        })
    }

    pub fn send(&mut self, frame: &[u8]) -> Sent {
        if self.peer.is_none() {
            return Sent::Nobody;
        }
        if self.output.len() - self.sent + frame.len() > QUEUE_BYTES_MAX {
            return Sent::Full;
        }
        self.output.extend((frame.len() as u32).to_be_bytes());
        self.output.extend(frame);
        Sent::Yes
    }

    pub fn flush(&mut self) {
        while let Some(peer) = &mut self.peer
            && self.sent < self.output.len()
        {
            match peer.write(&self.output[self.sent..]) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => self.lose(&e.to_string()),
            }
        }
        // What was sent is forgotten before it is more than what waits.
        if self.sent * 2 >= self.output.len() {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    pub fn receive(&mut self, to: &mut [u8]) -> Option<usize> {
        loop {
            let have = &self.input[self.taken..self.filled];
            if let Some((head, rest)) = have.split_first_chunk::<HEAD_BYTES>() {
                let len = u32::from_be_bytes(*head) as usize;
                if len > LENGTH_MAX {
                    self.lose(&format!("it announces a frame of {len} bytes"));
                    continue;
                }
                if let Some(frame) = rest.get(..len) {
                    to[..len].copy_from_slice(frame);
                    self.taken += HEAD_BYTES + len;
                    return Some(len);
                }
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads once; whether something has come.
    fn fill(&mut self) -> bool {
        if self.peer.is_none() {
            self.accept();
        }
        let Some(peer) = &mut self.peer else { return false };
        // A frame that has begun fits, with its head.
        self.input.copy_within(self.taken..self.filled, 0);
        self.filled -= std::mem::take(&mut self.taken);
        let read = peer.read(&mut self.input[self.filled..]);
        match read {
            // The usual end of a QEMU.
            Ok(0) if self.listener.is_some() => self.unplug(),
            Ok(0) => self.lose("it has closed the connection"),
            Ok(n) => {
                self.filled += n;
                return true;
            }
            Err(e) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&e.kind()) => {}
            Err(e) => self.lose(&e.to_string()),
        }
        false
    }

    fn accept(&mut self) {
        let Some(Ok((peer, _))) = self.listener.as_ref().map(UnixListener::accept) else { return };
        if peer.set_nonblocking(true).is_ok() {
            self.peer = Some(peer);
        }
    }

    /// The cable is pulled: another peer may come, if they come here.
    fn lose(&mut self, why: &str) {
        eprintln!("ixgbe-vfio-user: the wire's peer is given up: {why}");
        self.unplug();
    }

    fn unplug(&mut self) {
        self.peer = None;
        self.taken = 0;
        self.filled = 0;
        self.output.clear();
        self.sent = 0;
    }
}
