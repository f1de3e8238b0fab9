//! An open port over a model of the chip, with buffers and counts to check conservation by.
#![allow(dead_code, reason = "each user takes a part")]

use crate::memory::{self, Memory, TestDma};
use ix_abi::CoreId;
use ix_dataplane::device::{
    Fragment, Mmio, NicControl, NicRx, NicTx, RxBatch, RxFrame, RxQueue, TxFrame,
};
use ix_dataplane::mbuf::{Area, Pool};
use ix_dataplane::time::Instant;
use ix_ixgbe::pci::{Media, media};
use ix_ixgbe::{Config, InitError, IxgbeRx, IxgbeTx, Port};
use ix_model_ixgbe::{Chip, Options, Outside};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub const KEY: [u8; 40] = {
    let mut key = [0; 40];
    let mut i = 0;
    while i < 40 {
        key[i] = (i * 37 + 11) as u8;
        i += 1;
    }
    key
};

/// What has left the chip.
#[derive(Default)]
pub struct Wire {
    pub sent: Vec<Vec<u8>>,
    pub interrupts: Vec<u16>,
}

impl Outside for Wire {
    fn transmit(&mut self, frame: &[u8]) {
        self.sent.push(frame.to_vec());
    }
    fn interrupt(&mut self, vector: u16) {
        self.interrupts.push(vector);
    }
}

/// A chip in its machine.
pub struct World {
    pub memory: Rc<Memory>,
    pub chip: RefCell<Chip>,
    pub wire: RefCell<Wire>,
    pub now: Cell<u64>,
    /// Register writes by offset, while that is wanted.
    pub writes: RefCell<Option<Vec<(u32, u32)>>>,
    /// The card was taken out.
    pub gone: Cell<bool>,
    /// State of a generator, while registers read what it makes up; and of how many reads one is a lie.
    pub lies: Cell<(u64, u64)>,
    /// What a look at the clock takes.
    pub look_ns: Cell<u64>,
}

impl World {
    pub fn new(options: Options) -> Rc<World> {
        World::with_memory(options, 64 << 20)
    }

    pub fn with_memory(options: Options, bytes: usize) -> Rc<World> {
        Rc::new(World {
            memory: Memory::new(bytes),
            chip: RefCell::new(Chip::new(options)),
            wire: RefCell::default(),
            now: Cell::new(0),
            writes: RefCell::default(),
            gone: Cell::new(false),
            lies: Cell::new((0, 0)),
            look_ns: Cell::new(10_000),
        })
    }

    /// A frame arrives. Whether the chip takes it.
    pub fn receive(&self, frame: &[u8]) -> bool {
        self.chip.borrow_mut().receive(frame, &*self.memory, &mut *self.wire.borrow_mut())
    }

    pub fn advance(&self, ns: u64) {
        self.now.set(self.now.get() + ns);
        let mut chip = self.chip.borrow_mut();
        chip.tick(self.now.get(), &*self.memory, &mut *self.wire.borrow_mut());
    }

    pub fn read(&self, offset: u32) -> u32 {
        self.chip.borrow_mut().read32(offset)
    }

    /// What a register reads instead of the truth, now and then.
    fn lie(&self) -> Option<u32> {
        let (mut state, one_in) = self.lies.get();
        if one_in == 0 {
            return None;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.lies.set((state, one_in));
        let lies = (state >> 8).is_multiple_of(one_in);
        lies.then(|| [0, u32::MAX, (state >> 32) as u32, 1 << (state >> 59)][(state & 3) as usize])
    }

    /// A clock of which each look takes some time, 10 µs at first.
    pub fn clock(self: &Rc<World>) -> impl Fn() -> Instant + use<> {
        let world = self.clone();
        move || {
            world.advance(world.look_ns.get());
            Instant(world.now.get())
        }
    }
}

/// BAR 0.
#[derive(Clone)]
pub struct Bar(pub Rc<World>);

impl std::fmt::Debug for Bar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bar")
    }
}

impl Mmio for Bar {
    fn read8(&self, _: usize) -> u8 {
        panic!("registers have 32 bits")
    }
    fn read16(&self, _: usize) -> u16 {
        panic!("registers have 32 bits")
    }
    fn read32(&self, offset: usize) -> u32 {
        if self.0.gone.get() {
            return u32::MAX;
        }
        self.0.lie().unwrap_or_else(|| self.0.read(offset as u32))
    }
    fn write8(&self, _: usize, _: u8) {
        panic!("registers have 32 bits")
    }
    fn write16(&self, _: usize, _: u16) {
        panic!("registers have 32 bits")
    }
    fn write32(&self, offset: usize, value: u32) {
        let world = &*self.0;
        if let Some(writes) = world.writes.borrow_mut().as_mut() {
            writes.push((offset as u32, value));
        }
        let mut chip = world.chip.borrow_mut();
        chip.write32(offset as u32, value, &*world.memory, &mut *world.wire.borrow_mut());
    }
}

pub fn config<'a>(area: &'static Area, clock: &'a dyn Fn() -> Instant) -> Config<'a> {
    Config {
        media: Media::SfpPlus,
        area,
        queue_pairs: 4,
        rx_ring: 256,
        tx_ring: 256,
        rss_key: KEY,
        first_vector: Some(1),
        mtu: None,
        promiscuous: false,
        tso: false,
        vlan: None,
        flow_control: false,
        clock,
    }
}

pub struct Rig {
    pub world: Rc<World>,
    pub area: &'static Area,
    pub port: Port<Bar>,
    pub pool: Pool,
}

