//! Everything that is not a segment: calls, events, counters, messages, and the lines that stand for
//! several.
use super::{duration, segment, split};
use crate::script::{
    Call, Counted, Event, Icmp, IcmpKind, Ip, Line, Num, Opt, Outcome, Relation, Segment, What,
    When, flag,
};
use ix_abi::stats::{Counter, Drop};
use ix_abi::{DeadReason, SocketAddress, Status, TcpOption};

/// A line that begins with a word.
pub fn what(text: &str) -> Result<What, String> {
    let (word, rest) = split(text);
    Ok(match word {
        "knock" => What::Told(Event::Knock),
        "connected" if rest.is_empty() => What::Told(Event::Connected(Status::Ok)),
        "connected" => What::Told(Event::Connected(status(rest)?)),
        "recv" => What::Told(Event::Recv(number(rest)?)),
        "sent" => What::Told(Event::Sent(number(rest)?)),
        "window" => What::Told(Event::Window(number(rest)?)),
        "eof" => What::Told(Event::Eof),
        "dead" => What::Told(Event::Dead(reason(rest)?)),
        "quiet" => What::Quiet(duration(rest).ok_or_else(|| format!("{rest:?} is no time"))?),
        "counter" | "drop" => counted(word, rest)?,
        "fresh" => What::Fresh,
        "hold" => What::Hold,
        "go" => What::Release,
        "established" => What::Established(syn(rest)?),
        "joined" => What::Joined(syn(rest)?),
        "dialled" => What::Dialled(syn(rest)?),
        _ => What::Calls(text.split(" & ").map(call).collect::<Result<_, _>>()?),
    })
}

/// The peer's SYN of a whole handshake; `ecn` in front: with ECE and CWR.
fn syn(rest: &str) -> Result<Segment, String> {
    let (flags, rest) = match split(rest) {
        ("ecn", rest) => ("SEW", rest),
        _ => ("S", rest),
    };
    segment::injected(&format!("{flags} 0:0(0) {rest}"))
}

/// Adds a line, or the lines that it stands for.
pub fn expand(line: Line, lines: &mut Vec<Line>) -> Result<(), String> {
    let steps = match &line.what {
        What::Established(syn) => passive(syn, true),
        What::Joined(syn) => passive(syn, false),
        What::Dialled(syn) => active(syn),
        _ => {
            check(&line)?;
            lines.push(line);
            return Ok(());
        }
    };
    for (i, what) in steps.into_iter().enumerate() {
        let when = if i == 0 { line.when } else { When::After(0, 0) };
        lines.push(Line { when, what, ..line.clone() });
    }
    Ok(())
}

fn check(line: &Line) -> Result<(), String> {
    if line.times != 1 && !matches!(line.what, What::Inject(_) | What::Expect(_)) {
        return Err("only segments can be repeated".to_owned());
    }
    let exact = matches!(line.when, When::After(a, b) | When::At(a, b) if a == b);
    let awaited = matches!(
        line.what,
        What::Expect(_) | What::ExpectLast(_) | What::ExpectIcmp(_) | What::Told(_)
    );
    if exact || awaited { Ok(()) } else { Err("only what is expected has no exact time".into()) }
}

/// The peer opens: SYN, SYN-ACK, ACK, `knock`, `accept`.
fn passive(syn: &Segment, listens: bool) -> Vec<What> {
    let ecn = syn.flags & flag::ECE;
    let mut steps = Vec::new();
    if listens {
        steps.push(What::Calls(vec![(Call::Listen(16), Outcome::Ok)]));
    }
    steps.extend([
        What::Inject(syn.clone()),
        // RFC 3168 §6.1.1: ECE without CWR agrees.
        What::Expect(plain(flag::SYN | flag::ACK | ecn, 0)),
        What::Inject(Segment { win: scaled_window(syn), ..plain(flag::ACK, 1) }),
        What::Told(Event::Knock),
        What::Calls(vec![(Call::Accept, Outcome::Ok)]),
    ]);
    steps
}

/// The application opens: `connect`, SYN, SYN-ACK, ACK, `connected`.
fn active(syn: &Segment) -> Vec<What> {
    let asks = if syn.flags & flag::ECE != 0 { flag::ECE | flag::CWR } else { 0 };
    let answer = (syn.flags & !flag::CWR) | flag::ACK;
    vec![
        What::Calls(vec![(Call::Connect(SocketAddress::default()), Outcome::Ok)]),
        What::Expect(Segment { ack: Num::Any, ..plain(flag::SYN | asks, 0) }),
        What::Inject(Segment { flags: answer, ack: Num::Relative(1), ..syn.clone() }),
        What::Expect(plain(flag::ACK, 1)),
        What::Told(Event::Connected(Status::Ok)),
        What::Window(scaled_window(syn)),
    ]
}

