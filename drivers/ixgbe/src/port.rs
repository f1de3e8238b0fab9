//! Opening a port: the initialisation sequence of §4.6.3, with the queues.
use crate::chip::{Chip, Clock};
use crate::control::Control;
use crate::error::InitError;
use crate::init::{self, Settings};
use crate::memory::Ring;
use crate::pci::Media;
use crate::regs::*;
use crate::rx::IxgbeRx;
use crate::statistics::Statistics;
use crate::tx::{FRAME_DESCRIPTORS_MAX, IxgbeTx};
use crate::{GROUPS, QUEUE_PAIRS_MAX, RSS_KEY_BYTES};
use alloc::vec::Vec;
use ix_dataplane::device::{BusAddr, Capabilities, Dma, Mmio, Nic, Pseudo};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::Area;
use ix_dataplane::time::Duration;

/// A queue's ENABLE bit follows at once, or when the chip has read its first descriptors.
const QUEUE_DEADLINE: Duration = Duration::from_ms(10);

/// Ring lengths: multiples of 8 by §7.1.9, and powers of two here; up to 8,192 have been validated.
const RING_MIN: u16 = 8;
const RING_MAX: u16 = 8192;

/// The largest IP packet: 9.5 KB of jumbo frames, for which the transmit buffer's threshold is set.
pub const MTU_MAX: u16 = 9_710;
/// IEEE 802.1Q: 4,095 is reserved, and 0 no VLAN.
const VLAN_MAX: u16 = 4_094;
const MTU_MIN: u16 = 68;
const MTU_DEFAULT: u16 = 1_500;

/// RXDCTL.ENABLE, TXDCTL.ENABLE.
const ENABLE: u32 = 1 << 25;
/// RXDCTL.VME.
const RXDCTL_VLAN_STRIP: u32 = 1 << 30;
/// SRRCTL: advanced descriptors of one buffer; frames without a descriptor are dropped, so that a queue
/// whose core is slow does not hold up the others (§7.1.4).
const SRRCTL_ONE_BUFFER: u32 = 1 << 25;
const SRRCTL_DROP: u32 = 1 << 28;
/// DCA_RXCTRL bit 12: "must be set to 0" (§8.2.3.11.1).
const DCA_RXCTRL_RESERVED: u32 = 1 << 12;
/// DCA_TXCTRL: write-backs stay in order with what was written before.
const DCA_TXCTRL_WRITE_BACK_RELAXED: u32 = 1 << 11;
/// TXDCTL: prefetch when fewer than 32 are on the chip and one at least waits; each report is written back at once
/// (§7.2.3.4, §7.2.3.5).
const TXDCTL_THRESHOLDS: u32 = 32 | 1 << 8;

/// What the caller wants.
pub struct Config<'a> {
    /// What kind of chip it is, see [`crate::pci::media`].
    pub media: Media,
    /// Where the receive buffers are that the queues will be given.
    pub area: &'static Area,
    /// Queue pairs wanted, at least 1; of more than [`QUEUE_PAIRS_MAX`], so many.
    pub queue_pairs: u16,
    /// Descriptors of each receive ring: a power of two from 8 to 8,192.
    pub rx_ring: u16,
    /// The same for each transmit ring, at least 32.
    pub tx_ring: u16,
    /// The Toeplitz key; random per boot.
    pub rss_key: [u8; RSS_KEY_BYTES],
    /// Entry of the MSI-X table for receive queue 0; queue `i` gets the `i`th after it. `None`: no
    /// interrupts, the core halts with a timer as its bound.
    pub first_vector: Option<u16>,
    /// The largest IP packet; `None`: Ethernet's.
    pub mtu: Option<u16>,
    /// Unicast frames for others, too.
    pub promiscuous: bool,
    /// Large frames are cut into segments; who sends them prepares their headers as [`Pseudo::WithoutLength`] says (§7.2.4).
    pub tso: bool,
    /// The only VLAN of the port (1 to 4,094): frames of others, and frames without a tag, are dropped; the tag is taken off
    /// what arrives and put on what is sent, so that nobody above sees it. `None`: tags stay where they are.
    pub vlan: Option<u16>,
    /// Pause frames (IEEE 802.3x), both ways: the chip sends some when its packet buffer fills, and obeys those that come. It does not
    /// negotiate them. Frames without a descriptor then wait in the buffer and are not dropped, so one slow core holds up all.
    pub flow_control: bool,
    /// For deadlines.
    pub clock: Clock<'a>,
}

