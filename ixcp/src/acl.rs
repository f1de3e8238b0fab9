//! `ixcp acl`: shows, sets and tries out the rules of a dataplane's firewall (`docs/acl.md`).
use crate::cli::{Acl, AclSet, AclShow, AclTest};
use crate::command::{CommandError, Writer};
use crate::control::print;
use crate::instance::{Base, Instance};
use crate::page::Page;
use crate::render::count;
use anyhow::{Context, Result, bail};
use file::Note;
use ix_abi::IpAddress;
use ix_abi::acl::{IN, OUT, ReplyHeader, SET_BYTES_MAX};
use ix_abi::control::CommandCode;
use ix_acl::rule::{ANY_PORT, Ports};
use ix_acl::{Prefix, Rule, RuleSet};
use serde::Serialize;
use std::fmt::Write as _;
use std::time::Duration;
use zerocopy::FromBytes;

pub mod file;
pub mod packet;

/// How long a command may go unanswered. A large set takes the kernel a few hundred milliseconds where
/// instructions are translated.
const ANSWER: Duration = Duration::from_secs(20);

/// `ixcp acl`.
pub fn run(options: &Acl) -> Result<u8> {
    match options {
        Acl::Show(options) => show(options),
        Acl::Set(options) => set(options),
        Acl::Test(options) => test(options),
    }
}

/// Reads a rules file and checks that it can be used; the set as the kernel takes it.
pub fn compile(path: &std::path::Path) -> Result<(file::Rules, Vec<u8>, RuleSet)> {
    let rules = file::read(path)?;
    let source = rules.to_set();
    let set = ix_acl::decode(source.clone(), IpAddress::UNSPECIFIED)
        .with_context(|| format!("{} cannot be used", path.display()))?;
    Ok((rules, source, set))
}

fn set(options: &AclSet) -> Result<u8> {
    let (rules, source, _) = compile(&options.file)?;
    let instance = Base::from_env()?.find(options.target.which())?;
    send_set(&instance, &source)?;
    let count = count(rules.rules.len() as u64, "rule");
    print(&format!("{}: {count} in force on all cores\n", instance.name));
    Ok(0)
}

/// Sends a set; returns when all cores judge by it. Which set it is, counted from boot.
pub fn send_set(instance: &Instance, source: &[u8]) -> Result<u64> {
    let page = Page::open(&instance.control())?;
    let writer = Writer::lock(&instance.writer_lock(), ANSWER)?;
    let prepare = |page: &Page| page.lay_bulk(source);
    let args = [source.len() as u64, 0, 0, 0];
    match writer.send_with(&page, CommandCode::AclSet, args, ANSWER, prepare) {
        Ok(generation) => Ok(generation),
        Err(CommandError::Refused(ix_abi::Status::Invalid)) => {
            bail!("the kernel refuses the rules: {}", page.reply_text(200))
        }
        Err(e) => Err(e.told("the rules that were in force before stay")),
    }
}

/// The rules in force, as the kernel tells them.
#[derive(Debug)]
pub struct InForce {
    /// Sets since boot.
    pub generation: u64,
    /// The set.
    pub set: RuleSet,
    /// How often each has decided, the defaults last.
    pub hits: Vec<u64>,
    /// Where it came from.
    pub file: String,
    /// Of each rule.
    pub notes: Vec<Note>,
}

/// Asks for the rules in force; `None`: there are none.
pub fn read(instance: &Instance) -> Result<Option<InForce>> {
    let page = Page::open(&instance.control())?;
    let writer = Writer::lock(&instance.writer_lock(), ANSWER)?;
    let len = writer.send(&page, CommandCode::AclRead, [0; 4], ANSWER)?;
    let reply = page.reply(usize::try_from(len).unwrap_or(usize::MAX));
    drop(writer);
    in_force(&reply).context("what the kernel tells of its rules makes no sense")
}

fn in_force(reply: &[u8]) -> Result<Option<InForce>> {
    let Ok((header, rest)) = ReplyHeader::read_from_prefix(reply) else { bail!("it is cut short") };
    if header.generation == 0 {
        return Ok(None);
    }
    let (count, len) = (header.counters as usize, header.set_bytes as usize);
    let counters = rest.get(..count.saturating_mul(8)).context("counters are missing")?;
    let source = rest[counters.len()..].get(..len).filter(|s| s.len() <= SET_BYTES_MAX);
    let source = source.context("rules are missing")?.to_vec();
    let hits = counters.as_chunks::<8>().0.iter().map(|w| u64::from_le_bytes(*w)).collect();
    let set = ix_acl::decode(source, IpAddress::UNSPECIFIED)?;
    anyhow::ensure!(set.verdicts() == count, "it has {count} counters for its rules");
    let text = ix_acl::build::text(set.source()).map(|t| t.0).unwrap_or_default();
    let (file, notes) = file::notes(&text, set.rules().len());
    Ok(Some(InForce { generation: header.generation, set, hits, file, notes }))
}

#[derive(Serialize)]
struct Row {
    number: usize,
    line: usize,
    name: String,
    action: &'static str,
    direction: &'static str,
    protocol: &'static str,
    remote: String,
    remote_ports: String,
    local: String,
    local_ports: String,
    icmp: Option<String>,
    rate: Option<String>,
    connections: Option<u32>,
    hits: u64,
}

