//! ICMPv6 (RFC 4443): echo requests are answered in the buffer in which they came; so are packets that
//! deserve an error, at a bounded rate.
use super::eth::{self, HEADER as ETHERNET};
use super::ipv4::Ip;
use super::{icmp_error, nd};
use crate::acl::{self, Counts, answers};
use crate::checksum;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::ipv6::{self, Address, HEADER as IPV6, ICMP, MTU_MIN};
use crate::local::Local;
use crate::nd::{NEIGHBOR_ADVERTISEMENT, REDIRECT, ROUTER_SOLICITATION, is_exempt};
use crate::tx::Staged;
use ix_abi::IpAddress;
use ix_abi::stats::{Counter, Drop};
use ix_acl::{Action, Direction, Flow};

const UNREACHABLE: u8 = 1;
const PARAMETER_PROBLEM: u8 = 4;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
/// Multicast listener discovery: queries, reports, done.
const LISTENERS: core::ops::RangeInclusive<u8> = 130..=132;
/// Bytes of a message's fixed part.
const HEADER: usize = 8;
/// Codes of [`UNREACHABLE`].
const PROHIBITED: u8 = 1;
const NO_PORT: u8 = 4;
/// Types from here on are not errors.
const INFORMATION: u8 = 128;

/// Takes an ICMPv6 packet.
#[inline(never)]
pub fn handle(engine: &mut Engine, frame: RxFrame, ip: &Ip<Address>, hops: u8) {
    let local = &mut engine.local;
    let area = local.pool.area();
    let message = area.data(&frame.mbuf).get(ip.payload..ip.payload + ip.len).unwrap_or(&[]);
    let pseudo = checksum::pseudo_v6(&ip.source, &ip.destination, ICMP, message.len() as u16);
    let intact = frame.checksum == RxChecksum::Good
        || checksum::is_good(checksum::add(pseudo, checksum::sum(message)));
    let [kind, code] = message.first_chunk().copied().unwrap_or_default();
    if message.len() < HEADER || !intact {
        return eth::drop(engine, frame, Drop::Icmp);
    }
    if matches!(kind, ROUTER_SOLICITATION..=REDIRECT) {
        const { assert!(NEIGHBOR_ADVERTISEMENT < REDIRECT) }
        return nd::handle(engine, frame, ip, hops);
    }
    if is_exempt(kind) || LISTENERS.contains(&kind) {
        // Who listens to what on this link is known without being asked: whoever is on it.
        return local.pool.free(frame.mbuf);
    }
    if ip.source == ipv6::UNSPECIFIED {
        return eth::drop(engine, frame, Drop::IpMalformed);
    }
    if matches!(kind, UNREACHABLE..=PARAMETER_PROBLEM) && ip.unicast {
        return icmp_error::handle(engine, frame, ip);
    }
    let echo = kind == ECHO_REQUEST && code == 0;
    let remote = IpAddress(ip.source);
    let group = local.v6.is_in_group(&ip.destination);
    let slot = if ip.unicast { Some(ip.local) } else { local.v6.source_for(&ip.source) };
    let Some(slot) = slot.filter(|_| ip.unicast || group) else {
        return eth::drop(engine, frame, Drop::NotForUs);
    };
    let question = Flow::icmp(Direction::In, remote, local.ip_at(slot), kind, code);
    if let Err(action) = acl::judge(local, &question, Counts::Rate) {
        // No error about what may be an error, or went to a group (RFC 4443 §2.4 e).
        let action = if echo && ip.unicast { action } else { Action::Deny };
        return answers::prohibited(local, action, frame, ip);
    }
    if !echo {
        return eth::drop(engine, frame, Drop::Icmp);
    }
    // One question to a group may be many answers to somebody else.
    if !ip.unicast && !local.v6.may_tell(local.now) {
        return eth::drop(engine, frame, Drop::IcmpUntold);
    }
    let answer = Flow::icmp(Direction::Out, remote, local.ip_at(slot), ECHO_REPLY, 0);
    if acl::judge(local, &answer, Counts::Nothing).is_err() {
        return local.pool.free(frame.mbuf);
    }
    reply(local, frame, ip, slot);
}

/// Turns an echo request into its reply.
fn reply(local: &mut Local, mut frame: RxFrame, ip: &Ip<Address>, slot: u8) {
    let (mac, from, hops) = (local.mac, local.v6.address(slot), local.v6.config.hops);
    let at = usize::from(frame.offset);
    let area = local.pool.area();
    let data = area.data_mut(&mut frame.mbuf);
    // Extension headers do not come back: what they were before goes away.
    data.copy_within(ip.payload..ip.payload + ip.len, ip.start + IPV6);
    let len = ETHERNET + IPV6 + ip.len;
    let Some(f) = data.get_mut(at..at + len) else {
        local.stats.drop(Drop::Truncated);
        return local.pool.free(frame.mbuf);
    };
    f.copy_within(6..12, 0);
    f[6..12].copy_from_slice(&mac);
    let head = (ip.len as u16, hops);
    finish(f, &from, &ip.source, head, ECHO_REPLY);
    let staged = Staged::Buffer { mbuf: frame.mbuf, offset: frame.offset, len: len as u16 };
    match local.tx.stage(staged) {
        Ok(()) => local.stats.add(Counter::IcmpEchoes, 1),
        Err(Staged::Buffer { mbuf, .. }) => {
            local.stats.drop(Drop::TxRingFull);
            local.pool.free(mbuf);
        }
        Err(_) => {}
    }
}

