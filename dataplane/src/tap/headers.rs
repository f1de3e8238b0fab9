//! What a packet says of itself, as far as filters and the trace ask. The tap sees packets before any
//! check: nothing is trusted but the slice's length.
use crate::family::Family;
use crate::ipv4::{TCP, UDP};
use crate::ipv6;
use crate::rss::Toeplitz;
use ix_abi::IpAddress;
use ix_abi::capture::{Direction, Filter};

/// EtherTypes.
pub const IPV4: u16 = 0x0800;
/// See above.
pub const IPV6: u16 = 0x86dd;
/// See above.
pub const ARP: u16 = 0x0806;

/// A packet's headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// EtherType; 0 if the frame is too short for one.
    pub ether: u16,
    /// IP protocol number; meaningful if `ether` is IPv4 or IPv6.
    pub protocol: u8,
    /// The sender: IP, or ARP's.
    pub source: Option<IpAddress>,
    /// The receiver: IP, or whom ARP asks for.
    pub destination: Option<IpAddress>,
    /// Source and destination port, of TCP and UDP.
    pub ports: Option<(u16, u16)>,
    /// Where the transport header begins.
    pub transport: usize,
    /// Where the IP packet ends, at most the frame's length.
    pub end: usize,
    /// Not a whole datagram: what looks like a transport header may be none.
    pub fragment: bool,
}

impl Headers {
    /// The hash of a received TCP segment or datagram, by which it belongs to a flow group.
    pub fn hash_received(&self, toeplitz: &Toeplitz) -> Option<u32> {
        self.hash(toeplitz, Direction::In)
    }

    /// The same, whichever way it goes.
    pub fn hash(&self, toeplitz: &Toeplitz, direction: Direction) -> Option<u32> {
        let (from, to) = self.ports.filter(|_| self.protocol == TCP || self.protocol == UDP)?;
        let (source, destination) = (self.source?, self.destination?);
        let (peer, ours, ports) = match direction {
            Direction::Out => (destination, source, (to, from)),
            _ => (source, destination, (from, to)),
        };
        Some(match (peer.to_v4(), ours.to_v4()) {
            (Some(peer), Some(ours)) => <[u8; 4]>::hash(toeplitz, peer, ours, ports),
            _ => <[u8; 16]>::hash(toeplitz, peer.0, ours.0, ports),
        })
    }

    /// Reads a frame.
    pub fn parse(frame: &[u8]) -> Headers {
        let mut h = Headers { end: frame.len(), transport: frame.len(), ..Headers::default() };
        let Some(&[high, low]) = frame.get(12..14) else { return h };
        h.ether = u16::from_be_bytes([high, low]);
        match h.ether {
            IPV4 => h.parse_v4(frame),
            IPV6 => h.parse_v6(frame),
            ARP => h.parse_arp(frame),
            _ => None,
        };
        h
    }

    fn parse_v4(&mut self, frame: &[u8]) -> Option<()> {
        let ip = frame.get(14..)?;
        let fixed = ip.first_chunk::<20>()?;
        let [.., s0, s1, s2, s3, d0, d1, d2, d3] = *fixed;
        self.protocol = fixed[9];
        self.source = Some(IpAddress::v4([s0, s1, s2, s3]));
        self.destination = Some(IpAddress::v4([d0, d1, d2, d3]));
        self.transport = (14 + usize::from(fixed[0] & 15) * 4).min(frame.len());
        let total = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        self.end = (14 + total).clamp(self.transport, frame.len());
        self.fragment = u16::from_be_bytes([fixed[6], fixed[7]]) & 0x3fff != 0;
        self.parse_ports(frame)
    }

    /// Extension headers are followed as far as the engine follows them.
    fn parse_v6(&mut self, frame: &[u8]) -> Option<()> {
        let fixed = frame.get(14..)?.first_chunk::<40>()?;
        self.source = fixed.get(8..24)?.first_chunk().copied().map(IpAddress);
        self.destination = fixed.get(24..40)?.first_chunk().copied().map(IpAddress);
        let payload = usize::from(u16::from_be_bytes([fixed[4], fixed[5]]));
        self.end = (54 + payload).min(frame.len());
        (self.protocol, self.transport) = (fixed[6], 54);
        // Beyond what cannot be followed nothing is known, not even the protocol.
        let found = ipv6::walk(frame.get(14..self.end)?).ok()?;
        self.protocol = found.protocol;
        self.transport = (14 + found.at).min(self.end);
        self.fragment = found.fragment.is_some();
        match found.fragment {
            Some((offset, ..)) if offset > 0 => None,
            _ => self.parse_ports(frame),
        }
    }

    fn parse_ports(&mut self, frame: &[u8]) -> Option<()> {
        let first = u16::from_be_bytes([*frame.get(20)?, *frame.get(21)?]) & 0x1fff == 0;
        if !matches!(self.protocol, 6 | 17) || (self.ether == IPV4 && !first) {
            return None;
        }
        let &[s0, s1, d0, d1] = frame.get(self.transport..self.end)?.first_chunk::<4>()?;
        self.ports = Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])));
        Some(())
    }

    fn parse_arp(&mut self, frame: &[u8]) -> Option<()> {
        let arp = frame.get(14..)?.first_chunk::<28>()?;
        if arp[..6] == [0, 1, 8, 0, 6, 4] {
            self.source = Some(IpAddress::v4(*arp[14..].first_chunk()?));
            self.destination = Some(IpAddress::v4(*arp[24..].first_chunk()?));
        }
        Some(())
    }

    /// Whether the filter lets it through, its flow group aside.
    pub fn match_filter(&self, filter: &Filter, direction: Direction) -> bool {
        let way = filter.direction == Direction::Both || filter.direction == direction;
        way && filter.protocol.is_none_or(|wanted| self.has_protocol(wanted))
            && filter.port.is_none_or(|wanted| {
                self.ports.is_some_and(|(from, to)| from == wanted || to == wanted)
            })
            && filter.address.is_none_or(|(prefix, length)| {
                let within = |a: Option<IpAddress>| a.is_some_and(|a| in_prefix(a, prefix, length));
                within(self.source) || within(self.destination)
            })
    }

    fn has_protocol(&self, wanted: u16) -> bool {
        if wanted >= 0x600 {
            return self.ether == wanted;
        }
        matches!(self.ether, IPV4 | IPV6) && u16::from(self.protocol) == wanted
    }
}

fn in_prefix(address: IpAddress, prefix: IpAddress, length: u8) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
    (u128::from_be_bytes(address.0) ^ u128::from_be_bytes(prefix.0)) & mask == 0
}
