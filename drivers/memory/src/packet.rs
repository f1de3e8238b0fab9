//! What the card knows of frames: flows, checksums.
use crate::card::Bus;
use crate::segment::segments;
use ix_dataplane::device::{Capabilities, TxFrame};
use ix_dataplane::rss::Toeplitz;
use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

/// Bytes of an Ethernet header.
const HEADER: usize = 14;

/// Reads the pieces of a frame, which is no longer than the card takes.
pub(crate) fn gather(bus: &dyn Bus, frame: &TxFrame, offers: &Capabilities) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in &frame.fragments {
        assert!(fragment.len > 0, "an empty fragment in {frame:?}");
        let at = bytes.len();
        bytes.resize(at + fragment.len as usize, 0);
        bus.read(fragment.bus, &mut bytes[at..]);
    }
    let most = if frame.gso.is_some() { offers.tso } else { offers.mtu };
    let most = HEADER + usize::from(most);
    assert!((HEADER..=most).contains(&bytes.len()), "a frame of {} bytes", bytes.len());
    bytes
}

/// What leaves: the frame with the checksum that is asked for, or its segments.
pub(crate) fn finish(mut bytes: Vec<u8>, frame: &TxFrame) -> Vec<Vec<u8>> {
    if let Some(gso) = frame.gso {
        return segments(&bytes, frame.checksum.expect("wanted with a checksum"), gso);
    }
    if let Some(checksum) = frame.checksum {
        let start = usize::from(checksum.start);
        let at = start + usize::from(checksum.offset);
        assert!(at + 2 <= bytes.len(), "a checksum outside of the frame: {checksum:?}");
        // 0 would say that there is none (RFC 768); for TCP both are the same number.
        let sum = match !sum(&bytes[start..], 0) {
            0 => u16::MAX,
            sum => sum,
        };
        bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    vec![bytes]
}

/// The ones' complement sum of RFC 1071, folded, from a number on.
pub(crate) fn sum(bytes: &[u8], start: u64) -> u16 {
    let words = bytes.chunks(2).map(|c| u64::from(c[0]) << 8 | u64::from(*c.get(1).unwrap_or(&0)));
    let mut sum: u64 = start + words.sum::<u64>();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// What a card sees in a frame.
pub(crate) struct Parsed {
    addresses: (IpAddress, IpAddress),
    ports: Option<(u16, u16)>,
    good: bool,
}

impl Parsed {
    /// IP's header and the transport were both checked, and are right.
    pub fn is_good(&self) -> bool {
        self.good
    }

    /// The hash, of TCP and UDP that are no fragments.
    pub fn hash(&self, toeplitz: &Toeplitz) -> Option<u32> {
        let (source, target) = self.ports?;
        match self.addresses {
            (IpAddress::Ipv4(a), IpAddress::Ipv4(b)) => {
                Some(toeplitz.hash_v4(a.octets(), b.octets(), source, target))
            }
            (IpAddress::Ipv6(a), IpAddress::Ipv6(b)) => {
                Some(toeplitz.hash_v6(a.octets(), b.octets(), source, target))
            }
            _ => None,
        }
    }

    fn transport(mut self, protocol: IpProtocol, payload: &[u8]) -> Option<Parsed> {
        let (source, target) = &self.addresses;
        match protocol {
            IpProtocol::Tcp => {
                let tcp = TcpPacket::new_checked(payload).ok()?;
                self.ports = Some((tcp.src_port(), tcp.dst_port()));
                self.good &= tcp.verify_checksum(source, target);
            }
            IpProtocol::Udp => {
                let udp = UdpPacket::new_checked(payload).ok()?;
                self.ports = Some((udp.src_port(), udp.dst_port()));
                self.good &= udp.verify_checksum(source, target);
            }
            _ => self.good = false,
        }
        Some(self)
    }
}

/// What of a frame is IP.
pub(crate) fn parse(frame: &[u8]) -> Option<Parsed> {
    match *frame.get(12..14)? {
        [8, 0] => {
            let ip = Ipv4Packet::new_checked(&frame[HEADER..]).ok()?;
            let addresses = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
            let parsed = Parsed { addresses, ports: None, good: ip.verify_checksum() };
            if ip.more_frags() || ip.frag_offset() > 0 {
                return Some(Parsed { good: false, ..parsed });
            }
            parsed.transport(ip.next_header(), ip.payload())
        }
        [0x86, 0xdd] => {
            let ip = Ipv6Packet::new_checked(&frame[HEADER..]).ok()?;
            let addresses = (IpAddress::Ipv6(ip.src_addr()), IpAddress::Ipv6(ip.dst_addr()));
            let parsed = Parsed { addresses, ports: None, good: true };
            parsed.transport(ip.next_header(), ip.payload())
        }
        _ => None,
    }
}
