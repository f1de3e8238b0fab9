//! A kernel for tests: writes a control page as the protocol says, and answers commands from a
//! thread of its own.
use crate::page::Page;
use ix_abi::control::{self, State, command, core_block, header, outcome};
use ix_abi::measure::{WINDOW_LENGTH_NS, window};
use ix_abi::stats::{BATCH_BUCKETS, Counter, Drop};
use ix_abi::{Status, VERSION};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

pub struct Scene {
    _dir: temp_dir::TempDir,
    pub lock: PathBuf,
    pub file: PathBuf,
    pub page: Page,
}

/// A page of a booted kernel with `cores` cores; counter `i` of core `c` is `1000 * c + i`.
pub fn scene(cores: usize) -> Scene {
    let dir = temp_dir::TempDir::new().unwrap();
    let file = dir.path().join("control");
    let page = Page::create(&file).unwrap();
    fill(&page, cores);
    Scene { lock: dir.path().join("control.lock"), file, _dir: dir, page }
}

/// Writes what such a kernel has written. The groups go round the cores, which all serve.
pub fn fill(page: &Page, cores: usize) {
    for group in 0..128 {
        page.store(control::OWNERS_BASE + group * 8, (group % cores) as u64);
    }
    for (offset, value) in [
        (header::ACTIVE, (1 << cores) - 1),
        (header::MOVES, 5),
        (header::VERSION, u64::from(VERSION.major) | u64::from(VERSION.minor) << 16),
        (header::EPOCH, 0xfeed),
        (header::TSC_KHZ, 2_600_000),
        (header::CORES, cores as u64),
        (header::GROUPS, 128),
        (header::STATE, u64::from(State::Ready.0)),
        (header::APP_STARTS, 1),
        (header::IPV4, u64::from(u32::from_le_bytes([10, 0, 2, 15]))),
        (header::PREFIX, 24),
        (header::IPV6_PREFIXES, 0x40_0040),
        (header::IPV6, 0x0000_0000_0000_80fe),
        (header::IPV6 + 8, 0x0200_0000_0000_0000),
        (header::IPV6 + 32, 0x0000_0000_b80d_0120),
        (header::IPV6 + 40, 0x0500_0000_0000_0000),
        (header::BATCH, 64),
        (header::COUNTERS, Counter::COUNT as u64),
        (header::DROPS, Drop::COUNT as u64),
        (header::BATCH_BUCKETS, BATCH_BUCKETS as u64),
        (header::APP_NAME, u64::from_le_bytes(*b"kv\0\0\0\0\0\0")),
        (header::NOW_NS, 2_500_000_000),
        (header::READY_NS, 600_000_000),
        (header::MEMORY_BYTES, 512 << 20),
        (header::QUEUES, 1),
        (header::MAC, u64::from_le_bytes([0x52, 0x54, 0, 0x12, 0x34, 0x56, 0, 0])),
    ] {
        page.store(offset, value);
    }
    for core in 0..cores {
        let base = control::core_offset(core);
        page.store(base + core_block::APIC_ID, core as u64);
        page.store(base + core_block::STATE, 1);
        for i in 0..Counter::COUNT {
            page.store(base + core_block::COUNTERS + i * 8, (1000 * core + i) as u64);
        }
        page.store(base + core_block::DROPS + Drop::TcpNoPort as usize * 8, 3 + core as u64);
        page.store(base + core_block::BATCHES + 8, 10);
        page.store(base + core_block::BATCHES + 4 * 8, 2);
    }
    page.store_release(header::MAGIC, control::MAGIC);
}

/// Adds to a counter of a core, as the kernel does: beyond the largest number it begins at 0.
pub fn add(page: &Page, core: usize, counter: Counter, n: u64) {
    let at = control::core_offset(core) + core_block::COUNTERS + counter as usize * 8;
    page.store(at, page.load(at).wrapping_add(n));
}

/// Writes the last window of a core, as one that measures does.
pub fn measure(page: &Page, core: usize, busy_permille: u64, delay_p99_ns: u64, depth: u64) {
    let base = control::measure_offset(core);
    page.store(header::HISTOGRAM_BUCKETS, 176);
    for (offset, value) in [
        (window::END_NS, page.load(header::NOW_NS)),
        (window::LENGTH_NS, WINDOW_LENGTH_NS),
        (window::FRAMES, 5_000),
        (window::BUSY_PERMILLE, busy_permille),
        (window::DELAY_P50_NS, delay_p99_ns / 8),
        (window::DELAY_P99_NS, delay_p99_ns),
        (window::DEPTH_MAX, depth),
    ] {
        page.store(base + offset, value);
    }
    page.store_release(base + window::NUMBER, page.load(base + window::NUMBER) + 1);
}

/// Answers commands as the kernel does, beats its heart, and counts publications of core 0.
pub struct Kernel {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<u64>>>,
}

impl Kernel {
    /// `answer` gives status and value for (code, argument 0).
    pub fn start(
        scene: &Scene,
        answer: impl Fn(u64, u64) -> (Status, u64) + Send + 'static,
    ) -> Kernel {
        Kernel::at(&scene.file, answer)
    }

    /// The same, of a page in this file.
    pub fn at(file: &Path, answer: impl Fn(u64, u64) -> (Status, u64) + Send + 'static) -> Kernel {
        let page = Page::open(file).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut done = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                step(&page, &answer, &mut done);
                std::thread::sleep(Duration::from_micros(200));
            }
            done
        });
        Kernel { stop, thread: Some(thread) }
    }

    /// Ends it; the codes it executed.
    pub fn end(mut self) -> Vec<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl std::ops::Drop for Kernel {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn step(page: &Page, answer: &impl Fn(u64, u64) -> (Status, u64), done: &mut Vec<u64>) {
    page.store(header::HEARTBEAT, page.load(header::HEARTBEAT) + 1);
    let published = control::core_offset(0) + core_block::PUBLISHED;
    page.store_release(published, page.load(published) + 1);
    let sequence = page.load_acquire(command::SEQUENCE);
    if sequence == page.load(outcome::SEQUENCE) {
        return;
    }
    let (status, value) = if page.load(command::EPOCH) == page.load(header::EPOCH) {
        done.push(page.load(command::CODE));
        answer(page.load(command::CODE), page.load(command::ARGS))
    } else {
        (Status::Stale, 0)
    };
    page.store(outcome::STATUS, status.0.into());
    page.store(outcome::VALUE, value);
    page.store_release(outcome::SEQUENCE, sequence);
}
