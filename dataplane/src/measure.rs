//! What a core measures of itself: how long frames wait for it, how long its iterations take, what the application
//! takes of them, and which flow groups bring the work. `docs/control.md` §9 says what each figure means.
//!
//! One reading of the clock for each iteration is all: the loop needs it anyway. What a poll finds is counted at once,
//! by the number of frames, and everything else is made up when the figures are published.
//!
//! A poll cannot say when a frame has come. It has come after the poll before, if that left nothing: so it counts as
//! having waited since the beginning of that iteration, and since this one's if the core had nothing to do then.
pub(crate) mod backlog;
mod loads;
#[cfg(test)]
mod tests;

use crate::moves::Wake;
use crate::time::Instant;
use alloc::boxed::Box;
use backlog::Backlog;
use ix_abi::histogram::{BUCKETS, PLACES, UNIT_BITS, bucket, max_ns, place, quantile_ns};
use ix_abi::measure::WINDOW_LENGTH_NS;
use ix_abi::stats::{CoreStats, Counter};
pub use loads::{Load, Loads};

/// Counts by [`bucket`].
pub type Histogram = [u64; BUCKETS];

/// The same by [`place`]: what is beyond the buckets belongs to the last.
type Counts = [u64; PLACES];

/// Fractional bits of [`Measure::ns_per_tick`].
const SCALE_BITS: u32 = 20;

/// A core's figures. Plain words, one writer.
#[derive(Debug)]
pub struct Measure {
    /// What took no longer is nothing to look at: below the alarm, and nothing if the iteration before had nothing to do.
    usual_below: u64,
    /// How long frames that are found now may have waited, and its place in the histograms once a poll was told of.
    behind: u64,
    place: u8,
    idle: bool,
    /// A longer iteration is told at once (`moves/relief.rs`); at rest the largest number.
    alarm: u64,
    /// Nanoseconds of a tick of the platform's counter, times 2 to the [`SCALE_BITS`].
    ns_per_tick: u64,
    /// Of the receive queues, and of the rings of other cores.
    pub(crate) queues: Backlog,
    pub(crate) rings: Backlog,
    /// Iterations that found one frame, which was alone: each counts with both of the next.
    lone: Counts,
    /// Of the others. (Of those that follow one without anything to do, which have no length, one is taken from the first.)
    delay: Counts,
    loops: Counts,
    user: Counts,
    busy_ns: u64,
    first: u64,
    idle_loops: u64,
    /// Cores woken, and what came of it.
    pub(crate) wake: Wake,
    /// By flow group.
    pub(crate) loads: Loads,
    window: Window,
    then: Box<Then>,
}

/// The last complete window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Counts them.
    pub number: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// Frames taken.
    pub frames: u64,
    /// Share of it in busy iterations.
    pub busy_permille: u64,
    /// Share of it in user mode.
    pub user_permille: u64,
    /// Median, 99th percentile and largest of the queueing delay; ends of buckets.
    pub delay_p50_ns: u64,
    /// See there.
    pub delay_p99_ns: u64,
    /// See there.
    pub delay_max_ns: u64,
    /// Most frames at one look.
    pub depth_max: u64,
    /// Frames that a poll took on average, of those that found any.
    pub depth: u64,
}

/// What the counts were when the window began.
#[derive(Debug)]
struct Then {
    at: u64,
    delay: Histogram,
    busy_ns: u64,
    user_tsc: u64,
    polls: u64,
}

/// Where frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The device.
    Queues,
    /// Other cores.
    Rings,
}

fn sum(counts: &[u64]) -> u64 {
    counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
}

/// All of these together.
fn histogram(all: &[&Counts]) -> Histogram {
    let mut histogram: Histogram = [0; BUCKETS];
    for counts in all {
        for (place, count) in counts.iter().enumerate() {
            let bucket = &mut histogram[place.min(BUCKETS - 1)];
            *bucket = bucket.wrapping_add(*count);
        }
    }
    histogram
}

