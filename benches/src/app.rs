//! Applications that do next to nothing, straight on the rings.
use crate::memory;
use crate::rings::{Calls, Events};
use ix_abi::call::{Call, Op, SENDV_INLINE_SG, SgEntry};
use ix_abi::event::{Event, Kind};
use ix_abi::layout::CALL_SLOTS;
use ix_abi::{Cookie, Handle, SocketAddress, Status};
use ix_dataplane::usermem::UserMap;

/// The port that they listen on.
pub const PORT: u16 = 7;
/// Handshakes under way and connections that wait for `accept`, at most, unless told otherwise.
pub const BACKLOG: u32 = 65_536;

/// What happens on events.
pub trait App: std::fmt::Debug {
    /// Once, before the first event: memory of its own.
    fn start(&mut self, _memory: &UserMap) {}

    /// One event; what is to be done goes into `calls`.
    fn event(&mut self, event: &Event, calls: &mut Calls);
}

/// Runs an application over all events there are.
#[inline]
pub fn enter<A: App>(app: &mut A, events: &mut Events, calls: &mut Calls) {
    let mut next = calls.read();
    while next != events.produced() {
        app.event(events.at(next), calls);
        next = next.wrapping_add(1);
    }
    calls.has_read(next);
}

/// What all servers do: listen, accept, close after their peers, see that nothing fails.
#[derive(Debug)]
pub struct Server {
    /// It has asked to.
    pub listening: bool,
    /// What it asks for: see [`BACKLOG`].
    pub backlog: u32,
    /// Silence after which peers are asked whether they live; 0: never.
    pub keep_alive_us: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that ended.
    pub dead: u64,
}

impl Default for Server {
    fn default() -> Server {
        Server { listening: false, backlog: BACKLOG, keep_alive_us: 0, accepted: 0, dead: 0 }
    }
}

impl Server {
    #[inline(never)]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        let handle = Handle(event.handle);
        match Kind(event.kind) {
            Kind::Knock => {
                self.accepted += 1;
                calls.push(Call::accept(handle, Cookie(event.handle)));
            }
            Kind::Eof => calls.push(Call::new(Op::Close, handle)),
            Kind::Dead => self.dead += 1,
            Kind::GroupIn if !self.listening => {
                self.listening = true;
                let local = SocketAddress { port: PORT, ..SocketAddress::default() };
                calls.push(Call::listen(local, self.backlog).with_result(0));
            }
            Kind::Result => self.result(event, calls),
            _ => {}
        }
    }

    fn result(&mut self, event: &Event, calls: &mut Calls) {
        assert_eq!(Status(event.aux), Status::Ok, "a call failed: {event:?}");
        if event.len == u32::from(Op::Listen.0) && self.keep_alive_us > 0 {
            calls.push(keep_alive(Handle(event.handle), self.keep_alive_us));
        }
    }
}

/// `set_option` of a listener: keep-alive for all its connections.
fn keep_alive(listener: Handle, us: u64) -> Call {
    const SET_OPTION: Op = Op(17);
    const KEEP_ALIVE: u64 = 1;
    let mut call = Call::new(SET_OPTION, listener);
    call.words = [KEEP_ALIVE, us, 0, 0, 0];
    call
}

/// Echoes out of the receive buffer, and gives it back: the engine has a reference of its own.
#[derive(Debug, Default)]
pub struct Echo(pub Server);

impl App for Echo {
    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        // Nearly all are of one kind.
        if event.kind == Kind::RecvSent.0 {
            answer(event, calls);
        } else {
            self.other(event, calls);
        }
    }
}

impl Echo {
    #[inline(never)]
    fn other(&mut self, event: &Event, calls: &mut Calls) {
        match Kind(event.kind) {
            Kind::Recv => answer(event, calls),
            Kind::Sent => {}
            _ => self.0.event(event, calls),
        }
    }
}

/// Sends back what was received, from where that is.
#[inline(always)]
fn answer(event: &Event, calls: &mut Calls) {
    let len = u64::from(event.len);
    let entry = SgEntry { addr: event.words[0], len };
    calls.push_sendv(Handle(event.handle), entry, len);
}

/// Answers out of its own memory, in pieces that follow one another there with gaps between them: as a store of items does.
#[derive(Debug)]
pub struct Store {
    server: Server,
    /// How many.
    pieces: usize,
}

