//! The application's life across cores: started by core 0, attached by each core at its quiescent point,
//! ended by whoever has a reason, freed by core 0 once no core and no device refers to its memory.
//!
//! Phases only move none → running → ending → none. A core that sees `Ending` lets go (engine first,
//! address space then) and says so in `RELEASED`; nobody waits for anybody.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use spin::Mutex;

use super::program::Program;
use super::space::AddressSpace;
use crate::cpu::percore::{self, CORES_MAX};
use crate::{apic, time};

/// Why an application ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    Exit(u64),
    /// An exception in ring 3, by vector.
    Fault(u64),
    Unresponsive,
    /// Its syscall ring's index was impossible.
    BadRing,
    /// `ixcp restart-app` or `stop`.
    Command,
}

impl Reason {
    /// The word on the control page: an exit code as it is, else bit 32 and the kernel's reason, with
    /// the exception's vector in bits 40 to 47.
    pub fn code(self) -> u64 {
        const KERNEL: u64 = 1 << 32;
        match self {
            Self::Exit(code) => code & 0xFFFF_FFFF,
            Self::Fault(vector) => KERNEL | 1 | ((vector & 0xFF) << 40),
            Self::Unresponsive => KERNEL | 2,
            Self::BadRing => KERNEL | 3,
            Self::Command => KERNEL | 4,
        }
    }
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exited with {code}"),
            Self::Fault(_) => f.write_str("ended by a fault"),
            Self::Unresponsive => f.write_str("ended: not responding"),
            Self::BadRing => f.write_str("ended: impossible index in its syscall ring"),
            Self::Command => f.write_str("ended by command"),
        }
    }
}

const NONE: u32 = 0;
const RUNNING: u32 = 1;
const ENDING: u32 = 2;

static PHASE: AtomicU32 = AtomicU32::new(NONE);
/// Counts applications started; names the one that `RELEASED` is about.
static GENERATION: AtomicU64 = AtomicU64::new(0);
static RELEASED: [AtomicU64; CORES_MAX] = [const { AtomicU64::new(0) }; CORES_MAX];
static CURRENT: Mutex<Option<Arc<Program>>> = Mutex::new(None);
static REASON: Mutex<Option<Reason>> = Mutex::new(None);
static CORES: AtomicU32 = AtomicU32::new(1);
/// A core could not drain: the program's memory may still be read by the device.
static LEAK: AtomicBool = AtomicBool::new(false);
static READY_NS: AtomicU64 = AtomicU64::new(0);

static UNMAP_EPOCH: AtomicU64 = AtomicU64::new(0);
/// The last unmapping up to which every page has been freed.
static REAPED: AtomicU64 = AtomicU64::new(0);
static FLUSHED: [AtomicU64; CORES_MAX] = [const { AtomicU64::new(0) }; CORES_MAX];

pub fn set_cores(cores: usize) {
    CORES.store(cores as u32, Ordering::Relaxed);
}

fn cores() -> usize {
    CORES.load(Ordering::Relaxed) as usize
}

#[inline]
pub fn is_ending() -> bool {
    PHASE.load(Ordering::Acquire) == ENDING
}

/// What a core should do about the application now.
pub enum Wish {
    Attach(Arc<Program>, u64),
    Detach,
    Nothing,
}

/// Whether a core has anything to do about the application: two loads. `attached`: it has one.
#[inline]
pub fn has_wish(attached: bool, core: usize) -> bool {
    match PHASE.load(Ordering::Acquire) {
        ENDING => true,
        RUNNING if !attached => {
            RELEASED[core].load(Ordering::Relaxed) != GENERATION.load(Ordering::Relaxed)
        }
        _ => false,
    }
}

/// What that is.
#[cold]
#[inline(never)]
pub fn wish(attached: bool, core: usize) -> Wish {
    match (PHASE.load(Ordering::Acquire), attached) {
        (RUNNING, false) => attach(core),
        (ENDING, true) => Wish::Detach,
        _ => Wish::Nothing,
    }
}

#[cold]
fn attach(core: usize) -> Wish {
    let generation = GENERATION.load(Ordering::Relaxed);
    if RELEASED[core].load(Ordering::Relaxed) == generation {
        return Wish::Nothing;
    }
    match CURRENT.lock().as_ref() {
        Some(program) => Wish::Attach(Arc::clone(program), generation),
        None => Wish::Nothing,
    }
}

