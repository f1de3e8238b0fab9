//! TCP segments as they are on the wire: read by the referee, written by the forger.
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, TcpPacket};

/// Bits of the flags field.
pub mod flag {
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// A segment.
#[derive(Clone, Debug, Default)]
pub struct Segment {
    /// Addresses.
    pub ips: ([u8; 4], [u8; 4]),
    /// Ports.
    pub ports: (u16, u16),
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`flag`]s.
    pub flags: u8,
    /// The window field.
    pub window: u16,
    /// Options, where they are there.
    pub mss: Option<u16>,
    /// See `mss`.
    pub shift: Option<u8>,
    /// See `mss`.
    pub sack_permitted: bool,
    /// TSval and TSecr.
    pub ts: Option<(u32, u32)>,
    /// SACK blocks.
    pub sacks: Vec<(u32, u32)>,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Segment {
    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

fn be16(bytes: &[u8]) -> u16 {
    u16::from_be_bytes([bytes[0], bytes[1]])
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The segment in a frame, if there is one. Not looked at: checksums.
pub fn parse(frame: &[u8]) -> Option<Segment> {
    if *frame.get(12..14)? != [8, 0] {
        return None;
    }
    let ip = frame.get(14..)?;
    let header = usize::from(*ip.first()? & 15) * 4;
    let total = usize::from(be16(ip.get(2..4)?));
    if *ip.get(9)? != 6 || header < 20 {
        return None;
    }
    let tcp = ip.get(header..total)?;
    let data = usize::from(*tcp.get(12)? >> 4) * 4;
    let payload = tcp.get(data..).filter(|_| data >= 20)?.to_vec();
    let mut segment = Segment {
        ips: (ip[12..16].try_into().ok()?, ip[16..20].try_into().ok()?),
        ports: (be16(&tcp[0..2]), be16(&tcp[2..4])),
        seq: be32(&tcp[4..8]),
        ack: be32(&tcp[8..12]),
        flags: tcp[13],
        window: be16(&tcp[14..16]),
        payload,
        ..Segment::default()
    };
    options(&tcp[20..data], &mut segment);
    Some(segment)
}

fn options(mut bytes: &[u8], segment: &mut Segment) {
    while let Some(&kind) = bytes.first() {
        let len = match (kind, bytes.get(1)) {
            (0, _) => return,
            (1, _) => 1,
            (_, Some(len)) => usize::from(*len),
            (_, None) => return,
        };
        let Some((option, rest)) = bytes.split_at_checked(len.max(1)) else { return };
        bytes = rest;
        match option {
            [2, 4, a, b] => segment.mss = Some(be16(&[*a, *b])),
            [3, 3, shift] => segment.shift = Some(*shift),
            [4, 2] => segment.sack_permitted = true,
            [5, _, blocks @ ..] => {
                let block = |b: &[u8]| (be32(&b[0..4]), be32(&b[4..8]));
                segment.sacks = blocks.chunks_exact(8).map(block).collect();
            }
            [8, 10, times @ ..] => segment.ts = Some((be32(&times[0..4]), be32(&times[4..8]))),
            [kind, 0, ..] if *kind > 1 => return,
            _ => {}
        }
    }
}

/// Whether both checksums of a TCP frame are right.
pub fn intact(frame: &[u8]) -> bool {
    let Some(ip) = frame.get(14..).and_then(|ip| Ipv4Packet::new_checked(ip).ok()) else {
        return false;
    };
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    ip.verify_checksum()
        && ip.next_header() == IpProtocol::Tcp
        && TcpPacket::new_checked(ip.payload()).is_ok_and(|tcp| tcp.verify_checksum(&src, &dst))
}

/// A frame with a segment in it, checksums and all. Its options are timestamps and SACK blocks.
pub fn emit(macs: ([u8; 6], [u8; 6]), segment: &Segment) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some((value, echo)) = segment.ts {
        options.extend([1, 1, 8, 10]);
        options.extend(value.to_be_bytes());
        options.extend(echo.to_be_bytes());
    }
    if !segment.sacks.is_empty() {
        options.extend([1, 1, 5, 2 + 8 * segment.sacks.len() as u8]);
        for (from, to) in &segment.sacks {
            options.extend(from.to_be_bytes());
            options.extend(to.to_be_bytes());
        }
    }
    let tcp_len = 20 + options.len() + segment.payload.len();
    let mut frame = Vec::with_capacity(34 + tcp_len);
    frame.extend(macs.1);
    frame.extend(macs.0);
    frame.extend([8, 0, 0x45, 0]);
    frame.extend((20 + tcp_len as u16).to_be_bytes());
    frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend(segment.ips.0);
    frame.extend(segment.ips.1);
    frame.extend(segment.ports.0.to_be_bytes());
    frame.extend(segment.ports.1.to_be_bytes());
    frame.extend(segment.seq.to_be_bytes());
    frame.extend(segment.ack.to_be_bytes());
    frame.extend([((20 + options.len()) as u8 / 4) << 4, segment.flags]);
    frame.extend(segment.window.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(options);
    frame.extend(&segment.payload);
    fill_checksums(&mut frame);
    frame
}

/// Makes both checksums of a TCP frame right.
pub fn fill_checksums(frame: &mut [u8]) {
    let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
    ip.fill_checksum();
    let (src, dst) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
    TcpPacket::new_unchecked(ip.payload_mut()).fill_checksum(&src, &dst);
}

/// Puts a segment's only option, a timestamp, where everybody but smoltcp puts it: behind two bytes of padding, so that its
/// words are aligned (RFC 7323, appendix A).
pub fn align_timestamp(frame: &mut [u8]) {
    const OPTIONS: usize = 54;
    const WORDS: u8 = 8 << 4;
    let plain = frame.len() >= OPTIONS + 12 && frame[12..15] == [8, 0, 0x45] && frame[23] == 6;
    if plain && frame[46] & 0xf0 == WORDS && frame[OPTIONS..OPTIONS + 2] == [8, 10] {
        frame.copy_within(OPTIONS..OPTIONS + 10, OPTIONS + 2);
        frame[OPTIONS..OPTIONS + 2].fill(1);
        fill_checksums(frame);
    }
}

/// Marks a frame as having met congestion, if its sender said that it understands that (RFC 3168
/// §5); whether it did.
pub fn mark(frame: &mut [u8]) -> bool {
    if frame.len() < 34 || frame[12..14] != [8, 0] || !matches!(frame[15] & 3, 1 | 2) {
        return false;
    }
    frame[15] |= 3;
    Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_wherever_they_lie() {
        let mut segment = Segment::default();
        options(&[2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7], &mut segment);
        assert_eq!(
            (segment.mss, segment.shift, segment.sack_permitted),
            (Some(1460), Some(7), true)
        );
        assert_eq!(segment.ts, Some((1, 2)));
        for broken in [&[3][..], &[3, 0], &[3, 9, 1], &[1, 1, 8], &[0, 2, 4]] {
            options(broken, &mut Segment::default());
        }
    }

    #[test]
    fn a_timestamp_is_aligned_and_still_the_same() {
        let ips = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let segment =
            Segment { ips, ts: Some((6, 7)), payload: vec![1, 2, 3], ..Segment::default() };
        let aligned = emit(([2; 6], [4; 6]), &segment);
        let mut frame = aligned.clone();
        frame.copy_within(56..66, 54);
        frame[64..66].fill(0);
        fill_checksums(&mut frame);
        assert_ne!(frame, aligned);
        align_timestamp(&mut frame);
        assert_eq!(frame, aligned);
        align_timestamp(&mut frame);
        assert_eq!(frame, aligned);
    }

    #[test]
    fn what_is_emitted_is_read_back() {
        let segment = Segment {
            ips: ([10, 0, 0, 1], [10, 0, 0, 2]),
            ports: (1, 2),
            seq: 3,
            ack: 4,
            flags: flag::ACK,
            window: 5,
            ts: Some((6, 7)),
            sacks: vec![(8, 9), (10, 11)],
            payload: vec![1, 2, 3],
            ..Segment::default()
        };
        let frame = emit(([2; 6], [4; 6]), &segment);
        assert!(intact(&frame));
        assert_eq!(format!("{:?}", parse(&frame).unwrap()), format!("{segment:?}"));
        let mut wrong = frame;
        wrong[60] ^= 1;
        assert!(!intact(&wrong));
    }
}
