//! One machine's end of QEMU's `-netdev stream`: each frame is preceded by its length in four bytes, big-endian.
//! Read and written in large pieces. Nothing that comes is trusted.
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

/// Longest frame that is believed.
const FRAME_BYTES_MAX: usize = 65_535;
/// Bytes asked for at a time.
const READ_BYTES: usize = 256 * 1024;
/// Bytes that may wait for a machine that does not take them; frames beyond are dropped.
const BACKLOG_BYTES: usize = 32 << 20;
/// Bytes written at a time.
const WRITE_BYTES: usize = 256 * 1024;

/// A machine's socket and what waits on both sides of it.
#[derive(Debug)]
pub struct Port {
    stream: UnixStream,
    incoming: Vec<u8>,
    /// How much of `incoming` is filled.
    filled: usize,
    outgoing: Vec<u8>,
    /// How much of `outgoing` is written.
    written: usize,
    ended: bool,
}

impl Port {
    /// Over a connected socket.
    pub fn new(stream: UnixStream) -> Port {
        stream.set_nonblocking(true).expect("a mode");
        let incoming = vec![0; READ_BYTES + FRAME_BYTES_MAX + 4];
        Port { stream, incoming, filled: 0, outgoing: Vec::new(), written: 0, ended: false }
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether the machine has hung up, or sends what cannot be.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Bytes that wait to be written.
    pub fn backlog(&self) -> usize {
        self.outgoing.len() - self.written
    }

    /// Takes what has come, once: others get their turn however fast this machine is.
    pub fn read(&mut self, mut each: impl FnMut(&[u8])) {
        if self.ended {
            return;
        }
        match self.stream.read(&mut self.incoming[self.filled..]) {
            Ok(0) => self.ended = true,
            Ok(n) => self.filled += n,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => return,
            Err(_) => self.ended = true,
        }
        let mut at = 0;
        while let Some((head, rest)) = self.incoming[at..self.filled].split_first_chunk::<4>() {
            let len = u32::from_be_bytes(*head) as usize;
            if len > FRAME_BYTES_MAX {
                self.ended = true;
                return;
            }
            let Some(frame) = rest.get(..len) else { break };
            each(frame);
            at += 4 + len;
        }
        self.incoming.copy_within(at..self.filled, 0);
        self.filled -= at;
    }

    /// Queues a frame for the machine; `false` if there is no room.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if self.ended || self.backlog() + 4 + frame.len() > BACKLOG_BYTES {
            return self.ended;
        }
        self.outgoing.extend_from_slice(&(frame.len() as u32).to_be_bytes());
        self.outgoing.extend_from_slice(frame);
        true
    }

    /// Writes what the socket takes.
    pub fn write(&mut self) {
        while self.backlog() > 0 && !self.ended {
            let end = self.outgoing.len().min(self.written + WRITE_BYTES);
            match self.stream.write(&self.outgoing[self.written..end]) {
                Ok(n) => self.written += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.ended = true,
            }
        }
        // Moved together rarely, so that a byte is not moved often.
        if self.written == self.outgoing.len() || self.written > BACKLOG_BYTES / 4 {
            self.outgoing.drain(..self.written);
            self.written = 0;
        }
    }
}
