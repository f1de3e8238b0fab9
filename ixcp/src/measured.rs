//! What a core says of its own times: its block of measurements, checked and named (`docs/control.md` §9).
use crate::page::Page;
use ix_abi::control::{header, measure_offset};
use ix_abi::demand::{Want, word as demand};
use ix_abi::histogram::{self, BUCKETS};
use ix_abi::measure::{self as word, window};
use serde::Serialize;

/// How often a block is read again when the kernel publishes in between.
const RETRIES_MAX: u32 = 16;

/// One core's measurements, since boot and in its last window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// How long frames have waited for the core.
    pub queueing_delay: Times,
    /// How long its busy iterations have lasted.
    pub loop_time: Times,
    /// How long the application has had it, each time.
    pub user_time: Times,
    /// Parked cores that it has woken.
    pub wakes: u64,
    /// The last window.
    pub window: Window,
    /// The words were read while the core published, so they are of two moments.
    pub torn: bool,
}

/// A histogram of times.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    /// How many there are.
    pub count: u64,
    /// Half of them are at most this; this and what follows is rounded up to the end of a bucket, an eighth at most.
    pub p50_ns: u64,
    /// All but a hundredth are at most this.
    pub p99_ns: u64,
    /// All are at most this, unless it is more than a second.
    pub max_ns: u64,
    /// Their sum; of queueing delays by the middles of the buckets.
    pub sum_ns: u64,
    /// By bucket.
    #[serde(skip)]
    pub counts: Vec<u64>,
}

/// A window of about 10 ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Window {
    /// Counts them.
    pub number: u64,
    /// When it ended, nanoseconds since boot.
    pub end_ns: u64,
    /// Its length.
    pub length_ns: u64,
    /// Frames taken.
    pub frames: u64,
    /// Share in busy iterations.
    pub busy_permille: u64,
    /// Share in user mode.
    pub user_permille: u64,
    /// Of the queueing delay; 0: no frames.
    pub delay_p50_ns: u64,
    /// See there.
    pub delay_p99_ns: u64,
    /// See there.
    pub delay_max_ns: u64,
    /// Most frames at one poll.
    pub depth_max: u64,
}

/// What a core has done for a flow group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Frames taken.
    pub frames: u64,
    /// Time spent.
    pub busy_ns: u64,
}

impl Times {
    fn new(counts: Vec<u64>, sum_ns: Option<u64>) -> Times {
        Times {
            count: counts.iter().fold(0, |sum, n| sum.wrapping_add(*n)),
            p50_ns: histogram::quantile_ns(&counts, 500),
            p99_ns: histogram::quantile_ns(&counts, 990),
            max_ns: histogram::max_ns(&counts),
            sum_ns: sum_ns.unwrap_or_else(|| by_middles(&counts)),
            counts,
        }
    }
}

/// About the sum of what was counted.
fn by_middles(counts: &[u64]) -> u64 {
    let middle = |at: usize| {
        let (low, high) = (histogram::floor_ns(at), histogram::floor_ns(at + 1));
        low.midpoint(high)
    };
    let each = counts.iter().enumerate().map(|(at, n)| n.wrapping_mul(middle(at)));
    each.fold(0, u64::wrapping_add)
}

/// Whether the kernel measures, in histograms that this program knows.
pub fn is_there(page: &Page) -> bool {
    page.load(header::HISTOGRAM_BUCKETS) == BUCKETS as u64
}

/// A core's block; `None`: the kernel does not measure.
pub fn read(page: &Page, core: usize) -> Option<Measured> {
    if !is_there(page) {
        return None;
    }
    let base = measure_offset(core);
    let mut attempt = 0;
    loop {
        let published = page.load_acquire(base + word::PUBLISHED);
        let get = |offset: usize| page.load_in_block(base + offset);
        let counts = |at: usize| (0..BUCKETS).map(|i| get(at + i * 8)).collect::<Vec<_>>();
        let measured = Measured {
            queueing_delay: Times::new(counts(word::DELAY), None),
            loop_time: Times::new(counts(word::LOOP), Some(get(word::LOOP_SUM_NS))),
            user_time: Times::new(counts(word::USER), Some(get(word::USER_SUM_NS))),
            wakes: get(word::WAKES),
            window: Window {
                number: get(window::NUMBER),
                end_ns: get(window::END_NS),
                length_ns: get(window::LENGTH_NS),
                frames: get(window::FRAMES),
                busy_permille: get(window::BUSY_PERMILLE),
                user_permille: get(window::USER_PERMILLE),
                delay_p50_ns: get(window::DELAY_P50_NS),
                delay_p99_ns: get(window::DELAY_P99_NS),
                delay_max_ns: get(window::DELAY_MAX_NS),
                depth_max: get(window::DEPTH_MAX),
            },
            torn: page.load(base + word::PUBLISHED) != published,
        };
        attempt += 1;
        // Over a line it nearly always is, and to ask again would take long.
        if !measured.torn || attempt == RETRIES_MAX || page.is_line() {
            return Some(measured);
        }
    }
}

/// What the cores together have done for a flow group since boot.
pub fn load(page: &Page, cores: usize, group: usize) -> Load {
    let of = |core: usize| {
        let base = measure_offset(core) + group * 8;
        let (frames, busy_ns) = (base + word::GROUP_FRAMES, base + word::GROUP_BUSY_NS);
        Load { frames: page.load(frames), busy_ns: page.load(busy_ns) }
    };
    (0..cores).map(of).fold(Load::default(), |sum, one| Load {
        frames: sum.frames.wrapping_add(one.frames),
        busy_ns: sum.busy_ns.wrapping_add(one.busy_ns),
    })
}

/// What the dataplane wants (`docs/control.md` §10).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demand {
    /// Cores.
    pub cores: u16,
    /// Why.
    pub reason: &'static str,
    /// Number of the wish.
    pub number: u32,
    /// Since when, nanoseconds since boot.
    pub since_ns: u64,
    /// What it came from: the largest 99th percentile of the queueing delay,
    pub delay_p99_ns: u64,
    /// the mean busy share,
    pub busy_permille: u64,
    /// and the deepest queue.
    pub depth_max: u64,
    /// Cores that it has woken by itself.
    pub wakes: u64,
    /// Parked cores that it may wake, a bit each.
    pub grant: u64,
}

/// What the dataplane wants; `None` before its first look, and of an older kernel.
pub fn demand(page: &Page) -> Option<Demand> {
    let want = Want::decode(page.load_acquire(demand::WANT));
    (want.cores > 0 && is_there(page)).then(|| Demand {
        cores: want.cores,
        reason: want.reason.text(),
        number: want.number,
        since_ns: page.load(demand::SINCE_NS),
        delay_p99_ns: page.load(demand::DELAY_P99_NS),
        busy_permille: page.load(demand::BUSY_PERMILLE),
        depth_max: page.load(demand::DEPTH_MAX),
        wakes: page.load(demand::WAKES),
        grant: page.load(demand::LIMITS + 8),
    })
}

/// A time in as few letters as are worth it: 640 ns, 12.3 us, 4.56 ms, 1.2 s.
pub fn short(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    match value {
        0.0..9.995 => format!("{value:.2} {unit}"),
        9.995..99.95 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests;
