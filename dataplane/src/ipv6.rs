//! IPv6: headers that we write (RFC 8200 §3), kinds of addresses (RFC 4291), and the walk along the
//! extension headers of a packet, which trusts nothing and has an end.
use crate::limits::{EXTENSION_BYTES_MAX, EXTENSION_HEADERS_MAX, EXTENSION_OPTIONS_MAX};

#[cfg(test)]
mod tests;

/// Bytes of the fixed header.
pub const HEADER: usize = 40;
/// Next-header number of ICMPv6.
pub const ICMP: u8 = 58;
/// Nothing follows (RFC 8200 §4.7).
pub const NO_NEXT: u8 = 59;
/// What every link must carry (RFC 8200 §5).
pub const MTU_MIN: u16 = 1280;
/// Hop limit of what must come from this link (RFC 4861 §3.1).
pub const HOPS_ON_LINK: u8 = 255;

/// An address in network order.
pub type Address = [u8; 16];

/// `::`.
pub const UNSPECIFIED: Address = [0; 16];
/// `ff02::1`.
pub const ALL_NODES: Address = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
/// `ff02::2`.
pub const ALL_ROUTERS: Address = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
/// `fe80::/64`, where link-local addresses are made.
pub const LINK_LOCAL: Address = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Codes of an ICMPv6 parameter problem (RFC 4443 §3.4).
pub mod problem {
    /// A field that makes no sense.
    pub const FIELD: u8 = 0;
    /// A next header that nobody here takes.
    pub const NEXT_HEADER: u8 = 1;
    /// An option that nobody here knows, and that says that this is an error.
    pub const OPTION: u8 = 2;
}

/// Whether an address is a group's.
#[inline(always)]
pub const fn is_multicast(a: &Address) -> bool {
    a[0] == 0xff
}

/// Whether an address is of the link only: `fe80::/10`.
#[inline(always)]
pub const fn is_link_local(a: &Address) -> bool {
    a[0] == 0xfe && a[1] & 0xc0 == 0x80
}

/// Whether an address may be a host's on the wire: not `::`, `::1`, a group, or an IPv4 address in
/// disguise, which would pass for one in the tables (RFC 4291 §2.5.5).
#[inline]
pub fn is_host(a: &Address) -> bool {
    let mapped_or_low = a[..10] == [0; 10]
        && (a[10..12] == [0xff; 2] || (a[10..12] == [0; 2] && a[12..15] == [0; 3] && a[15] <= 1));
    !is_multicast(a) && !mapped_or_low
}

/// The group that a host with this address listens to for solicitations (RFC 4291 §2.7.1).
pub const fn solicited_node(a: &Address) -> Address {
    [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a[13], a[14], a[15]]
}

/// The Ethernet address of a group (RFC 2464 §7).
pub const fn group_mac(a: &Address) -> [u8; 6] {
    [0x33, 0x33, a[12], a[13], a[14], a[15]]
}

/// How far an address reaches, for comparisons only (RFC 6724 §3.1).
pub const fn scope(a: &Address) -> u8 {
    match a {
        [0xff, flags_and_scope, ..] => *flags_and_scope & 15,
        _ if is_link_local(a) => 2,
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] => 2,
        // Site-local, deprecated and still in use by emulators (RFC 3879).
        [0xfe, second, ..] if *second & 0xc0 == 0xc0 => 5,
        _ => 14,
    }
}

/// Leading bits that two addresses share.
pub const fn common_prefix(a: &Address, b: &Address) -> u32 {
    (u128::from_be_bytes(*a) ^ u128::from_be_bytes(*b)).leading_zeros()
}

/// Whether an address lies in a prefix.
pub fn in_prefix(a: &Address, prefix: &Address, len: u8) -> bool {
    common_prefix(a, prefix) >= u32::from(len)
}

/// Writes a header in front of `payload` bytes.
#[inline(always)]
pub fn emit(h: &mut [u8], from: &Address, to: &Address, next: u8, payload: u16, hops: u8) {
    let Some(h) = h.first_chunk_mut::<HEADER>() else { return };
    let [high, low] = payload.to_be_bytes();
    h[0..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, next, hops]);
    h[8..24].copy_from_slice(from);
    h[24..40].copy_from_slice(to);
}

