//! Small applications on the ABI's records.
use super::app::{App, Context};
use ix_abi::call::{Call, SgEntry};
use ix_abi::layout::HEAP_BASE;
use ix_abi::{Condition, Cookie, DeadReason, Handle, Op, SocketAddress, Status};
use std::collections::{HashMap, VecDeque};

/// Byte `at` of the test stream `seed`.
pub fn stream(seed: u64, at: u64) -> u8 {
    let x = (at / 8).wrapping_add(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ x >> 29) >> (at % 8 * 8)) as u8
}

#[derive(Default)]
struct EchoConn {
    /// Received and not accepted for sending.
    unsent: VecDeque<SgEntry>,
    /// A `sendv` is out whose result has not come.
    asked: bool,
    /// The last one was cut short: nothing before `sent` announces a window.
    refused: bool,
    eof: bool,
    closed: bool,
}

/// Sends back what it receives, from the receive buffers themselves; returns them when sent.
#[derive(Default)]
pub struct Echo {
    pub port: u16,
    started: bool,
    conns: HashMap<Handle, EchoConn>,
    pub accepted: u64,
    pub dead: Vec<DeadReason>,
    pub results: Vec<(u16, Status, u64)>,
    pub log: Vec<Condition>,
    pub keep_log: bool,
}

impl Echo {
    pub fn new(port: u16) -> Echo {
        Echo { port, ..Echo::default() }
    }

    /// Another core's instance has called `listen`.
    pub fn listens_already(&mut self) {
        self.started = true;
    }

    pub fn open(&self) -> usize {
        self.conns.len()
    }

    fn pump(handle: Handle, conn: &mut EchoConn, context: &mut Context) {
        if conn.refused || conn.asked || conn.closed {
            return;
        }
        if !conn.unsent.is_empty() {
            let entries: Vec<SgEntry> = conn.unsent.iter().take(64).copied().collect();
            let bytes: u64 = entries.iter().map(|entry| entry.len).sum();
            let call = Call::sendv(handle, 0, SgEntry::default(), SgEntry::default());
            // The entries stay until the result says how much was taken.
            context.call_sg(call.with_result(bytes), &entries);
            conn.asked = true;
        }
        if conn.unsent.is_empty() && conn.eof && !conn.closed {
            conn.closed = true;
            context.call(Call::new(Op::Close, handle));
        }
    }

    fn taken(conn: &mut EchoConn, mut bytes: u64) {
        while bytes > 0 {
            let front = conn.unsent.front_mut().expect("accepted more than was given");
            let n = front.len.min(bytes);
            front.addr += n;
            front.len -= n;
            bytes -= n;
            if front.len == 0 {
                conn.unsent.pop_front();
            }
        }
    }
}

