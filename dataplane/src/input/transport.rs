//! TCP and UDP: which flow group a packet belongs to, whether that is here, and the checksums.
use super::ipv4::Ip;
use super::{eth, icmpv6};
use crate::acl::{self, Counts, answers};
use crate::addresses::scope_of;
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::dhcp;
use crate::engine::Engine;
use crate::family::Family;
use crate::flow_table::FlowKey;
use crate::ipv4::{TCP, UDP};
use crate::local::Local;
use crate::rss::group_of;
use crate::tcp;
use crate::tcp::ecn;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Fields, Packet, flag};
use crate::udp;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{CoreId, GroupId, SocketAddress};
use ix_acl::{Direction, Protocol};

const UDP_HEADER: usize = 8;

/// Takes a TCP segment.
#[inline]
pub fn tcp<A: Family>(engine: &mut Engine, mut frame: RxFrame, ip: &Ip<A>) {
    let local = &mut engine.local;
    let segment = local.pool.area().data(&frame.mbuf).get(ip.payload..ip.payload + ip.len);
    let Some((segment, fields)) = segment.and_then(|s| Some((s, tcp::wire::parse(s)?))) else {
        return eth::drop(engine, frame, Drop::TcpMalformed);
    };
    let ports = (fields.source_port, fields.destination_port);
    let (hash, id) = whose(local, &mut frame, ip, ports);
    let Some(group) = engine.groups.get_mut(id).and_then(Option::as_mut) else {
        return steer_to_owner(engine, frame, id);
    };
    if frame.checksum == RxChecksum::Unknown && !intact(segment, ip, TCP) {
        return eth::drop(engine, frame, Drop::TcpChecksum);
    }
    group.frames += 1;
    let packet = packet(frame.offset, ip, segment, &fields, hash);
    tcp::input::handle(group, local, &packet, frame.mbuf);
}

/// What a segment says whose header, `fields`, is at the beginning of `segment`, in a frame that begins at
/// `frame` in its buffer.
#[inline(always)]
pub(super) fn packet<A: Family>(
    frame: u16,
    ip: &Ip<A>,
    segment: &[u8],
    fields: &Fields,
    hash: u32,
) -> Packet {
    Packet {
        key: FlowKey {
            remote: ip.source.to_ip(),
            remote_port: fields.source_port,
            local_port: fields.destination_port,
        },
        local: ip.local,
        hash,
        seq: WrappingSeq(fields.seq),
        ack: WrappingSeq(fields.ack),
        // URG and the pointer are ignored: urgent data is in line (RFC 6093 §6).
        flags: fields.flags & flag::KNOWN,
        window: fields.window,
        offset: (ip.payload + fields.header_len) as u16,
        cut: 0,
        len: (ip.len - fields.header_len) as u16,
        frame,
        options: (fields.header_len - tcp::wire::HEADER) as u16,
        ts: tcp::wire::timestamps(&segment[tcp::wire::HEADER..fields.header_len]),
        ce: ip.tos & ecn::CE == ecn::CE,
    }
}

