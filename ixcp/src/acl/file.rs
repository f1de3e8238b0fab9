//! A rules file (TOML, `docs/acl.md`) as rules. Every complaint names file, line and column, and says what
//! is wanted.
use ix_abi::IpAddress;
use ix_abi::acl::{CONNECTIONS_MAX, IN, OUT, RATE_MAX, RULES_MAX, TEXT_BYTES_MAX};
use ix_acl::rule::{ANY_PORT, Ports};
use ix_acl::{Action, Prefix, Protocol, Rule};
use serde::Deserialize;
use std::net::IpAddr;
use std::ops::Range;
use std::path::Path;
use toml::{Spanned, Value};

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {what}")]
pub struct Complaint {
    /// As it was named.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// And what to do.
    pub what: String,
}

/// A file that was understood.
#[derive(Debug)]
pub struct Rules {
    /// In order.
    pub rules: Vec<Rule>,
    /// In, out.
    pub defaults: [Action; 2],
    /// What `show` tells of each: its line and its name.
    pub notes: Vec<Note>,
    /// As the file was named.
    pub file: String,
}

/// Where a rule stands, and what it is called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Its line in the file, from 1; 0: not known.
    pub line: usize,
    /// Its name; may be empty.
    pub name: String,
}

impl Rules {
    /// The set as the kernel takes it, with the notes as its text.
    pub fn to_set(&self) -> Vec<u8> {
        let mut text = self.file.clone();
        for note in &self.notes {
            text += &format!("\n{} {}", note.line, note.name);
        }
        ix_acl::build::build(&self.rules, self.defaults, &text)
    }
}

/// Takes the text of a set apart: the file's name and the rules' notes. It comes from the kernel, so it may
/// be anything.
pub fn notes(text: &str, rules: usize) -> (String, Vec<Note>) {
    let clean = |text: &str| crate::serial::printable(text.as_bytes());
    let mut lines = text.split('\n');
    let file = clean(lines.next().unwrap_or_default());
    let note = |line: &str| {
        let (number, name) = line.split_once(' ').unwrap_or((line, ""));
        Note { line: number.parse().unwrap_or(0), name: clean(name) }
    };
    let mut notes: Vec<Note> = lines.take(rules).map(note).collect();
    notes.resize(rules, Note::default());
    (file, notes)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    default: Defaults,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    r#in: Option<Spanned<String>>,
    out: Option<Spanned<String>>,
}

type Field = Option<Spanned<Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RuleText {
    name: Option<Spanned<String>>,
    action: Spanned<String>,
    direction: Field,
    protocol: Field,
    remote: Field,
    local: Field,
    remote_ports: Field,
    local_ports: Field,
    icmp: Field,
    rate: Field,
    connections: Field,
}

/// A complaint about a place in the text.
type Wrong = (Range<usize>, String);

/// Reads a file.
pub fn read(path: &Path) -> anyhow::Result<Rules> {
    let file = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|e| anyhow::anyhow!("cannot read {file}: {e}"))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        anyhow::anyhow!("{file} is not text: byte {}", e.utf8_error().valid_up_to())
    })?;
    Ok(parse(&file, &text)?)
}

/// Reads a file's text.
pub fn parse(file: &str, text: &str) -> Result<Rules, Complaint> {
    let name = crate::serial::printable(file.as_bytes());
    understand(name, text).map_err(|(span, what)| {
        let before = text.get(..span.start).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Complaint {
            file: file.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            what,
        }
    })
}

