//! The engine on a machine in memory, driven by `core_loop::turn` as in the kernel.
use crate::app::{self, App};
use crate::memory;
use crate::nic::{RX_RING, Rx, Tx};
use crate::rings::{self, Calls, Events};
use crate::server::Server;
use crate::wire;
use ix_abi::CoreId;
use ix_abi::layout::RX_BASE;
use ix_abi::stats::CoreStats;
use ix_dataplane::app::AppPort;
use ix_dataplane::config::{Addressing, Config, Ipv4Config, initial_owner};
use ix_dataplane::core_loop::turn;
use ix_dataplane::device::{Capabilities, Pseudo};
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::mesh;
use ix_dataplane::platform::{AppFault, AppReturn, Platform, Work};
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::{self, Toeplitz};
use ix_dataplane::time::Instant;
use ix_dataplane::usermem::UserMap;
use std::sync::Arc;

/// Where a frame begins in its buffer: behind virtio's header.
const FRAME_OFFSET: u16 = 12;
const GROUPS: u16 = 128;
/// Payload of the segments that the card merges.
const SEGMENT: u16 = 1448;

/// What an engine gets.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Connections that must fit.
    pub connections: usize,
    /// Receive buffers beside the network card's.
    pub buffers: usize,
    /// The network card verifies and computes checksums and reports the hash.
    pub offload: bool,
    /// It cuts large packets into segments.
    pub tso: bool,
    /// Bound B of a poll.
    pub batch: usize,
}

/// The platform.
#[derive(Debug)]
pub struct Machine<A> {
    now: Instant,
    rx: [Rx; 1],
    tx: Tx,
    events: Events,
    calls: Calls,
    app: A,
}

/// An engine with its machine.
#[derive(Debug)]
pub struct EngineServer<A> {
    engine: Engine,
    machine: Machine<A>,
    area: &'static Area,
    toeplitz: Toeplitz,
    offload: bool,
    work: Work,
    /// A frame, before it is in buffers.
    large: Vec<u8>,
}

impl<A: App> EngineServer<A> {
    /// A dataplane of one core whose application has attached.
    pub fn new(setup: Setup, app: A) -> EngineServer<A> {
        let mut app = Some(app);
        let team = EngineServer::team(setup, 1, |_| app.take().expect("one core"));
        team.into_iter().next().expect("one core")
    }

    /// A dataplane of several cores, its flow groups spread over them; `app` is the application on each.
    pub fn team(
        setup: Setup,
        cores: u16,
        mut app: impl FnMut(CoreId) -> A,
    ) -> Vec<EngineServer<A>> {
        let buffers = setup.buffers + 2 * RX_RING;
        let area = memory::area(cores, buffers as u32, RX_BASE);
        let memory = Arc::new(UserMap::new(1, 1));
        let meshes = mesh::build(cores, mesh::Sizes::default());
        let mut team: Vec<EngineServer<A>> = (0..cores)
            .zip(meshes)
            .map(|(core, mesh)| {
                let core = CoreId(core);
                let config = config(setup, core, cores);
                let toeplitz = Toeplitz::new(&config.rss_key);
                let mut engine =
                    Engine::new(config, Pool::new(area, core), mesh, &memory::headers());
                let (events, calls, rings) = rings::pair();
                let mut app = app(core);
                if core.0 == 0 {
                    app.start(&memory);
                }
                let memory = Arc::clone(&memory);
                engine.attach_app(AppPort { context: core.0, rings, memory });
                let (rx, tx) = ([Rx::default()], Tx::default());
                let machine = Machine { now: Instant(0), rx, tx, events, calls, app };
                let work = Work { busy: true, deadline: Instant(0) };
                let (offload, large) = (setup.offload, vec![0; 1 << 16]);
                EngineServer { engine, machine, area, toeplitz, offload, work, large }
            })
            .collect();
        // It listens, and all cores have heard of it.
        for _ in 0..4 {
            team.iter_mut().for_each(Server::turn);
        }
        team.iter_mut().for_each(|server| server.machine.tx.skip());
        team
    }

    /// The core that a card with a queue for each would give a frame to.
    pub fn core_of(&self, frame: &[u8], cores: u16) -> CoreId {
        if frame[12..14] != [8, 0] {
            return CoreId(0);
        }
        initial_owner(rss::group_of(hash(&self.toeplitz, frame), GROUPS), cores)
    }

    /// The engine.
    pub fn engine(&mut self) -> &mut Engine {
        &mut self.engine
    }

