//! An in-memory NIC: receive and transmit rings, RSS, checksum offloads. It fetches a frame's bytes
//! late, reports it complete later still, and looks then whether they are what they were: memory
//! must not be reused before.
use super::Time;
use super::faults::{self, Kind, Scope};
use super::memory::Bus;
use super::swarm::MachineDraw;
use ix_dataplane::device::{
    Capabilities, Pseudo, RxBatch, RxChecksum, RxFrame, RxQueue, TxFrame, TxFull, TxQueue,
};
use ix_dataplane::limits::{FRAME_BYTES_MAX, MBUF_BYTES};
use ix_dataplane::mbuf::{Area, Mbuf, Pool, Rest};
use ix_dataplane::moves::Redirect;
use ix_dataplane::rng::Rng;
use ix_dataplane::rss::{Toeplitz, group_of};
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket, UdpPacket};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

#[derive(Debug)]
struct RxRing {
    posted: VecDeque<Mbuf>,
    filled: VecDeque<RxFrame>,
    /// Out of everybody's reach.
    hoard: Vec<Mbuf>,
    slots: usize,
}

/// A frame in a transmit ring.
#[derive(Debug)]
struct Slot {
    frame: TxFrame,
    /// When it is fetched, and when it is complete; once the doorbell has rung.
    times: Option<(Time, Time)>,
    /// What was fetched.
    fetched: Option<Vec<u8>>,
}

#[derive(Debug)]
struct TxRing {
    frames: VecDeque<Slot>,
    slots: usize,
    completed: u32,
    last_fetch: Time,
    last_done: Time,
}

/// The device; queues are handles to it.
#[derive(Debug)]
pub struct Nic {
    capabilities: Capabilities,
    toeplitz: Toeplitz,
    area: &'static Area,
    bus: Rc<Bus>,
    rng: Rng,
    tx_delay: Time,
    offset: u16,
    /// Queue of each group.
    indirection: Vec<u16>,
    rx: Vec<RxRing>,
    tx: Vec<TxRing>,
    /// Frames for which no buffer was posted.
    pub missed: u64,
    /// Virtual time.
    pub now: Time,
}

/// The NIC that queues share.
pub type SharedNic = Rc<RefCell<Nic>>;

impl Nic {
    /// The NIC of a draw.
    pub fn new(
        draw: &MachineDraw,
        rss_key: &[u8; 40],
        area: &'static Area,
        bus: Rc<Bus>,
        mut rng: Rng,
    ) -> Nic {
        let capabilities = Capabilities {
            tx_checksum: draw.tx_checksum,
            rx_checksum: draw.rx_checksum,
            rss: draw.queues > 1,
            hash_report: draw.hash_report,
            queue_pairs: draw.queues,
            groups: draw.groups,
            mtu: 1500,
            tso: 0,
            gso_pseudo: Pseudo::WithLength,
        };
        let rx = |_| RxRing {
            posted: VecDeque::new(),
            filled: VecDeque::new(),
            hoard: Vec::new(),
            slots: draw.rx_ring,
        };
        let tx = |_| TxRing {
            frames: VecDeque::new(),
            slots: draw.tx_ring,
            completed: 0,
            last_fetch: 0,
            last_done: 0,
        };
        let offset = [0, 10, 12, 64][rng.below(4) as usize];
        Nic {
            capabilities,
            toeplitz: Toeplitz::new(rss_key),
            area,
            bus,
            rng,
            tx_delay: draw.tx_delay,
            offset,
            // As `initial_owner` says, over the queues there are.
            indirection: (0..draw.groups).map(|group| group % draw.queues).collect(),
            rx: (0..draw.queues).map(rx).collect(),
            tx: (0..draw.queues).map(tx).collect(),
            missed: 0,
            now: 0,
        }
    }

    /// What it offers.
    pub fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    /// Buffers that wait for frames, and frames that wait for the driver.
    pub fn buffers(&self) -> usize {
        self.rx.iter().map(|ring| ring.posted.len() + ring.filled.len() + ring.hoard.len()).sum()
    }

    /// Sends frames of a group to a core's queue, if that has one, and they came to the one that asks.
    pub fn redirect(&mut self, redirect: &Redirect) {
        let Redirect { group, to, asker } = *redirect;
        let entry = &mut self.indirection[usize::from(group.0)];
        if *entry == asker.0 && usize::from(to.0) < self.rx.len() {
            *entry = to.0;
        }
    }

