//! The other end of the wire: it knows the connections well enough to say what is nearly right.
use super::nic::Arriving;
use super::six;
use crate::input::Input;
use ix_dataplane::checksum;

/// Connections that it keeps track of.
const FLOWS: usize = 8;
/// The station under test.
pub const STATION: [u8; 4] = [10, 0, 0, 1];
/// Its Ethernet address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const HEADERS: usize = 54;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

/// A connection, seen from here.
#[derive(Clone, Copy, Debug)]
struct Flow {
    ip: [u8; 4],
    port: u16,
    local_port: u16,
    /// Our next byte.
    next: u32,
    /// Its next byte.
    its: u32,
    /// Its time stamp, if it sent one.
    stamp: Option<u32>,
}

/// What the wire remembers.
#[derive(Debug)]
pub struct Wire {
    flows: Vec<Flow>,
    /// Time stamps that we send.
    clock: u32,
    /// Of the station's last DHCP message.
    transaction: [u8; 4],
}

impl Wire {
    /// Hosts whose connections are to port 7.
    pub fn new() -> Wire {
        let flow = |n: u16| Flow {
            ip: [10, 0, 0, 2 + (n % 3) as u8],
            port: 4000 + n,
            local_port: 7,
            next: 1000_u32.wrapping_mul(u32::from(n)).wrapping_sub(2000),
            its: 0,
            stamp: None,
        };
        Wire { flows: (0..FLOWS as u16).map(flow).collect(), clock: 1, transaction: [0; 4] }
    }

    /// A frame that the station sent.
    pub fn saw(&mut self, f: &[u8]) -> Option<Arriving> {
        if f[12..14] == six::ETHERTYPE {
            return None;
        }
        if f[12..14] == [8, 6] {
            return answer_arp(f);
        }
        if f[23] == 17 && f[34..38] == [0, 68, 0, 67] {
            self.transaction.copy_from_slice(&f[46..50]);
        }
        if f.len() < HEADERS || f[23] != 6 {
            return None;
        }
        let half = |at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
        let word = |at: usize| u32::from_be_bytes([f[at], f[at + 1], f[at + 2], f[at + 3]]);
        let (ip, local_port, port) = ([f[30], f[31], f[32], f[33]], half(34), half(36));
        let header = usize::from(f[46] >> 4) * 4;
        let flags = f[47];
        let len =
            (f.len() - 34 - header) as u32 + u32::from(flags & FIN) + u32::from(flags >> 1 & 1);
        let its = word(38).wrapping_add(len);
        let same =
            |flow: &&mut Flow| (flow.ip, flow.port, flow.local_port) == (ip, port, local_port);
        if let Some(flow) = self.flows.iter_mut().find(same) {
            if flags & SYN != 0 || its.wrapping_sub(flow.its) < 1 << 31 {
                flow.its = its;
            }
            // What was not in order is said again from where the station is.
            if flags & (SYN | ACK) == SYN | ACK {
                flow.next = word(42);
            }
        } else if flags & SYN != 0 {
            // The station connects: in the place of the oldest.
            self.flows.rotate_left(1);
            let flow = Flow { ip, port, local_port, next: 77, its, stamp: None };
            if let Some(last) = self.flows.last_mut() {
                *last = flow;
            }
        }
        if flags & SYN != 0
            && f.get(54..34 + header).is_some_and(|o| o.windows(2).any(|w| w == [8, 10]))
        {
            let same = |flow: &&mut Flow| (flow.port, flow.local_port) == (port, local_port);
            if let Some(flow) = self.flows.iter_mut().find(same) {
                flow.stamp = Some(self.clock);
            }
        }
        None
    }

