//! The compiled form. What decides is split in two by the ports, which are divided into bands:
//!
//! - of the rules that *cover* a pair of bands (a cell), the first for each class of addresses: a table;
//! - of the rules whose range *ends within* one of the two bands, the first: these are few, and for
//!   each class of a dimension's values (remote address, remote port, local port or ICMP type) there is
//!   a vector of bits, one for each that the class does not exclude. The rules about a flow are the
//!   bits that its three vectors have in common.
//!
//! Direction, protocol and our own address are folded into the classes of addresses (rows).
use crate::rule::{Flow, KINDS, Rule};
use crate::search::{Search, SearchV4};
use crate::wide::Wide;
use alloc::vec::Vec;
use ix_abi::IpAddress;
use ix_abi::acl::Action;

/// 128-bit words of a line.
const WORDS: usize = 8;
/// Rules of a space: more bands, and less to look through, would make the table of cells larger than the vectors.
pub(crate) const SPACE_RULES: usize = WORDS * 128;
/// No rule.
pub(crate) const NONE: u16 = u16::MAX;

/// A vector: a bit for each rule of a space.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(crate) struct Line([Wide; WORDS]);

impl Line {
    pub(crate) fn empty() -> Line {
        Line([Wide::from_halves(0, 0); WORDS])
    }

    /// Changes a bit.
    pub(crate) fn flip(&mut self, bit: usize) {
        let one = 1_u64 << (bit % 64);
        let (low, high) = if bit % 128 < 64 { (one, 0) } else { (0, one) };
        if let Some(word) = self.0.get_mut(bit / 128) {
            *word = word.xor(Wide::from_halves(low, high));
        }
    }
}

/// Where a port lies.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Point {
    pub class: u16,
    pub band: u16,
}

/// The rules that end within a band. Vectors are numbers of lines; line 0 is empty.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// By bit, ascending.
    pub rules: Vec<u16>,
    /// Vectors by row.
    pub rows: Vec<u16>,
    /// Vectors by class of port: remote, local.
    pub ports: [Vec<u16>; 2],
    pub lines: Vec<Line>,
}

impl Space {
    /// The first rule about a flow.
    #[inline(always)]
    fn first(&self, row: usize, remote: Point, local: Point) -> Option<u16> {
        let address = *self.rows.get(row)?;
        let remote = *self.ports[0].get(usize::from(remote.class))?;
        let local = *self.ports[1].get(usize::from(local.class))?;
        if address == 0 || remote == 0 || local == 0 {
            return None;
        }
        let line = |number: u16| self.lines.get(usize::from(number));
        let bit = first_common(line(address)?, line(remote)?, line(local)?)?;
        self.rules.get(bit).copied()
    }

    fn bytes(&self) -> usize {
        let numbers = [&self.rules, &self.rows, &self.ports[0], &self.ports[1]];
        numbers.into_iter().map(|n| n.capacity() * 2).sum::<usize>()
            + self.lines.capacity() * size_of::<Line>()
    }
}

/// What is done with a flow, and which rule says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The rule's number; [`RuleSet::default_index`] if none is about the flow.
    pub rule: usize,
    /// What it says.
    pub action: Action,
}

/// A compiled set of rules.
#[derive(Debug)]
pub struct RuleSet {
    /// In the order of the file.
    pub(crate) rules: Vec<Rule>,
    /// In, out.
    pub(crate) defaults: [Action; 2],
    /// Classes of IPv4 addresses, and of all.
    pub(crate) v4: SearchV4,
    pub(crate) v6: Search<u128>,
    /// Rows by address class and kind of flow.
    pub(crate) addresses: Vec<u16>,
    /// By port: remote, local.
    pub(crate) ports: [Vec<Point>; 2],
    /// Cells of a row, and of those the ones with the same band of remote ports.
    pub(crate) width: usize,
    pub(crate) columns: usize,
    /// By row, band of remote ports and band of local ports: the first rule that covers the cell.
    pub(crate) cells: Vec<u16>,
    /// By band: of remote, of local ports.
    pub(crate) spaces: [Vec<Space>; 2],
    /// Some rule asks for our own address, and it was this one.
    pub(crate) has_local: bool,
    pub(crate) local: IpAddress,
    /// The set as it came.
    pub(crate) source: Vec<u8>,
}

