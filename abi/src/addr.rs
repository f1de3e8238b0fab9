//! Addresses: always 16 bytes, IPv4 mapped (RFC 4291 §2.5.5.2), with a scope for link-local ones.
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An IPv6 address, or an IPv4 address mapped into `::ffff:0:0/96`; network byte order.
#[derive(
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(C)]
pub struct IpAddress(pub [u8; 16]);

impl IpAddress {
    /// `::`, which also stands for "any" and "not set".
    pub const UNSPECIFIED: IpAddress = IpAddress([0; 16]);

    /// Maps an IPv4 address.
    pub const fn v4(octets: [u8; 4]) -> IpAddress {
        let [a, b, c, d] = octets;
        IpAddress([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// The IPv4 address, if this is a mapped one.
    pub const fn to_v4(self) -> Option<[u8; 4]> {
        // In two comparisons: each new connection asks.
        let [high, low] = self.to_words();
        const MAPPED: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        const PREFIX: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        let [.., a, b, c, d] = self.0;
        if high == 0 && low & PREFIX == MAPPED { Some([a, b, c, d]) } else { None }
    }

    /// As two words, the first eight bytes in the first, for the records' word fields.
    pub const fn to_words(self) -> [u64; 2] {
        let b = self.0;
        [
            u64::from_ne_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]),
            u64::from_ne_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]),
        ]
    }

    /// The inverse of [`IpAddress::to_words`].
    pub fn from_words(words: [u64; 2]) -> IpAddress {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&words[0].to_ne_bytes());
        bytes[8..].copy_from_slice(&words[1].to_ne_bytes());
        IpAddress(bytes)
    }
}

impl core::fmt::Display for IpAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.to_v4() {
            Some(octets) => core::net::Ipv4Addr::from(octets).fmt(f),
            None => core::net::Ipv6Addr::from(self.0).fmt(f),
        }
    }
}

impl core::fmt::Debug for IpAddress {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// An address with its port and, for link-local addresses, the scope (interface) id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SocketAddress {
    /// The address.
    pub ip: IpAddress,
    /// The port, in host order.
    pub port: u16,
    /// 0 unless the address is link-local.
    pub scope: u32,
}

impl SocketAddress {
    /// An IPv4 address and port.
    pub const fn v4(octets: [u8; 4], port: u16) -> SocketAddress {
        SocketAddress { ip: IpAddress::v4(octets), port, scope: 0 }
    }

    /// As three record words: the address, then `port | scope << 32`.
    pub const fn to_words(self) -> [u64; 3] {
        let [a, b] = self.ip.to_words();
        [a, b, self.port as u64 | (self.scope as u64) << 32]
    }

    /// The inverse of [`SocketAddress::to_words`]; bits 16..32 of the last word are ignored.
    pub fn from_words(words: [u64; 3]) -> SocketAddress {
        SocketAddress {
            ip: IpAddress::from_words([words[0], words[1]]),
            port: words[2] as u16,
            scope: (words[2] >> 32) as u32,
        }
    }
}
