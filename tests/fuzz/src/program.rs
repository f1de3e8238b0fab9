//! A program linked with libix over a real engine: its event loop gets what an engine makes of a hostile
//! wire, and its callbacks do whatever the input says with it. Memory lies where the contract says.
//!
//! What each connection was given and has got rid of must add up in libix's books; in the end every
//! connection must have been reported dead, and nothing be left in the engine.
use crate::engine::nic::{Arriving, Rx, Tx};
use crate::engine::wire::{self, Wire};
use crate::input::Input;
use crate::memory::{self, HEAP_PAGES, Ram};
use crate::trace::tell;
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_abi::stats::CoreStats;
use ix_abi::{CoreId, DeadReason, Handle, SocketAddress, Status};
use ix_dataplane::app::{AppPort, Drain};
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::{Capabilities, Pseudo};
use ix_dataplane::engine::Engine;
use ix_dataplane::mbuf::{Holder, Pool};
use ix_dataplane::platform::{AppFault, AppReturn, Platform};
use ix_dataplane::time::{Duration, Instant};
use ix_dataplane::{mesh, usermem::UserMap};
use libix::{App, Conn, Conns, Cx, Datagram, EventLoop, Knock, Outcome};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

const GROUPS: u16 = 4;
const STEPS_MAX: usize = 300;
const BUFFERS: u32 = 96;
/// Tags of calls.
const LISTEN: u64 = 1;
const BIND: u64 = 2;
const TIMER: u64 = 3;
const BEAT: u64 = 4;
/// Cookies of timers. One goes on for ever, so that the program comes to do what it wants without an event.
const COOKIE: u64 = 77;
const BEAT_COOKIE: u64 = 78;
const BEAT_US: u64 = 2_000_000;

/// What the program has done on a connection.
#[derive(Debug, Default)]
struct Stream {
    queued: u64,
    sent: u64,
    /// An end was asked for, or refused output has ended it: what is queued may go.
    ended: bool,
}

/// The program.
#[derive(Debug, Default)]
struct Story {
    /// What it does next; taken from the front, put back at the end.
    decisions: VecDeque<u8>,
    /// From now on everything ends.
    ending: bool,
    opened: u64,
    closed: u64,
    timers: Vec<Handle>,
}

impl Story {
    fn decide(&mut self, choices: u8) -> u8 {
        let Some(next) = self.decisions.pop_front() else { return 2 % choices };
        self.decisions.push_back(next);
        next % choices
    }

    /// Something is done with what a connection holds.
    fn act(&mut self, cx: &mut Cx<Story>, conn: &mut Conn<Story>) {
        for piece in conn.received() {
            assert!(memory::is_received(piece), "received bytes are outside of the receive area");
        }
        assert_eq!(conn.received().map(<[u8]>::len).sum::<usize>(), conn.received_len());
        let all = conn.received_len();
        let some = all.min(1 + usize::from(self.decide(64)));
        let ends = conn.data.ended || conn.is_ending();
        match self.decide(16) {
            0 => {}
            1 => conn.consume(cx, some),
            2..=5 => {
                conn.forward(cx, all);
                conn.data.queued += if ends { 0 } else { all as u64 };
            }
            6 => {
                conn.forward(cx, some);
                conn.data.queued += if ends { 0 } else { some as u64 };
            }
            7..=9 => {
                conn.consume(cx, all);
                let bytes = memory::program_bytes(usize::from(self.decide(255)) * 32);
                conn.send_static(cx, bytes);
                conn.data.queued += if ends { 0 } else { bytes.len() as u64 };
            }
            10 => {
                // A copy lies in this test's own heap, which is not the program's: it is refused.
                conn.consume(cx, all);
                conn.write(cx, b"cannot be sent from here");
                conn.data.ended = true;
            }
            11 => {
                conn.shutdown(cx);
                conn.data.ended = true;
            }
            12 | 13 => {
                conn.close(cx);
                conn.data.ended = true;
            }
            14 => {
                conn.abort(cx);
                conn.data.ended = true;
            }
            _ => {
                let taken = conn.read(cx, |_, piece| piece.len() / 2);
                assert!(taken <= all);
            }
        }
        self.books(conn);
    }

