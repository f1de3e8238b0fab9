//! A dataplane: engines, NIC, memory and application, run by `core_loop::run_once`.
#![allow(unsafe_code, reason = "gives the engines the memory that stands for RAM")]

mod lend;
mod life;

use self::lend::Lent;
use self::life::Life;
use super::app::{Context, Shared};
use super::book::{SharedBook, Talk};
use super::faults::{self, Scope};
use super::heap::Heap;
use super::memory::{Bus, Pages};
use super::net::StationId;
use super::nic::{self, HwTx, SharedCard, SimRx};
use super::swarm::MachineDraw;
use super::{MS, S, Time, US};
use ix_abi::CoreId;
use ix_abi::layout::RX_BASE;
use ix_abi::stats::{CoreStats, Counter, Drop as DropReason};
use ix_dataplane::app::AppPort;
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::{DmaRegion, TxFrame, TxFull, TxQueue};
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::mesh;
use ix_dataplane::platform::{AppFault, AppReturn, Platform};
use ix_dataplane::rings::AppRings;
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::draw_key;
use ix_dataplane::steer::{MuxTx, RemoteTx};
use ix_dataplane::time::Instant;
use ix_dataplane::usermem::UserMap;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// What one iteration of a core takes, in virtual time.
const LOOP: Time = 2 * US;
/// How long something else may have a core.
const STALL_MAX: Time = 100 * US;

/// How late an application's timer may be: a tick of the wheel, and the iterations of a busy core.
const TIMER_LATE: Time = 200 * US;

type Waker = Box<dyn FnMut(CoreId)>;

/// A core's transmit queue, whichever way it leads.
enum SimTx {
    Hardware(HwTx),
    Shared(MuxTx<HwTx>),
    Remote(RemoteTx<Waker>),
}

impl TxQueue for SimTx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        match self {
            SimTx::Hardware(tx) => tx.push(frame),
            SimTx::Shared(tx) => tx.push(frame),
            SimTx::Remote(tx) => tx.push(frame),
        }
    }

    fn kick(&mut self) {
        match self {
            SimTx::Hardware(tx) => tx.kick(),
            SimTx::Shared(tx) => tx.kick(),
            SimTx::Remote(tx) => tx.kick(),
        }
    }

    fn reclaim(&mut self) -> u32 {
        match self {
            SimTx::Hardware(tx) => tx.reclaim(),
            SimTx::Shared(tx) => tx.reclaim(),
            SimTx::Remote(tx) => tx.reclaim(),
        }
    }
}

/// What cores of a machine share beside the application: the clock, and who was woken.
#[derive(Debug, Default)]
struct Signals {
    now: Cell<Time>,
    woken: Cell<u64>,
}

impl Signals {
    fn wake(&self, core: CoreId) {
        self.woken.set(self.woken.get() | 1 << core.0);
    }
}

struct SimPlatform {
    signals: Rc<Signals>,
    rx: Vec<SimRx>,
    tx: SimTx,
    context: Context,
    shared: Rc<RefCell<Shared>>,
}

impl Platform for SimPlatform {
    type Rx = SimRx;
    type Tx = SimTx;

    fn now(&mut self) -> Instant {
        Instant(self.signals.now.get())
    }

    fn tsc(&mut self) -> u64 {
        self.signals.now.get()
    }

    fn rx_queues(&mut self) -> &mut [SimRx] {
        &mut self.rx
    }

    fn tx_queue(&mut self) -> &mut SimTx {
        &mut self.tx
    }

    fn enter_app(&mut self) -> AppReturn {
        let _not_the_engine = Scope::simulation();
        self.context.run(&mut self.shared.borrow_mut())
    }

    fn control(&mut self, _engine: &mut Engine) {}

    fn app_fault(&mut self, fault: AppFault) {
        panic!("the application is accused: {fault:?}");
    }

    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {}

    fn wake(&mut self, core: CoreId) {
        self.signals.wake(core);
    }
}

struct Core {
    engine: Engine,
    platform: SimPlatform,
}

/// When a core runs next. Apart from the cores, which are large: all are looked at in every step.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    next: Time,
    stalled_until: Time,
}

