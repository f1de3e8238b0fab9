//! TCP and UDP: which flow group a packet belongs to, whether that is here, and the checksums.
use super::eth;
use super::ipv4::Ip;
use crate::acl::{self, Counts, answers};
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::dhcp;
use crate::engine::Engine;
use crate::flow_table::FlowKey;
use crate::ipv4::{TCP, UDP};
use crate::rss::group_of;
use crate::tcp;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Packet, flag};
use crate::udp;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{CoreId, IpAddress, SocketAddress};
use ix_acl::{Direction, Protocol};

const UDP_HEADER: usize = 8;

/// Takes a TCP segment.
#[inline]
pub fn tcp(engine: &mut Engine, mut frame: RxFrame, ip: &Ip) {
    let local = &mut engine.local;
    let segment = local.pool.area().data(&frame.mbuf).get(ip.payload..ip.payload + ip.len);
    let Some((segment, fields)) = segment.and_then(|s| Some((s, tcp::wire::parse(s)?))) else {
        return eth::drop(engine, frame, Drop::TcpMalformed);
    };
    let ports = (fields.source_port, fields.destination_port);
    let hash = frame
        .hash
        .unwrap_or_else(|| local.toeplitz.hash_v4(ip.source, ip.destination, ports.0, ports.1));
    let id = group_of(hash, local.groups);
    let Some(group) = engine.groups.get_mut(usize::from(id.0)).and_then(Option::as_mut) else {
        frame.hash = Some(hash);
        let owner = local.owners.get(usize::from(id.0)).copied();
        return steer(engine, frame, owner);
    };
    if frame.checksum == RxChecksum::Unknown && !intact(segment, ip, TCP) {
        return eth::drop(engine, frame, Drop::TcpChecksum);
    }
    let packet = Packet {
        key: FlowKey {
            remote: IpAddress::v4(ip.source),
            remote_port: fields.source_port,
            local_port: fields.destination_port,
        },
        hash,
        seq: WrappingSeq(fields.seq),
        ack: WrappingSeq(fields.ack),
        // URG and the pointer are ignored: urgent data is in line (RFC 6093 §6).
        flags: fields.flags & (flag::FIN | flag::SYN | flag::RST | flag::PSH | flag::ACK),
        window: fields.window,
        offset: (ip.payload + fields.header_len) as u16,
        len: (ip.len - fields.header_len) as u16,
        frame: frame.offset,
        options: (fields.header_len - tcp::wire::HEADER) as u16,
        ts: tcp::wire::timestamps(&segment[tcp::wire::HEADER..fields.header_len]),
    };
    tcp::input::handle(group, local, &packet, frame.mbuf);
}

/// Takes a UDP datagram.
#[inline(never)]
pub fn udp(engine: &mut Engine, mut frame: RxFrame, ip: &Ip) {
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
    let unsummed = header[6..8] == [0, 0];
    if frame.checksum == RxChecksum::Unknown && !unsummed && !intact(datagram, ip, UDP) {
        return eth::drop(engine, frame, Drop::UdpChecksum);
    }
    if engine.dhcp_configured && port == dhcp::CLIENT_PORT {
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
    let hash = frame
        .hash
        .unwrap_or_else(|| local.toeplitz.hash_v4(ip.source, ip.destination, source_port, port));
    let id = usize::from(group_of(hash, local.groups).0);
    if engine.groups.get(id).is_none_or(Option::is_none) {
        frame.hash = Some(hash);
        let owner = local.owners.get(id).copied();
        return steer(engine, frame, owner);
    }
    let remote = SocketAddress::v4(ip.source, source_port);
    let flow = acl::flow(local, Direction::In, Protocol::Udp, remote.ip, (source_port, port));
    if let Err(action) = acl::judge(local, &flow, Counts::Rate) {
        return answers::prohibited(local, action, frame.offset, frame.mbuf, ip);
    }
    let (offset, len) = ((ip.payload + UDP_HEADER) as u16, (len - UDP_HEADER) as u16);
    udp::receive(local, port, remote, frame.mbuf, offset, len);
}

#[inline(always)]
fn intact(segment: &[u8], ip: &Ip, protocol: u8) -> bool {
    let pseudo = checksum::pseudo_v4(ip.source, ip.destination, protocol, segment.len() as u16);
    checksum::is_good(checksum::add(pseudo, checksum::sum(segment)))
}

/// Hands a frame to the core that owns its group.
fn steer(engine: &mut Engine, frame: RxFrame, owner: Option<CoreId>) {
    let local = &mut engine.local;
    let owner = owner.filter(|owner| *owner != local.core);
    let Some(owner) = owner else { return eth::drop(engine, frame, Drop::SteerFull) };
    match local.mesh.send_frame(owner, frame) {
        Ok(()) => local.stats.add(Counter::RxSteeredOut, 1),
        Err(frame) => eth::drop(engine, frame, Drop::SteerFull),
    }
}
