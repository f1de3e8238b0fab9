//! A virtio-net device whose every answer is the input's, under the real driver: by itself, and with
//! an engine on top. Whatever it says: no panic, no buffer lost or there twice, no frame counted twice,
//! errors counted, and after a reset everything is there again.
use crate::engine::{App, Mood, Wire, wire};
use crate::fake::memory::{Buffers, FakeDma};
use crate::fake::queue::{Chain, scatter};
use crate::fake::{Device, Fake, FakeMmio, Model, Rng};
use crate::input::Input;
use crate::memory::Ram;
use crate::trace::tell;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{CoreStats, Drop as Reason};
use ix_abi::{CoreId, layout::PAGE_BYTES};
use ix_dataplane::app::{AppPort, Drain};
use ix_dataplane::config::{Addressing, Config, Ipv4Config};
use ix_dataplane::core_loop::run_once;
use ix_dataplane::device::{
    Dma, NicControl, NicRx, NicTx, RxBatch, RxFrame, RxQueue, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::engine::Engine;
use ix_dataplane::limits::{MBUF_BYTES, TX_HEADER_REGION_BYTES};
use ix_dataplane::mbuf::Pool;
use ix_dataplane::message::Message;
use ix_dataplane::platform::{AppFault, AppReturn, Platform};
use ix_dataplane::time::{Duration, Instant};
use ix_dataplane::usermem::UserMap;
use ix_dataplane::{mesh, rss::KEY_BYTES};
use ix_virtio_net::{Config as PortConfig, Features, Port, Progress, Stopped, VirtioRx, VirtioTx};
use std::cell::Cell;
use std::sync::Arc;

const BUFFERS: u32 = 96;
const STEPS_MAX: usize = 300;
/// `DEVICE_NEEDS_RESET` (virtio 1.2 §2.1).
const NEEDS_RESET: u8 = 0x40;
/// `FAILED`, which only a driver may say.
const FAILED: u8 = 0x80;

/// The device, and what it has taken and not completed.
struct Liar {
    fake: Fake,
    posted: Vec<Chain>,
    heads: Vec<u16>,
}

fn buffers() -> &'static Buffers {
    thread_local! {
        static BUFFERS_OF_THREAD: &'static Buffers = Box::leak(Box::new(Buffers::new(1, BUFFERS)));
    }
    BUFFERS_OF_THREAD.with(|buffers| *buffers)
}

/// A millisecond passes with each look, so that deadlines come.
fn ticking() -> impl Fn() -> Instant {
    let now = Cell::new(0);
    move || {
        now.set(now.get() + 1_000_000);
        Instant(now.get())
    }
}

/// Opens a port over a device that is as the input says; `None` if the driver will not have it.
fn open(buffers: &Buffers, input: &mut Input<'_>) -> Option<(Liar, Port<FakeMmio>)> {
    buffers.clear();
    let how = input.u16();
    let mut model = Model { queue_size: 32 << (how & 1), pairs_max: 1, ..Model::default() };
    if how & 2 != 0 {
        // Registers that lie from the beginning.
        model.noise = Some(Rng(input.u64()));
    }
    if how & 4 != 0 {
        model.ack = Some(input.u8());
    }
    if how & 8 != 0 {
        model.offered = input.u64() | Features::VERSION_1.bits();
    }
    if how & 16 != 0 {
        model.mtu = input.u16();
        model.config_changes_always = input.u8() == 0;
        model.refuse_features = input.u8() == 0;
    }
    if how & 32 != 0 && input.u8() == 0 {
        model.ack = None;
    }
    let fake = Fake::new(buffers.memory.clone(), model);
    let optional = [
        Features::INDIRECT_DESC,
        Features::HASH_REPORT,
        Features::GUEST_CSUM,
        Features::CSUM,
        Features::RSS,
    ];
    let mut decline = Features::empty();
    for (bit, feature) in optional.into_iter().enumerate() {
        if how >> (6 + bit) & 1 != 0 {
            decline |= feature;
        }
    }
    let clock = ticking();
    let config = PortConfig {
        area: buffers.area,
        queue_pairs: 1,
        rx_ring: 8 << (how >> 12 & 3),
        tx_ring: 64,
        rss_key: std::array::from_fn(|i| (i as u8).wrapping_mul(37) ^ 0x5a),
        first_vector: (how & 1 << 14 != 0).then_some(1),
        fallback_mac: [2, 0, 0, 0, 0, 1],
        mtu: None,
        decline,
        clock: &clock,
    };
    let mut dma = FakeDma { memory: buffers.memory.clone(), allocations_left: usize::MAX };
    if how & 1 << 15 != 0 {
        dma.allocations_left = usize::from(input.u8() & 15);
    }
    match Port::open(fake.transport(), &mut dma, &config) {
        Ok(port) => Some((Liar { fake, posted: Vec::new(), heads: Vec::new() }, port)),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            None
        }
    }
}

