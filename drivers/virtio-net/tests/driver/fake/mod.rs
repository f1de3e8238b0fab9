//! A virtio-net device in software: registers, rings and steering over the driver's own memory.
//! Honest by itself; tests make it lie through its queues and its knobs.
#![allow(dead_code, reason = "each user takes a part")]

pub mod memory;
pub mod queue;
pub mod toeplitz;

use ix_dataplane::device::Mmio;
use ix_dataplane::limits::MBUF_BYTES;
use ix_virtio_net::Features;
use ix_virtio_net::pci::{Layout, Window};
use ix_virtio_net::transport::Transport;
use memory::Memory;
use queue::{Chain, Queue, gather, scatter};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Condvar, Mutex};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const QUEUES: usize = 32;
const NO_VECTOR: u16 = 0xffff;

/// Small seeded randomness.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        // splitmix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// What a device is like.
#[derive(Clone, Debug)]
pub struct Model {
    pub offered: u64,
    pub pairs_max: u16,
    pub queue_size: u16,
    pub vectors: u16,
    pub mtu: u16,
    pub link_up: bool,
    /// Status reads after a reset before it says 0.
    pub reset_reads: u32,
    pub refuse_features: bool,
    /// Answers to control commands; `None`: no answer at all.
    pub ack: Option<u8>,
    pub config_changes_always: bool,
    /// Registers that lie, by seed.
    pub noise: Option<Rng>,
}

impl Default for Model {
    fn default() -> Model {
        let offered = Features::all() | Features::EVENT_IDX;
        Model {
            offered: offered.bits(),
            pairs_max: 4,
            queue_size: 256,
            vectors: 16,
            mtu: 1500,
            link_up: true,
            reset_reads: 2,
            refuse_features: false,
            ack: Some(0),
            config_changes_always: false,
            noise: None,
        }
    }
}

/// What the driver told the device by control commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steering {
    pub pairs: u16,
    pub hash_types: u32,
    pub table: Vec<u16>,
    pub key: Vec<u8>,
}

pub struct Device {
    pub memory: Arc<Memory>,
    pub model: Model,
    pub status: u8,
    pub features: u64,
    pub queues: Vec<Queue>,
    pub steering: Steering,
    pub commands: u32,
    pub resets: u32,
    select: u16,
    feature_select: u32,
    driver_feature_select: u32,
    reset_reads: u32,
    generation: u8,
    config_vector: u16,
}

/// Notifications by queue, counted, and a way to sleep until there is one.
#[derive(Default)]
pub struct Bells {
    pub count: [AtomicU32; QUEUES],
    /// Those that a running device has heard.
    pub heard: [AtomicU32; QUEUES],
    pub rung: Mutex<bool>,
    pub condition: Condvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Region {
    Common,
    Notify,
    Isr,
    Config,
}

/// Registers of a fake device.
#[derive(Clone)]
pub struct FakeMmio {
    device: Arc<Mutex<Device>>,
    bells: Arc<Bells>,
    region: Region,
}

impl std::fmt::Debug for FakeMmio {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.region.fmt(f)
    }
}

/// A device, the driver's registers, and the bells.
pub struct Fake {
    pub device: Arc<Mutex<Device>>,
    pub bells: Arc<Bells>,
}

const MULTIPLIER: u32 = 4;
const LAYOUT: Layout = Layout {
    common: Window { bar: 4, offset: 0, length: 0x38 },
    notify: Window { bar: 4, offset: 0x3000, length: QUEUES as u32 * MULTIPLIER },
    notify_multiplier: MULTIPLIER,
    isr: Window { bar: 4, offset: 0x1000, length: 1 },
    device: Window { bar: 4, offset: 0x2000, length: 24 },
};

impl Fake {
    pub fn new(memory: Arc<Memory>, model: Model) -> Fake {
        let device = Device {
            memory,
            model,
            status: 0xf,
            features: 0,
            queues: (0..QUEUES).map(|_| Queue::default()).collect(),
            steering: Steering::default(),
            commands: 0,
            resets: 0,
            select: 0,
            feature_select: 0,
            driver_feature_select: 0,
            reset_reads: 0,
            generation: 0,
            config_vector: NO_VECTOR,
        };
        Fake { device: Arc::new(Mutex::new(device)), bells: Arc::default() }
    }

    pub fn transport(&self) -> Transport<FakeMmio> {
        Transport::map(&LAYOUT, |window| {
            let region = match window.offset {
                0 => Region::Common,
                0x1000 => Region::Isr,
                0x2000 => Region::Config,
                _ => Region::Notify,
            };
            Ok::<_, ()>(FakeMmio { device: self.device.clone(), bells: self.bells.clone(), region })
        })
        .unwrap()
    }

