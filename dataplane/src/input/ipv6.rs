//! IPv6 (RFC 8200): the header's checks, the extension headers, then the protocol. Fragments are
//! [`super::fragments_v6`]'s, but for those that are whole packets.
use super::eth::{self, HEADER as ETHERNET};
use super::fragments_v6::{self, Fragment};
use super::icmpv6;
use super::ipv4::Ip;
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::ipv4::{TCP, UDP};
use crate::ipv6::{self, Address, Fault, HEADER, ICMP, NO_NEXT, problem};
use ix_abi::stats::Drop;

/// What the header says beside [`Ip`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub ip: Ip<Address>,
    pub protocol: u8,
    /// Where the protocol is named, from the header on.
    named_at: usize,
    hops: u8,
}

/// Why a packet goes no further.
pub(super) enum Refused {
    Dropped(Drop),
    Fragment(Fragment),
    /// A parameter problem at `pointer`.
    Problem {
        start: usize,
        end: usize,
        code: u8,
        pointer: u32,
        even_group: bool,
    },
}

/// Takes an IPv6 frame.
#[inline(never)]
pub fn handle(engine: &mut Engine, frame: RxFrame) {
    let Some(whole) = take(engine, frame, true) else { return };
    // A fragment in what was put together is none: nobody cuts a packet twice.
    let _none = take(engine, whole, false);
}

/// Takes a packet, or a fragment if there `may` be one; what it has made whole.
fn take(engine: &mut Engine, frame: RxFrame, may: bool) -> Option<RxFrame> {
    let found = match check(engine, &frame, 0) {
        Err(Refused::Fragment(fragment)) if may => {
            return fragments_v6::handle(engine, frame, &fragment);
        }
        Err(Refused::Fragment(_)) => Err(Refused::Dropped(Drop::IpFragment)),
        found => found,
    };
    packet(engine, frame, found);
    None
}

fn packet(engine: &mut Engine, mut frame: RxFrame, found: Result<Found, Refused>) {
    let found = match found {
        Ok(found) => found,
        Err(Refused::Fragment(_)) => return eth::drop(engine, frame, Drop::IpFragment),
        Err(Refused::Dropped(reason)) => return eth::drop(engine, frame, reason),
        Err(Refused::Problem { start, end, code, pointer, even_group }) => {
            engine.local.stats.drop(Drop::Ipv6Extension);
            let place = (start, end);
            icmpv6::problem(&mut engine.local, &frame, place, (code, pointer), even_group);
            return engine.local.pool.free(frame.mbuf);
        }
    };
    let Found { ip, protocol, named_at, hops } = found;
    if ip.payload - ip.start != HEADER {
        // A port may have hashed something else than we would.
        frame.hash = None;
    }
    match protocol {
        TCP if ip.unicast => super::transport::tcp(engine, frame, &ip),
        UDP => super::transport::udp(engine, frame, &ip),
        ICMP => icmpv6::handle(engine, frame, &ip, hops),
        NO_NEXT | TCP => eth::drop(engine, frame, Drop::IpProtocol),
        _ => {
            engine.local.stats.drop(Drop::IpProtocol);
            let place = (ip.start, ip.payload + ip.len);
            let what = (problem::NEXT_HEADER, named_at as u32);
            icmpv6::problem(&mut engine.local, &frame, place, what, false);
            engine.local.pool.free(frame.mbuf);
        }
    }
}

/// Checks the headers of a frame that goes on for `beyond` bytes behind its first buffer, which holds them all.
pub(super) fn check(engine: &Engine, frame: &RxFrame, beyond: usize) -> Result<Found, Refused> {
    let local = &engine.local;
    let dropped = |reason| Err(Refused::Dropped(reason));
    let start = usize::from(frame.offset) + ETHERNET;
    let end = usize::from(frame.offset) + usize::from(frame.len);
    let packet = local.pool.area().data(&frame.mbuf).get(start..end);
    let Some((packet, h)) = packet.and_then(|p| Some((p, p.first_chunk::<HEADER>()?))) else {
        return dropped(Drop::Truncated);
    };
    if h[0] >> 4 != 6 {
        return dropped(Drop::IpMalformed);
    }
    // Behind a length of 0 there would be a jumbogram (RFC 2675), for which there are no buffers.
    let total = HEADER + usize::from(u16::from_be_bytes([h[4], h[5]]));
    if total > packet.len() + beyond {
        return dropped(Drop::Truncated);
    }
    let packet = &packet[..total.min(packet.len())];
    let [_, _, _, _, _, _, next, hops, addresses @ ..] = h;
    let (source, destination) = split(addresses);
    let slot = local.v6.slot_of(&destination);
    let unicast = slot != 0;
    if !unicast && !may_concern(&destination) {
        return dropped(Drop::NotForUs);
    }
    // From nowhere come only questions of hosts that have no address yet.
    let nobody =
        source == ipv6::UNSPECIFIED && *next == ICMP || is_listener_report(&source, packet);
    if !nobody && (!ipv6::is_host(&source) || local.v6.slot_of(&source) != 0) {
        return dropped(Drop::IpMalformed);
    }
    let ip = |at: usize| Ip {
        source,
        destination,
        local: slot,
        start,
        payload: start + at,
        len: total - at,
        tos: h[0] << 4 | h[1] >> 4,
        unicast,
    };
    if matches!(*next, TCP | UDP | ICMP) {
        return Ok(Found { ip: ip(HEADER), protocol: *next, named_at: 6, hops: *hops });
    }
    match ipv6::walk(packet) {
        Ok(ipv6::Payload { protocol, at, fragment: Some((offset, more, id)), .. }) => {
            let (payload, len) = (start + at, total - at);
            let last = !more;
            let f = Fragment { source, destination, protocol, id, offset, last, payload, len };
            Err(if unicast { Refused::Fragment(f) } else { Refused::Dropped(Drop::IpFragment) })
        }
        Ok(ipv6::Payload { protocol, at, named_at, fragment: None }) => {
            Ok(Found { ip: ip(at), protocol, named_at, hops: *hops })
        }
        Err(Fault::Truncated) => dropped(Drop::Truncated),
        Err(Fault::TooMany | Fault::Discard) => dropped(Drop::Ipv6Extension),
        Err(Fault::Problem { code, pointer, even_group }) => {
            let end = start + total;
            Err(Refused::Problem { start, end, code, pointer, even_group })
        }
    }
}

/// Source and destination.
fn split(addresses: &[u8; 32]) -> (Address, Address) {
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source.copy_from_slice(&addresses[..16]);
    destination.copy_from_slice(&addresses[16..]);
    (source, destination)
}

/// All nodes' group, or one of solicitations: whose, neighbour discovery sees by the target, which may
/// be an address that is not in use yet.
fn may_concern(group: &Address) -> bool {
    let solicited = group[..13] == [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff];
    *group == ipv6::ALL_NODES || solicited
}

/// Reports of those who have no address yet come behind a hop-by-hop header (RFC 3810 §5.2.13).
fn is_listener_report(source: &Address, packet: &[u8]) -> bool {
    *source == ipv6::UNSPECIFIED && packet.get(6) == Some(&0) && packet.get(HEADER) == Some(&ICMP)
}
