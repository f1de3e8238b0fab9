//! From the wire format to a [`RuleSet`]: checked, in slices of bounded work, in bounded memory.
//!
//! Each dimension is swept once. At the boundary between two classes the vector of the next is the last
//! one's with the lines replaced in which rules come or go.
use crate::rule::{ANY_PORT, Direction, KINDS, Protocol, Rule, kind};
use crate::search::{Search, SearchV4};
use crate::set::{LINE_BITS, LINES, Line, Ports, Row, RuleSet};
use alloc::vec::Vec;
use ix_abi::IpAddress;
use ix_abi::acl::{
    Action, Header, MAGIC, RULES_MAX, Record, SET_BYTES_MAX, TEXT_BYTES_MAX, VERSION, checksum,
};
use zerocopy::FromBytes;

/// Rules, or changes of a port's class, that one slice takes on.
const SLICE: usize = 512;
/// Most memory that the compiled form may take: more than any set of [`RULES_MAX`] rules can need.
pub const MEMORY_MAX: usize = 48 << 20;
/// The first IPv4 address, mapped.
const V4: u128 = 0xffff_0000_0000;

/// Why a set is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclError {
    /// Shorter than it says, or longer.
    Length,
    /// Another magic number.
    Magic,
    /// A version that is not known.
    Version(u32),
    /// More rules, or more text, than a set may have.
    TooLarge,
    /// A reserved field or a default action of the header.
    Header,
    /// The checksum.
    Checksum,
    /// A rule, from 0, and what is wrong with it.
    Rule(usize, &'static str),
    /// No memory.
    Memory,
}

impl core::fmt::Display for AclError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            AclError::Length => f.write_str("its length is not what its header says"),
            AclError::Magic => f.write_str("it is not a rule set (wrong magic number)"),
            AclError::Version(v) => write!(f, "its format's version is {v}, not {VERSION}"),
            AclError::TooLarge => {
                write!(f, "it has more than {RULES_MAX} rules or {TEXT_BYTES_MAX} bytes of names")
            }
            AclError::Header => f.write_str("its header is malformed"),
            AclError::Checksum => f.write_str("its checksum is wrong"),
            AclError::Rule(i, what) => write!(f, "rule {}: {what}", i + 1),
            AclError::Memory => f.write_str("there is not enough memory for it"),
        }
    }
}

impl core::error::Error for AclError {}

/// A vector of equal values, or an error where there is no memory.
pub(crate) fn try_filled<T: Clone>(value: T, count: usize) -> Result<Vec<T>, AclError> {
    let mut all = try_room(count)?;
    all.resize(count, value);
    Ok(all)
}

fn try_room<T>(count: usize) -> Result<Vec<T>, AclError> {
    let mut all = Vec::new();
    all.try_reserve_exact(count).map_err(|_| AclError::Memory)?;
    Ok(all)
}

/// Decodes, checks and compiles in one go, for our address `local`.
pub fn decode(source: Vec<u8>, local: IpAddress) -> Result<RuleSet, AclError> {
    let mut compiler = Compiler::new(source, local)?;
    loop {
        if let Some(set) = compiler.advance()? {
            return Ok(set);
        }
    }
}

/// Bytes of the whole set that begins with this header.
pub fn announced_bytes(header: &[u8]) -> Result<usize, AclError> {
    let (header, _) = Header::read_from_prefix(header).map_err(|_| AclError::Length)?;
    sizes(&header)
}

fn sizes(header: &Header) -> Result<usize, AclError> {
    if header.magic != MAGIC {
        return Err(AclError::Magic);
    }
    if header.version != VERSION {
        return Err(AclError::Version(header.version));
    }
    let (rules, text) = (header.rules as usize, header.text_bytes as usize);
    if rules > RULES_MAX || text > TEXT_BYTES_MAX {
        return Err(AclError::TooLarge);
    }
    Ok(size_of::<Header>() + rules * size_of::<Record>() + text)
}

/// A change of the rules that a port admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    port: u32,
    rule: u16,
    comes: bool,
}

#[derive(Debug)]
enum Phase {
    Records,
    Order,
    Addresses(AddressSweep),
    Ports(usize, Option<PortSweep>),
    Done,
}

