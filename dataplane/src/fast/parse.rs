//! From a frame to what is in its headers, if they are the ones that nearly all have: Ethernet, IPv4 without
//! options or fragments, TCP with no option but timestamps, ACK and perhaps PSH or FIN; or those of a SYN.
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::flow_table::{FlowKey, tuple};
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{BELOW, HEADER, Packet, TIMESTAMPS, flag};
use ix_abi::IpAddress;

/// What timestamps begin with: two bytes of padding, kind and length (RFC 7323 appendix A).
pub const STAMPS_HEAD: [u8; 4] = [1, 1, 8, 10];

const FIN_ACK: u8 = flag::FIN | flag::ACK;

/// What such headers say.
pub struct Segment {
    /// Whose, see [`crate::flow_table::tuple`].
    pub tuple: u64,
    /// Toeplitz hash of its addresses and ports.
    pub hash: u32,
    /// Of its first byte.
    pub seq: WrappingSeq,
    /// Acknowledgement number.
    pub ack: WrappingSeq,
    /// Control bits but PSH: ACK, SYN, or ACK and FIN.
    pub flags: u8,
    /// Not scaled.
    pub window: u32,
    /// TSval.
    pub stamp: Option<u32>,
    /// Where the payload starts in the buffer.
    pub offset: u16,
    /// Bytes of payload.
    pub len: u16,
}

impl Segment {
    /// What the code that is complete takes; of a SYN without its timestamps. `frame` is where it was read from.
    pub fn packet(&self, local: &Local, frame: &RxFrame) -> Packet {
        let [f0, f1, f2, f3, s0, s1, d0, d1] = self.tuple.to_ne_bytes();
        let data = local.pool.area().data(&frame.mbuf);
        let tcp = usize::from(frame.offset) + BELOW;
        let byte = |at: usize| data.get(tcp + at).copied().unwrap_or(0);
        let echo = || u32::from_be_bytes([byte(28), byte(29), byte(30), byte(31)]);
        Packet {
            key: FlowKey {
                remote: IpAddress::v4([f0, f1, f2, f3]),
                remote_port: u16::from_be_bytes([s0, s1]),
                local_port: u16::from_be_bytes([d0, d1]),
            },
            local: 0,
            hash: self.hash,
            seq: self.seq,
            ack: self.ack,
            flags: byte(13) & flag::KNOWN,
            window: self.window as u16,
            offset: self.offset,
            len: self.len,
            frame: frame.offset,
            options: self.offset - (tcp + HEADER) as u16,
            ts: self.stamp.map(|stamp| (stamp, echo())),
            ce: false,
        }
    }
}

/// Reads the headers; `None` if they are not the usual ones, or damaged.
#[inline(always)]
pub fn segment(local: &Local, frame: &RxFrame) -> Option<Segment> {
    let at = usize::from(frame.offset);
    let data = local.pool.area().data(&frame.mbuf).get(at..)?;
    // Not all of it need be of the frame; `total` says what is.
    let h: &[u8; BELOW + HEADER + TIMESTAMPS] = data.first_chunk()?;
    let half = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
    let word = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let total = usize::from(half(16));
    let usual = h[0..6] == local.mac
        && word(12) & 0xffff_ff00 == 0x0800_4500
        && half(20) & 0x3fff == 0
        && h[23] == ipv4::TCP
        && h[30..34] == local.address
        && matches!(h[47] & !flag::PSH, flag::ACK | FIN_ACK | flag::SYN)
        // Congestion was experienced.
        && h[15] & 3 != 3;
    if !usual || total + eth::HEADER > usize::from(frame.len) {
        return None;
    }
    let (header, stamp) = match h[46] {
        0x80 if h[54..58] == STAMPS_HEAD => (HEADER + TIMESTAMPS, Some(word(58))),
        0x50 => (HEADER, None),
        // A SYN has its options read elsewhere.
        long if h[47] & flag::SYN != 0 && long & 15 == 0 && long > 0x50 => {
            (usize::from(long >> 2), None)
        }
        _ => return None,
    };
    let len = total.checked_sub(ipv4::HEADER + header)?;
    let (from, to) = ([h[26], h[27], h[28], h[29]], local.address);
    if frame.checksum == RxChecksum::Unknown {
        let segment = data.get(BELOW..eth::HEADER + total)?;
        let pseudo = checksum::pseudo_v4(from, to, ipv4::TCP, segment.len() as u16);
        let ip = checksum::is_good(checksum::sum(&h[eth::HEADER..BELOW]));
        if !ip || !checksum::is_good(checksum::add(pseudo, checksum::sum(segment))) {
            return None;
        }
    }
    let hash = match frame.hash {
        Some(hash) => hash,
        None => local.toeplitz.hash_v4(from, to, half(34), half(36)),
    };
    Some(Segment {
        tuple: tuple(from, [h[34], h[35], h[36], h[37]]),
        hash,
        seq: WrappingSeq(word(38)),
        ack: WrappingSeq(word(42)),
        flags: h[47] & !flag::PSH,
        window: u32::from(half(48)),
        stamp,
        offset: (at + BELOW + header) as u16,
        len: len as u16,
    })
}
