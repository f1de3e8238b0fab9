//! Neighbour discovery (RFC 4861): solicitations answered, advertisements to the neighbour table of every
//! core, routers' word to [`crate::slaac`]. All of it on core 0, which alone knows the addresses that
//! are not in use yet.
use super::eth;
use super::ipv4::Ip;
use super::{arp, transport};
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::ipv6::{self, Address, UNSPECIFIED};
use crate::local::Local;
use crate::nd::{self, Frame, Message};
use crate::neighbor::Request;
use crate::tx::Staged;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{CoreId, IpAddress};
use smoltcp::wire::EthernetAddress;

/// Takes a message whose checksum is right.
#[inline(never)]
pub fn handle(engine: &mut Engine, frame: RxFrame, ip: &Ip<Address>, hops: u8) {
    let local = &mut engine.local;
    if local.core != CoreId(0) {
        return transport::steer(engine, frame, Some(CoreId(0)));
    }
    let area = local.pool.area();
    let data = area.data(&frame.mbuf);
    let at = usize::from(frame.offset) + 6;
    let sender = data.get(at..at + 6).and_then(|mac| mac.first_chunk().copied());
    let message = data
        .get(ip.payload..ip.payload + ip.len)
        .and_then(|icmp| nd::parse(icmp, &ip.source, &ip.destination, hops));
    let (Some(message), Some(sender)) = (message, sender) else {
        return eth::drop(engine, frame, Drop::NdMalformed);
    };
    let now = local.now;
    if sender == local.mac {
        // Our own, which something has sent back: no conflict with anybody.
        return eth::drop(engine, frame, Drop::NotForUs);
    }
    match message {
        Message::Solicit { from, link, target } => {
            if engine.slaac.as_ref().is_some_and(|slaac| slaac.is_tentative(&target)) {
                // One that wants to know a link address has to wait (RFC 4862 §5.4.3).
                if from.is_none() {
                    engine.conflict(&target);
                }
            } else if local.v6.slot_of(&target) == 0 {
                local.stats.drop(Drop::NotForUs);
            } else {
                if let (Some(from), Some(link)) = (from, link) {
                    learn(local, from, link, false);
                }
                let to = from.map(|from| (from, link.unwrap_or(sender)));
                let answer = nd::advert(local.mac, &target, to);
                stage(local, answer);
            }
        }
        Message::Advert { target, link, solicited, takes_over, .. } => {
            if engine.slaac.as_ref().is_some_and(|slaac| slaac.is_tentative(&target)) {
                engine.conflict(&target);
            } else if local.v6.slot_of(&target) != 0 {
                local.stats.add(Counter::Ipv6Duplicates, 1);
            } else {
                advert(local, target, link, solicited, takes_over);
            }
        }
        Message::Router(advert) => {
            if let Some(link) = advert.link {
                learn(local, advert.router, link, false);
            }
            if let Some(slaac) = &mut engine.slaac {
                slaac.advert(&advert, now);
            }
        }
        Message::Other => local.stats.drop(Drop::NotForUs),
    }
    engine.local.pool.free(frame.mbuf);
}

/// RFC 4861 §7.2.5. An answer to a question that another core may have asked is taken whether this core
/// has asked or not; what was not asked for only corrects what is known.
fn advert(
    local: &mut Local,
    target: Address,
    link: Option<nd::Mac>,
    solicited: bool,
    takes_over: bool,
) {
    let entry = local.neighbors.known(IpAddress(target));
    let known = entry.flatten().map(|mac| mac.0);
    match (link.or(known), known) {
        (None, _) => {}
        (Some(link), Some(known)) if link != known && !takes_over => {}
        (Some(link), _) if solicited => learn(local, target, link, true),
        (Some(link), Some(known)) if link != known => learn(local, target, link, false),
        (Some(link), None) if entry.is_some() => learn(local, target, link, false),
        (Some(_), _) => {}
    }
}

/// An address was seen: `confirmed` if it was an answer to us.
fn learn(local: &mut Local, ip: Address, mac: nd::Mac, confirmed: bool) {
    let (ip, mac, now) = (IpAddress(ip), EthernetAddress(mac), local.now);
    let news = if confirmed {
        local.neighbors.confirm(ip, mac, now)
    } else {
        local.neighbors.hear(ip, mac, now)
    };
    arp::tell(local, ip, mac, news, confirmed);
}

/// Sends a question that the neighbour table wants sent.
pub fn solicit(local: &mut Local, request: Request) {
    let target = request.ip.0;
    let from = local.v6.source_for(&target).map_or(UNSPECIFIED, |slot| local.v6.address(slot));
    // Without an address it would be a probe for an address that we want to have.
    if from != UNSPECIFIED && ipv6::is_host(&target) {
        let frame = nd::solicit(local.mac, &from, &target, request.to.map(|mac| mac.0));
        stage(local, frame);
    }
}

/// To the transmit stage.
pub fn stage(local: &mut Local, frame: Frame) {
    if local.tx.stage(Staged::Bytes(frame)).is_err() {
        local.stats.drop(Drop::TxRingFull);
    }
}