/// Takes a UDP datagram.
#[inline(never)]
pub fn udp<A: Family>(engine: &mut Engine, mut frame: RxFrame, ip: &Ip<A>) {
    let local = &mut engine.local;
    let datagram = local.pool.area().data(&frame.mbuf).get(ip.payload..ip.payload + ip.len);
    let Some((datagram, header)) = datagram.and_then(|d| Some((d, d.first_chunk::<UDP_HEADER>()?)))
    else {
        return eth::drop(engine, frame, Drop::UdpMalformed);
    };
    let source_port = u16::from_be_bytes([header[0], header[1]]);
    let port = u16::from_be_bytes([header[2], header[3]]);
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let Some(datagram) = datagram.get(..len).filter(|d| d.len() >= UDP_HEADER) else {
        return eth::drop(engine, frame, Drop::UdpMalformed);
    };
    // Only IPv4 lets a datagram go without a checksum (RFC 8200 §8.1).
    let unsummed = A::VERSION == 4 && header[6..8] == [0, 0];
    if frame.checksum == RxChecksum::Unknown && !unsummed && !intact(datagram, ip, UDP) {
        return eth::drop(engine, frame, Drop::UdpChecksum);
    }
    if A::VERSION == 4 && engine.dhcp_configured && port == dhcp::CLIENT_PORT {
        if local.core != CoreId(0) {
            return steer(engine, frame, Some(CoreId(0)));
        }
        if source_port == dhcp::SERVER_PORT {
            engine.dhcp_input(&datagram[UDP_HEADER..]);
        }
        return engine.local.pool.free(frame.mbuf);
    }
    if !ip.unicast {
        return eth::drop(engine, frame, Drop::NotForUs);
    }
    let ports = (source_port, port);
    let (_, id) = whose(local, &mut frame, ip, ports);
    let Some(group) = engine.groups.get_mut(id).and_then(Option::as_mut) else {
        return steer_to_owner(engine, frame, id);
    };
    group.frames += 1;
    let local = &mut engine.local;
    let (from, here) = (ip.source.to_ip(), ip.destination.to_ip());
    let remote = SocketAddress { ip: from, port: source_port, scope: scope_of(&from) };
    let flow = acl::flow(here, Direction::In, Protocol::Udp, remote.ip, ports);
    if let Err(action) = acl::judge(local, &flow, Counts::Rate) {
        return answers::prohibited(local, action, frame, ip);
    }
    if !local.udp.ports.by_port(port).is_some_and(|port| port.serves(here)) {
        local.stats.drop(Drop::UdpNoPort);
        if A::VERSION == 6 {
            icmpv6::port_unreachable(local, &frame, ip.start, ip.payload + ip.len);
        }
        return local.pool.free(frame.mbuf);
    }
    let (offset, len) = ((ip.payload + UDP_HEADER) as u16, (len - UDP_HEADER) as u16);
    udp::receive(local, port, remote, frame.mbuf, offset, len);
}

#[inline(always)]
fn intact<A: Family>(segment: &[u8], ip: &Ip<A>, protocol: u8) -> bool {
    let pseudo = A::pseudo(ip.source, ip.destination, protocol, segment.len() as u16);
    checksum::is_good(checksum::add(pseudo, checksum::sum(segment)))
}

/// The hash of a flow, which the frame has from then on, and the place of its group.
#[inline(always)]
pub(super) fn whose<A: Family>(
    local: &Local,
    frame: &mut RxFrame,
    ip: &Ip<A>,
    ports: (u16, u16),
) -> (u32, usize) {
    let computed = || A::hash(&local.toeplitz, ip.source, ip.destination, ports);
    let hash = *frame.hash.get_or_insert_with(computed);
    (hash, usize::from(group_of(hash, local.groups).0))
}

/// Hands a frame to the core that owns the group at that place.
#[inline]
pub(super) fn steer_to_owner(engine: &mut Engine, frame: RxFrame, group: usize) {
    let local = &mut engine.local;
    let owner = local.owners.get(group).copied();
    if let Some(from) = local.forwarded_by.filter(|from| Some(*from) == owner)
        && engine.moves.is_early(GroupId(group as u16))
    {
        return engine.moves.keep_early(local, from, frame);
    }
    steer(engine, frame, owner);
}

/// Hands a frame to another core.
pub(super) fn steer(engine: &mut Engine, frame: RxFrame, owner: Option<CoreId>) {
    let local = &mut engine.local;
    let owner = owner.filter(|owner| *owner != local.core);
    let Some(owner) = owner else { return eth::drop(engine, frame, Drop::SteerFull) };
    match local.mesh.send_frame(owner, frame) {
        Ok(()) => local.stats.add(Counter::RxSteeredOut, 1),
        Err(frame) => eth::drop(engine, frame, Drop::SteerFull),
    }
}
