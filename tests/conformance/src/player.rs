//! The application: makes the calls that the script wants, keeps what it is told, checks what it
//! receives, and spoils memory as soon as it is its own again, so that a late use of it shows.
use crate::rings::Context;
use crate::script;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::{Call, Condition, Cookie, Handle, Op, SocketAddress, Status};
use std::collections::HashMap;

/// Datagrams to this port only wake the application, so that it makes its calls.
pub const WAKE_PORT: u16 = 9;
/// The port that `listen` is for.
pub const PORT: u16 = 80;
const WAKE: Cookie = Cookie(0xfeed);
/// Bytes of the heap that one connection's stream goes round in.
const REGION: u64 = 1 << 20;
/// Tags of `sendv`s that `write` makes, by connection.
const WRITE_TAG: u64 = 1 << 32;
/// Most bytes of one of them.
const WRITE_BYTES: u64 = 100_000;

/// Who sends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The engine.
    Engine,
    /// The peer.
    Peer,
}

/// Byte `at` of what a side of connection `conn` sends.
pub fn stream(side: Side, conn: usize, at: u64) -> u8 {
    let seed = conn as u64 * 2 + u64::from(side == Side::Peer) + 1;
    let x = (at / 8).wrapping_add(seed << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((x ^ x >> 29) >> (at % 8 * 8)) as u8
}

/// A connection, as the application sees it.
#[derive(Clone, Debug, Default)]
struct Stream {
    conn: usize,
    /// Bytes given to the engine and taken by it.
    offered: u64,
    /// Bytes given in calls that have no result yet.
    asked: u64,
    /// Bytes whose memory came back.
    sent: u64,
    /// Bytes written into the heap so far.
    filled: u64,
    /// Bytes that `write` has yet to give.
    wanted: u64,
    /// The last `sendv` was cut short.
    refused: bool,
    received: u64,
}

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// Of the object.
    pub handle: Handle,
    /// Bytes, by operation.
    pub value: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Player {
    /// Returns received bytes at once.
    returns: bool,
    bound: bool,
    calls: Vec<(u64, usize, Handle, script::Call)>,
    /// Since the last look.
    pub events: Vec<Condition>,
    results: HashMap<u64, Outcome>,
    streams: HashMap<Handle, Stream>,
    listener: Handle,
    /// What was wrong with what it was told.
    pub broken: Vec<String>,
}

impl Player {
    /// One that has nothing to do.
    pub fn new(returns: bool) -> Player {
        Player { returns, ..Player::default() }
    }

    /// A call to make when the application is next entered.
    pub fn submit(&mut self, tag: u64, conn: usize, handle: Handle, call: script::Call) {
        self.calls.push((tag, conn, handle, call));
    }

    /// What the call with this tag came to, once.
    pub fn outcome(&mut self, tag: u64) -> Option<Outcome> {
        self.results.remove(&tag)
    }

    /// One entry.
    pub fn run(&mut self, context: &mut Context) {
        if !self.bound {
            self.bound = true;
            let at = SocketAddress { port: WAKE_PORT, ..SocketAddress::default() };
            context.call(Call::udp_bind(at, WAKE));
        }
        for event in context.events() {
            self.event(event, context);
        }
        for (tag, conn, handle, call) in std::mem::take(&mut self.calls) {
            self.call(tag, conn, handle, &call, context);
        }
    }

    fn call(
        &mut self,
        tag: u64,
        conn: usize,
        handle: Handle,
        call: &script::Call,
        context: &mut Context,
    ) {
        let cookie = Cookie(conn as u64 + 1);
        let record = match call {
            script::Call::Listen(backlog) => {
                Call::listen(SocketAddress { port: PORT, ..SocketAddress::default() }, *backlog)
            }
            script::Call::Unlisten => Call::new(Op::Unlisten, self.listener),
            script::Call::Accept => {
                self.streams.insert(handle, Stream { conn, ..Stream::default() });
                Call::accept(handle, cookie)
            }
            script::Call::Reject => Call::new(Op::Reject, handle),
            script::Call::Connect(remote) => Call::connect(cookie, *remote),
            script::Call::Sendv(bytes) => return self.sendv(tag, handle, *bytes, context),
            script::Call::Write(bytes) => {
                self.streams.entry(handle).or_default().wanted += bytes;
                let outcome = Outcome { status: Status::Ok, handle, value: 0 };
                self.results.insert(tag, outcome);
                return self.pump(handle, context);
            }
            script::Call::RecvDone(bytes) => Call::recv_done(handle, *bytes),
            script::Call::Close => Call::new(Op::Close, handle),
            script::Call::Shutdown => Call::new(Op::Shutdown, handle),
            script::Call::Abort => Call::new(Op::Abort, handle),
            script::Call::SetOption(of_listener, option, value) => {
                let object = if *of_listener { self.listener } else { handle };
                Call::set_option(object, *option, *value)
            }
        };
        context.call(record.with_result(tag));
    }

    fn sendv(&mut self, tag: u64, handle: Handle, bytes: u64, context: &mut Context) {
        let stream = self.streams.entry(handle).or_default();
        let base = HEAP_BASE + stream.conn as u64 % 8 * REGION;
        let from = stream.offered + stream.asked;
        assert!(from + bytes - stream.sent <= REGION, "more than the heap has room for");
        while stream.filled < from + bytes {
            let byte = self::stream(Side::Engine, stream.conn, stream.filled);
            context.fill(base + stream.filled % REGION, &[byte]);
            stream.filled += 1;
        }
        stream.asked += bytes;
        let first = bytes.min(REGION - from % REGION);
        let mut entries = vec![SgEntry { addr: base + from % REGION, len: first }];
        if first < bytes {
            entries.push(SgEntry { addr: base, len: bytes - first });
        }
        let call = Call::sendv(handle, 0, SgEntry::default(), SgEntry::default());
        context.call_sg(call.with_result(tag), &entries);
    }

    /// Goes on with a `write`.
    fn pump(&mut self, handle: Handle, context: &mut Context) {
        let Some(stream) = self.streams.get(&handle) else { return };
        let room = REGION - (stream.offered - stream.sent);
        let bytes = stream.wanted.min(WRITE_BYTES).min(room);
        if bytes > 0 && stream.asked == 0 && !stream.refused {
            self.sendv(WRITE_TAG, handle, bytes, context);
        }
    }

    fn event(&mut self, event: Condition, context: &mut Context) {
        if let (first, Some(second)) = event.split() {
            self.event(first, context);
            return self.event(second, context);
        }
        match event {
            Condition::UdpRecv { handle, cookie: WAKE, addr, .. } => {
                return context.call(Call::udp_recv_done(handle, addr));
            }
            Condition::GroupIn { .. } => return,
            Condition::Result { op, status, handle, tag, value } => {
                return self.result(op, tag, Outcome { status, handle, value }, context);
            }
            Condition::Connected { handle, cookie, outcome: Status::Ok, .. } => {
                let conn = cookie.0 as usize - 1;
                self.streams.insert(handle, Stream { conn, ..Stream::default() });
            }
            Condition::Recv { handle, addr, len, .. } => self.receive(handle, addr, len, context),
            Condition::Sent { handle, bytes, window, .. } => {
                self.sent(handle, bytes, context);
                if window > 0 {
                    self.streams.entry(handle).or_default().refused = false;
                    self.pump(handle, context);
                }
            }
            _ => {}
        }
        self.events.push(event);
    }

    fn result(&mut self, op: u16, tag: u64, outcome: Outcome, context: &mut Context) {
        if op == Op::Listen.0 && outcome.status == Status::Ok {
            self.listener = outcome.handle;
        }
        if op == Op::Sendv.0 {
            let stream = self.streams.entry(outcome.handle).or_default();
            stream.asked = 0;
            stream.offered += outcome.value;
            stream.refused |= outcome.status == Status::Again;
            if tag == WRITE_TAG {
                stream.wanted -= outcome.value;
                return self.pump(outcome.handle, context);
            }
        }
        if tag != 0 {
            self.results.insert(tag, outcome);
        } else if outcome.status != Status::Ok {
            self.broken.push(format!("a call of the application's own failed: {outcome:?}"));
        }
    }

    fn receive(&mut self, handle: Handle, addr: u64, len: u32, context: &mut Context) {
        let stream = self.streams.entry(handle).or_default();
        for (i, byte) in context.bytes(addr, u64::from(len)).iter().enumerate() {
            let at = stream.received + i as u64;
            if *byte != self::stream(Side::Peer, stream.conn, at) {
                self.broken.push(format!("byte {} of what was received is wrong", at + 1));
                break;
            }
        }
        stream.received += u64::from(len);
        if self.returns {
            context.call(Call::recv_done(handle, u64::from(len)));
        }
    }

    fn sent(&mut self, handle: Handle, bytes: u32, context: &mut Context) {
        let stream = self.streams.entry(handle).or_default();
        let base = HEAP_BASE + stream.conn as u64 % 8 * REGION;
        if stream.sent + u64::from(bytes) > stream.offered + stream.asked {
            self.broken.push("more is reported as sent than was given".to_owned());
        }
        for at in stream.sent..stream.sent + u64::from(bytes) {
            context.fill(base + at % REGION, &[0xee]);
        }
        stream.sent += u64::from(bytes);
    }
}
