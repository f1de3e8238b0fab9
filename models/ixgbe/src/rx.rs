//! The receive side: filters, queue, buffers, write-back (§7.1).
use crate::filter::{self, Cast};
use crate::packet::{self, Layers, Network, Toeplitz, Transport};
use crate::regs::Id;
use crate::rsc::Flow;
use crate::write_back::{Item, QUEUES, WriteBacks};
use crate::{Chip, Memory, Outside, interrupts, statistics};
use std::collections::VecDeque;

/// RXCTRL.RXEN.
const RX_ENABLE: u32 = 1;
/// RXDCTL.ENABLE and VME, TXDCTL.ENABLE.
pub(crate) const QUEUE_ENABLE: u32 = 1 << 25;
const VLAN_STRIP: u32 = 1 << 30;
/// SRRCTL.Drop_En.
const DROP_ENABLE: u32 = 1 << 28;
/// HLREG0.RXCRCSTRP and RDRXCTL.CRCStrip.
const MAC_STRIPS: u32 = 1 << 1;
const DMA_STRIPS: u32 = 1 << 1;
/// HLREG0.JUMBOEN.
const JUMBO_ENABLE: u32 = 1 << 2;
/// RXCSUM.PCSD: the hash is in the descriptor, not a fragment's sum.
const HASH_IN_DESCRIPTOR: u32 = 1 << 13;
/// Bytes of the shortest frame, without FCS.
const LEN_MIN: usize = 60;

/// Write-back status (§7.1.6.2).
mod status {
    pub const DONE: u32 = 1;
    pub const END: u32 = 1 << 1;
    pub const VLAN: u32 = 1 << 3;
    pub const UDP_CHECKED: u32 = 1 << 4;
    pub const L4_CHECKED: u32 = 1 << 5;
    pub const IP_CHECKED: u32 = 1 << 6;
    pub const NOT_EXACT: u32 = 1 << 7;
    pub const L4_BAD: u32 = 1 << 30;
    pub const IP_BAD: u32 = 1 << 31;
}

/// Packet types of the write-back, at their place (§7.1.6.2.1).
mod kind {
    pub const V4: u32 = 1 << 4;
    pub const V4_EXTENDED: u32 = 1 << 5;
    pub const V6: u32 = 1 << 6;
    pub const V6_EXTENDED: u32 = 1 << 7;
    pub const TCP: u32 = 1 << 8;
    pub const UDP: u32 = 1 << 9;
    pub const SCTP: u32 = 1 << 10;
}

/// A frame that waits for a descriptor in the packet buffer.
#[derive(Debug)]
struct Waiting {
    frame: Vec<u8>,
    queue: usize,
    about: About,
}

/// What the write-back says of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct About {
    pub kind: u32,
    pub hash: u32,
    pub status: u32,
    pub vlan: u16,
}

/// The receive side's own state.
#[derive(Debug)]
pub(crate) struct Rx {
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    pub toeplitz: Option<Toeplitz>,
    pub write_backs: WriteBacks,
    /// Frames since the last in which a bit flipped, and since the last that was lost.
    since_flip: u32,
    since_loss: u32,
    /// Large frames under way.
    pub flows: Vec<Flow>,
}

impl Rx {
    pub fn new(seed: u64) -> Rx {
        Rx {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            toeplitz: None,
            write_backs: WriteBacks::new(seed),
            since_flip: 0,
            since_loss: 0,
            flows: Vec::new(),
        }
    }

    /// What of the packet buffer is in use.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    pub fn reset(&mut self) {
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.toeplitz = None;
        self.flows.clear();
        self.write_backs.clear();
    }
}

/// Room in a queue, and in what pieces.
pub(crate) struct Ring {
    pub base: u64,
    pub len: u32,
    pub head: u32,
    pub tail: u32,
    pub buffer: usize,
    pub legacy: bool,
}