fn row(number: usize, rule: &Rule, note: &Note, hits: u64) -> Row {
    let direction = match rule.directions {
        IN => "in",
        OUT => "out",
        _ => "both",
    };
    Row {
        number: number + 1,
        line: note.line,
        name: note.name.clone(),
        action: rule.action.name(),
        direction,
        protocol: match rule.protocol {
            None => "any",
            Some(ix_acl::Protocol::Tcp) => "tcp",
            Some(ix_acl::Protocol::Udp) => "udp",
            Some(ix_acl::Protocol::Icmp) => "icmp",
        },
        remote: file::show_prefix(rule.remote),
        remote_ports: show_ports(rule.remote_ports),
        local: file::show_prefix(rule.local),
        local_ports: show_ports(rule.local_ports),
        icmp: rule.icmp.map(show_icmp),
        rate: rule.rate.map(|(rate, burst)| format!("{rate}/s burst {burst}")),
        connections: rule.connections,
        hits,
    }
}

fn show_ports((first, last): Ports) -> String {
    match (first, last) {
        ANY_PORT => "any".to_owned(),
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}

fn show_icmp((kind, code): (u8, Option<u8>)) -> String {
    let name = file::ICMP_TYPES.iter().find(|t| t.1 == kind).map(|t| t.0.to_owned());
    let name = name.unwrap_or_else(|| kind.to_string());
    code.map_or_else(|| name.clone(), |code| format!("{name}/{code}"))
}

/// What a rule is about, in words.
fn about(row: &Row, rule: &Rule) -> String {
    let mut text = format!("{} {}", row.direction, row.protocol);
    let side = |prefix: Prefix, ports: Ports, shown: &str, numbers: &str| {
        let ports = if ports == ANY_PORT { String::new() } else { format!(":{numbers}") };
        if prefix == Prefix::ANY && ports.is_empty() {
            None
        } else {
            Some(format!("{shown}{ports}"))
        }
    };
    let remote = side(rule.remote, rule.remote_ports, &row.remote, &row.remote_ports);
    let local = side(rule.local, rule.local_ports, &row.local, &row.local_ports);
    for (word, side) in [("remote", remote), ("local", local), ("type", row.icmp.clone())] {
        if let Some(side) = side {
            let _ = write!(text, " {word} {side}");
        }
    }
    if let Some(rate) = &row.rate {
        let _ = write!(text, ", {rate}");
    }
    if let Some(connections) = row.connections {
        let _ = write!(text, ", {connections} connections");
    }
    text
}

fn show(options: &AclShow) -> Result<u8> {
    let instance = Base::from_env()?.find(options.target.which())?;
    let found = read(&instance)?;
    let Some(found) = found else {
        print(&if options.json {
            "null\n".to_owned()
        } else {
            format!("{}: no rules\n", instance.name)
        });
        return Ok(0);
    };
    let (_, defaults) = ix_acl::build::text(found.set.source()).context("no defaults")?;
    let rules = found.set.rules();
    let rows: Vec<Row> = rules
        .iter()
        .enumerate()
        .map(|(i, rule)| row(i, rule, &found.notes[i], found.hits[i]))
        .collect();
    let default_hits = [found.hits[rules.len()], found.hits[rules.len() + 1]];
    if options.json {
        let json = serde_json::json!({
            "name": instance.name,
            "file": found.file,
            "generation": found.generation,
            "default_in": { "action": defaults[0].name(), "hits": default_hits[0] },
            "default_out": { "action": defaults[1].name(), "hits": default_hits[1] },
            "rules": rows,
        });
        print(&(serde_json::to_string_pretty(&json)? + "\n"));
        return Ok(0);
    }
    let mut text = format!(
        "{}: {} rules from {}, set {} since boot\n{:>12}  {:>5}  {:<6} {}\n",
        instance.name,
        rows.len(),
        found.file,
        found.generation,
        "HITS",
        "LINE",
        "ACTION",
        "RULE"
    );
    for (row, rule) in rows.iter().zip(rules) {
        let name = if row.name.is_empty() { String::new() } else { format!("  # {}", row.name) };
        let about = about(row, rule);
        text += &format!("{:>12}  {:>5}  {:<6} {about}{name}\n", row.hits, row.line, row.action);
    }
    for (i, direction) in ["in", "out"].into_iter().enumerate() {
        let action = defaults[i].name();
        text += &format!(
            "{:>12}  {:>5}  {action:<6} {direction} everything else\n",
            default_hits[i], "-"
        );
    }
    print(&text);
    Ok(0)
}

fn test(options: &AclTest) -> Result<u8> {
    let (rules, source, set) = compile(&options.file)?;
    if options.packet.is_empty() {
        print(&format!(
            "{}: {} rules, {} KiB when compiled\n",
            options.file.display(),
            rules.rules.len(),
            set.bytes() >> 10
        ));
        return Ok(0);
    }
    let local = options.local.map_or(IpAddress::UNSPECIFIED, |v4| IpAddress::v4(v4.octets()));
    for text in &options.packet {
        let flow = packet::parse(text, local).map_err(anyhow::Error::msg)?;
        if flow.local == IpAddress::UNSPECIFIED && !set.is_for(IpAddress::v4([0; 4])) {
            bail!("rules ask for our address: say which it is (--local A.B.C.D)");
        }
        let set = ix_acl::decode(source.clone(), flow.local)?;
        let decision = set.decide(&flow);
        debug_assert_eq!(decision, set.decide_by_scan(&flow));
        let by = match set.rules().get(decision.rule) {
            Some(rule) => {
                let note = &rules.notes[decision.rule];
                let row = row(decision.rule, rule, note, 0);
                let name =
                    if note.name.is_empty() { String::new() } else { format!(" ({})", note.name) };
                format!(
                    "rule {}, {}:{}{name}: {}",
                    row.number,
                    options.file.display(),
                    note.line,
                    about(&row, rule)
                )
            }
            None => "default: no rule is about it".to_owned(),
        };
        print(&format!("{text}: {} by {by}\n", decision.action.name()));
    }
    Ok(0)
}
