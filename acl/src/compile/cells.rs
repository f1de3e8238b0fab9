//! Cells: a band of the peer's ports by a band of ours. For each row and cell: the first of the rules that cover the
//! cell whole. Those that cover a part of it are in the spaces of its bands.
use super::ports::{Band, range};
use super::{AclError, Compiler, WORK, try_room};
use crate::rule::Ports as Range;
use crate::set::NONE;
use core::ops;

#[derive(Debug)]
pub(super) struct Sweep {
    row: usize,
    /// Of its own rules, how many have been entered.
    done: usize,
}

/// The bands that a range covers whole.
fn covered(bands: &[Band], (first, last): Range) -> ops::Range<usize> {
    bands.partition_point(|band| band.first < first)
        ..bands.partition_point(|band| band.last <= last)
}

impl Compiler {
    pub(super) fn begin_cells(&mut self) -> Result<Sweep, AclError> {
        let [remote, local] = &self.plan.ports;
        self.set.columns = local.bands.len();
        self.set.width = remote.bands.len() * local.bands.len();
        let count = self.set.width * self.plan.rows.len();
        self.check_memory(count * 2)?;
        self.set.cells = try_room(count)?;
        self.set.cells.resize(self.set.width, NONE);
        Ok(Sweep { row: 1, done: 0 })
    }

    /// Enters some rules; whether it was the last.
    pub(super) fn cells(&mut self, sweep: &mut Sweep) -> bool {
        let (set, plan) = (&mut self.set, &self.plan);
        let (width, columns) = (set.width, set.columns);
        let mut work = 0;
        while let Some(origin) = plan.rows.get(sweep.row) {
            if set.cells.len() == sweep.row * width {
                let from = usize::from(origin.parent) * width;
                set.cells.extend_from_within(from..from + width);
                work += width / 8;
            }
            let row = &mut set.cells[sweep.row * width..];
            for rule in plan.own(origin).skip(sweep.done) {
                if work > WORK {
                    return false;
                }
                let [remote, local] = [0, 1].map(|which| {
                    let bands = &plan.ports[which].bands;
                    covered(bands, range(which, &set.rules[usize::from(rule)]))
                });
                work += 16 + remote.len() * (8 + local.len());
                for at in remote.map(|band| band * columns) {
                    let cells = row.get_mut(at + local.start..at + local.end);
                    cells.into_iter().flatten().for_each(|cell| *cell = rule.min(*cell));
                }
                sweep.done += 1;
            }
            *sweep = Sweep { row: sweep.row + 1, done: 0 };
            work += 8;
            if work > WORK {
                return false;
            }
        }
        true
    }
}
