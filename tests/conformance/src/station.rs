//! One engine of one core, with its memory, its NIC, its application and a clock that others set.
#![allow(unsafe_code, reason = "makes the memory that an engine runs on")]
use crate::frame::{ENGINE_MAC, ENGINE_V4, ENGINE_V6};
use crate::nic::{Rx, Tx};
use crate::player::Player;
use crate::rings::Context;
use crate::settings::Settings;
use ix_abi::CoreId;
use ix_abi::layout::{HEAP_BASE, PAGE_BYTES, RX_BASE};
use ix_abi::stats::CoreStats;
use ix_dataplane::app::AppPort;
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::{BusAddr, Capabilities, DmaRegion, Pseudo};
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::mesh;
use ix_dataplane::message::Message;
use ix_dataplane::platform::{AppFault, AppReturn, Platform, Work};
use ix_dataplane::rings::AppRings;
use ix_dataplane::slaac::Mode;
use ix_dataplane::time::Instant;
use ix_dataplane::usermem::UserMap;
use std::alloc::{Layout, alloc_zeroed};
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

/// Pages of 2 MiB of the application's heap.
const HEAP_PAGES: u32 = 4;
/// Slots of the receive and of the transmit ring.
const RING: usize = 256;

/// Zeroed memory that lives for ever. Aligned by hand: what the allocator aligns beyond its own measure it
/// zeroes by writing, and most of this is never touched.
fn leak(bytes: usize, align: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes + align, 16).expect("a layout");
    // SAFETY: no caller asks for 0 bytes.
    let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
    let ahead = memory.as_ptr().align_offset(align);
    // SAFETY: less than `align` bytes ahead, which were asked for besides.
    unsafe { memory.add(ahead) }
}

/// What is around the engine.
pub struct Machine {
    /// The clock.
    pub now: Instant,
    /// Frames to the engine, and from it.
    pub rx: [Rx; 1],
    /// See `rx`.
    pub tx: Tx,
    /// The application.
    pub player: Player,
    context: Context,
    faults: Vec<AppFault>,
    tsc: u64,
}

impl Platform for Machine {
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
        self.player.run(&mut self.context);
        self.context.flush();
        AppReturn::Entered
    }

    fn control(&mut self, _engine: &mut Engine) {}

    fn app_fault(&mut self, fault: AppFault) {
        self.faults.push(fault);
    }

    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {}

    fn wake(&mut self, _core: CoreId) {}
}

/// The whole.
pub struct Station {
    /// The engine.
    pub engine: Engine,
    /// What is around it.
    pub machine: Machine,
    area: &'static Area,
    memory: Arc<UserMap>,
}

impl fmt::Debug for Station {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Station").finish_non_exhaustive()
    }
}

impl Station {
    /// An engine with an application that has done nothing yet.
    pub fn new(settings: &Settings) -> Station {
        let rx_data = leak(settings.buffers as usize * MBUF_BYTES, 4096);
        let bus = BusAddr(rx_data.as_ptr() as u64);
        // SAFETY: `rx_data` is leaked, of that size; only the application reads it besides.
        let area = unsafe { Area::new(rx_data, bus, RX_BASE, 1, settings.buffers) };
        let area: &'static Area = Box::leak(Box::new(area));
        let headers = leak(TX_HEADER_REGION_BYTES, 4096);
        let headers = DmaRegion {
            ptr: headers,
            bus: BusAddr(headers.as_ptr() as u64),
            len: TX_HEADER_REGION_BYTES,
        };
        let mut ends = mesh::build::<Message>(1, mesh::Sizes::default());
        let end = ends.pop().expect("one end");
        let mut engine = Engine::new(config(settings), Pool::new(area, CoreId(0)), end, &headers);
        let (context, memory) = attach(&mut engine, rx_data, area.bytes());
        let mut rx = Rx::new(area, RING);
        rx.offload = settings.offload;
        let machine = Machine {
            now: Instant(1_000_000_000),
            rx: [rx],
            tx: Tx::new(RING, settings.tso, Pseudo::WithLength),
            player: Player::new(settings.returns),
            context,
            faults: Vec::new(),
            tsc: 0,
        };
        Station { engine, machine, area, memory }
    }

    /// One iteration of the core loop; then the NIC works.
    pub fn step(&mut self, now: Instant) -> Work {
        self.machine.now = now;
        let work = run_once(&mut self.engine, &mut self.machine);
        self.machine.tx.work();
        work
    }

    /// What is wrong with the books: buffers that are nowhere, pins without connections.
    pub fn audit(&self) -> Result<(), String> {
        let books = self.engine.conservation();
        let found = books.free
            + books.away
            + books.received
            + books.transmitting
            + books.datagrams
            + self.machine.rx[0].posted();
        let all = self.area.buffers() as usize;
        if found != all || books.broken != 0 || !self.machine.faults.is_empty() {
            return Err(format!("{found} of {all} buffers are somewhere: {books:?}"));
        }
        let pins = self.memory.pins_total();
        if books.segments == 0 && pins != 0 {
            return Err(format!("{pins} pins of memory and no segment"));
        }
        Ok(())
    }
}

fn config(settings: &Settings) -> Config {
    let capabilities = Capabilities {
        tx_checksum: settings.offload,
        rx_checksum: settings.offload,
        tso: settings.tso,
        gso_pseudo: Pseudo::WithLength,
        rss: false,
        hash_report: false,
        queue_pairs: 1,
        groups: settings.groups,
        mtu: settings.mtu,
    };
    let addressing =
        Ipv4Config { address: ENGINE_V4.octets(), prefix: 24, gateway: Some([10, 0, 0, 254]) };
    let addressing = Addressing::Static(addressing);
    let mut config = Config::new(CoreId(0), 1, ENGINE_MAC, capabilities, addressing);
    config.seed = settings.seed;
    config.secret = [settings.seed as u8; 16];
    config.rss_key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
    config.reassemble = settings.fragments;
    config.ecn = settings.ecn;
    config.ipv6 = Mode::Static { address: ENGINE_V6.octets(), prefix: 64, gateway: None };
    config.congestion = settings.congestion;
    config.profile = settings.profile;
    config.connections_per_group = settings.connections;
    config
}

/// The application's rings and heap.
fn attach(engine: &mut Engine, rx: NonNull<u8>, rx_bytes: u64) -> (Context, Arc<UserMap>) {
    let page = PAGE_BYTES as usize;
    let heap = leak(HEAP_PAGES as usize * page, page);
    let memory = Arc::new(UserMap::new(HEAP_PAGES, 1));
    for i in 0..u64::from(HEAP_PAGES) {
        let at = heap.as_ptr() as usize + i as usize * page;
        // SAFETY: a page of the heap, which is leaked.
        let mapped = unsafe { memory.map(HEAP_BASE + i * PAGE_BYTES, at, BusAddr(at as u64)) };
        assert!(mapped);
    }
    let (events, calls) = (leak(page, page), leak(page, page));
    let mut context = Context::new(events.as_ptr(), calls.as_ptr());
    context.heap = heap.as_ptr();
    context.heap_bytes = u64::from(HEAP_PAGES) * PAGE_BYTES;
    context.rx = rx.as_ptr();
    context.rx_bytes = rx_bytes;
    // SAFETY: both are leaked whole pages, aligned to their size; `context` plays the application.
    let rings = unsafe { AppRings::new(events, calls) };
    engine.attach_app(AppPort { context: 0, rings, memory: Arc::clone(&memory) });
    (context, memory)
}