/// Opens a port; the error if that fails.
pub fn open(
    world: &Rc<World>,
    area: &'static Area,
    adjust: impl FnOnce(&mut Config<'_>),
) -> Result<Port<Bar>, InitError> {
    let clock = world.clock();
    let mut config = config(area, &clock);
    adjust(&mut config);
    let mut dma = TestDma { memory: world.memory.clone(), allocations_left: usize::MAX };
    Port::open(Bar(world.clone()), &mut dma, &config)
}

impl Rig {
    pub fn new(options: Options, adjust: impl FnOnce(&mut Config<'_>)) -> Rig {
        Rig::with_buffers(options, 4096, adjust)
    }

    pub fn with_buffers(
        options: Options,
        buffers: u32,
        adjust: impl FnOnce(&mut Config<'_>),
    ) -> Rig {
        let media = media(0x8086, options.device_id).expect("one of this driver's");
        let world = World::new(options);
        let area = memory::area(&world.memory, 1, buffers);
        let port = open(&world, area, |config| {
            config.media = media;
            adjust(config);
        });
        let port = port.expect("the port opens");
        let mut rig = Rig { world, area, port, pool: Pool::new(area, CoreId(0)) };
        let clock = rig.world.clock();
        rig.port.control.wait_for_link(&clock).expect("the link comes up");
        rig
    }

    pub fn plain() -> Rig {
        Rig::new(Options::default(), |_| {})
    }

    /// With one queue pair.
    pub fn single() -> Rig {
        Rig::new(Options::default(), |config| config.queue_pairs = 1)
    }

    pub fn replenish(&mut self) {
        self.port.rx.iter_mut().for_each(|queue| queue.replenish(&mut self.pool));
    }

    /// Polls a queue: the frames, and their bytes.
    pub fn poll(&mut self, queue: usize) -> Vec<(RxFrame, Vec<u8>)> {
        let mut batch = RxBatch::new();
        let count = self.port.rx[queue].poll(64, &mut batch);
        assert_eq!(count, batch.len());
        let area = self.area;
        batch.into_iter().map(|f| (bytes(area, &f), f)).map(|(b, f)| (f, b)).collect()
    }

    pub fn free(&mut self, frames: Vec<(RxFrame, Vec<u8>)>) {
        for (frame, _) in frames {
            self.pool.free(frame.mbuf);
            frame.rest.free(&mut self.pool);
        }
    }

    /// Asserts that every buffer is in the pool or in a queue, `held` by the test apart.
    pub fn assert_conserved(&self, held: usize) {
        let in_queues: usize = self.port.rx.iter().map(IxgbeRx::held).sum();
        assert_eq!(self.pool.available() + in_queues + held, self.pool.capacity());
    }

    /// Nothing went wrong that a right driver avoids.
    pub fn assert_clean(&self) {
        assert_clean(&self.world);
    }

    /// A frame in DMA memory, in as many pieces as there are lengths, with these bytes.
    pub fn frame(&self, bytes: &[u8], pieces: &[usize]) -> TxFrame {
        let mut frame = TxFrame::default();
        let mut at = 0;
        for len in pieces {
            let region = self.world.memory.take(*len, 1).unwrap();
            self.world.memory.store(region.bus.0, &bytes[at..at + len]);
            frame.fragments.push(Fragment { bus: region.bus, len: *len as u32 });
            at += len;
        }
        assert_eq!(at, bytes.len());
        frame
    }

    pub fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.world.wire.borrow_mut().sent)
    }

    pub fn interrupts(&self) -> Vec<u16> {
        std::mem::take(&mut self.world.wire.borrow_mut().interrupts)
    }

    /// Stops the port, rewinds all queues, starts it.
    pub fn restart(&mut self) {
        let clock = self.world.clock();
        let stopped = self.port.control.reset(&clock).expect("it resets");
        for queue in &mut self.port.rx {
            queue.rewind(&stopped, &mut self.pool);
        }
        self.port.tx.iter_mut().for_each(|queue| queue.rewind(&stopped));
        self.port.control.restart(stopped, &clock).expect("it starts again");
        self.port.rx.iter_mut().for_each(IxgbeRx::restarted);
        self.port.tx.iter_mut().for_each(IxgbeTx::restarted);
        self.port.control.wait_for_link(&clock).expect("the link comes up");
    }

    /// Counts register writes from now on.
    pub fn watch(&self) {
        *self.world.writes.borrow_mut() = Some(Vec::new());
    }

    pub fn writes(&self) -> Vec<(u32, u32)> {
        self.world.writes.borrow_mut().replace(Vec::new()).expect("they are watched")
    }
}

pub fn bytes(area: &Area, frame: &RxFrame) -> Vec<u8> {
    let start = usize::from(frame.offset);
    let mut bytes = area.data(&frame.mbuf)[start..start + usize::from(frame.len)].to_vec();
    frame.rest.pieces(area).for_each(|piece| bytes.extend(piece));
    bytes
}

/// See [`Rig::assert_clean`].
pub fn assert_clean(world: &World) {
    let counts = world.chip.borrow().counts;
    assert_eq!(counts.refused, 0, "at {:x?}", counts.last_refused);
    assert_eq!(counts.unknown_reads + counts.unknown_writes, 0, "{:#x}", counts.last_unknown);
    assert_eq!((counts.bad_rings, counts.bad_descriptors, counts.dropped_tx), (0, 0, 0));
    assert_eq!((counts.late_reports, counts.contradictions), (0, 0));
}
