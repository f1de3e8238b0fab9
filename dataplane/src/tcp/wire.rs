//! TCP headers: parsing what arrives (RFC 9293 §3.1), writing what leaves. Parsed by hand, since a
//! frame's header is read once and in one go; nothing is trusted but the slice's length.
use super::seq::WrappingSeq;
use crate::checksum;
use crate::family::Family;
use crate::flow_table::FlowKey;
use crate::ipv4::TCP;
use arrayvec::ArrayVec;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes of NOP, NOP and timestamps, the layout of RFC 7323 appendix A.
pub const TIMESTAMPS: usize = 12;
/// Bytes of all options at most.
pub const OPTIONS_MAX: usize = 40;
/// Blocks of a SACK option at most (RFC 2018 §3).
pub const SACK_BLOCKS_MAX: usize = 4;

/// Bytes of Ethernet and IPv4 headers, as we send them.
pub const BELOW: usize = 14 + 20;

/// Control bits.
pub mod flag {
    /// No more data.
    pub const FIN: u8 = 0x01;
    /// Synchronise.
    pub const SYN: u8 = 0x02;
    /// Reset.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgement is valid.
    pub const ACK: u8 = 0x10;
    /// Congestion was experienced (RFC 3168 §6.1).
    pub const ECE: u8 = 0x40;
    /// The congestion window was reduced.
    pub const CWR: u8 = 0x80;
    /// All of these.
    pub const KNOWN: u8 = FIN | SYN | RST | PSH | ACK | ECE | CWR;
}

/// What a segment says.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    /// Whose it is.
    pub key: FlowKey,
    /// The slot of our address.
    pub local: u8,
    /// Toeplitz hash of its addresses and ports.
    pub hash: u32,
    /// Sequence number of its first byte, or of SYN.
    pub seq: WrappingSeq,
    /// Acknowledgement number.
    pub ack: WrappingSeq,
    /// Control bits, of [`flag`].
    pub flags: u8,
    /// Window, not scaled.
    pub window: u16,
    /// Where the payload starts in the buffer, behind the options.
    pub offset: u16,
    /// Bytes of it that were cut off at the front, since they have arrived before.
    pub cut: u16,
    /// Bytes of payload behind them.
    pub len: u16,
    /// Where the Ethernet header starts in the buffer.
    pub frame: u16,
    /// Bytes of options, which lie before the payload.
    pub options: u16,
    /// Timestamps: the sender's, and the echo of ours.
    pub ts: Option<(u32, u32)>,
    /// The network has marked it: congestion experienced.
    pub ce: bool,
}

impl Packet {
    /// Whether a control bit is set.
    #[inline(always)]
    pub const fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
    }

    /// Whether it has other options than timestamps.
    #[inline(always)]
    pub const fn has_more_options(&self) -> bool {
        self.options as usize > if self.ts.is_some() { TIMESTAMPS } else { 0 }
    }

    /// The options of the segment in its buffer, whose bytes are `data`.
    pub fn options<'a>(&self, data: &'a [u8]) -> &'a [u8] {
        let at = usize::from(self.offset - self.options);
        data.get(at..usize::from(self.offset)).unwrap_or(&[])
    }

    /// Sequence numbers that the segment takes.
    #[inline(always)]
    pub const fn seq_len(&self) -> u32 {
        self.len as u32 + self.has(flag::SYN) as u32 + self.has(flag::FIN) as u32
    }
}

/// The fixed header's fields.
#[derive(Clone, Copy, Debug)]
pub struct Fields {
    /// Of the sender.
    pub source_port: u16,
    /// Ours.
    pub destination_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Bytes of the header with options.
    pub header_len: usize,
    /// Control bits.
    pub flags: u8,
    /// Window.
    pub window: u16,
}

/// Reads a header; `None` if it does not fit its segment.
#[inline]
pub fn parse(segment: &[u8]) -> Option<Fields> {
    let h: &[u8; HEADER] = segment.first_chunk()?;
    let header_len = usize::from(h[12] >> 4) * 4;
    if header_len < HEADER || header_len > segment.len() {
        return None;
    }
    Some(Fields {
        source_port: u16::from_be_bytes([h[0], h[1]]),
        destination_port: u16::from_be_bytes([h[2], h[3]]),
        seq: u32::from_be_bytes([h[4], h[5], h[6], h[7]]),
        ack: u32::from_be_bytes([h[8], h[9], h[10], h[11]]),
        header_len,
        flags: h[13],
        window: u16::from_be_bytes([h[14], h[15]]),
    })
}

