//! A hostile application: it leaves whatever the input says in its rings, and knows enough of what
//! it was told to come far.
use crate::input::Input;
use crate::memory::{HEAP_PAGES, Pages};
use crate::trace::tell;
use ix_abi::call::{Call, SgEntry};
use ix_abi::layout::{
    CALL_SLOTS, CallHeader, EVENT_SLOTS, EventHeader, HEAP_BASE, INFO_BASE, PAGE_BYTES, RX_BASE,
};
use ix_abi::ring::slot;
use ix_abi::{Condition, Cookie, Event, Handle, Op, SocketAddress};
use ix_dataplane::platform::AppReturn;
use std::collections::VecDeque;
use std::mem::offset_of;

/// Handles, and pieces of memory, that it remembers.
const REMEMBERED: usize = 16;
/// Its own timers, which only wake it.
const WAKE: Cookie = Cookie(0xfeed);

/// What an application does when it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Reads, calls, returns.
    Good,
    /// Leaves events unread.
    Asleep,
    /// Does not return.
    Hangs,
    /// Is gone.
    Ended,
}

/// The application on one core.
#[derive(Debug)]
pub struct App {
    pages: Pages,
    read: u32,
    written: u32,
    /// How it is.
    pub mood: Mood,
    /// Events that it reads at most when it is entered.
    pub read_most: u32,
    pending: VecDeque<[u64; 8]>,
    handles: VecDeque<Handle>,
    held: VecDeque<(Handle, u64, u32)>,
    datagrams: VecDeque<(Handle, u64)>,
    accepts: bool,
}

fn remember<T>(list: &mut VecDeque<T>, item: T) {
    if list.len() == REMEMBERED {
        list.pop_front();
    }
    list.push_back(item);
}

fn pick<T: Copy>(list: &VecDeque<T>, at: usize) -> Option<T> {
    if list.is_empty() { None } else { list.get(at % list.len()).copied() }
}

impl App {
    /// One with empty rings. The first call listens, the second binds.
    pub fn new(pages: Pages, first: bool) -> App {
        let (pending, handles, held, datagrams) = Default::default();
        let mut app = App {
            pages,
            read: 0,
            written: 0,
            mood: Mood::Good,
            read_most: u32::MAX,
            pending,
            handles,
            held,
            datagrams,
            accepts: true,
        };
        if first {
            app.call(Call::listen(SocketAddress::v4([0; 4], 7), 4).with_result(1));
            app.call(Call::udp_bind(SocketAddress::v4([0; 4], 9), Cookie(9)).with_result(2));
        }
        app
    }

    fn call(&mut self, call: Call) {
        self.pending.push_back(zerocopy::transmute!(call));
    }

    /// The core is its.
    pub fn run(&mut self) -> AppReturn {
        match self.mood {
            Mood::Ended => return AppReturn::Ended,
            Mood::Hangs => return AppReturn::Preempted,
            Mood::Good => self.read_events(),
            Mood::Asleep => {}
        }
        if self.pending.is_empty() {
            // Entered again next time without an event.
            return AppReturn::Preempted;
        }
        let consumed = self.pages.event_word(offset_of!(EventHeader, calls_consumed));
        self.call(Call::timer_set(WAKE, 1));
        while self.written.wrapping_sub(consumed) < CALL_SLOTS {
            let Some(words) = self.pending.pop_front() else { break };
            let call: Call = zerocopy::transmute!(words);
            tell!("  call {:x?}", call.decode());
            self.pages.set_call_slot(slot(self.written, CALL_SLOTS), words);
            self.written = self.written.wrapping_add(1);
        }
        self.pages.set_call_word(offset_of!(CallHeader, produced), self.written);
        AppReturn::Entered
    }

    fn read_events(&mut self) {
        let produced = self.pages.event_word(offset_of!(EventHeader, produced));
        let mut count = 0;
        while self.read != produced && count < self.read_most.min(EVENT_SLOTS) {
            count += 1;
            let words = self.pages.event_slot(slot(self.read, EVENT_SLOTS));
            let event: Event = zerocopy::transmute!(words);
            self.read = self.read.wrapping_add(1);
            let event = Condition::decode(&event);
            tell!("  event {event:x?}");
            let (event, more) = event.split();
            self.event(event);
            if let Some(event) = more {
                self.event(event);
            }
        }
        self.pages.set_call_word(offset_of!(CallHeader, events_consumed), self.read);
    }

