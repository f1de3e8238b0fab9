//! One machine: engines of one or more cores, their platform, their application.
use super::app::{App, Context};
use super::family;
use super::nic::{Rx, Tx};
use ix_abi::CoreId;
use ix_abi::layout::{CONTEXT_BASE, HEAP_BASE, PAGE_BYTES, RX_BASE, context_base};
use ix_abi::stats::{CoreStats, Counter, Drop as Reason};
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
use ix_dataplane::time::Instant;
use ix_dataplane::usermem::UserMap;
use std::alloc::{Layout, alloc_zeroed};
use std::ptr::NonNull;
use std::sync::Arc;

/// Zeroed memory that lives for ever. Aligned here: what the allocator aligns it also writes zeroes to, and hundreds of tests
/// in one process touch little of what they get.
pub fn leak(bytes: usize, align: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes + align, 1).unwrap();
    // SAFETY: `align` is not 0.
    let start = unsafe { alloc_zeroed(layout) };
    assert!(!start.is_null(), "no memory for {bytes} bytes");
    // SAFETY: at most `align` bytes are passed over, so that `bytes` are left.
    NonNull::new(unsafe { start.add(start.align_offset(align)) }).expect("within the block")
}

pub struct Machine {
    pub now: Instant,
    pub rx: Vec<Rx>,
    pub tx: Tx,
    pub app: Option<Box<dyn App>>,
    pub context: Context,
    pub faults: Vec<AppFault>,
    pub woken: Vec<CoreId>,
    pub published: u64,
    pub tsc: u64,
    /// The application does not return.
    pub hang: bool,
    /// The core is elsewhere.
    pub frozen: bool,
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
        if self.hang {
            return AppReturn::Preempted;
        }
        match &mut self.app {
            Some(app) => {
                app.run(&mut self.context);
                self.context.flush();
                AppReturn::Entered
            }
            None => AppReturn::Ended,
        }
    }

    fn control(&mut self, _engine: &mut Engine) {}

    fn app_fault(&mut self, fault: AppFault) {
        self.faults.push(fault);
    }

    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {
        self.published += 1;
    }

    fn wake(&mut self, core: CoreId) {
        self.woken.push(core);
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Setup {
    pub cores: u16,
    pub address: [u8; 4],
    pub gateway: Option<[u8; 4]>,
    pub dhcp: bool,
    pub seed: u64,
    pub buffers: u32,
    pub rx_depth: usize,
    pub tx_depth: usize,
    pub heap_pages: u32,
    pub offload: bool,
    pub mtu: u16,
    /// Segmentation by the NIC: the largest IP packet.
    pub tso: u16,
    pub gso_pseudo: Pseudo,
    pub groups: u16,
    pub connections: u32,
    /// Changes each engine's configuration.
    pub configure: fn(&mut Config),
}

impl Setup {
    pub fn new(last: u8) -> Setup {
        Setup {
            cores: 1,
            address: [10, 0, 0, last],
            gateway: None,
            dhcp: false,
            seed: u64::from(last),
            buffers: 1024,
            rx_depth: 256,
            tx_depth: 256,
            heap_pages: 4,
            offload: false,
            mtu: 1500,
            tso: 0,
            gso_pseudo: Pseudo::WithLength,
            groups: 8,
            connections: 1024,
            configure: |_| (),
        }
    }

    pub fn mac(&self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.address[3]]
    }
}

pub struct Station {
    pub setup: Setup,
    pub engines: Vec<Engine>,
    pub machines: Vec<Machine>,
    pub area: &'static Area,
    pub memory: Arc<UserMap>,
    heap: NonNull<u8>,
    rx_data: NonNull<u8>,
}

