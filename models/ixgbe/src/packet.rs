//! What the chip sees in a frame: layers, checksums, the Toeplitz hash (§7.1.2.8, §7.1.10, §7.1.11).

/// The third layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    V4,
    V6,
}

/// The fourth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Sctp,
}

/// A frame's layers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Layers {
    /// The VLAN tag, if the first type is VLNCTRL.VET.
    pub vlan: Option<u16>,
    pub network: Option<Network>,
    /// IPv4 options or IPv6 extensions.
    pub extended: bool,
    /// A fragment: nothing is said about the fourth layer.
    pub fragment: bool,
    /// Where the third layer is.
    pub l3: usize,
    pub transport: Option<Transport>,
    /// Where the fourth is, and where it ends.
    pub l4: usize,
    pub end: usize,
    /// The IPv4 header's sum is right.
    pub header_good: bool,
}

const TYPE_V4: u16 = 0x0800;
const TYPE_V6: u16 = 0x86dd;

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// The one's complement sum of `bytes`, added to `sum`.
pub(crate) fn sum(bytes: &[u8], sum: u64) -> u64 {
    let mut chunks = bytes.chunks_exact(2);
    let mut total = sum;
    for pair in &mut chunks {
        total += u64::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    if let [last] = chunks.remainder() {
        total += u64::from(*last) << 8;
    }
    total
}

/// A sum folded into 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The frame check sequence of IEEE 802.3 §3.2.9, as it lies behind the frame.
pub(crate) fn fcs(frame: &[u8]) -> [u8; 4] {
    let step = |crc: u32| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc));
    (!frame.iter().fold(u32::MAX, byte)).to_le_bytes()
}

/// Looks at a frame as the parser does.
pub(crate) fn parse(frame: &[u8], vlan_type: u16) -> Layers {
    let mut layers = Layers::default();
    let _ = parse_into(frame, vlan_type, &mut layers);
    layers
}

fn parse_into(frame: &[u8], vlan_type: u16, layers: &mut Layers) -> Option<()> {
    let mut kind = half(frame, 12)?;
    let mut at = 14;
    if kind == vlan_type {
        layers.vlan = Some(half(frame, 14)?);
        kind = half(frame, 16)?;
        at = 18;
    }
    layers.l3 = at;
    let protocol = match kind {
        TYPE_V4 => parse_v4(frame, at, layers)?,
        TYPE_V6 => parse_v6(frame, at, layers)?,
        _ => return None,
    };
    if !layers.fragment {
        layers.transport = match protocol {
            6 => Some(Transport::Tcp),
            17 => Some(Transport::Udp),
            132 => Some(Transport::Sctp),
            _ => None,
        };
    }
    Some(())
}

fn parse_v4(frame: &[u8], at: usize, layers: &mut Layers) -> Option<u8> {
    let first = *frame.get(at)?;
    let header = usize::from(first & 0xf) * 4;
    let total = usize::from(half(frame, at + 2)?);
    if first >> 4 != 4 || header < 20 || frame.len() < at + header || total < header {
        return None;
    }
    layers.network = Some(Network::V4);
    layers.extended = header > 20;
    layers.fragment = half(frame, at + 6)? & 0x3fff != 0;
    layers.l4 = at + header;
    layers.end = (at + total).min(frame.len());
    layers.header_good = fold(sum(&frame[at..at + header], 0)) == 0xffff;
    Some(frame[at + 9])
}

fn parse_v6(frame: &[u8], at: usize, layers: &mut Layers) -> Option<u8> {
    if frame.get(at)? >> 4 != 6 || frame.len() < at + 40 {
        return None;
    }
    layers.network = Some(Network::V6);
    layers.end = (at + 40 + usize::from(half(frame, at + 4)?)).min(frame.len());
    let mut next = frame[at + 6];
    let mut at = at + 40;
    // §7.1.10: hop by hop, routing, destination options are skipped; a fragment header ends the look.
    for _ in 0..8 {
        match next {
            0 | 43 | 60 => {
                layers.extended = true;
                next = *frame.get(at)?;
                at += 8 + 8 * usize::from(*frame.get(at + 1)?);
            }
            44 => {
                layers.fragment = true;
                break;
            }
            _ => break,
        }
    }
    layers.l4 = at;
    Some(next)
}