impl Measure {
    /// Of a core of a port with so many flow groups; everything is 0.
    pub(crate) fn new(groups: u16, bound: usize) -> Box<Measure> {
        let none = [0; PLACES];
        Box::new(Measure {
            usual_below: 0,
            behind: 0,
            place: 0,
            idle: true,
            alarm: u64::MAX,
            ns_per_tick: 1 << SCALE_BITS,
            queues: Backlog::new(bound),
            rings: Backlog::new(bound),
            lone: none,
            delay: none,
            loops: none,
            user: none,
            busy_ns: 0,
            first: 0,
            idle_loops: 0,
            wake: Wake::default(),
            loads: Loads::new(groups),
            window: Window::default(),
            then: Box::new(Then { at: 0, delay: [0; BUCKETS], busy_ns: 0, user_tsc: 0, polls: 0 }),
        })
    }

    /// The frequency of the platform's counter; without it a tick is a nanosecond.
    pub fn set_tsc_khz(&mut self, khz: u64) {
        self.ns_per_tick = (1_000_000 << SCALE_BITS) / khz.clamp(1000, 1_000_000_000);
    }

    /// An iteration begins, so long after the one before. Whether that is longer than the alarm allows.
    #[inline(always)]
    pub(crate) fn begin(&mut self, span: u64) -> bool {
        self.behind = span;
        self.busy_ns = self.busy_ns.wrapping_add(span);
        span >= self.usual_below && self.begin_unusually()
    }

    #[inline(never)]
    fn begin_unusually(&mut self) -> bool {
        if !self.idle {
            return true;
        }
        self.busy_ns = self.busy_ns.wrapping_sub(self.behind);
        self.behind = 0;
        self.loops[0] = self.loops[0].wrapping_sub(1);
        self.idle = false;
        self.set_alarm(self.alarm);
        false
    }

    /// It ends, and had nothing to do.
    pub(crate) fn rest(&mut self) {
        self.idle = true;
        self.usual_below = 0;
        self.behind = 0;
        self.place = 0;
        self.idle_loops += 1;
    }

    /// Iterations that are longer than that are told of from now on.
    pub(crate) fn set_alarm(&mut self, ns: u64) {
        self.alarm = ns;
        self.usual_below = if self.idle { 0 } else { ns.saturating_add(1) };
    }

    /// So many frames were found, each for the first time.
    #[inline(always)]
    fn add(&mut self, frames: usize) {
        self.delay[usize::from(self.place)] += frames as u64;
    }

    /// Whether a frame that is found alone is nothing to look closely at; then [`Measure::found_lone`].
    #[inline(always)]
    pub(crate) fn may_be_lone(&self) -> bool {
        1 < self.queues.bound
    }

    /// One frame was found.
    #[inline(always)]
    pub(crate) fn found_lone(&mut self) {
        self.lone[usize::from(place(self.behind >> UNIT_BITS))] += 1;
    }

    /// A poll has taken so many frames from the queues. `true`: that is more than lately, or it has left some, or one
    /// before has; [`Measure::found_some_of`] is to be called then.
    #[inline(always)]
    pub(crate) fn found(&mut self, frames: usize) -> bool {
        self.place = place(self.behind >> UNIT_BITS);
        let loops = &mut self.loops[usize::from(self.place)];
        *loops = loops.wrapping_add(1);
        if frames >= self.queues.bound {
            return true;
        }
        self.add(frames);
        false
    }

    /// So many frames were taken from the rings; `true` as in [`Measure::found`].
    pub(crate) fn found_in_rings(&mut self, frames: usize) -> bool {
        if frames >= self.rings.bound {
            return true;
        }
        self.add(frames);
        false
    }

    /// So many frames were taken from the queues or the rings, and so many wait there still; this iteration began
    /// at `now`.
    #[cold]
    pub(crate) fn found_some_of(
        &mut self,
        which: Source,
        (frames, waiting): (usize, usize),
        now: Instant,
    ) {
        let came = now.0.saturating_sub(self.behind);
        let Measure { queues, rings, delay, .. } = self;
        let backlog = match which {
            Source::Queues => queues,
            Source::Rings => rings,
        };
        let fresh = backlog.take(frames, |frames, since| {
            delay[bucket(now.0.saturating_sub(since))] += frames as u64;
        });
        backlog.left(waiting, came);
        backlog.saw(frames + waiting);
        self.add(fresh);
    }

    /// The application has had the core for so many ticks.
    #[inline(always)]
    pub(crate) fn used(&mut self, ticks: u64) {
        let units = ticks.wrapping_mul(self.ns_per_tick) >> (SCALE_BITS + UNIT_BITS);
        self.user[usize::from(place(units))] += 1;
    }