/// Sets the traffic class of a header (RFC 8200 §7).
pub fn mark(h: &mut [u8], class: u8) {
    if let Some(first) = h.first_chunk_mut::<2>() {
        *first = [0x60 | class >> 4, class << 4];
    }
}

/// What lies behind the extension headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Its protocol.
    pub protocol: u8,
    /// Where it begins, from the IPv6 header on.
    pub at: usize,
    /// Where the byte lies that names the protocol.
    pub named_at: usize,
    /// The packet is a fragment: offset in units of 8 bytes, whether more follow, identification.
    pub fragment: Option<(u16, bool, u32)>,
}

/// Why a packet goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Shorter than its headers say.
    Truncated,
    /// More extension headers, options or bytes of them than anybody needs (RFC 8504 §5.3).
    TooMany,
    /// An option that says so (RFC 8200 §4.2).
    Discard,
    /// The sender is to be told.
    Problem {
        /// Of [`problem`].
        code: u8,
        /// Where it is, from the IPv6 header on.
        pointer: u32,
        /// Also if the packet went to a group (RFC 4443 §2.4 e.3).
        even_group: bool,
    },
}

/// Follows the extension headers of a packet, which begins with its fixed header.
pub fn walk(packet: &[u8]) -> Result<Payload, Fault> {
    let mut protocol = *packet.get(6).ok_or(Fault::Truncated)?;
    let (mut at, mut named_at) = (HEADER, 6);
    let mut options_left = EXTENSION_OPTIONS_MAX;
    for _ in 0..=EXTENSION_HEADERS_MAX {
        let known = matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION);
        if !known {
            return Ok(Payload { protocol, at, named_at, fragment: None });
        }
        let head = packet.get(at..).and_then(|rest| rest.first_chunk::<8>());
        let head = head.ok_or(Fault::Truncated)?;
        let problem = |code, at| Fault::Problem { code, pointer: at as u32, even_group: false };
        let len = if protocol == FRAGMENT { 8 } else { (usize::from(head[1]) + 1) * 8 };
        let body = packet.get(at + 2..at + len).ok_or(Fault::Truncated)?;
        if at + len > HEADER + EXTENSION_BYTES_MAX {
            return Err(Fault::TooMany);
        }
        match protocol {
            // Only directly behind the fixed header (RFC 8200 §4.1).
            HOP_BY_HOP if at != HEADER => return Err(problem(problem::NEXT_HEADER, named_at)),
            HOP_BY_HOP | DESTINATION => options(body, at + 2, &mut options_left)?,
            // Type 0 is refused (RFC 5095), and so is every other that wants us to forward.
            ROUTING if head[3] != 0 => return Err(problem(problem::FIELD, at + 2)),
            ROUTING => {}
            _ => {
                let place = u16::from_be_bytes([head[2], head[3]]);
                // One that is alone is a whole packet (RFC 6946).
                if place & 0xfff9 != 0 {
                    let id = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
                    let fragment = Some((place >> 3, place & 1 == 1, id));
                    return Ok(Payload { protocol: head[0], at: at + len, named_at: at, fragment });
                }
            }
        }
        protocol = head[0];
        named_at = at;
        at += len;
    }
    Err(Fault::TooMany)
}

/// The options of a hop-by-hop or destination header (RFC 8200 §4.2). None is known but padding and the
/// router alert, which is skipped as its number asks of those who do not know it.
fn options(mut body: &[u8], mut at: usize, left: &mut usize) -> Result<(), Fault> {
    while let [kind, rest @ ..] = body {
        if *kind == 0 {
            body = rest;
            at += 1;
            continue;
        }
        let Some((len, rest)) = rest.split_first() else { return Err(Fault::Truncated) };
        body = rest.get(usize::from(*len)..).ok_or(Fault::Truncated)?;
        if *kind != 1 {
            *left = left.checked_sub(1).ok_or(Fault::TooMany)?;
            let pointer = at as u32;
            match kind >> 6 {
                0 => {}
                1 => return Err(Fault::Discard),
                what => {
                    let even_group = what == 2;
                    return Err(Fault::Problem { code: problem::OPTION, pointer, even_group });
                }
            }
        }
        at += 2 + usize::from(*len);
    }
    Ok(())
}
