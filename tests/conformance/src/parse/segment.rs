//! Segments: `FLAGS SEQ:END(LEN) [ack N] [win N] [urg N] [<options>] [ect0|ect1|ce|noect] …`
use crate::script::{Fragments, Ip, Num, Opt, Segment, flag};

/// One that the peer sends: nothing may be left open.
pub fn injected(text: &str) -> Result<Segment, String> {
    let segment = parse(text)?;
    if segment.seq == Num::Any || segment.len.is_none() {
        return Err("a segment to send needs its sequence number and length".to_owned());
    }
    if segment.flags & flag::ACK != 0 && segment.ack == Num::Any {
        return Err("a segment to send with `.` needs its `ack`".to_owned());
    }
    let open = segment.options.iter().flatten().any(|option| {
        matches!(option, Opt::Mss(None) | Opt::Wscale(None) | Opt::Ts(Some((Num::Any, _))))
    });
    let even = |parts: u32| parts > 0 && segment.len.unwrap_or(0).is_multiple_of(parts);
    if segment.parts.is_some_and(|parts| !even(parts)) {
        return Err("`in N` cuts a segment to send into equal parts".to_owned());
    }
    if open || segment.more_options {
        return Err("a segment to send cannot leave anything open".to_owned());
    }
    Ok(segment)
}

/// A pattern for what the engine sends.
pub fn expected(text: &str) -> Result<Segment, String> {
    let segment = parse(text)?;
    if segment.parts == Some(0) && segment.len == Some(0) {
        return Err("`in *` needs something to be in".to_owned());
    }
    if segment.fragments.is_some() || segment.ip.bad_sum {
        return Err("only a segment to send can be cut or damaged".to_owned());
    }
    if segment.parts.is_some() && segment.len.is_none() {
        return Err("`in N` needs a length".to_owned());
    }
    Ok(segment)
}

fn parse(text: &str) -> Result<Segment, String> {
    let (outside, options) = match text.split_once('<') {
        None => (text.to_owned(), None),
        Some((before, rest)) => {
            let (inside, after) = rest.split_once('>').ok_or("the options have no `>`")?;
            (format!("{before} {after}"), Some(inside))
        }
    };
    let mut words = outside.split_whitespace();
    let flags = flags(words.next().ok_or("no flags")?)?;
    let (seq, len) = range(words.next().ok_or("no sequence number")?)?;
    let mut segment = Segment {
        flags,
        seq,
        len,
        ack: Num::Any,
        win: None,
        urg: None,
        options: None,
        more_options: false,
        ip: Ip::default(),
        parts: None,
        fragments: None,
    };
    if let Some(text) = options {
        (segment.options, segment.more_options) = parse_options(text)?;
    }
    while let Some(word) = words.next() {
        field(&mut segment, word, &mut words)?;
    }
    Ok(segment)
}

fn field<'a>(
    segment: &mut Segment,
    word: &str,
    words: &mut impl Iterator<Item = &'a str>,
) -> Result<(), String> {
    let mut value = || words.next().ok_or_else(|| format!("`{word}` has no value"));
    match word {
        "ack" => segment.ack = num(value()?)?,
        "win" => segment.win = pattern(value()?)?,
        "urg" => segment.urg = pattern(value()?)?,
        "in" => segment.parts = pattern(value()?)?.or(Some(0)),
        "ttl" => segment.ip.ttl = pattern(value()?)?,
        "dscp" => segment.ip.dscp = pattern(value()?)?,
        "noect" => segment.ip.ecn = Some(0),
        "ect1" => segment.ip.ecn = Some(1),
        "ect0" => segment.ip.ecn = Some(2),
        "ce" => segment.ip.ecn = Some(3),
        "df" => segment.ip.df = Some(true),
        "nodf" => segment.ip.df = Some(false),
        "badsum" => segment.ip.bad_sum = true,
        "frag" => {
            let bytes = value()?.parse().map_err(|_| "`frag` wants a number")?;
            if bytes == 0 || bytes % 8 != 0 {
                return Err("fragments are multiples of 8 bytes".to_owned());
            }
            let plain = Fragments { bytes, reverse: false, lost: None, twice: false };
            segment.fragments = Some(plain);
        }
        "reverse" => fragments(segment)?.reverse = true,
        "twice" => fragments(segment)?.twice = true,
        "lost" => {
            let which = value()?.parse().map_err(|_| "`lost` wants a number")?;
            fragments(segment)?.lost = Some(which);
        }
        _ => return Err(format!("`{word}` is nothing that a segment has")),
    }
    Ok(())
}