impl Chip {
    pub(crate) fn receive_frame(
        &mut self,
        frame: &[u8],
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) -> bool {
        if every(self.faults.lose_every, &mut self.rx.since_loss) {
            return false;
        }
        let loopback = self.is_loopback();
        if !self.link.is_up() && !loopback {
            self.counts.dropped_link_down += 1;
            return false;
        }
        if self.map.get(Id::RXCTRL) & RX_ENABLE == 0 || !self.is_master() {
            self.counts.dropped_disabled += 1;
            return false;
        }
        // What comes without padding from a peer in software has it on a wire.
        let mut padded = [0; LEN_MIN];
        let mut frame = frame;
        if frame.len() < LEN_MIN {
            padded[..frame.len()].copy_from_slice(frame);
            frame = &padded;
        }
        statistics::arrived(&mut self.map, frame.len());
        if self.take_pause(frame, memory, outside) {
            return false;
        }
        let vlan_type = self.map.get(Id::VLNCTRL) as u16;
        let layers = packet::parse(frame, vlan_type);
        let tag = if layers.vlan.is_some() { 4 } else { 0 };
        let most = if self.map.get(Id::HLREG0) & JUMBO_ENABLE != 0 {
            (self.map.get(Id::MAXFRS) >> 16) as usize
        } else {
            1518
        };
        if frame.len() + 4 > most + tag {
            self.map.count(Id::ROC, 0, 1);
            return false;
        }
        let Some(destination) = frame.first_chunk::<6>() else { return false };
        let cast = filter::cast(destination);
        if !filter::passes(&self.map, destination, layers.vlan) {
            self.counts.dropped_by_filter += 1;
            return false;
        }
        if !self.faults.stuck_statistics {
            statistics::passed(&mut self.map, frame.len(), cast);
        }
        let flipped: Vec<u8>;
        if every(self.faults.flip_every, &mut self.rx.since_flip) {
            flipped = flip_last(frame);
            frame = &flipped;
        }
        let (queue, about) = self.classify(frame, &layers, cast);
        let with_fcs: Vec<u8>;
        if !self.strips_fcs() {
            with_fcs = [frame, &packet::fcs(frame)].concat();
            frame = &with_fcs;
        }
        self.deliver(frame, queue, about, memory, outside)
    }

    /// Whether the FCS stays on the chip. Both bits have to agree (§8.2.3.8.8).
    fn strips_fcs(&mut self) -> bool {
        let strips = self.map.get(Id::HLREG0) & MAC_STRIPS != 0;
        let agrees = strips == (self.map.get(Id::RDRXCTL) & DMA_STRIPS != 0);
        self.counts.contradictions += u64::from(!agrees);
        strips
    }

    /// The queue, and what will be said of the frame.
    fn classify(&mut self, frame: &[u8], layers: &Layers, cast: Cast) -> (usize, About) {
        let mrqc = self.map.get(Id::MRQC);
        let mut about = About { kind: packet_kind(layers), ..About::default() };
        let mut queue = 0;
        if mrqc & 0xf == 1 {
            if self.rx.toeplitz.is_none() {
                self.rx.toeplitz = Some(Toeplitz::new(&self.rss_key()));
            }
            let toeplitz = self.rx.toeplitz.as_ref();
            if let Some((hash, kind)) = toeplitz.and_then(|t| packet::rss(frame, layers, mrqc, t)) {
                let entry = (hash & 0x7f) as usize;
                queue = (self.map.at(Id::RETA, entry / 4) >> (8 * (entry % 4)) & 0xf) as usize;
                if self.map.get(Id::RXCSUM) & HASH_IN_DESCRIPTOR != 0 {
                    about.kind |= kind;
                    about.hash = hash;
                }
            }
        }
        about.status |= checksum_status(frame, layers);
        if self.faults.blind_checksums {
            about.status &= !(status::IP_BAD | status::L4_BAD);
        }
        if cast == Cast::Multi {
            about.status |= status::NOT_EXACT;
        }
        if let Some(tag) = layers.vlan {
            about.status |= status::VLAN;
            about.vlan = tag;
        }
        (queue, about)
    }

    fn rss_key(&self) -> [u8; 40] {
        core::array::from_fn(|i| (self.map.at(Id::RSSRK, i / 4) >> (8 * (i % 4))) as u8)
    }