    /// A segment that is right: the flow's next, in order.
    pub fn plain(&mut self, at: usize, flags: u8, len: usize) -> Arriving {
        let at = at % self.flows.len();
        let flow = self.flows[at];
        let payload = vec![b'a' + at as u8; len];
        let (seq, ack) = (flow.next, if flags & ACK != 0 { flow.its } else { 0 });
        self.flows[at].next = seq.wrapping_add(sequence_length(flags, len));
        Arriving::plain(tcp(&flow, flags, seq, ack, 60_000, &[], &payload))
    }

    /// The first segment of the flow's connection.
    pub fn syn(&mut self, at: usize) -> Arriving {
        self.plain(at, SYN, 0)
    }

    /// A frame that the input makes up.
    pub fn frame(&mut self, input: &mut Input<'_>) -> Arriving {
        let mut frame = match input.below(16) {
            0 => Arriving::plain(raw(input)),
            1 => Arriving::plain(self.udp(input)),
            2 => Arriving::plain(arp(input)),
            3 => Arriving::plain(icmp(input)),
            4 => Arriving::plain(six::frame(input)),
            _ => Arriving::plain(self.segment(input)),
        };
        match input.below(8) {
            0 => mutate(&mut frame.bytes, input),
            1 => {
                mutate(&mut frame.bytes, input);
                fix(&mut frame.bytes);
            }
            2 => {
                frame.good = input.flag();
                frame.hash = input.flag().then(|| input.u32());
                frame.offset = 12 + 8 * (input.u16() & 1);
            }
            _ => {}
        }
        frame
    }

    fn segment(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let how = input.u8();
        let at = usize::from(how & 7);
        let flow = self.flows[at];
        let flags = match input.u8() {
            n @ 0..64 => n,
            n => {
                [ACK, ACK | PSH, ACK, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK][usize::from(n & 7)]
            }
        };
        let len = match input.u8() {
            n @ 0..128 => usize::from(n) >> 3,
            n => usize::from(n & 127) * 12,
        };
        let seq = match how >> 3 & 3 {
            0 | 1 => flow.next,
            2 => flow.next.wrapping_add(i32::from(input.u16() as i16).cast_unsigned()),
            _ if input.flag() => flow.next.wrapping_sub(len as u32),
            _ => input.u32(),
        };
        let ack = match how >> 5 {
            0..5 => flow.its,
            5 => flow.its.wrapping_sub(u32::from(input.u8())),
            6 => flow.its.wrapping_add(i32::from(input.u16() as i16).cast_unsigned()),
            _ => input.u32(),
        };
        let window = match input.u8() {
            0 => 0,
            1 => 1,
            n @ 2..100 => u16::from(n) * 3,
            n => u16::from(n) * 250,
        };
        let options = self.options(&flow, flags, input);
        if how >> 3 & 3 < 2 {
            self.flows[at].next = seq.wrapping_add(sequence_length(flags, len));
        }
        tcp(&flow, flags, seq, ack, window, &options, &vec![b'A' + at as u8; len])
    }

    fn options(&mut self, flow: &Flow, flags: u8, input: &mut Input<'_>) -> Vec<u8> {
        let which = input.u8();
        let mut options = Vec::new();
        if which & 1 != 0 {
            let mss = if which & 128 != 0 { input.u16() } else { 1460 };
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
        }
        if which & 2 != 0 {
            options.extend([1, 3, 3, which >> 4]);
        }
        if which & 4 != 0 {
            options.extend([1, 1, 4, 2]);
        }
        if which & 8 != 0 || (flow.stamp.is_some() && flags & SYN == 0) {
            self.clock = self.clock.wrapping_add(u32::from(which >> 6));
            options.extend([1, 1, 8, 10]);
            options.extend(self.clock.to_be_bytes());
            options.extend(flow.stamp.unwrap_or(0).to_be_bytes());
        }
        if which & 16 != 0 {
            options.extend([1, 1, 5, 10]);
            let from = flow.its.wrapping_sub(u32::from(input.u8()) * 16);
            options.extend(from.to_be_bytes());
            options.extend(from.wrapping_add(u32::from(input.u16())).to_be_bytes());
        }
        if which & 32 != 0 {
            options.extend(input.take(usize::from(which >> 6) * 8));
        }
        options.truncate(40);
        options.resize(options.len().next_multiple_of(4), 0);
        options
    }

