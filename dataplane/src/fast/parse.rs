//! From a frame to what is in its headers, if they are the ones that nearly all have: Ethernet, IPv4 without
//! options or fragments, TCP.
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::flow_table::{FlowKey, tuple};
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, BELOW, HEADER, Packet, TIMESTAMPS, flag};
use core::ops::Deref;
use ix_abi::IpAddress;

/// What timestamps begin with: two bytes of padding, kind and length (RFC 7323 appendix A).
pub const STAMPS_HEAD: [u8; 4] = [1, 1, 8, 10];

/// All headers with timestamps. Not all of it need be of the frame.
type Headers = [u8; BELOW + HEADER + TIMESTAMPS];

/// The headers of a segment over IPv4 to our address.
#[derive(Clone, Copy)]
pub struct Head<'a>(&'a Headers);

/// The segment. Two words, so that it is passed in registers.
#[derive(Clone, Copy)]
pub struct Segment<'a> {
    head: Head<'a>,
    /// Hash and length.
    rest: u64,
}

impl<'a> Deref for Segment<'a> {
    type Target = Head<'a>;
    #[inline(always)]
    fn deref(&self) -> &Head<'a> {
        &self.head
    }
}

/// What the byte with the header's length says of one with timestamps, and of one without options.
const STAMPED: u8 = 0x80;
const BARE: u8 = 0x50;
/// All of that byte and of the control bits but PSH.
const BUT_PSH: u16 = u16::from_ne_bytes([0xff, !flag::PSH]);

/// The word of a header with the window: of one with timestamps and ACK, but for the window.
const ACK_WORD: u32 = (STAMPED as u32) << 24 | (flag::ACK as u32) << 16;
/// PSH in it.
const PSH_BIT: u32 = (flag::PSH as u32) << 16;

