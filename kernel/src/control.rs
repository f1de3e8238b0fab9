//! The control page: memory that `ixcp` shares with us (ivshmem in QEMU), or of our own, whose words it is told over a serial
//! line (`line`). What it says is checked like anything from outside: bounded, read once, never a pointer. Without either
//! nothing is shared and everything else works.
#![allow(unsafe_code, reason = "volatile words of shared memory")]

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use ix_abi::control::{
    self, CoreState, State, command, core_block, core_offset, header, measure_offset, outcome,
};
use ix_abi::event_log::EventKind;
use ix_abi::histogram::BUCKETS;
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::{BATCH_BUCKETS, CoreStats, Counter, Drop};
use ix_abi::status::Status;
pub use ix_kernel_core::commands::Pending;
use ix_kernel_core::commands::{self, Command};

use crate::cpu::percore;
use crate::mem;
use crate::pci::Function;
use crate::{entropy, time, vmx, watch};

/// QEMU's ivshmem: its memory is BAR 2.
const IVSHMEM: (u16, u16) = (0x1AF4, 0x1110);
const MEMORY_BAR: u8 = 2;

/// Kernel address of the page; 0: there is none.
static BASE: AtomicU64 = AtomicU64::new(0);
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// Bytes of it that are there.
static BYTES: AtomicU64 = AtomicU64::new(0);
/// Cores of the dataplane.
static CORES: AtomicU64 = AtomicU64::new(1);

fn word(offset: usize) -> Option<*mut u64> {
    let base = BASE.load(Ordering::Relaxed);
    let ok = base != 0
        && offset.is_multiple_of(8)
        && (offset + 8) as u64 <= BYTES.load(Ordering::Relaxed);
    ok.then_some((base + offset as u64) as *mut u64)
}

/// Writes a word of the page, if there is one.
#[inline]
pub fn set(offset: usize, value: u64) {
    if let Some(p) = word(offset) {
        // SAFETY: within the mapped page, aligned; the other side sees a whole word.
        unsafe { p.write_volatile(value) }
    }
}

/// Reads a word of the page: an allegation. 0 if there is no page.
pub fn get(offset: usize) -> u64 {
    // SAFETY: as in `set`.
    word(offset).map_or(0, |p| unsafe { p.read_volatile() })
}

/// A part of the page as words that may change at any time.
pub fn words(offset: usize, bytes: usize) -> Option<&'static [AtomicU64]> {
    let there = BYTES.load(Ordering::Relaxed);
    let end = offset.checked_add(bytes).filter(|end| *end as u64 <= there)?;
    let first = word(offset).filter(|_| end.is_multiple_of(8))?;
    // SAFETY: within the page, aligned, mapped for ever; all access to the page is by whole words,
    // here through atomics (`AtomicU64` has the layout of `u64`).
    Some(unsafe { core::slice::from_raw_parts(first.cast::<AtomicU64>(), bytes / 8) })
}

/// Cores of the dataplane, as we have published them.
pub fn cores() -> usize {
    CORES.load(Ordering::Relaxed) as usize
}

/// Copies the first `bytes` of the bulk area, once; the copy is what is looked at. `None` without memory.
pub fn copy_bulk(bytes: usize) -> Option<Vec<u8>> {
    let bytes = bytes.min(control::BULK_BYTES);
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.next_multiple_of(8)).ok()?;
    for at in (0..bytes).step_by(8) {
        copy.extend_from_slice(&get(control::BULK_BASE + at).to_le_bytes());
    }
    copy.truncate(bytes);
    Some(copy)
}

/// Writes bytes at a word's offset; the last word is filled up with 0.
pub fn write_area(offset: usize, bytes: &[u8]) {
    for (i, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        set(offset + i * 8, u64::from_le_bytes(word));
    }
}

/// What the boot core knows when it makes the page.
pub struct Facts<'a> {
    pub cores: usize,
    pub groups: u16,
    pub queues: u16,
    pub mac: [u8; 6],
    pub app: &'a str,
    pub batch: usize,
}

/// Whether this is the device that holds the page.
pub fn drives(f: &Function) -> bool {
    (f.vendor, f.device) == IVSHMEM
}

/// Finds the page. `Err` names why a device that is there cannot be used.
pub fn attach(functions: &[Function]) -> Result<bool, &'static str> {
    let Some(f) = functions.iter().find(|f| drives(f)) else {
        return Ok(false);
    };
    f.enable();
    let bar = f.bar(MEMORY_BAR).ok_or("its memory BAR is not assigned")?;
    if bar.len < control::PAGE_BYTES as u64 {
        return Err("its memory is smaller than a control page");
    }
    let va = mem::map_shared_memory(bar.start, control::PAGE_BYTES as u64)
        .map_err(|_| "it cannot be mapped")?;
    BASE.store(va.0, Ordering::Relaxed);
    BYTES.store(control::PAGE_BYTES as u64, Ordering::Relaxed);
    Ok(true)
}