#[derive(Debug)]
struct AddressSweep {
    /// Rules by prefix.
    order: Vec<u16>,
    at: usize,
    /// Prefixes around the present point: last address and class.
    open: Vec<(u128, u16)>,
    classes: usize,
    boundaries: Vec<(u128, u16)>,
    /// Lines from this one on are the present class's own.
    fresh: usize,
    prefix: Option<(u128, u8)>,
}

#[derive(Debug)]
struct PortSweep {
    changes: Vec<Change>,
    at: usize,
    port: u32,
    class: usize,
}

/// A compilation under way.
#[derive(Debug)]
pub struct Compiler {
    set: RuleSet,
    phase: Phase,
    wanted: usize,
}

impl Compiler {
    /// Begins: checks the header and the checksum.
    pub fn new(source: Vec<u8>, local: IpAddress) -> Result<Compiler, AclError> {
        let (header, rest) = Header::read_from_prefix(&source).map_err(|_| AclError::Length)?;
        if sizes(&header)? != source.len() || source.len() > SET_BYTES_MAX {
            return Err(AclError::Length);
        }
        let actions = [header.default_in, header.default_out].map(Action::from_u8);
        let [Some(default_in), Some(default_out)] = actions else { return Err(AclError::Header) };
        if header.reserved != [0; 2] || header.reserved_2 != [0; 4] {
            return Err(AclError::Header);
        }
        if checksum(rest) != header.checksum {
            return Err(AclError::Checksum);
        }
        let wanted = header.rules as usize;
        let set = RuleSet {
            rules: try_room(wanted)?,
            defaults: [default_in, default_out],
            lines: Vec::new(),
            v4: SearchV4::default(),
            v6: Search::default(),
            addresses: Vec::new(),
            ports: [Ports::default(), Ports::default()],
            has_local: false,
            local,
            source,
        };
        Ok(Compiler { set, phase: Phase::Records, wanted })
    }

