//! Frames in several buffers: jumbo frames, and TCP segments that the device has merged (large receive). All
//! headers are in the first buffer, or the frame is dropped. TCP payload goes to the application from where it
//! is, a `recv` for each buffer; other protocols have no use for a payload in pieces.
use super::eth::{self, HEADER as ETHERNET};
use super::ipv4::{self, Ip};
use super::ipv6::{self, Found, Refused};
use super::transport;
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::family::Family;
use crate::ipv4::TCP;
use crate::limits::FRAME_BUFFERS_MAX;
use crate::tcp;
use ix_abi::stats::{Counter, Drop};

/// Takes a frame that has further buffers.
#[cold]
#[inline(never)]
pub fn handle(engine: &mut Engine, frame: RxFrame) {
    let local = &mut engine.local;
    let area = local.pool.area();
    let (mut beyond, mut buffers) = (0, 1);
    for piece in frame.rest.pieces(area) {
        beyond += piece.len();
        buffers += 1;
        if piece.is_empty() || buffers > FRAME_BUFFERS_MAX {
            return eth::drop(engine, frame, Drop::DeviceError);
        }
    }
    local.stats.add(Counter::RxBytes, beyond as u64);
    let Some(bytes) = eth::bytes(area.data(&frame.mbuf), &frame) else {
        return eth::drop(engine, frame, Drop::DeviceError);
    };
    let Some(header) = bytes.first_chunk::<ETHERNET>() else {
        return eth::drop(engine, frame, Drop::SpansBuffers);
    };
    if !eth::concerns(&local.mac, header) {
        return eth::drop(engine, frame, Drop::NotForUs);
    }
    match [header[12], header[13]] {
        eth::IPV4 => match ipv4::check(engine, &frame, beyond) {
            Ok((ip, TCP)) if ip.unicast => tcp(engine, frame, &ip),
            Ok(_) | Err(Drop::IpFragment) => eth::drop(engine, frame, Drop::SpansBuffers),
            Err(reason) => eth::drop(engine, frame, reason),
        },
        eth::IPV6 if local.v6.on => match ipv6::check(engine, &frame, beyond) {
            Ok(Found { ip, protocol: TCP, .. }) if ip.unicast => tcp(engine, frame, &ip),
            Err(Refused::Dropped(reason)) => eth::drop(engine, frame, reason),
            _ => eth::drop(engine, frame, Drop::SpansBuffers),
        },
        _ => eth::drop(engine, frame, Drop::EtherType),
    }
}

/// As [`transport::tcp`], of which this differs in where the bytes are.
fn tcp<A: Family>(engine: &mut Engine, mut frame: RxFrame, ip: &Ip<A>) {
    let local = &mut engine.local;
    let area = local.pool.area();
    // Of the segment what the first buffer has: all of it, where the rest is padding.
    let end = usize::from(frame.offset + frame.len).min(ip.payload + ip.len);
    let segment = area.data(&frame.mbuf).get(ip.payload..end);
    let Some((segment, fields)) = segment.and_then(|s| Some((s, tcp::wire::parse(s)?))) else {
        return eth::drop(engine, frame, Drop::TcpMalformed);
    };
    let ports = (fields.source_port, fields.destination_port);
    let (hash, id) = transport::whose(local, &mut frame, ip, ports);
    let Some(group) = engine.groups.get_mut(id).and_then(Option::as_mut) else {
        return transport::steer_to_owner(engine, frame, id);
    };
    if frame.checksum == RxChecksum::Unknown && !intact(segment, frame.rest.pieces(area), ip) {
        return eth::drop(engine, frame, Drop::TcpChecksum);
    }
    let packet = transport::packet(frame.offset, ip, segment, &fields, hash);
    local.stats.add(Counter::RxChains, 1);
    if frame.merged != 0 {
        let segments = packet.len.div_ceil(frame.merged).max(1);
        local.stats.add(Counter::RxMerged, u64::from(segments));
    }
    local.rest = frame.rest;
    local.rest_from = end as u16;
    local.rest_merged = frame.merged;
    tcp::input::handle(group, local, &packet, frame.mbuf);
    let unused = local.rest.take();
    unused.free(&mut local.pool);
}

/// Whether the checksum is right of a segment that begins with `first` and goes on in `rest`, which may end later
/// than the segment.
fn intact<'a, A: Family>(first: &[u8], rest: impl Iterator<Item = &'a [u8]>, ip: &Ip<A>) -> bool {
    let mut left = ip.len - first.len();
    let mut odd = !first.len().is_multiple_of(2);
    let pseudo = A::pseudo(ip.source, ip.destination, TCP, ip.len as u16);
    let mut sum = checksum::add(pseudo, checksum::sum(first));
    for piece in rest {
        let piece = &piece[..piece.len().min(left)];
        left -= piece.len();
        let part = checksum::sum(piece);
        sum = checksum::add(sum, if odd { checksum::at_odd_offset(part) } else { part });
        odd ^= !piece.len().is_multiple_of(2);
    }
    left == 0 && checksum::is_good(sum)
}