    /// Whether the queue has frames for the driver.
    pub fn has_received(&self, queue: usize) -> bool {
        self.rx.get(queue).is_some_and(|ring| !ring.filled.is_empty())
    }

    /// Frames that the driver does not know to be complete.
    pub fn in_flight(&self) -> bool {
        self.tx.iter().any(|ring| !ring.frames.is_empty() || ring.completed > 0)
    }

    /// When the next frame is fetched or completes.
    pub fn next_completion(&self) -> Time {
        let next = |slot: &Slot| match (slot.times, &slot.fetched) {
            (Some((fetch, _)), None) => fetch,
            (Some((_, done)), Some(_)) => done,
            (None, _) => Time::MAX,
        };
        let of_ring = |ring: &TxRing| {
            let unfetched = ring.frames.iter().find(|slot| slot.fetched.is_none());
            unfetched.into_iter().chain(ring.frames.front()).map(next).min()
        };
        self.tx.iter().filter_map(of_ring).min().unwrap_or(Time::MAX)
    }

    /// A frame arrives from the wire.
    pub fn receive(&mut self, frame: &[u8]) {
        let parsed = parse(frame);
        let hash = parsed.as_ref().and_then(|p| {
            let (sport, dport) = p.ports?;
            Some(self.toeplitz.hash_v4(p.src, p.dst, sport, dport))
        });
        let groups = self.capabilities.groups;
        let queue = hash.map_or(0, |hash| self.indirection[usize::from(group_of(hash, groups).0)]);
        let ring = &mut self.rx[usize::from(queue)];
        let Some(mut mbuf) = ring.posted.pop_front() else {
            self.missed += 1;
            return;
        };
        let start = usize::from(self.offset);
        let len = frame.len().min(MBUF_BYTES - start);
        let data = self.area.data_mut(&mut mbuf);
        // What is around the frame is not zero.
        data.fill(0x5a);
        data[start..start + len].copy_from_slice(&frame[..len]);
        let good = self.capabilities.rx_checksum && parsed.is_some_and(|p| p.good);
        ring.filled.push_back(RxFrame {
            mbuf,
            offset: self.offset,
            len: len as u16,
            rest: Rest::NONE,
            merged: 0,
            checksum: if good { RxChecksum::Good } else { RxChecksum::Unknown },
            hash: hash.filter(|_| self.capabilities.hash_report),
        });
    }

    /// Frames whose time has come leave for the wire, and are complete.
    pub fn transmit(&mut self) -> Vec<Vec<u8>> {
        let now = self.now;
        let mut out = Vec::new();
        for ring in &mut self.tx {
            for slot in ring.frames.iter_mut().filter(|slot| slot.fetched.is_none()) {
                if slot.times.is_none_or(|(fetch, _)| fetch > now) {
                    break;
                }
                let bytes = gather(&self.bus, &slot.frame);
                out.push(with_checksum(bytes.clone(), &slot.frame));
                slot.fetched = Some(bytes);
            }
            let done = |slot: &Slot| slot.times.is_some_and(|(_, done)| done <= now);
            while ring.frames.front().is_some_and(done) {
                let Some(slot) = ring.frames.pop_front() else { break };
                let bytes = gather(&self.bus, &slot.frame);
                assert!(
                    slot.fetched.as_ref() == Some(&bytes),
                    "memory of a frame in flight was reused: {:?}",
                    slot.frame
                );
                ring.completed += 1;
            }
        }
        out
    }
}

/// Reads a frame's pieces.
fn gather(bus: &Bus, frame: &TxFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in &frame.fragments {
        assert!(fragment.len > 0, "an empty fragment in {frame:?}");
        let at = bytes.len();
        bytes.resize(at + fragment.len as usize, 0);
        bus.read(fragment.bus, &mut bytes[at..]);
    }
    assert!((14..=FRAME_BYTES_MAX).contains(&bytes.len()), "a frame of {} bytes", bytes.len());
    bytes
}