/// Writes the IPv6 header, the type and the checksum of a message that is in its place otherwise.
fn finish(f: &mut [u8], from: &Address, to: &Address, (len, hops): (u16, u8), kind: u8) {
    ipv6::emit(&mut f[ETHERNET..], from, to, ICMP, len, hops);
    let icmp = &mut f[ETHERNET + IPV6..];
    icmp[0] = kind;
    icmp[2..4].fill(0);
    let pseudo = checksum::pseudo_v6(from, to, ICMP, len);
    let field = checksum::finish(checksum::add(pseudo, checksum::sum(icmp)));
    icmp[2..4].copy_from_slice(&field);
}

/// Nobody has the port of a datagram, which lies at `start..end` of its buffer from the IPv6 header on.
#[cold]
pub fn port_unreachable(local: &mut Local, frame: &RxFrame, start: usize, end: usize) {
    error(local, frame, (start, end), [UNREACHABLE, NO_PORT], 0, false);
}

/// The rules do not let a packet in. Whether the sender is told.
#[cold]
pub fn prohibited(local: &mut Local, frame: &RxFrame, start: usize, end: usize) -> bool {
    error(local, frame, (start, end), [UNREACHABLE, PROHIBITED], 0, false)
}

/// A packet cannot be understood where `pointer` says.
#[cold]
pub fn problem(
    local: &mut Local,
    frame: &RxFrame,
    place: (usize, usize),
    (code, pointer): (u8, u32),
    even_group: bool,
) {
    error(local, frame, place, [PARAMETER_PROBLEM, code], pointer, even_group);
}

/// Sends an error about a packet, with as much of it as fits (RFC 4443 §2.4 c), unless §2.4 e forbids or
/// the rate is used up. Whether it was sent.
fn error(
    local: &mut Local,
    frame: &RxFrame,
    (start, end): (usize, usize),
    what: [u8; 2],
    word: u32,
    even_group: bool,
) -> bool {
    let area = local.pool.area();
    let data = area.data(&frame.mbuf);
    let at = usize::from(frame.offset);
    let (Some(ethernet), Some(packet)) = (data.get(at..at + ETHERNET), data.get(start..end)) else {
        return false;
    };
    let Some(h) = packet.first_chunk::<IPV6>() else { return false };
    let address = |at: usize| -> Address {
        let mut address = [0; 16];
        address.copy_from_slice(&h[at..at + 16]);
        address
    };
    let (source, destination) = (address(8), address(24));
    let group = ipv6::is_multicast(&destination) || ethernet[0] & 1 != 0;
    if !ipv6::is_host(&source) || group && !even_group || is_error(packet) {
        return false;
    }
    let slot = match local.v6.slot_of(&destination) {
        0 => local.v6.source_for(&source),
        slot => Some(slot),
    };
    let Some(slot) = slot else { return false };
    let (from, hops) = (local.v6.address(slot), local.v6.config.hops);
    let flow = Flow::icmp(Direction::Out, IpAddress(source), IpAddress(from), what[0], what[1]);
    let quoted = packet.len().min(usize::from(MTU_MIN) - IPV6 - HEADER);
    if acl::judge(local, &flow, Counts::Nothing).is_err() {
        return false;
    }
    if !local.v6.may_tell(local.now) {
        local.stats.drop(Drop::IcmpUntold);
        return false;
    }
    let Some(mut answer) = local.pool.alloc() else {
        local.stats.drop(Drop::NoBuffer);
        return false;
    };
    let area = local.pool.area();
    let len = ETHERNET + IPV6 + HEADER + quoted;
    let question = area.data(&frame.mbuf);
    let f = &mut area.data_mut(&mut answer)[..len];
    f[0..6].copy_from_slice(&question[at + 6..at + 12]);
    f[6..12].copy_from_slice(&local.mac);
    f[12..14].copy_from_slice(&[0x86, 0xdd]);
    let icmp = &mut f[ETHERNET + IPV6..];
    icmp[1] = what[1];
    icmp[4..8].copy_from_slice(&word.to_be_bytes());
    icmp[HEADER..].copy_from_slice(&question[start..start + quoted]);
    finish(f, &from, &source, ((HEADER + quoted) as u16, hops), what[0]);
    match local.tx.stage(Staged::Buffer { mbuf: answer, offset: 0, len: len as u16 }) {
        Ok(()) => {
            local.stats.add(Counter::IcmpErrorsSent, 1);
            true
        }
        Err(Staged::Buffer { mbuf, .. }) => {
            local.stats.drop(Drop::TxRingFull);
            local.pool.free(mbuf);
            false
        }
        Err(_) => false,
    }
}

/// Whether a packet is an ICMPv6 error, or may be one: no error is answered by another.
fn is_error(packet: &[u8]) -> bool {
    match ipv6::walk(packet) {
        Ok(found) if found.protocol == ICMP => {
            packet.get(found.at).is_none_or(|kind| *kind < INFORMATION || *kind == REDIRECT)
        }
        _ => false,
    }
}