/// A dataplane in the simulation.
pub struct Machine {
    /// Its address on the network.
    pub id: StationId,
    cores: Vec<Core>,
    /// A core that had connections when somebody asked.
    busy: Cell<usize>,
    /// By core.
    due: Vec<Due>,
    /// When it must run next.
    next: Time,
    nic: SharedCard,
    signals: Rc<Signals>,
    shared: Rc<RefCell<Shared>>,
    user: Arc<UserMap>,
    /// Of an application that is ending.
    old_user: Arc<UserMap>,
    /// What the next one is to open, by core.
    next_plans: Vec<(usize, Vec<(Time, Talk)>)>,
    idle_tick: Time,
    buffers: u64,
    runs: u64,
    bus: Rc<Bus>,
    rng: Rng,
    life: Life,
    lent: Lent,
    /// Calls after which somebody looked, and how often a connection was folded.
    folded: (u64, u64),
    answers: u64,
    /// Given to the engines as `'static`; freed after them.
    area: *mut Area,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Machine {
    /// The machine of a draw, with the conversations that it opens.
    pub fn new(
        id: StationId,
        draw: MachineDraw,
        book: SharedBook,
        talks: Vec<(Time, Talk)>,
        mut rng: Rng,
    ) -> Machine {
        let bus = Rc::new(Bus::default());
        let buffers = u32::from(draw.cores) * draw.buffers;
        let rx_pages = Rc::new(Pages::new(buffers as usize * MBUF_BYTES));
        let rx_bus = bus.attach(&rx_pages);
        // SAFETY: `rx_pages` is that large, used by nobody else but the application, which reads,
        // and lives as long as the machine (in `shared`).
        let area = unsafe { Area::new(rx_pages.ptr(), rx_bus, RX_BASE, draw.cores, draw.buffers) };
        let area = Box::into_raw(Box::new(area));
        // SAFETY: freed when the machine is dropped, after the engines and the NIC.
        let area_ref: &'static Area = unsafe { &*area };
        let rss_key = draw_key(|bytes| rng.fill(bytes));
        let (nic, rxs, hardware) =
            nic::open(&draw, &rss_key, area_ref, Rc::clone(&bus), rng.fork());
        let mut rxs = rxs.into_iter();
        let signals = Rc::new(Signals::default());
        let (heap, user) = memory(&draw, &bus);
        let mut plans: Vec<Vec<_>> = (0..draw.cores).map(|_| Vec::new()).collect();
        for plan in talks {
            plans[rng.below(u64::from(draw.cores)) as usize].push(plan);
        }
        let shared = Shared {
            station: id,
            book,
            rng: rng.fork(),
            draw: draw.clone(),
            heap,
            rx: rx_pages,
            lends: draw.lends + draw.takes > 0,
            opening: BTreeMap::new(),
            depot: BTreeMap::new(),
            binding: None,
            timer_late: 0,
            answers: 0,
        };
        let shared = Rc::new(RefCell::new(shared));
        let mut secret = [0; 16];
        rng.fill(&mut secret);
        let address = Ipv4Config { address: id.ip(), prefix: 24, gateway: None };
        let sizes = mesh::Sizes { frames: draw.mesh, homes: draw.mesh, ..mesh::Sizes::default() };
        let txs = transmit_queues(&draw, hardware, &signals);
        let meshes = mesh::build(draw.cores, sizes);
        let mut cores = Vec::new();
        for (((number, tx), mesh), plan) in (0..draw.cores).zip(txs).zip(meshes).zip(plans) {
            let capabilities = nic.borrow().capabilities();
            let addressing = Addressing::Static(address);
            let mut config =
                Config::new(CoreId(number), draw.cores, id.mac(), capabilities, addressing);
            config.rss_key = rss_key;
            config.secret = secret;
            config.seed = rng.next_u64();
            config.rx_batch = draw.rx_batch;
            config.connections_per_group = draw.connections;
            config.congestion = draw.congestion;
            let headers_pages = Rc::new(Pages::new(TX_HEADER_REGION_BYTES));
            let headers = DmaRegion {
                ptr: headers_pages.ptr(),
                bus: bus.attach(&headers_pages),
                len: TX_HEADER_REGION_BYTES,
            };
            let pool = Pool::new(area_ref, CoreId(number));
            let mut engine = Engine::new(config, pool, mesh, &headers);
            let context = Context::new(usize::from(number), plan);
            attach(&mut engine, number, &context, &user);
            let rx = rxs.next();
            let platform = SimPlatform {
                signals: Rc::clone(&signals),
                rx: rx.into_iter().collect(),
                tx,
                context,
                shared: Rc::clone(&shared),
            };
            cores.push(Core { engine, platform });
        }
        let idle_tick = [MS, 50 * MS, S][rng.below(3) as usize];
        Machine {
            id,
            due: vec![Due::default(); cores.len()],
            next: 0,
            busy: Cell::new(0),
            cores,
            nic,
            signals,
            shared,
            old_user: Arc::clone(&user),
            user,
            next_plans: Vec::new(),
            idle_tick,
            buffers: u64::from(buffers),
            runs: 0,
            bus,
            rng: rng.fork(),
            life: Life::new(&draw),
            lent: Lent::new(&draw),
            folded: (0, 0),
            answers: 0,
            area,
        }
    }

    /// A frame arrives.
    pub fn receive(&mut self, frame: &[u8], now: Time) {
        let mut nic = self.nic.borrow_mut();
        nic.now = now;
        nic.receive(frame);
        for (queue, due) in self.due.iter_mut().enumerate() {
            if nic.has_received(queue) {
                due.next = due.next.min(now);
            }
        }
        drop(nic);
        self.look_ahead();
    }

    /// When it must run next.
    pub fn next_run(&self) -> Time {
        self.next
    }

    /// Something may have changed when it must run next.
    fn look_ahead(&mut self) {
        let gone = self.lent.gone();
        let there = self.due.iter().enumerate().filter(|(at, _)| Some(*at) != gone);
        let cores = there.map(|(_, due)| due.next.max(due.stalled_until)).min();
        let cores = cores.unwrap_or(Time::MAX);
        self.next = cores.min(self.nic.borrow().next_completion()).min(self.life.next());
    }

    /// Runs every core that has something to do, once; `frames` gets what left for the wire.
    pub fn run(&mut self, now: Time, frames: &mut Vec<Vec<u8>>) {
        self.signals.now.set(now);
        faults::set_time(now);
        self.transmit(now, frames);
        let stalls = self.shared.borrow().draw.stalls;
        let gone = self.lent.gone();
        for at in 0..self.due.len() {
            let woken = self.signals.woken.get() & 1 << at != 0;
            let due = &mut self.due[at];
            if due.stalled_until > now || due.next > now && !woken || gone == Some(at) {
                continue;
            }
            if stalls > 0 && self.rng.chance(stalls, 256) {
                due.stalled_until = now + LOOP + self.rng.below(STALL_MAX);
                due.next = due.stalled_until;
                continue;
            }
            let core = &mut self.cores[at];
            self.signals.woken.set(self.signals.woken.get() & !(1 << at));
            let work = {
                let _the_engine = Scope::engine();
                run_once(&mut core.engine, &mut core.platform)
            };
            let nic = self.nic.borrow();
            let received = nic.has_received(at);
            let lingered = core.platform.context.lingered();
            due.next = if work.busy || received || core.engine.has_mail() {
                now + LOOP + lingered
            } else {
                // Nothing tells of a completed frame but the tick.
                let tick = if nic.in_flight() { MS } else { self.idle_tick };
                work.deadline.0.clamp(now + LOOP, now + tick)
            };
            drop(nic);
            self.transmit(now, frames);
            self.look_for_folded(at);
        }
        self.live(now);
        self.runs += 1;
        if self.runs.is_multiple_of(1024) {
            self.check_books();
        }
        let woken = self.signals.woken.get();
        if woken != 0 {
            for (at, due) in self.due.iter_mut().enumerate() {
                if woken & 1 << at != 0 {
                    due.next = due.next.min(now + LOOP);
                }
            }
        }
        self.look_ahead();
    }

    /// After some of the calls that ask or answer: whether the core has folded connections.
    fn look_for_folded(&mut self, at: usize) {
        let answers = std::mem::take(&mut self.shared.borrow_mut().answers);
        self.answers += answers;
        if answers > 0 && self.answers.is_multiple_of(8) {
            self.folded.0 += 1;
            self.folded.1 += u64::from(self.cores[at].engine.conservation().folded > 0);
        }
    }

    /// How often that was looked for, and found.
    pub fn folded(&self) -> (u64, u64) {
        self.folded
    }

    /// What the card sends now.
    fn transmit(&self, now: Time, frames: &mut Vec<Vec<u8>>) {
        let mut nic = self.nic.borrow_mut();
        nic.now = now;
        if nic.next_completion() <= now {
            frames.append(&mut nic.transmit());
        }
    }

    /// Whether the application is done and the engines have forgotten every connection.
    pub fn is_idle(&self) -> bool {
        // The core that was not the last time mostly is not now.
        let cores = || self.cores.iter().enumerate();
        let is_busy = |core: &Core| core.engine.stats().get(Counter::TcpConnections) > 0;
        if is_busy(&self.cores[self.busy.get()]) {
            return false;
        }
        if let Some((at, _)) = cores().find(|(_, core)| is_busy(core)) {
            self.busy.set(at);
            return false;
        }
        self.life.is_over()
            && self.lent.is_over()
            && self.cores.iter().all(|core| core.platform.context.is_idle())
            && self.shared.borrow().depot.is_empty()
            && self.cores.iter().all(|core| core.engine.is_settled())
            && !self.nic.borrow().in_flight()
    }

    /// A counter, over all cores.
    pub fn count(&self, counter: Counter) -> u64 {
        self.cores.iter().map(|core| core.engine.stats().get(counter)).sum()
    }

    /// Drops, over all cores.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.cores.iter().map(|core| core.engine.stats().dropped(reason)).sum()
    }

