//! The network: a switch whose every port loses, doubles, delays, reorders, cuts and corrupts
//! frames as its faults say, and is cut off at times.
use super::referee::Referee;
use super::{Time, forge, wire};
use ix_dataplane::rng::Rng;
use smoltcp::wire::{EthernetFrame, IpAddress, IpProtocol, Ipv4Packet, PrettyPrinter, TcpPacket};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A station: a dataplane or a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StationId(pub u8);

impl StationId {
    /// Its Ethernet address.
    pub fn mac(self) -> [u8; 6] {
        [2, 0, 0, 0, 0, self.0 + 1]
    }

    /// Its IPv4 address, in 10.0.0.0/24.
    pub fn ip(self) -> [u8; 4] {
        [10, 0, 0, self.0 + 1]
    }
}

/// Faults of the network; chances are per 10,000 frames.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Lost.
    pub loss: u64,
    /// Lost with all that follow, up to so many.
    pub burst: u64,
    /// See `burst`.
    pub burst_frames: u64,
    /// Delivered twice.
    pub duplicate: u64,
    /// Delivered after later ones.
    pub reorder: u64,
    /// One bit flipped behind the Ethernet header, or the tail cut off. (Not in ARP, which has no
    /// checksum; what no checksum can see is the frame check sequence's to find.)
    pub corrupt: u64,
    /// A TCP segment cut into two that overlap, in any order.
    pub resegment: u64,
    /// One-way delay, and what is added at random.
    pub delay: Time,
    /// See `delay`.
    pub jitter: Time,
    /// Nanoseconds per byte towards a station, 0 for none, and the bytes that may queue.
    pub byte_time: Time,
    /// See `byte_time`.
    pub queue_bytes: u64,
    /// Frames that find so many bytes queued are marked, if they may be; 0: none.
    pub mark_bytes: u64,
    /// Segments made up by nobody ([`forge`]).
    pub forge: u64,
    /// A station is cut off from, to.
    pub partitions: Vec<(StationId, Time, Time)>,
    /// From then on there are no faults but delay and rate.
    pub healed_at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct InFlight {
    at: Time,
    number: u64,
    to: StationId,
    forged: bool,
    frame: Vec<u8>,
}

/// What was done to frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// Lost, by chance or in a partition.
    Lost,
    /// Doubled.
    Doubled,
    /// Put behind later ones.
    Reordered,
    /// Made wrong.
    Corrupted,
    /// Lost at a full queue.
    Overflowed,
    /// Cut in two.
    Cut,
    /// Marked at a queue.
    Marked,
    /// Made up.
    Forged,
}

/// Kinds of them.
pub const DONE: usize = 8;

/// Frames on their way.
#[derive(Debug)]
pub struct Network {
    faults: Faults,
    rng: Rng,
    stations: u8,
    machines: u8,
    /// Watches all of it.
    pub referee: Referee,
    /// Frames that a burst still takes, towards each station.
    burst_left: Vec<u64>,
    flying: BinaryHeap<Reverse<InFlight>>,
    number: u64,
    /// When the link towards each station is idle again, and the last delivery on it.
    idle_at: Vec<Time>,
    last_at: Vec<Time>,
    trace: bool,
    /// By [`Done`].
    pub done: [u64; DONE],
    /// Of every frame that was sent or made up, with its sender and its time: what a run was.
    pub digest: u64,
}

/// Mixes a word into a digest: no frame is like another by chance, that is all it is good for.
fn mix(digest: u64, word: u64) -> u64 {
    let wide = u128::from(digest ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xf39c_c060_5ced_c835;
    (wide >> 64) as u64 ^ wide as u64
}

fn digest(digest: u64, from: u8, frame: &[u8], now: Time) -> u64 {
    let digest = mix(digest ^ now, u64::from(from) << 32 | frame.len() as u64);
    frame.chunks(8).fold(digest, |digest, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(digest, u64::from_le_bytes(word))
    })
}

