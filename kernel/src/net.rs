//! The port: finds the NIC, opens it, shares its queues out to cores.
#![allow(unsafe_code, reason = "gives the receive area's memory to the engine")]

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::ptr::NonNull;

use ix_abi::CoreId;
use ix_abi::layout::{PAGE_BYTES, RX_BASE};
use ix_dataplane::device::{
    BusAddr, Capabilities, Dma, DmaRegion, Fragment, Pseudo, TxChecksum, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::limits::MBUF_BYTES;
use ix_dataplane::mbuf::Area;
use ix_dataplane::rss;
use ix_dataplane::steer::{MuxTx, RemoteTx};
use ix_dataplane::time::Instant;
use ix_ixgbe::pci as ixgbe_pci;
use ix_kernel_core::addr::Phys;
use ix_kernel_core::cmdline::{Iommu, Nic};
use ix_virtio_net::{Config, Features, Port, Transport, pci as vpci};
use ix_vtd::Rights;

use crate::cpu::percore;
use crate::cpu::trap::VECTOR_DEVICE_FIRST;
use crate::mem::{self, layout};
use crate::nic::{Control, Queue, Rx};
use crate::pci::Function;
use crate::pci::msix::Msix;
use crate::start::machine;
use crate::{apic, entropy, iommu, loopback, time};

/// Receive buffers of each core: 8 MiB.
const BUFFERS_PER_CORE: u32 = 4096;
const RX_RING: u16 = 1024;
const TX_RING: u16 = 1024;
/// Flow groups where there is no NIC.
const GROUPS_WITHOUT_NIC: u16 = 128;

/// Bus addresses are physical ones, to which an IOMMU holds the card if there is one.
pub struct KernelDma;

impl Dma for KernelDma {
    fn alloc(&mut self, len: usize, align: usize) -> Option<DmaRegion> {
        let bytes = (len as u64).max(1).checked_next_multiple_of(4096)?;
        let pa = mem::alloc_contiguous(bytes, align as u64)?;
        if !iommu::give(pa, bytes, Rights::Write) {
            return None;
        }
        let ptr = NonNull::new(layout::direct(pa) as *mut u8)?;
        Some(DmaRegion { ptr, bus: BusAddr(pa.0), len: bytes as usize })
    }
}

/// A transmit queue where there is no NIC: what is sent is gone at once.
#[derive(Debug, Default)]
pub struct NullTx {
    pushed: u32,
}

impl TxQueue for NullTx {
    fn push(&mut self, _: &TxFrame) -> Result<(), TxFull> {
        self.pushed += 1;
        Ok(())
    }
    fn kick(&mut self) {}
    fn reclaim(&mut self) -> u32 {
        core::mem::take(&mut self.pushed)
    }
}

/// A core's way to the wire.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per core, and a box would cost each call a load")]
pub enum Tx {
    /// It owns a hardware queue, which others may send through.
    Queue(MuxTx<Queue>),
    /// It sends through another core.
    Remote(RemoteTx),
    None(NullTx),
}

impl TxQueue for Tx {
    #[inline]
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        match self {
            Self::Queue(q) => q.push(frame),
            Self::Remote(q) => q.push(frame),
            Self::None(q) => q.push(frame),
        }
    }
    #[inline]
    fn push_pair(
        &mut self,
        headers: Fragment,
        payload: Fragment,
        checksum: Option<TxChecksum>,
    ) -> Result<(), TxFull> {
        match self {
            Self::Queue(q) => q.push_pair(headers, payload, checksum),
            Self::Remote(q) => q.push_pair(headers, payload, checksum),
            Self::None(q) => q.push_pair(headers, payload, checksum),
        }
    }
    #[inline]
    fn kick(&mut self) {
        match self {
            Self::Queue(q) => q.kick(),
            Self::Remote(q) => q.kick(),
            Self::None(q) => q.kick(),
        }
    }
    #[inline]
    fn reclaim(&mut self) -> u32 {
        match self {
            Self::Queue(q) => q.reclaim(),
            Self::Remote(q) => q.reclaim(),
            Self::None(q) => q.reclaim(),
        }
    }
}