    fn books(&self, conn: &Conn<Story>) {
        let Stream { queued, sent, ended } = conn.data;
        let known = sent + conn.in_flight() + conn.unsent();
        assert!(ended || known == queued, "{conn:?}: {known} of {queued} bytes are accounted for");
        assert!(sent <= queued || ended);
    }
}

impl App for Story {
    type Conn = Stream;
    type Buf = &'static [u8];

    fn on_start(&mut self, cx: &mut Cx<Self>) {
        cx.listen(SocketAddress::v4([0; 4], 7), 4, LISTEN);
        cx.udp_bind(SocketAddress::v4([0; 4], 9), 9, BIND);
        cx.timer_set(BEAT_COOKIE, BEAT_US, BEAT);
        cx.ready();
    }

    fn on_knock(&mut self, _: &mut Cx<Self>, _: &Knock) -> Option<Stream> {
        if self.ending || self.decide(8) == 0 {
            return None;
        }
        self.opened += 1;
        Some(Stream::default())
    }

    fn on_connected(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        self.act(cx, conn);
    }

    fn on_connect_failed(&mut self, _: &mut Cx<Self>, _: Stream, status: Status) {
        assert_ne!(status, Status::Ok);
        self.closed += 1;
    }

    fn on_recv(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        assert!(conn.received_len() > 0);
        self.act(cx, conn);
    }

    fn on_sent(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>, bytes: u32) {
        conn.data.sent += u64::from(bytes);
        self.books(conn);
        if self.decide(4) == 0 {
            self.act(cx, conn);
        }
    }

    fn on_eof(&mut self, cx: &mut Cx<Self>, conn: &mut Conn<Self>) {
        assert!(conn.is_eof());
        if self.decide(3) != 0 {
            conn.data.ended = true;
            conn.close(cx);
        }
    }

    fn on_dead(&mut self, _: &mut Cx<Self>, conn: &mut Conn<Self>, _: DeadReason) {
        tell!("  dead {:x?}", conn.handle());
        self.closed += 1;
    }

    fn on_udp(&mut self, cx: &mut Cx<Self>, datagram: Datagram) {
        assert!(datagram.bytes().is_empty() || memory::is_received(datagram.bytes()));
        assert_eq!(datagram.cookie().0, 9);
        match self.decide(4) {
            0 => cx.udp_done(datagram),
            1 => {
                let (socket, remote) = (datagram.socket(), datagram.remote());
                cx.udp_send(socket, remote, memory::program_bytes(300));
                cx.udp_done(datagram);
            }
            _ => cx.udp_reply(datagram),
        }
    }

    fn on_result(&mut self, _: &mut Cx<Self>, outcome: &Outcome) {
        assert!((LISTEN..=BEAT).contains(&outcome.tag), "{outcome:?}");
        if outcome.tag == TIMER && outcome.status == Status::Ok {
            self.timers.push(outcome.made());
        }
    }

    fn on_timer(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>, timer: Handle, cookie: u64) {
        if cookie == BEAT_COOKIE {
            return cx.timer_set(BEAT_COOKIE, BEAT_US, BEAT);
        }
        assert_eq!(cookie, COOKIE);
        self.timers.retain(|other| *other != timer);
        for conn in conns.iter_mut() {
            self.act(cx, conn);
        }
    }

    fn idle(&mut self, cx: &mut Cx<Self>, conns: &mut Conns<Self>) {
        if self.ending {
            conns.iter_mut().for_each(|conn| {
                conn.data.ended = true;
                conn.abort(cx);
            });
            return;
        }
        match self.decide(16) {
            0 => {
                let host = [10, 0, 0, 2 + self.decide(6)];
                let port = u16::from(self.decide(200));
                self.opened += 1;
                cx.connect(SocketAddress::v4(host, port), Stream::default());
            }
            1 => cx.timer_set(COOKIE, u64::from(self.decide(255)) * 1_000, TIMER),
            2 => self.timers.pop().into_iter().for_each(|timer| cx.timer_cancel(timer)),
            3 => conns.iter_mut().take(3).for_each(|conn| self.act(cx, conn)),
            _ => {}
        }
    }
}