    fn udp(&mut self, input: &mut Input<'_>) -> Vec<u8> {
        let port = input.one_of(&[9_u16, 9, 9, 67, 68, 7, 1]);
        let from = if port == 68 { 67 } else { u16::from(input.u8()) };
        let payload = if port == 68 {
            self.dhcp(input)
        } else {
            input.take(usize::from(input.clone().u8())).to_vec()
        };
        let mut f = header([10, 0, 0, 2], 17, 8 + payload.len());
        f.extend(from.to_be_bytes());
        f.extend(port.to_be_bytes());
        f.extend((8 + payload.len() as u16).to_be_bytes());
        f.extend([0, 0]);
        f.extend(payload);
        if port == 68 {
            f[30..34].fill(255);
        }
        fix(&mut f);
        f
    }

    /// A DHCP server's answer, mostly to what the station has asked.
    fn dhcp(&self, input: &mut Input<'_>) -> Vec<u8> {
        let mut m = vec![0; 240];
        m[..4].copy_from_slice(&[2, 1, 6, 0]);
        m[4..8].copy_from_slice(&self.transaction);
        m[16..20].copy_from_slice(&[10, 0, 0, input.u8()]);
        m[28..34].copy_from_slice(&MAC);
        m[236..240].copy_from_slice(&[99, 130, 83, 99]);
        m.extend([53, 1, input.u8() & 7, 54, 4, 10, 0, 0, 2]);
        if input.flag() {
            m.extend([51, 4]);
            m.extend(input.u32().to_be_bytes());
        }
        m.extend(input.take(64));
        m.push(255);
        m
    }
}

impl Default for Wire {
    fn default() -> Wire {
        Wire::new()
    }
}

impl Arriving {
    fn plain(bytes: Vec<u8>) -> Arriving {
        Arriving { bytes, good: false, hash: None, offset: 12 }
    }
}

fn sequence_length(flags: u8, len: usize) -> u32 {
    len as u32 + u32::from(flags & FIN != 0) + u32::from(flags & SYN != 0)
}

/// Ethernet and IPv4 headers, checksums apart.
fn header(from: [u8; 4], protocol: u8, payload: usize) -> Vec<u8> {
    let mut f = MAC.to_vec();
    f.extend([2, 0, 0, 0, 0, from[3]]);
    f.extend([8, 0, 0x45, 0]);
    f.extend((20 + payload as u16).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    f.extend(from);
    f.extend(STATION);
    f
}

fn tcp(
    flow: &Flow,
    flags: u8,
    seq: u32,
    ack: u32,
    window: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut f = header(flow.ip, 6, 20 + options.len() + payload.len());
    f.extend(flow.port.to_be_bytes());
    f.extend(flow.local_port.to_be_bytes());
    f.extend(seq.to_be_bytes());
    f.extend(ack.to_be_bytes());
    f.extend([((20 + options.len()) as u8 / 4) << 4, flags]);
    f.extend(window.to_be_bytes());
    f.extend([0, 0, 0, 0]);
    f.extend(options);
    f.extend(payload);
    fix(&mut f);
    f
}

/// Makes lengths and checksums right, as far as there is what they are of.
pub fn fix(f: &mut [u8]) {
    if f.get(12..14) == Some(&six::ETHERTYPE) {
        return six::fix(f);
    }
    if f.len() < 34 || f[12..14] != [8, 0] {
        return;
    }
    let header = usize::from(f[14] & 15) * 4;
    let total = (f.len() - 14) as u16;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    if header < 20 || f.len() < 14 + header {
        return;
    }
    f[24..26].fill(0);
    let sum = checksum::finish(checksum::sum(&f[14..14 + header]));
    f[24..26].copy_from_slice(&sum);
    let start = 14 + header;
    let (from, to) = ([f[26], f[27], f[28], f[29]], [f[30], f[31], f[32], f[33]]);
    let (at, pseudo) = match f[23] {
        6 => (16, checksum::pseudo_v4(from, to, 6, total - header as u16)),
        17 => (6, checksum::pseudo_v4(from, to, 17, total - header as u16)),
        1 => (2, 0),
        _ => return,
    };
    if f.len() < start + at + 2 {
        return;
    }
    f[start + at..start + at + 2].fill(0);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[start..])));
    f[start + at..start + at + 2].copy_from_slice(&sum);
}