    /// Buffers that the card has, or that faults keep from everybody.
    fn buffers_of_card(&self) -> usize {
        let queues = self.cores.iter().flat_map(|core| &core.platform.rx);
        self.nic.borrow().buffers() + queues.map(SimRx::hoarded).sum::<usize>()
    }

    /// What must be true at any time: the engines' books agree with themselves.
    pub fn check_books(&self) {
        let mut found = self.buffers_of_card();
        for core in &self.cores {
            let books = core.engine.conservation();
            assert_eq!(books.broken, 0, "{:?}: {books:?}", self.id);
            found += books.free + books.away + books.received + books.transmitting;
            found += books.datagrams + books.held;
        }
        // Others are between cores, or referred to by what is being sent.
        assert!(found as u64 <= self.buffers, "{:?}: {found} buffers of {}", self.id, self.buffers);
    }

    /// What must be true when everything is over: nothing is held, nothing is lost.
    pub fn check_conservation(&self) {
        assert_eq!(self.user.pins_total(), 0, "{:?}: user memory stays pinned", self.id);
        assert!(self.shared.borrow().heap.is_empty(), "{:?}: `sent` did not come for all", self.id);
        // Of the engines themselves: what they publish of that may be a stalled core's of a while ago.
        let books = self.cores.iter().map(|core| core.engine.conservation());
        let books: Vec<_> = books.collect();
        let free = books.iter().map(|books| books.free).sum::<usize>() + self.buffers_of_card();
        let lost = format_args!("{:?}: receive buffers are lost: {books:?}", self.id);
        assert_eq!(free as u64, self.buffers, "{lost}");
        self.check_books();
        self.check_forced();
        for core in &self.cores {
            let books = core.engine.conservation();
            let left = (books.connections, books.segments, books.datagrams);
            assert_eq!(left, (0, 0, 0), "{:?}: {books:?}", self.id);
        }
        // Only of what was piled up, on which the engine's own tests are exact.
        let [copied, all] = [Counter::PayloadCopied, Counter::PayloadIn].map(|of| self.count(of));
        assert!(copied <= all, "{:?}: {copied} bytes of {all} were copied", self.id);
    }