/// Whether the transport's checksum is right; `None` if the chip does not say (§7.1.11).
pub(crate) fn transport_good(frame: &[u8], layers: &Layers) -> Option<bool> {
    let (protocol, field) = match layers.transport? {
        Transport::Tcp => (6, 16),
        Transport::Udp => (17, 6),
        Transport::Sctp => return None,
    };
    let segment = frame.get(layers.l4..layers.end)?;
    if segment.len() < field + 2 {
        return None;
    }
    if layers.transport == Some(Transport::Udp) && segment[6..8] == [0, 0] {
        return None;
    }
    let addresses = match layers.network? {
        Network::V4 => &frame[layers.l3 + 12..layers.l3 + 20],
        Network::V6 => &frame[layers.l3 + 8..layers.l3 + 40],
    };
    let pseudo = sum(addresses, protocol + segment.len() as u64);
    Some(fold(sum(segment, pseudo)) == 0xffff)
}

/// The Toeplitz hash by tables, made anew when the key has changed.
#[derive(Debug)]
pub(crate) struct Toeplitz {
    tables: Box<[[u32; 256]; INPUT_MAX]>,
}

/// Bytes of the longest input.
const INPUT_MAX: usize = 36;

impl Toeplitz {
    /// The key as RSSRK has it: byte `i` is byte `i % 4` of register `i / 4`.
    pub fn new(key: &[u8; 40]) -> Toeplitz {
        let bit = |i: usize| u32::from(key[i / 8] >> (7 - i % 8) & 1);
        let window = |at: usize| (0..32).fold(0, |w, i| w << 1 | bit(at + i));
        let mut tables = Box::new([[0; 256]; INPUT_MAX]);
        for (byte, table) in tables.iter_mut().enumerate() {
            let windows: Vec<u32> = (0..8).map(|i| window(8 * byte + i)).collect();
            for (value, entry) in table.iter_mut().enumerate() {
                let set = (0..8).filter(|i| value >> (7 - i) & 1 != 0);
                *entry = set.fold(0, |hash, i| hash ^ windows[i]);
            }
        }
        Toeplitz { tables }
    }

    /// The hash of the parts of an input, one after the other.
    pub fn hash(&self, parts: [&[u8]; 2]) -> u32 {
        let bytes = parts.into_iter().flatten();
        bytes.zip(&*self.tables).fold(0, |hash, (byte, table)| hash ^ table[usize::from(*byte)])
    }
}

/// MRQC's bits for what is hashed, and the RSS types of the descriptor (§7.1.2.8.1, table 7-17).
pub(crate) const MRQC_TCP_V4: u32 = 1 << 16;
pub(crate) const MRQC_V4: u32 = 1 << 17;
pub(crate) const MRQC_V6: u32 = 1 << 20;
pub(crate) const MRQC_TCP_V6: u32 = 1 << 21;
pub(crate) const MRQC_UDP_V4: u32 = 1 << 22;
pub(crate) const MRQC_UDP_V6: u32 = 1 << 23;

/// The hash of a frame and its RSS type, if MRQC's fields ask for one.
pub(crate) fn rss(
    frame: &[u8],
    layers: &Layers,
    mrqc: u32,
    toeplitz: &Toeplitz,
) -> Option<(u32, u32)> {
    let network = layers.network?;
    let (addresses, plain) = match network {
        Network::V4 => (&frame[layers.l3 + 12..layers.l3 + 20], (MRQC_V4, 2)),
        Network::V6 => (&frame[layers.l3 + 8..layers.l3 + 40], (MRQC_V6, 5)),
    };
    let with_ports = match (network, layers.transport) {
        (Network::V4, Some(Transport::Tcp)) => Some((MRQC_TCP_V4, 1)),
        (Network::V4, Some(Transport::Udp)) => Some((MRQC_UDP_V4, 7)),
        (Network::V6, Some(Transport::Tcp)) => Some((MRQC_TCP_V6, 3)),
        (Network::V6, Some(Transport::Udp)) => Some((MRQC_UDP_V6, 8)),
        _ => None,
    };
    if let Some((bit, kind)) = with_ports.filter(|(bit, _)| mrqc & bit != 0) {
        let _ = bit;
        let ports = frame.get(layers.l4..layers.l4 + 4)?;
        return Some((toeplitz.hash([addresses, ports]), kind));
    }
    (mrqc & plain.0 != 0).then(|| (toeplitz.hash([addresses, &[]]), plain.1))
}
