//! A packet in one line, much as tcpdump says it:
//! `[1234 us] rx c0 g17 10.0.2.2.4000 > 10.0.2.15.11211 S 123:123 win 64240 <mss 1460> len 0`.
use super::headers::{ARP, Headers, IPV4, IPV6};
use crate::time::Instant;
use core::fmt::{Display, Formatter, Result};
use ix_abi::capture::Direction;
use ix_abi::{CoreId, GroupId, IpAddress};

/// What is to be said.
pub struct Line<'a> {
    pub h: &'a Headers,
    pub bytes: &'a [u8],
    pub direction: Direction,
    pub core: CoreId,
    pub group: Option<GroupId>,
    pub now: Instant,
}

impl Display for Line<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let way = if self.direction == Direction::In { "rx" } else { "tx" };
        write!(f, "[{} us] {way} c{}", self.now.0 / 1000, self.core.0)?;
        if let Some(group) = self.group {
            write!(f, " g{}", group.0)?;
        }
        match self.h.ether {
            ARP => self.arp(f),
            IPV4 | IPV6 => self.ip(f),
            other => write!(f, " type {other:#06x} len {}", self.bytes.len()),
        }
    }
}

impl Line<'_> {
    fn arp(&self, f: &mut Formatter<'_>) -> Result {
        let (Some(from), Some(to)) = (self.h.source, self.h.destination) else {
            return write!(f, " arp, malformed, len {}", self.bytes.len());
        };
        match self.bytes.get(20..28) {
            Some(&[0, 1, ..]) => write!(f, " arp who-has {to} tell {from}"),
            Some(&[0, 2, a, b, c, d, e, g]) => {
                write!(f, " arp {from} is-at {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
            }
            _ => f.write_str(" arp, unknown operation"),
        }
    }

    fn ip(&self, f: &mut Formatter<'_>) -> Result {
        let h = self.h;
        let (Some(from), Some(to)) = (h.source, h.destination) else {
            return write!(f, " ip, truncated, len {}", self.bytes.len());
        };
        match h.ports {
            Some((source, destination)) => write!(f, " {from}.{source} > {to}.{destination}")?,
            None => write!(f, " {from} > {to}")?,
        }
        let part = self.bytes.get(h.transport..h.end).unwrap_or(&[]);
        if h.fragment {
            f.write_str(" fragment")?;
        }
        match (h.protocol, h.ports) {
            (6, Some(_)) => tcp(f, part),
            (17, Some(_)) => write!(f, " udp len {}", part.len().saturating_sub(8)),
            (1, _) if !h.fragment => icmp(f, part),
            (58, _) if !h.fragment => icmp_v6(f, part),
            (protocol, _) => write!(f, " protocol {protocol} len {}", part.len()),
        }
    }
}

fn icmp(f: &mut Formatter<'_>, part: &[u8]) -> Result {
    let Some(&[kind, code, _, _, i0, i1, s0, s1]) = part.first_chunk::<8>() else {
        return f.write_str(" icmp, truncated");
    };
    let (id, seq) = (u16::from_be_bytes([i0, i1]), u16::from_be_bytes([s0, s1]));
    match kind {
        8 => write!(f, " icmp echo request id {id} seq {seq}")?,
        0 => write!(f, " icmp echo reply id {id} seq {seq}")?,
        _ => write!(f, " icmp type {kind} code {code}")?,
    }
    write!(f, " len {}", part.len() - 8)
}

fn icmp_v6(f: &mut Formatter<'_>, part: &[u8]) -> Result {
    let Some(head) = part.first_chunk::<8>() else { return f.write_str(" icmp6, truncated") };
    let (id, seq) =
        (u16::from_be_bytes([head[4], head[5]]), u16::from_be_bytes([head[6], head[7]]));
    let target = part.get(8..24).and_then(|bytes| bytes.first_chunk().copied()).map(IpAddress);
    match (head[0], target) {
        (128, _) => write!(f, " icmp6 echo request id {id} seq {seq}")?,
        (129, _) => write!(f, " icmp6 echo reply id {id} seq {seq}")?,
        (2, _) => write!(f, " icmp6 too big mtu {}", u32::from(id) << 16 | u32::from(seq))?,
        (133, _) => f.write_str(" icmp6 router solicitation")?,
        (134, _) => f.write_str(" icmp6 router advertisement")?,
        (135, Some(target)) => write!(f, " icmp6 who-has {target}")?,
        (136, Some(target)) => write!(f, " icmp6 {target} is here")?,
        (kind, _) => write!(f, " icmp6 type {kind} code {}", head[1])?,
    }
    write!(f, " len {}", part.len() - 8)
}

fn tcp(f: &mut Formatter<'_>, segment: &[u8]) -> Result {
    let Some(h) = segment.first_chunk::<20>() else { return f.write_str(" tcp, truncated") };
    let word = |at: usize| u32::from_be_bytes([h[at], h[at + 1], h[at + 2], h[at + 3]]);
    let header = usize::from(h[12] >> 4) * 4;
    let Some(options) = segment.get(20..header) else { return f.write_str(" tcp, malformed") };
    let (seq, len) = (word(4), (segment.len() - header) as u32);
    f.write_str(" ")?;
    let flags = h[13] & 0x3f;
    for (bit, letter) in ["F", "S", "R", "P", ".", "U"].into_iter().enumerate() {
        if flags >> bit & 1 == 1 {
            f.write_str(letter)?;
        }
    }
    if flags == 0 {
        f.write_str("none")?;
    }
    write!(f, " {seq}:{}", seq.wrapping_add(len))?;
    if flags & 0x10 != 0 {
        write!(f, " ack {}", word(8))?;
    }
    write!(f, " win {}", u16::from_be_bytes([h[14], h[15]]))?;
    if !options.is_empty() {
        f.write_str(" <")?;
        tcp_options(f, options)?;
        f.write_str(">")?;
    }
    write!(f, " len {len}")
}

/// Options as far as they make sense (RFC 9293 §3.1, 7323, 2018); at most 40 bytes.
fn tcp_options(f: &mut Formatter<'_>, mut options: &[u8]) -> Result {
    let mut separator = "";
    while let Some((&kind, rest)) = options.split_first() {
        f.write_str(separator)?;
        separator = ",";
        if kind < 2 {
            f.write_str(if kind == 0 { "eol" } else { "nop" })?;
            options = if kind == 0 { &[] } else { rest };
            continue;
        }
        let len = rest.first().map_or(0, |len| usize::from(*len));
        let Some(value) = options.get(2..len) else { return f.write_str("malformed") };
        match (kind, value) {
            (2, &[high, low]) => write!(f, "mss {}", u16::from_be_bytes([high, low]))?,
            (3, &[shift]) => write!(f, "wscale {shift}")?,
            (4, &[]) => f.write_str("sackOK")?,
            (5, blocks) => write!(f, "sack {}", blocks.len() / 8)?,
            (8, &[a, b, c, d, e, g, h, i]) => {
                let value = u32::from_be_bytes([a, b, c, d]);
                write!(f, "TS {value}/{}", u32::from_be_bytes([e, g, h, i]))?;
            }
            _ => write!(f, "option {kind}")?,
        }
        options = &options[len..];
    }
    Ok(())
}