    fn deliver(
        &mut self,
        frame: &[u8],
        queue: usize,
        mut about: About,
        memory: &dyn Memory,
        outside: &mut dyn Outside,
    ) -> bool {
        let control = self.map.at(Id::RXDCTL, queue);
        if control & QUEUE_ENABLE == 0 {
            self.counts.dropped_disabled += 1;
            return false;
        }
        let stripped: Vec<u8>;
        let mut frame = frame;
        if control & VLAN_STRIP != 0 && about.status & status::VLAN != 0 {
            stripped = [&frame[..12], &frame[16..]].concat();
            frame = &stripped;
        } else {
            about.status &= !status::VLAN;
            about.vlan = 0;
        }
        if self.rx.waiting.is_empty() && self.coalesce(frame, queue, &about, memory) {
            self.deliver_interrupts(outside);
            return true;
        }
        if self.rx.waiting.is_empty() && self.write_frame(frame, queue, about, memory) {
            self.deliver_interrupts(outside);
            return true;
        }
        if self.map.at(Id::SRRCTL, queue) & DROP_ENABLE != 0 {
            statistics::dropped(&mut self.map, queue);
            return false;
        }
        // Without Drop_En the packet buffer fills, and all queues wait for one (§7.1.4).
        let room = (self.map.get(Id::RXPBSIZE) >> 10) as usize * 1024;
        if self.rx.waiting_bytes + frame.len() > room {
            self.map.count(Id::RXMPC, 0, 1);
            self.interrupts.raise_other(interrupts::RX_MISS);
            self.deliver_interrupts(outside);
            return false;
        }
        self.rx.waiting_bytes += frame.len();
        self.rx.waiting.push_back(Waiting { frame: frame.to_vec(), queue, about });
        self.judge_buffer(outside);
        true
    }

    /// Writes what waits and has room now.
    pub(crate) fn drain_waiting(&mut self, memory: &dyn Memory) {
        while let Some(first) = self.rx.waiting.pop_front() {
            let enabled = self.map.at(Id::RXDCTL, first.queue) & QUEUE_ENABLE != 0;
            if enabled && !self.write_frame(&first.frame, first.queue, first.about, memory) {
                self.rx.waiting.push_front(first);
                return;
            }
            if !enabled {
                self.counts.dropped_disabled += 1;
            }
            self.rx.waiting_bytes -= first.frame.len();
        }
    }

    pub(crate) fn ring(&self, queue: usize) -> Option<Ring> {
        let split = self.map.at(Id::SRRCTL, queue);
        let ring = Ring {
            base: u64::from(self.map.at(Id::RDBAL, queue))
                | u64::from(self.map.at(Id::RDBAH, queue)) << 32,
            len: self.map.at(Id::RDLEN, queue) / 16,
            head: self.map.at(Id::RDH, queue),
            tail: self.map.at(Id::RDT, queue),
            buffer: (split & 0x1f) as usize * 1024,
            legacy: split >> 25 & 7 == 0,
        };
        // Header split is not modelled: no driver here asks for it.
        let known = matches!(split >> 25 & 7, 0 | 1);
        (known && ring.head < ring.len && ring.tail < ring.len && ring.buffer > 0).then_some(ring)
    }

    /// Writes a frame to a queue's buffers. `false`: there are not enough.
    fn write_frame(
        &mut self,
        frame: &[u8],
        queue: usize,
        about: About,
        memory: &dyn Memory,
    ) -> bool {
        let Some(ring) = self.ring(queue) else {
            self.counts.bad_rings += 1;
            return false;
        };
        let available = (ring.tail + ring.len - ring.head) % ring.len;
        let needed = frame.len().div_ceil(ring.buffer);
        if (available as usize) < needed {
            return false;
        }
        let mut head = ring.head;
        for (number, piece) in frame.chunks(ring.buffer).enumerate() {
            let at = ring.base.wrapping_add(16 * u64::from(head));
            let mut descriptor = [0; 16];
            if !self.dma_read(memory, at, &mut descriptor) {
                return false;
            }
            let mut address = [0; 8];
            address.copy_from_slice(&descriptor[..8]);
            // Bit 0 is No-Snoop, not address (§7.1.6.1).
            self.dma_write(memory, u64::from_le_bytes(address) & !1, piece);
            let last = number + 1 == needed;
            let bytes = write_back(&about, piece.len(), last, ring.legacy, &descriptor);
            let entry = self.map.at(Id::IVAR, queue / 2) >> (16 * (queue % 2));
            let entry = if last { entry } else { 0 };
            self.write_back_rx(queue, Item { at, bytes, len: 16, entry }, memory);
            head = (head + 1) % ring.len;
        }
        self.map.set_at(Id::RDH, queue, head);
        statistics::delivered(&mut self.map, queue, frame.len());
        true
    }

