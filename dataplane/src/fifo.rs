//! First-in-first-out lists of connections, linked through the connections themselves, and the set
//! of groups that have something in one.
use crate::flow_table::NIL;
use ix_abi::GroupId;
use ix_abi::limits::GROUPS_MAX;

/// Ends of a list. The link is a field of the element, which the caller names.
#[derive(Clone, Copy, Debug)]
pub struct Fifo {
    /// The oldest, or `NIL`.
    pub head: u32,
    tail: u32,
}

impl Default for Fifo {
    fn default() -> Fifo {
        Fifo { head: NIL, tail: NIL }
    }
}

impl Fifo {
    /// Appends `index`; `link` gives the link of an element.
    #[inline]
    pub fn push(&mut self, index: u32, mut set_link: impl FnMut(u32, u32)) {
        set_link(index, NIL);
        if self.head == NIL {
            self.head = index;
        } else {
            set_link(self.tail, index);
        }
        self.tail = index;
    }

    /// Takes the oldest out; `next` is its link.
    #[inline]
    pub fn remove_head(&mut self, next: u32) {
        self.head = next;
    }

    /// Whether nothing is in it.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.head == NIL
    }
}

/// A set of flow groups. A bit for each, and one for each word that has any, so that an empty set
/// costs one test.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupSet {
    words: [u64; WORDS],
    any: u8,
}

const WORDS: usize = GROUPS_MAX / 64;
const _: () = assert!(WORDS <= u8::BITS as usize);

impl GroupSet {
    /// Adds a group.
    #[inline(always)]
    pub fn insert(&mut self, group: GroupId) {
        let at = usize::from(group.0) % GROUPS_MAX;
        self.words[at / 64] |= 1 << (at % 64);
        self.any |= 1 << (at / 64);
    }

    /// Takes a group out.
    #[inline(always)]
    pub fn remove(&mut self, group: GroupId) {
        let at = usize::from(group.0) % GROUPS_MAX;
        let word = &mut self.words[at / 64];
        *word &= !(1 << (at % 64));
        if *word == 0 {
            self.any &= !(1 << (at / 64));
        }
    }

    /// Adds all groups of another set.
    pub fn insert_all(&mut self, other: &GroupSet) {
        self.words.iter_mut().zip(other.words).for_each(|(word, more)| *word |= more);
        self.any |= other.any;
    }

    /// Whether a group is in it.
    #[inline(always)]
    pub fn contains(&self, group: GroupId) -> bool {
        let at = usize::from(group.0) % GROUPS_MAX;
        self.words[at / 64] & (1 << (at % 64)) != 0
    }

    /// The first group at `from` or after it.
    #[inline(always)]
    pub fn next(&self, from: usize) -> Option<GroupId> {
        if self.any == 0 || from >= GROUPS_MAX {
            return None;
        }
        let mut word = from / 64;
        let mut bits = self.words[word] & (u64::MAX << (from % 64));
        if bits == 0 {
            // Words behind this one.
            let later = u32::from(self.any) & (0xfe << word);
            if later == 0 {
                return None;
            }
            word = later.trailing_zeros() as usize % WORDS;
            bits = self.words[word];
        }
        Some(GroupId((word * 64) as u16 + bits.trailing_zeros() as u16))
    }

    /// Whether it is empty.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.any == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_list_keeps_its_order_and_can_be_reused() {
        let mut links = [NIL; 8];
        let mut fifo = Fifo::default();
        for round in 0..3 {
            for i in [3, 1, 5] {
                fifo.push(i, |at, to| links[at as usize] = to);
            }
            let mut seen = Vec::new();
            while !fifo.is_empty() {
                let head = fifo.head;
                seen.push(head);
                fifo.remove_head(links[head as usize]);
            }
            assert_eq!(seen, [3, 1, 5], "round {round}");
        }
    }

    #[test]
    fn a_set_of_groups_is_walked_in_order() {
        let mut set = GroupSet::default();
        for group in [0, 63, 64, 127, 511] {
            set.insert(GroupId(group));
        }
        set.remove(GroupId(64));
        let mut seen = Vec::new();
        let mut from = 0;
        while let Some(group) = set.next(from) {
            seen.push(group.0);
            from = usize::from(group.0) + 1;
        }
        assert_eq!(seen, [0, 63, 127, 511]);
        assert!(!set.is_empty());
    }
}