impl Liar {
    fn with<T>(&mut self, run: impl FnOnce(&mut Device, &mut Vec<Chain>, &mut Vec<u16>) -> T) -> T {
        let Liar { fake, posted, heads } = self;
        fake.with(|device| run(device, posted, heads))
    }

    /// Takes what the driver has made available; the frames that were sent.
    fn take(&mut self) -> Vec<Vec<u8>> {
        self.with(|d, posted, heads| {
            let memory = d.memory.clone();
            while posted.len() < 256 {
                let Some(chain) = d.queues[0].take(&memory) else { break };
                posted.push(chain);
            }
            let mut frames = Vec::new();
            while heads.len() < 256 {
                let Some((chain, _, frame)) = d.take_transmit(0) else { break };
                heads.push(chain.head);
                frames.push(frame);
            }
            frames
        })
    }

    /// A frame comes in, with what the input says of it.
    fn deliver(&mut self, frame: &[u8], input: &mut Input<'_>) {
        let how = input.u8();
        let mut header = [0; 20];
        header[10] = if how & 0xc0 == 0xc0 { input.u8() } else { 1 };
        if how & 1 != 0 {
            header[0] = input.u8();
            header[6..10].copy_from_slice(&input.u32().to_le_bytes());
        }
        if how & 2 != 0 {
            header[12..16].copy_from_slice(&input.u32().to_le_bytes());
            header[16..18].copy_from_slice(&u16::from(input.u8() & 15).to_le_bytes());
        }
        let at = if how & 4 != 0 { usize::from(input.u8()) } else { 0 };
        let wrong = (how & 0x18 == 0x18).then(|| input.u32() >> input.below(32));
        self.with(|d, posted, _| {
            if posted.is_empty() {
                return;
            }
            let chain = posted.remove(at % posted.len());
            let memory = d.memory.clone();
            let bytes = [&header[..d.header_bytes()], frame].concat();
            let written = scatter(&memory, &chain, &bytes);
            d.queues[0].complete(&memory, u32::from(chain.head), wrong.unwrap_or(written));
        });
    }

    /// Sent frames are complete, in whatever order.
    fn complete(&mut self, input: &mut Input<'_>) {
        for _ in 0..1 + input.below(16) {
            let at = usize::from(input.u8());
            self.with(|d, _, heads| {
                if !heads.is_empty() {
                    let head = heads.remove(at % heads.len());
                    let memory = d.memory.clone();
                    d.queues[1].complete(&memory, u32::from(head), 0);
                }
            });
        }
    }

    /// All sent frames are complete.
    fn complete_all(&mut self) {
        self.with(|d, _, heads| {
            let memory = d.memory.clone();
            for head in heads.drain(..) {
                d.queues[1].complete(&memory, u32::from(head), 0);
            }
        });
    }