impl core::fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("media", &self.media)
            .field("queue_pairs", &self.queue_pairs)
            .field("rx_ring", &self.rx_ring)
            .field("tx_ring", &self.tx_ring)
            .field("first_vector", &self.first_vector)
            .field("mtu", &self.mtu)
            .finish_non_exhaustive()
    }
}

/// Proof that a chip was reset: it touches no memory of the driver any more.
#[derive(Debug)]
pub struct Stopped(());

impl Stopped {
    pub(crate) fn new() -> Stopped {
        Stopped(())
    }
}

/// An open port. The queues are to be moved to their cores, the control part to one of them.
#[derive(Debug)]
pub struct Port<M> {
    /// One per queue pair.
    pub rx: Vec<IxgbeRx<M>>,
    /// One per queue pair.
    pub tx: Vec<IxgbeTx<M>>,
    /// The rest.
    pub control: Control<M>,
    /// What the port can do.
    pub capabilities: Capabilities,
    /// The MAC address.
    pub mac: [u8; 6],
}

/// What a queue is for.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Perhaps taking VLAN tags off, perhaps dropping frames for which there is no descriptor.
    Receive {
        strip: bool,
        drop: bool,
    },
    Transmit,
}

/// A queue, as the chip has to be told of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueSetup {
    way: Way,
    queue: u16,
    bus: BusAddr,
    bytes: u32,
}

impl<M: Mmio + Clone> Nic for Port<M> {
    type Stopped = Stopped;
    type Rx = IxgbeRx<M>;
    type Tx = IxgbeTx<M>;
    type Control = Control<M>;
}

impl<M: Mmio + Clone> Port<M> {
    /// Resets the chip and opens it. `bar` is BAR 0. On failure the chip is left reset, if that is possible.
    pub fn open(bar: M, dma: &mut impl Dma, config: &Config<'_>) -> Result<Port<M>, InitError> {
        check(config)?;
        let chip = Chip(bar);
        init::reset(&chip, config.clock)?;
        Self::start(&chip, dma, config).inspect_err(|_| {
            // Stop it: it may have rings already. Nothing more can be done if it does not.
            let _ = init::reset(&chip, config.clock);
        })
    }

    fn start(
        chip: &Chip<M>,
        dma: &mut impl Dma,
        config: &Config<'_>,
    ) -> Result<Port<M>, InitError> {
        let mtu = config.mtu.unwrap_or(MTU_DEFAULT).clamp(MTU_MIN, MTU_MAX);
        let pairs = config.queue_pairs.min(QUEUE_PAIRS_MAX);
        let settings = Settings {
            media: config.media,
            mtu,
            pairs,
            promiscuous: config.promiscuous,
            vlan: config.vlan,
            flow_control: config.flow_control,
            rss_key: config.rss_key,
            first_vector: config.first_vector,
        };
        let mac = init::prepare(chip, &settings, config.clock)?;
        let way = Way::Receive { strip: config.vlan.is_some(), drop: !config.flow_control };
        let (mut rx, mut tx, mut setups) = (Vec::new(), Vec::new(), Vec::new());
        for queue in 0..pairs {
            let vector = config.first_vector.map(|first| first + queue);
            let ring = Ring::alloc(dma, "a receive ring", config.rx_ring)?;
            setups.push(QueueSetup::new(way, queue, &ring));
            rx.push(IxgbeRx::new(chip, ring, config.area, queue, vector, config.vlan));
            let ring = Ring::alloc(dma, "a transmit ring", config.tx_ring)?;
            setups.push(QueueSetup::new(Way::Transmit, queue, &ring));
            tx.push(IxgbeTx::new(chip, ring, queue, config.vlan));
        }
        let control = Control::new(chip.clone(), settings, setups.clone(), (config.clock)());
        enable_queues(chip, &setups, config.clock)?;
        Statistics::start(chip);
        init::enable_receive(chip, config.clock)?;
        let capabilities = Capabilities {
            tx_checksum: true,
            rx_checksum: true,
            rss: true,
            hash_report: true,
            queue_pairs: pairs,
            groups: GROUPS as u16,
            mtu,
            tso: if config.tso { u16::MAX } else { 0 },
            gso_pseudo: Pseudo::WithoutLength,
        };
        Ok(Port { rx, tx, control, capabilities, mac })
    }
}

