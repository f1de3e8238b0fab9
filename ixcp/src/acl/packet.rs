//! What `ixcp acl test --packet` is asked about: `tcp 10.0.2.2:4000 -> :11211`, `out udp :53 -> 10.0.2.3:53`,
//! `icmp 10.0.2.2 echo-request`.
use super::file;
use ix_abi::IpAddress;
use ix_acl::{Direction, Flow, Protocol};
use std::net::IpAddr;

const WANTED: &str = "[in|out] PROTOCOL FROM -> TO [ICMP-TYPE], like \"tcp 10.0.2.2:4000 -> :11211\" \
    (we are the side without address), \"out udp :50 -> 10.0.2.2:53\" or \"icmp 10.0.2.2 -> echo-request\"";

/// Reads a packet. Our address is `local`.
pub fn parse(text: &str, local: IpAddress) -> Result<Flow, String> {
    let wrong = |what: &str| format!("{text:?}: {what}; wanted is {WANTED}");
    let mut words: Vec<&str> = text.split_whitespace().filter(|w| *w != "->").collect();
    let said = match words.first() {
        Some(&"in") => Some(Direction::In),
        Some(&"out") => Some(Direction::Out),
        _ => None,
    };
    if said.is_some() {
        words.remove(0);
    }
    let [name, rest @ ..] = &words[..] else { return Err(wrong("no protocol")) };
    let protocol = file::protocol(name).ok().flatten().ok_or_else(|| wrong("no such protocol"))?;
    if protocol == Protocol::Icmp {
        let (ends, kind) = rest.split_at(rest.len().saturating_sub(1));
        let [kind] = kind else { return Err(wrong("no ICMP type")) };
        let (kind, code) = file::icmp(kind).map_err(|what| wrong(&format!("ICMP type {what}")))?;
        let remote = match ends {
            [] => return Err(wrong("no address")),
            [one] | [one, _] => one.parse::<IpAddr>().map_err(|_| wrong("no address"))?,
            _ => return Err(wrong("too many words")),
        };
        let direction = said.unwrap_or(Direction::In);
        return Ok(Flow::icmp(direction, address(remote), local, kind, code.unwrap_or(0)));
    }
    let [from, to] = rest else { return Err(wrong("not two ends")) };
    let ends = [end(from), end(to)];
    let [Some(from), Some(to)] = ends else { return Err(wrong("not ADDRESS:PORT or :PORT")) };
    let direction = match (said, from.0, to.0) {
        (Some(said), ..) => said,
        (None, Some(_), None) => Direction::In,
        (None, None, Some(_)) => Direction::Out,
        _ => return Err(wrong("which side are we? Say in or out")),
    };
    let (theirs, ours) = if direction == Direction::In { (from, to) } else { (to, from) };
    let Some(remote) = theirs.0 else { return Err(wrong("the peer has no address")) };
    let (remote, local) = (address(remote), ours.0.map_or(local, address));
    Ok(Flow { direction, protocol, remote, local, remote_port: theirs.1, local_port: ours.1 })
}

fn address(ip: IpAddr) -> IpAddress {
    match ip {
        IpAddr::V4(v4) => IpAddress::v4(v4.octets()),
        IpAddr::V6(v6) => IpAddress(v6.octets()),
    }
}

/// `ADDRESS:PORT`, `[ADDRESS]:PORT` or `:PORT`.
fn end(text: &str) -> Option<(Option<IpAddr>, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if host.is_empty() {
        return Some((None, port));
    }
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    Some((Some(bare.parse().ok()?), port))
}
