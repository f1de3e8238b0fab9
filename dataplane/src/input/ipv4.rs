//! IPv4 (RFC 791): the header's checks, then the protocol. Options are skipped; fragments are
//! [`super::fragments`]'s.
use super::eth::{self, HEADER as ETHERNET};
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::ipv4::{HEADER, ICMP, TCP, UDP};
use ix_abi::stats::Drop;

/// What the protocols need of the header, whose addresses are `A`.
#[derive(Clone, Copy, Debug)]
pub struct Ip<A> {
    /// The sender.
    pub source: A,
    /// Us, or a broadcast or group.
    pub destination: A,
    /// The slot of our address.
    pub local: u8,
    /// Where the IP header starts in the buffer.
    pub start: usize,
    /// Where the payload starts in the buffer.
    pub payload: usize,
    /// Its length.
    pub len: usize,
    /// The header's second byte.
    pub tos: u8,
    /// Addressed to us alone.
    pub unicast: bool,
}

/// Takes an IPv4 frame.
#[inline]
pub fn handle(engine: &mut Engine, frame: RxFrame) {
    match check(engine, &frame, 0) {
        Ok((ip, protocol)) => match protocol {
            TCP if ip.unicast => super::transport::tcp(engine, frame, &ip),
            UDP => super::transport::udp(engine, frame, &ip),
            ICMP if ip.unicast => super::icmp::handle(engine, frame, &ip),
            _ => eth::drop(engine, frame, Drop::IpProtocol),
        },
        Err(Drop::IpFragment) => super::fragments::handle(engine, frame),
        Err(reason) => eth::drop(engine, frame, reason),
    }
}

/// Checks the header of a frame that goes on for `beyond` bytes behind its first buffer.
#[inline(always)]
pub(super) fn check(
    engine: &Engine,
    frame: &RxFrame,
    beyond: usize,
) -> Result<(Ip<[u8; 4]>, u8), Drop> {
    let local = &engine.local;
    let start = usize::from(frame.offset) + ETHERNET;
    let end = usize::from(frame.offset) + usize::from(frame.len);
    let packet = local.pool.area().data(&frame.mbuf).get(start..end).ok_or(Drop::Truncated)?;
    let h = packet.first_chunk::<HEADER>().ok_or(Drop::Truncated)?;
    let header_len = usize::from(h[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([h[2], h[3]]));
    if h[0] >> 4 != 4 || header_len < HEADER || total < header_len {
        return Err(Drop::IpMalformed);
    }
    let header = packet.get(..header_len).ok_or(Drop::Truncated)?;
    if total > packet.len() + beyond {
        return Err(Drop::Truncated);
    }
    if frame.checksum == RxChecksum::Unknown && !checksum::is_good(checksum::sum(header)) {
        return Err(Drop::IpChecksum);
    }
    // More fragments, or an offset.
    if u16::from_be_bytes([h[6], h[7]]) & 0x3fff != 0 {
        return Err(Drop::IpFragment);
    }
    let source = [h[12], h[13], h[14], h[15]];
    let destination = [h[16], h[17], h[18], h[19]];
    let unicast = destination == local.address && local.ipv4.is_some();
    if !unicast && !is_broadcast(engine, destination) {
        return Err(Drop::NotForUs);
    }
    // RFC 1122 §3.2.1.3: addresses that nobody can answer to.
    if source[0] == 127
        || source[0] >= 224
        || (unicast && source == [0; 4])
        || (source == local.address && !local.loopback)
    {
        return Err(Drop::IpMalformed);
    }
    let payload = start + header_len;
    let (len, tos) = (total - header_len, h[1]);
    let ip = Ip { source, destination, local: 0, start, payload, len, tos, unicast };
    Ok((ip, h[9]))
}

/// The limited broadcast, that of our network, and while DHCP asks, any: servers may send to the
/// address that they offer (RFC 2131 §4.1).
fn is_broadcast(engine: &Engine, destination: [u8; 4]) -> bool {
    let Some(config) = engine.local.ipv4 else { return true };
    let host_bits = u32::MAX.checked_shr(u32::from(config.prefix)).unwrap_or(0);
    let ours = u32::from_be_bytes(config.address) | host_bits;
    destination == [255; 4] || (host_bits > 1 && u32::from_be_bytes(destination) == ours)
}
