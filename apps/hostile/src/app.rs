//! The decent part of the hostile application: echo over TCP and UDP, orders by datagram. Each of its
//! contexts has a timer, so that it looks at what others want of it.

use core::sync::atomic::Ordering::{Acquire, Release};

use hostile::{BEGUN, BROKEN, ECHO_PORT, ORDER_PORT, REFUSED};
use ix_abi::call::{Call, Direct, Op, SgEntry};
use ix_abi::event::{Condition, Event};
use ix_abi::{Cookie, Handle, SocketAddress, Status};

use crate::misdeeds;
use crate::raw::{self, Rings, SHARED};

/// What a misdeed found: how the kernel broke its word, if it did.
pub type Verdict = Result<(), &'static str>;

/// What another context is asked to do to this one.
pub const DUTY_REWRITE_SLOTS: u64 = 1;
pub const DUTY_REWRITE_HEADER: u64 = 2;
pub const DUTY_REWRITE_MEMORY: u64 = 3;

const TICK_US: u64 = 10_000;
const ECHO: Cookie = Cookie(1);
const ORDERS: Cookie = Cookie(2);
const TICK: Cookie = Cookie(3);
/// Tags of calls whose results are waited for.
const ASKED: u64 = 1 << 32;
/// How long a result may take.
const PATIENCE_NS: u64 = 2_000_000_000;
/// Connections that a context remembers.
pub const CONNS: usize = 64;
const WORDS: usize = 64;

/// An order, and whom to answer.
#[derive(Clone, Copy)]
struct Order {
    text: [u8; WORDS],
    len: usize,
    port: Handle,
    from: SocketAddress,
}

/// The result of a call.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub status: Status,
    pub handle: Handle,
    pub value: u64,
}

/// One context.
pub struct App {
    pub context: usize,
    pub rings: Rings,
    /// Live connections; `NONE` where there is none.
    pub conns: [Handle; CONNS],
    /// A datagram that is held, if the misdeed has asked for one: where it is and its length.
    pub listener: Handle,
    pub echo_port: Handle,
    order: Option<Order>,
    asked: u64,
    answer: Option<Outcome>,
    /// Counts of events, for misdeeds that wait for them.
    pub sent_bytes: u64,
    pub datagrams_left: u64,
    pub dead: u64,
}

impl App {
    pub fn new(context: usize) -> App {
        App {
            context,
            rings: Rings::new(context),
            conns: [Handle::NONE; CONNS],
            listener: Handle::NONE,
            echo_port: Handle::NONE,
            order: None,
            asked: ASKED,
            answer: None,
            sent_bytes: 0,
            datagrams_left: 0,
            dead: 0,
        }
    }

    pub fn run(mut self) -> ! {
        if self.context == 0 {
            let any = SocketAddress::v4([0; 4], ECHO_PORT);
            self.listener = self.ask(Call::listen(any, 128)).handle;
            self.echo_port = self.ask(Call::udp_bind(any, ECHO)).handle;
            SHARED.echo_port.store(self.echo_port.0, Release);
            let orders = SocketAddress::v4([0; 4], ORDER_PORT);
            self.ask(Call::udp_bind(orders, ORDERS));
            raw::direct(Direct::Ready, 0, 0, 0);
        }
        self.rings.push(&Call::timer_set(TICK, TICK_US));
        loop {
            self.turn();
            self.duty();
            if let Some(order) = self.order.take() {
                self.obey(&order);
            }
        }
    }

    /// Enters once and serves what has come.
    pub fn turn(&mut self) {
        self.rings.enter();
        while self.rings.has_event() {
            // Each may want two calls. While one is unread, this returns at once.
            if self.rings.room() < 64 {
                self.rings.enter();
            }
            if let Some(event) = self.rings.next_event() {
                self.serve(&event);
            }
        }
    }

    /// Serves for a while.
    pub fn serve_for(&mut self, ns: u64) {
        let until = raw::now_ns() + ns;
        while raw::now_ns() < until {
            self.turn();
        }
    }

    /// Makes a call and waits for its result.
    pub fn ask(&mut self, call: Call) -> Outcome {
        self.ask_with(call, &[])
    }

    /// The same with continuation slots.
    pub fn ask_with(&mut self, mut call: Call, more: &[[u64; 8]]) -> Outcome {
        self.asked += 1;
        call.tag = self.asked;
        call.flags |= Call::WANT_RESULT;
        self.answer = None;
        while self.rings.room() < 64 {
            self.turn();
        }
        self.rings.push(&call);
        for slot in more {
            self.rings.push_words(slot);
        }
        self.await_answer()
    }

    /// Waits for the result of the last call asked.
    fn await_answer(&mut self) -> Outcome {
        let until = raw::now_ns() + PATIENCE_NS;
        loop {
            self.turn();
            if let Some(outcome) = self.answer.take() {
                return outcome;
            }
            if raw::now_ns() > until {
                return Outcome { status: Status(u16::MAX), handle: Handle::NONE, value: 0 };
            }
        }
    }

    /// Asks with a record that says what it likes in its flags; its result by tag all the same.
    pub fn ask_raw(&mut self, mut call: Call) -> Outcome {
        self.asked += 1;
        call.tag = self.asked;
        self.answer = None;
        self.rings.push(&call);
        self.await_answer()
    }

