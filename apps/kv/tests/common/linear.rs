//! Whether recorded histories of a key are linearisable: whether all operations could have happened
//! one after the other, each at some moment between its request and its answer.
//!
//! The search is Wing and Gong's with Lowe's memory of what has been tried (G. Lowe, "Testing for
//! linearizability", 2017). Answers carry version numbers, so that most orders are ruled out at once.
pub mod load;

use std::collections::HashSet;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Get,
    Set(Vec<u8>),
    /// Only over this version.
    Cas(u64, Vec<u8>),
    Append(Vec<u8>),
    Incr(u64),
    Delete,
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The value and its version.
    Value(Vec<u8>, u64),
    /// The version that was made.
    Stored(u64),
    Deleted,
    NotFound,
    NotStored,
    Exists,
    NotNumeric,
}

/// One operation: asked at `from`, answered at `to`.
#[derive(Clone, Debug)]
pub struct Event {
    pub from: u64,
    pub to: u64,
    pub op: Op,
    pub outcome: Outcome,
}

impl Event {
    /// In one line, with long values cut.
    pub fn show(&self) -> String {
        let cut = |value: &[u8]| {
            let head = value.get(..20).unwrap_or(value).escape_ascii().to_string();
            format!("{head} ({} bytes)", value.len())
        };
        let op = match &self.op {
            Op::Set(value) => format!("set {}", cut(value)),
            Op::Cas(version, value) => format!("cas {version} {}", cut(value)),
            Op::Append(value) => format!("append {}", cut(value)),
            other => format!("{other:?}"),
        };
        let outcome = match &self.outcome {
            Outcome::Value(value, version) => format!("{}, version {version}", cut(value)),
            other => format!("{other:?}"),
        };
        format!("{}..{}: {op} -> {outcome}", self.from, self.to)
    }
}

/// What a key holds: value and version.
type State = Option<(Vec<u8>, u64)>;

/// The state after an operation that had this outcome; `None` if it could not have had it.
fn step(state: &State, op: &Op, outcome: &Outcome) -> Option<State> {
    // A version is newer than the one that it replaces.
    let newer = |version: u64| state.as_ref().is_none_or(|(_, old)| version > *old);
    match (op, outcome, state) {
        (Op::Get, Outcome::NotFound, None) => Some(None),
        (Op::Get, Outcome::Value(value, version), Some((held, current))) => {
            (value == held && version == current).then(|| state.clone())
        }
        (Op::Set(value), Outcome::Stored(version), _) if newer(*version) => {
            Some(Some((value.clone(), *version)))
        }
        (Op::Cas(..), Outcome::NotFound, None) => Some(None),
        (Op::Cas(expected, _), Outcome::Exists, Some((_, current))) => {
            (expected != current).then(|| state.clone())
        }
        (Op::Cas(expected, value), Outcome::Stored(version), Some((_, current))) => {
            (expected == current && newer(*version)).then(|| Some((value.clone(), *version)))
        }
        (Op::Append(_), Outcome::NotStored, None) => Some(None),
        (Op::Append(more), Outcome::Stored(version), Some((held, _))) if newer(*version) => {
            Some(Some(([&held[..], more].concat(), *version)))
        }
        (Op::Incr(_), Outcome::NotFound, None) => Some(None),
        (Op::Incr(by), Outcome::Value(value, version), Some((held, _))) if newer(*version) => {
            let sum = number(held)?.wrapping_add(*by).to_string().into_bytes();
            // A shorter number is padded: what is appended then comes behind the spaces.
            let padded = format!("{:<1$}", String::from_utf8_lossy(&sum), held.len());
            (sum == *value).then_some(Some((padded.into_bytes(), *version)))
        }
        (Op::Incr(_), Outcome::NotNumeric, Some((held, _))) => {
            number(held).is_none().then(|| state.clone())
        }
        (Op::Delete, Outcome::NotFound, None) | (Op::Delete, Outcome::Deleted, Some(_)) => {
            Some(None)
        }
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u64> {
    // Up to a space, as memcached reads it.
    let digits = value.split(|&b| b == b' ').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const END: usize = usize::MAX;

/// Requests and answers in their order, as a list from which operations are taken and put back.
struct List {
    /// Even places are requests, odd ones answers: `2 * n` and `2 * n + 1` are those of operation `n`.
    next: Vec<usize>,
    before: Vec<usize>,
    head: usize,
}

impl List {
    fn new(history: &[Event]) -> List {
        let mut order: Vec<(u64, usize)> = vec![];
        for (n, event) in history.iter().enumerate() {
            assert!(event.from <= event.to, "an answer before its request");
            order.extend([(event.from, 2 * n), (event.to, 2 * n + 1)]);
        }
        // At the same moment, requests come first: the operations overlap.
        order.sort_by_key(|&(time, place)| (time, place % 2));
        let mut list = List {
            next: vec![END; order.len()],
            before: vec![END; order.len()],
            head: order.first().map_or(END, |first| first.1),
        };
        for pair in order.windows(2) {
            list.next[pair[0].1] = pair[1].1;
            list.before[pair[1].1] = pair[0].1;
        }
        list
    }

    fn unlink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        match before {
            END => self.head = next,
            _ => self.next[before] = next,
        }
        if next != END {
            self.before[next] = before;
        }
    }

    fn relink(&mut self, place: usize) {
        let (before, next) = (self.before[place], self.next[place]);
        match before {
            END => self.head = place,
            _ => self.next[before] = place,
        }
        if next != END {
            self.before[next] = place;
        }
    }
}

/// Whether the history of one key, which began without a value, is linearisable; if not, the operation
/// that could be given no place in the longest order found.
pub fn check(history: &[Event]) -> Result<(), Event> {
    let mut list = List::new(history);
    let mut state: State = None;
    let mut done = vec![0u64; history.len().div_ceil(64)];
    let mut tried = HashSet::new();
    let mut taken: Vec<(usize, State)> = vec![];
    let mut place = list.head;
    let (mut longest, mut stuck_at) = (0, 0);
    while list.head != END {
        if place.is_multiple_of(2) {
            let n = place / 2;
            if let Some(after) = step(&state, &history[n].op, &history[n].outcome) {
                done[n / 64] |= 1 << (n % 64);
                if tried.insert((done.clone(), after.clone())) {
                    taken.push((place, std::mem::replace(&mut state, after)));
                    list.unlink(place);
                    list.unlink(place + 1);
                    place = list.head;
                    continue;
                }
                done[n / 64] &= !(1 << (n % 64));
            }
            place = list.next[place];
            continue;
        }
        // An answer whose operation has no place yet: what was chosen before was wrong.
        if taken.len() >= longest {
            (longest, stuck_at) = (taken.len(), place / 2);
        }
        let Some((wrong, former)) = taken.pop() else { return Err(history[stuck_at].clone()) };
        state = former;
        done[wrong / 128] &= !(1 << (wrong / 2 % 64));
        list.relink(wrong + 1);
        list.relink(wrong);
        place = list.next[wrong];
    }
    Ok(())
}
