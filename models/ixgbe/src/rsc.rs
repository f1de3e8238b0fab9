//! Receive side coalescing (§7.11): TCP segments of one flow, in order, become one frame. It uses descriptors as it needs them, so
//! frames under way lie between each other in the ring; each descriptor but the last says which comes next.
use crate::packet::{self, Layers, Network, Transport};
use crate::regs::Id;
use crate::rx::{About, QUEUE_ENABLE, write_back};
use crate::write_back::Item;
use crate::{Chip, Memory, statistics};

/// RSCCTL.RSCEN; MAXDESC is above.
const ENABLE: u32 = 1;
/// RFCTL.RSC_DIS.
const DISABLE: u32 = 1 << 5;
/// Flows at a time (§7.11.1).
const FLOWS_MAX: usize = 32;
/// IP packets are not longer.
const PACKET_MAX: usize = 65_535;
/// Segments that a descriptor can count.
const COUNT_MAX: u32 = 15;
const COUNT_SHIFT: u32 = 17;
const NEXT_SHIFT: u32 = 4;
const ACK: u8 = 0x10;
const PUSH: u8 = 0x08;

/// A descriptor in use.
#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its address, and that of its buffer.
    at: u64,
    buffer: u64,
    filled: usize,
    /// Segments that begin in it.
    count: u32,
}

/// A frame under way.
#[derive(Debug)]
pub(crate) struct Flow {
    queue: usize,
    /// Addresses and ports.
    key: Vec<u8>,
    next_sequence: u32,
    /// Of the first segment: to its payload.
    headers: Vec<u8>,
    first: Piece,
    current: Piece,
    pieces: u32,
    payload: usize,
    l3: usize,
    l4: usize,
    v4: bool,
    about: About,
    until: u64,
}

impl Flow {
    /// When it ends at the latest.
    pub const fn until_ns(&self) -> u64 {
        self.until
    }
}

/// A segment that may be joined.
struct Segment<'a> {
    key: Vec<u8>,
    sequence: u32,
    headers: &'a [u8],
    payload: &'a [u8],
    pushes: bool,
}

/// Addresses and ports of TCP.
fn key_of(frame: &[u8], layers: &Layers) -> Option<Vec<u8>> {
    if layers.transport != Some(Transport::Tcp) {
        return None;
    }
    let addresses = match layers.network? {
        Network::V4 => frame.get(layers.l3 + 12..layers.l3 + 20)?,
        Network::V6 => frame.get(layers.l3 + 8..layers.l3 + 40)?,
    };
    Some([addresses, frame.get(layers.l4..layers.l4 + 4)?].concat())
}

/// §7.11.2: what can be joined.
fn segment<'a>(frame: &'a [u8], layers: &Layers) -> Option<Segment<'a>> {
    let key = key_of(frame, layers)?;
    let tcp = frame.get(layers.l4..layers.end)?;
    let (header, flags) = (usize::from(*tcp.get(12)? >> 4) * 4, *tcp.get(13)?);
    // No options, or time stamps alone, as all have them.
    let options = tcp.get(20..header)?;
    let plain = options.is_empty() || options.len() == 12 && options[..4] == [1, 1, 8, 10];
    let payload = tcp.get(header..)?;
    let sound = layers.network != Some(Network::V4) || layers.header_good;
    let joins = plain
        && sound
        && !layers.extended
        && flags & !PUSH == ACK
        && !payload.is_empty()
        && packet::transport_good(frame, layers) == Some(true);
    joins.then(|| Segment {
        key,
        sequence: u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]),
        headers: &frame[..layers.l4 + header],
        payload,
        pushes: flags & PUSH != 0,
    })
}

