//! From the wire format to a [`RuleSet`]: checked, in slices of bounded work, in bounded memory.
//!
//! - `addresses`: classes of the peer's address, and the rows that they stand for;
//! - `ports`: classes of ports, and the bands that they lie in;
//! - `cells`: which rule decides in a cell, of those that cover it;
//! - `spaces`: the bit vectors of the rules that end within a band.
use crate::rule::{Direction, Protocol, Rule, kind};
use crate::set::{RuleSet, SPACE_RULES};
use alloc::vec::Vec;
use ix_abi::IpAddress;
use ix_abi::acl::{
    Action, Header, MAGIC, RULES_MAX, Record, SET_BYTES_MAX, TEXT_BYTES_MAX, VERSION, checksum,
};
use zerocopy::FromBytes;

mod addresses;
mod cells;
mod ports;
mod spaces;

/// Rules, or prefixes, that one slice takes on.
const SLICE: usize = 512;
/// What a slice may do where steps differ: about so many rules looked at, or words written.
const WORK: usize = 16_384;
/// Most memory that the compiled form may take: more than any set of [`RULES_MAX`] rules can need.
pub const MEMORY_MAX: usize = 56 << 20;

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
    Compiler::new(source, local)?.finish()
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

/// What a compilation knows and a look-up does not need.
#[derive(Debug, Default)]
struct Plan {
    /// Rules by prefix; without those that are about another address of ours.
    order: Vec<u16>,
    /// Of each rule, the kinds of flow that it is about, a bit each.
    kinds: Vec<u8>,
    /// Of each row, where it comes from.
    rows: Vec<addresses::Origin>,
    /// By dimension.
    ports: [ports::Plan; 2],
}

impl Plan {
    /// Rules of a row that its parent does not have.
    fn own(&self, origin: &addresses::Origin) -> impl Iterator<Item = u16> + '_ {
        let (first, end, kind) = (usize::from(origin.first), usize::from(origin.end), origin.kind);
        let all = self.order.get(first..end).unwrap_or(&[]).iter().copied();
        all.filter(move |rule| self.kinds[usize::from(*rule)] >> kind & 1 == 1)
    }
}

#[derive(Debug)]
enum Phase {
    Records,
    Order,
    Addresses(addresses::Sweep),
    Changes(usize),
    Classes(usize),
    Cells(cells::Sweep),
    Spaces(spaces::Sweep),
    Done,
}

/// A compilation under way.
#[derive(Debug)]
pub struct Compiler {
    set: RuleSet,
    plan: Plan,
    phase: Phase,
    wanted: usize,
    /// Most changes strictly inside a band.
    band_changes: usize,
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
        let mut set = RuleSet::empty([default_in, default_out], local);
        set.rules = try_room(wanted)?;
        set.source = source;
        let plan = Plan { kinds: try_room(wanted)?, ..Plan::default() };
        Ok(Compiler { set, plan, phase: Phase::Records, wanted, band_changes: SPACE_RULES })
    }

    /// Narrower bands, so that few rules make many.
    #[cfg(test)]
    pub(crate) fn with_bands_of(self, changes: usize) -> Compiler {
        assert!(changes <= SPACE_RULES);
        Compiler { band_changes: changes, ..self }
    }

    /// One slice; the set when it is done. Not to be called again after that.
    pub fn advance(&mut self) -> Result<Option<RuleSet>, AclError> {
        self.phase = match core::mem::replace(&mut self.phase, Phase::Done) {
            Phase::Records => {
                self.records()?;
                if self.set.rules.len() == self.wanted { Phase::Order } else { Phase::Records }
            }
            Phase::Order => Phase::Addresses(self.order()?),
            Phase::Addresses(mut sweep) => match self.addresses(&mut sweep)? {
                true => Phase::Changes(0),
                false => Phase::Addresses(sweep),
            },
            Phase::Changes(which) => {
                self.changes(which)?;
                Phase::Classes(which)
            }
            Phase::Classes(0) => {
                self.classes(0)?;
                Phase::Changes(1)
            }
            Phase::Classes(which) => {
                self.classes(which)?;
                Phase::Cells(self.begin_cells()?)
            }
            Phase::Cells(mut sweep) => match self.cells(&mut sweep) {
                true => Phase::Spaces(self.begin_spaces()?),
                false => Phase::Cells(sweep),
            },
            Phase::Spaces(mut sweep) => {
                if self.spaces(&mut sweep)? {
                    let empty = RuleSet::empty([Action::Deny; 2], IpAddress::UNSPECIFIED);
                    return Ok(Some(core::mem::replace(&mut self.set, empty)));
                }
                Phase::Spaces(sweep)
            }
            Phase::Done => return Err(AclError::Length),
        };
        Ok(None)
    }

    /// All slices that are left.
    pub fn finish(mut self) -> Result<RuleSet, AclError> {
        loop {
            if let Some(set) = self.advance()? {
                return Ok(set);
            }
        }
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
            self.plan.kinds.push(kinds(&rule, set.local));
            set.rules.push(rule);
        }
        Ok(())
    }

    /// Whether what is going to be made stays within bounds.
    fn check_memory(&self, more: usize) -> Result<(), AclError> {
        if self.set.bytes() + more > MEMORY_MAX { Err(AclError::Memory) } else { Ok(()) }
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