    /// Whether it had to drop frames for want of room.
    pub fn was_short(&self) -> bool {
        let scarcity = [
            DropReason::NoBuffer,
            DropReason::TcpReceiveShare,
            DropReason::TcpReassemblyFull,
            DropReason::SteerFull,
            DropReason::TxRingFull,
            DropReason::UdpQueueFull,
            DropReason::ArpPendingFull,
            DropReason::ArpTimeout,
        ];
        self.nic.borrow().missed > 0 || scarcity.iter().any(|reason| self.dropped(*reason) > 0)
    }

    /// In a clean network, without aborts and with enough room, nothing is sent twice but by loss probes,
    /// which may be in vain (RFC 8985 §7.4), and by timeouts of SYNs that nobody could have answered in
    /// time (`unheard`), and nobody is reset. Timers are exact. Gives the probes.
    pub fn check_calm(&self, unheard: u64) -> u64 {
        let probes = self.count(Counter::TcpLossProbes);
        let again = self.count(Counter::TcpRetransmits);
        let timeouts = self.count(Counter::TcpTimeouts);
        assert!(
            again <= probes + unheard && timeouts <= unheard,
            "{:?}: {again} segments sent again, {probes} probes, {timeouts} timeouts, {unheard} SYNs unheard",
            self.id
        );
        // Nothing overtakes anything either, not even where a group has moved.
        let overtaken = self.count(Counter::TcpOutOfOrder);
        assert_eq!(overtaken, 0, "{:?}: out of order", self.id);
        // A FIN that was a probe in vain is acknowledged twice: the second time there is no connection any more.
        let resets = self.count(Counter::TcpResetsSent);
        assert!(resets <= probes, "{:?}: {resets} resets sent, {probes} probes", self.id);
        let shared = self.shared.borrow();
        let late = shared.timer_late;
        let draw = &shared.draw;
        let exact = draw.preempt == 0 && draw.clutter == 0 && draw.stalls == 0 && draw.lends == 0;
        let exact = exact && self.lent() == (0, 0);
        assert!(!exact || late < TIMER_LATE, "{:?}: a timer was {late} ns late", self.id);
        probes
    }