impl Chip {
    /// Whether the frame went into a large one. It is without its VLAN tag, if that is taken off.
    pub(crate) fn coalesce(
        &mut self,
        frame: &[u8],
        queue: usize,
        about: &About,
        memory: &dyn Memory,
    ) -> bool {
        let on = self.map.at(Id::RSCCTL, queue) & ENABLE != 0
            && self.map.get(Id::RFCTL) & DISABLE == 0
            && self.map.at(Id::RXDCTL, queue) & QUEUE_ENABLE != 0;
        if !on {
            return false;
        }
        let layers = packet::parse(frame, self.map.get(Id::VLNCTRL) as u16);
        let Some(key) = key_of(frame, &layers) else { return false };
        let known = self.rx.flows.iter().position(|f| f.queue == queue && f.key == key);
        let segment = segment(frame, &layers).filter(|_| layers.vlan.is_none());
        if let Some(at) = known {
            if let Some(segment) = &segment
                && self.append(at, segment, memory)
            {
                statistics::delivered(&mut self.map, queue, frame.len());
                return true;
            }
            // What does not go on ends it; the order stays.
            self.end_flow(at, memory);
        }
        let begun = segment.is_some_and(|segment| {
            !segment.pushes && self.begin(segment, queue, &layers, about, memory)
        });
        if begun {
            statistics::delivered(&mut self.map, queue, frame.len());
        }
        begun
    }

    /// The next descriptor of a queue.
    fn next_piece(&mut self, queue: usize, memory: &dyn Memory) -> Option<Piece> {
        let ring = self.ring(queue)?;
        if ring.legacy || ring.head == ring.tail {
            return None;
        }
        let at = ring.base.wrapping_add(16 * u64::from(ring.head));
        let mut descriptor = [0; 8];
        if !self.dma_read(memory, at, &mut descriptor) {
            return None;
        }
        self.map.set_at(Id::RDH, queue, (ring.head + 1) % ring.len);
        let buffer = u64::from_le_bytes(descriptor) & !1;
        Some(Piece { at, buffer, filled: 0, count: 0 })
    }

    fn begin(
        &mut self,
        segment: Segment<'_>,
        queue: usize,
        layers: &Layers,
        about: &About,
        memory: &dyn Memory,
    ) -> bool {
        let len = segment.headers.len() + segment.payload.len();
        let fits = self.ring(queue).is_some_and(|ring| len <= ring.buffer);
        if !fits || self.rx.flows.len() == FLOWS_MAX {
            return false;
        }
        let Some(mut piece) = self.next_piece(queue, memory) else { return false };
        self.dma_write(memory, piece.buffer, &[segment.headers, segment.payload].concat());
        (piece.filled, piece.count) = (len, 1);
        // GPIE.RSC_Delay (§8.2.3.5.18): so many times 4 microseconds, and one.
        let delay = 4_000 * u64::from((self.map.get(Id::GPIE) >> 11 & 7) + 1);
        self.rx.flows.push(Flow {
            queue,
            next_sequence: segment.sequence.wrapping_add(segment.payload.len() as u32),
            headers: segment.headers.to_vec(),
            key: segment.key,
            first: piece,
            current: piece,
            pieces: 1,
            payload: segment.payload.len(),
            l3: layers.l3,
            l4: layers.l4,
            v4: layers.network == Some(Network::V4),
            about: *about,
            until: self.now_ns + delay,
        });
        true
    }

