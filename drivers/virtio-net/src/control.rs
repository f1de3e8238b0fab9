//! The rare things: the indirection table, the link, reset (virtio 1.2 §5.1.6.5).
//!
//! Commands are sent and then polled, so that no core waits for the device while it has packets:
//! stage table entries with [`Control::set_reta`], send the table with [`Control::commit`], and
//! call [`Control::poll`] once per loop until it says [`Progress::Done`] or [`Progress::Failed`].
use crate::error::{CommandError, InitError};
use crate::features::Features;
use crate::memory::{Block, Shared};
use crate::port::Stopped;
use crate::ring::{Ring, descriptor_word, flag};
use crate::transport::{Clock, NO_VECTOR, QueueSetup, Transport, status};
use crate::{GROUPS, RSS_KEY_BYTES};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::AtomicU8;
use core::sync::atomic::Ordering::Relaxed;
use ix_dataplane::device::{self, BusAddr, Dma, Mmio, NicControl};
use ix_dataplane::time::{Duration, Instant};

/// How long the device may take for a command. QEMU answers from its main loop, which may be busy.
pub const COMMAND_DEADLINE: Duration = Duration::from_s(2);

/// `VIRTIO_NET_CTRL_MQ` and its commands (§5.1.6.5.5 to 7).
const CLASS_MQ: u8 = 4;
const MQ_VQ_PAIRS_SET: u8 = 0;
const MQ_RSS_CONFIG: u8 = 1;
const MQ_HASH_CONFIG: u8 = 2;
/// `VIRTIO_NET_OK`.
const ACK_OK: u8 = 0;
/// What stands in the answer until the device writes it.
const ACK_NONE: u8 = 0xff;

/// `VIRTIO_NET_RSS_HASH_TYPE_*`: TCP and UDP over IPv4 and IPv6. All else, fragments included, is
/// unclassified and goes to queue 0.
pub(crate) const HASH_TYPES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5;

/// Link up, in the status field of the configuration (§5.1.4).
const LINK_UP: u16 = 1;
/// Offsets in the device configuration.
const CONFIG_STATUS: usize = 6;

/// Class, command, `virtio_net_rss_config` with a full table and key; rounded up.
const COMMAND_BYTES: usize = 512;

/// How far a change of the table is.
pub type Progress = device::Progress<CommandError>;

/// The control part of a port. One core holds it.
#[derive(Debug)]
pub struct Control<M> {
    transport: Transport<M>,
    features: Features,
    queue: Option<CommandQueue<M>>,
    /// The same between a reset and a restart.
    stopped_queue: Option<CommandQueue<M>>,
    /// The queues of the port, as the device was told of them.
    setups: Vec<QueueSetup>,
    table: [u16; GROUPS],
    pairs: u16,
    rss_key: [u8; RSS_KEY_BYTES],
}

impl<M: Mmio + Clone> Control<M> {
    pub(crate) fn new(
        transport: Transport<M>,
        features: Features,
        queue: Option<CommandQueue<M>>,
        setups: Vec<QueueSetup>,
        pairs: u16,
        rss_key: [u8; RSS_KEY_BYTES],
    ) -> Control<M> {
        let table = core::array::from_fn(|entry| (entry % usize::from(pairs)) as u16);
        let stopped_queue = None;
        Control { transport, features, queue, stopped_queue, setups, table, pairs, rss_key }
    }

    /// What was negotiated.
    pub fn features(&self) -> Features {
        self.features
    }

    /// Takes back an INTx interrupt, where MSI-X is not used (§4.1.4.5). Whether it was a queue's.
    pub fn acknowledge_intx(&self) -> bool {
        self.transport.read_isr() & 1 != 0
    }

    fn start(&mut self, stopped: Stopped, clock: Clock<'_>) -> Result<(), InitError> {
        let transport = &self.transport;
        transport.add_status(status::ACKNOWLEDGE);
        transport.add_status(status::DRIVER);
        let offered = Features::from_bits_truncate(transport.read_features());
        if !offered.contains(self.features) {
            return Err(InitError::Missing { features: self.features - offered });
        }
        transport.write_features(self.features.bits());
        transport.add_status(status::FEATURES_OK);
        if transport.read_status() & status::FEATURES_OK == 0 {
            return Err(InitError::FeaturesRefused { features: self.features });
        }
        transport.disable_config_interrupt();
        for setup in &self.setups {
            transport.enable_queue(setup)?;
        }
        if let Some(mut queue) = self.stopped_queue.take() {
            queue.rewind(&stopped);
            transport.enable_queue(&queue.ring.setup())?;
            self.queue = Some(queue);
        }
        transport.add_status(status::DRIVER_OK);
        self.start_steering(clock)
    }