    /// The application.
    pub fn app(&mut self) -> &mut A {
        &mut self.machine.app
    }

    /// What the last turn found to do, and when the next must be.
    pub fn work(&self) -> Work {
        self.work
    }

    /// The counters.
    pub fn stats(&self) -> &CoreStats {
        self.engine.stats()
    }
}

/// A frame's hash.
fn hash(toeplitz: &Toeplitz, frame: &[u8]) -> u32 {
    let half = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let ip = |at: usize| frame[at..at + 4].try_into().expect("four");
    toeplitz.hash_v4(ip(26), ip(30), half(34), half(36))
}

fn config(setup: Setup, core: CoreId, cores: u16) -> Config {
    let capabilities = Capabilities {
        tx_checksum: setup.offload,
        rx_checksum: setup.offload,
        rss: cores > 1,
        tso: if setup.tso { u16::MAX } else { 0 },
        gso_pseudo: Pseudo::WithLength,
        hash_report: setup.offload,
        queue_pairs: cores,
        groups: GROUPS,
        mtu: 1500,
    };
    let address = Ipv4Config { address: wire::SERVER, prefix: 24, gateway: Some(wire::ROUTER) };
    let addressing = Addressing::Static(address);
    let mut config = Config::new(core, cores, wire::SERVER_MAC, capabilities, addressing);
    // The hash does not spread them evenly.
    let even = setup.connections as u32 / u32::from(GROUPS);
    config.connections_per_group = (even + even / 4).max(4096);
    let mut rng = Rng::from_seed(1);
    config.rss_key = rss::draw_key(|bytes| rng.fill(bytes));
    rng.fill(&mut config.secret);
    config.seed = rng.next_u64() ^ u64::from(core.0);
    config.rx_batch = setup.batch;
    config
}

impl<A: App> Server for EngineServer<A> {
    fn deliver(&mut self, _i: usize, fill: &mut dyn FnMut(&mut [u8]) -> usize) {
        let (area, toeplitz, offload) = (self.area, &self.toeplitz, self.offload);
        let len = fill(&mut self.large);
        let (frame, beyond) =
            self.large[..len].split_at(len.min(MBUF_BYTES - usize::from(FRAME_OFFSET)));
        self.machine.rx[0].arrive(|mbuf| {
            let len = frame.len();
            area.data_mut(mbuf)[usize::from(FRAME_OFFSET)..][..len].copy_from_slice(frame);
            let known = (offload && frame[12..14] == [8, 0]).then(|| hash(toeplitz, frame));
            (FRAME_OFFSET, len as u16, known)
        });
        if !beyond.is_empty() {
            self.machine.rx[0].go_on(area, beyond, SEGMENT);
        }
    }

    fn hold(&mut self, held: bool) {
        self.machine.rx[0].hold(held);
    }

    #[inline]
    fn show(&mut self) {
        self.machine.rx[0].show();
    }

    #[inline]
    fn turn(&mut self) {
        self.work = turn(&mut self.engine, &mut self.machine);
    }

    fn waiting(&self) -> usize {
        self.machine.rx[0].waiting()
    }

    fn next_sent(&mut self, bytes: &mut Vec<u8>) -> bool {
        self.machine.tx.next(bytes)
    }

    fn now_ns(&self) -> u64 {
        self.machine.now.0
    }

    fn pass_ns(&mut self, ns: u64) {
        self.machine.now.0 += ns;
    }

    fn verify(&self) -> bool {
        !self.offload
    }

    fn explain(&self) -> String {
        format!("{:?}", self.engine.stats())
    }
}

impl<A: App> Platform for Machine<A> {
    type Rx = Rx;
    type Tx = Tx;
    #[inline]
    fn now(&mut self) -> Instant {
        self.now
    }
    #[inline]
    fn tsc(&mut self) -> u64 {
        0
    }
    #[inline]
    fn rx_queues(&mut self) -> &mut [Rx] {
        &mut self.rx
    }
    #[inline]
    fn tx_queue(&mut self) -> &mut Tx {
        &mut self.tx
    }
    #[inline]
    fn enter_app(&mut self) -> AppReturn {
        app::enter(&mut self.app, &mut self.events, &mut self.calls);
        AppReturn::Entered
    }
    #[inline]
    fn control(&mut self, _engine: &mut Engine) {}
    fn app_fault(&mut self, fault: AppFault) {
        panic!("{fault:?}");
    }
    fn publish(&mut self, _stats: &CoreStats, _measure: &ix_dataplane::measure::Measure) {}
    fn wake(&mut self, _core: CoreId) {}
}
