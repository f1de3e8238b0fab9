//! What cores measure, copied out: to the control page, and to where core 0 finds it.
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::control::measure_offset;
use ix_abi::limits::CORES_MAX;
use ix_abi::measure::{self as word, window};
use ix_abi::stats::{CoreStats, Counter};
use ix_dataplane::measure::Measure;
use ix_kernel_core::demand::Seen;

use crate::{control, time};

/// The last window of a core, for core 0. Written by that core only, on lines of its own.
#[repr(align(128))]
struct Shared {
    busy_permille: AtomicU64,
    delay_p99_ns: AtomicU64,
    depth_max: AtomicU64,
    frames: AtomicU64,
}

static WINDOWS: [Shared; CORES_MAX] = [const {
    Shared {
        busy_permille: AtomicU64::new(0),
        delay_p99_ns: AtomicU64::new(0),
        depth_max: AtomicU64::new(0),
        frames: AtomicU64::new(0),
    }
}; CORES_MAX];

/// The last window of a core. Its words may be of two windows.
pub fn seen(core: usize) -> Seen {
    let Some(shared) = WINDOWS.get(core) else { return Seen::default() };
    Seen {
        busy_permille: shared.busy_permille.load(Ordering::Relaxed),
        delay_p99_ns: shared.delay_p99_ns.load(Ordering::Relaxed),
        depth_max: shared.depth_max.load(Ordering::Relaxed),
        frames: shared.frames.load(Ordering::Relaxed),
    }
}

/// One core's part.
#[derive(Debug)]
pub struct Core {
    core: usize,
    /// The last window that was copied.
    window: u64,
}

impl Core {
    pub fn new(core: usize) -> Self {
        Self { core, window: 0 }
    }

    /// About every millisecond: copies what has changed.
    pub fn publish(&mut self, stats: &CoreStats, measure: &Measure) {
        let fresh = measure.window().number != self.window;
        self.window = measure.window().number;
        if fresh && let Some(shared) = WINDOWS.get(self.core) {
            let window = measure.window();
            shared.busy_permille.store(window.busy_permille, Ordering::Relaxed);
            shared.delay_p99_ns.store(window.delay_p99_ns, Ordering::Relaxed);
            shared.depth_max.store(window.depth_max, Ordering::Relaxed);
            shared.frames.store(window.frames, Ordering::Relaxed);
        }
        if control::is_there() {
            to_page(self.core, stats, measure, fresh);
        }
    }
}

fn to_page(core: usize, stats: &CoreStats, measure: &Measure, fresh: bool) {
    let base = measure_offset(core);
    let set = |offset: usize, value: u64| control::set(base + offset, value);
    let wake = measure.wake();
    for (offset, value) in [
        (word::NOW_NS, time::now_ns()),
        (word::DEPTH, measure.window().depth),
        (word::DEPTH_MAX, measure.depth_max() as u64),
        (word::LOOP_SUM_NS, measure.busy_ns()),
        (word::USER_SUM_NS, measure.ns(stats.get(Counter::UserTsc))),
        (word::WAKES, wake.count),
        (word::WAKE_BEGAN_NS, wake.began_ns),
        (word::WAKE_GIVEN_NS, wake.given_ns),
        (word::WAKE_WAITED_NS, wake.waited_ns),
        (word::WOKEN_TAKEN_NS, wake.taken_ns),
        (word::WOKEN_TOOK_NS, wake.took_ns),
        (word::WOKEN_FOUND_NS, wake.found_ns),
        (word::WOKEN_SERVED_NS, wake.served_ns),
    ] {
        set(offset, value);
    }
    if fresh {
        let w = measure.window();
        for (offset, value) in [
            (window::END_NS, w.end_ns),
            (window::LENGTH_NS, w.length_ns),
            (window::FRAMES, w.frames),
            (window::BUSY_PERMILLE, w.busy_permille),
            (window::USER_PERMILLE, w.user_permille),
            (window::DELAY_P50_NS, w.delay_p50_ns),
            (window::DELAY_P99_NS, w.delay_p99_ns),
            (window::DELAY_MAX_NS, w.delay_max_ns),
            (window::DEPTH_MAX, w.depth_max),
            (window::NUMBER, w.number),
        ] {
            set(offset, value);
        }
        let at = [word::DELAY, word::LOOP, word::USER];
        for (offset, histogram) in at.into_iter().zip(measure.histograms()) {
            for (i, count) in histogram.iter().enumerate() {
                set(offset + i * 8, *count);
            }
        }
        for (group, load) in measure.loads().all().iter().enumerate() {
            set(word::GROUP_FRAMES + group * 8, load.frames);
            set(word::GROUP_BUSY_NS + group * 8, load.busy_ns);
        }
    }
    set(word::PUBLISHED, control::get(base + word::PUBLISHED).wrapping_add(1));
}
