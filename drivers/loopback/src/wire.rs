//! What the card knows of packets: flows, verdicts, checksums to be filled in, headers of segments. It believes no header.
use crate::ETHERNET;
use ix_dataplane::checksum;
use ix_dataplane::device::{Gso, TxChecksum};
use ix_dataplane::rss::Toeplitz;

/// Enough of a frame for everything here: Ethernet, the longest IPv4 header, the longest TCP header.
pub const HEAD: usize = ETHERNET + 60 + 60;

const TCP: u8 = 6;
const UDP: u8 = 17;
const TCP_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const FIN_AND_PSH: u8 = 0x09;

#[derive(Clone, Copy, Debug)]
enum Addresses {
    V4([u8; 4], [u8; 4]),
    V6([u8; 16], [u8; 16]),
}

/// A TCP or UDP packet that is no fragment, and all there.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    addresses: Addresses,
    ports: (u16, u16),
    protocol: u8,
    /// Where the transport starts in the frame.
    pub at: usize,
    /// Its bytes, headers included.
    pub len: usize,
    /// IPv4's own sum is right.
    header_is_good: bool,
    /// UDP's sender did not sum.
    unsummed: bool,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

fn chunk<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// What a frame of `frame_len` bytes has, by its first bytes: `HEAD` of them, or all. `None`: something else.
pub fn parse(head: &[u8], frame_len: usize) -> Option<Packet> {
    let (addresses, protocol, at, len, header_is_good) = match half(head, 12)? {
        0x0800 => {
            let first = *head.get(ETHERNET)?;
            let header = usize::from(first & 15) * 4;
            let total = usize::from(half(head, ETHERNET + 2)?);
            let whole = half(head, ETHERNET + 6)? & 0x3fff == 0;
            if first >> 4 != 4 || header < IPV4_HEADER || total < header || !whole {
                return None;
            }
            let addresses = Addresses::V4(chunk(head, 26)?, chunk(head, 30)?);
            let good = checksum::is_good(checksum::sum(head.get(ETHERNET..ETHERNET + header)?));
            (addresses, *head.get(23)?, ETHERNET + header, total - header, good)
        }
        0x86dd => {
            if head.get(ETHERNET)? >> 4 != 6 {
                return None;
            }
            let addresses = Addresses::V6(chunk(head, 22)?, chunk(head, 38)?);
            let len = usize::from(half(head, 18)?);
            (addresses, *head.get(20)?, ETHERNET + IPV6_HEADER, len, true)
        }
        _ => return None,
    };
    let least = match protocol {
        TCP => TCP_HEADER,
        UDP => UDP_HEADER,
        _ => return None,
    };
    if len < least || at + len > frame_len {
        return None;
    }
    let unsummed = protocol == UDP && half(head, at + 6)? == 0;
    let odd = protocol == UDP && usize::from(half(head, at + 4)?) != len;
    let ports = (half(head, at)?, half(head, at + 2)?);
    let header_is_good = header_is_good && !odd;
    Some(Packet { addresses, ports, protocol, at, len, header_is_good, unsummed })
}

impl Packet {
    /// What RSS has of it.
    #[inline]
    pub fn hash(&self, toeplitz: &Toeplitz) -> u32 {
        let (source, target) = self.ports;
        match self.addresses {
            Addresses::V4(a, b) => toeplitz.hash_v4(a, b, source, target),
            Addresses::V6(a, b) => toeplitz.hash_v6(a, b, source, target),
        }
    }

    /// Whether IP's header and the transport were both checked and are right, by the sum of the transport's bytes.
    pub fn is_good(&self, sum: u64) -> bool {
        let len = self.len as u16;
        let pseudo = match self.addresses {
            Addresses::V4(a, b) => checksum::pseudo_v4(a, b, self.protocol, len),
            Addresses::V6(a, b) => checksum::pseudo_v6(&a, &b, self.protocol, len),
        };
        let summed = checksum::is_good(checksum::add(pseudo, sum));
        self.header_is_good && !self.unsummed && summed
    }
}

/// The sum of bytes `from..to` of a frame that lies in pieces, for the field that they end in.
pub fn sum<'a>(pieces: impl Iterator<Item = &'a [u8]>, from: usize, to: usize) -> u64 {
    let (mut at, mut total) = (0, 0);
    for piece in pieces {
        let (first, end) = (from.max(at), to.min(at + piece.len()));
        if first < end {
            let part = checksum::sum(&piece[first - at..end - at]);
            let odd = (first - from) % 2 == 1;
            total = checksum::add(total, if odd { checksum::at_odd_offset(part) } else { part });
        }
        at += piece.len();
    }
    total
}

/// The field of a sum: 0 would say that there is none (RFC 768); for TCP both are the same number.
pub fn field(sum: u64) -> [u8; 2] {
    match checksum::finish(sum) {
        [0, 0] => [0xff, 0xff],
        field => field,
    }
}

/// Makes the headers of a large packet those of its segment `number`, which has `payload` bytes (virtio 1.2 §5.1.6.2): lengths,
/// identification, sequence number, control bits, IPv4's sum, and the pseudo-header's in TCP's. `None`: they are no such headers.
pub fn segment(
    headers: &mut [u8],
    checksum: TxChecksum,
    gso: Gso,
    (number, payload, last): (usize, usize, bool),
) -> Option<()> {
    let l4 = usize::from(checksum.start);
    let len = headers.len().checked_sub(l4)? + payload;
    let ip = headers.get_mut(ETHERNET..l4)?;
    let pseudo = if gso.ipv6 {
        let ip = ip.first_chunk_mut::<IPV6_HEADER>()?;
        ip[4..6].copy_from_slice(&(len as u16).to_be_bytes());
        checksum::pseudo_v6(&chunk(ip, 8)?, &chunk(ip, 24)?, TCP, len as u16)
    } else {
        let total = ip.len() + len;
        let fixed = ip.first_chunk_mut::<IPV4_HEADER>()?;
        fixed[2..4].copy_from_slice(&(total as u16).to_be_bytes());
        let id = u16::from_be_bytes([fixed[4], fixed[5]]).wrapping_add(number as u16);
        fixed[4..6].copy_from_slice(&id.to_be_bytes());
        fixed[10..12].fill(0);
        let pseudo = checksum::pseudo_v4(chunk(fixed, 12)?, chunk(fixed, 16)?, TCP, len as u16);
        let sum = checksum::finish(checksum::sum(ip));
        ip.get_mut(10..12)?.copy_from_slice(&sum);
        pseudo
    };
    let tcp = headers.get_mut(l4..)?;
    let first = u32::from_be_bytes(chunk(tcp, 4)?);
    let sequence = first.wrapping_add((number * usize::from(gso.size)) as u32);
    tcp.get_mut(4..8)?.copy_from_slice(&sequence.to_be_bytes());
    if !last {
        *tcp.get_mut(13)? &= !FIN_AND_PSH;
    }
    let at = usize::from(checksum.offset);
    tcp.get_mut(at..at + 2)?.copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
    Some(())
}