    /// One slice; the set when it is done. Not to be called again after that.
    pub fn advance(&mut self) -> Result<Option<RuleSet>, AclError> {
        match core::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Records => {
                self.records()?;
                let all = self.set.rules.len() == self.wanted;
                self.phase = if all { Phase::Order } else { Phase::Records };
            }
            Phase::Order => self.phase = Phase::Addresses(self.order()?),
            Phase::Addresses(mut sweep) => {
                let done = self.addresses(&mut sweep)?;
                self.phase = if done { Phase::Ports(0, None) } else { Phase::Addresses(sweep) };
            }
            Phase::Ports(which, None) => {
                let sweep = self.changes(which)?;
                self.phase = Phase::Ports(which, Some(sweep));
            }
            Phase::Ports(which, Some(mut sweep)) => {
                if !self.ports(which, &mut sweep)? {
                    self.phase = Phase::Ports(which, Some(sweep));
                } else if which == 0 {
                    self.phase = Phase::Ports(1, None);
                } else {
                    return self.finish().map(Some);
                }
            }
            Phase::Done => return Err(AclError::Length),
        }
        Ok(None)
    }

    /// Decodes some records.
    fn records(&mut self) -> Result<(), AclError> {
        let set = &mut self.set;
        let records = set.source.get(size_of::<Header>()..).unwrap_or(&[]);
        for _ in 0..SLICE {
            let index = set.rules.len();
            if index == self.wanted {
                break;
            }
            let at = index * size_of::<Record>();
            let bytes = records.get(at..).unwrap_or(&[]);
            let (record, _) = Record::read_from_prefix(bytes).map_err(|_| AclError::Length)?;
            let rule = Rule::from_record(&record).map_err(|what| AclError::Rule(index, what))?;
            set.has_local |= rule.local.len != 0;
            set.rules.push(rule);
        }
        Ok(())
    }

    /// Makes room for everything; brings the prefixes into order.
    fn order(&mut self) -> Result<AddressSweep, AclError> {
        let set = &mut self.set;
        let count = set.rules.len();
        let ranges = |of: fn(&Rule) -> crate::rule::Ports| {
            set.rules.iter().filter(|rule| of(rule) != ANY_PORT).count()
        };
        // Every line that is ever made: one for each coming and going of a rule, at most.
        let kinds: usize =
            set.rules.iter().map(|rule| kinds(rule, set.local).count_ones() as usize).sum();
        let changes = [ranges(|rule| rule.remote_ports), ranges(Rule::details)].map(|n| 2 * n);
        let lines = 1 + kinds + changes[0] + changes[1] + 2 * LINES;
        let rows = (count + 1) * KINDS + changes[0] + changes[1] + 2;
        let bytes = lines * size_of::<Line>() + rows * size_of::<Row>() + count * 64;
        if bytes > MEMORY_MAX {
            return Err(AclError::Memory);
        }
        set.lines = try_room(lines)?;
        set.lines.push(Line::empty());
        set.addresses = try_room((count + 1) * KINDS)?;
        set.addresses.resize(KINDS, [0; LINES]);
        let mut order: Vec<u16> = try_room(count)?;
        order.extend(0..count as u16);
        order.sort_unstable_by_key(|rule| (set.rules[usize::from(*rule)].remote, *rule));
        Ok(AddressSweep {
            order,
            at: 0,
            open: try_room(130)?,
            classes: 1,
            boundaries: try_room(2 * count + 1)?,
            fresh: 1,
            prefix: None,
        })
    }

    /// Takes some prefixes on; whether it was the last.
    fn addresses(&mut self, sweep: &mut AddressSweep) -> Result<bool, AclError> {
        for _ in 0..SLICE {
            let Some(rule) = sweep.order.get(sweep.at).copied() else {
                self.end_of_addresses(sweep)?;
                return Ok(true);
            };
            sweep.at += 1;
            let prefix = self.set.rules[usize::from(rule)].remote;
            if sweep.prefix != Some((prefix.bits, prefix.len)) {
                sweep.prefix = Some((prefix.bits, prefix.len));
                sweep.close_before(Some(prefix.bits));
                let parent = sweep.open.last().map_or(0, |open| open.1);
                let class = self.new_address_class(sweep, parent);
                sweep.open.push((prefix.last(), class));
                sweep.boundary(prefix.bits, class);
                sweep.fresh = self.set.lines.len();
            }
            let class = sweep.classes - 1;
            let member = kinds(&self.set.rules[usize::from(rule)], self.set.local);
            for kind in (0..KINDS).filter(|kind| member >> kind & 1 == 1) {
                let set = &mut self.set;
                let row = &mut set.addresses[class * KINDS + kind];
                flip(&mut set.lines, row, sweep.fresh, rule);
            }
        }
        Ok(false)
    }

    /// A class that is so far like `parent`.
    fn new_address_class(&mut self, sweep: &mut AddressSweep, parent: u16) -> u16 {
        let from = usize::from(parent) * KINDS;
        self.set.addresses.extend_from_within(from..from + KINDS);
        sweep.classes += 1;
        (sweep.classes - 1) as u16
    }

    fn end_of_addresses(&mut self, sweep: &mut AddressSweep) -> Result<(), AclError> {
        sweep.close_before(None);
        let all = &sweep.boundaries;
        self.set.v6 = Search::build(0, all, u128::MAX)?;
        let below = all.partition_point(|b| b.0 <= V4);
        let first = if below == 0 { 0 } else { all[below - 1].1 };
        let mut v4 = try_room(all.len() - below)?;
        let inside = all[below..].iter().take_while(|b| b.0 <= V4 + u128::from(u32::MAX));
        v4.extend(inside.map(|b| ((b.0 - V4) as u32, b.1)));
        self.set.v4 = SearchV4::build(first, &v4)?;
        Ok(())
    }

    /// The comings and goings of a dimension of ports, in order, and the class of port 0.
    fn changes(&mut self, which: usize) -> Result<PortSweep, AclError> {
        let set = &mut self.set;
        let range = |rule: &Rule| if which == 0 { rule.remote_ports } else { rule.details() };
        let count = set.rules.iter().filter(|rule| range(rule) != ANY_PORT).count();
        let mut changes = try_room(2 * count)?;
        let mut rows = try_room(2 * count + 1)?;
        rows.push([0; LINES]);
        let fresh = set.lines.len();
        for (i, rule) in set.rules.iter().enumerate() {
            let (first, last) = range(rule);
            if first == 0 {
                flip(&mut set.lines, &mut rows[0], fresh, i as u16);
            } else {
                changes.push(Change { port: u32::from(first), rule: i as u16, comes: true });
            }
            if last < u16::MAX {
                changes.push(Change { port: u32::from(last) + 1, rule: i as u16, comes: false });
            }
        }
        changes.sort_unstable();
        set.ports[which] = Ports { classes: try_filled(0, 1 << 16)?, rows };
        Ok(PortSweep { changes, at: 0, port: 0, class: 0 })
    }

    /// Takes some changes on; whether it was the last.
    fn ports(&mut self, which: usize, sweep: &mut PortSweep) -> Result<bool, AclError> {
        let set = &mut self.set;
        let Ports { classes, rows } = &mut set.ports[which];
        let mut left = SLICE;
        while left > 0 {
            let Some(change) = sweep.changes.get(sweep.at) else {
                classes[sweep.port as usize..].fill(sweep.class as u16);
                return Ok(true);
            };
            let port = change.port;
            classes[sweep.port as usize..port as usize].fill(sweep.class as u16);
            sweep.port = port;
            rows.extend_from_within(sweep.class..=sweep.class);
            sweep.class += 1;
            let fresh = set.lines.len();
            // All changes at one port make one class: no slice ends between them.
            while let Some(change) = sweep.changes.get(sweep.at).filter(|c| c.port == port) {
                flip(&mut set.lines, &mut rows[sweep.class], fresh, change.rule);
                sweep.at += 1;
                left = left.saturating_sub(1);
            }
        }
        Ok(false)
    }

    fn finish(&mut self) -> Result<RuleSet, AclError> {
        let empty = RuleSet {
            rules: Vec::new(),
            defaults: [Action::Deny; 2],
            lines: Vec::new(),
            v4: SearchV4::default(),
            v6: Search::default(),
            addresses: Vec::new(),
            ports: [Ports::default(), Ports::default()],
            has_local: false,
            local: IpAddress::UNSPECIFIED,
            source: Vec::new(),
        };
        Ok(core::mem::replace(&mut self.set, empty))
    }
}

