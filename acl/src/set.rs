//! The compiled form: for each class of a dimension's values (remote address, remote port, local port or
//! ICMP type) the set of rules that do not exclude it, as a vector of bits in the order of the
//! rules. The rules about a flow are the bits that its three vectors have in common; the first of them decides.
//!
//! Vectors are rows of references to lines of 3,456 bits. Neighbouring classes differ in few rules, so
//! they share most lines: a set takes memory in proportion to its rules, not to their square.
//! Direction, protocol and our own address are folded into the address's vectors.
use crate::rule::{Flow, KINDS, Rule};
use crate::search::{Search, SearchV4};
use crate::wide::Wide;
use alloc::vec::Vec;
use ix_abi::IpAddress;
use ix_abi::acl::Action;

/// 128-bit words of a line. Three lines hold the most rules that a set may have: fewer lines would be
/// quicker still to look through, but a rule's coming or going costs a line of memory.
const WORDS: usize = 27; // 3 × 3 × 3: see `first_common`
/// Rules that a line is about.
pub(crate) const LINE_BITS: usize = WORDS * 128;
/// Lines of a vector.
pub(crate) const LINES: usize = 3;
const _: () = assert!(ix_abi::acl::RULES_MAX <= LINES * LINE_BITS);
/// A vector: the numbers of its lines.
pub(crate) type Row = [u32; LINES];

/// A bit for each of 3,456 rules.
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub(crate) struct Line(Words);

impl Line {
    pub(crate) fn empty() -> Line {
        Line([Wide::zero(); WORDS])
    }

    /// Changes a bit.
    pub(crate) fn flip(&mut self, bit: usize) {
        let one = 1_u64 << (bit % 64);
        let (high, low) = if bit % 128 >= 64 { (one, 0) } else { (0, one) };
        if let Some(word) = self.0.get_mut(bit / 128) {
            *word = word.xor(Wide::from_halves(low, high));
        }
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
    /// All lines; the first is empty.
    pub(crate) lines: Vec<Line>,
    /// Classes of IPv4 addresses, and of all.
    pub(crate) v4: SearchV4,
    pub(crate) v6: Search<u128>,
    /// Vectors by address class and kind of flow.
    pub(crate) addresses: Vec<Row>,
    /// Class by port, and vectors by class: remote, local.
    pub(crate) ports: [Ports; 2],
    /// Some rule asks for our own address, and it was this one.
    pub(crate) has_local: bool,
    pub(crate) local: IpAddress,
    /// The set as it came.
    pub(crate) source: Vec<u8>,
}

/// The dimension of a port.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// By port.
    pub(crate) classes: Vec<u16>,
    /// By class.
    pub(crate) rows: Vec<Row>,
}

impl Ports {
    #[inline(always)]
    fn row(&self, port: u16) -> Option<&Row> {
        self.rows.get(usize::from(*self.classes.get(usize::from(port))?))
    }
}

impl RuleSet {
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
        let ports = |p: &Ports| p.classes.capacity() * 2 + p.rows.capacity() * size_of::<Row>();
        self.lines.capacity() * size_of::<Line>()
            + self.rules.capacity() * size_of::<Rule>()
            + self.addresses.capacity() * size_of::<Row>()
            + self.v4.bytes()
            + self.v6.bytes()
            + self.ports.iter().map(ports).sum::<usize>()
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
        let address = self.addresses.get(usize::from(class) * KINDS + flow.kind())?;
        let remote = self.ports[0].row(flow.remote_port)?;
        let local = self.ports[1].row(flow.local_port)?;
        for at in 0..LINES {
            let (a, r, l) = (address[at], remote[at], local[at]);
            if a == 0 || l == 0 {
                continue;
            }
            let line = |index: u32| self.lines.get(index as usize);
            if let Some(bit) = first_common(&line(a)?.0, &line(r)?.0, &line(l)?.0) {
                return Some(at * LINE_BITS + bit);
            }
        }
        None
    }
}

type Words = [Wide; WORDS];

/// The lowest bit that all three have. A hundred instructions, all of them if there is none. Written with
/// the vector instructions that every x86-64 has: what the compiler makes of a loop over plain
/// words is twice as long.
#[inline(always)]
fn first_common(a: &Words, b: &Words, c: &Words) -> Option<usize> {
    let thirds: [Wide; 3] = core::array::from_fn(|third| {
        let first = third * 9;
        (first + 1..first + 9).fold(common(a, b, c, first), |any, at| any.or(common(a, b, c, at)))
    });
    if thirds[0].or(thirds[1]).or(thirds[2]).is_zero() {
        return None;
    }
    Some(which_common(a, b, c, 3 * first_set(thirds)))
}

#[inline(always)]
fn common(a: &Words, b: &Words, c: &Words, at: usize) -> Wide {
    a[at].and(b[at]).and(c[at])
}

/// The first of three that has a bit set, if one has.
#[inline(always)]
fn first_set(of: [Wide; 3]) -> usize {
    if !of[0].is_zero() {
        0
    } else if !of[1].is_zero() {
        1
    } else {
        2
    }
}

/// The bit, in one of the nine words from three times `part` on.
#[inline(always)]
fn which_common(a: &Words, b: &Words, c: &Words, part: usize) -> usize {
    let word = |at: usize| common(a, b, c, at);
    let any = |at: usize| word(3 * at).or(word(3 * at + 1)).or(word(3 * at + 2));
    let part = part + first_set([any(part), any(part + 1), any(part + 2)]);
    let at = 3 * part + first_set([word(3 * part), word(3 * part + 1), word(3 * part + 2)]);
    let [low, high] = word(at).halves();
    at * 128 + if low != 0 { low.trailing_zeros() } else { 64 + high.trailing_zeros() } as usize
}