    pub fn with<T>(&self, run: impl FnOnce(&mut Device) -> T) -> T {
        run(&mut self.device.lock().unwrap())
    }

    pub fn notifications(&self, queue: usize) -> u32 {
        self.bells.count[queue].load(SeqCst)
    }
}

impl Device {
    fn reset(&mut self) {
        self.status = 0;
        self.resets += 1;
        self.features = 0;
        self.reset_reads = self.model.reset_reads;
        self.queues = (0..QUEUES).map(|_| Queue::default()).collect();
        for queue in &mut self.queues {
            queue.size = self.model.queue_size;
            queue.vector = NO_VECTOR;
        }
        self.steering = Steering { pairs: 1, ..Steering::default() };
    }

    /// As in QEMU, queues beyond the first pair are there only once MQ or RSS was agreed to.
    fn queue_count(&self) -> u16 {
        let pairs = if self.has(Features::MQ | Features::RSS) { self.model.pairs_max } else { 1 };
        2 * pairs + 1
    }

    pub fn control_queue(&self) -> usize {
        usize::from(self.queue_count()) - 1
    }

    pub fn has(&self, feature: Features) -> bool {
        self.features & feature.bits() != 0
    }

    fn config(&mut self) -> [u8; 24] {
        let mut config = [0; 24];
        config[..6].copy_from_slice(&MAC);
        config[6] = u8::from(self.model.link_up);
        config[8..10].copy_from_slice(&self.model.pairs_max.to_le_bytes());
        config[10..12].copy_from_slice(&self.model.mtu.to_le_bytes());
        config[17] = 40;
        config[18..20].copy_from_slice(&128_u16.to_le_bytes());
        config[20..24].copy_from_slice(&0x1ff_u32.to_le_bytes());
        config
    }

    fn read(&mut self, region: Region, offset: usize, width: usize) -> u32 {
        let true_value = match region {
            Region::Common => self.read_common(offset, width),
            Region::Config => {
                let mut bytes = [0; 4];
                bytes[..width].copy_from_slice(&self.config()[offset..offset + width]);
                u32::from_le_bytes(bytes)
            }
            Region::Isr => 1,
            Region::Notify => 0,
        };
        let Some(rng) = &mut self.model.noise else { return true_value };
        if !rng.one_in(12) {
            return true_value;
        }
        match rng.below(4) {
            0 => u32::MAX,
            1 => 0,
            2 => true_value ^ 1 << rng.below(8 * width),
            _ => rng.next() as u32,
        }
    }

    fn read_common(&mut self, offset: usize, width: usize) -> u32 {
        let queue = self.queues.get(usize::from(self.select));
        let exists = self.select < self.queue_count();
        let (right_width, value) = match offset {
            4 => (4, (self.model.offered >> (32 * self.feature_select.min(1))) as u32),
            16 => (2, u32::from(self.config_vector)),
            18 => (2, u32::from(self.queue_count())),
            20 if self.status == 0 && self.reset_reads > 0 => {
                self.reset_reads -= 1;
                (1, 0x40)
            }
            20 => (1, u32::from(self.status)),
            21 => {
                self.generation += u8::from(self.model.config_changes_always);
                (1, u32::from(self.generation))
            }
            24 => (2, if exists { queue.map_or(0, |q| u32::from(q.size)) } else { 0 }),
            26 => (2, queue.map_or(0, |q| u32::from(q.vector))),
            30 => (2, u32::from(self.select)),
            _ => panic!("read of common register {offset}"),
        };
        assert_eq!(width, right_width, "§4.1.3.1: width of the access to register {offset}");
        value
    }