impl<'a> Segment<'a> {
    /// What [`headers`] has read.
    #[inline(always)]
    pub fn new((head, hash, total): (Head<'a>, u32, u32)) -> Segment<'a> {
        Segment { head, rest: u64::from(total) << 32 | u64::from(hash) }
    }

    /// Its headers.
    #[inline(always)]
    pub fn head(&self) -> Head<'a> {
        self.head
    }

    /// Toeplitz hash of its addresses and ports.
    #[inline(always)]
    pub fn hash(&self) -> u32 {
        self.rest as u32
    }

    /// Bytes of IP and TCP headers and payload, which are all there.
    #[inline(always)]
    pub fn total(&self) -> u32 {
        (self.rest >> 32) as u32
    }

    /// What the code that is complete takes; `None`: the header does not fit. `frame` is where it was read from.
    #[inline]
    pub fn packet(&self, local: &Local, frame: &RxFrame) -> Option<Packet> {
        let h = self.head.0;
        let half = |at: usize| u16::from_be_bytes([h[at], h[at + 1]]);
        let header = usize::from(h[46] >> 4) * 4;
        let len = (self.total() as usize).checked_sub(ipv4::HEADER + header)?;
        let options = header.checked_sub(HEADER)?;
        let offset = usize::from(frame.offset) + BELOW + HEADER;
        let opens = h[47] & (flag::SYN | flag::ACK) == flag::SYN;
        // Those of a SYN are read where it is taken.
        let ts = if opens || options == 0 {
            None
        } else {
            wire::timestamps(local.pool.area().data(&frame.mbuf).get(offset..offset + options)?)
        };
        let key = FlowKey {
            remote: IpAddress::v4([h[26], h[27], h[28], h[29]]),
            remote_port: half(34),
            local_port: half(36),
        };
        Some(Packet {
            key,
            local: 0,
            hash: self.hash(),
            seq: self.seq(),
            ack: self.ack(),
            flags: h[47] & flag::KNOWN,
            window: half(48),
            offset: (offset + options) as u16,
            cut: 0,
            len: len as u16,
            frame: frame.offset,
            options: options as u16,
            ts,
            ce: false,
        })
    }
}

impl Head<'_> {
    #[inline(always)]
    fn word(&self, at: usize) -> u32 {
        let h = self.0;
        u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]])
    }

    /// Whose, see [`crate::flow_table::tuple`].
    #[inline(always)]
    pub fn tuple(&self) -> u64 {
        let h = self.0;
        tuple([h[26], h[27], h[28], h[29]], [h[34], h[35], h[36], h[37]])
    }

    /// Of its first byte.
    #[inline(always)]
    pub fn seq(&self) -> WrappingSeq {
        WrappingSeq(self.word(38))
    }

    /// Acknowledgement number.
    #[inline(always)]
    pub fn ack(&self) -> WrappingSeq {
        WrappingSeq(self.word(42))
    }

    /// Sequence and acknowledgement number, in one word.
    #[inline(always)]
    pub fn seq_and_ack(&self) -> u64 {
        u64::from_be(eight(self.0, 38))
    }

    /// Not scaled.
    #[inline(always)]
    pub fn window(&self) -> u32 {
        u32::from(u16::from_be_bytes([self.0[48], self.0[49]]))
    }

    /// Control bits but PSH.
    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.0[47] & !flag::PSH
    }

    /// Whether it has these control bits, no other but perhaps PSH, and no options.
    #[inline(always)]
    pub fn is_bare(&self, flags: u8) -> bool {
        self.length_and_flags() == u16::from_ne_bytes([BARE, flags])
    }

    /// Whether it has those and timestamps.
    #[inline(always)]
    pub fn is_stamped(&self, flags: u8) -> bool {
        self.length_and_flags() == u16::from_ne_bytes([STAMPED, flags])
            && self.0[54..58] == STAMPS_HEAD
    }

    /// Its window, if it is stamped, and has ACK and no other control bit but perhaps PSH.
    #[inline(always)]
    pub fn window_of_ack(&self) -> Option<u32> {
        let word = self.word(46);
        let stamped = (word ^ ACK_WORD) & !(0xffff | PSH_BIT) == 0 && self.0[54..58] == STAMPS_HEAD;
        stamped.then_some(word & 0xffff)
    }

    #[inline(always)]
    fn length_and_flags(&self) -> u16 {
        // As one value from the start: of two bytes that are put together the compiler makes two loads here.
        self.0[46..].first_chunk().map_or(0, |both| u16::from_ne_bytes(*both)) & BUT_PSH
    }

    /// TSval, if it is stamped.
    #[inline(always)]
    pub fn stamp(&self) -> u32 {
        self.word(58)
    }
}

/// Reads the headers; also its hash and the length of IP header and what follows, which is all there. `None` if they are not
/// the usual ones, or damaged.
#[inline(always)]
pub fn headers<'a>(local: &Local, frame: &'a RxFrame) -> Option<(Head<'a>, u32, u32)> {
    let h = headers_of(local, frame)?;
    // To us: the sender's address, which shares the word, is shifted out.
    let to_us = (eight(h, 0) ^ local.receiver) << 16 == 0;
    let plain = eight(h, 12) as u32 == PLAIN || is_not_marked(h);
    let usual = to_us && plain && is_tcp_to(local.address, h);
    let total = u16::from_be_bytes([h[16], h[17]]);
    if !usual || usize::from(total) + eth::HEADER > usize::from(frame.len) {
        return None;
    }
    let hash = match frame.hash {
        Some(hash) if frame.checksum == RxChecksum::Good => hash,
        _ => without_offload(local, frame)?,
    };
    Some((Head(h), hash, u32::from(total)))
}

/// What the device has not done: the hash of a segment whose checksums are right, `None`: they are not. A call of its own,
/// so that who has a device which does it is not slowed down by it.
#[inline(never)]
fn without_offload(local: &Local, frame: &RxFrame) -> Option<u32> {
    let h = headers_of(local, frame)?;
    if frame.checksum == RxChecksum::Unknown {
        let total = usize::from(u16::from_be_bytes([h[16], h[17]]));
        let bytes = local.pool.area().data(&frame.mbuf);
        let segment = bytes.get(usize::from(frame.offset) + BELOW..)?;
        // Of a packet shorter than its header it is more than there can be.
        if !is_intact(h, segment.get(..total.wrapping_sub(ipv4::HEADER))?) {
            return None;
        }
    }
    Some(frame.hash.unwrap_or_else(|| hash(local, h)))
}

