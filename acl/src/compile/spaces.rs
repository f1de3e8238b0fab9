//! Spaces: for each band of each dimension of ports the rules whose range ends within it, and their bit vectors.
//! A vector is its predecessor's with the bits of the rules changed that come or go.
use super::ports::range;
use super::{AclError, Compiler, WORK, try_filled, try_room};
use crate::set::{Line, NONE, Space};
use alloc::vec::Vec;

#[derive(Debug)]
pub(super) struct Sweep {
    /// Of the band's ports.
    which: usize,
    band: usize,
    space: Space,
    /// By rule: its bit, if it is in the space.
    bits: Vec<u16>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Members,
    /// From this row on.
    Addresses(usize),
    /// The vectors of a dimension: changes that are done, and up to which there are.
    Ports(usize, usize, usize),
}

impl Compiler {
    pub(super) fn begin_spaces(&mut self) -> Result<Sweep, AclError> {
        for which in [0, 1] {
            self.set.spaces[which] = try_room(self.plan.ports[which].bands.len())?;
        }
        let bits = try_filled(NONE, self.set.rules.len())?;
        Ok(Sweep { which: 0, band: 0, space: Space::default(), bits, step: Step::Members })
    }

    /// Goes on for a slice; whether all is done.
    pub(super) fn spaces(&mut self, sweep: &mut Sweep) -> Result<bool, AclError> {
        sweep.step = match sweep.step {
            Step::Members if sweep.which == 2 => return Ok(true),
            Step::Members => match self.members(sweep)? {
                true => Step::Addresses(0),
                false => self.next_space(sweep),
            },
            Step::Addresses(row) => self.vectors_of_rows(sweep, row),
            Step::Ports(which, at, end) if at < end => self.vectors_of_ports(sweep, which, at, end),
            Step::Ports(0, ..) => self.begin_ports(sweep, 1),
            Step::Ports(..) => self.next_space(sweep),
        };
        Ok(false)
    }

    fn next_space(&mut self, sweep: &mut Sweep) -> Step {
        let space = core::mem::take(&mut sweep.space);
        space.rules.iter().for_each(|rule| sweep.bits[usize::from(*rule)] = NONE);
        self.set.spaces[sweep.which].push(space);
        sweep.band += 1;
        if sweep.band == self.plan.ports[sweep.which].bands.len() {
            (sweep.which, sweep.band) = (sweep.which + 1, 0);
        }
        Step::Members
    }

    /// Finds the rules, and makes room; whether there are any.
    fn members(&mut self, sweep: &mut Sweep) -> Result<bool, AclError> {
        let (set, plan) = (&self.set, &self.plan);
        let band = &plan.ports[sweep.which].bands[sweep.band];
        let inside = &plan.ports[sweep.which].changes[band.changes.0..band.changes.1];
        let space = &mut sweep.space;
        space.rules = try_room(inside.len())?;
        space.rules.extend(inside.iter().map(|change| change.rule));
        space.rules.sort_unstable();
        space.rules.dedup();
        // A line for each coming and going of a rule, at most.
        let mut lines = 4 + inside.len();
        for (bit, rule) in space.rules.iter().enumerate() {
            sweep.bits[usize::from(*rule)] = bit as u16;
            lines += 2 + plan.kinds[usize::from(*rule)].count_ones() as usize;
        }
        if space.rules.is_empty() {
            return Ok(false);
        }
        let numbers = plan.rows.len() + plan.ports[0].classes + plan.ports[1].classes;
        self.check_memory(lines * size_of::<Line>() + numbers * 2)?;
        space.lines = try_room(lines)?;
        space.lines.push(Line::empty());
        space.rows = try_room(plan.rows.len())?;
        space.rows.push(0);
        space.ports =
            [try_filled(0, plan.ports[0].classes)?, try_filled(0, plan.ports[1].classes)?];
        debug_assert!(set.spaces[sweep.which].len() == sweep.band);
        Ok(true)
    }

    fn vectors_of_rows(&self, sweep: &mut Sweep, from: usize) -> Step {
        let (plan, space) = (&self.plan, &mut sweep.space);
        let mut work = 0;
        for (row, origin) in plan.rows.iter().enumerate().skip(from.max(1)) {
            if work > WORK {
                return Step::Addresses(row);
            }
            let mut line = space.rows[usize::from(origin.parent)];
            let fresh = space.lines.len();
            for rule in plan.own(origin) {
                work +=
                    usize::from(space.flip(&mut line, fresh, sweep.bits[usize::from(rule)])) * 8;
            }
            work += 4 + usize::from(origin.end - origin.first);
            space.rows.push(line);
        }
        self.begin_ports(sweep, 0)
    }

    /// The vector of the first class that can be asked for.
    fn begin_ports(&self, sweep: &mut Sweep, which: usize) -> Step {
        let plan = &self.plan.ports[which];
        // Along the band's own ports, the band will do.
        let (port, class, at, end) = if which == sweep.which {
            let band = &plan.bands[sweep.band];
            (band.first, band.class, band.changes.0, band.changes.1)
        } else {
            (0, 0, 0, plan.changes.len())
        };
        let space = &mut sweep.space;
        let (mut line, fresh) = (0, space.lines.len());
        for bit in 0..space.rules.len() {
            let (first, last) = range(which, &self.set.rules[usize::from(space.rules[bit])]);
            if (first..=last).contains(&port) {
                space.flip(&mut line, fresh, bit as u16);
            }
        }
        space.ports[which][usize::from(class)] = line;
        Step::Ports(which, at, end)
    }

    fn vectors_of_ports(&self, sweep: &mut Sweep, which: usize, from: usize, end: usize) -> Step {
        let (plan, space) = (&self.plan.ports[which], &mut sweep.space);
        let (mut at, mut work) = (from, 0);
        for group in plan.changes[from..end].chunk_by(|a, b| a.port == b.port) {
            if work > WORK {
                break;
            }
            let class = usize::from(self.set.ports[which][group[0].port as usize].class);
            let mut line = space.ports[which][class - 1];
            let fresh = space.lines.len();
            for change in group {
                let bit = sweep.bits[usize::from(change.rule)];
                work += usize::from(space.flip(&mut line, fresh, bit)) * 8;
            }
            work += 4 + group.len();
            at += group.len();
            space.ports[which][class] = line;
        }
        Step::Ports(which, at, end)
    }
}

impl Space {
    /// Changes a bit of a vector, in a line that is the vector's own; whether there is such a bit.
    fn flip(&mut self, line: &mut u16, fresh: usize, bit: u16) -> bool {
        if bit == NONE {
            return false;
        }
        if usize::from(*line) < fresh {
            // Never beyond what `members` has made room for.
            let copy = self.lines[usize::from(*line)].clone();
            *line = self.lines.len() as u16;
            self.lines.push(copy);
        }
        self.lines[usize::from(*line)].flip(usize::from(bit));
        true
    }
}