/// One core's share of the port.
#[derive(Debug)]
pub struct Share {
    pub rx: Vec<Rx>,
    pub tx: Tx,
    /// Other cores send through its queue.
    pub shared: bool,
}

/// The opened port.
pub struct Net {
    pub shares: Vec<Share>,
    pub control: Option<Control>,
    pub capabilities: Capabilities,
    pub mac: [u8; 6],
    pub rss_key: [u8; 40],
    pub area: &'static Area,
    /// The same for the application's page tables.
    pub area_memory: (Phys, u64),
}

/// Wakes a core for its peers; a plain function, as `RemoteTx` wants it.
pub fn wake(core: CoreId) {
    wake_core(usize::from(core.0));
}

/// Sends an IPI if the core halts or is about to; a load otherwise.
#[inline]
pub fn wake_core(core: usize) {
    use core::sync::atomic::Ordering;
    let peer = percore::of(core);
    if peer.sleeping.load(Ordering::Relaxed) {
        peer.sleeping.store(false, Ordering::Relaxed);
        apic::wake(core);
    }
}

fn make_area(cores: usize) -> Option<(&'static Area, (Phys, u64))> {
    let bytes = cores as u64 * u64::from(BUFFERS_PER_CORE) * MBUF_BYTES as u64;
    let bytes = bytes.next_multiple_of(PAGE_BYTES);
    let pa = mem::alloc_contiguous(bytes, PAGE_BYTES)?;
    if !iommu::give(pa, bytes, Rights::Write) {
        return None;
    }
    let data = NonNull::new(layout::direct(pa) as *mut u8)?;
    // SAFETY: fresh memory in the direct map, never freed, used through the area only (and by the
    // device and, read-only, the application).
    let area = unsafe { Area::new(data, BusAddr(pa.0), RX_BASE, cores as u16, BUFFERS_PER_CORE) };
    Some((Box::leak(Box::new(area)), (pa, bytes)))
}

/// The driver for it.
pub fn driver(f: &Function) -> Option<&'static str> {
    if vpci::is_virtio_net(f.vendor, f.device) {
        return Some("virtio-net");
    }
    ixgbe_pci::media(f.vendor, f.device).map(|_| "ixgbe")
}

/// What is asked of the card.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes {
    /// The largest IP packet.
    pub mtu: Option<u16>,
    /// The only VLAN.
    pub vlan: Option<u16>,
    /// Pause frames.
    pub pause: bool,
}

/// Opens the first card that there is a driver for, or makes a port without one. Errors say what to do.
pub fn open(functions: &[Function], cores: usize, wishes: Wishes) -> Result<Net, String> {
    let looped = machine().config.nic == Nic::Loopback;
    let nic = functions.iter().find(|f| driver(f).is_some()).filter(|_| !looped);
    if let Some(f) = nic {
        iommu::guard(f, machine().config.iommu)
            .map_err(|e| alloc::format!("network card {f}: {e}"))?;
    }
    let (area, area_memory) = make_area(cores)
        .ok_or_else(|| alloc::format!("no memory for the receive buffers of {cores} cores"))?;
    let rss_key = rss::draw_key(entropy::fill);
    if looped {
        for f in functions.iter().filter(|f| driver(f).is_some()) {
            log::info!("network card {f}: left idle, as nic=loopback says: no wire leads here");
        }
        let opened = open_loopback(cores, area, rss_key, wishes)
            .map_err(|e| alloc::format!("the loopback card {e}"))?;
        return Ok(opened.into_net(area, area_memory, rss_key));
    }
    let Some(f) = nic else {
        log::warn!("no network card that the kernel knows: running without");
        return Ok(without_nic(cores, area, area_memory, rss_key));
    };
    let opened = match ixgbe_pci::media(f.vendor, f.device) {
        Some(media) => open_ixgbe(f, media, cores, area, (rss_key, wishes)),
        None => open_virtio(f, cores, area, (rss_key, wishes)),
    };
    let opened = opened.map_err(|e| alloc::format!("network card {f}: {e}"))?;
    Ok(opened.into_net(area, area_memory, rss_key))
}