/// A range of sequence numbers that has arrived out of order, its end not included.
pub type SackBlock = (WrappingSeq, WrappingSeq);

/// What options say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window shift (RFC 7323 §2), at most 14.
    pub shift: Option<u8>,
    /// The sender understands selective acknowledgements (RFC 2018 §2).
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 §3): the sender's, and the echo of ours.
    pub timestamps: Option<(u32, u32)>,
    /// Selective acknowledgements (RFC 2018 §3).
    pub sack: ArrayVec<SackBlock, SACK_BLOCKS_MAX>,
}

/// Reads the options of a SYN, those of the usual layout in one look.
#[inline(always)]
pub fn syn_options(options: &[u8]) -> Options {
    if let Ok(o) = <&[u8; SYN_OPTIONS_MAX]>::try_from(options) {
        // Segment size; SACK, timestamps; a NOP and the window's shift.
        let word = |at: usize| u32::from_be_bytes([o[at], o[at + 1], o[at + 2], o[at + 3]]);
        let [size, scale] = [word(0), word(16)];
        if size >> 16 == 0x0204 && word(4) == 0x0402_080a && scale >> 8 == 0x01_0303 {
            return Options {
                mss: Some(size as u16),
                shift: Some((scale as u8).min(14)),
                sack_permitted: true,
                timestamps: Some((word(8), word(12))),
                sack: ArrayVec::new(),
            };
        }
    }
    parse_options(options)
}

