//! What goes to the engine and what comes from it.
use super::Runner;
use crate::conn::{Conn, Seen};
use crate::frame::{self, IpFields, Read, TCP, UDP};
use crate::options;
use crate::player::{PORT, Side, WAKE_PORT};
use crate::script::{Fragments, Icmp, IcmpKind, Num, Opt, Segment, flag};
use ix_abi::Condition;
use std::net::{IpAddr, Ipv4Addr};

const PLAIN: IpFields = IpFields { class: 0, ttl: 64, df: true };

impl Runner<'_> {
    /// The engine's address of the peer's version.
    pub(super) fn engine_ip(peer: IpAddr) -> IpAddr {
        match peer {
            IpAddr::V4(_) => frame::ENGINE_V4.into(),
            IpAddr::V6(_) => frame::ENGINE_V6.into(),
        }
    }

    /// A segment of the peer.
    pub(super) fn inject(&mut self, at: usize, wanted: &Segment) -> Result<(), String> {
        let auto = self.timestamps(at);
        let conn = &mut self.conns[at];
        conn.win = wanted.win.unwrap_or(conn.win);
        let port = *conn.local_port.get_or_insert(PORT);
        let bases = conn.bases();
        let syn = wanted.flags & flag::SYN != 0;
        let seq = options::resolve(wanted.seq, bases.peer);
        let options = match &wanted.options {
            Some(options) => options.clone(),
            None if conn.has_timestamps() && !syn => vec![Opt::Nop, Opt::Nop, Opt::Ts(None)],
            None => Vec::new(),
        };
        if syn {
            conn.ts_offered.0 = options.iter().any(|option| matches!(option, Opt::Ts(_)));
        }
        let named = options.iter().find_map(|option| match option {
            Opt::Ts(Some((value, _))) => Some(options::resolve(*value, 0)),
            _ => None,
        });
        if let Some(value) = named {
            conn.ts_peer = (value, self.now);
        }
        let first = syn && wanted.flags & flag::ACK == 0;
        let options = options::write(&options, &bases, auto, first);
        if options.len() > 40 {
            return Err("more options than a header has room for".to_owned());
        }
        let segment = frame::Segment {
            from_port: conn.peer_port,
            to_port: port,
            seq,
            ack: options::resolve(wanted.ack, bases.engine),
            flags: wanted.flags,
            win: conn.win,
            urg: wanted.urg.unwrap_or(0),
            payload: conn.payload(seq.wrapping_add(u32::from(syn)), wanted.len.unwrap_or(0)),
            options,
        };
        let (from, to) = (conn.peer, Self::engine_ip(conn.peer));
        let class = wanted.ip.dscp.unwrap_or(0) << 2 | wanted.ip.ecn.unwrap_or(0);
        let df = wanted.ip.df.unwrap_or(wanted.fragments.is_none());
        let ip = IpFields { class, ttl: wanted.ip.ttl.unwrap_or(64), df };
        let seen = options::read(&segment.options).unwrap_or_default();
        let text = format!("< {}", conn.describe(&segment, &seen, &ip, Side::Peer));
        let label = conn.label.clone();
        let bytes = frame::tcp(from, to, &segment, wanted.ip.bad_sum);
        let packet = frame::ip(from, to, TCP, ip, &bytes);
        if wanted.fragments.is_none() && packet.len() > usize::from(self.script.settings.mtu) {
            return Err("a packet longer than the link's MTU".to_owned());
        }
        self.note(&label, &text);
        match wanted.fragments {
            Some(how) => self.give_fragments(&packet, how),
            None => self.give(frame::ethernet(&packet)),
        }
        Ok(())
    }

    /// What a `TS` without values says: the peer's last value and the milliseconds since, the engine's
    /// latest value.
    fn timestamps(&self, at: usize) -> (u32, u32) {
        let conn = &self.conns[at];
        let (value, named) = conn.ts_peer;
        let ms = self.now.since(named.max(self.began)).0 / 1_000_000;
        (value.wrapping_add(ms as u32), conn.ts_latest)
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.station.machine.rx[0].inbox.push_back(frame);
    }

    fn give_fragments(&mut self, packet: &[u8], how: Fragments) {
        let mut parts = frame::fragments(packet, how.bytes);
        if let Some(lost) = how.lost.filter(|lost| *lost < parts.len()) {
            parts.remove(lost);
        }
        if how.reverse {
            parts.reverse();
        }
        for part in parts {
            let frame = frame::ethernet(&part);
            if how.twice {
                self.give(frame.clone());
            }
            self.give(frame);
        }
    }

    /// A message of the network, or of the peer.
    pub(super) fn inject_message(&mut self, at: usize, message: &Icmp) -> Result<(), String> {
        let conn = &self.conns[at];
        let mut from = conn.peer;
        if let (IpAddr::V4(ip), Some(last)) = (from, message.from) {
            let [a, b, c, _] = ip.octets();
            from = Ipv4Addr::new(a, b, c, last).into();
        }
        let to = Self::engine_ip(conn.peer);
        let v6 = from.is_ipv6();
        let kind = kind(message.kind, v6).ok_or("this version has no such message")?;
        let echo = matches!(message.kind, IcmpKind::Ping | IcmpKind::Pong);
        let word = if echo { 0x0007_0001 } else { message.mtu.unwrap_or(0) };
        let rest =
            if echo { (0..message.len).map(|i| i as u8).collect() } else { quote(conn, message)? };
        let bytes = frame::icmp(from, to, kind, word, &rest);
        let protocol = if v6 { 58 } else { 1 };
        let packet = frame::ip(from, to, protocol, PLAIN, &bytes);
        self.note(&conn.label.clone(), &format!("< icmp {:?} mtu {:?}", message.kind, message.mtu));
        self.give(frame::ethernet(&packet));
        Ok(())
    }

    /// A datagram of somebody else, so that the application is entered.
    pub(super) fn wake(&mut self) {
        let from = Ipv4Addr::new(10, 0, 0, 9).into();
        let to = frame::ENGINE_V4.into();
        let bytes = frame::udp(from, to, (WAKE_PORT, WAKE_PORT), b"wake");
        self.give(frame::ethernet(&frame::ip(from, to, UDP, PLAIN, &bytes)));
    }

    /// Takes what has come out since the last look. Whether there was anything.
    pub(super) fn collect(&mut self) -> bool {
        let frames: Vec<_> = self.station.machine.tx.outbox.drain(..).collect();
        let events = std::mem::take(&mut self.station.machine.player.events);
        let came = !frames.is_empty() || !events.is_empty();
        for bytes in frames {
            if let Err(wrong) = self.take_frame(&bytes) {
                self.wrong.get_or_insert(wrong);
            }
        }
        for event in events {
            self.take_event(event);
        }
        if let Some(broken) = self.station.machine.player.broken.pop() {
            self.wrong.get_or_insert(broken);
        }
        came
    }

    fn take_frame(&mut self, bytes: &[u8]) -> Result<(), String> {
        match frame::read(bytes)? {
            Read::Question(answer) => self.give(answer),
            Read::Other(_) => {}
            Read::Icmp { message, .. } => {
                self.note("-", &format!("> icmp type {} code {}", message[0], message[1]));
                self.messages.push_back((self.now, message));
            }
            Read::Tcp { to, ip, segment, options, .. } => {
                let whose = self.conns.iter().position(|conn| {
                    let known = conn.local_port.is_none_or(|port| port == segment.from_port);
                    conn.peer == to && conn.peer_port == segment.to_port && known
                });
                let at = whose.ok_or_else(|| format!("a segment to nobody: {segment:?}"))?;
                let conn = &mut self.conns[at];
                conn.local_port = Some(segment.from_port);
                if segment.flags & flag::SYN != 0 || !segment.payload.is_empty() {
                    conn.quoted = bytes[14..].to_vec();
                }
                let seen = Seen { at: self.now, ip, segment, options };
                let result = conn.take(seen.clone());
                let text = format!("> {}", self.show(&self.conns[at], &seen));
                self.note(&self.conns[at].label.clone(), &text);
                result.map_err(|wrong| format!("{wrong}: {text}"))?;
            }
        }
        Ok(())
    }

    pub(super) fn show(&self, conn: &Conn, seen: &Seen) -> String {
        conn.describe(&seen.segment, &seen.options, &seen.ip, Side::Engine)
    }

    fn take_event(&mut self, event: Condition) {
        let (handle, cookie) = match event {
            Condition::Knock { handle, remote, .. } => {
                let conn = self.conns.iter_mut().find(|conn| conn.peer_port == remote.port);
                if let Some(conn) = conn {
                    conn.handle = Some(handle);
                }
                (handle, 0)
            }
            Condition::Connected { handle, cookie, .. }
            | Condition::Recv { handle, cookie, .. }
            | Condition::Sent { handle, cookie, .. }
            | Condition::Dead { handle, cookie, .. }
            | Condition::Eof { handle, cookie } => (handle, cookie.0),
            _ => return,
        };
        let known = |conn: &Conn| conn.index as u64 + 1 == cookie || conn.handle == Some(handle);
        let Some(at) = self.conns.iter().position(known) else {
            self.wrong.get_or_insert(format!("an event of no connection: {event:?}"));
            return;
        };
        self.note(&self.conns[at].label.clone(), &format!("told: {event:?}"));
        self.conns[at].events.push_back((self.now, event));
    }
}