impl Network {
    /// A network of `stations`, of which the first `machines` are dataplanes.
    pub fn new(faults: Faults, stations: u8, machines: u8, rng: Rng) -> Network {
        let count = usize::from(stations);
        Network {
            faults,
            rng,
            stations,
            machines,
            referee: Referee::new(machines),
            burst_left: vec![0; count],
            flying: BinaryHeap::new(),
            number: 0,
            idle_at: vec![0; count],
            last_at: vec![0; count],
            trace: std::env::var_os("IX_SIM_TRACE").is_some(),
            done: [0; DONE],
            digest: 0,
        }
    }

    /// A station transmits.
    pub fn send(&mut self, from: StationId, frame: &[u8], now: Time) {
        if frame.len() < 14 {
            panic!("{from:?} sends a frame of {} bytes", frame.len());
        }
        if self.trace {
            let text = PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &frame);
            eprintln!("{:>12.6} {from:?} {text}", now as f64 / 1e9);
        }
        self.digest = digest(self.digest, from.0, frame, now);
        self.referee.sent(from, frame, now);
        if self.chance(self.faults.forge, now) {
            self.forge(now);
        }
        let group = frame[0] & 1 == 1;
        for to in (0..self.stations).map(StationId) {
            if to == from || !group && frame[..6] != to.mac() {
                continue;
            }
            if self.chance(self.faults.resegment, now)
                && let Some(halves) = cut_in_two(frame, &mut self.rng)
            {
                self.count(Done::Cut);
                halves.iter().for_each(|half| self.carry(from, to, half, now));
            } else {
                self.carry(from, to, frame, now);
            }
        }
    }

    fn count(&mut self, what: Done) {
        self.done[what as usize] += 1;
    }

    /// Delivers a segment that nobody sent, before anything that is on its way.
    fn forge(&mut self, now: Time) {
        let made = forge::frame(&self.referee, self.machines, &mut self.rng);
        let Some((to, frame)) = made else { return };
        if self.trace {
            let bytes = &frame[..];
            let text = PrettyPrinter::<EthernetFrame<&[u8]>>::new("", &bytes);
            eprintln!("{:>12.6} forged {text}", now as f64 / 1e9);
        }
        self.count(Done::Forged);
        self.digest = digest(self.digest, to.0, &frame, now);
        self.referee.forged(&frame);
        self.flying.push(Reverse(InFlight { at: now, number: 0, to, forged: true, frame }));
    }

    /// Whether a burst of losses takes this one.
    fn bursts(&mut self, to: StationId, now: Time) -> bool {
        let at = usize::from(to.0);
        if self.burst_left[at] == 0 && self.chance(self.faults.burst, now) {
            self.burst_left[at] = 1 + self.rng.below(self.faults.burst_frames);
        }
        let takes = self.burst_left[at] > 0 && now < self.faults.healed_at;
        self.burst_left[at] -= u64::from(takes);
        takes
    }

    fn chance(&mut self, per_10_000: u64, now: Time) -> bool {
        now < self.faults.healed_at && per_10_000 > 0 && self.rng.chance(per_10_000, 10_000)
    }

    fn carry(&mut self, from: StationId, to: StationId, frame: &[u8], now: Time) {
        let cut = |&(who, start, end): &(StationId, Time, Time)| {
            (who == from || who == to) && (start..end).contains(&now)
        };
        let lost = self.faults.partitions.iter().any(cut) || self.bursts(to, now);
        if lost || self.chance(self.faults.loss, now) {
            self.count(Done::Lost);
            return;
        }
        let mut frame = frame.to_vec();
        let arp = frame[12..14] == [8, 6];
        if !arp && frame.len() > 15 && self.chance(self.faults.corrupt, now) {
            self.count(Done::Corrupted);
            if self.rng.chance(1, 4) {
                let len = 14 + self.rng.below(frame.len() as u64 - 14) as usize;
                frame.truncate(len);
            } else {
                let at = 14 + self.rng.below(frame.len() as u64 - 14) as usize;
                frame[at] ^= 1 << self.rng.below(8);
            }
        }
        // Padding to Ethernet's minimum, with bytes that mean something if they are not cut off.
        while frame.len() < 60 {
            frame.push(0xa5);
        }
        if self.chance(self.faults.duplicate, now) {
            self.count(Done::Doubled);
            self.enqueue(to, frame.clone(), now);
        }
        self.enqueue(to, frame, now);
    }

    fn enqueue(&mut self, to: StationId, mut frame: Vec<u8>, now: Time) {
        let station = usize::from(to.0);
        let starts = self.idle_at[station].max(now);
        let queued = (starts - now).checked_div(self.faults.byte_time).unwrap_or(0);
        if self.faults.byte_time > 0 && queued > self.faults.queue_bytes {
            self.count(Done::Overflowed);
            return;
        }
        let threshold = self.faults.mark_bytes;
        if threshold > 0 && queued >= threshold && wire::mark(&mut frame) {
            self.count(Done::Marked);
        }
        self.idle_at[station] = starts + self.faults.byte_time * frame.len() as u64;
        let mut at = self.idle_at[station] + self.faults.delay;
        at += self.rng.below(self.faults.jitter + 1);
        if self.chance(self.faults.reorder, now) {
            self.count(Done::Reordered);
            at += self.rng.below(4 * self.faults.delay + 2_000_000);
        } else {
            // What is not reordered keeps its order, whatever the jitter.
            at = at.max(self.last_at[station]);
            self.last_at[station] = at;
        }
        self.number += 1;
        let number = self.number;
        self.flying.push(Reverse(InFlight { at, number, to, forged: false, frame }));
    }

    /// When the next frame arrives.
    pub fn next_arrival(&self) -> Option<Time> {
        self.flying.peek().map(|Reverse(frame)| frame.at)
    }

    /// A frame that has arrived by `now`.
    pub fn arrived(&mut self, now: Time) -> Option<(StationId, Vec<u8>)> {
        if self.next_arrival()? > now {
            return None;
        }
        let Reverse(InFlight { to, frame, forged, .. }) = self.flying.pop()?;
        if !forged && wire::intact(&frame) {
            self.referee.arrived(&frame, now);
        }
        Some((to, frame))
    }
}

