//! TCP headers: parsing what arrives (RFC 9293 §3.1), writing what leaves. Parsed by hand, since a
//! frame's header is read once and in one go; nothing is trusted but the slice's length.
use super::seq::WrappingSeq;
use crate::checksum;
use crate::flow_table::FlowKey;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
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
    /// Where the payload starts in the buffer.
    pub offset: u16,
    /// Bytes of payload.
    pub len: u16,
    /// Where the Ethernet header starts in the buffer.
    pub frame: u16,
    /// Bytes of options, which lie before the payload.
    pub options: u16,
    /// The network has marked it: congestion experienced.
    pub ce: bool,
}

impl Packet {
    /// Whether a control bit is set.
    #[inline(always)]
    pub const fn has(&self, bit: u8) -> bool {
        self.flags & bit != 0
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

/// What SYN options say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window shift (RFC 7323 §2), at most 14.
    pub shift: Option<u8>,
}

/// Reads options; what is malformed ends them (RFC 9293 MUST-7).
pub fn parse_options(mut options: &[u8]) -> SynOptions {
    let mut found = SynOptions::default();
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
                    _ => {}
                }
                options = &options[len..];
            }
        }
    }
    found
}

/// What goes into the headers of a segment that we send.
#[derive(Clone, Copy, Debug)]
pub struct Emit {
    /// Next hop.
    pub mac_to: [u8; 6],
    /// Ours.
    pub mac_from: [u8; 6],
    /// Ours.
    pub ip_from: [u8; 4],
    /// The peer's.
    pub ip_to: [u8; 4],
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
    /// Second byte of the IP header.
    pub tos: u8,
}

/// Writes Ethernet, IPv4 and TCP headers for a segment with `options` bytes of options and `payload`
/// bytes of payload. The TCP checksum field is left 0.
#[inline(always)]
pub fn emit(slot: &mut [u8], e: &Emit, options: usize, payload: usize) {
    let Some(h) = slot.first_chunk_mut::<{ BELOW + HEADER }>() else { return };
    h[0..6].copy_from_slice(&e.mac_to);
    h[6..12].copy_from_slice(&e.mac_from);
    h[12..14].copy_from_slice(&[8, 0]);
    let total = (20 + HEADER + options + payload) as u16;
    crate::ipv4::emit_marked(&mut h[14..34], e.tos, e.ip_from, e.ip_to, crate::ipv4::TCP, total);
    h[34..36].copy_from_slice(&e.port_from.to_be_bytes());
    h[36..38].copy_from_slice(&e.port_to.to_be_bytes());
    h[38..42].copy_from_slice(&e.seq.0.to_be_bytes());
    h[42..46].copy_from_slice(&e.ack.0.to_be_bytes());
    h[46] = (((HEADER + options) / 4) as u8) << 4;
    h[47] = e.flags;
    h[48..50].copy_from_slice(&e.window.to_be_bytes());
    h[50..54].fill(0);
}

/// Fills in the TCP checksum of a complete frame without options below TCP.
pub fn checksum_in_place(frame: &mut [u8], from: [u8; 4], to: [u8; 4]) {
    let Some((_, tcp)) = frame.split_at_mut_checked(BELOW) else { return };
    let pseudo = checksum::pseudo_v4(from, to, crate::ipv4::TCP, tcp.len() as u16);
    let field = checksum::finish(checksum::add(pseudo, checksum::sum(tcp)));
    if let Some(at) = tcp.get_mut(16..18) {
        at.copy_from_slice(&field);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_a_syn_are_read_and_malformed_ones_end_them() {
        let good = [2, 4, 5, 0xb4, 1, 3, 3, 7, 4, 2, 0];
        assert_eq!(parse_options(&good), SynOptions { mss: Some(1460), shift: Some(7) });
        assert_eq!(parse_options(&[3, 3, 200]).shift, Some(14));
        for bad in [&[2u8, 0, 5, 5][..], &[2, 1, 5, 5], &[2, 40, 5, 5], &[2], &[8, 255]] {
            assert_eq!(parse_options(bad), SynOptions::default(), "{bad:?}");
        }
    }

    #[test]
    fn a_header_that_does_not_fit_is_refused() {
        let mut header = [0u8; 24];
        header[12] = 6 << 4;
        assert!(parse(&header).is_some());
        assert!(parse(&header[..23]).is_none());
        header[12] = 4 << 4;
        assert!(parse(&header).is_none());
        assert!(parse(&[]).is_none());
    }
}