    /// Adds a segment to a frame under way. `false`: it does not go on there.
    fn append(&mut self, at: usize, segment: &Segment<'_>, memory: &dyn Memory) -> bool {
        let flow = &self.rx.flows[at];
        let queue = flow.queue;
        let goes_on = flow.next_sequence == segment.sequence
            && flow.headers.len() == segment.headers.len()
            && flow.headers.len() + flow.payload + segment.payload.len() - flow.l3 <= PACKET_MAX
            && flow.current.count < COUNT_MAX;
        // Each descriptor but the last has a segment begin in it, or NEXTP would not be valid.
        let Some(ring) = self.ring(queue) else { return false };
        // RSCCTL.MAXDESC: 1, 4, 8 or 16.
        let most = [1, 4, 8, 16][(self.map.at(Id::RSCCTL, queue) >> 2 & 3) as usize];
        let room = ring.buffer - flow.current.filled;
        let more = segment.payload.len().saturating_sub(room).div_ceil(ring.buffer);
        let available = (ring.tail + ring.len - ring.head) % ring.len;
        let short = segment.payload.len() < ring.buffer;
        if !goes_on || !short || flow.pieces as usize + more > most || (available as usize) < more {
            return false;
        }
        let mut rest = segment.payload;
        let mut begins = 1;
        while !rest.is_empty() {
            let current = self.rx.flows[at].current;
            let room = (ring.buffer - current.filled).min(rest.len());
            if room == 0 {
                let Some(piece) = self.next_piece(queue, memory) else { break };
                self.go_on(at, piece, memory);
                continue;
            }
            let (now, then) = rest.split_at(room);
            self.dma_write(memory, current.buffer + current.filled as u64, now);
            let current = &mut self.rx.flows[at].current;
            current.filled += room;
            current.count += core::mem::take(&mut begins);
            rest = then;
        }
        let flow = &mut self.rx.flows[at];
        flow.next_sequence = flow.next_sequence.wrapping_add(segment.payload.len() as u32);
        flow.payload += segment.payload.len();
        // What the last one says counts: acknowledgement, flags, window, time stamps (§7.11.5).
        let tcp = flow.l4;
        flow.headers[tcp + 8..tcp + 16].copy_from_slice(&segment.headers[tcp + 8..tcp + 16]);
        flow.headers[tcp + 20..].copy_from_slice(&segment.headers[tcp + 20..]);
        if segment.pushes {
            self.end_flow(at, memory);
        }
        true
    }

    /// The current descriptor is full, and `piece` comes next.
    fn go_on(&mut self, at: usize, piece: Piece, memory: &dyn Memory) {
        let queue = self.rx.flows[at].queue;
        let base = self.ring(queue).map_or(0, |ring| ring.base);
        let next = (piece.at.wrapping_sub(base) / 16) as u32;
        let flow = &mut self.rx.flows[at];
        let done = core::mem::replace(&mut flow.current, piece);
        if flow.pieces == 1 {
            flow.first = done;
        }
        flow.pieces += 1;
        let kind = flow.about.kind | done.count << COUNT_SHIFT;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&flow.about.hash.to_le_bytes());
        bytes[8..12].copy_from_slice(&(1 | next << NEXT_SHIFT).to_le_bytes());
        bytes[12..14].copy_from_slice(&(done.filled as u16).to_le_bytes());
        self.write_back_rx(queue, Item { at: done.at, bytes, len: 16, entry: 0 }, memory);
    }

    /// A frame is complete: its headers are put right, and its last descriptor says so.
    fn end_flow(&mut self, at: usize, memory: &dyn Memory) {
        let Flow { queue, mut headers, first, current, payload, l3, l4, v4, about, .. } =
            self.rx.flows.remove(at);
        let total = headers.len() - l3 + payload;
        if v4 {
            headers[l3 + 2..l3 + 4].copy_from_slice(&(total as u16).to_be_bytes());
            headers[l3 + 10..l3 + 12].fill(0);
            let sum = !packet::fold(packet::sum(&headers[l3..l4], 0));
            headers[l3 + 10..l3 + 12].copy_from_slice(&sum.to_be_bytes());
        } else {
            headers[l3 + 4..l3 + 6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        }
        self.dma_write(memory, first.buffer, &headers);
        // One alone is a frame like any other.
        let alone = first.at == current.at && current.count == 1;
        let count = if alone { 0 } else { current.count };
        let about = About { kind: about.kind | count << COUNT_SHIFT, ..about };
        let bytes = write_back(&about, current.filled, true, false, &[0; 16]);
        let entry = self.map.at(Id::IVAR, queue / 2) >> (16 * (queue % 2));
        self.write_back_rx(queue, Item { at: current.at, bytes, len: 16, entry }, memory);
    }

    /// Ends frames whose time is over.
    pub(crate) fn tick_flows(&mut self, memory: &dyn Memory) {
        while let Some(at) = self.rx.flows.iter().position(|flow| flow.until <= self.now_ns) {
            self.end_flow(at, memory);
        }
    }

    /// Ends those of a queue.
    pub(crate) fn end_flows(&mut self, queue: usize, memory: &dyn Memory) {
        while let Some(at) = self.rx.flows.iter().position(|flow| flow.queue == queue) {
            self.end_flow(at, memory);
        }
    }
}