    /// What no device may do.
    fn lie(&mut self, input: &mut Input<'_>) {
        let what = input.u8();
        let (id, len) = (input.u16(), input.u32() >> input.below(32));
        let byte = input.u8();
        tell!("  lie {what} {id} {len} {byte}");
        self.with(|d, _, _| {
            let memory = d.memory.clone();
            let control = d.control_queue();
            let which = match what >> 5 {
                0 if control < d.queues.len() && d.queues[control].enabled => control,
                n => usize::from(n & 1),
            };
            match what & 15 {
                0 => return d.status |= byte & (NEEDS_RESET | FAILED),
                1 => return d.status |= NEEDS_RESET,
                2 => return d.model.link_up ^= true,
                3 => return d.model.mtu = id,
                4 => return d.model.ack = (byte != 0).then_some(byte),
                5 => return d.model.config_changes_always ^= true,
                _ => {}
            }
            let queue = &mut d.queues[which];
            if !queue.enabled {
                return;
            }
            queue.lied = true;
            match what & 15 {
                6 => queue.jump(&memory, id),
                7 => queue.jump(&memory, 1),
                8 | 9 => {
                    let position = queue.used().wrapping_sub(u16::from(byte & 7));
                    queue.write_used(&memory, position, u32::from(id), len);
                }
                10 => queue.want_notifications(&memory, byte & 1 == 0),
                11 => queue.complete(&memory, u32::from(id) << 16 | u32::from(byte), len),
                _ => queue.complete(&memory, u32::from(id % queue.size), len),
            }
        });
    }
}

/// The control part: commands and looks, none of which may wait for ever.
fn control(port: &mut ix_virtio_net::Control<FakeMmio>, now: Instant, input: &mut Input<'_>) {
    match input.below(6) {
        0 => {
            let _set = port.set_reta(u16::from(input.u8()), u16::from(input.u8() & 1));
        }
        1 => {
            let _sent = port.commit(now);
        }
        2 => {
            if let Progress::Failed(error) = port.poll(now) {
                assert!(!error.to_string().is_empty());
            }
        }
        3 => {
            port.read_link_up();
        }
        4 => {
            port.read_needs_reset();
        }
        _ => {
            port.acknowledge_intx();
        }
    }
}

/// The driver by itself.
pub fn driver(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let buffers = buffers();
    let Some((mut liar, mut port)) = open(buffers, &mut input) else { return };
    let mut pool = Pool::new(buffers.area, CoreId(0));
    let mut dma = FakeDma { memory: buffers.memory.clone(), allocations_left: usize::MAX };
    let region = dma.alloc(2048, 1).expect("memory for a frame");
    let (mut held, mut pushed, mut reclaimed) = (Vec::new(), 0_u32, 0_u32);
    let mut now = Instant(0);
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        tell!("step {}", what & 15);
        match what & 15 {
            0 | 1 => port.rx[0].replenish(&mut pool),
            2 | 3 => {
                let mut batch = RxBatch::new();
                let count = port.rx[0].poll(usize::from(what >> 4) * 4, &mut batch);
                assert_eq!(count, batch.len());
                held.extend(batch);
            }
            4 => {
                for frame in held.drain(..) {
                    let end = usize::from(frame.offset) + usize::from(frame.len);
                    assert!(end <= MBUF_BYTES && frame.len >= 14);
                    pool.free(frame.mbuf);
                    frame.rest.free(&mut pool);
                }
            }
            5 | 6 => {
                let mut frame = TxFrame::default();
                for piece in 0..=u64::from(what >> 4) {
                    let bus = region.bus.offset(piece * 20);
                    frame.fragments.push(ix_dataplane::device::Fragment { bus, len: 20 });
                }
                pushed += u32::from(port.tx[0].push(&frame).is_ok());
                if what & 16 != 0 {
                    port.tx[0].kick();
                }
            }
            7 => reclaimed += port.tx[0].reclaim(),
            8 => {
                port.rx[0].arm_interrupt();
                port.rx[0].disarm_interrupt();
            }
            9 => control(&mut port.control, now, &mut input),
            10 => {
                liar.take();
            }
            11 => liar.complete(&mut input),
            12 | 13 => {
                liar.take();
                let len = 14 + usize::from(input.u8());
                let mut frame = input.take(len).to_vec();
                frame.resize(len, 0x45);
                liar.deliver(&frame, &mut input);
            }
            14 => liar.lie(&mut input),
            _ => now = now + Duration(u64::from(input.u8()) << 26),
        }
        let buffers = |frame: &RxFrame| 1 + frame.rest.pieces(pool.area()).count();
        let in_frames: usize = held.iter().map(buffers).sum();
        let total = pool.available() + in_frames + port.rx[0].held();
        assert_eq!(total, BUFFERS as usize, "buffers are lost or there twice");
        assert!(port.rx[0].outstanding() <= port.rx[0].ring_len());
        assert_eq!(reclaimed + u32::from(port.tx[0].in_flight()), pushed, "frames miscounted");
    }
    for frame in held {
        pool.free(frame.mbuf);
        frame.rest.free(&mut pool);
    }
    let stopped = reset(&liar, &mut port.control);
    port.rx.remove(0).release(&stopped, &mut pool);
    reclaimed += port.tx.remove(0).abandon(&stopped);
    assert_eq!(reclaimed, pushed);
    let mut seen = [false; BUFFERS as usize];
    while let Some(mbuf) = pool.alloc() {
        let index = mbuf.into_raw() as usize;
        assert!(!std::mem::replace(&mut seen[index], true), "buffer {index} is there twice");
    }
    assert!(seen.iter().all(|there| *there), "a buffer is gone");
}