struct Core {
    now: Instant,
    rx: [Rx; 1],
    tx: Tx,
    events: EventLoop<Story>,
    story: Story,
    running: bool,
}

impl Platform for Core {
    type Rx = Rx;
    type Tx = Tx;

    fn now(&mut self) -> Instant {
        self.now
    }

    fn tsc(&mut self) -> u64 {
        0
    }

    fn rx_queues(&mut self) -> &mut [Rx] {
        &mut self.rx
    }

    fn tx_queue(&mut self) -> &mut Tx {
        &mut self.tx
    }

    fn enter_app(&mut self) -> AppReturn {
        if !self.running {
            return AppReturn::Ended;
        }
        // The door does nothing: here the program comes back from it, and there it goes in.
        self.events.enter();
        memory::shut_door(|| self.events.turn(&mut self.story));
        self.events.enter();
        AppReturn::Entered
    }

    fn control(&mut self, _engine: &mut Engine) {}

    fn app_fault(&mut self, fault: AppFault) {
        panic!("libix has broken the contract: {fault:?}");
    }

    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {}

    fn wake(&mut self, _core: CoreId) {}
}

struct Machine {
    engine: Engine,
    core: Core,
    memory: Arc<UserMap>,
    ram: Ram,
    wire: Wire,
    area: memory::SharedArea,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    // There is one such address space.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut input = Input::new(bytes);
    let mut machine = Machine::new(&mut input);
    machine.turns(3, true);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        machine.step(&mut input);
    }
    machine.rest();
}

impl Machine {
    fn new(input: &mut Input<'_>) -> Machine {
        let make = input.u8();
        let ram = Ram::of_program();
        let area = ram.area(1, BUFFERS);
        let capabilities = Capabilities {
            tx_checksum: make & 1 != 0,
            rx_checksum: true,
            rss: false,
            hash_report: false,
            queue_pairs: 1,
            groups: GROUPS,
            mtu: 1500,
            tso: 0,
            gso_pseudo: Pseudo::WithLength,
        };
        let address = Ipv4Config { address: wire::STATION, prefix: 24, gateway: None };
        let addressing = Addressing::Static(address);
        let mut config = Config::new(CoreId(0), 1, wire::MAC, capabilities, addressing);
        config.rss_key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
        config.connections_per_group = if make & 2 != 0 { 3 } else { 100 };
        config.rx_batch = if make & 4 != 0 { 2 } else { 64 };
        let mesh = mesh::build(1, mesh::Sizes::default()).remove(0);
        let pool = Pool::new(area.get(), CoreId(0));
        let mut engine = Engine::new(config, pool, mesh, &ram.headers(0));
        let memory = Arc::new(ram.user_map(1));
        let (rings, pages) = ram.rings(0);
        engine.attach_app(AppPort { context: 0, rings, memory: Arc::clone(&memory) });
        let mut events = EventLoop::new(memory::context(pages));
        let mut story = Story::default();
        story.decisions.extend(input.take(12));
        events.start(&mut story);
        let core = Core {
            now: Instant(1_000_000),
            rx: [Rx::new(area.get(), 32)],
            tx: Tx::new(256, capabilities.tx_checksum),
            events,
            story,
            running: true,
        };
        Machine { engine, core, memory, ram, wire: Wire::new(), area }
    }

    fn arrive(&mut self, frame: Arriving) {
        tell!("  in  {}", wire::describe(&frame.bytes));
        self.core.rx[0].inbox.push_back(frame);
    }