    fn write(&mut self, region: Region, offset: usize, width: usize, value: u32) {
        assert_eq!(region, Region::Common, "nothing else is written");
        let memory = self.memory.clone();
        let honest = self.model.noise.is_none();
        let right_width = match offset {
            0 | 8 | 12 | 32..56 => 4,
            20 => 1,
            _ => 2,
        };
        assert_eq!(width, right_width, "§4.1.3.1: width of the access to register {offset}");
        if honest && (24..56).contains(&offset) {
            assert!(self.status & 8 != 0, "§3.1.1: queues come after FEATURES_OK");
            assert!(self.status & 4 == 0, "§3.1.1: and before DRIVER_OK");
        }
        let select = usize::from(self.select);
        match offset {
            0 => self.feature_select = value,
            8 => self.driver_feature_select = value,
            12 => {
                let shift = 32 * self.driver_feature_select;
                self.features |= u64::from(value) << shift;
                assert!(!honest || self.features & !self.model.offered == 0, "not offered");
            }
            16 => self.config_vector = value as u16,
            20 => self.write_status(value as u8),
            22 => self.select = value as u16,
            _ if select >= QUEUES => {}
            24 => self.queues[select].size = value as u16,
            26 => {
                let fits = value < u32::from(self.model.vectors);
                self.queues[select].vector = if fits { value as u16 } else { NO_VECTOR };
            }
            28 if honest => self.queues[select].enable(&memory),
            28 => self.queues[select].enabled = true,
            32..56 => {
                let queue = &mut self.queues[select];
                let fields = [&mut queue.desc, &mut queue.driver, &mut queue.device];
                let field = fields.into_iter().nth((offset - 32) / 8).unwrap();
                let shift = 8 * (offset % 8);
                *field = *field & !(0xffff_ffff << shift) | u64::from(value) << shift;
            }
            _ => panic!("write of common register {offset}"),
        }
    }

    fn write_status(&mut self, value: u8) {
        if value == 0 {
            return self.reset();
        }
        if self.model.noise.is_none() {
            assert!(value & self.status == self.status, "§2.1.1: bits are only cleared by reset");
        }
        self.status = value;
        if value & 8 != 0 && self.model.refuse_features {
            self.status &= !8;
        }
    }

    /// Serves the control queue.
    pub fn serve_control(&mut self) {
        let index = self.control_queue();
        let memory = self.memory.clone();
        while let Some(ack) = self.model.ack {
            let Some(chain) = self.queues[index].take(&memory) else { return };
            let command = gather(&memory, &chain);
            self.commands += 1;
            if ack == 0 {
                self.run_command(&command);
            }
            let written = scatter(&memory, &chain, &[ack]);
            assert_eq!(written, 1);
            self.queues[index].complete(&memory, u32::from(chain.head), written);
        }
    }

    fn run_command(&mut self, command: &[u8]) {
        let le16 = |at: usize| u16::from_le_bytes([command[at], command[at + 1]]);
        let le32 = |at: usize| u32::from(le16(at)) | u32::from(le16(at + 2)) << 16;
        assert!(self.status & 4 != 0, "commands come after DRIVER_OK");
        match (command[0], command[1]) {
            (4, 0) => {
                assert!(self.has(Features::MQ) && command.len() == 4);
                self.steering.pairs = le16(2);
            }
            (4, 1) => {
                assert!(self.has(Features::RSS));
                let entries = usize::from(le16(6)) + 1;
                assert!(entries.is_power_of_two() && entries <= 128);
                let behind = 10 + 2 * entries;
                let key = usize::from(command[behind + 2]);
                assert_eq!(command.len(), behind + 3 + key);
                self.steering = Steering {
                    hash_types: le32(2),
                    table: (0..entries).map(|i| le16(10 + 2 * i)).collect(),
                    pairs: le16(behind),
                    key: command[behind + 3..].to_vec(),
                };
                assert_eq!(le16(8), 0, "unclassified queue");
            }
            (4, 2) => {
                assert!(self.has(Features::HASH_REPORT));
                self.steering.hash_types = le32(2);
                assert_eq!((command[14], command.len()), (40, 55));
                self.steering.key = command[15..].to_vec();
            }
            other => panic!("unknown command {other:?}"),
        }
        assert!((1..=self.model.pairs_max).contains(&self.steering.pairs));
    }

    /// The receive queue pair and header for a frame, by RSS.
    pub fn steer(&self, frame: &[u8]) -> (usize, [u8; 20]) {
        let mut header = [0; 20];
        header[10] = 1;
        let Some((kind, input)) = toeplitz::input(frame) else { return (0, header) };
        if self.steering.hash_types & 1 << (kind - 1) == 0 {
            return (0, header);
        }
        let hash = toeplitz::hash(&self.steering.key, &input);
        if self.has(Features::HASH_REPORT) {
            header[12..16].copy_from_slice(&hash.to_le_bytes());
            header[16] = kind;
        }
        let table = &self.steering.table;
        let pair = if table.is_empty() { 0 } else { table[hash as usize & (table.len() - 1)] };
        (usize::from(pair), header)
    }

    pub fn header_bytes(&self) -> usize {
        if self.has(Features::HASH_REPORT) { 20 } else { 12 }
    }