/// An empty segment that acknowledges the other side's SYN.
fn plain(flags: u16, seq: i64) -> Segment {
    Segment {
        flags,
        seq: Num::Relative(seq),
        len: Some(0),
        ack: Num::Relative(1),
        win: None,
        urg: None,
        options: None,
        more_options: false,
        ip: Ip::default(),
        parts: None,
        fragments: None,
    }
}

/// The SYN's window as the following segments say it.
fn scaled_window(syn: &Segment) -> Option<u16> {
    let shift = syn.options.iter().flatten().find_map(|option| match option {
        Opt::Wscale(shift) => *shift,
        _ => None,
    });
    syn.win.map(|win| win >> shift.unwrap_or(0))
}

fn counted(word: &str, rest: &str) -> Result<What, String> {
    let (name, rest) = split(rest);
    let counted = if word == "counter" {
        Counter::ALL.iter().find(|c| c.name() == name).map(|c| Counted::Counter(*c))
    } else {
        Drop::ALL.iter().find(|d| d.name() == name).map(|d| Counted::Drop(*d))
    };
    let counted = counted.ok_or_else(|| format!("nothing is counted as {name:?}"))?;
    let (relation, value) = match split(rest) {
        (">=", value) => (Relation::AtLeast, value),
        ("<=", value) => (Relation::AtMost, value),
        _ => (Relation::Equal, rest),
    };
    Ok(What::Counted(counted, relation, number(value)?))
}

fn call(text: &str) -> Result<(Call, Outcome), String> {
    let (text, outcome) = match text.split_once(" = ") {
        None => (text, Outcome::Ok),
        Some((text, outcome)) => (text, parse_outcome(outcome.trim())?),
    };
    let (word, rest) = split(text);
    let call = match (word, rest) {
        ("listen", "") => Call::Listen(16),
        ("listen", backlog) => Call::Listen(number(backlog)?),
        ("unlisten", "") => Call::Unlisten,
        ("accept", "") => Call::Accept,
        ("reject", "") => Call::Reject,
        ("connect", "") => Call::Connect(SocketAddress::default()),
        ("sendv", bytes) => Call::Sendv(number(bytes)?),
        ("write", bytes) => Call::Write(number(bytes)?),
        ("recv_done", bytes) => Call::RecvDone(number(bytes)?),
        ("close", "") => Call::Close,
        ("shutdown", "") => Call::Shutdown,
        ("abort", "") => Call::Abort,
        ("set_option" | "set_listener_option", pair) => {
            let (name, value) = split(pair);
            let option = TcpOption::ALL.iter().find(|option| option.text() == name);
            let option = option.ok_or_else(|| format!("{name:?} is no option"))?;
            Call::SetOption(word == "set_listener_option", *option, number(value)?)
        }
        _ => return Err(format!("{text:?} is neither a segment nor a call nor an event")),
    };
    Ok((call, outcome))
}

fn parse_outcome(text: &str) -> Result<Outcome, String> {
    if let Ok(bytes) = text.parse() {
        return Ok(Outcome::Took(bytes));
    }
    status(text).map(Outcome::Status)
}

/// `timed_out` for `TimedOut`.
fn status(text: &str) -> Result<Status, String> {
    let known = Status::ALL.iter().find(|status| snake(&format!("{status:?}")) == text);
    known.copied().ok_or_else(|| format!("{text:?} is no status"))
}

fn reason(text: &str) -> Result<DeadReason, String> {
    let known = DeadReason::ALL.iter().find(|reason| snake(&format!("{reason:?}")) == text);
    known.copied().ok_or_else(|| format!("{text:?} is no reason"))
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

/// `icmp KIND [mtu N] [seq N] [len N] [from N]`
pub fn icmp(text: &str) -> Result<Icmp, String> {
    let mut words = text.split_whitespace();
    let kind = match words.next().unwrap_or("") {
        "too_big" => IcmpKind::TooBig,
        "net_unreachable" => IcmpKind::Net,
        "host_unreachable" => IcmpKind::Host,
        "protocol_unreachable" => IcmpKind::Protocol,
        "port_unreachable" => IcmpKind::Port,
        "prohibited" => IcmpKind::Prohibited,
        "time_exceeded" => IcmpKind::Ttl,
        "source_quench" => IcmpKind::Quench,
        "echo_request" => IcmpKind::Ping,
        "echo_reply" => IcmpKind::Pong,
        other => return Err(format!("{other:?} is no message")),
    };
    let mut message = Icmp { kind, mtu: None, seq: Num::Any, len: 0, from: None };
    while let Some(word) = words.next() {
        let value = words.next().ok_or_else(|| format!("`{word}` has no value"))?;
        match word {
            "mtu" => message.mtu = Some(number(value)?),
            "seq" => message.seq = segment::num(value)?,
            "len" => message.len = number(value)?,
            "from" => message.from = Some(number(value)?),
            _ => return Err(format!("`{word}` is nothing that a message has")),
        }
    }
    Ok(message)
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number that fits"))
}
