//! Frames: built by hand for the peer, read by hand from the engine. Checksums and lengths are
//! smoltcp's to fill in and to judge, which shares nothing with the engine.
use crate::options;
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ethernet address of the engine's port.
pub const ENGINE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Everybody else's.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The engine's addresses.
pub const ENGINE_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// See [`ENGINE_V4`].
pub const ENGINE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
/// The peer's.
pub const PEER_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
/// See [`PEER_V4`].
pub const PEER_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
/// Of IPv4 and IPv6.
pub const TCP: u8 = 6;
/// Of IPv4 and IPv6.
pub const UDP: u8 = 17;

/// What goes into, or was in, an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpFields {
    /// Traffic class: DSCP and ECN.
    pub class: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Do not fragment; always so in IPv6.
    pub df: bool,
}

/// A TCP segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The sender's.
    pub from_port: u16,
    /// The receiver's.
    pub to_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Of `script::flag`.
    pub flags: u16,
    /// The field.
    pub win: u16,
    /// The urgent pointer.
    pub urg: u16,
    /// With padding.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// A frame of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// TCP.
    Tcp { from: IpAddr, to: IpAddr, ip: IpFields, segment: Segment, options: Vec<options::Seen> },
    /// ICMP of either version.
    Icmp { from: IpAddr, to: IpAddr, message: Vec<u8> },
    /// Somebody is asked for by its address: an answer to send.
    Question(Vec<u8>),
    /// Anything else.
    Other(String),
}

/// The segment as bytes.
pub fn tcp(from: IpAddr, to: IpAddr, segment: &Segment, bad_sum: bool) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(segment.from_port.to_be_bytes());
    b.extend(segment.to_port.to_be_bytes());
    b.extend(segment.seq.to_be_bytes());
    b.extend(segment.ack.to_be_bytes());
    let words = (20 + segment.options.len()) as u16 / 4;
    b.extend((words << 12 | segment.flags).to_be_bytes());
    b.extend(segment.win.to_be_bytes());
    b.extend([0, 0]);
    b.extend(segment.urg.to_be_bytes());
    b.extend(&segment.options);
    b.extend(&segment.payload);
    TcpPacket::new_unchecked(&mut b).fill_checksum(&from.into(), &to.into());
    b[16] ^= u8::from(bad_sum);
    b
}

/// A datagram as bytes.
pub fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(ports.0.to_be_bytes());
    b.extend(ports.1.to_be_bytes());
    b.extend((8 + payload.len() as u16).to_be_bytes());
    b.extend([0, 0]);
    b.extend(payload);
    UdpPacket::new_unchecked(&mut b).fill_checksum(&from.into(), &to.into());
    b
}

/// An ICMP message as bytes: type, code, the second word, the rest.
pub fn icmp(from: IpAddr, to: IpAddr, kind: (u8, u8), word: u32, rest: &[u8]) -> Vec<u8> {
    let mut b = vec![kind.0, kind.1, 0, 0];
    b.extend(word.to_be_bytes());
    b.extend(rest);
    match (from, to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            Icmpv6Packet::new_unchecked(&mut b).fill_checksum(&from, &to);
        }
        _ => Icmpv4Packet::new_unchecked(&mut b).fill_checksum(),
    }
    b
}

/// A packet: the IP header before `payload`.
pub fn ip(from: IpAddr, to: IpAddr, protocol: u8, fields: IpFields, payload: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            b.extend([0x45, fields.class]);
            b.extend((20 + payload.len() as u16).to_be_bytes());
            b.extend([0x12, 0x34, u8::from(fields.df) << 6, 0, fields.ttl, protocol, 0, 0]);
            b.extend(from.octets());
            b.extend(to.octets());
            Ipv4Packet::new_unchecked(&mut b).fill_checksum();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            b.extend((6 << 28 | u32::from(fields.class) << 20).to_be_bytes());
            b.extend((payload.len() as u16).to_be_bytes());
            b.extend([protocol, fields.ttl]);
            b.extend(from.octets());
            b.extend(to.octets());
        }
        _ => panic!("addresses of one version"),
    }
    b.extend(payload);
    b
}

/// A packet of IPv4 in fragments of `bytes` of its payload.
pub fn fragments(packet: &[u8], bytes: usize) -> Vec<Vec<u8>> {
    let (header, payload) = packet.split_at(20);
    let count = payload.len().div_ceil(bytes);
    let fragment = |(i, part): (usize, &[u8])| {
        let mut b = header.to_vec();
        b[2..4].copy_from_slice(&(20 + part.len() as u16).to_be_bytes());
        let more = u16::from(i + 1 < count) << 13;
        b[6..8].copy_from_slice(&(more | (i * bytes / 8) as u16).to_be_bytes());
        Ipv4Packet::new_unchecked(&mut b).fill_checksum();
        b.extend(part);
        b
    };
    payload.chunks(bytes).enumerate().map(fragment).collect()
}

/// A frame of the peer.
pub fn ethernet(packet: &[u8]) -> Vec<u8> {
    let mut b = Vec::new();
    b.extend(ENGINE_MAC);
    b.extend(PEER_MAC);
    b.extend(if packet[0] >> 4 == 4 { [8, 0] } else { [0x86, 0xdd] });
    b.extend(packet);
    b
}