impl AddressSweep {
    /// What begins at `key` is of `class`.
    fn boundary(&mut self, key: u128, class: u16) {
        match self.boundaries.last_mut() {
            Some(last) if last.0 == key => last.1 = class,
            _ => self.boundaries.push((key, class)),
        }
    }

    /// Leaves the prefixes that end before `key`, or all.
    fn close_before(&mut self, key: Option<u128>) {
        while let Some((last, _)) = self.open.last().copied() {
            if key.is_some_and(|key| last >= key) {
                return;
            }
            self.open.pop();
            let class = self.open.last().map_or(0, |open| open.1);
            if let Some(next) = last.checked_add(1) {
                self.boundary(next, class);
            }
        }
    }
}

/// The kinds of flow that a rule is about, a bit each.
fn kinds(rule: &Rule, local: IpAddress) -> u8 {
    if !rule.local.contains(local) {
        return 0;
    }
    let mut found = 0;
    for direction in [Direction::In, Direction::Out] {
        for protocol in Protocol::ALL {
            let about = rule.protocol.is_none_or(|p| p == protocol);
            if about && rule.has_direction(direction) {
                found |= 1 << kind(direction, protocol);
            }
        }
    }
    found
}

/// Changes a rule's bit in a vector, in a line that is the vector's own.
fn flip(lines: &mut Vec<Line>, row: &mut Row, fresh: usize, rule: u16) {
    let rule = usize::from(rule);
    let Some(at) = row.get_mut(rule / LINE_BITS) else { return };
    if (*at as usize) < fresh {
        // Never beyond what `order` has made room for.
        let line = lines[*at as usize].clone();
        *at = lines.len() as u32;
        lines.push(line);
    }
    lines[*at as usize].flip(rule % LINE_BITS);
}
