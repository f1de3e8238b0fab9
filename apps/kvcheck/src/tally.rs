//! What was done and what was wrong, counted on each core and told by core 0.
use alloc::boxed::Box;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use kv::limits::WORKERS_MAX;
use kv::worker::count;

/// One core's counts; only that core writes them.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct Counts {
    /// Requests whose answers were right.
    pub requests: AtomicU64,
    /// Bytes of them and of their answers.
    pub bytes: AtomicU64,
    /// Whatever was wrong.
    pub errors: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Ends of connections, kv's and clients', that were reset, where that is no error.
    pub resets: AtomicU64,
    /// Of them, clients'.
    pub lost: AtomicU64,
    /// Clients that have done all their rounds.
    pub finished: AtomicU64,
}

/// All cores'.
#[derive(Debug)]
pub struct Tally(Box<[Counts]>);

impl Default for Tally {
    fn default() -> Tally {
        Tally((0..WORKERS_MAX).map(|_| Counts::default()).collect())
    }
}

/// Sums over all cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// As in [`Counts`].
    pub requests: u64,
    /// As in [`Counts`].
    pub bytes: u64,
    /// As in [`Counts`].
    pub errors: u64,
    /// As in [`Counts`].
    pub connects: u64,
    /// As in [`Counts`].
    pub resets: u64,
    /// As in [`Counts`].
    pub lost: u64,
    /// As in [`Counts`].
    pub finished: u64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sum { requests, bytes, errors, connects, .. } = self;
        write!(f, "{requests} requests, {errors} errors, {bytes} bytes, {connects} connects")
    }
}

impl Tally {
    /// Those of a core.
    pub fn of(&self, core: usize) -> &Counts {
        &self.0[core % WORKERS_MAX]
    }

    /// Those of all.
    pub fn sum(&self) -> Sum {
        let all = |get: fn(&Counts) -> &AtomicU64| {
            self.0.iter().fold(0, |sum: u64, one| sum.wrapping_add(get(one).load(Relaxed)))
        };
        Sum {
            requests: all(|c| &c.requests),
            bytes: all(|c| &c.bytes),
            errors: all(|c| &c.errors),
            connects: all(|c| &c.connects),
            resets: all(|c| &c.resets),
            lost: all(|c| &c.lost),
            finished: all(|c| &c.finished),
        }
    }
}

/// Lines about errors that a core prints; all are counted.
const TOLD_MAX: u64 = 8;

impl Counts {
    /// Counts an error; the first ones are told.
    pub fn error(&self, what: fmt::Arguments<'_>) {
        count(&self.errors, 1);
        if self.errors.load(Relaxed) <= TOLD_MAX {
            log::error!("{what}");
        }
    }
}