/// Resets the device, which is honest now.
fn reset(liar: &Liar, control: &mut ix_virtio_net::Control<FakeMmio>) -> Stopped {
    liar.fake.with(|d| d.model.noise = None);
    control.reset(&ticking()).expect("an honest device resets")
}

/// A receive queue until its device is reset.
struct Rx {
    queue: Option<VirtioRx<FakeMmio>>,
    stopped: Option<Stopped>,
    errors: u64,
}

impl RxQueue for Rx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        self.queue.as_mut().map_or(0, |queue| queue.poll(max, batch))
    }

    fn waiting(&self) -> usize {
        self.queue.as_ref().map_or(0, RxQueue::waiting)
    }

    fn replenish(&mut self, pool: &mut Pool) {
        if let Some(stopped) = &self.stopped {
            if let Some(queue) = self.queue.take() {
                self.errors = queue.device_errors();
                queue.release(stopped, pool);
            }
        } else if let Some(queue) = &mut self.queue {
            queue.replenish(pool);
        }
    }

    fn arm_interrupt(&mut self) -> bool {
        self.queue.as_mut().is_some_and(RxQueue::arm_interrupt)
    }

    fn disarm_interrupt(&mut self) {}

    fn device_errors(&self) -> u64 {
        self.queue.as_ref().map_or(self.errors, RxQueue::device_errors)
    }
}

/// A transmit queue until its device is reset; then what was under way counts as complete.
struct Tx {
    queue: Option<VirtioTx<FakeMmio>>,
    abandoned: u32,
}

impl TxQueue for Tx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        self.queue.as_mut().map_or(Err(TxFull), |queue| queue.push(frame))
    }

    fn kick(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.kick();
        }
    }

    fn reclaim(&mut self) -> u32 {
        match &mut self.queue {
            Some(queue) => queue.reclaim(),
            None => std::mem::take(&mut self.abandoned),
        }
    }
}

