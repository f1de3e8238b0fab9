//! Ethernet: whose frame it is, and what is in it.
use crate::device::RxFrame;
use crate::engine::Engine;
use ix_abi::stats::Drop;

/// Bytes of an Ethernet header.
pub const HEADER: usize = 14;
pub(super) const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
pub(super) const IPV6: [u8; 2] = [0x86, 0xdd];
const BROADCAST: [u8; 6] = [0xff; 6];
/// How the addresses of IPv6's groups begin (RFC 2464 §7).
const GROUP: [u8; 2] = [0x33; 2];

/// Takes a frame, from a queue or from another core.
#[inline]
pub fn handle(engine: &mut Engine, frame: RxFrame) {
    let local = &mut engine.local;
    let Some(bytes) = bytes(local.pool.area().data(&frame.mbuf), &frame) else {
        return drop(engine, frame, Drop::DeviceError);
    };
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        return drop(engine, frame, Drop::Truncated);
    };
    if !concerns(&local.mac, header) {
        return drop(engine, frame, Drop::NotForUs);
    }
    match [header[12], header[13]] {
        IPV4 => super::ipv4::handle(engine, frame),
        ARP => super::arp::handle(engine, frame),
        IPV6 if local.v6.on => super::ipv6::handle(engine, frame),
        _ => drop(engine, frame, Drop::EtherType),
    }
}

/// Whether a frame is to us, or to many.
#[inline(always)]
pub(super) fn concerns(ours: &[u8; 6], header: &[u8; HEADER]) -> bool {
    let to = &header[0..6];
    to == ours || to == BROADCAST || is_group(header)
}

/// Whether a frame is of IPv6, to a group.
#[inline(always)]
fn is_group(header: &[u8; HEADER]) -> bool {
    header[0..2] == GROUP && header[12..14] == IPV6
}

/// The frame's bytes in its buffer.
#[inline(always)]
pub fn bytes<'a>(buffer: &'a [u8], frame: &RxFrame) -> Option<&'a [u8]> {
    let start = usize::from(frame.offset);
    buffer.get(start..start + usize::from(frame.len))
}

/// Counts why, frees the buffers.
#[cold]
pub fn drop(engine: &mut Engine, frame: RxFrame, reason: Drop) {
    engine.local.stats.drop(reason);
    engine.local.pool.free(frame.mbuf);
    frame.rest.free(&mut engine.local.pool);
}