    /// A connection of this context that lives.
    pub fn conn(&self) -> Result<Handle, &'static str> {
        let live = self.conns.iter().copied().find(|h| *h != Handle::NONE);
        live.ok_or("this context has no connection")
    }

    fn serve(&mut self, event: &Event) {
        let hoard = SHARED.hoard.load(Acquire) != 0;
        let (condition, more) = Condition::decode(event).split();
        if let Some(more) = more {
            self.condition(more, hoard);
        }
        self.condition(condition, hoard);
    }

    fn condition(&mut self, condition: Condition, hoard: bool) {
        match condition {
            Condition::Knock { handle, .. } => {
                self.rings.push(&Call::accept(handle, Cookie(0)));
                if let Some(free) = self.conns.iter_mut().find(|h| **h == Handle::NONE) {
                    *free = handle;
                }
                SHARED.conns[self.context].store(handle.0, Release);
            }
            Condition::Recv { handle, addr, len, .. } if !hoard => {
                let piece = SgEntry { addr, len: u64::from(len) };
                self.rings.push(&Call::sendv(handle, 1, piece, SgEntry::default()));
                self.rings.push(&Call::recv_done(handle, u64::from(len)));
            }
            Condition::Eof { handle, .. } => {
                self.rings.push(&Call::new(Op::Close, handle));
            }
            Condition::Dead { handle, .. } => {
                self.dead += 1;
                // Unasked ones want a close; for the others the handle is gone, and that is answered.
                self.rings.push(&Call::new(Op::Close, handle));
                self.conns.iter_mut().filter(|h| **h == handle).for_each(|h| *h = Handle::NONE);
            }
            Condition::Sent { bytes, .. } => self.sent_bytes += u64::from(bytes),
            Condition::UdpSent { .. } => self.datagrams_left += 1,
            Condition::UdpRecv { handle, cookie: ORDERS, addr, len, remote } => {
                let mut order = Order { text: [0; WORDS], len: 0, port: handle, from: remote };
                let said = raw::received(addr, len as usize);
                order.len = said.len().min(WORDS);
                order.text[..order.len].copy_from_slice(&said[..order.len]);
                self.rings.push(&Call::udp_recv_done(handle, addr));
                self.order = Some(order);
            }
            Condition::UdpRecv { handle, addr, len, remote, .. } if !hoard => {
                let piece = SgEntry { addr, len: u64::from(len) };
                self.rings.push(&Call::udp_sendv(handle, remote, 1, piece));
                self.rings.push(&Call::udp_recv_done(handle, addr));
            }
            Condition::Timer { cookie: TICK, .. } => {
                self.rings.push(&Call::timer_set(TICK, TICK_US));
            }
            Condition::Result { status, handle, tag, value, .. } if tag == self.asked => {
                self.answer = Some(Outcome { status, handle, value });
            }
            _ => {}
        }
    }

    /// What another context wants done to it.
    fn duty(&mut self) {
        let duty = SHARED.duty.load(Acquire);
        let target = SHARED.target.load(Acquire) as usize;
        if duty == 0 || target == self.context {
            return;
        }
        let until = raw::now_ns() + SHARED.lasts.load(Acquire);
        let mut random = raw::now_ns() | 1;
        while raw::now_ns() < until {
            // In bursts: the clock is a system call, the rewriting shall be tight.
            for _ in 0..20_000 {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                match duty {
                    DUTY_REWRITE_SLOTS => {
                        raw::poke(Rings::slots(target) + (random >> 20) % 4096 * 8, random);
                    }
                    DUTY_REWRITE_HEADER => {
                        Rings::new(target).produced_word().store(random as u32, Release);
                    }
                    _ => raw::poke(SHARED.address.load(Acquire) + (random >> 20) % 128 * 8, random),
                }
            }
        }
        SHARED.duty.store(0, Release);
    }

    fn obey(&mut self, order: &Order) {
        let text = core::str::from_utf8(&order.text[..order.len]).unwrap_or("");
        let mut words = text.split_ascii_whitespace();
        let name = words.next().unwrap_or("");
        let number = words.next().and_then(|n| n.parse().ok()).unwrap_or(0);
        self.echo_port = Handle(SHARED.echo_port.load(Acquire));
        self.reply(order, BEGUN, "");
        // Until it has left: what follows may be the end.
        self.serve_for(2_000_000);
        match misdeeds::commit(self, name, number) {
            Ok(()) => self.reply(order, REFUSED, ""),
            Err(why) => self.reply(order, BROKEN, why),
        }
    }

    fn reply(&mut self, to: &Order, a: &'static str, b: &'static str) {
        let piece = |s: &str| SgEntry { addr: s.as_ptr() as u64, len: s.len() as u64 };
        let call = Call::udp_sendv(to.port, to.from, 2, piece(a));
        let [more, none] = [piece(b), SgEntry::default()];
        let words = [more.addr, more.len, none.addr, none.len, 0, 0, 0, 0];
        while self.rings.room() < 64 {
            self.turn();
        }
        self.ask_with(call, &[words]);
    }
}