    fn event(&mut self, event: Condition) {
        match event {
            Condition::Knock { handle, .. } => {
                remember(&mut self.handles, handle);
                if self.accepts {
                    self.call(Call::accept(handle, Cookie(handle.0)));
                }
            }
            Condition::Connected { handle, .. } => remember(&mut self.handles, handle),
            Condition::Recv { handle, addr, len, .. } => {
                remember(&mut self.handles, handle);
                remember(&mut self.held, (handle, addr, len));
            }
            Condition::UdpRecv { handle, addr, len, .. } => {
                remember(&mut self.held, (handle, addr, len));
                remember(&mut self.datagrams, (handle, addr));
            }
            Condition::Result { handle, .. } if handle != Handle::NONE => {
                remember(&mut self.handles, handle);
            }
            Condition::Unknown { kind } => panic!("an event of kind {kind}"),
            _ => {}
        }
    }

    /// Queues calls that the input makes up.
    pub fn make_calls(&mut self, input: &mut Input<'_>) {
        for _ in 0..1 + input.below(8) {
            match input.below(20) {
                0 => self.raw(input),
                1 => self.accepts = input.flag(),
                2 | 3 => self.send_heap(input),
                4 | 5 => self.send_held(input),
                6 | 7 => self.give_back(input),
                8 => self.give_datagram_back(input),
                9 => self.send_datagram(input),
                10 | 11 => {
                    let op = input.one_of(&[Op::Close, Op::Shutdown, Op::Abort, Op::Reject]);
                    let handle = self.handle(input);
                    self.call(Call::new(op, handle).with_result(3));
                }
                12 => self.connect(input),
                13 => {
                    let port = u16::from(input.u8() & 15);
                    let at = SocketAddress::v4([0; 4], port);
                    let backlog = u32::from(input.u8());
                    self.call(Call::listen(at, backlog).with_result(4));
                }
                14 => {
                    let at = SocketAddress::v4([0; 4], u16::from(input.u8() & 15));
                    self.call(Call::udp_bind(at, Cookie(7)).with_result(5));
                }
                15 => {
                    let op = input.one_of(&[Op::Unlisten, Op::UdpClose, Op::TimerCancel]);
                    let handle = self.handle(input);
                    self.call(Call::new(op, handle));
                }
                16 => {
                    let delay = u64::from(input.u16()) << input.below(20);
                    self.call(Call::timer_set(Cookie(1), delay).with_result(6));
                }
                17 => {
                    let handle = self.handle(input);
                    self.call(Call::accept(handle, Cookie(3)));
                }
                18 => self.forge(input),
                _ => {
                    // The same again, many times: tables have limits.
                    let last = self.pending.back().copied();
                    let times = input.below(200);
                    self.pending.extend(last.into_iter().cycle().take(times));
                }
            }
            if input.is_empty() {
                return;
            }
        }
    }

    fn raw(&mut self, input: &mut Input<'_>) {
        let mut words = [0; 8];
        for word in &mut words {
            *word = match input.below(4) {
                0 => input.u64(),
                1 => u64::from(input.u8()),
                2 => self.address(input),
                _ => self.handle(input).0,
            };
        }
        // Mostly an operation that exists.
        words[0] = u64::from(input.u8() & 31) | u64::from(input.u16() & 0x3ff) << 32;
        words[0] |= u64::from(input.flag()) << 16;
        self.pending.push_back(words);
        for _ in 0..input.below(3) {
            self.pending.push_back(std::array::from_fn(|_| input.u64()));
        }
    }

    /// Its own words in the headers of its rings.
    fn forge(&mut self, input: &mut Input<'_>) {
        match input.below(8) {
            0 => self.written = self.written.wrapping_add(input.u32()),
            1 => self.read = self.read.wrapping_add(input.u32()),
            2 => self.read = self.read.wrapping_sub(u32::from(input.u8())),
            3 => self.read_most = input.u32() & 0xff,
            4 => self.mood = Mood::Asleep,
            5 => self.mood = Mood::Good,
            6 => self.mood = Mood::Hangs,
            _ => self.read_most = u32::MAX,
        }
        self.pages.set_call_word(offset_of!(CallHeader, produced), self.written);
        self.pages.set_call_word(offset_of!(CallHeader, events_consumed), self.read);
    }