/// From one piece to the next.
const PIECE_EVERY: u64 = 4096;

impl Store {
    /// Whose answers are in so many pieces.
    pub fn new(pieces: usize) -> Store {
        Store { server: Server::default(), pieces }
    }

    /// The pieces of an answer of `len` bytes.
    fn answer(&self, handle: Handle, len: u64, calls: &mut Calls) {
        let each = len / self.pieces as u64;
        let entry = |i: usize| match i {
            0 => SgEntry { addr: memory::HEAP, len: len - each * (self.pieces as u64 - 1) },
            i if i < self.pieces => {
                SgEntry { addr: memory::HEAP + PIECE_EVERY * i as u64, len: each }
            }
            _ => SgEntry::default(),
        };
        let call = Call::sendv(handle, self.pieces as u16, entry(0), entry(1));
        calls.push(call.with_recv_done(len));
        for from in (SENDV_INLINE_SG..self.pieces).step_by(4) {
            calls.push_sg([entry(from), entry(from + 1), entry(from + 2), entry(from + 3)]);
        }
    }
}

impl App for Store {
    fn start(&mut self, memory: &UserMap) {
        memory::map_heap(memory);
    }

    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        match Kind(event.kind) {
            Kind::Recv | Kind::RecvSent => {
                self.answer(Handle(event.handle), u64::from(event.len), calls);
            }
            Kind::Sent => {}
            _ => self.server.event(event, calls),
        }
    }
}

/// Takes what comes and gives its memory back.
#[derive(Debug, Default)]
pub struct Sink {
    server: Server,
    /// Bytes that came.
    pub received: u64,
}

impl App for Sink {
    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        match Kind(event.kind) {
            Kind::Recv | Kind::RecvSent => {
                let len = u64::from(event.len);
                self.received += len;
                calls.push(Call::recv_done(Handle(event.handle), len));
            }
            _ => self.server.event(event, calls),
        }
    }
}

/// Sends from its memory whatever the window takes, from the first byte that it receives on.
#[derive(Debug, Default)]
pub struct Source {
    server: Server,
    at: u64,
}

impl Source {
    /// The next `window` bytes of its memory, which is sent over and over.
    #[inline]
    fn send(&mut self, handle: Handle, window: u64, calls: &mut Calls) {
        const HALF: u64 = memory::HEAP_BYTES / 2;
        if window > 0 {
            let len = window.min(HALF);
            let addr = memory::HEAP + self.at;
            self.at = (self.at + len) % HALF;
            calls.push(Call::sendv(handle, 1, SgEntry { addr, len }, SgEntry::default()));
        }
    }
}

impl App for Source {
    fn start(&mut self, memory: &UserMap) {
        memory::map_heap(memory);
    }

    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        let handle = Handle(event.handle);
        match Kind(event.kind) {
            Kind::Sent => self.send(handle, event.words[0], calls),
            Kind::Recv => {
                calls.push(Call::recv_done(handle, u64::from(event.len)));
                self.send(handle, 1, calls);
            }
            _ => self.server.event(event, calls),
        }
    }
}

/// Keeps timers running: each is set again when it fires.
#[derive(Debug, Default)]
pub struct Timers {
    /// How many.
    pub timers: u64,
    /// After how long each fires.
    pub every_us: u64,
    /// How often one has fired.
    pub fired: u64,
    /// How many were set.
    pub set: u64,
}

impl Timers {
    /// Sets one more, if that is not the last, at its time within the period.
    fn set_next(&mut self, calls: &mut Calls) {
        if self.set < self.timers {
            let first_us = self.every_us * (self.set + 1) / self.timers;
            calls.push(Call::timer_set(Cookie(self.set), first_us));
            self.set += 1;
        }
    }
}

impl App for Timers {
    #[inline]
    fn event(&mut self, event: &Event, calls: &mut Calls) {
        match Kind(event.kind) {
            Kind::Timer => {
                self.fired += 1;
                calls.push(Call::timer_set(Cookie(event.cookie), self.every_us));
                self.set_next(calls);
            }
            // As many at first as the ring has room for with ease; then one with each that fires.
            Kind::GroupIn if self.set == 0 => {
                (0..u64::from(CALL_SLOTS / 2)).for_each(|_| self.set_next(calls));
            }
            Kind::Result => assert_eq!(Status(event.aux), Status::Ok, "a call failed: {event:?}"),
            _ => {}
        }
    }
}