/// The packet that a message is about: its header and, as old routers do, eight bytes more; over IPv6 as much
/// as there is room for (RFC 4443 §3).
fn quote(conn: &Conn, message: &Icmp) -> Result<Vec<u8>, String> {
    let mut packet = conn.quoted.clone();
    let (header, keep) = if conn.peer.is_ipv4() { (20, 28) } else { (40, 1232) };
    packet.truncate(keep);
    let place = packet.get_mut(header + 4..header + 8).ok_or("no packet to quote was sent")?;
    if message.seq != Num::Any {
        let seq = options::resolve(message.seq, conn.bases().engine);
        place.copy_from_slice(&seq.to_be_bytes());
    }
    Ok(packet)
}

/// Type and code.
pub(super) fn kind(kind: IcmpKind, v6: bool) -> Option<(u8, u8)> {
    let (v4, six) = match kind {
        IcmpKind::TooBig => ((3, 4), Some((2, 0))),
        IcmpKind::Net => ((3, 0), Some((1, 0))),
        IcmpKind::Host => ((3, 1), Some((1, 3))),
        IcmpKind::Protocol => ((3, 2), Some((4, 1))),
        IcmpKind::Port => ((3, 3), Some((1, 4))),
        IcmpKind::Prohibited => ((3, 13), Some((1, 1))),
        IcmpKind::Ttl => ((11, 0), Some((3, 0))),
        IcmpKind::Quench => ((4, 0), None),
        IcmpKind::Ping => ((8, 0), Some((128, 0))),
        IcmpKind::Pong => ((0, 0), Some((129, 0))),
    };
    if v6 { six } else { Some(v4) }
}
