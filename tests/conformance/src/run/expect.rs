//! What the engine must send and the application be told, compared with what came.
use super::Runner;
use super::wire::kind;
use crate::conn::Seen;
use crate::options::{self, Bases};
use crate::script::{Event, Icmp, IcmpKind, Num, Segment, When, flag};
use ix_abi::Condition;
use ix_dataplane::time::{Duration, Instant};

impl Runner<'_> {
    /// The next segment of a connection, or so many that make up one pattern.
    pub(super) fn expect(&mut self, at: usize, when: When, wanted: &Segment) -> Result<(), String> {
        let Some(parts) = wanted.parts else {
            return self.expect_one(at, when, wanted, wanted.seq, wanted.len).map(|_| ());
        };
        let (mut when, mut seq, mut left) = (when, wanted.seq, wanted.len.unwrap_or(0));
        let mut part = 0;
        loop {
            part += 1;
            let last = part == parts;
            let flags = if last { wanted.flags } else { wanted.flags & !(flag::FIN | flag::PSH) };
            let one = Segment { flags, ..wanted.clone() };
            let len = self.expect_one(at, when, &one, seq, last.then_some(left))?;
            left = left.checked_sub(len).ok_or("more bytes came than expected")?;
            if last || parts == 0 && left == 0 {
                break;
            }
            seq = match seq {
                Num::Relative(seq) => Num::Relative(seq + i64::from(len)),
                other => other,
            };
            when = When::After(0, 0);
        }
        Ok(())
    }

    /// Forgets all segments but the last of those that have come by `when`.
    pub(super) fn skip_to_last(&mut self, at: usize, when: When) -> Result<(), String> {
        let (from, _) = self.window(when);
        self.advance(from, |_| false)?;
        let segments = &mut self.conns[at].segments;
        segments.drain(..segments.len().saturating_sub(1));
        Ok(())
    }

    /// Returns the length of its payload.
    fn expect_one(
        &mut self,
        at: usize,
        when: When,
        wanted: &Segment,
        seq: Num,
        len: Option<u32>,
    ) -> Result<u32, String> {
        let (from, to) = self.window(when);
        self.advance(self.late(to), |runner| !runner.conns[at].segments.is_empty())?;
        let Some(seen) = self.conns[at].segments.pop_front() else {
            return Err(format!("expected a segment, nothing came until {}", self.clock(self.now)));
        };
        let bases = self.conns[at].bases();
        let complaints = compare(wanted, seq, len, &seen, &bases);
        if !complaints.is_empty() {
            let came = self.show(&self.conns[at], &seen);
            return Err(format!("{}; came: {came}", complaints.join("; ")));
        }
        self.in_time(seen.at, from, to)?;
        Ok(seen.segment.payload.len() as u32)
    }

    /// The next ICMP message.
    pub(super) fn expect_message(
        &mut self,
        at: usize,
        when: When,
        wanted: &Icmp,
    ) -> Result<(), String> {
        let (from, to) = self.window(when);
        self.advance(self.late(to), |runner| !runner.messages.is_empty())?;
        let Some((came_at, message)) = self.messages.pop_front() else {
            return Err("expected a message, nothing came".to_owned());
        };
        let kind = kind(wanted.kind, self.conns[at].peer.is_ipv6());
        if kind != Some((message[0], message[1])) {
            return Err(format!("expected {kind:?}, came type {} code {}", message[0], message[1]));
        }
        let echo = matches!(wanted.kind, IcmpKind::Ping | IcmpKind::Pong);
        let rest = &message[8..];
        if echo
            && !(rest.len() == wanted.len && rest.iter().enumerate().all(|(i, b)| *b == i as u8))
        {
            return Err(format!("expected an echo of {} bytes, came {rest:?}", wanted.len));
        }
        self.in_time(came_at, from, to)
    }

    /// The application's next event; reports of sent memory are passed over unless they are wanted.
    pub(super) fn told(&mut self, at: usize, when: When, wanted: Event) -> Result<(), String> {
        let (from, to) = self.window(when);
        let mut left = match wanted {
            Event::Recv(bytes) | Event::Sent(bytes) => bytes,
            _ => 0,
        };
        loop {
            let sent = matches!(wanted, Event::Sent(_) | Event::Window(_));
            let fits = move |event: &Condition| sent || !matches!(event, Condition::Sent { .. });
            self.advance(self.late(to), |runner| {
                runner.conns[at].events.iter().any(|(_, event)| fits(event))
            })?;
            let events = &mut self.conns[at].events;
            let next = events.iter().position(|(_, event)| fits(event));
            let Some((came_at, event)) = next.and_then(|next| events.remove(next)) else {
                return Err(format!("expected {wanted:?}, the application was told nothing"));
            };
            left = match_event(wanted, &event, left)?;
            if left == 0 {
                // Without a time it may have come before the segments of the lines above.
                let from = if when == When::After(0, 0) { self.began } else { from };
                return self.in_time(came_at, from, to);
            }
        }
    }

    fn late(&self, to: Instant) -> Instant {
        to + Duration(self.script.settings.tolerance_ns)
    }

    /// Whether something came in its time, which is then the present line's.
    fn in_time(&mut self, at: Instant, from: Instant, to: Instant) -> Result<(), String> {
        if at + Duration(self.script.settings.tolerance_ns) < from || at > self.late(to) {
            let (at, from, to) = (self.clock(at), self.clock(from), self.clock(to));
            return Err(format!("it came at {at}, expected from {from} to {to}"));
        }
        self.line_at = self.line_at.max(at);
        Ok(())
    }

    fn clock(&self, at: Instant) -> String {
        format!("{:.6} s", at.since(self.began).0 as f64 / 1e9)
    }
}

