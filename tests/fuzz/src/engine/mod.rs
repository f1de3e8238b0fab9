//! A whole dataplane under one input: engines that run `core_loop::run_once`, a NIC, an application
//! and the other end of the wire, all of whose decisions are the input's.
//!
//! After each input everything heals: the NIC works, the application is taken away, time passes.
//! Then nothing may be left: no connection, no segment, no pin, and every buffer is in one place.
mod app;
pub(crate) mod nic;
mod six;
pub(crate) mod wire;

use crate::input::Input;
use crate::memory::{CORES_MAX, HEAP_PAGES, Ram, SharedArea};
use crate::trace::tell;
pub(crate) use app::{App, Mood};
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES};
use ix_abi::stats::{CoreStats, Counter};
use ix_abi::{CoreId, GroupId};
use ix_dataplane::app::{AppPort, Drain};
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::{Capabilities, Pseudo};
use ix_dataplane::engine::Engine;
use ix_dataplane::mbuf::{Holder, Mbuf, Pool, WAITS};
use ix_dataplane::mesh;
use ix_dataplane::message::Message;
use ix_dataplane::platform::{AppFault, AppReturn, Platform};
use ix_dataplane::slaac::{Identifiers, Mode};
use ix_dataplane::time::{Duration, Instant};
use ix_dataplane::usermem::UserMap;
use nic::{Arriving, Rx, Tx};
use std::sync::Arc;
pub(crate) use wire::Wire;

/// Flow groups of the port: few, so that connections share them.
const GROUPS: u16 = 4;
/// Steps of one input.
const STEPS_MAX: usize = 400;
/// Frames that wait for the card at most.
const INBOX_MAX: usize = 2_048;
/// Iterations in which everything must have come to rest at the end.
const REST_MAX: usize = 6_000;

struct Core {
    now: Instant,
    tsc: u64,
    rx: Vec<Rx>,
    tx: Tx,
    app: Option<App>,
    faulted: bool,
}

impl Platform for Core {
    type Rx = Rx;
    type Tx = Tx;

    fn now(&mut self) -> Instant {
        self.now
    }

    fn tsc(&mut self) -> u64 {
        self.tsc += 1;
        self.tsc
    }

    fn rx_queues(&mut self) -> &mut [Rx] {
        &mut self.rx
    }

    fn tx_queue(&mut self) -> &mut Tx {
        &mut self.tx
    }

    fn enter_app(&mut self) -> AppReturn {
        self.app.as_mut().map_or(AppReturn::Ended, App::run)
    }

    fn control(&mut self, _engine: &mut Engine) {}

    fn app_fault(&mut self, _fault: AppFault) {
        self.faulted = true;
    }

    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {}

    fn wake(&mut self, _core: CoreId) {}
}

/// The dataplane. Fields are dropped in this order: the area last.
struct Machine {
    engines: Vec<Engine>,
    cores: Vec<Core>,
    memory: Arc<UserMap>,
    ram: Ram,
    wire: Wire,
    now: Instant,
    /// The end of an application is under way.
    ending: bool,
    area: SharedArea,
}