    fn turns(&mut self, times: usize, works: bool) -> Instant {
        let mut next = Instant::NEVER;
        for _ in 0..times {
            self.core.now = self.core.now + Duration(2_000);
            next = run_once(&mut self.engine, &mut self.core).deadline;
            if works {
                self.core.tx.work(usize::MAX);
            }
            while let Some(bytes) = self.core.tx.outbox.pop_front() {
                tell!("  out {}", wire::describe(&bytes));
                if let Some(answer) = self.wire.saw(&bytes) {
                    self.arrive(answer);
                }
                self.core.tx.recycle(bytes);
            }
        }
        next
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        tell!("{:?} step {}", self.core.now, what & 31);
        match what & 31 {
            0..=5 => {
                let frame = self.wire.frame(input);
                self.arrive(frame);
                self.turns(2, true);
            }
            6..=17 => {
                let (at, flags) = (input.below(8), input.one_of(&[2, 16, 24, 24, 24, 17]));
                let len = if flags & 2 != 0 { 0 } else { usize::from(input.u8()) * 4 };
                let frame = self.wire.plain(at, flags, len);
                self.arrive(frame);
                self.turns(2, what & 32 == 0);
            }
            18 | 19 => {
                let decisions = input.take(input.clone().below(12));
                self.core.story.decisions = decisions.iter().copied().collect();
            }
            20 | 21 => {
                self.turns(1 + input.below(8), true);
            }
            22 | 23 => {
                let scale = input.one_of(&[1_000, 1_000_000, 40_000_000, 1_000_000_000]);
                let end = self.core.now + Duration((1 + u64::from(input.u8())) * scale / 4);
                for _ in 0..20 {
                    let next = self.turns(1, true);
                    if self.core.now >= end {
                        break;
                    }
                    self.core.now = next.clamp(self.core.now, end);
                }
            }
            24 => self.core.tx.refusals = u32::from(input.u8()),
            25 => self.core.tx.depth = input.one_of(&[1, 3, 64, 256]),
            26 => self.core.rx[0].greed = usize::from(input.u8()),
            27 => {
                let page = u32::from(input.u8()) % HEAP_PAGES;
                if what & 32 == 0 {
                    self.memory.unmap(HEAP_BASE + u64::from(page) * PAGE_BYTES);
                    // What is sent from there is refused, or ends its connection.
                    self.core.events.conns().iter_mut().for_each(|conn| conn.data.ended = true);
                } else {
                    self.ram.map_page(&self.memory, page);
                }
            }
            _ => {
                self.turns(1, false);
            }
        }
        let (story, live) = (&self.core.story, self.core.events.conns().len() as u64);
        assert!(story.opened >= story.closed + live, "{story:?}: {live} connections");
    }

    /// Heals everything; the program ends all connections, then is taken away.
    fn rest(&mut self) {
        let core = &mut self.core;
        core.tx.refusals = 0;
        core.tx.depth = 256;
        core.rx[0].greed = 0;
        core.story.ending = true;
        let end = self.core.now + Duration::from_s(600);
        for _ in 0..4_000 {
            let next = self.turns(3, true);
            if self.core.now >= end {
                break;
            }
            let later = self.core.now + Duration::from_s(5);
            self.core.now = next.clamp(self.core.now, later);
        }
        assert!(self.core.now >= end, "it does not come to rest");
        let (story, live) = (&self.core.story, self.core.events.conns().len());
        assert_eq!(
            (story.opened, live),
            (story.closed, 0),
            "not each connection was reported dead"
        );
        self.core.running = false;
        self.engine.detach_app();
        for _ in 0..100 {
            self.turns(1, true);
            self.core.now = self.core.now + Duration::from_s(6);
        }
        assert_eq!(self.engine.drain(), Drain::Done);
        let books = self.engine.conservation();
        assert_eq!(books.broken, 0, "{books:?}");
        let left = (books.connections, books.segments, books.received, books.datagrams);
        assert_eq!((left, books.transmitting), ((0, 0, 0, 0), 0), "{books:?}");
        let area = self.area.get();
        let found = books.free + books.away + self.core.rx[0].held();
        assert_eq!(found, area.buffers() as usize, "receive buffers are lost or there twice");
        assert!((0..area.buffers()).all(|index| area.holder(index) == Holder::NONE));
        assert_eq!(self.memory.pins_total(), 0, "memory of the program stays pinned");
    }
}