fn without_nic(cores: usize, area: &'static Area, mem: (Phys, u64), rss_key: [u8; 40]) -> Net {
    let none = |_| Share { rx: Vec::new(), tx: Tx::None(NullTx::default()), shared: false };
    let capabilities = Capabilities {
        tx_checksum: true,
        rx_checksum: true,
        rss: false,
        hash_report: false,
        queue_pairs: 0,
        groups: GROUPS_WITHOUT_NIC,
        mtu: 1500,
        tso: 0,
        gso_pseudo: Pseudo::WithLength,
    };
    let shares = (0..cores).map(none).collect();
    let mac = local_mac();
    Net { shares, control: None, capabilities, mac, rss_key, area, area_memory: mem }
}

/// A random address of the locally administered kind.
fn local_mac() -> [u8; 6] {
    let mut mac = [0; 6];
    entropy::fill(&mut mac);
    mac[0] = (mac[0] & 0xFC) | 2;
    mac
}

/// What opening a card gives.
struct Opened {
    shares: Vec<Share>,
    control: Control,
    capabilities: Capabilities,
    mac: [u8; 6],
}

impl Opened {
    fn into_net(self, area: &'static Area, area_memory: (Phys, u64), rss_key: [u8; 40]) -> Net {
        let Self { shares, control, capabilities, mac } = self;
        Net { shares, control: Some(control), capabilities, mac, rss_key, area, area_memory }
    }
}

/// A vector for each of so many receive queues: entry `i` is queue `i`'s.
fn enable_msix(f: &Function, cores: usize) -> Option<Msix> {
    // Fewer entries than queues: those wake by the tick alone.
    let msix = Msix::enable(f).filter(|m| usize::from(m.entries()) >= cores);
    if msix.is_none() {
        log::warn!("network card {f}: too few MSI-X vectors, halts end by the tick only");
    }
    msix
}

fn point_vectors(msix: Option<&Msix>, queues: usize) {
    if let Some(m) = msix {
        for queue in 0..queues {
            m.set(queue as u16, queue, VECTOR_DEVICE_FIRST);
        }
    }
}

fn tell(f: &Function, driver: &str, capabilities: &Capabilities, (cores, wishes): (usize, Wishes)) {
    if wishes.mtu.is_some_and(|wanted| wanted > capabilities.mtu) {
        log::warn!("network card {f}: takes no more than an MTU of {}", capabilities.mtu);
    }
    log::info!(
        "network card {f}: {driver}, {} queue pairs for {cores} cores, MTU {}",
        capabilities.queue_pairs,
        capabilities.mtu
    );
    if let Some(vlan) = wishes.vlan {
        log::info!("network card {f}: in VLAN {vlan}");
    }
}

fn open_virtio(
    f: &Function,
    cores: usize,
    area: &'static Area,
    (rss_key, wishes): ([u8; 40], Wishes),
) -> Result<Opened, String> {
    if let Some(vlan) = wishes.vlan {
        return Err(alloc::format!(
            "cannot tag frames (vlan={vlan}): put its interface on the host into that VLAN and leave the option out"
        ));
    }
    if wishes.pause {
        return Err("sends no pause frames (pause=on): leave the option out".to_string());
    }
    f.enable();
    let layout = vpci::parse(|at| f.read32(at)).map_err(|e| e.to_string())?;
    let map = |w: vpci::Window| {
        f.map(w.bar, u64::from(w.offset), u64::from(w.length)).ok_or("a BAR cannot be mapped")
    };
    let transport = Transport::map(&layout, map)?;
    let msix = enable_msix(f, cores);
    let config = Config {
        area,
        queue_pairs: cores as u16,
        rx_ring: RX_RING,
        tx_ring: TX_RING,
        rss_key,
        first_vector: msix.as_ref().map(|_| 0),
        fallback_mac: local_mac(),
        mtu: wishes.mtu,
        decline: Features::empty(),
        clock: &|| Instant(time::now_ns()),
    };
    let port = Port::open(transport, &mut KernelDma, &config).map_err(|e| e.to_string())?;
    if iommu::is_on() && !port.behind_iommu {
        goes_past(f)?;
    }
    point_vectors(msix.as_ref(), port.rx.len());
    tell(f, "virtio", &port.capabilities, (cores, wishes));
    let rx = port.rx.into_iter().map(Rx::Virtio).collect();
    let tx = port.tx.into_iter().map(Queue::Virtio).collect();
    let (control, capabilities, mac) = (Control::Virtio(port.control), port.capabilities, port.mac);
    Ok(Opened { shares: share_out(rx, tx, cores), control, capabilities, mac })
}