fn understand(file: String, text: &str) -> Result<Rules, Wrong> {
    let raw: File = toml::from_str(text)
        .map_err(|e| (e.span().unwrap_or(0..0), e.message().replace('\n', "; ")))?;
    let default = |text: Option<Spanned<String>>| match text {
        Some(text) => {
            action(text.get_ref()).map_err(|what| (text.span(), format!("the default {what}")))
        }
        None => Ok(Action::Allow),
    };
    let defaults = [default(raw.default.r#in)?, default(raw.default.out)?];
    if raw.rule.len() > RULES_MAX {
        let span = raw.rule[RULES_MAX].span();
        return Err((
            span,
            format!("this is rule {}; a set has at most {RULES_MAX}", RULES_MAX + 1),
        ));
    }
    let mut rules = Rules { rules: Vec::new(), defaults, notes: Vec::new(), file };
    let mut bytes = rules.file.len();
    // Rules come in the order of the text: each line is found from the one before.
    let (mut line, mut seen) = (1, 0);
    for raw in raw.rule {
        let span = raw.span();
        let start = span.start.max(seen);
        line += text.get(seen..start).map_or(0, |between| between.matches('\n').count());
        seen = start;
        let raw = raw.into_inner();
        let name = raw.name.as_ref().map(|n| n.get_ref().clone()).unwrap_or_default();
        if let Some(odd) = raw.name.as_ref().filter(|n| n.get_ref().chars().any(char::is_control)) {
            return Err((odd.span(), "a name must be one line without control characters".into()));
        }
        bytes += name.len() + 16;
        if bytes > TEXT_BYTES_MAX {
            let what = format!("all names together are longer than {TEXT_BYTES_MAX} bytes");
            return Err((span, what));
        }
        rules.rules.push(rule(&raw, span)?);
        rules.notes.push(Note { line, name });
    }
    Ok(rules)
}

fn rule(raw: &RuleText, whole: Range<usize>) -> Result<Rule, Wrong> {
    let mut rule = Rule { directions: IN, ..Rule::ALLOW };
    let wrong = |what: String| (raw.action.span(), format!("action {what}"));
    rule.action = action(raw.action.get_ref()).map_err(wrong)?;
    field(&raw.direction, "direction", direction, |v| rule.directions = v)?;
    field(&raw.protocol, "protocol", protocol, |v| rule.protocol = v)?;
    field(&raw.remote, "remote", prefix, |v| rule.remote = v)?;
    field(&raw.local, "local", prefix, |v| rule.local = v)?;
    field(&raw.remote_ports, "remote-ports", ports, |v| rule.remote_ports = v)?;
    field(&raw.local_ports, "local-ports", ports, |v| rule.local_ports = v)?;
    field(&raw.icmp, "icmp", icmp, |v| rule.icmp = Some(v))?;
    field(&raw.rate, "rate", rate, |v| rule.rate = Some(v))?;
    field(&raw.connections, "connections", connections, |v| rule.connections = Some(v))?;
    combination(raw, &rule, whole)?;
    Ok(rule)
}

/// Reads a field, if it is there.
fn field<T>(
    field: &Field,
    name: &str,
    read: fn(&str) -> Result<T, String>,
    set: impl FnOnce(T),
) -> Result<(), Wrong> {
    let Some(value) = field else { return Ok(()) };
    let text = match value.get_ref() {
        Value::String(text) => text.trim().to_owned(),
        Value::Integer(number) => number.to_string(),
        other => {
            let what = format!("{name} is a {}; a text or a number is wanted", other.type_str());
            return Err((value.span(), what));
        }
    };
    set(read(&text).map_err(|what| (value.span(), format!("{name} {what}")))?);
    Ok(())
}

/// What no field by itself shows.
fn combination(raw: &RuleText, rule: &Rule, whole: Range<usize>) -> Result<(), Wrong> {
    let span = |field: &Field| field.as_ref().map(Spanned::span);
    let has_ports = matches!(rule.protocol, Some(Protocol::Tcp | Protocol::Udp));
    if let (Some(at), false) = (span(&raw.local_ports).or(span(&raw.remote_ports)), has_ports) {
        return Err((at, "ports need protocol = \"tcp\" or \"udp\"".into()));
    }
    if let (Some(at), true) = (span(&raw.icmp), rule.protocol != Some(Protocol::Icmp)) {
        return Err((at, "icmp needs protocol = \"icmp\"".into()));
    }
    let limit = span(&raw.rate).or(span(&raw.connections));
    if let (Some(at), true) = (limit, rule.action != Action::Allow) {
        return Err((at, "limits are for rules with action = \"allow\"".into()));
    }
    let tcp = matches!(rule.protocol, None | Some(Protocol::Tcp));
    if let (Some(at), false) = (span(&raw.connections), tcp) {
        return Err((at, "connections are counted for protocol = \"tcp\" only".into()));
    }
    // The kernel's own check: nothing that it refuses is sent to it.
    Rule::from_record(&rule.to_record())
        .map(|_| ())
        .map_err(|what| (whole, format!("this rule cannot be: {what}")))
}

fn action(text: &str) -> Result<Action, String> {
    match text {
        "allow" => Ok(Action::Allow),
        "deny" => Ok(Action::Deny),
        "reject" => Ok(Action::Reject),
        _ => Err(format!("{text:?} is unknown; allow, deny or reject is wanted")),
    }
}

fn direction(text: &str) -> Result<u8, String> {
    match text {
        "in" => Ok(IN),
        "out" => Ok(OUT),
        "both" => Ok(IN | OUT),
        _ => Err(format!("{text:?} is unknown; in, out or both is wanted")),
    }
}

/// A protocol, or `any`.
pub fn protocol(text: &str) -> Result<Option<Protocol>, String> {
    match text {
        "any" => Ok(None),
        "tcp" => Ok(Some(Protocol::Tcp)),
        "udp" => Ok(Some(Protocol::Udp)),
        "icmp" => Ok(Some(Protocol::Icmp)),
        _ => Err(format!("{text:?} is unknown; tcp, udp, icmp or any is wanted")),
    }
}

fn prefix(text: &str) -> Result<Prefix, String> {
    if text == "any" {
        return Ok(Prefix::ANY);
    }
    let wanted = || format!("{text:?} is no prefix; one like 10.1.2.0/24 or 10.1.2.3, or any");
    let (address, len) = match text.split_once('/') {
        Some((address, len)) => (address, Some(len.parse::<u8>().map_err(|_| wanted())?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| wanted())?;
    let (mapped, most) = match address {
        IpAddr::V4(v4) => (IpAddress::v4(v4.octets()), 32),
        IpAddr::V6(v6) => (IpAddress(v6.octets()), 128),
    };
    let len = len.unwrap_or(most);
    if len > most {
        return Err(format!("{text:?} has a prefix longer than {most} bits"));
    }
    let len = 128 - most + len;
    Prefix::new(mapped.0, len).ok_or_else(|| {
        let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
        let bits = u128::from_be_bytes(mapped.0) & mask;
        format!(
            "{text:?} has bits behind its prefix; {} is meant?",
            show_prefix(Prefix { bits, len })
        )
    })
}

fn ports(text: &str) -> Result<Ports, String> {
    if text == "any" {
        return Ok(ANY_PORT);
    }
    let number = |text: &str| text.trim().parse::<u16>().ok();
    let range = match text.split_once('-') {
        Some((first, last)) => number(first).zip(number(last)),
        None => number(text).map(|port| (port, port)),
    };
    match range {
        Some((first, last)) if first <= last => Ok((first, last)),
        Some(_) => Err(format!("{text:?} ends before it begins")),
        None => Err(format!("{text:?} is no port; 0 to 65535, a range like 1000-2000, or any")),
    }
}

/// Names of ICMP types.
pub const ICMP_TYPES: [(&str, u8); 8] = [
    ("echo-reply", 0),
    ("unreachable", 3),
    ("redirect", 5),
    ("echo-request", 8),
    ("time-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
];

/// An ICMP type, and perhaps a code.
pub fn icmp(text: &str) -> Result<(u8, Option<u8>), String> {
    let wanted = || {
        let names: Vec<&str> = ICMP_TYPES.iter().map(|t| t.0).collect();
        format!("{text:?} is unknown; TYPE or TYPE/CODE, by number or as {}", names.join(", "))
    };
    let (kind, code) = match text.split_once('/') {
        Some((kind, code)) => (kind.trim(), Some(code.trim().parse().map_err(|_| wanted())?)),
        None => (text, None),
    };
    let named = ICMP_TYPES.iter().find(|t| t.0 == kind).map(|t| t.1);
    Ok((named.or(kind.parse().ok()).ok_or_else(wanted)?, code))
}

fn rate(text: &str) -> Result<(u32, u32), String> {
    let wanted = || format!("{text:?} is no rate; one like \"100/s\" or \"100/s burst 20\"");
    let words: Vec<&str> = text.split_whitespace().collect();
    let per_second = |word: &str| word.strip_suffix("/s").and_then(|n| n.parse::<u32>().ok());
    let (rate, burst) = match words[..] {
        [rate] => {
            let rate = per_second(rate).ok_or_else(wanted)?;
            (rate, rate)
        }
        [rate, "burst", burst] => {
            (per_second(rate).ok_or_else(wanted)?, burst.parse().map_err(|_| wanted())?)
        }
        _ => return Err(wanted()),
    };
    let fits = |n: u32| (1..=RATE_MAX).contains(&n);
    if fits(rate) && fits(burst) {
        Ok((rate, burst))
    } else {
        Err(format!("{text:?}: rate and burst are 1 to {RATE_MAX}"))
    }
}

fn connections(text: &str) -> Result<u32, String> {
    let number = text.parse().ok().filter(|n| (1..=CONNECTIONS_MAX).contains(n));
    number.ok_or_else(|| format!("{text:?} is out of range; 1 to {CONNECTIONS_MAX} is wanted"))
}

/// A prefix as people write it.
pub fn show_prefix(prefix: Prefix) -> String {
    let address = IpAddress(prefix.bits.to_be_bytes());
    match (prefix.len, address.to_v4()) {
        (0, _) => "any".to_owned(),
        (128, _) => address.to_string(),
        (len, Some(_)) if len >= 96 => format!("{address}/{}", len - 96),
        (len, _) => format!("{}/{len}", std::net::Ipv6Addr::from(prefix.bits)),
    }
}

#[cfg(test)]
mod tests;