/// Runs one input.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut machine = Machine::new(&mut input);
    machine.prelude(&mut input);
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
        let count = 1 + input.below(usize::from(CORES_MAX)) as u16;
        let make = input.u8();
        let buffers = [48, 96, 192][usize::from(make & 3) % 3];
        let ram = Ram::of_thread();
        let area = ram.area(count, buffers);
        let capabilities = Capabilities {
            tx_checksum: make & 4 != 0,
            rx_checksum: true,
            rss: false,
            hash_report: make & 8 != 0,
            queue_pairs: 1,
            groups: GROUPS,
            mtu: 1500,
            tso: 0,
            gso_pseudo: Pseudo::WithLength,
        };
        let static_address = Ipv4Config { address: wire::STATION, prefix: 24, gateway: None };
        let addressing =
            if make & 0xf0 == 0xf0 { Addressing::Dhcp } else { Addressing::Static(static_address) };
        let small = make & 16 != 0;
        let sizes = mesh::Sizes {
            frames: if small { 4 } else { 64 },
            homes: if small { 4 } else { 64 },
            messages: 64,
        };
        let scarce = make & 32 != 0;
        let depth = input.one_of(&[2, 16, 256, 2048]);
        let mut engines = Vec::new();
        let mut cores = Vec::new();
        let memory = Arc::new(ram.user_map(count));
        for (number, end) in (0..count).zip(mesh::build::<Message>(count, sizes)) {
            let core = CoreId(number);
            let mut config = Config::new(core, count, wire::MAC, capabilities, addressing);
            config.seed = u64::from(number);
            config.ipv6 = Mode::Auto(Identifiers::Eui64);
            config.rss_key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
            config.connections_per_group = if scarce { 3 } else { 100 };
            config.rx_batch = if scarce { 2 } else { 64 };
            let pool = Pool::new(area.get(), core);
            let mut engine = Engine::new(config, pool, end, &ram.headers(number));
            let (rings, pages) = ram.rings(number);
            engine.attach_app(AppPort { context: number, rings, memory: Arc::clone(&memory) });
            engines.push(engine);
            let queue = (number == 0).then(|| Rx::new(area.get(), if scarce { 8 } else { 32 }));
            cores.push(Core {
                now: Instant(1_000_000),
                tsc: 0,
                rx: queue.into_iter().collect(),
                tx: Tx::new(depth, capabilities.tx_checksum),
                app: Some(App::new(pages, number == 0)),
                faulted: false,
            });
        }
        let wire = Wire::new();
        let now = Instant(1_000_000);
        Machine { engines, cores, memory, ram, wire, now, ending: false, area }
    }

    /// Connections that are open when the input's story begins.
    fn prelude(&mut self, input: &mut Input<'_>) {
        self.run_all(3, true);
        for at in 0..input.below(5) {
            let syn = self.wire.syn(at);
            self.arrive(syn);
            // Its address is asked for first.
            self.run_all(4, true);
            let ack = self.wire.plain(at, 16, 5);
            self.arrive(ack);
            self.run_all(3, true);
        }
        self.check();
    }

    fn arrive(&mut self, frame: Arriving) {
        tell!("  in  {}", wire::describe(&frame.bytes));
        let inbox = &mut self.cores[0].rx[0].inbox;
        // The wire is no store: what the card has no room for is lost.
        if inbox.len() < INBOX_MAX {
            inbox.push_back(frame);
        }
    }

    /// What the input says next.
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let core = usize::from(what >> 5) % self.cores.len();
        tell!("{:?} step {} core {core}", self.now, what & 31);
        match what & 31 {
            0..=9 => {
                let frame = self.wire.frame(input);
                self.arrive(frame);
                if what & 32 == 0 {
                    self.run_all(1, true);
                }
            }
            10..=14 => {
                if let Some(app) = &mut self.cores[core].app {
                    app.make_calls(input);
                }
                self.run_all(2, what & 128 == 0);
            }
            15 => self.run_core(core),
            16 => self.run_all(1 + input.below(8), true),
            17 => self.pass(input),
            18 => self.cores[core].tx.work(1 + input.below(8)),
            19 => self.run_all(1, false),
            20 => self.cores[core].tx.refusals = u32::from(input.u8()),
            21 => {
                let queue = &mut self.cores[0].rx[0];
                queue.greed = usize::from(input.u8());
                queue.errors = queue.errors.wrapping_add(u64::from(input.u8() & 1));
            }
            22 => self.cores[core].tx.depth = input.one_of(&[1, 3, 64, 2048]),
            23 | 24 => self.move_group(input),
            25 => self.detach(),
            26 => self.attach(),
            27 => {
                let mood = input.one_of(&[Mood::Good, Mood::Asleep, Mood::Hangs, Mood::Ended]);
                if let Some(app) = &mut self.cores[core].app {
                    app.mood = mood;
                }
            }
            28 => {
                let page = u32::from(input.u8()) % HEAP_PAGES;
                self.memory.unmap(HEAP_BASE + u64::from(page) * PAGE_BYTES);
            }
            29 => {
                let page = u32::from(input.u8()) % HEAP_PAGES;
                self.ram.map_page(&self.memory, page);
            }
            30 => self.engines[core].set_rx_batch(usize::from(input.u8())),
            _ => {
                // Many of the same: tables and rings have ends.
                let (at, flags) = (input.below(8), [2, 16, 24, 17][input.below(4)]);
                for _ in 0..input.u8() {
                    let frame = self.wire.plain(at, flags, 4);
                    self.arrive(frame);
                }
                self.run_all(4, true);
            }
        }
        self.faults();
        self.check();
    }

    fn run_core(&mut self, at: usize) {
        let core = &mut self.cores[at];
        core.now = self.now;
        let _work = run_once(&mut self.engines[at], core);
    }

    /// Some iterations of each core; the device works in between, or not.
    fn run_all(&mut self, times: usize, works: bool) {
        for _ in 0..times {
            self.now = self.now + Duration(2_000);
            for at in 0..self.cores.len() {
                self.run_core(at);
                if works {
                    self.cores[at].tx.work(usize::MAX);
                }
            }
            self.deliver();
        }
    }

    /// What has left is seen at the other end.
    fn deliver(&mut self) {
        for at in 0..self.cores.len() {
            while let Some(bytes) = self.cores[at].tx.outbox.pop_front() {
                tell!("  out {}", wire::describe(&bytes));
                if let Some(answer) = self.wire.saw(&bytes) {
                    self.arrive(answer);
                }
                self.cores[at].tx.recycle(bytes);
            }
        }
    }

    fn pass(&mut self, input: &mut Input<'_>) {
        let scale =
            input.one_of(&[1_000, 20_000, 1_000_000, 40_000_000, 300_000_000, 10_000_000_000]);
        let end = self.now + Duration((1 + u64::from(input.u8())) * scale / 16);
        for _ in 0..20 {
            if self.now >= end {
                break;
            }
            let mut next = end;
            for at in 0..self.cores.len() {
                self.cores[at].now = self.now;
                let work = run_once(&mut self.engines[at], &mut self.cores[at]);
                self.cores[at].tx.work(usize::MAX);
                next = next.min(work.deadline);
            }
            self.deliver();
            self.now = next.max(self.now + Duration(1_000));
        }
        self.now = self.now.max(end);
    }

    /// What a platform does at a quiescent point: frames in flight drain first.
    fn move_group(&mut self, input: &mut Input<'_>) {
        let group = GroupId(u16::from(input.u8()) % GROUPS);
        let to = input.below(self.cores.len());
        let Some(from) = self.engines.iter().position(|engine| engine.owns(group)) else {
            panic!("{group:?} has no owner")
        };
        // Not while an application ends: the platform lets it finish first.
        if from == to || self.ending {
            return;
        }
        self.cores[from].tx.work(usize::MAX);
        self.run_core(from);
        self.cores[from].tx.work(usize::MAX);
        self.run_core(from);
        if self.cores[from].tx.waiting() > 0 {
            return;
        }
        let Some(value) = self.engines[from].take_group(group, CoreId(to as u16)) else {
            panic!("{group:?} cannot be taken from its owner")
        };
        self.engines[to].give_group(value);
        for (core, engine) in self.engines.iter_mut().enumerate() {
            if core != from && core != to {
                engine.set_owner(group, CoreId(to as u16));
            }
        }
    }

    /// The engine accuses the application: it is ended.
    fn faults(&mut self) {
        if self.cores.iter().any(|core| core.faulted) {
            self.detach();
        }
    }

    fn detach(&mut self) {
        for (engine, core) in self.engines.iter_mut().zip(&mut self.cores) {
            engine.detach_app();
            core.app = None;
            core.faulted = false;
        }
        self.ending = true;
    }

    /// A new application, if nothing of the last one is left.
    fn attach(&mut self) {
        if !self.ending {
            return;
        }
        if !self.engines.iter_mut().all(|engine| engine.drain() == Drain::Done) {
            return;
        }
        assert_eq!(self.memory.pins_total(), 0, "drained, but memory of the application is pinned");
        let count = self.cores.len() as u16;
        self.memory = Arc::new(self.ram.user_map(count));
        for (number, (engine, core)) in (0..).zip(self.engines.iter_mut().zip(&mut self.cores)) {
            let (rings, pages) = self.ram.rings(number);
            engine.attach_app(AppPort { context: number, rings, memory: Arc::clone(&self.memory) });
            core.app = Some(App::new(pages, number == 0));
        }
        self.ending = false;
    }

    /// Every receive buffer is in exactly one place, and the books agree with themselves.
    fn check(&self) {
        let mut found = 0;
        for (engine, core) in self.engines.iter().zip(&self.cores) {
            let books = engine.conservation();
            assert_eq!(books.broken, 0, "{books:?}");
            found += books.free + books.away + books.received + books.transmitting + books.held;
            found += books.datagrams;
            found += core.rx.iter().map(Rx::held).sum::<usize>();
        }
        let area = self.area.get();
        // Given back by the application, but named by what it still sends.
        let sent = |index: &u32| {
            let mbuf = Mbuf::from_raw(*index);
            let references = area.meta(&mbuf).references;
            let _not_ours = mbuf.into_raw();
            references > 0 && references & WAITS == 0 && area.holder(*index) == Holder::NONE
        };
        found += (0..area.buffers()).filter(sent).count();
        let all = area.buffers() as usize;
        // With several cores some are on their way from one to another.
        let alone = self.engines.len() == 1;
        let fits = if alone { found == all } else { found <= all };
        assert!(fits, "{found} of {all} buffers are accounted for");
    }

    /// Heals everything, takes the application away, lets time pass, and looks what is left.
    fn rest(&mut self) {
        for core in &mut self.cores {
            core.tx.refusals = 0;
            core.tx.depth = core.tx.depth.max(64);
            for queue in &mut core.rx {
                queue.greed = 0;
            }
        }
        self.run_all(2, true);
        self.detach();
        let started = self.now;
        let mut quiet = 0;
        for _ in 0..REST_MAX {
            let mut next = Instant::NEVER;
            let mut busy = false;
            for at in 0..self.cores.len() {
                self.run_core(at);
                let waits = self.cores[at].tx.waiting();
                self.cores[at].tx.work(usize::MAX);
                let work = run_once(&mut self.engines[at], &mut self.cores[at]);
                next = next.min(work.deadline);
                busy |= work.busy || waits > 0 || self.cores[at].tx.waiting() > 0;
            }
            busy |= self.engines.iter_mut().any(Engine::has_mail);
            for core in &mut self.cores {
                core.tx.outbox.clear();
            }
            let aged = self.now >= started + Duration::from_s(300);
            // A DHCP client without a server asks for ever, with rests in between.
            quiet += usize::from(aged && !busy);
            if quiet > 3 && !busy {
                return self.check_rest();
            }
            let soon = self.now + Duration(2_000);
            let later = self.now + Duration::from_s(100);
            self.now = if busy { soon } else { next.clamp(soon, later) };
        }
        panic!("it does not come to rest in {REST_MAX} iterations");
    }

    fn check_rest(&mut self) {
        let mut found = 0;
        for (engine, core) in self.engines.iter_mut().zip(&self.cores) {
            assert_eq!(engine.drain(), Drain::Done);
            let books = engine.conservation();
            assert_eq!(books.broken, 0, "{books:?}");
            let left = (books.connections, books.segments, books.received, books.datagrams);
            assert_eq!(left, (0, 0, 0, 0), "{books:?} {}", connections(engine));
            assert_eq!(books.transmitting, 0, "{books:?}");
            assert_eq!(engine.stats().get(Counter::TcpConnections), 0, "the gauge of connections");
            found += books.free + books.away + core.rx.iter().map(Rx::held).sum::<usize>();
        }
        let area = self.area.get();
        assert_eq!(found, area.buffers() as usize, "receive buffers are lost or there twice");
        assert!((0..area.buffers()).all(|index| area.holder(index) == Holder::NONE));
        assert_eq!(self.memory.pins_total(), 0, "memory of the application stays pinned");
    }
}

/// The connections that are left, for whoever has to find out why.
fn connections(engine: &Engine) -> String {
    let all = format!("{engine:?}");
    let conns = all.split("Conn {").skip(1).filter(|conn| !conn.contains("flags: Flags(FREED)"));
    let conns = conns.filter(|conn| !conn.contains("generation: 0,"));
    conns.map(|conn| &conn[..conn.len().min(1800)]).collect::<Vec<_>>().join("\n")
}