    /// A frame comes in at queue pair `pair`. Whether there were buffers enough.
    pub fn receive_at(&mut self, pair: usize, header: &[u8; 20], frame: &[u8]) -> bool {
        let memory = self.memory.clone();
        let mut bytes = [&header[..self.header_bytes()], frame].concat();
        if self.has(Features::MRG_RXBUF) {
            let buffers = bytes.len().div_ceil(MBUF_BYTES);
            bytes[10..12].copy_from_slice(&(buffers as u16).to_le_bytes());
            return self.spread(pair, &bytes);
        }
        let queue = &mut self.queues[2 * pair];
        let Some(chain) = queue.take(&memory) else { return false };
        assert!(chain.readable.is_empty());
        let written = scatter(&memory, &chain, &bytes);
        queue.complete(&memory, u32::from(chain.head), written);
        true
    }

    /// Header and frame into as many buffers as they take, all shown at once.
    pub fn spread(&mut self, pair: usize, bytes: &[u8]) -> bool {
        let memory = self.memory.clone();
        let queue = &mut self.queues[2 * pair];
        let buffers = bytes.len().div_ceil(MBUF_BYTES);
        if usize::from(queue.available(&memory)) < buffers {
            return false;
        }
        for (part, at) in bytes.chunks(MBUF_BYTES).zip(0..) {
            let chain = queue.take(&memory).expect("it is available");
            let written = scatter(&memory, &chain, part);
            assert_eq!(written as usize, part.len());
            let position = queue.used().wrapping_add(at);
            queue.write_used(&memory, position, u32::from(chain.head), written);
        }
        queue.jump(&memory, buffers as u16);
        true
    }

    /// A frame comes in; RSS chooses the queue, which is returned if it had a buffer.
    pub fn receive(&mut self, frame: &[u8]) -> Option<usize> {
        let (pair, header) = self.steer(frame);
        self.receive_at(pair, &header, frame).then_some(pair)
    }

    /// Takes a frame to transmit: its chain, header and bytes.
    pub fn take_transmit(&mut self, pair: usize) -> Option<(Chain, Vec<u8>, Vec<u8>)> {
        let memory = self.memory.clone();
        let chain = self.queues[2 * pair + 1].take(&memory)?;
        assert!(chain.writable.is_empty());
        let mut header = gather(&memory, &chain);
        let frame = header.split_off(self.header_bytes());
        Some((chain, header, frame))
    }

    /// Transmits a frame: its header and bytes.
    pub fn transmit(&mut self, pair: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        let memory = self.memory.clone();
        let (chain, header, frame) = self.take_transmit(pair)?;
        self.queues[2 * pair + 1].complete(&memory, u32::from(chain.head), 0);
        Some((header, frame))
    }
}

impl FakeMmio {
    fn length(&self) -> usize {
        let window = match self.region {
            Region::Common => LAYOUT.common,
            Region::Notify => LAYOUT.notify,
            Region::Isr => LAYOUT.isr,
            Region::Config => LAYOUT.device,
        };
        window.length as usize
    }

    fn read(&self, offset: usize, width: usize) -> u32 {
        if offset + width > self.length() || !offset.is_multiple_of(width) {
            return u32::MAX >> (32 - 8 * width);
        }
        self.device.lock().unwrap().read(self.region, offset, width)
    }

    fn write(&self, offset: usize, width: usize, value: u32) {
        if offset + width > self.length() || !offset.is_multiple_of(width) {
            return;
        }
        if self.region != Region::Notify {
            return self.device.lock().unwrap().write(self.region, offset, width, value);
        }
        self.bells.count[offset / MULTIPLIER as usize].fetch_add(1, SeqCst);
        *self.bells.rung.lock().unwrap() = true;
        self.bells.condition.notify_all();
        if let Ok(mut device) = self.device.try_lock()
            && device.model.noise.is_none()
        {
            assert_eq!(value as usize, offset / MULTIPLIER as usize, "§4.1.5.2");
            let running = u32::from(device.status & 4 != 0);
            self.bells.heard[offset / MULTIPLIER as usize].fetch_add(running, SeqCst);
            if value as usize == device.control_queue() {
                device.serve_control();
            }
        }
    }
}

impl Mmio for FakeMmio {
    fn read8(&self, offset: usize) -> u8 {
        self.read(offset, 1) as u8
    }
    fn read16(&self, offset: usize) -> u16 {
        self.read(offset, 2) as u16
    }
    fn read32(&self, offset: usize) -> u32 {
        self.read(offset, 4)
    }
    fn write8(&self, offset: usize, value: u8) {
        self.write(offset, 1, u32::from(value));
    }
    fn write16(&self, offset: usize, value: u16) {
        self.write(offset, 2, u32::from(value));
    }
    fn write32(&self, offset: usize, value: u32) {
        self.write(offset, 4, value);
    }
}