/// What the caller must not ask for.
fn check(config: &Config<'_>) -> Result<(), InitError> {
    let bad = |what| Err(InitError::BadRequest { what });
    let is_ring = |len: u16| len.is_power_of_two() && (RING_MIN..=RING_MAX).contains(&len);
    let vectors = u32::from(config.first_vector.unwrap_or(0)) + u32::from(config.queue_pairs);
    if config.queue_pairs == 0 {
        bad("a port needs a queue pair at least")
    } else if !is_ring(config.rx_ring) || !is_ring(config.tx_ring) {
        bad("rings have a power of two of descriptors, from 8 to 8192")
    } else if config.tx_ring <= FRAME_DESCRIPTORS_MAX {
        bad("a transmit ring must take the largest frame: 32 descriptors at least")
    } else if config.vlan.is_some_and(|id| !(1..=VLAN_MAX).contains(&id)) {
        bad("VLANs are numbered from 1 to 4094")
    } else if vectors > 64 {
        bad("the MSI-X table has 64 entries")
    } else {
        Ok(())
    }
}

impl QueueSetup {
    fn new(way: Way, queue: u16, ring: &Ring) -> QueueSetup {
        QueueSetup { way, queue, bus: ring.bus(), bytes: ring.len() * 16 }
    }

    /// §4.6.7.1.1.
    fn enable_receive<M: Mmio>(
        &self,
        (strip, drop): (bool, bool),
        chip: &Chip<M>,
        clock: Clock<'_>,
    ) -> Result<(), u32> {
        let queue = u32::from(self.queue);
        chip.write(RDBAL.at(queue), self.bus.0 as u32);
        chip.write(RDBAH.at(queue), (self.bus.0 >> 32) as u32);
        chip.write(RDLEN.at(queue), self.bytes);
        let buffer = (MBUF_BYTES / 1024) as u32;
        let drop = if drop { SRRCTL_DROP } else { 0 };
        chip.write(SRRCTL.at(queue), buffer | SRRCTL_ONE_BUFFER | drop);
        chip.change(DCA_RXCTRL.at(queue), 0, DCA_RXCTRL_RESERVED);
        chip.write(RDH.at(queue), 0);
        chip.write(RDT.at(queue), 0);
        let strip = if strip { RXDCTL_VLAN_STRIP } else { 0 };
        chip.change(RXDCTL.at(queue), ENABLE | strip, 0);
        chip.wait(clock, QUEUE_DEADLINE, RXDCTL.at(queue), |value| value & ENABLE != 0)
    }

    /// §4.6.8.1.
    fn enable_transmit<M: Mmio>(&self, chip: &Chip<M>, clock: Clock<'_>) -> Result<(), u32> {
        let queue = u32::from(self.queue);
        chip.write(TDBAL.at(queue), self.bus.0 as u32);
        chip.write(TDBAH.at(queue), (self.bus.0 >> 32) as u32);
        chip.write(TDLEN.at(queue), self.bytes);
        chip.write(TDWBAL.at(queue), 0);
        chip.change(DCA_TXCTRL.at(queue), 0, DCA_TXCTRL_WRITE_BACK_RELAXED);
        chip.write(TDH.at(queue), 0);
        chip.write(TDT.at(queue), 0);
        chip.write(TXDCTL.at(queue), TXDCTL_THRESHOLDS | ENABLE);
        chip.wait(clock, QUEUE_DEADLINE, TXDCTL.at(queue), |value| value & ENABLE != 0)
    }
}

/// Tells the chip of all queues.
pub(crate) fn enable_queues<M: Mmio>(
    chip: &Chip<M>,
    setups: &[QueueSetup],
    clock: Clock<'_>,
) -> Result<(), InitError> {
    for setup in setups {
        let (what, enabled) = match setup.way {
            Way::Receive { strip, drop } => {
                ("receive", setup.enable_receive((strip, drop), chip, clock))
            }
            Way::Transmit => ("transmit", setup.enable_transmit(chip, clock)),
        };
        enabled.map_err(|_| InitError::QueueTimeout { what, queue: setup.queue })?;
    }
    Ok(())
}