/// Makes the page in memory of our own, for `line`. Without memory there is none.
pub fn use_own_memory(bytes: usize) -> bool {
    let Some(pa) = mem::alloc_contiguous(bytes as u64, 4096) else { return false };
    BASE.store(mem::layout::direct(pa), Ordering::Relaxed);
    BYTES.store(bytes as u64, Ordering::Relaxed);
    true
}

/// Fills the page in; the magic number last.
pub fn publish_facts(facts: &Facts<'_>) {
    let epoch = entropy::next() | 1;
    EPOCH.store(epoch, Ordering::Relaxed);
    CORES.store(facts.cores as u64, Ordering::Relaxed);
    set(header::MAGIC, 0);
    // Whatever command lies there is of an earlier boot: it counts as done.
    set(outcome::SEQUENCE, get(command::SEQUENCE));
    let version = u64::from(ix_abi::VERSION.major) | u64::from(ix_abi::VERSION.minor) << 16;
    let [m0, m1, m2, m3, m4, m5] = facts.mac;
    let mut name = [0u8; 32];
    let n = facts.app.len().min(name.len());
    name[..n].copy_from_slice(&facts.app.as_bytes()[..n]);
    for (offset, value) in [
        (header::VERSION, version),
        (header::EPOCH, epoch),
        (header::TSC_KHZ, time::tsc_khz()),
        (header::CORES, facts.cores as u64),
        (header::GROUPS, u64::from(facts.groups)),
        (header::HEARTBEAT, 0),
        (header::STATE, u64::from(State::Booting.0)),
        (header::APP_STARTS, 0),
        (header::APP_EXIT, 0),
        (header::IPV4, 0),
        (header::PREFIX, 0),
        (header::IPV6_PREFIXES, 0),
        (header::BATCH, facts.batch as u64),
        (header::COUNTERS, Counter::COUNT as u64),
        (header::DROPS, Drop::COUNT as u64),
        (header::BATCH_BUCKETS, BATCH_BUCKETS as u64),
        (header::HISTOGRAM_BUCKETS, BUCKETS as u64),
        (header::NOW_NS, time::now_ns()),
        (header::READY_NS, 0),
        (header::MEMORY_BYTES, mem::total_bytes()),
        (header::QUEUES, u64::from(facts.queues)),
        (header::MAC, u64::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0])),
    ] {
        set(offset, value);
    }
    vmx::guest::publish_facts();
    for (i, chunk) in name.chunks_exact(8).enumerate() {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        set(header::APP_NAME + i * 8, u64::from_le_bytes(word));
    }
    for at in (0x300..0x400).step_by(8) {
        set(at, 0);
    }
    for core in 0..CORES_MAX {
        for at in (0..control::CORE_STRIDE).step_by(8) {
            set(core_offset(core) + at, 0);
        }
        for at in (0..control::MEASURE_STRIDE).step_by(8) {
            set(measure_offset(core) + at, 0);
        }
        set(control::leaves_offset(core), vmx::guest::leaves(core));
        if core < facts.cores {
            let id = percore::of(core).apic_id.load(Ordering::Relaxed);
            set(core_offset(core) + core_block::APIC_ID, u64::from(id));
        }
    }
    watch::log::attach();
    fence(Ordering::Release);
    set(header::MAGIC, control::MAGIC);
}

pub fn set_state(state: State) {
    set(header::STATE, u64::from(state.0));
}

pub fn set_core_state(core: usize, state: CoreState) {
    set(core_offset(core) + core_block::STATE, u64::from(state.0));
}

/// Whether there is a page.
pub fn is_there() -> bool {
    BASE.load(Ordering::Relaxed) != 0
}

/// Copies a core's counters out. Called by that core about once a millisecond.
pub fn publish(core: usize, stats: &CoreStats) {
    if !is_there() {
        return;
    }
    let block = core_offset(core);
    let areas = [
        (core_block::COUNTERS, &stats.counters[..]),
        (core_block::DROPS, &stats.drops[..]),
        (core_block::BATCHES, &stats.batches[..]),
    ];
    for (offset, values) in areas {
        for (i, v) in values.iter().enumerate() {
            set(block + offset + i * 8, *v);
        }
    }
    vmx::guest::publish_exits(core);
    set(block + core_block::PUBLISHED, get(block + core_block::PUBLISHED).wrapping_add(1));
}

/// Looks for a command; one of another epoch, or that makes no sense, is refused here.
pub fn poll_command() -> Option<(Pending, Command)> {
    if !is_there() {
        return None;
    }
    let (pending, asked) = commands::poll(get, EPOCH.load(Ordering::Relaxed))?;
    match asked {
        Ok(command) => Some((pending, command)),
        Err(status) => {
            answer(pending, status, 0);
            None
        }
    }
}

/// Tells a command's outcome; the sequence number last.
pub fn answer(to: Pending, status: Status, value: u64) {
    set(outcome::STATUS, u64::from(status.0));
    set(outcome::VALUE, value);
    watch::log::record(EventKind::Command, to.code.0, to.args[0], u64::from(status.0));
    fence(Ordering::Release);
    set(outcome::SEQUENCE, to.sequence);
}

/// The kernel has crashed: the last thing the page says.
pub fn crashed() {
    set_state(State::Panicked);
}