/// Reads options; what is malformed ends them (RFC 9293 MUST-7).
#[inline(never)]
pub fn parse_options(mut options: &[u8]) -> Options {
    let mut found = Options::default();
    while let [kind, rest @ ..] = options {
        match kind {
            0 => break,
            1 => options = rest,
            _ => {
                let Some(len) = rest.first().map(|len| usize::from(*len)) else { break };
                let Some(body) = options.get(2..len.max(2)) else { break };
                if len < 2 {
                    break;
                }
                match (kind, body) {
                    (2, [a, b]) => found.mss = Some(u16::from_be_bytes([*a, *b])),
                    (3, [shift]) => found.shift = Some((*shift).min(14)),
                    (4, []) => found.sack_permitted = true,
                    (5, blocks) => {
                        let blocks = blocks.chunks_exact(8).filter_map(pair);
                        let blocks = blocks.map(|(l, r)| (WrappingSeq(l), WrappingSeq(r)));
                        found.sack = blocks.take(SACK_BLOCKS_MAX).collect();
                    }
                    (8, both) if both.len() == 8 => found.timestamps = pair(both),
                    _ => {}
                }
                options = &options[len..];
            }
        }
    }
    found
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

fn pair(bytes: &[u8]) -> Option<(u32, u32)> {
    Some((word(bytes, 0)?, word(bytes, 4)?))
}

/// The timestamps of a segment with these options.
#[inline(always)]
pub fn timestamps(options: &[u8]) -> Option<(u32, u32)> {
    match options.first_chunk::<TIMESTAMPS>() {
        Some([1, 1, 8, 10, v0, v1, v2, v3, e0, e1, e2, e3]) => Some((
            u32::from_be_bytes([*v0, *v1, *v2, *v3]),
            u32::from_be_bytes([*e0, *e1, *e2, *e3]),
        )),
        _ if options.is_empty() => None,
        _ => timestamps_elsewhere(options),
    }
}

#[cold]
#[inline(never)]
fn timestamps_elsewhere(options: &[u8]) -> Option<(u32, u32)> {
    parse_options(options).timestamps
}

/// Writes NOP, NOP and timestamps.
#[inline(always)]
pub fn emit_timestamps(options: &mut [u8; TIMESTAMPS], value: u32, echo: u32) {
    options[0..4].copy_from_slice(&[1, 1, 8, 10]);
    options[4..8].copy_from_slice(&value.to_be_bytes());
    options[8..12].copy_from_slice(&echo.to_be_bytes());
}

/// The options of our SYN or SYN-ACK.
#[derive(Clone, Copy, Debug)]
pub struct SynOptions {
    /// Maximum segment size.
    pub mss: u16,
    /// Window shift.
    pub shift: Option<u8>,
    /// We understand selective acknowledgements.
    pub sack_permitted: bool,
    /// Timestamps.
    pub timestamps: Option<(u32, u32)>,
}

/// Bytes of the options of a SYN at most.
pub const SYN_OPTIONS_MAX: usize = 20;

/// Writes them, each pair in whole words; returns their length and their partial sum.
#[inline(always)]
pub fn emit_syn_options(out: &mut [u8; SYN_OPTIONS_MAX], options: &SynOptions) -> (usize, u64) {
    let (mut len, mut sum) = (0, 0);
    let mut put = |word: u32| {
        out[len..len + 4].copy_from_slice(&word.to_be_bytes());
        len += 4;
        sum += u64::from(word.to_be());
    };
    put(0x0204_0000 | u32::from(options.mss));
    if let Some((value, echo)) = options.timestamps {
        put(if options.sack_permitted { 0x0402_080a } else { 0x0101_080a });
        put(value);
        put(echo);
    } else if options.sack_permitted {
        put(0x0101_0402);
    }
    if let Some(shift) = options.shift {
        put(0x0103_0300 | u32::from(shift));
    }
    (len, sum)
}

/// What goes into the headers of a segment that we send.
#[derive(Clone, Copy, Debug)]
pub struct Emit<A> {
    /// Next hop.
    pub mac_to: [u8; 6],
    /// Ours.
    pub mac_from: [u8; 6],
    /// Ours.
    pub ip_from: A,
    /// The peer's.
    pub ip_to: A,
    /// Ours.
    pub port_from: u16,
    /// The peer's.
    pub port_to: u16,
    /// Sequence number.
    pub seq: WrappingSeq,
    /// Acknowledgement number.
    pub ack: WrappingSeq,
    /// Control bits.
    pub flags: u8,
    /// Window, scaled.
    pub window: u16,
    /// IPv6's hop limit.
    pub hops: u8,
    /// Second byte of the IP header.
    pub tos: u8,
}

/// Writes Ethernet, IP and TCP headers for a segment with `options` bytes of options and `payload`
/// bytes of payload. The TCP checksum field is left 0.
#[inline(always)]
pub fn emit<A: Family>(slot: &mut [u8], e: &Emit<A>, options: usize, payload: usize) {
    let Some((below, tcp)) = slot.split_at_mut_checked(A::BELOW) else { return };
    let Some(h) = tcp.first_chunk_mut::<HEADER>() else { return };
    below[0..6].copy_from_slice(&e.mac_to);
    below[6..12].copy_from_slice(&e.mac_from);
    below[12..14].copy_from_slice(&A::ETHERTYPE);
    let len = (HEADER + options + payload) as u16;
    A::emit(&mut below[14..], e.ip_from, e.ip_to, TCP, len, (e.tos, e.hops));
    h[0..2].copy_from_slice(&e.port_from.to_be_bytes());
    h[2..4].copy_from_slice(&e.port_to.to_be_bytes());
    h[4..8].copy_from_slice(&e.seq.0.to_be_bytes());
    h[8..12].copy_from_slice(&e.ack.0.to_be_bytes());
    h[12] = (((HEADER + options) / 4) as u8) << 4;
    h[13] = e.flags;
    h[14..16].copy_from_slice(&e.window.to_be_bytes());
    h[16..20].fill(0);
}

/// Fills in the TCP checksum of a complete frame without options below TCP.
pub fn checksum_in_place<A: Family>(frame: &mut [u8], from: A, to: A) {
    let Some((_, tcp)) = frame.split_at_mut_checked(A::BELOW) else { return };
    let pseudo = A::pseudo(from, to, TCP, tcp.len() as u16);
    let field = checksum::finish(checksum::add(pseudo, checksum::sum(tcp)));
    if let Some(at) = tcp.get_mut(16..18) {
        at.copy_from_slice(&field);
    }
}

#[cfg(test)]
mod tests;
