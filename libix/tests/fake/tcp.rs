//! One connection of the kernel in memory.

use ix_abi::call::{Request, SgEntry};
use ix_abi::{Condition, Cookie, Handle, Status, TcpOption};
use std::collections::VecDeque;

/// What the kernel knows of a connection.
pub struct Tcp {
    handle: Handle,
    /// Accepted or opened: the program may call.
    accepted: bool,
    /// `close` or `abort` was called.
    pub closed: bool,
    pub aborted: bool,
    pub shut: bool,
    dead: bool,
    /// Received pieces that the program holds, and how much of the first it has given back.
    held: VecDeque<Box<[u8]>>,
    front_returned: u64,
    /// Bytes that the program holds.
    pub outstanding: u64,
    /// What the peer will take.
    pub window: u64,
    /// Accepted memory that is not acknowledged, with what was in it then.
    in_flight: VecDeque<(SgEntry, Vec<u8>)>,
    /// All bytes accepted, and how many of them are acknowledged.
    pub stream: Vec<u8>,
    pub acked: u64,
    refused_in_batch: u64,
    /// Calls of `sendv`, and those that were refused in part.
    pub sendvs: u64,
    pub partial: u64,
}

impl Tcp {
    pub fn new(handle: Handle, accepted: bool) -> Tcp {
        Tcp {
            handle,
            accepted,
            closed: false,
            aborted: false,
            shut: false,
            dead: false,
            held: VecDeque::new(),
            front_returned: 0,
            outstanding: 0,
            window: 1 << 20,
            in_flight: VecDeque::new(),
            stream: Vec::new(),
            acked: 0,
            refused_in_batch: 0,
            sendvs: 0,
            partial: 0,
        }
    }

    pub fn is_gone(&self) -> bool {
        self.dead && self.closed
    }

    /// Bytes accepted and not acknowledged.
    pub fn unacked(&self) -> u64 {
        self.stream.len() as u64 - self.acked
    }

    pub fn execute(
        &mut self,
        request: Request,
        sg: &[SgEntry],
        batch: u64,
        pending: &mut VecDeque<Condition>,
    ) -> (Status, u64) {
        match request {
            Request::Accept { .. } if !self.accepted => self.accepted = true,
            Request::Reject { .. } if !self.accepted => (self.dead, self.closed) = (true, true),
            _ if !self.accepted || self.closed => return (Status::State, 0),
            Request::Sendv { .. } if self.dead || self.shut => return (Status::State, 0),
            Request::Sendv { done, .. } if done > self.outstanding => return (Status::Invalid, 0),
            Request::Sendv { done, .. } => {
                let outcome = self.sendv(sg, batch);
                assert_eq!(self.recv_done(done), Status::Ok);
                return outcome;
            }
            Request::RecvDone { bytes, .. } => return (self.recv_done(bytes), 0),
            Request::Shutdown { .. } => self.shut = true,
            Request::Close { .. } | Request::Abort { .. } => {
                self.closed = true;
                self.aborted = matches!(request, Request::Abort { .. });
                assert_eq!(self.recv_done(self.outstanding), Status::Ok);
                if self.aborted && !self.dead {
                    self.dead = true;
                    let (handle, cookie) = (self.handle, Cookie(0));
                    let reason = ix_abi::DeadReason::Aborted;
                    pending.push_back(Condition::Dead { handle, cookie, reason });
                }
            }
            // A kernel that has not got all of them.
            Request::SetOption { option: TcpOption::Congestion, value: 3, .. } => {
                return (Status::Unsupported, 0);
            }
            Request::SetOption { .. } => {}
            other => panic!("not a connection's call: {other:?}"),
        }
        (Status::Ok, 0)
    }

    fn sendv(&mut self, sg: &[SgEntry], batch: u64) -> (Status, u64) {
        self.sendvs += 1;
        let asked: u64 = sg.iter().map(|entry| entry.len).sum();
        let mut room = if self.refused_in_batch == batch { 0 } else { self.window };
        let mut accepted = 0;
        for entry in sg {
            assert!(entry.len > 0, "an empty entry is a waste of a slot");
            let len = entry.len.min(room);
            if len > 0 {
                let entry = SgEntry { addr: entry.addr, len };
                let bytes = read(entry);
                self.stream.extend_from_slice(&bytes);
                self.in_flight.push_back((entry, bytes));
            }
            (room, accepted) = (room - len, accepted + len);
        }
        self.window -= accepted;
        if accepted < asked {
            self.refused_in_batch = batch;
            self.partial += 1;
            return (Status::Again, accepted);
        }
        (Status::Ok, accepted)
    }

    /// Returns the oldest bytes; whole pieces are overwritten, for who looks at them too late.
    fn recv_done(&mut self, bytes: u64) -> Status {
        if bytes > self.outstanding {
            return Status::Invalid;
        }
        self.outstanding -= bytes;
        self.front_returned += bytes;
        while let Some(front) = self.held.front()
            && self.front_returned >= front.len() as u64
        {
            self.front_returned -= front.len() as u64;
            let Some(mut piece) = self.held.pop_front() else { break };
            let start = piece.as_ptr() as u64;
            let end = start + piece.len() as u64;
            // The kernel has references of its own to what it still sends.
            let sending = |(entry, _): &(SgEntry, Vec<u8>)| entry.addr < end && entry.addr >= start;
            if !self.in_flight.iter().any(sending) {
                piece.fill(0xdd);
            }
            Box::leak(piece);
        }
        Status::Ok
    }

    pub fn deliver(&mut self, bytes: &[u8]) -> Condition {
        let piece: Box<[u8]> = bytes.into();
        let addr = piece.as_ptr().expose_provenance() as u64;
        self.held.push_back(piece);
        self.outstanding += bytes.len() as u64;
        Condition::Recv { handle: self.handle, cookie: Cookie(0), addr, len: bytes.len() as u32 }
    }

    pub fn ack(&mut self, bytes: u64, window: u64) -> Condition {
        assert!(bytes <= self.unacked());
        let mut left = bytes;
        while left > 0
            && let Some((entry, then)) = self.in_flight.front_mut()
        {
            assert_eq!(read(*entry), *then, "memory was changed before it was reported as sent");
            let n = left.min(entry.len);
            entry.addr += n;
            entry.len -= n;
            then.drain(..n as usize);
            left -= n;
            if entry.len == 0 {
                self.in_flight.pop_front();
            }
        }
        self.acked += bytes;
        self.window = window;
        let (bytes, window) = (bytes as u32, window as u32);
        Condition::Sent { handle: self.handle, cookie: Cookie(0), bytes, window }
    }

    /// Returns whether the handle goes with it.
    pub fn die(&mut self) -> bool {
        self.dead = true;
        self.closed
    }
}

fn read(entry: SgEntry) -> Vec<u8> {
    let start: *const u8 = std::ptr::with_exposed_provenance(entry.addr as usize);
    // SAFETY: a program under test names memory that it owns; that it still does is what is tested,
    // and what it has freed is caught by comparing, or by valgrind.
    unsafe { std::slice::from_raw_parts(start, entry.len as usize) }.to_vec()
}
