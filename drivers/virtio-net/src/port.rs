//! Opening a port: the initialisation sequence of virtio 1.2 §3.1.1 and §5.1.5.
use crate::control::{CommandQueue, Control, HASH_TYPES};
use crate::error::InitError;
use crate::features::{self, Features};
use crate::header;
use crate::ring::Ring;
use crate::rx::{RxOptions, VirtioRx};
use crate::transport::{Clock, NO_VECTOR, Transport, status};
use crate::tx::{self, TxOptions, VirtioTx};
use crate::{GROUPS, RSS_KEY_BYTES};
use alloc::vec::Vec;
use ix_dataplane::device::{Capabilities, Dma, Mmio, Nic, Pseudo};
use ix_dataplane::limits::{FRAME_BYTES_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::Area;

/// Fewest entries of a receive ring that are any use.
const RX_RING_MIN: u16 = 2;

/// What the caller wants.
pub struct Config<'a> {
    /// Where the receive buffers are that the queues will be given.
    pub area: &'static Area,
    /// Queue pairs wanted, at least 1; the device may have fewer.
    pub queue_pairs: u16,
    /// Entries wanted of each receive ring; the device may have fewer. A power of two.
    pub rx_ring: u16,
    /// The same for each transmit ring. With indirect descriptors this many frames can be in flight.
    pub tx_ring: u16,
    /// The Toeplitz key; random per boot.
    pub rss_key: [u8; RSS_KEY_BYTES],
    /// Entry of the MSI-X table for receive queue 0; queue `i` gets the `i`th after it. `None`: no
    /// interrupts, the core halts with a timer as its bound.
    pub first_vector: Option<u16>,
    /// The address to use if the device has none: random, locally administered.
    pub fallback_mac: [u8; 6],
    /// The largest IP packet wanted. The device may take less; `None`: what it names, or else Ethernet's.
    pub mtu: Option<u16>,
    /// Features to do without, whatever the device offers.
    pub decline: Features,
    /// For deadlines.
    pub clock: Clock<'a>,
}

impl core::fmt::Debug for Config<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Config")
            .field("queue_pairs", &self.queue_pairs)
            .field("rx_ring", &self.rx_ring)
            .field("tx_ring", &self.tx_ring)
            .field("first_vector", &self.first_vector)
            .field("decline", &self.decline)
            .finish_non_exhaustive()
    }
}

/// Proof that a device was reset: it touches no memory of the driver any more.
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
    pub rx: Vec<VirtioRx<M>>,
    /// One per queue pair.
    pub tx: Vec<VirtioTx<M>>,
    /// The rest.
    pub control: Control<M>,
    /// What the port can do.
    pub capabilities: Capabilities,
    /// The MAC address.
    pub mac: [u8; 6],
    /// It goes through what the platform has between devices and memory (§6.2, `ACCESS_PLATFORM`), not past it.
    pub behind_iommu: bool,
}

/// What was read of `struct virtio_net_config` (§5.1.4).
#[derive(Clone, Copy, Debug)]
struct DeviceConfig {
    mac: [u8; 6],
    pairs_max: u16,
    mtu: u16,
    key_bytes_max: u8,
    table_len_max: u16,
    hash_types: u32,
}

impl<M: Mmio + Clone> Nic for Port<M> {
    type Stopped = Stopped;
    type Rx = VirtioRx<M>;
    type Tx = VirtioTx<M>;
    type Control = Control<M>;
}

impl<M: Mmio + Clone> Port<M> {
    /// Resets the device and opens it. On failure the device is left reset, with `FAILED` set.
    pub fn open(
        transport: Transport<M>,
        dma: &mut impl Dma,
        config: &Config<'_>,
    ) -> Result<Port<M>, InitError> {
        if config.queue_pairs == 0 {
            return Err(InitError::BadRequest { what: "a port needs a queue pair at least" });
        }
        transport.reset(config.clock)?;
        Self::start(&transport, dma, config).inspect_err(|_| {
            // Stop it first: it may have rings already. Nothing more can be done if it does not.
            let _ = transport.reset(config.clock);
            transport.add_status(status::FAILED);
        })
    }

