//! What a control page says of the load, as a sample for a policy. The kernel is not trusted: counts are bounded, words are
//! read once.
use crate::page::Page;
use crate::policy::{CoreLoad, Sample};
use crate::snapshot::{self, PageError};
use ix_abi::control::{header, measure_offset};
use ix_abi::demand::{LIMIT_WORDS, Want, word};
use ix_abi::limits::CORES_MAX;
use ix_abi::measure::{WINDOW_LENGTH_NS, window};

/// How often a window is read again when the kernel replaces it meanwhile.
const RETRIES_MAX: u32 = 8;
/// A core that has had no new window for so many of them halts: it has no load.
const STALE_WINDOWS: u64 = 4;

/// A look at a page.
#[derive(Clone, Debug)]
pub struct View {
    /// Of which boot.
    pub epoch: u64,
    /// Cores that serve, a bit each.
    pub active: u64,
    /// Cores of the dataplane, but for those that are reserved for background threads.
    pub cores: usize,
    /// Whether the kernel measures.
    pub measures: bool,
    /// Whether the application serves.
    pub ready: bool,
    /// Cores that the dataplane has woken since boot.
    pub wakes: u64,
    /// The limits in force.
    pub limits: [u64; LIMIT_WORDS],
    /// The load, `now_ms` left 0.
    pub sample: Sample,
}

/// Reads it.
pub fn read(page: &Page) -> Result<View, PageError> {
    let epoch = snapshot::check(page)?;
    let cores = page.load(header::CORES);
    if cores > CORES_MAX as u64 {
        let what = "the number of cores";
        return Err(PageError::Range { what, found: cores, limit: CORES_MAX as u64 });
    }
    // The last of them may be reserved for background threads of the application: those are nobody's to give.
    let reserved = page.load(header::BACKGROUND) & all(cores as usize);
    let cores = (cores as usize - reserved.count_ones() as usize).max(1.min(cores as usize));
    // Nor are those that another dataplane has: as many as there are from the first that is away on.
    let away = page.load(header::AWAY) & all(cores);
    let cores = cores.min(away.trailing_zeros() as usize).max(1.min(cores));
    let active = page.load(header::ACTIVE) & all(cores);
    let measures = page.load(header::HISTOGRAM_BUCKETS) != 0;
    let now_ns = page.load(header::NOW_NS);
    let load =
        |core: usize| CoreLoad { serves: active & 1 << core != 0, ..core_load(page, core, now_ns) };
    let want = Want::decode(page.load_acquire(word::WANT));
    // Zero is no wish yet; more than there are is as many as there are.
    let wants = (want.cores > 0).then(|| u32::from(want.cores).min(cores as u32));
    Ok(View {
        epoch,
        active,
        cores,
        measures,
        ready: page.load(header::READY_NS) != 0,
        wakes: page.load(word::WAKES),
        limits: std::array::from_fn(|i| page.load(word::LIMITS + i * 8)),
        sample: Sample { now_ms: 0, cores: (0..cores).map(load).collect(), wants },
    })
}

/// The first `count` cores, a bit each.
pub fn all(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

fn core_load(page: &Page, core: usize, now_ns: u64) -> CoreLoad {
    let base = measure_offset(core);
    for _ in 0..RETRIES_MAX {
        let number = page.load_acquire(base + window::NUMBER);
        let ended = page.load_acquire(base + window::END_NS);
        let busy = page.load_acquire(base + window::BUSY_PERMILLE);
        let delay = page.load_acquire(base + window::DELAY_P99_NS);
        let depth = page.load_acquire(base + window::DEPTH_MAX);
        if page.load(base + window::NUMBER) != number {
            continue;
        }
        let old = now_ns.saturating_sub(ended) > STALE_WINDOWS * WINDOW_LENGTH_NS;
        if number == 0 || old {
            break;
        }
        return CoreLoad {
            serves: false,
            busy: busy as f64 / 1e3,
            delay_p99_us: delay as f64 / 1e3,
            queue: depth as f64,
        };
    }
    CoreLoad::default()
}