impl Station {
    pub fn new(setup: Setup) -> Station {
        let bytes = usize::from(setup.cores) * setup.buffers as usize * MBUF_BYTES;
        let rx_data = leak(bytes, 4096);
        let bus = BusAddr(rx_data.as_ptr() as u64);
        // SAFETY: `rx_data` is leaked, of that size; only the application reads it besides.
        let area = unsafe { Area::new(rx_data, bus, RX_BASE, setup.cores, setup.buffers) };
        let area: &'static Area = Box::leak(Box::new(area));
        let heap = leak(setup.heap_pages as usize * PAGE_BYTES as usize, PAGE_BYTES as usize);
        let capabilities = Capabilities {
            tx_checksum: setup.offload,
            rx_checksum: setup.offload,
            rss: false,
            hash_report: false,
            queue_pairs: 1,
            groups: setup.groups,
            mtu: setup.mtu,
            tso: setup.tso,
            gso_pseudo: setup.gso_pseudo,
        };
        let gateway = setup.gateway;
        let addressing = if setup.dhcp {
            Addressing::Dhcp
        } else {
            Addressing::Static(Ipv4Config { address: setup.address, prefix: 24, gateway })
        };
        let mut engines = Vec::new();
        let mut machines = Vec::new();
        let ends = mesh::build::<Message>(setup.cores, mesh::Sizes::default());
        for (core, end) in ends.into_iter().enumerate() {
            let core = CoreId(core as u16);
            let mut config = Config::new(core, setup.cores, setup.mac(), capabilities, addressing);
            config.seed = setup.seed + u64::from(core.0);
            config.secret = [setup.seed as u8; 16];
            config.rss_key = std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a);
            config.connections_per_group = setup.connections;
            config.ipv6 = family::mode(setup.address);
            (setup.configure)(&mut config);
            let headers = leak(TX_HEADER_REGION_BYTES, 4096);
            let headers = DmaRegion {
                ptr: headers,
                bus: BusAddr(headers.as_ptr() as u64),
                len: TX_HEADER_REGION_BYTES,
            };
            engines.push(Engine::new(config, Pool::new(area, core), end, &headers));
            let mut rx = Vec::new();
            if core.0 == 0 {
                let mut queue = Rx::new(area, setup.rx_depth);
                queue.offload = setup.offload;
                rx.push(queue);
            }
            machines.push(Machine {
                now: Instant(1_000_000),
                rx,
                tx: Tx::new(setup.tx_depth, setup.tso, setup.gso_pseudo),
                app: None,
                context: Context::new(std::ptr::null_mut(), std::ptr::null_mut()),
                faults: Vec::new(),
                woken: Vec::new(),
                published: 0,
                tsc: 1,
                hang: false,
                frozen: false,
            });
        }
        let memory = Arc::new(UserMap::new(setup.heap_pages, setup.cores));
        Station { setup, engines, machines, area, memory, heap, rx_data }
    }

    /// Starts an application on every core; the first core's instance is `app`, the others' come
    /// from `others`.
    pub fn start(&mut self, apps: Vec<Box<dyn App>>) {
        let page = PAGE_BYTES as usize;
        self.memory = Arc::new(UserMap::new(self.setup.heap_pages, self.setup.cores));
        for i in 0..u64::from(self.setup.heap_pages) {
            let at = self.heap.as_ptr() as usize + i as usize * page;
            // SAFETY: a page of the heap, which is leaked.
            let mapped =
                unsafe { self.memory.map(HEAP_BASE + i * PAGE_BYTES, at, BusAddr(at as u64)) };
            assert!(mapped);
        }
        for (core, app) in apps.into_iter().enumerate() {
            let events = leak(page, page);
            let calls = leak(page, page);
            assert_eq!(context_base(0), CONTEXT_BASE);
            let mut context = Context::new(events.as_ptr(), calls.as_ptr());
            context.heap = self.heap.as_ptr();
            context.heap_bytes = u64::from(self.setup.heap_pages) * PAGE_BYTES;
            context.rx = self.rx_data.as_ptr();
            context.rx_bytes = self.area.bytes();
            // SAFETY: both are leaked whole pages, aligned to their size; `context` plays the application.
            let rings = unsafe { AppRings::new(events, calls) };
            let memory = Arc::clone(&self.memory);
            self.engines[core].attach_app(AppPort { context: core as u16, rings, memory });
            self.machines[core].context = context;
            self.machines[core].app = Some(app);
        }
    }

    /// One iteration of each core; the device works in between.
    pub fn step(&mut self, now: Instant) -> Work {
        let mut all = Work { busy: false, deadline: Instant::NEVER };
        for (engine, machine) in self.engines.iter_mut().zip(&mut self.machines) {
            if machine.frozen {
                continue;
            }
            machine.now = now;
            let work = run_once(engine, machine);
            machine.tx.work();
            all.busy |= work.busy;
            all.deadline = all.deadline.min(work.deadline);
        }
        all
    }

    pub fn app<T: 'static>(&mut self, core: usize) -> &mut T {
        self.machines[core].app.as_mut().unwrap().as_any().downcast_mut().unwrap()
    }

    pub fn count(&self, counter: Counter) -> u64 {
        self.engines.iter().map(|engine| engine.stats().get(counter)).sum()
    }

    pub fn dropped(&self, reason: Reason) -> u64 {
        self.engines.iter().map(|engine| engine.stats().dropped(reason)).sum()
    }

    /// Every receive buffer is in exactly one place.
    #[track_caller]
    pub fn assert_buffers_conserved(&self) {
        let mut found = 0;
        for (engine, machine) in self.engines.iter().zip(&self.machines) {
            let books = engine.conservation();
            assert_eq!(books.broken, 0, "{books:?}");
            found +=
                books.free + books.away + books.received + books.transmitting + books.datagrams;
            found += machine.rx.iter().map(Rx::posted).sum::<usize>();
        }
        let all = self.area.buffers() as usize;
        assert_eq!(found, all, "{:?}", self.engines[0].conservation());
    }

    /// Nothing is left of any connection, and no reference to the application's memory.
    #[track_caller]
    pub fn assert_all_quiet(&self) {
        self.assert_buffers_conserved();
        for engine in &self.engines {
            let books = engine.conservation();
            assert_eq!((books.connections, books.segments, books.received), (0, 0, 0), "{books:?}");
        }
        assert_eq!(self.memory.pins_total(), 0);
    }
}