struct Core {
    now: Instant,
    rx: [Rx; 1],
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
        self.now.0
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

/// An engine with an application over the lying device.
pub fn engine(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let buffers = buffers();
    let Some((mut liar, mut port)) = open(buffers, &mut input) else { return };
    let mut dma = FakeDma { memory: buffers.memory.clone(), allocations_left: usize::MAX };
    let headers = dma.alloc(TX_HEADER_REGION_BYTES, 64).expect("memory for headers");
    let heap = dma.alloc(PAGE_BYTES as usize, 4096).expect("memory for a heap");
    let memory = Arc::new(UserMap::new(crate::memory::HEAP_PAGES, 1));
    crate::memory::map(&memory, HEAP_BASE, &heap);
    let mut capabilities = port.capabilities;
    capabilities.groups = 4;
    let address = Ipv4Config { address: wire::STATION, prefix: 24, gateway: None };
    let addressing = Addressing::Static(address);
    let mut config = Config::new(CoreId(0), 1, wire::MAC, capabilities, addressing);
    config.rss_key = [7; KEY_BYTES];
    config.connections_per_group = 50;
    let mesh = mesh::build::<Message>(1, mesh::Sizes::default()).remove(0);
    let pool = Pool::new(buffers.area, CoreId(0));
    let mut engine = Engine::new(config, pool, mesh, &headers);
    let (rings, pages) = Ram::of_thread().rings(0);
    engine.attach_app(AppPort { context: 0, rings, memory: Arc::clone(&memory) });
    let mut core = Core {
        now: Instant(1_000_000),
        rx: [Rx { queue: Some(port.rx.remove(0)), stopped: None, errors: 0 }],
        tx: Tx { queue: Some(port.tx.remove(0)), abandoned: 0 },
        app: Some(App::new(pages, true)),
        faulted: false,
    };
    let mut wire = Wire::new();
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let what = input.u8();
        tell!("step {}", what & 15);
        match what & 15 {
            0..=4 => {
                let frame = wire.frame(&mut input);
                liar.deliver(&frame.bytes, &mut input);
            }
            5 | 6 => {
                let syn = wire.plain(usize::from(what >> 4), 2 << (what & 2), 0);
                liar.deliver(&syn.bytes, &mut Input::new(&[]));
            }
            7 | 8 => {
                if let Some(app) = &mut core.app {
                    app.make_calls(&mut input);
                }
            }
            9 => liar.complete(&mut input),
            10 => liar.lie(&mut input),
            11 => control(&mut port.control, core.now, &mut input),
            12 => core.now = core.now + Duration(u64::from(input.u8()) << 26),
            13 => {
                if let Some(app) = &mut core.app {
                    app.mood = input.one_of(&[Mood::Good, Mood::Asleep, Mood::Hangs]);
                }
            }
            _ => liar.complete_all(),
        }
        core.now = core.now + Duration(2_000);
        let _work = run_once(&mut engine, &mut core);
        for sent in liar.take() {
            if let Some(answer) = wire.saw(&sent) {
                liar.deliver(&answer.bytes, &mut Input::new(&[]));
            }
        }
        if core.faulted && core.app.take().is_some() {
            engine.detach_app();
        }
        assert_eq!(engine.conservation().broken, 0);
    }
    end(engine, core, &liar, &mut port.control, &memory);
}

/// The kernel's way out when a device fails: it is reset, the application ended; nothing may be left.
fn end(
    mut engine: Engine,
    mut core: Core,
    liar: &Liar,
    control: &mut ix_virtio_net::Control<FakeMmio>,
    memory: &UserMap,
) {
    let errors = core.rx[0].device_errors();
    let stopped = reset(liar, control);
    core.tx.abandoned = core.tx.queue.take().map_or(0, |queue| queue.abandon(&stopped));
    core.rx[0].stopped = Some(stopped);
    engine.detach_app();
    core.app = None;
    for _ in 0..200 {
        core.now = core.now + Duration::from_s(2);
        let _work = run_once(&mut engine, &mut core);
        if engine.drain() == Drain::Done && engine.conservation().connections == 0 {
            break;
        }
    }
    // Published with the counters, which an iteration does that is a millisecond after the last.
    core.now = core.now + Duration::from_s(2);
    let _work = run_once(&mut engine, &mut core);
    assert!(engine.stats().dropped(Reason::DeviceError) >= errors, "errors are not counted");
    let books = engine.conservation();
    assert_eq!((books.broken, books.received, books.datagrams), (0, 0, 0), "{books:?}");
    // Frames that wait for a queue that there is no more keep theirs.
    let kept = books.transmitting;
    assert_eq!(books.free + kept, BUFFERS as usize, "buffers are lost or there twice: {books:?}");
    if !matches!(engine.drain(), Drain::Done) {
        return;
    }
    assert_eq!(memory.pins_total(), 0);
}