    pub(crate) fn write_back_rx(&mut self, queue: usize, item: Item, memory: &dyn Memory) {
        let delay = self.faults.write_back_delay_ns;
        if let Some(item) = self.rx.write_backs.keep(queue, item, self.now_ns, delay) {
            self.finish(item, memory);
        }
    }

    /// Writes an item to memory and raises its interrupt.
    pub(crate) fn finish(&mut self, item: Item, memory: &dyn Memory) {
        self.dma_write(memory, item.at, &item.bytes[..item.len]);
        self.interrupts.raise_entry(item.entry);
    }

    /// RXDCTL is written (§4.6.7.1).
    pub(crate) fn write_rxdctl(&mut self, queue: usize, value: u32, memory: &dyn Memory) {
        let before = self.map.at(Id::RXDCTL, queue);
        let mut value = value;
        if self.faults.stuck_rx_enable {
            value &= !QUEUE_ENABLE;
        }
        if before & !value & QUEUE_ENABLE != 0 {
            self.end_flows(queue, memory);
            self.map.set_at(Id::RDH, queue, 0);
            self.rx.write_backs.hurry(queue);
        }
        self.map.set_at(Id::RXDCTL, queue, value);
    }
}

const _: () = assert!(QUEUES == 128);

fn packet_kind(layers: &Layers) -> u32 {
    let network = match (layers.network, layers.extended) {
        (Some(Network::V4), false) => kind::V4,
        (Some(Network::V4), true) => kind::V4 | kind::V4_EXTENDED,
        (Some(Network::V6), false) => kind::V6,
        (Some(Network::V6), true) => kind::V6 | kind::V6_EXTENDED,
        (None, _) => 0,
    };
    let transport = match layers.transport {
        Some(Transport::Tcp) => kind::TCP,
        Some(Transport::Udp) => kind::UDP,
        Some(Transport::Sctp) => kind::SCTP,
        None => 0,
    };
    network | transport
}

/// Whether it is the turn of a fault that strikes each `every`th frame.
const fn every(every: u32, since: &mut u32) -> bool {
    if every == 0 {
        return false;
    }
    *since = (*since + 1) % every;
    *since == 0
}

fn flip_last(frame: &[u8]) -> Vec<u8> {
    let mut flipped = frame.to_vec();
    flipped.last_mut().into_iter().for_each(|byte| *byte ^= 1);
    flipped
}

/// §7.1.11: the sums that were checked, and those that are wrong.
fn checksum_status(frame: &[u8], layers: &Layers) -> u32 {
    let mut bits = 0;
    if layers.network == Some(Network::V4) {
        bits |= status::IP_CHECKED;
        if !layers.header_good {
            bits |= status::IP_BAD;
        }
    }
    if let Some(good) = packet::transport_good(frame, layers) {
        bits |= status::L4_CHECKED;
        if layers.transport == Some(Transport::Udp) {
            bits |= status::UDP_CHECKED;
        }
        if !good {
            bits |= status::L4_BAD;
        }
    }
    bits
}

/// The descriptor as it comes back: advanced (§7.1.6.2) or legacy (§7.1.5.1).
pub(crate) fn write_back(
    about: &About,
    len: usize,
    last: bool,
    legacy: bool,
    read: &[u8; 16],
) -> [u8; 16] {
    let end = if last { status::END } else { 0 };
    let said = if last { about.status } else { 0 };
    let mut bytes = *read;
    if legacy {
        bytes[8..10].copy_from_slice(&(len as u16).to_le_bytes());
        bytes[10..12].fill(0);
        bytes[12] = (status::DONE | end | said & 0xf8) as u8;
        bytes[13] = (said >> 24 & 0xc0) as u8;
        bytes[14..].copy_from_slice(&about.vlan.to_le_bytes());
        return bytes;
    }
    bytes[..4].copy_from_slice(&about.kind.to_le_bytes());
    bytes[4..8].copy_from_slice(&about.hash.to_le_bytes());
    bytes[8..12].copy_from_slice(&(status::DONE | end | said).to_le_bytes());
    bytes[12..14].copy_from_slice(&(len as u16).to_le_bytes());
    bytes[14..].copy_from_slice(&about.vlan.to_le_bytes());
    bytes
}
