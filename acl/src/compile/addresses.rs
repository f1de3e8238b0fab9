//! Classes of the peer's address. A class is what lies in a prefix and in none that is longer; its rules are
//! those of its prefix and of the prefix around it. A row is a class and a kind of flow, where they have
//! rules of their own; else the row is the one of the prefix around.
use super::{AclError, Compiler, SLICE, try_room};
use crate::rule::KINDS;
use crate::search::{Search, SearchV4};
use alloc::vec::Vec;

/// The first IPv4 address, mapped.
const V4: u128 = 0xffff_0000_0000;

/// Where a row comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The row of the prefix around: it has these rules, too.
    pub parent: u16,
    pub kind: u8,
    /// Its own, in the order of prefixes: from, and up to.
    pub first: u16,
    pub end: u16,
}

#[derive(Debug)]
pub(super) struct Sweep {
    /// In the order of prefixes.
    at: usize,
    /// Prefixes around the present point: last address and class.
    open: Vec<(u128, u16)>,
    classes: u16,
    boundaries: Vec<(u128, u16)>,
}

impl Compiler {
    /// Brings the prefixes into order.
    pub(super) fn order(&mut self) -> Result<Sweep, AclError> {
        let (set, plan) = (&mut self.set, &mut self.plan);
        let count = set.rules.len();
        plan.order = try_room(count)?;
        plan.order.extend((0..count as u16).filter(|rule| plan.kinds[usize::from(*rule)] != 0));
        plan.order.sort_unstable_by_key(|rule| (set.rules[usize::from(*rule)].remote, *rule));
        let rows: u32 = plan.kinds.iter().map(|kinds| kinds.count_ones()).sum();
        plan.rows = try_room(rows as usize + 1)?;
        plan.rows.push(Origin { parent: 0, kind: 0, first: 0, end: 0 });
        set.addresses = try_room((count + 1) * KINDS)?;
        set.addresses.resize(KINDS, 0);
        let boundaries = try_room(2 * count + 1)?;
        Ok(Sweep { at: 0, open: try_room(130)?, classes: 1, boundaries })
    }

    /// Takes some prefixes on; whether it was the last.
    pub(super) fn addresses(&mut self, sweep: &mut Sweep) -> Result<bool, AclError> {
        let end = sweep.at + SLICE;
        while sweep.at < end {
            let (set, plan) = (&mut self.set, &mut self.plan);
            let left = plan.order.get(sweep.at..).unwrap_or(&[]);
            let prefix_of = |rule: &u16| set.rules[usize::from(*rule)].remote;
            let Some(prefix) = left.first().map(prefix_of) else {
                self.end_of_addresses(sweep)?;
                return Ok(true);
            };
            let group = left.iter().take_while(|rule| prefix_of(rule) == prefix);
            let mut about = 0;
            let first = sweep.at;
            for rule in group {
                about |= plan.kinds[usize::from(*rule)];
                sweep.at += 1;
            }
            sweep.close_before(Some(prefix.bits));
            let parent = sweep.open.last().map_or(0, |open| open.1);
            let from = usize::from(parent) * KINDS;
            set.addresses.extend_from_within(from..from + KINDS);
            let class = sweep.classes;
            sweep.classes += 1;
            for kind in (0..KINDS).filter(|kind| about >> kind & 1 == 1) {
                let row = &mut set.addresses[usize::from(class) * KINDS + kind];
                let (first, end) = (first as u16, sweep.at as u16);
                plan.rows.push(Origin { parent: *row, kind: kind as u8, first, end });
                *row = (plan.rows.len() - 1) as u16;
            }
            sweep.open.push((prefix.last(), class));
            sweep.boundary(prefix.bits, class);
        }
        Ok(false)
    }

    fn end_of_addresses(&mut self, sweep: &mut Sweep) -> Result<(), AclError> {
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
}

impl Sweep {
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