fn fragments(segment: &mut Segment) -> Result<&mut Fragments, String> {
    segment.fragments.as_mut().ok_or_else(|| "comes after `frag N`".to_owned())
}

fn flags(word: &str) -> Result<u16, String> {
    if word == "-" {
        return Ok(0);
    }
    let bit = |c: char| {
        let known = flag::LETTERS.iter().find(|(letter, _)| *letter == c);
        known.map(|(_, bit)| *bit).ok_or_else(|| format!("{c:?} is no control bit"))
    };
    word.chars().try_fold(0, |flags, c| Ok(flags | bit(c)?))
}

/// `1:1001(1000)`, `*(1000)`, `*`.
fn range(word: &str) -> Result<(Num, Option<u32>), String> {
    if word == "*" {
        return Ok((Num::Any, None));
    }
    let bad = || format!("{word:?} is no SEQ:END(LEN)");
    let (seqs, len) = word.split_once('(').ok_or_else(bad)?;
    let len: u32 = len.strip_suffix(')').and_then(|l| l.parse().ok()).ok_or_else(bad)?;
    if seqs == "*" {
        return Ok((Num::Any, Some(len)));
    }
    let (from, to) = seqs.split_once(':').ok_or_else(bad)?;
    let (from, to) = (num(from)?, num(to)?);
    let fits = match (from, to) {
        (Num::Relative(from), Num::Relative(to)) => to - from == i64::from(len),
        (Num::Absolute(from), Num::Absolute(to)) => to.wrapping_sub(from) == len,
        _ => false,
    };
    if fits { Ok((from, Some(len))) } else { Err(format!("{word:?} does not add up")) }
}

/// `5`, `-1`, `=5`, `*`.
pub fn num(word: &str) -> Result<Num, String> {
    let bad = |_| format!("{word:?} is no number");
    if word == "*" {
        Ok(Num::Any)
    } else if let Some(absolute) = word.strip_prefix('=') {
        absolute.parse().map(Num::Absolute).map_err(bad)
    } else {
        word.parse().map(Num::Relative).map_err(bad)
    }
}

fn pattern<T: std::str::FromStr>(word: &str) -> Result<Option<T>, String> {
    if word == "*" {
        return Ok(None);
    }
    word.parse().map(Some).map_err(|_| format!("{word:?} is no number that fits"))
}

/// The options, and whether others may be there.
fn parse_options(text: &str) -> Result<(Option<Vec<Opt>>, bool), String> {
    let mut options = Vec::new();
    let mut more = false;
    for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
        if item == "..." {
            more = true;
        } else {
            options.push(option(item)?);
        }
    }
    Ok((Some(options), more))
}

fn option(item: &str) -> Result<Opt, String> {
    let words: Vec<&str> = item.split_whitespace().collect();
    Ok(match words[..] {
        ["nop"] => Opt::Nop,
        ["eol"] => Opt::Eol,
        ["sackOK"] => Opt::SackOk,
        ["mss", value] => Opt::Mss(pattern(value)?),
        ["wscale", value] => Opt::Wscale(pattern(value)?),
        ["TS"] => Opt::Ts(None),
        ["TS", value, echo] => Opt::Ts(Some((num(value)?, num(echo)?))),
        ["sack", ref blocks @ ..] => {
            let block = |block: &&str| {
                let (from, to) = block.split_once(':').ok_or("a SACK block is FROM:TO")?;
                Ok::<_, String>((num(from)?, num(to)?))
            };
            Opt::Sack(blocks.iter().map(block).collect::<Result<_, _>>()?)
        }
        ["raw", hex] => {
            let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
            Opt::Raw(bytes.ok_or_else(|| format!("{hex:?} is not hexadecimal"))?)
        }
        _ => return Err(format!("{item:?} is no option")),
    })
}
