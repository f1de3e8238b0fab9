//! Classes of ports: between two changes of the rules that a port admits. Bands of them: as wide as they can be
//! with at most [`SPACE_RULES`](crate::set::SPACE_RULES) changes strictly inside. Changes where a band begins are not inside, so
//! no number of rules that begin at one port makes a band too full.
use super::{AclError, Compiler, try_filled, try_room};
use crate::rule::{ANY_PORT, Ports as Range, Rule};
use crate::set::Point;
use alloc::vec::Vec;

/// A change of the rules that a port admits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Change {
    pub port: u32,
    pub rule: u16,
}

/// A row of neighbouring ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Band {
    pub first: u16,
    pub last: u16,
    /// The class of its first port.
    pub class: u16,
    /// Changes strictly inside: from, and up to.
    pub changes: (usize, usize),
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By port.
    pub changes: Vec<Change>,
    pub bands: Vec<Band>,
    pub classes: usize,
}

/// The range of a rule in a dimension.
pub(super) fn range(which: usize, rule: &Rule) -> Range {
    if which == 0 { rule.remote_ports } else { rule.details() }
}

impl Compiler {
    /// The comings and goings of a dimension, in order.
    pub(super) fn changes(&mut self, which: usize) -> Result<(), AclError> {
        let rules = self.plan.order.iter().map(|rule| (*rule, &self.set.rules[usize::from(*rule)]));
        let limited = rules.map(|(i, rule)| (i, range(which, rule))).filter(|r| r.1 != ANY_PORT);
        let mut changes = try_room(2 * limited.clone().count())?;
        for (rule, (first, last)) in limited {
            if first > 0 {
                changes.push(Change { port: u32::from(first), rule });
            }
            if last < u16::MAX {
                changes.push(Change { port: u32::from(last) + 1, rule });
            }
        }
        changes.sort_unstable();
        self.plan.ports[which].changes = changes;
        Ok(())
    }

    /// What they divide the ports into.
    pub(super) fn classes(&mut self, which: usize) -> Result<(), AclError> {
        let plan = &mut self.plan.ports[which];
        let mut points = try_filled(Point::default(), 1 << 16)?;
        plan.bands = try_room(plan.changes.len() / (self.band_changes + 1) + 1)?;
        let mut band = Band { first: 0, last: u16::MAX, class: 0, changes: (0, 0) };
        let (mut here, mut from, mut at) = (Point::default(), 0, 0);
        for group in plan.changes.chunk_by(|a, b| a.port == b.port) {
            let port = group[0].port as usize;
            points[from..port].fill(here);
            from = port;
            here.class += 1;
            at += group.len();
            if at - band.changes.0 > self.band_changes {
                band.last = (port - 1) as u16;
                plan.bands.push(band);
                here.band += 1;
                let (first, class) = (port as u16, here.class);
                band = Band { first, last: u16::MAX, class, changes: (at, at) };
            }
            band.changes.1 = at;
        }
        points[from..].fill(here);
        plan.bands.push(band);
        plan.classes = usize::from(here.class) + 1;
        self.set.ports[which] = points;
        Ok(())
    }
}
