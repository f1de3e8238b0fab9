//! ICMP errors (RFC 792, RFC 1191, RFC 4443): whose packet one is about, and what it says of it. The error hashes
//! elsewhere than the connection, so it may have to go to the core that owns that.
use super::eth;
use super::ipv4::Ip;
use super::transport::steer_to_owner;
use crate::acl::{self, Counts};
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::family::Family;
use crate::flow_table::FlowKey;
use crate::ipv4::{HEADER, TCP};
use crate::ipv6;
use crate::rss::group_of;
use crate::tcp::reports::{self, Report};
use crate::tcp::seq::WrappingSeq;
use ix_abi::IpAddress;
use ix_abi::stats::Drop;
use ix_acl::{Direction, Flow};

const UNREACHABLE: u8 = 3;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER_PROBLEM: u8 = 12;
const ICMP_HEADER: usize = 8;

/// Whether a message of this type is an error. Source quench is none any more (RFC 6633).
pub fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM)
}

/// The packet that an error is about, as far as it is quoted.
#[derive(Clone, Copy)]
struct Quote<A> {
    source: A,
    destination: A,
    packet_len: u16,
    ports: (u16, u16),
    seq: u32,
}

/// Takes an intact ICMP error, of at least eight bytes.
pub fn handle<A: Family>(engine: &mut Engine, frame: RxFrame, ip: &Ip<A>) {
    let local = &mut engine.local;
    let message = local.pool.area().data(&frame.mbuf).get(ip.payload..ip.payload + ip.len);
    let message = message.unwrap_or(&[]);
    let head = message.first_chunk::<ICMP_HEADER>().copied().unwrap_or_default();
    let quote = message.get(ICMP_HEADER..).and_then(quoted::<A>);
    let Some(quote) = quote.filter(|quote| local.is_ours(quote.source.to_ip())) else {
        return eth::drop(engine, frame, Drop::Icmp);
    };
    let slot = if A::VERSION == 4 { 0 } else { local.v6.slot_of(&quote.source.to_ip().0) };
    // As the hash of what arrives for the connection.
    let (remote_port, local_port) = (quote.ports.1, quote.ports.0);
    let (ours, theirs) = (quote.source, quote.destination);
    let hash = A::hash(&local.toeplitz, theirs, ours, (remote_port, local_port));
    let id = usize::from(group_of(hash, local.groups).0);
    let Some(group) = engine.groups.get_mut(id).and_then(Option::as_mut) else {
        return steer_to_owner(engine, frame, id);
    };
    let (from, here) = (ip.source.to_ip(), ip.destination.to_ip());
    let question = Flow::icmp(Direction::In, from, here, head[0], head[1]);
    if acl::judge(local, &question, Counts::Rate).is_err() {
        return local.pool.free(frame.mbuf);
    }
    let key = FlowKey { remote: theirs.to_ip(), remote_port, local_port };
    let said = if A::VERSION == 4 { report(&head) } else { report_v6(&head) };
    match group.table.find_at(&group.conns, hash, &key, slot) {
        Some(index) => {
            let seq = WrappingSeq(quote.seq);
            group.conns.settle(index);
            reports::handle(group, local, index, said, seq, quote.packet_len);
        }
        None => local.stats.drop(Drop::IcmpUnproven),
    }
    local.pool.free(frame.mbuf);
}

/// Reads the quoted packet: its header, and at least the eight bytes behind that every router quotes.
/// Ours have no extension headers.
fn quoted<A: Family>(packet: &[u8]) -> Option<Quote<A>> {
    let (packet_len, header_len, addresses) = if A::VERSION == 4 {
        let h = packet.first_chunk::<HEADER>()?;
        let header_len = usize::from(h[0] & 15) * 4;
        // Of a fragment only the first has ports.
        let fragment = u16::from_be_bytes([h[6], h[7]]) & 0x1fff;
        if h[0] >> 4 != 4 || header_len < HEADER || h[9] != TCP || fragment != 0 {
            return None;
        }
        let address = |at: usize| IpAddress::v4([h[at], h[at + 1], h[at + 2], h[at + 3]]);
        (u16::from_be_bytes([h[2], h[3]]), header_len, (address(12), address(16)))
    } else {
        let h = packet.first_chunk::<{ ipv6::HEADER }>()?;
        if h[0] >> 4 != 6 || h[6] != TCP {
            return None;
        }
        let len = u16::from_be_bytes([h[4], h[5]]).saturating_add(ipv6::HEADER as u16);
        let (source, rest) = h[8..].split_first_chunk::<16>()?;
        let destination = rest.first_chunk::<16>()?;
        (len, ipv6::HEADER, (IpAddress(*source), IpAddress(*destination)))
    };
    let t = packet.get(header_len..)?.first_chunk::<8>()?;
    Some(Quote {
        source: A::from_ip(addresses.0),
        destination: A::from_ip(addresses.1),
        packet_len,
        ports: (u16::from_be_bytes([t[0], t[1]]), u16::from_be_bytes([t[2], t[3]])),
        seq: u32::from_be_bytes([t[4], t[5], t[6], t[7]]),
    })
}

/// What an ICMPv6 error says (RFC 4443 §3, RFC 8201 §4: no path takes less than 1280).
fn report_v6(head: &[u8; ICMP_HEADER]) -> Report {
    match (head[0], head[1]) {
        (2, _) => {
            let mtu = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
            Report::TooBig(u16::try_from(mtu).unwrap_or(u16::MAX).max(ipv6::MTU_MIN))
        }
        // Prohibited, no such port, policies; no such protocol.
        (1, 1 | 4..=6) | (4, ipv6::problem::NEXT_HEADER) => Report::Hard,
        _ => Report::Soft,
    }
}

/// What an error says (RFC 1122 §3.2.2.1, §4.2.3.9; RFC 1812 §5.2.7.1 for the prohibitions).
fn report(head: &[u8; ICMP_HEADER]) -> Report {
    match (head[0], head[1]) {
        (UNREACHABLE, 4) => Report::TooBig(u16::from_be_bytes([head[6], head[7]])),
        (UNREACHABLE, 2 | 3 | 9 | 10 | 13) => Report::Hard,
        _ => Report::Soft,
    }
}
