//! What differs between IPv4 and IPv6 for the protocols above: compiled for each, so that neither pays
//! for the other.
use crate::local::Local;
use crate::rss::Toeplitz;
use crate::{checksum, ipv4, ipv6};
use core::fmt::Debug;
use ix_abi::IpAddress;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET: usize = 14;

/// An address of one family, and with it the family.
pub trait Family: Copy + Eq + Debug {
    /// Of the protocol.
    const VERSION: u8;
    /// Bytes of the IP header that we write.
    const HEADER: usize;
    /// Bytes of Ethernet and IP headers, as we send them.
    const BELOW: usize = ETHERNET + Self::HEADER;
    /// In the Ethernet header.
    const ETHERTYPE: [u8; 2];

    /// Our address in a slot (see [`crate::addresses`]).
    fn own(local: &Local, slot: u8) -> Self;
    /// As tables and the ABI have it.
    fn to_ip(self) -> IpAddress;
    /// The inverse, for an address that is known to be of this family.
    fn from_ip(ip: IpAddress) -> Self;
    /// The hash of a received packet.
    fn hash(toeplitz: &Toeplitz, from: Self, to: Self, ports: (u16, u16)) -> u32;
    /// The pseudo-header's partial sum.
    fn pseudo(from: Self, to: Self, protocol: u8, len: u16) -> u64;
    /// Writes the header of a packet with `payload` bytes behind it; `bits` are the
    /// type of service or traffic class, and IPv6's hop limit.
    fn emit(h: &mut [u8], from: Self, to: Self, protocol: u8, payload: u16, bits: (u8, u8));
}

impl Family for [u8; 4] {
    const VERSION: u8 = 4;
    const HEADER: usize = ipv4::HEADER;
    const ETHERTYPE: [u8; 2] = [0x08, 0x00];

    #[inline(always)]
    fn own(local: &Local, _: u8) -> [u8; 4] {
        local.address
    }

    #[inline(always)]
    fn to_ip(self) -> IpAddress {
        IpAddress::v4(self)
    }

    #[inline(always)]
    fn from_ip(ip: IpAddress) -> [u8; 4] {
        let [.., a, b, c, d] = ip.0;
        [a, b, c, d]
    }

    #[inline(always)]
    fn hash(toeplitz: &Toeplitz, from: Self, to: Self, ports: (u16, u16)) -> u32 {
        toeplitz.hash_v4(from, to, ports.0, ports.1)
    }

    #[inline(always)]
    fn pseudo(from: Self, to: Self, protocol: u8, len: u16) -> u64 {
        checksum::pseudo_v4(from, to, protocol, len)
    }

    #[inline(always)]
    fn emit(h: &mut [u8], from: Self, to: Self, protocol: u8, payload: u16, bits: (u8, u8)) {
        ipv4::emit_marked(h, bits.0, from, to, protocol, payload + ipv4::HEADER as u16);
    }
}

impl Family for [u8; 16] {
    const VERSION: u8 = 6;
    const HEADER: usize = ipv6::HEADER;
    const ETHERTYPE: [u8; 2] = [0x86, 0xdd];

    #[inline(always)]
    fn own(local: &Local, slot: u8) -> [u8; 16] {
        local.v6.address(slot)
    }

    #[inline(always)]
    fn to_ip(self) -> IpAddress {
        IpAddress(self)
    }

    #[inline(always)]
    fn from_ip(ip: IpAddress) -> [u8; 16] {
        ip.0
    }

    #[inline(always)]
    fn hash(toeplitz: &Toeplitz, from: Self, to: Self, ports: (u16, u16)) -> u32 {
        toeplitz.hash_v6(from, to, ports.0, ports.1)
    }

    #[inline(always)]
    fn pseudo(from: Self, to: Self, protocol: u8, len: u16) -> u64 {
        checksum::pseudo_v6(&from, &to, protocol, len)
    }

    #[inline(always)]
    fn emit(h: &mut [u8], from: Self, to: Self, protocol: u8, payload: u16, bits: (u8, u8)) {
        ipv6::emit(h, &from, &to, protocol, payload, bits.1);
        if bits.0 != 0 {
            ipv6::mark(h, bits.0);
        }
    }
}
