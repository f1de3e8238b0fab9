//! TCP options: as bytes, as text, and compared with what a script says.
use crate::script::{Num, Opt};
use std::fmt::Write;

/// An option that was on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Maximum segment size.
    Mss(u16),
    /// Window shift.
    Wscale(u8),
    /// SACK permitted.
    SackOk,
    /// SACK blocks.
    Sack(Vec<(u32, u32)>),
    /// Timestamps: value, echo.
    Ts(u32, u32),
    /// Anything else, with kind and length.
    Raw(Vec<u8>),
}

/// The bases that relative numbers count from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bases {
    /// The engine's first sequence number.
    pub engine: u32,
    /// The peer's.
    pub peer: u32,
    /// The engine's first timestamp.
    pub ts: u32,
}

/// Options of a received header; `None`: malformed.
pub fn read(mut bytes: &[u8]) -> Option<Vec<Seen>> {
    let mut options = Vec::new();
    while let [kind, rest @ ..] = bytes {
        if *kind == 0 {
            // RFC 9293 §3.1 (MUST-69): what follows the end is zero.
            return rest.iter().all(|byte| *byte == 0).then_some(options);
        }
        if *kind == 1 {
            bytes = rest;
            continue;
        }
        let len = usize::from(*rest.first()?);
        let body = bytes.get(2..len)?;
        let word = |at: usize| Some(u32::from_be_bytes(body.get(at..at + 4)?.try_into().ok()?));
        options.push(match (*kind, body.len()) {
            (2, 2) => Seen::Mss(u16::from_be_bytes([body[0], body[1]])),
            (3, 1) => Seen::Wscale(body[0]),
            (4, 0) => Seen::SackOk,
            (5, n) if n % 8 == 0 && n > 0 => {
                let block = |at| Some((word(at)?, word(at + 4)?));
                Seen::Sack((0..n).step_by(8).map(block).collect::<Option<_>>()?)
            }
            (8, 8) => Seen::Ts(word(0)?, word(4)?),
            (2..=5 | 8, _) => return None,
            _ => Seen::Raw(bytes[..len].to_vec()),
        });
        bytes = &bytes[len..];
    }
    Some(options)
}

/// The bytes of options to send, padded; `auto`: the values of a `TS` without any.
pub fn write(options: &[Opt], bases: &Bases, auto: (u32, u32), syn: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for option in options {
        match option {
            Opt::Nop => bytes.push(1),
            Opt::Eol => bytes.push(0),
            Opt::SackOk => bytes.extend([4, 2]),
            Opt::Mss(value) => {
                bytes.extend([2, 4]);
                bytes.extend(value.unwrap_or_default().to_be_bytes());
            }
            Opt::Wscale(shift) => bytes.extend([3, 3, shift.unwrap_or_default()]),
            Opt::Raw(raw) => bytes.extend(raw),
            Opt::Sack(blocks) => {
                bytes.extend([5, 2 + 8 * blocks.len() as u8]);
                for (from, to) in blocks {
                    bytes.extend(resolve(*from, bases.engine).to_be_bytes());
                    bytes.extend(resolve(*to, bases.engine).to_be_bytes());
                }
            }
            Opt::Ts(values) => {
                let echo_base = if syn { 0 } else { bases.ts };
                let (value, echo) = match values {
                    Some((value, echo)) => (resolve(*value, 0), resolve(*echo, echo_base)),
                    None => auto,
                };
                bytes.extend([8, 10]);
                bytes.extend(value.to_be_bytes());
                bytes.extend(echo.to_be_bytes());
            }
        }
    }
    while bytes.len() % 4 != 0 {
        bytes.push(1);
    }
    bytes
}

/// A number to send.
pub fn resolve(num: Num, base: u32) -> u32 {
    match num {
        Num::Any => 0,
        Num::Absolute(value) => value,
        Num::Relative(value) => base.wrapping_add(value as u32),
    }
}

/// Whether a number is what the script says.
pub fn fits(num: Num, base: u32, value: u32) -> bool {
    num == Num::Any || resolve(num, base) == value
}

/// Whether options are those that the script says, in whatever order; padding does not count.
pub fn match_all(wanted: &[Opt], more: bool, seen: &[Seen], bases: &Bases) -> bool {
    let mut left: Vec<&Seen> = seen.iter().collect();
    for option in wanted {
        if matches!(option, Opt::Nop | Opt::Eol) {
            continue;
        }
        let Some(at) = left.iter().position(|seen| match_one(option, seen, bases)) else {
            return false;
        };
        left.remove(at);
    }
    more || left.is_empty()
}

fn match_one(option: &Opt, seen: &Seen, bases: &Bases) -> bool {
    match (option, seen) {
        (Opt::Mss(want), Seen::Mss(value)) => want.is_none_or(|want| want == *value),
        (Opt::Wscale(want), Seen::Wscale(value)) => want.is_none_or(|want| want == *value),
        (Opt::SackOk, Seen::SackOk) => true,
        (Opt::Ts(None), Seen::Ts(..)) => true,
        (Opt::Ts(Some((value, echo))), Seen::Ts(v, e)) => {
            fits(*value, bases.ts, *v) && fits(*echo, 0, *e)
        }
        (Opt::Sack(want), Seen::Sack(blocks)) => {
            let same = |((from, to), (f, t)): (&(Num, Num), &(u32, u32))| {
                fits(*from, bases.peer, *f) && fits(*to, bases.peer, *t)
            };
            want.len() == blocks.len() && want.iter().zip(blocks).all(same)
        }
        (Opt::Raw(want), Seen::Raw(bytes)) => want == bytes,
        _ => false,
    }
}

/// As a script would say it. `from_peer` turns the bases round.
pub fn describe(options: &[Seen], bases: &Bases, from_peer: bool) -> String {
    let sack_base = if from_peer { bases.engine } else { bases.peer };
    let (ts, echo) = if from_peer { (0, bases.ts) } else { (bases.ts, 0) };
    let mut words: Vec<String> = Vec::new();
    for option in options {
        words.push(match option {
            Seen::Mss(value) => format!("mss {value}"),
            Seen::Wscale(shift) => format!("wscale {shift}"),
            Seen::SackOk => "sackOK".to_owned(),
            Seen::Ts(v, e) => {
                format!("TS {} {}", v.wrapping_sub(ts) as i32, e.wrapping_sub(echo) as i32)
            }
            Seen::Sack(blocks) => blocks.iter().fold("sack".to_owned(), |mut text, (from, to)| {
                let relative = |value: u32| value.wrapping_sub(sack_base) as i32;
                let _ = write!(text, " {}:{}", relative(*from), relative(*to));
                text
            }),
            Seen::Raw(bytes) => bytes.iter().fold("raw ".to_owned(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        });
    }
    format!("<{}>", words.join(","))
}