/// Starts a loaded program. Core 0, with none running.
pub fn start(program: Program) {
    debug_assert_eq!(PHASE.load(Ordering::Relaxed), NONE);
    *CURRENT.lock() = Some(Arc::new(program));
    *REASON.lock() = None;
    READY_NS.store(0, Ordering::Relaxed);
    GENERATION.store(GENERATION.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    PHASE.store(RUNNING, Ordering::Release);
    kick_others();
}

pub fn starts() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

pub fn is_running() -> bool {
    PHASE.load(Ordering::Relaxed) == RUNNING
}

/// Ends the application; the first reason counts. Any core.
#[cold]
#[inline(never)]
pub fn end(reason: Reason) {
    if PHASE.compare_exchange(RUNNING, ENDING, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        *REASON.lock() = Some(reason);
        kick_others();
    }
}

/// Makes every other core pass its quiescent point soon: out of ring 3, out of a halt.
#[cold]
pub fn kick_others() {
    let me = percore::id();
    for core in (0..cores()).filter(|&c| c != me) {
        apic::preempt(core);
    }
}

/// A core has let go of generation `generation`; `clean`: no frame refers to its memory.
pub fn released(core: usize, generation: u64, clean: bool) {
    if !clean {
        LEAK.store(true, Ordering::Relaxed);
    }
    RELEASED[core].store(generation, Ordering::Release);
}

/// The application that ends before this core has seen it start.
pub fn missed(core: usize) -> Option<u64> {
    let generation = GENERATION.load(Ordering::Relaxed);
    (is_ending() && RELEASED[core].load(Ordering::Relaxed) != generation).then_some(generation)
}

/// Core 0's part: once all cores have let go, frees the program and returns why it ended.
pub fn finish() -> Option<Reason> {
    if !is_ending() {
        return None;
    }
    let generation = GENERATION.load(Ordering::Relaxed);
    // A core that never attached has nothing to release; it must not attach any more either.
    if (0..cores()).any(|c| RELEASED[c].load(Ordering::Acquire) != generation) {
        return None;
    }
    let program = CURRENT.lock().take();
    let reason = REASON.lock().take()?;
    if LEAK.swap(false, Ordering::Relaxed) {
        log::error!("frames of the ended app are still in flight: its memory is not reused");
        core::mem::forget(program);
    } else if let Some(program) = program {
        debug_assert_eq!(Arc::strong_count(&program), 1);
        reap(&program, true);
        drop(program);
    }
    PHASE.store(NONE, Ordering::Release);
    Some(reason)
}

/// `ready()` of the application: the first call of a generation counts.
#[cold]
#[inline(never)]
pub fn app_is_ready() {
    if READY_NS.load(Ordering::Relaxed) == 0 {
        READY_NS.store(time::now_ns().max(1), Ordering::Relaxed);
        log::debug!("the app says that it is ready");
    }
}

/// When the application said that it is ready; 0 before.
pub fn ready_ns() -> u64 {
    READY_NS.load(Ordering::Relaxed)
}

/// A page was taken out of the page tables; the number is its place in the order.
pub fn next_unmap_epoch() -> u64 {
    UNMAP_EPOCH.fetch_add(1, Ordering::AcqRel) + 1
}

/// At a core's quiescent point: flushes its TLB if pages were taken out since. Cheap if not.
#[inline]
pub fn flush_if_needed(core: usize) {
    let now = UNMAP_EPOCH.load(Ordering::Acquire);
    if FLUSHED[core].load(Ordering::Relaxed) != now {
        x86_64::instructions::tlb::flush_all();
        FLUSHED[core].store(now, Ordering::Release);
    }
}

/// Frees pages that every core has flushed and no frame in flight refers to. Core 0.
pub fn reap_current() {
    if UNMAP_EPOCH.load(Ordering::Acquire) == REAPED.load(Ordering::Relaxed) {
        return;
    }
    if let Some(program) = CURRENT.lock().as_ref() {
        reap(program, false);
    }
}

fn reap(program: &Program, all: bool) {
    let newest = UNMAP_EPOCH.load(Ordering::Acquire);
    let mut leaving = program.leaving.lock();
    let flushed = (0..cores()).map(|c| FLUSHED[c].load(Ordering::Acquire)).min().unwrap_or(0);
    leaving.retain(|l| {
        let free = all || (l.epoch <= flushed && program.map.pins(l.addr) == 0);
        if free {
            AddressSpace::free(l.frame);
        }
        !free
    });
    if leaving.is_empty() {
        REAPED.store(newest, Ordering::Relaxed);
    }
}