    /// Tells the device how to spread frames, and waits: part of opening a port.
    pub(crate) fn start_steering(&mut self, clock: Clock<'_>) -> Result<(), InitError> {
        let fail = |what| move |error| InitError::Command { what, error };
        if self.features.contains(Features::RSS) {
            self.commit(clock()).map_err(fail("setting RSS up"))?;
            self.wait(clock).map_err(fail("setting RSS up"))?;
            return Ok(());
        }
        if self.features.contains(Features::MQ) {
            let pairs = self.pairs.to_le_bytes();
            self.submit(MQ_VQ_PAIRS_SET, &pairs, clock()).map_err(fail("enabling queue pairs"))?;
            self.wait(clock).map_err(fail("enabling queue pairs"))?;
        }
        if self.features.contains(Features::HASH_REPORT) {
            let payload = hash_config(&self.rss_key);
            self.submit(MQ_HASH_CONFIG, &payload, clock()).map_err(fail("hash report"))?;
            self.wait(clock).map_err(fail("hash report"))?;
        }
        Ok(())
    }

    fn submit(&mut self, command: u8, payload: &[u8], now: Instant) -> Result<(), CommandError> {
        self.queue.as_mut().ok_or(CommandError::Unsupported)?.submit(command, payload, now)
    }

    fn wait(&mut self, clock: Clock<'_>) -> Result<(), CommandError> {
        loop {
            match self.poll(clock()) {
                Progress::Pending => core::hint::spin_loop(),
                Progress::Failed(error) => return Err(error),
                Progress::Done | Progress::Idle => return Ok(()),
            }
        }
    }
}

impl<M: Mmio + Clone> NicControl for Control<M> {
    type Stopped = Stopped;
    type CommandError = CommandError;
    type StartError = InitError;

    fn pairs(&self) -> u16 {
        self.pairs
    }

    fn reta(&self) -> &[u16] {
        &self.table
    }

    fn set_reta(&mut self, entry: u16, queue: u16) -> Result<(), CommandError> {
        if !self.features.contains(Features::RSS) {
            return Err(CommandError::Unsupported);
        }
        let slot = self.table.get_mut(usize::from(entry)).ok_or(CommandError::OutOfRange)?;
        if queue >= self.pairs {
            return Err(CommandError::OutOfRange);
        }
        *slot = queue;
        Ok(())
    }

    /// Sends the table to the device: all of it, since the device knows no smaller change
    /// (§5.1.6.5.7). Frames that arrive after [`Progress::Done`] follow it.
    fn commit(&mut self, now: Instant) -> Result<(), CommandError> {
        if !self.features.contains(Features::RSS) {
            return Err(CommandError::Unsupported);
        }
        let payload = rss_config(&self.table, self.pairs, &self.rss_key);
        self.submit(MQ_RSS_CONFIG, &payload, now)
    }

    fn poll(&mut self, now: Instant) -> Progress {
        self.queue.as_mut().map_or(Progress::Idle, |queue| queue.poll(now))
    }

    fn read_link_up(&self) -> bool {
        !self.features.contains(Features::STATUS)
            || self.transport.device_config().read16(CONFIG_STATUS) & LINK_UP != 0
    }

    /// Whether the device has given up and asks to be reset (§2.1.2). Reads a register.
    fn read_needs_reset(&self) -> bool {
        self.transport.read_status() & (status::NEEDS_RESET | status::FAILED) != 0
    }

    fn reset(&mut self, clock: Clock<'_>) -> Result<Stopped, InitError> {
        self.transport.reset(clock)?;
        if let Some(queue) = self.queue.take() {
            self.stopped_queue = Some(queue);
        }
        Ok(Stopped::new())
    }

    fn restart(&mut self, stopped: Stopped, clock: Clock<'_>) -> Result<(), InitError> {
        self.start(stopped, clock).inspect_err(|_| {
            let _ = self.reset(clock);
            self.transport.add_status(status::FAILED);
        })
    }
}

type Payload = ArrayVec<u8, { COMMAND_BYTES - 2 }>;