/// What is left of the bytes that are wanted.
fn match_event(wanted: Event, event: &Condition, left: u64) -> Result<u64, String> {
    let rest = match (wanted, *event) {
        (Event::Knock, Condition::Knock { .. }) | (Event::Eof, Condition::Eof { .. }) => Some(0),
        (Event::Connected(want), Condition::Connected { outcome, .. }) => {
            (want == outcome).then_some(0)
        }
        (Event::Dead(want), Condition::Dead { reason, .. }) => (want == reason).then_some(0),
        (Event::Recv(_), Condition::Recv { len, .. }) => left.checked_sub(u64::from(len)),
        // An announcement of a window alone is passed over.
        (Event::Sent(_), Condition::Sent { bytes, .. }) => left.checked_sub(u64::from(bytes)),
        (Event::Window(want), Condition::Sent { window, .. }) => (want == window).then_some(0),
        _ => None,
    };
    rest.ok_or_else(|| format!("expected {wanted:?} ({left} bytes left), came {event:?}"))
}

/// All that is different.
fn compare(
    wanted: &Segment,
    seq: Num,
    len: Option<u32>,
    seen: &Seen,
    bases: &Bases,
) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut complain = |what: &str, good: bool, wanted: String| {
        if !good {
            complaints.push(format!("expected {what} {wanted}"));
        }
    };
    let segment = &seen.segment;
    let (flags, want) = (segment.flags, wanted.flags);
    // PSH is demanded where it is written, and never forbidden (RFC 9293 §3.9.1.2).
    let same = flags & !flag::PSH == want & !flag::PSH && flags & want == want;
    complain("flags", same, letters(want));
    complain("seq", options::fits(seq, bases.engine, segment.seq), number(seq));
    let bytes = segment.payload.len() as u32;
    complain("bytes", len.is_none_or(|len| len == bytes), format!("{len:?}"));
    let acked = flags & flag::ACK == 0 || options::fits(wanted.ack, bases.peer, segment.ack);
    complain("ack", acked, number(wanted.ack));
    complain("win", wanted.win.is_none_or(|win| win == segment.win), format!("{:?}", wanted.win));
    complain("urg", wanted.urg.is_none_or(|urg| urg == segment.urg), format!("{:?}", wanted.urg));
    if let Some(list) = &wanted.options {
        let good = options::match_all(list, wanted.more_options, &seen.options, bases);
        complain("options", good, format!("{list:?}"));
    }
    let ip = (wanted.ip, seen.ip);
    complain("ECN", ip.0.ecn.is_none_or(|ecn| ecn == ip.1.class & 3), format!("{:?}", ip.0.ecn));
    complain("DSCP", ip.0.dscp.is_none_or(|d| d == ip.1.class >> 2), format!("{:?}", ip.0.dscp));
    complain("TTL", ip.0.ttl.is_none_or(|ttl| ttl == ip.1.ttl), format!("{:?}", ip.0.ttl));
    complain("DF", ip.0.df.is_none_or(|df| df == ip.1.df), format!("{:?}", ip.0.df));
    complaints
}

fn letters(flags: u16) -> String {
    let set = flag::LETTERS.iter().filter(|(_, bit)| flags & bit != 0);
    set.map(|(letter, _)| *letter).collect()
}

fn number(num: Num) -> String {
    match num {
        Num::Any => "*".to_owned(),
        Num::Relative(value) => value.to_string(),
        Num::Absolute(value) => format!("={value}"),
    }
}