    /// Whether each poll is looked at closely.
    pub(crate) fn force(&mut self, forced: bool) {
        self.queues.force(forced);
        self.rings.force(forced);
    }

    /// The bound of a poll has changed.
    pub(crate) fn set_bound(&mut self, bound: usize) {
        self.queues.set_bound(bound);
        self.rings.set_bound(bound);
    }

    /// Histograms of queueing delay, length of busy iterations, and time in user mode.
    pub fn histograms(&self) -> [Histogram; 3] {
        let Measure { lone, delay, loops, user, .. } = self;
        [histogram(&[lone, delay]), histogram(&[lone, loops]), histogram(&[user])]
    }

    /// Sum of the lengths of busy iterations.
    pub fn busy_ns(&self) -> u64 {
        self.busy_ns
    }

    /// So many ticks, in nanoseconds.
    pub fn ns(&self, ticks: u64) -> u64 {
        ((u128::from(ticks) * u128::from(self.ns_per_tick)) >> SCALE_BITS) as u64
    }

    /// The most frames at one look since the window began.
    pub fn depth_max(&self) -> usize {
        self.queues.most() + self.rings.most()
    }

    /// The last complete window.
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// The last core that was woken from here, and the last time that this one was.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// What flow groups bring.
    pub fn loads(&self) -> &Loads {
        &self.loads
    }

    /// How long the oldest frame that is known of has waited.
    pub(crate) fn oldest_ns(&self, now: Instant) -> u64 {
        let since = self.queues.oldest().into_iter().chain(self.rings.oldest()).min();
        since.map_or(0, |since| now.0.saturating_sub(since)).max(self.behind)
    }

    /// What the counters say that this keeps; closes the window if it is old enough. Whether it did.
    pub(crate) fn sum_up(&mut self, stats: &mut CoreStats, now: Instant) -> bool {
        if self.first == 0 {
            self.first = now.0;
            self.then.at = now.0;
        }
        let ticks = |ns: u64| {
            let ticks = (u128::from(ns) << SCALE_BITS) / u128::from(self.ns_per_tick.max(1));
            ticks as u64
        };
        // Busy time is known up to this iteration's beginning, and so is all time.
        let all = now.0.saturating_sub(self.first);
        stats.set(Counter::BusyTsc, ticks(self.busy_ns));
        stats.set(Counter::IdleTsc, ticks(all.saturating_sub(self.busy_ns)));
        stats.set(Counter::LoopsBusy, sum(&self.loops).wrapping_add(sum(&self.lone)));
        stats.set(Counter::LoopsIdle, self.idle_loops);
        stats.set(Counter::AppEntries, sum(&self.user));
        let due = now.0.saturating_sub(self.then.at) >= WINDOW_LENGTH_NS;
        if due {
            self.close_window(stats.get(Counter::UserTsc), sum(&stats.batches), now.0);
        }
        due
    }

    fn close_window(&mut self, user_tsc: u64, polls: u64, now: u64) {
        let length_ns = now - self.then.at;
        let delay = histogram(&[&self.lone, &self.delay]);
        let mut new = delay;
        for (new, then) in new.iter_mut().zip(&self.then.delay) {
            *new = new.wrapping_sub(*then);
        }
        let share = |ns: u64| (ns.saturating_mul(1000) / length_ns).min(1000);
        let busy_ns = self.busy_ns.wrapping_sub(self.then.busy_ns);
        let ticks = user_tsc.wrapping_sub(self.then.user_tsc);
        let user_ns = self.ns(ticks);
        let depth_max = self.queues.take_most() + self.rings.take_most();
        self.window = Window {
            number: self.window.number + 1,
            end_ns: now,
            length_ns,
            frames: sum(&new),
            busy_permille: share(busy_ns),
            user_permille: share(user_ns),
            delay_p50_ns: quantile_ns(&new, 500),
            delay_p99_ns: quantile_ns(&new, 990),
            delay_max_ns: max_ns(&new),
            depth_max: depth_max as u64,
            depth: sum(&new) / polls.wrapping_sub(self.then.polls).max(1),
        };
        *self.then = Then { at: now, delay, busy_ns: self.busy_ns, user_tsc, polls };
        self.loads.window_ns = busy_ns;
    }
}