/// `struct virtio_net_rss_config` (§5.1.6.5.7.1).
fn rss_config(table: &[u16; GROUPS], pairs: u16, key: &[u8; RSS_KEY_BYTES]) -> Payload {
    let mut payload = Payload::new();
    payload.extend(HASH_TYPES.to_le_bytes());
    payload.extend((GROUPS as u16 - 1).to_le_bytes()); // indirection_table_mask
    payload.extend(0_u16.to_le_bytes()); // unclassified_queue
    payload.extend(table.iter().flat_map(|queue| queue.to_le_bytes()));
    payload.extend(pairs.to_le_bytes()); // max_tx_vq
    payload.push(RSS_KEY_BYTES as u8);
    payload.extend(*key);
    payload
}

/// `struct virtio_net_hash_config` (§5.1.6.5.6.4).
fn hash_config(key: &[u8; RSS_KEY_BYTES]) -> Payload {
    let mut payload = Payload::new();
    payload.extend(HASH_TYPES.to_le_bytes());
    payload.extend([0; 8]);
    payload.push(RSS_KEY_BYTES as u8);
    payload.extend(*key);
    payload
}

/// The control virtqueue: one command at a time, always in descriptors 0 and 1.
#[derive(Debug)]
pub(crate) struct CommandQueue<M> {
    ring: Ring<M>,
    command: Shared<AtomicU8>,
    command_bus: BusAddr,
    ack: &'static AtomicU8,
    ack_bus: BusAddr,
    sent: u16,
    deadline: Option<Instant>,
    dead: bool,
}

impl<M: Mmio + Clone> CommandQueue<M> {
    /// Makes the control queue, which has the given index.
    pub fn new(
        transport: &Transport<M>,
        dma: &mut impl Dma,
        index: u16,
    ) -> Result<CommandQueue<M>, InitError> {
        let ring = Ring::new(transport, dma, index, 2, 2, NO_VECTOR)?;
        let block = Block::alloc(dma, "control commands", COMMAND_BYTES + 1, 64)?;
        Ok(CommandQueue {
            ring,
            command: block.cells(0, COMMAND_BYTES),
            command_bus: block.bus(0),
            ack: block.cell(COMMAND_BYTES),
            ack_bus: block.bus(COMMAND_BYTES),
            sent: 0,
            deadline: None,
            dead: false,
        })
    }

    fn rewind(&mut self, stopped: &Stopped) {
        self.ring.rewind(stopped);
        self.sent = 0;
        self.deadline = None;
        self.dead = false;
    }

    fn submit(&mut self, command: u8, payload: &[u8], now: Instant) -> Result<(), CommandError> {
        if self.dead {
            return Err(CommandError::Dead);
        }
        if self.deadline.is_some() {
            return Err(CommandError::Busy);
        }
        let bytes = [CLASS_MQ, command];
        debug_assert!(payload.len() + bytes.len() <= COMMAND_BYTES);
        for (at, byte) in bytes.iter().chain(payload).enumerate() {
            self.command.at(at).store(*byte, Relaxed);
        }
        self.ack.store(ACK_NONE, Relaxed);
        let len = (bytes.len() + payload.len()) as u32;
        self.ring.set_descriptor(0, self.command_bus, descriptor_word(len, flag::NEXT, 1));
        self.ring.set_descriptor(1, self.ack_bus, descriptor_word(1, flag::WRITE, 0));
        self.ring.set_available(self.sent, 0);
        self.sent = self.sent.wrapping_add(1);
        self.deadline = Some(now + COMMAND_DEADLINE);
        self.ring.publish(self.sent);
        // Always: commands are rare, and a stale look at the flags could lose one.
        self.ring.notify();
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Progress {
        let Some(deadline) = self.deadline else { return Progress::Idle };
        let used = self.ring.used_state().index;
        let before = self.sent.wrapping_sub(1);
        if used == before && now <= deadline {
            return Progress::Pending;
        }
        self.deadline = None;
        if used == before {
            return self.die(CommandError::TimedOut);
        }
        if used != self.sent || self.ring.used().get(before).0 != 0 {
            return self.die(CommandError::Nonsense);
        }
        match self.ack.load(Relaxed) {
            ACK_OK => Progress::Done,
            ack => Progress::Failed(CommandError::Refused { ack }),
        }
    }

    /// The device may still read the command and write the answer: never use them again.
    fn die(&mut self, error: CommandError) -> Progress {
        self.dead = true;
        Progress::Failed(error)
    }
}