/// Reads a frame of the engine. `Err`: what is wrong with it.
pub fn read(f: &[u8]) -> Result<Read, String> {
    match f.get(12..14) {
        Some([8, 6]) => Ok(arp(f)),
        Some([8, 0]) => {
            let packet =
                Ipv4Packet::new_checked(&f[14..]).map_err(|_| "a malformed IPv4 header")?;
            if !packet.verify_checksum() {
                return Err("a wrong IPv4 checksum".to_owned());
            }
            let fields = IpFields { class: f[15], ttl: packet.hop_limit(), df: packet.dont_frag() };
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            transport(ends, f[23], fields, packet.payload())
        }
        Some([0x86, 0xdd]) => {
            let packet =
                Ipv6Packet::new_checked(&f[14..]).map_err(|_| "a malformed IPv6 header")?;
            let class = packet.traffic_class();
            let fields = IpFields { class, ttl: packet.hop_limit(), df: true };
            let ends = (packet.src_addr().into(), packet.dst_addr().into());
            transport(ends, f[20], fields, packet.payload())
        }
        _ => Err("an unknown EtherType".to_owned()),
    }
}

fn transport(
    (from, to): (IpAddr, IpAddr),
    protocol: u8,
    ip: IpFields,
    payload: &[u8],
) -> Result<Read, String> {
    match protocol {
        TCP => {
            let (segment, options) = read_tcp(from, to, payload)?;
            Ok(Read::Tcp { from, to, ip, segment, options })
        }
        1 => {
            let good = Icmpv4Packet::new_checked(payload).is_ok_and(|m| m.verify_checksum());
            let message = payload.to_vec();
            if good {
                Ok(Read::Icmp { from, to, message })
            } else {
                Err("a bad ICMP message".into())
            }
        }
        58 => icmpv6(from, to, payload),
        UDP => Ok(Read::Other("a datagram".to_owned())),
        0 => Ok(Read::Other("multicast listener report".to_owned())),
        other => Err(format!("protocol {other}")),
    }
}

fn icmpv6(from: IpAddr, to: IpAddr, payload: &[u8]) -> Result<Read, String> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) = (from, to) else {
        return Err("ICMPv6 over IPv4".to_owned());
    };
    let good = Icmpv6Packet::new_checked(payload)
        .is_ok_and(|message| message.verify_checksum(&source, &destination));
    if !good {
        return Err("a bad ICMPv6 message".to_owned());
    }
    // Neighbour solicitation, not of an address that the sender wants itself (RFC 4861 §4.3).
    let target: Option<[u8; 16]> = payload.get(8..24).and_then(|t| t.try_into().ok());
    match (payload[0], target) {
        (135, Some(target)) if !source.is_unspecified() => {
            let target = IpAddr::from(target);
            let mut rest: Vec<u8> = match target {
                IpAddr::V6(target) => target.octets().to_vec(),
                IpAddr::V4(target) => target.octets().to_vec(),
            };
            rest.extend([2, 1]);
            rest.extend(PEER_MAC);
            // Solicited, override.
            let answer = icmp(target, from, (136, 0), 0x6000_0000, &rest);
            let fields = IpFields { class: 0, ttl: 255, df: true };
            Ok(Read::Question(ethernet(&ip(target, from, 58, fields, &answer))))
        }
        (130..=137 | 143, _) => Ok(Read::Other(format!("ICMPv6 type {}", payload[0]))),
        _ => Ok(Read::Icmp { from, to, message: payload.to_vec() }),
    }
}

fn read_tcp(from: IpAddr, to: IpAddr, b: &[u8]) -> Result<(Segment, Vec<options::Seen>), String> {
    let packet = TcpPacket::new_checked(b).map_err(|_| "a malformed TCP header")?;
    if !packet.verify_checksum(&from.into(), &to.into()) {
        return Err("a wrong TCP checksum".to_owned());
    }
    let header = usize::from(packet.header_len());
    let segment = Segment {
        from_port: packet.src_port(),
        to_port: packet.dst_port(),
        seq: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
        ack: u32::from_be_bytes([b[8], b[9], b[10], b[11]]),
        flags: u16::from_be_bytes([b[12], b[13]]) & 0x1ff,
        win: packet.window_len(),
        urg: packet.urgent_at(),
        options: b[20..header].to_vec(),
        payload: b[header..].to_vec(),
    };
    if b[12] & 0xf != 0 {
        return Err("reserved bits are set".to_owned());
    }
    let options = options::read(&segment.options).ok_or("malformed TCP options")?;
    Ok((segment, options))
}

fn arp(f: &[u8]) -> Read {
    let asks = f.get(20..22) == Some(&[0, 1]) && f.get(28..32) != f.get(38..42);
    let (Some(asker), Some(target), true) = (f.get(22..32), f.get(38..42), asks) else {
        return Read::Other("ARP".to_owned());
    };
    let mut answer = Vec::new();
    answer.extend(ENGINE_MAC);
    answer.extend(PEER_MAC);
    answer.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    answer.extend(PEER_MAC);
    answer.extend(target);
    answer.extend(asker);
    Read::Question(answer)
}
