//! The text of a script. Errors name the file and the line.
mod command;
mod segment;

use crate::Failure;
use crate::script::{Claim, Line, Script, What, When};
use crate::settings::Settings;

/// Parses a script; `name` is for errors.
pub fn parse(name: &str, text: &str) -> Result<Script, Failure> {
    let mut script = Script {
        name: name.to_owned(),
        claims: Vec::new(),
        settings: Settings::default(),
        lines: Vec::new(),
    };
    for (i, raw) in text.lines().enumerate() {
        take_line(&mut script, i + 1, raw).map_err(|reason| Failure {
            script: name.to_owned(),
            line: i + 1,
            text: raw.trim().to_owned(),
            reason,
            dump: Vec::new(),
        })?;
    }
    Ok(script)
}

fn take_line(script: &mut Script, number: usize, raw: &str) -> Result<(), String> {
    let text = raw.split('#').next().unwrap_or("").trim();
    let head = script.lines.is_empty();
    if text.is_empty() {
        if let Some(claim) = raw.trim().strip_prefix('#').filter(|_| head).and_then(claim) {
            script.claims.push(claim);
        }
        return Ok(());
    }
    if text.starts_with("--") {
        if !head {
            return Err("settings come before everything else".to_owned());
        }
        return settings(&mut script.settings, text);
    }
    let line = line(number, text)?;
    command::expand(line, &mut script.lines)
}

/// `RFC 9293 §3.5: text`: a comment that begins with `RFC`.
fn claim(comment: &str) -> Option<Claim> {
    let (source, behaviour) = comment.trim().split_once(": ")?;
    let known = source.starts_with("RFC ") && source.contains('§');
    known.then(|| Claim { source: source.to_owned(), behaviour: behaviour.trim().to_owned() })
}

fn settings(settings: &mut Settings, text: &str) -> Result<(), String> {
    let mut words = text.split_whitespace();
    while let Some(key) = words.next() {
        let key = key.strip_prefix("--").ok_or_else(|| format!("{key:?} is no --key"))?;
        let value = words.next().ok_or_else(|| format!("--{key} has no value"))?;
        settings.set(key, value)?;
    }
    Ok(())
}

/// `[TIME] [xN] [[conn]] what …`
fn line(number: usize, text: &str) -> Result<Line, String> {
    let mut rest = text;
    let mut line = Line {
        number,
        text: text.to_owned(),
        when: When::After(0, 0),
        times: 1,
        conn: "a".to_owned(),
        what: What::Fresh,
    };
    if rest.starts_with(|c: char| c == '+' || c.is_ascii_digit()) {
        let (word, after) = split(rest);
        line.when = when(word).ok_or_else(|| format!("{word:?} is no time"))?;
        rest = after;
    }
    if let Some(count) = split(rest).0.strip_prefix('x').and_then(|n| n.parse().ok()) {
        line.times = count;
        rest = split(rest).1;
    }
    if let Some(label) = split(rest).0.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
        line.conn = label.to_owned();
        rest = split(rest).1;
    }
    line.what = what(rest)?;
    Ok(line)
}

fn what(rest: &str) -> Result<What, String> {
    let (word, after) = split(rest);
    let icmp = after.strip_prefix("icmp ");
    match (word, icmp) {
        ("<", Some(message)) => command::icmp(message).map(What::InjectIcmp),
        (">", Some(message)) => command::icmp(message).map(What::ExpectIcmp),
        ("<", None) => segment::injected(after).map(What::Inject),
        (">", None) => segment::expected(after).map(What::Expect),
        (">>", None) => segment::expected(after).map(What::ExpectLast),
        _ => command::what(rest),
    }
}

/// The first word and the rest.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

fn when(word: &str) -> Option<When> {
    if word == "+*" {
        return Some(When::Any);
    }
    let (relative, word) = word.strip_prefix('+').map_or((false, word), |rest| (true, rest));
    let (from, to) = match word.split_once('~') {
        Some((from, to)) => (duration(from)?, duration(to)?),
        None => (duration(word)?, duration(word)?),
    };
    (from <= to).then_some(if relative { When::After(from, to) } else { When::At(from, to) })
}

/// `1.5s`, `10ms`, `200us`, `0`; in nanoseconds.
pub fn duration(word: &str) -> Option<u64> {
    let unit = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (number, unit) = word.split_at(unit);
    let value: f64 = number.parse().ok().filter(|value| *value >= 0.0)?;
    let scale = match unit {
        "s" => 1e9,
        "ms" => 1e6,
        "us" => 1e3,
        "" if value == 0.0 => 1.0,
        _ => return None,
    };
    Some((value * scale).round() as u64)
}