/// Fills in the checksum that is asked for.
fn with_checksum(mut bytes: Vec<u8>, frame: &TxFrame) -> Vec<u8> {
    if let Some(checksum) = frame.checksum {
        let start = usize::from(checksum.start);
        let at = start + usize::from(checksum.offset);
        assert!(at + 2 <= bytes.len(), "a checksum outside of the frame: {checksum:?}");
        let sum = !smoltcp_sum(&bytes[start..]);
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// The ones' complement sum of RFC 1071, folded.
fn smoltcp_sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

struct Parsed {
    src: [u8; 4],
    dst: [u8; 4],
    ports: Option<(u16, u16)>,
    good: bool,
}

fn parse(frame: &[u8]) -> Option<Parsed> {
    if frame.get(12..14)? != [8, 0] {
        return None;
    }
    let ip = Ipv4Packet::new_checked(&frame[14..]).ok()?;
    let (src, dst) = (ip.src_addr(), ip.dst_addr());
    let (source, target) = (IpAddress::Ipv4(src), IpAddress::Ipv4(dst));
    let mut parsed =
        Parsed { src: src.octets(), dst: dst.octets(), ports: None, good: ip.verify_checksum() };
    if ip.more_frags() || ip.frag_offset() > 0 {
        return Some(Parsed { good: false, ..parsed });
    }
    match ip.next_header() {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
            parsed.ports = Some((tcp.src_port(), tcp.dst_port()));
            parsed.good &= tcp.verify_checksum(&source, &target);
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(ip.payload()).ok()?;
            parsed.ports = Some((udp.src_port(), udp.dst_port()));
            parsed.good &= udp.verify_checksum(&source, &target);
        }
        _ => parsed.good = false,
    }
    Some(parsed)
}

/// A receive queue of the NIC.
#[derive(Debug)]
pub struct SimRx {
    /// The device.
    pub nic: SharedNic,
    /// Its number.
    pub queue: usize,
}

impl RxQueue for SimRx {
    fn poll(&mut self, max: usize, batch: &mut RxBatch) -> usize {
        let _not_the_engine = Scope::simulation();
        let mut nic = self.nic.borrow_mut();
        let ring = &mut nic.rx[self.queue];
        let count = max.min(batch.remaining_capacity()).min(ring.filled.len());
        batch.extend(ring.filled.drain(..count));
        count
    }

    fn waiting(&self) -> usize {
        self.nic.borrow().rx[self.queue].filled.len()
    }

    fn replenish(&mut self, pool: &mut Pool) {
        let _not_the_engine = Scope::simulation();
        let mut nic = self.nic.borrow_mut();
        let ring = &mut nic.rx[self.queue];
        if faults::strikes(Kind::Refill) {
            // Half of what there is goes somewhere else for a while.
            for _ in 0..pool.available() / 2 {
                ring.hoard.extend(pool.alloc());
            }
            return;
        }
        while let Some(mbuf) = ring.hoard.pop() {
            pool.free(mbuf);
        }
        while ring.posted.len() + ring.filled.len() < ring.slots {
            let Some(mbuf) = pool.alloc() else { break };
            ring.posted.push_back(mbuf);
        }
    }

    fn arm_interrupt(&mut self) -> bool {
        self.nic.borrow().has_received(self.queue)
    }

    fn disarm_interrupt(&mut self) {}

    fn device_errors(&self) -> u64 {
        0
    }
}

/// A transmit queue of the NIC.
#[derive(Debug)]
pub struct HwTx {
    /// The device.
    pub nic: SharedNic,
    /// Its number.
    pub queue: usize,
}

impl TxQueue for HwTx {
    fn push(&mut self, frame: &TxFrame) -> Result<(), TxFull> {
        let _not_the_engine = Scope::simulation();
        if faults::strikes(Kind::Push) {
            return Err(TxFull);
        }
        let mut nic = self.nic.borrow_mut();
        let offered = nic.capabilities.tx_checksum;
        assert!(offered || frame.checksum.is_none(), "a checksum is asked of a NIC without");
        let ring = &mut nic.tx[self.queue];
        if ring.frames.len() >= ring.slots {
            return Err(TxFull);
        }
        ring.frames.push_back(Slot { frame: frame.clone(), times: None, fetched: None });
        Ok(())
    }

    fn kick(&mut self) {
        let _not_the_engine = Scope::simulation();
        let mut nic = self.nic.borrow_mut();
        let Nic { tx, rng, now, tx_delay, .. } = &mut *nic;
        let ring = &mut tx[self.queue];
        for slot in ring.frames.iter_mut().filter(|slot| slot.times.is_none()) {
            ring.last_fetch = ring.last_fetch.max(*now + rng.below(*tx_delay / 4 + 1));
            ring.last_done = ring.last_done.max(ring.last_fetch + rng.below(*tx_delay + 1));
            slot.times = Some((ring.last_fetch, ring.last_done));
        }
    }

    fn reclaim(&mut self) -> u32 {
        std::mem::take(&mut self.nic.borrow_mut().tx[self.queue].completed)
    }
}