/// A device that the hypervisor lets past the IOMMU.
fn goes_past(f: &Function) -> Result<(), String> {
    let text = "the IOMMU does not see what this virtio card does (QEMU: iommu_platform=on)";
    if machine().config.iommu == Iommu::On {
        return Err(text.into());
    }
    log::warn!("network card {f}: {text}");
    Ok(())
}

/// Bytes of an 82599's registers (§8.1.1).
const IXGBE_REGISTERS: u64 = 0x2_0000;

fn open_ixgbe(
    f: &Function,
    media: ixgbe_pci::Media,
    cores: usize,
    area: &'static Area,
    (rss_key, wishes): ([u8; 40], Wishes),
) -> Result<Opened, String> {
    f.enable();
    let registers = f.map(0, 0, IXGBE_REGISTERS).ok_or("BAR 0 cannot be mapped")?;
    let pairs = cores.min(usize::from(ix_ixgbe::QUEUE_PAIRS_MAX));
    let msix = enable_msix(f, pairs);
    let config = ix_ixgbe::Config {
        media,
        area,
        queue_pairs: pairs as u16,
        rx_ring: RX_RING,
        tx_ring: TX_RING,
        rss_key,
        first_vector: msix.as_ref().map(|_| 0),
        mtu: wishes.mtu,
        promiscuous: false,
        tso: true,
        vlan: wishes.vlan,
        flow_control: wishes.pause,
        clock: &|| Instant(time::now_ns()),
    };
    let opened = ix_ixgbe::Port::open(registers, &mut KernelDma, &config);
    let port = opened.map_err(|e| e.to_string())?;
    point_vectors(msix.as_ref(), port.rx.len());
    tell(f, "ixgbe", &port.capabilities, (cores, wishes));
    let rx = port.rx.into_iter().map(Rx::Ixgbe).collect();
    let tx = port.tx.into_iter().map(Queue::Ixgbe).collect();
    let (control, capabilities, mac) = (Control::Ixgbe(port.control), port.capabilities, port.mac);
    Ok(Opened { shares: share_out(rx, tx, cores), control, capabilities, mac })
}

fn open_loopback(
    cores: usize,
    area: &'static Area,
    rss_key: [u8; 40],
    wishes: Wishes,
) -> Result<Opened, String> {
    let port = loopback::open(cores, area, rss_key, wishes)?;
    let capabilities = port.capabilities;
    log::info!(
        "network card: loopback, {} queue pairs for {cores} cores, MTU {}: what is sent comes back",
        capabilities.queue_pairs,
        capabilities.mtu
    );
    let rx = port.rx.into_iter().map(Rx::Loopback).collect();
    let tx = port.tx.into_iter().map(Queue::Loopback).collect();
    let shares = share_out(rx, tx, cores);
    let control = Control::Loopback(port.control);
    Ok(Opened { shares, control, capabilities, mac: local_mac() })
}

/// Queue pair `i` goes to core `i`; cores beyond the last pair send through those before, in turn, and
/// receive through software steering.
fn share_out(rx: Vec<Rx>, tx: Vec<Queue>, cores: usize) -> Vec<Share> {
    let pairs = tx.len();
    let mut sources: Vec<Vec<_>> = (0..pairs).map(|_| Vec::new()).collect();
    let mut remote = Vec::new();
    for core in pairs..cores {
        let owner = core % pairs;
        let wake: fn(CoreId) = wake;
        let (tx, source) = RemoteTx::new(CoreId(owner as u16), usize::from(TX_RING), wake);
        sources[owner].push(source);
        remote.push(Share { rx: Vec::new(), tx: Tx::Remote(tx), shared: false });
    }
    let queues = rx.into_iter().zip(tx).zip(sources);
    let mut shares: Vec<Share> = queues
        .map(|((rx, tx), sources)| Share {
            rx: alloc::vec![rx],
            shared: !sources.is_empty(),
            tx: Tx::Queue(MuxTx::new(tx, usize::from(TX_RING), sources)),
        })
        .collect();
    shares.extend(remote);
    shares
}
