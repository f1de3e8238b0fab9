//! ARP (RFC 826): requests answered in place, answers to the neighbour table of every core.
use super::eth::{self, HEADER};
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::local::Local;
use crate::message::Message;
use crate::tx::Staged;
use arrayvec::ArrayVec;
use ix_abi::IpAddress;
use ix_abi::stats::Drop;
use smoltcp::wire::EthernetAddress;

/// Bytes of an ARP packet for IPv4 over Ethernet.
const PACKET: usize = 28;
/// Hardware type Ethernet, protocol IPv4, address lengths.
const FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];
const REPLY: [u8; 2] = [0, 2];

/// Takes an ARP frame.
pub fn handle(engine: &mut Engine, mut frame: RxFrame) {
    let local = &mut engine.local;
    let area = local.pool.area();
    let packet = eth::bytes(area.data(&frame.mbuf), &frame)
        .and_then(|bytes| bytes.get(HEADER..)?.first_chunk::<PACKET>().copied());
    let Some(p) = packet.filter(|p| p[0..6] == FIXED) else {
        return eth::drop(engine, frame, Drop::ArpMalformed);
    };
    let sender_mac = EthernetAddress([p[8], p[9], p[10], p[11], p[12], p[13]]);
    let sender_ip = [p[14], p[15], p[16], p[17]];
    let ours = local.ipv4.is_some() && p[24..28] == local.address;
    if sender_ip != [0; 4] && (sender_ip != local.address || local.loopback) {
        learn(local, sender_ip, sender_mac, ours);
    }
    if !ours || p[6..8] != REQUEST {
        if !ours && p[6..8] != REPLY {
            local.stats.drop(Drop::NotForUs);
        }
        return local.pool.free(frame.mbuf);
    }
    let mac = local.mac;
    let start = usize::from(frame.offset);
    let Some(f) = area.data_mut(&mut frame.mbuf).get_mut(start..start + HEADER + PACKET) else {
        return eth::drop(engine, frame, Drop::ArpMalformed);
    };
    let answer =
        build(mac, sender_mac.0, REPLY, [p[24], p[25], p[26], p[27]], sender_mac.0, sender_ip);
    f.copy_from_slice(&answer);
    let (offset, len) = (frame.offset, (HEADER + PACKET) as u16);
    if let Err(Staged::Buffer { mbuf, .. }) =
        local.tx.stage(Staged::Buffer { mbuf: frame.mbuf, offset, len })
    {
        local.stats.drop(Drop::TxRingFull);
        local.pool.free(mbuf);
    }
}

/// An address was seen. Who talks to us is remembered, who is overheard only if known already.
fn learn(local: &mut Local, ip: [u8; 4], mac: EthernetAddress, to_us: bool) {
    let (ip, now) = (IpAddress::v4(ip), local.now);
    let news = if to_us {
        local.neighbors.confirm(ip, mac, now)
    } else {
        local.neighbors.overhear(ip, mac, now)
    };
    tell(local, ip, mac, news, to_us);
}

/// Tells the other cores of an address, if it is news or was an answer.
pub(super) fn tell(
    local: &mut Local,
    ip: IpAddress,
    mac: EthernetAddress,
    news: bool,
    to_us: bool,
) {
    if news {
        local.age_neighbors(true);
    }
    if news || to_us {
        for core in local.mesh.others() {
            // A core that misses it asks for itself.
            let _lost = local.mesh.send(core, Message::Neighbor { ip, mac: mac.0 });
        }
    }
}

fn build(
    from: [u8; 6],
    to: [u8; 6],
    operation: [u8; 2],
    sender_ip: [u8; 4],
    target_mac: [u8; 6],
    target_ip: [u8; 4],
) -> [u8; HEADER + PACKET] {
    let mut f = [0; HEADER + PACKET];
    f[0..6].copy_from_slice(&to);
    f[6..12].copy_from_slice(&from);
    f[12..14].copy_from_slice(&[8, 6]);
    f[14..20].copy_from_slice(&FIXED);
    f[20..22].copy_from_slice(&operation);
    f[22..28].copy_from_slice(&from);
    f[28..32].copy_from_slice(&sender_ip);
    f[32..38].copy_from_slice(&target_mac);
    f[38..42].copy_from_slice(&target_ip);
    f
}

fn stage(local: &mut Local, frame: &[u8; HEADER + PACKET]) {
    let mut bytes = ArrayVec::new();
    let fits = bytes.try_extend_from_slice(frame).is_ok();
    if !fits || local.tx.stage(Staged::Bytes(bytes)).is_err() {
        local.stats.drop(Drop::TxRingFull);
    }
}

/// Sends the requests that the neighbour table wants sent.
pub fn send_requests(local: &mut Local) {
    while let Some(request) = local.neighbors.poll(local.now) {
        let Some(target) = request.ip.to_v4() else {
            super::nd::solicit(local, request);
            continue;
        };
        let to = request.to.map_or([0xff; 6], |mac| mac.0);
        let frame = build(local.mac, to, REQUEST, local.address, [0; 6], target);
        stage(local, &frame);
    }
}

/// Tells everybody of a new address (RFC 5227 §2.3).
pub fn announce(local: &mut Local) {
    let frame = build(local.mac, [0xff; 6], REQUEST, local.address, [0; 6], local.address);
    stage(local, &frame);
}
