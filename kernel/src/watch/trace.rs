//! The packet trace's way to the console. Writing a line takes long (a real serial port: milliseconds),
//! so a core spends at most half its time on it: what does not fit is counted and told as a number.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::limits::CORES_MAX;

use crate::cpu::percore;
use crate::{console, time};

/// Longest time on end that a core may write.
const BURST_NS: u64 = 20_000_000;

/// Of one core; written by that core only.
struct Budget {
    /// When it will have made up for what it has spent.
    even_ns: AtomicU64,
    /// Packets that were not written.
    skipped: AtomicU64,
}

static BUDGETS: [Budget; CORES_MAX] =
    [const { Budget { even_ns: AtomicU64::new(0), skipped: AtomicU64::new(0) } }; CORES_MAX];

impl Budget {
    /// Writes a line if the budget allows.
    fn write(&self, args: fmt::Arguments<'_>) -> bool {
        let before = time::now_ns();
        let even = self.even_ns.load(Ordering::Relaxed).max(before);
        if even - before > BURST_NS {
            return false;
        }
        console::line(args);
        // For the time that it took it rests as long again.
        let took = time::now_ns().saturating_sub(before);
        self.even_ns.store(even + 2 * took, Ordering::Relaxed);
        true
    }

    fn tell_skipped(&self) -> bool {
        let skipped = self.skipped.load(Ordering::Relaxed);
        if skipped > 0 {
            if !self.write(format_args!("trace: core {}: {skipped} more packets", percore::id())) {
                return false;
            }
            self.skipped.store(0, Ordering::Relaxed);
        }
        true
    }
}

/// A packet's line.
pub fn line(args: fmt::Arguments<'_>) {
    let Some(budget) = BUDGETS.get(percore::id()) else { return };
    if !(budget.tell_skipped() && budget.write(args)) {
        budget.skipped.store(budget.skipped.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// From time to time: the number of packets that were left out last.
pub fn tell_skipped(core: usize) {
    if let Some(budget) = BUDGETS.get(core) {
        let _later = budget.tell_skipped();
    }
}