impl App for Echo {
    fn run(&mut self, context: &mut Context) {
        if !self.started {
            self.started = true;
            let local = SocketAddress { port: self.port, ..SocketAddress::default() };
            context.call(Call::listen(local, 256).with_result(1));
        }
        for event in context.events() {
            if self.keep_log {
                self.log.push(event);
            }
            match event {
                Condition::Knock { handle, .. } => {
                    self.accepted += 1;
                    self.conns.insert(handle, EchoConn::default());
                    context.call(Call::accept(handle, Cookie(handle.0 ^ 0x55)));
                }
                Condition::Recv { handle, addr, len, cookie } => {
                    assert_eq!(cookie.0, handle.0 ^ 0x55);
                    let conn = self.conns.get_mut(&handle).expect("recv without accept");
                    assert!(!conn.eof, "recv after eof");
                    conn.unsent.push_back(SgEntry { addr, len: u64::from(len) });
                    Self::pump(handle, conn, context);
                }
                Condition::Sent { handle, bytes, window, .. } => {
                    if bytes > 0 && self.conns.get(&handle).is_some_and(|conn| !conn.closed) {
                        context.call(Call::recv_done(handle, u64::from(bytes)));
                    }
                    if let Some(conn) = self.conns.get_mut(&handle).filter(|_| window > 0) {
                        conn.refused = false;
                        Self::pump(handle, conn, context);
                    }
                }
                Condition::Result { op, status, handle, value, tag } if op == Op::Sendv.0 => {
                    let Some(conn) = self.conns.get_mut(&handle) else { continue };
                    conn.asked = false;
                    match status {
                        Status::Ok => {
                            assert_eq!(value, tag);
                            Self::taken(conn, value);
                            Self::pump(handle, conn, context);
                        }
                        // The rest when `sent` announces a window.
                        Status::Again => {
                            Self::taken(conn, value);
                            conn.refused = true;
                        }
                        _ => self.results.push((op, status, value)),
                    }
                }
                Condition::Result { op, status, value, .. } => {
                    self.results.push((op, status, value));
                }
                Condition::Eof { handle, .. } => {
                    let conn = self.conns.get_mut(&handle).expect("eof without accept");
                    conn.eof = true;
                    Self::pump(handle, conn, context);
                }
                Condition::Dead { handle, reason, .. } => {
                    let conn = self.conns.remove(&handle).expect("dead twice");
                    self.dead.push(reason);
                    if !conn.closed {
                        context.call(Call::new(Op::Close, handle));
                    }
                }
                _ => {}
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// Connects, sends a stream from its heap, checks that it comes back, closes.
pub struct Client {
    pub remote: SocketAddress,
    pub seed: u64,
    pub bytes: u64,
    /// Bytes given to one `sendv`.
    pub chunk: u64,
    /// Size of the heap ring that the stream goes through.
    pub ring: u64,
    pub start: bool,
    pub handle: Option<Handle>,
    pub connected: Option<Status>,
    pub offered: u64,
    pub sent: u64,
    pub received: u64,
    pub eof: bool,
    pub dead: Option<DeadReason>,
    pub results: Vec<(u16, Status, u64)>,
    asked: bool,
    refused: bool,
    shut: bool,
    filled: u64,
    closed: bool,
}

impl Client {
    pub fn new(remote: SocketAddress, seed: u64, bytes: u64) -> Client {
        Client {
            remote,
            seed,
            bytes,
            chunk: 10_000,
            ring: 1 << 20,
            start: true,
            handle: None,
            connected: None,
            offered: 0,
            sent: 0,
            received: 0,
            eof: false,
            dead: None,
            results: Vec::new(),
            asked: false,
            refused: false,
            shut: false,
            filled: 0,
            closed: false,
        }
    }

    pub fn done(&self) -> bool {
        self.dead.is_some()
    }

    fn pump(&mut self, context: &mut Context) {
        let Some(handle) = self.handle.filter(|_| !self.closed) else { return };
        if self.asked || self.refused {
            return;
        }
        let len =
            (self.bytes - self.offered).min(self.chunk).min(self.ring - (self.offered - self.sent));
        // Not past the end of the ring: that would not be contiguous.
        let at = self.offered % self.ring;
        let len = len.min(self.ring - at);
        if len > 0 {
            while self.filled < self.offered + len {
                let byte = stream(self.seed, self.filled);
                context.fill(HEAP_BASE + self.filled % self.ring, &[byte]);
                self.filled += 1;
            }
            let first = len / 3;
            let entries = [
                SgEntry { addr: HEAP_BASE + at, len: first },
                SgEntry { addr: HEAP_BASE + at + first, len: len - first },
            ];
            let call = Call::sendv(handle, 0, SgEntry::default(), SgEntry::default());
            context.call_sg(call.with_result(len), &entries);
            self.asked = true;
        } else if self.offered == self.bytes && !self.shut {
            self.shut = true;
            context.call(Call::new(Op::Shutdown, handle));
        }
    }
}

impl App for Client {
    fn run(&mut self, context: &mut Context) {
        if self.start {
            self.start = false;
            context.call(Call::connect(Cookie(77), self.remote).with_result(7));
        }
        for event in context.events() {
            match event {
                Condition::Connected { handle, outcome, .. } => {
                    self.connected = Some(outcome);
                    if outcome == Status::Ok {
                        self.handle = Some(handle);
                    }
                    self.pump(context);
                }
                Condition::Result { op, status, value, .. } if op == Op::Sendv.0 => {
                    assert!(
                        matches!(status, Status::Ok | Status::Again | Status::State),
                        "{status:?}"
                    );
                    self.offered += value;
                    self.asked = false;
                    self.refused = status != Status::Ok;
                    self.pump(context);
                }
                Condition::Result { op, status, value, .. } => {
                    self.results.push((op, status, value));
                }
                Condition::Sent { bytes, window, .. } => {
                    // The memory is ours again: spoil it, so that a late use of it shows.
                    for at in self.sent..self.sent + u64::from(bytes) {
                        context.fill(HEAP_BASE + at % self.ring, &[0xee]);
                    }
                    self.sent += u64::from(bytes);
                    if window > 0 {
                        self.refused = false;
                    }
                    self.pump(context);
                }
                Condition::Recv { handle, addr, len, .. } => {
                    for (i, byte) in context.bytes(addr, u64::from(len)).iter().enumerate() {
                        let at = self.received + i as u64;
                        assert_eq!(*byte, stream(self.seed, at), "byte {at} of the stream");
                    }
                    self.received += u64::from(len);
                    context.call(Call::recv_done(handle, u64::from(len)));
                }
                Condition::Eof { handle, .. } => {
                    self.eof = true;
                    self.closed = true;
                    context.call(Call::new(Op::Close, handle));
                }
                Condition::Dead { handle, reason, .. } => {
                    self.dead = Some(reason);
                    if !self.closed {
                        self.closed = true;
                        context.call(Call::new(Op::Close, handle));
                    }
                }
                _ => {}
            }
        }
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}