/// What [`headers`] has read of a segment that was found to be of the connection with this hash.
#[inline(always)]
pub fn again<'a>(local: &Local, frame: &'a RxFrame, hash: u32) -> Option<Segment<'a>> {
    let h = headers_of(local, frame)?;
    let total = u16::from_be_bytes([h[16], h[17]]);
    Some(Segment::new((Head(h), hash, total.into())))
}

/// What is where headers with timestamps would be, if the buffer has as much.
#[inline(always)]
fn headers_of<'a>(local: &Local, frame: &'a RxFrame) -> Option<&'a Headers> {
    let at = usize::from(frame.offset);
    // Cut at both ends with one comparison.
    local.pool.area().data(&frame.mbuf).get(at..at + size_of::<Headers>())?.first_chunk()
}

/// The hash of a frame that the device has given none, if it is of a flow over IPv4 to our address: before anything else of it
/// is looked at.
#[inline]
pub fn early_hash(local: &Local, frame: &RxFrame) -> Option<u32> {
    let h = headers_of(local, frame)?;
    is_segment_to::<ANY>(local.address, h).then(|| hash(local, h))
}

/// See [`is_segment_to`]: whatever the network has marked; and only if it cannot have marked congestion.
const ANY: u32 = 0x00ff_ffff;
/// EtherType, version and length of the header, and no bit of its service.
const PLAIN: u32 = u32::from_ne_bytes([8, 0, 0x45, 0]);
const NOT_MARKED: u32 = 0x03ff_ffff;

/// Whether the addresses and ports of an IPv4 segment to `address` are where they are without options: by EtherType, version and
/// length of the IP header, as far as `MASK` says; then that it is no fragment, and its protocol.
#[inline(always)]
fn is_segment_to<const MASK: u32>(address: [u8; 4], h: &Headers) -> bool {
    eight(h, 12) as u32 & MASK == PLAIN && is_tcp_to(address, h)
}

/// The same of the EtherType, version and length alone, of one that has other bits set beside them.
#[cold]
#[inline(never)]
fn is_not_marked(h: &Headers) -> bool {
    eight(h, 12) as u32 & NOT_MARKED == PLAIN
}

/// The same of the rest.
#[inline(always)]
fn is_tcp_to(address: [u8; 4], h: &Headers) -> bool {
    let word = |at: usize| u32::from_le_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    word(20) & 0xff00_ff3f == u32::from_le_bytes([0, 0, 0, ipv4::TCP]) && h[30..34] == address
}

#[inline(always)]
fn hash(local: &Local, h: &Headers) -> u32 {
    let (from, ports) = ([h[26], h[27], h[28], h[29]], [h[34], h[35], h[36], h[37]]);
    local.toeplitz.hash_to_v4(local.address_hash, from, ports)
}

/// Eight bytes in one load, in the machine's order.
#[inline(always)]
fn eight(h: &Headers, at: usize) -> u64 {
    let h = &h[at..at + 8];
    u64::from_ne_bytes([h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]])
}

/// Whether both checksums are right.
#[inline(always)]
fn is_intact(h: &Headers, segment: &[u8]) -> bool {
    let (from, to) = ([h[26], h[27], h[28], h[29]], [h[30], h[31], h[32], h[33]]);
    let ip = checksum::add(eight(h, 14), eight(h, 22));
    let ip = checksum::add(ip, u64::from(u32::from_ne_bytes(to)));
    let pseudo = checksum::pseudo_v4(from, to, ipv4::TCP, segment.len() as u16);
    checksum::is_good(ip) && checksum::is_good(checksum::add(pseudo, checksum::sum(segment)))
}

#[cfg(test)]
mod tests;