    fn start(
        transport: &Transport<M>,
        dma: &mut impl Dma,
        config: &Config<'_>,
    ) -> Result<Port<M>, InitError> {
        transport.add_status(status::ACKNOWLEDGE);
        transport.add_status(status::DRIVER);
        let (features, device) = negotiate(transport, config)?;
        let pairs = config.queue_pairs.min(device.pairs_max);
        transport.disable_config_interrupt();

        let mut rx = Vec::with_capacity(usize::from(pairs));
        let mut tx = Vec::with_capacity(usize::from(pairs));
        for pair in 0..pairs {
            rx.push(open_rx(transport, dma, config, features, pair)?);
            tx.push(open_tx(transport, dma, config, features, pair)?);
        }
        let commands = if features.contains(Features::CTRL_VQ) {
            // §5.1.2: behind all pairs that the device has, used or not.
            Some(CommandQueue::new(transport, dma, 2 * device.pairs_max)?)
        } else {
            None
        };
        transport.add_status(status::DRIVER_OK);

        let setups = rx.iter().map(VirtioRx::setup).chain(tx.iter().map(VirtioTx::setup)).collect();
        let mut control =
            Control::new(transport.clone(), features, commands, setups, pairs, config.rss_key);
        control.start_steering(config.clock)?;
        let mac = if features.contains(Features::MAC) { device.mac } else { config.fallback_mac };
        let capabilities = capabilities(features, &device, pairs, config.mtu);
        let behind_iommu = features.contains(Features::ACCESS_PLATFORM);
        Ok(Port { rx, tx, control, capabilities, mac, behind_iommu })
    }
}

/// Agrees on features with the device (§3.1.1 steps 4 to 6).
fn negotiate<M: Mmio + Clone>(
    transport: &Transport<M>,
    config: &Config<'_>,
) -> Result<(Features, DeviceConfig), InitError> {
    let mut decline = config.decline;
    let offered = transport.read_features();
    let hopeful = features::negotiate(offered, decline)?;
    let mut device = read_device_config(transport, hopeful)?;
    // Mergeable buffers cost each frame a look, and serve only for frames that one buffer does not take.
    let wanted = device.mtu.max(config.mtu.unwrap_or(MTU_MIN));
    if wanted <= MTU_OF_BUFFER && !hopeful.intersects(features::LARGE_RECEIVE) {
        decline |= Features::MRG_RXBUF;
    }
    // §5.1.4.2: taking MTU obliges to take frames of that size.
    if device.mtu > MTU_OF_BUFFER && !hopeful.contains(Features::MRG_RXBUF) {
        decline |= Features::MTU;
    }
    // A device whose RSS is smaller than §5.1.4.1 demands is taken as one without.
    let small = usize::from(device.table_len_max) < GROUPS
        || usize::from(device.key_bytes_max) < RSS_KEY_BYTES;
    let no_types = device.hash_types & HASH_TYPES != HASH_TYPES;
    if small || no_types {
        decline |= Features::RSS | Features::HASH_REPORT;
    }
    let chosen = features::negotiate(offered, decline)?;
    if !chosen.intersects(Features::MQ | Features::RSS) {
        device.pairs_max = 1;
    }
    transport.write_features(chosen.bits());
    transport.add_status(status::FEATURES_OK);
    if transport.read_status() & status::FEATURES_OK == 0 {
        return Err(InitError::FeaturesRefused { features: chosen });
    }
    // Only now: QEMU has its further queues only once MQ or RSS was agreed to.
    let needed = 2 * device.pairs_max + u16::from(chosen.contains(Features::CTRL_VQ));
    let queues = transport.read_queue_count();
    if queues < needed {
        return Err(InitError::BadConfig { field: "num_queues", value: u32::from(queues) });
    }
    Ok((chosen, device))
}

/// The largest IP packet that a buffer takes, behind both headers.
const MTU_OF_BUFFER: u16 = MBUF_BYTES as u16 - header::BYTES_HASH - header::ETHERNET_BYTES;
/// Without a word from the device: Ethernet's.
const MTU_DEFAULT: u16 = (FRAME_BYTES_MAX - header::ETHERNET_BYTES as usize) as u16;
/// The largest IP packet to be cut into segments: what its length field takes.
const TSO_MAX: u16 = u16::MAX;
/// §5.1.4.1: no device says less.
const MTU_MIN: u16 = 68;