impl RuleSet {
    pub(crate) fn empty(defaults: [Action; 2], local: IpAddress) -> RuleSet {
        RuleSet {
            rules: Vec::new(),
            defaults,
            v4: SearchV4::default(),
            v6: Search::default(),
            addresses: Vec::new(),
            ports: [Vec::new(), Vec::new()],
            width: 0,
            columns: 0,
            cells: Vec::new(),
            spaces: [Vec::new(), Vec::new()],
            has_local: false,
            local,
            source: Vec::new(),
        }
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The set as it came.
    pub fn source(&self) -> &[u8] {
        &self.source
    }

    /// Verdicts that there are: the rules', and the defaults'.
    pub fn verdicts(&self) -> usize {
        self.rules.len() + 2
    }

    /// The number under which a default decides.
    pub fn default_index(&self, flow: &Flow) -> usize {
        self.rules.len() + flow.direction as usize
    }

    /// Whether some rule has limits.
    pub fn has_limits(&self) -> bool {
        self.rules.iter().any(|rule| rule.rate.is_some() || rule.connections.is_some())
    }

    /// The rule of a number, unless it is a default's.
    #[inline(always)]
    pub fn rule(&self, number: usize) -> Option<&Rule> {
        self.rules.get(number)
    }

    /// Our own address, for which it must be compiled anew if this is another: till then its look-ups
    /// are right, but slow.
    pub fn is_for(&self, local: IpAddress) -> bool {
        !self.has_local || self.local == local
    }

    /// Bytes of memory that the compiled form takes.
    pub fn bytes(&self) -> usize {
        self.rules.capacity() * size_of::<Rule>()
            + self.v4.bytes()
            + self.v6.bytes()
            + self.addresses.capacity() * 2
            + self.ports.iter().map(|points| points.capacity() * size_of::<Point>()).sum::<usize>()
            + self.cells.capacity() * 2
            + self.spaces.iter().flatten().map(Space::bytes).sum::<usize>()
            + self.source.capacity()
    }

    /// Decides about a flow.
    #[inline(never)]
    pub fn decide(&self, flow: &Flow) -> Decision {
        let found = if self.is_for(flow.local) { self.find(flow) } else { self.scan(flow) };
        self.decision(flow, found)
    }

    /// The same rule by rule: the definition.
    pub fn decide_by_scan(&self, flow: &Flow) -> Decision {
        self.decision(flow, self.scan(flow))
    }

    #[inline(always)]
    fn decision(&self, flow: &Flow, found: Option<usize>) -> Decision {
        match found.and_then(|rule| Some((rule, self.rules.get(rule)?.action))) {
            Some((rule, action)) => Decision { rule, action },
            None => Decision {
                rule: self.default_index(flow),
                action: self.defaults[flow.direction as usize],
            },
        }
    }

    #[cold]
    fn scan(&self, flow: &Flow) -> Option<usize> {
        self.rules.iter().position(|rule| rule.matches(flow))
    }

    /// The first rule about a flow.
    #[inline(always)]
    fn find(&self, flow: &Flow) -> Option<usize> {
        let remote = u128::from_be_bytes(flow.remote.0);
        let class = if remote >> 32 == 0xffff {
            self.v4.class(remote as u32)
        } else {
            self.v6.class(remote)
        };
        let row = usize::from(*self.addresses.get(usize::from(class) * KINDS + flow.kind())?);
        let remote = *self.ports[0].get(usize::from(flow.remote_port))?;
        let local = *self.ports[1].get(usize::from(flow.local_port))?;
        let bands = [remote.band, local.band].map(usize::from);
        let mut first = *self.cells.get(row * self.width + bands[0] * self.columns + bands[1])?;
        for which in [0, 1] {
            let space = self.spaces[which].get(bands[which])?;
            if let Some(rule) = space.first(row, remote, local) {
                first = first.min(rule);
            }
        }
        (first != NONE).then_some(usize::from(first))
    }
}

/// The lowest bit that all three have. No branch but the last: which word has it is seen in a mask of
/// all their quarters.
#[inline(always)]
fn first_common(a: &Line, b: &Line, c: &Line) -> Option<usize> {
    let common = |at: usize| a.0[at].and(b.0[at]).and(c.0[at]);
    let low = Wide::empty_quarters([common(0), common(1), common(2), common(3)]);
    let high = Wide::empty_quarters([common(4), common(5), common(6), common(7)]);
    let some = !(low | high << 16);
    if some == 0 {
        return None;
    }
    let quarter = some.trailing_zeros() as usize;
    let [low, high] = common(quarter / 4 % WORDS).halves();
    let half = if quarter & 2 == 0 { low } else { high };
    Some(quarter / 2 * 64 + half.trailing_zeros() as usize)
}
const _: () = assert!(WORDS == 8, "a mask has a bit for each quarter");