    /// Everything that is of interest after a failure.
    pub fn dump(&self) {
        for core in &self.cores {
            core.platform.context.dump(self.id);
        }
        let counters = Counter::ALL.iter().map(|c| (c.name(), self.count(*c)));
        let drops = DropReason::ALL.iter().map(|d| (d.name(), self.dropped(*d)));
        let all: Vec<_> = counters.chain(drops).filter(|(_, n)| *n > 0).collect();
        eprintln!("{:?}: {all:?}", self.id);
        let settled = self.cores.iter().map(|core| core.engine.is_settled()).collect::<Vec<_>>();
        eprintln!("{:?}: settled {settled:?}, {:?}, {:?}", self.id, self.lent, self.life);
        let laid: Vec<_> = self.shared.borrow().depot.keys().copied().collect();
        eprintln!("{:?}: laid aside, by group and life: {laid:?}", self.id);
        let nic = self.nic.borrow();
        let (posted, missed) = (nic.buffers(), nic.missed);
        eprintln!("{:?}: {} buffers, {posted} posted, {missed} missed", self.id, self.buffers);
    }
}

/// The application's memory.
fn memory(draw: &MachineDraw, bus: &Bus) -> (Heap, Arc<UserMap>) {
    let heap = Heap::new(draw.heap_pages, bus);
    let user = Arc::new(UserMap::new(draw.heap_pages, draw.cores));
    for (addr, pages, at) in heap.pages() {
        // SAFETY: the bus keeps the pages as long as the machine.
        assert!(unsafe { user.map(addr, pages.ptr().as_ptr() as usize, at) });
    }
    (heap, user)
}

/// Connects a fresh context to its engine.
fn attach(engine: &mut Engine, number: u16, context: &Context, user: &Arc<UserMap>) {
    // SAFETY: the pages live in the context until the application is detached and drained, and only
    // the engine accesses the event page.
    let rings =
        unsafe { AppRings::new(context.rings.event_page.ptr(), context.rings.call_page.ptr()) };
    engine.attach_app(AppPort { context: number, rings, memory: Arc::clone(user) });
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.cores.clear();
        // The NIC holds the last reference to the area.
        self.signals.woken.set(0);
        // SAFETY: made by `Box::into_raw`; engines and pools are gone, and the NIC, whose handles
        // were theirs, does not touch the area when it is dropped.
        drop(unsafe { Box::from_raw(self.area) });
    }
}

/// Core `i` has hardware queue `i` if there are so many; the others go through core `i % queues`.
fn transmit_queues(draw: &MachineDraw, queues: Vec<HwTx>, signals: &Rc<Signals>) -> Vec<SimTx> {
    let mut sources: Vec<Vec<_>> = (0..draw.queues).map(|_| Vec::new()).collect();
    let mut remotes = Vec::new();
    for core in draw.queues..draw.cores {
        let owner = core % draw.queues;
        let signals = Rc::clone(signals);
        let wake: Waker = Box::new(move |core| signals.wake(core));
        let (tx, source) = RemoteTx::new(CoreId(owner), draw.tx_ring, wake);
        sources[usize::from(owner)].push(source);
        remotes.push(SimTx::Remote(tx));
    }
    let hardware = sources.into_iter().zip(queues).map(|(sources, tx)| {
        if sources.is_empty() {
            SimTx::Hardware(tx)
        } else {
            SimTx::Shared(MuxTx::new(tx, draw.tx_ring, sources))
        }
    });
    hardware.chain(remotes).collect()
}