/// A TCP segment as two that overlap, in any order; `None` if it is none, or too short.
fn cut_in_two(frame: &[u8], rng: &mut Rng) -> Option<[Vec<u8>; 2]> {
    if frame[12..14] != [8, 0] {
        return None;
    }
    let ip = Ipv4Packet::new_checked(&frame[14..]).ok()?;
    if ip.next_header() != IpProtocol::Tcp {
        return None;
    }
    let ip_header = usize::from(ip.header_len());
    let tcp = TcpPacket::new_checked(ip.payload()).ok()?;
    let (tcp_header, len) = (usize::from(tcp.header_len()), tcp.payload().len());
    if len < 2 || tcp.syn() || tcp.rst() {
        return None;
    }
    let from = rng.below(len as u64) as usize;
    let to = from + rng.below((len - from) as u64 + 1) as usize;
    let (from, to) = (from.max(1), to.clamp(1, len));
    let part = |from: usize, to: usize| {
        let headers = 14 + ip_header + tcp_header;
        let mut bytes = frame[..headers].to_vec();
        bytes.extend_from_slice(&frame[headers + from..headers + to]);
        let mut ip = Ipv4Packet::new_unchecked(&mut bytes[14..]);
        ip.set_total_len((ip_header + tcp_header + to - from) as u16);
        ip.fill_checksum();
        let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
        let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
        tcp.set_seq_number(tcp.seq_number() + from);
        tcp.set_fin(tcp.fin() && to == len);
        tcp.fill_checksum(&src, &dst);
        bytes
    };
    let halves = [part(0, to), part(from, len)];
    Some(if rng.chance(1, 2) {
        halves
    } else {
        let [a, b] = halves;
        [b, a]
    })
}