/// Reads the fields that exist with these features; the others get harmless values.
fn read_device_config<M: Mmio + Clone>(
    transport: &Transport<M>,
    features: Features,
) -> Result<DeviceConfig, InitError> {
    let has = |feature| features.intersects(feature);
    let device = transport.read_config(|c| DeviceConfig {
        mac: core::array::from_fn(|byte| if has(Features::MAC) { c.read8(byte) } else { 0 }),
        pairs_max: if has(Features::MQ | Features::RSS) { c.read16(8) } else { 1 },
        mtu: if has(Features::MTU) { c.read16(10) } else { MTU_DEFAULT },
        key_bytes_max: if has(Features::RSS | Features::HASH_REPORT) { c.read8(17) } else { 0 },
        table_len_max: if has(Features::RSS) { c.read16(18) } else { GROUPS as u16 },
        hash_types: if has(Features::RSS | Features::HASH_REPORT) { c.read32(20) } else { 0 },
    })?;
    let bad = |field, value: u16| Err(InitError::BadConfig { field, value: u32::from(value) });
    // §5.1.4.1: 1 to 0x8000; and all queues with the control queue must have indices.
    if device.pairs_max == 0 || device.pairs_max >= 0x7fff {
        return bad("max_virtqueue_pairs", device.pairs_max);
    }
    if device.mtu < MTU_MIN {
        return bad("mtu", device.mtu);
    }
    if has(Features::MAC) && device.mac[0] & 1 != 0 {
        return bad("mac (a group address), first byte", u16::from(device.mac[0]));
    }
    Ok(device)
}

fn open_rx<M: Mmio + Clone>(
    transport: &Transport<M>,
    dma: &mut impl Dma,
    config: &Config<'_>,
    features: Features,
    pair: u16,
) -> Result<VirtioRx<M>, InitError> {
    let vector = config.first_vector.map_or(NO_VECTOR, |first| first.saturating_add(pair));
    let ring = Ring::new(transport, dma, 2 * pair, config.rx_ring, RX_RING_MIN, vector)?;
    let options = RxOptions {
        checksum: features.contains(Features::GUEST_CSUM),
        hash: features.contains(Features::HASH_REPORT),
        merge: features.contains(Features::MRG_RXBUF),
        large: features.intersects(features::LARGE_RECEIVE),
    };
    Ok(VirtioRx::new(ring, config.area, options))
}

fn open_tx<M: Mmio + Clone>(
    transport: &Transport<M>,
    dma: &mut impl Dma,
    config: &Config<'_>,
    features: Features,
    pair: u16,
) -> Result<VirtioTx<M>, InitError> {
    let index = 2 * pair + 1;
    let ring = Ring::new(transport, dma, index, config.tx_ring, tx::CHAIN_MAX, NO_VECTOR)?;
    let options = TxOptions {
        indirect: features.contains(Features::INDIRECT_DESC),
        checksum: features.contains(Features::CSUM),
        tso: features.contains(Features::HOST_TSO4),
        hash: features.contains(Features::HASH_REPORT),
    };
    VirtioTx::new(ring, dma, options)
}

fn capabilities(
    features: Features,
    device: &DeviceConfig,
    pairs: u16,
    mtu: Option<u16>,
) -> Capabilities {
    let (default, most) = if features.contains(Features::MTU) {
        (device.mtu, device.mtu)
    } else if features.contains(Features::MRG_RXBUF) {
        (MTU_DEFAULT, u16::MAX)
    } else {
        (MTU_DEFAULT, MTU_OF_BUFFER)
    };
    let mtu = mtu.map_or(default, |wanted| wanted.clamp(MTU_MIN, most));
    Capabilities {
        tx_checksum: features.contains(Features::CSUM),
        rx_checksum: features.contains(Features::GUEST_CSUM),
        rss: features.contains(Features::RSS),
        hash_report: features.contains(Features::HASH_REPORT),
        queue_pairs: pairs,
        groups: GROUPS as u16,
        mtu,
        tso: if features.contains(Features::HOST_TSO4) { TSO_MAX } else { 0 },
        gso_pseudo: Pseudo::WithLength,
    }
}