    fn handle(&self, input: &mut Input<'_>) -> Handle {
        let choice = usize::from(input.u8());
        let known = pick(&self.handles, choice & 31).unwrap_or(Handle::NONE);
        match choice >> 5 {
            0 => Handle(known.0 ^ 1 << input.below(64)),
            1 if choice & 1 == 0 => Handle(input.u64()),
            _ => known,
        }
    }

    fn address(&self, input: &mut Input<'_>) -> u64 {
        let near = u64::from(input.u16());
        match input.below(8) {
            0 => HEAP_BASE + u64::from(HEAP_PAGES) * PAGE_BYTES - near,
            1 => HEAP_BASE + PAGE_BYTES - near.min(3000),
            2 => RX_BASE + (near << 4),
            3 => INFO_BASE + near,
            4 => input.u64(),
            5 => pick(&self.held, near as usize).map_or(0, |(_, addr, _)| addr + (near >> 8)),
            _ => HEAP_BASE + (near << 3),
        }
    }

    fn send_heap(&mut self, input: &mut Input<'_>) {
        let handle = self.handle(input);
        let count = 1 + input.below(12);
        let piece = |input: &mut Input<'_>| {
            let len = u64::from(input.u16()) >> input.below(12);
            SgEntry { addr: self.address(input), len }
        };
        let entries: Vec<SgEntry> = (0..count).map(|_| piece(input)).collect();
        self.sendv(handle, &entries);
    }

    fn sendv(&mut self, handle: Handle, entries: &[SgEntry]) {
        let entry = |at: usize| entries.get(at).copied().unwrap_or_default();
        self.call(Call::sendv(handle, entries.len() as u16, entry(0), entry(1)).with_result(7));
        for more in entries.get(2..).unwrap_or_default().chunks(4) {
            let entry = |at: usize| more.get(at).copied().unwrap_or_default();
            let words = [entry(0), entry(1), entry(2), entry(3)].map(|e| [e.addr, e.len]);
            self.pending.push_back(zerocopy::transmute!(words));
        }
    }

    /// What it was given, back to whoever.
    fn send_held(&mut self, input: &mut Input<'_>) {
        let Some((from, addr, len)) = pick(&self.held, input.below(16)) else { return };
        let handle = if input.flag() { from } else { self.handle(input) };
        let (skip, less) = (u64::from(input.u8() & 15), u64::from(input.u8() & 15));
        let len = u64::from(len).saturating_sub(less);
        self.sendv(handle, &[SgEntry { addr: addr + skip, len }]);
    }

    fn give_back(&mut self, input: &mut Input<'_>) {
        let Some((handle, _, len)) = pick(&self.held, input.below(16)) else { return };
        let bytes = match input.below(4) {
            0 => u64::from(input.u8()),
            1 => u64::from(len) + u64::from(input.u8()),
            _ => u64::from(len),
        };
        self.call(Call::recv_done(handle, bytes));
    }

    fn give_datagram_back(&mut self, input: &mut Input<'_>) {
        let Some((handle, addr)) = pick(&self.datagrams, input.below(16)) else { return };
        let addr = if input.below(4) == 0 { addr ^ u64::from(input.u16()) } else { addr };
        self.call(Call::udp_recv_done(handle, addr));
    }

    fn send_datagram(&mut self, input: &mut Input<'_>) {
        let handle = self.handle(input);
        let to = SocketAddress::v4([10, 0, 0, input.u8() & 7], input.u16());
        let len = u64::from(input.u16()) >> input.below(12);
        let entry = SgEntry { addr: self.address(input), len };
        self.call(Call::udp_sendv(handle, to, 1, entry).with_result(8));
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        let host = input.u8() & 15;
        let net = if host == 15 { 8 } else { 10 };
        let to = SocketAddress::v4([net, 0, 0, host & 7], u16::from(input.u8()));
        self.call(Call::connect(Cookie(5), to).with_result(9));
    }
}
