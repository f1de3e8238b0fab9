//! The filter as people write and read it.
use crate::cli::{FilterArgs, Way};
use anyhow::{Result, bail};
use ix_abi::capture::{Direction, Filter};
use ix_abi::{GroupId, IpAddress};
use std::net::IpAddr;

/// The filter that the options ask for.
pub fn of(args: &FilterArgs) -> Result<Filter> {
    Ok(Filter {
        address: args.address.as_deref().map(prefix).transpose()?,
        port: args.port,
        protocol: args.protocol.as_deref().map(protocol).transpose()?,
        group: args.group.map(GroupId),
        direction: match args.direction {
            None => Direction::Both,
            Some(Way::In) => Direction::In,
            Some(Way::Out) => Direction::Out,
        },
        ..Filter::default()
    })
}

/// An address, or an address with a prefix length.
fn prefix(text: &str) -> Result<(IpAddress, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        bail!("--address {text}: an address or ADDRESS/LENGTH is wanted, such as 10.0.2.0/24");
    };
    let (bits, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let length = match length.map(str::parse::<u8>) {
        None => bits,
        Some(Ok(length)) if length <= bits => length,
        Some(_) => bail!("--address {text}: the length is a number from 0 to {bits}"),
    };
    let bytes = match address {
        IpAddr::V4(v4) => IpAddress::v4(v4.octets()),
        IpAddr::V6(v6) => IpAddress(v6.octets()),
    };
    Ok((bytes, before + length))
}

const NAMES: [(&str, u16); 7] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("icmpv6", 58),
    ("arp", 0x806),
    ("ip", 0x800),
    ("ipv6", 0x86dd),
];

fn protocol(text: &str) -> Result<u16> {
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == text) {
        return Ok(*number);
    }
    let number = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    match number {
        Some(number) if !(256..0x600).contains(&number) => Ok(number),
        _ => bail!(
            "--protocol {text}: tcp, udp, icmp, icmpv6, arp, ip, ipv6, an IP protocol's number (0 to 255) \
             or an EtherType (0x600 and above) is wanted"
        ),
    }
}

/// In words.
pub fn text(filter: &Filter) -> String {
    let mut parts = Vec::new();
    if let Some((address, length)) = filter.address {
        let length = if address.to_v4().is_some() { length.saturating_sub(96) } else { length };
        parts.push(format!("address {address}/{length}"));
    }
    if let Some(port) = filter.port {
        parts.push(format!("port {port}"));
    }
    if let Some(protocol) = filter.protocol {
        let name = NAMES.iter().find(|(_, number)| *number == protocol);
        parts.push(
            name.map_or_else(|| format!("protocol {protocol}"), |(name, _)| (*name).to_owned()),
        );
    }
    if let Some(group) = filter.group {
        parts.push(format!("group {}", group.0));
    }
    if filter.direction != Direction::Both {
        parts.push(filter.direction.text().to_owned());
    }
    if parts.is_empty() { "all packets".to_owned() } else { parts.join(", ") }
}