fn mutate(f: &mut [u8], input: &mut Input<'_>) {
    for _ in 0..1 + input.below(4) {
        // Mostly the headers.
        let at = usize::from(input.u8()) % f.len().clamp(1, 80);
        if let Some(byte) = f.get_mut(at) {
            *byte ^= input.u8();
        }
    }
}

fn raw(input: &mut Input<'_>) -> Vec<u8> {
    let len = usize::from(input.u16()) % 1515;
    let mut f = if input.flag() {
        [&MAC[..], &[2, 0, 0, 0, 0, 9, 8, 0, 0x45]].concat()
    } else {
        Vec::new()
    };
    f.extend(input.take(len));
    f.truncate(1514);
    f
}

fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let host = input.u8() & 7;
    let operation = input.u8() & 3;
    let mut f = if input.flag() { vec![0xff; 6] } else { MAC.to_vec() };
    f.extend([2, 0, 0, 0, 0, host, 8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
    f.extend([2, 0, 0, 0, 0, host, 10, 0, 0, host, 0, 0, 0, 0, 0, 0]);
    f.extend(if input.flag() { STATION } else { [10, 0, 0, input.u8() & 7] });
    f
}

fn answer_arp(f: &[u8]) -> Option<Arriving> {
    let asked = f.get(38..42)?;
    if f[20..22] != [0, 1] || asked[..3] != [10, 0, 0] || asked[3] & 1 == 1 {
        // Odd hosts do not answer.
        return None;
    }
    let mut answer = MAC.to_vec();
    answer.extend([2, 0, 0, 0, 0, asked[3], 8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend([2, 0, 0, 0, 0, asked[3]]);
    answer.extend(asked);
    answer.extend(MAC);
    answer.extend(STATION);
    Some(Arriving::plain(answer))
}

fn icmp(input: &mut Input<'_>) -> Vec<u8> {
    let kind = if input.flag() { 8 } else { input.u8() };
    let payload = input.take(usize::from(input.clone().u8()));
    let mut f = header([10, 0, 0, 2], 1, 8 + payload.len());
    f.extend([kind, 0, 0, 0, 0, 1, 0, 2]);
    f.extend(payload);
    fix(&mut f);
    f
}

/// A frame in a line.
pub fn describe(f: &[u8]) -> String {
    if f.len() < HEADERS || f[12..14] != [8, 0] || f[23] != 6 {
        return format!("{} bytes {:02x?}", f.len(), &f[..f.len().min(42)]);
    }
    let half = |at: usize| u16::from_be_bytes([f[at], f[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([f[at], f[at + 1], f[at + 2], f[at + 3]]);
    let names = ["FIN", "SYN", "RST", "PSH", "ACK", "URG"];
    let flags = names.iter().enumerate().filter(|(bit, _)| f[47] >> bit & 1 == 1);
    let flags: Vec<_> = flags.map(|(_, name)| *name).collect();
    let header = usize::from(f[46] >> 4) * 4;
    let len = f.len().saturating_sub(34 + header);
    let (from, to) = (half(34), half(36));
    let (seq, ack, window) = (word(38), word(42), half(48));
    format!("{from}>{to} {flags:?} seq {seq} ack {ack} window {window} {len} bytes")
}
