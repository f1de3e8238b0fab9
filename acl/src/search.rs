//! Which of the intervals of a line a point is in: a sorted array in the order of a breadth-first walk
//! (Eytzinger), so that a step of the search is a comparison and an addition, without a branch.
use crate::compile::{AclError, try_filled};
use crate::wide::Wide;
use alloc::vec::Vec;

/// Intervals, each with a class.
#[derive(Debug, Default)]
pub(crate) struct Search<K> {
    /// Boundary `i` of the walk at index `i`, from 1; a power of two of them.
    keys: Vec<K>,
    /// By number of boundaries at or below the point.
    classes: Vec<u16>,
}

impl<K: Copy + Ord> Search<K> {
    /// From boundaries, ascending; the first class is of what lies below all of them. `most` is the
    /// largest key.
    pub fn build(first: u16, boundaries: &[(K, u16)], most: K) -> Result<Search<K>, AclError> {
        let size = (boundaries.len() + 1).next_power_of_two();
        let mut keys = try_filled(most, size)?;
        let mut classes = try_filled(boundaries.last().map_or(first, |b| b.1), size)?;
        classes[0] = first;
        for (i, (_, class)) in boundaries.iter().enumerate() {
            classes[i + 1] = *class;
        }
        let mut next = 0;
        // In-order walk of the implicit tree: a stack of nodes whose left side is done.
        let mut node = 1;
        let mut stack: [usize; 32] = [0; 32];
        let mut depth = 0;
        while node < size || depth > 0 {
            if node < size {
                stack[depth] = node;
                depth += 1;
                node *= 2;
            } else {
                depth -= 1;
                node = stack[depth];
                if let Some((key, _)) = boundaries.get(next) {
                    keys[node] = *key;
                }
                next += 1;
                node = node * 2 + 1;
            }
        }
        Ok(Search { keys, classes })
    }

    /// The class of a point.
    #[inline(always)]
    pub fn class(&self, point: K) -> u16 {
        let size = self.keys.len();
        let mut node = 1;
        while node < size {
            // `node & (size - 1)` is `node`; so the compiler sees it too.
            node = 2 * node + usize::from(self.keys[node & (size - 1)] <= point);
        }
        self.classes.get(node.wrapping_sub(size)).copied().unwrap_or(0)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.keys.capacity() * size_of::<K>() + self.classes.capacity() * 2
    }
}

/// Keys of a node of [`SearchV4`]: a cache line.
const KEYS: usize = 16;
/// Nodes below one.
const FAN: usize = KEYS + 1;

/// The same for IPv4 addresses, which are looked up most: a tree of nodes of 16 keys, compared all at
/// once, so that four steps do for more boundaries than a set can have.
#[derive(Debug, Default)]
pub(crate) struct SearchV4 {
    /// Level by level; every level is full. The gaps between those of the last come behind.
    nodes: Vec<[Wide; 4]>,
    /// By number of boundaries at or below the point.
    classes: Vec<u16>,
}

/// Comparisons are signed: this keeps the order.
fn signed(key: u32) -> i32 {
    (key ^ 0x8000_0000) as i32
}

impl SearchV4 {
    /// See [`Search::build`].
    pub fn build(first: u16, boundaries: &[(u32, u16)]) -> Result<SearchV4, AclError> {
        let (mut levels, mut gaps, mut gaps_from) = (0, 1, 0);
        while gaps < boundaries.len() + 1 {
            gaps_from += gaps;
            gaps *= FAN;
            levels += 1;
        }
        let mut classes = try_filled(boundaries.last().map_or(first, |b| b.1), gaps)?;
        classes[0] = first;
        for (i, (_, class)) in boundaries.iter().enumerate() {
            classes[i + 1] = *class;
        }
        let key = |at: usize| boundaries.get(at).map_or(i32::MAX, |b| signed(b.0));
        let mut nodes = try_filled([Wide::from_numbers([i32::MAX; 4]); 4], gaps_from)?;
        // On a level whose gaps are `span` boundaries apart, key `k` of node `n` is this one:
        let (mut from, mut count, mut span) = (0, 1, gaps / FAN);
        for _ in 0..levels {
            for n in 0..count {
                let at = |k: usize| key((n * FAN + k + 1) * span - 1);
                nodes[from + n] = core::array::from_fn(|i| {
                    Wide::from_numbers([0, 1, 2, 3].map(|j| at(4 * i + j)))
                });
            }
            from += count;
            count *= FAN;
            span /= FAN;
        }
        Ok(SearchV4 { nodes, classes })
    }

    /// The class of an address.
    #[inline(always)]
    pub fn class(&self, address: u32) -> u16 {
        let point = Wide::from_numbers([signed(address); 4]);
        let mut at = 0;
        // Below the last level there is no node: no need to count them.
        while let Some(keys) = self.nodes.get(at) {
            let below = (Wide::greater(keys, point) | 1 << KEYS).trailing_zeros() as usize;
            at = at * FAN + below + 1;
        }
        self.classes.get(at.wrapping_sub(self.nodes.len())).copied().unwrap_or(0)
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        self.nodes.capacity() * 64 + self.classes.capacity() * 2
    }
}
