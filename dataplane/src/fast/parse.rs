//! From a frame to what is in its headers, if they are the ones that nearly all have: Ethernet, IPv4 without
//! options or fragments, TCP with no option but timestamps, ACK and perhaps PSH.
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::flow_table::tuple;
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS, flag};

/// What timestamps begin with: two bytes of padding, kind and length (RFC 7323 appendix A).
pub const STAMPS_HEAD: [u8; 4] = [1, 1, 8, 10];

/// A predicted segment.
pub struct Segment {
    /// Whose, see [`crate::flow_table::tuple`].
    pub tuple: u64,
    /// Toeplitz hash of its addresses and ports.
    pub hash: u32,
    /// Of its first byte.
    pub seq: WrappingSeq,
    /// Acknowledgement number.
    pub ack: WrappingSeq,
    /// Not scaled.
    pub window: u32,
    /// TSval.
    pub stamp: Option<u32>,
    /// Where the payload starts in the buffer.
    pub offset: u16,
    /// Bytes of payload.
    pub len: u16,
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
        && h[47] & !flag::PSH == flag::ACK
        // Congestion was experienced.
        && h[15] & 3 != 3;
    if !usual || total + eth::HEADER > usize::from(frame.len) {
        return None;
    }
    let (header, stamp) = match h[46] {
        0x80 if h[54..58] == STAMPS_HEAD => (HEADER + TIMESTAMPS, Some(word(58))),
        0x50 => (HEADER, None),
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
        window: u32::from(half(48)),
        stamp,
        offset: (at + BELOW + header) as u16,
        len: len as u16,
    })
}
