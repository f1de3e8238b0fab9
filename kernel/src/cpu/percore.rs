//! What each core has of its own in ring 0, and how code finds out where it runs.
//!
//! There is no `swapgs` in this kernel. The core number follows from the stack pointer
//! (`ix_kernel_core::stacks`): every ring 0 instruction runs on a stack of its core, since SYSCALL
//! enters through a stub of the core's own and every interrupt switches to a stack of the core's own.
//! So there is no window in which an NMI could find a wrong per-core pointer.
#![allow(unsafe_code, reason = "reads the stack pointer; static table shared with assembly")]

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use ix_kernel_core::stacks;

pub const CORES_MAX: usize = ix_abi::limits::CORES_MAX;

/// Shared with `enter.S`: the first two fields and the size are known there.
#[repr(C, align(256))]
pub struct PerCore {
    /// The user's stack pointer, between SYSCALL and the switch to the kernel stack.
    user_rsp: UnsafeCell<u64>,
    /// The kernel stack as `ix_enter_user` left it; 0 outside user mode.
    pub kernel_rsp: UnsafeCell<u64>,
    pub apic_id: AtomicU32,
    pub online: AtomicBool,
    /// Timer interrupts taken, on whatever occasion.
    pub ticks: AtomicU64,
    /// Entries into user mode.
    pub entries: AtomicU64,
    /// `entries` at the last timer interrupt out of user mode, and how many in a row saw the same.
    pub tick_entry: AtomicU64,
    pub ticks_in_entry: AtomicU64,
    /// Ticks that one entry may last.
    pub bound_ticks: AtomicU64,
    /// The timer is running: it will fire, in ring 3 or at the next halt.
    pub timer_armed: AtomicBool,
    pub nmis: AtomicU64,
    /// Wake-ups by IPI and by devices.
    pub wakes: AtomicU64,
    pub device_interrupts: AtomicU64,
    /// The application's thread here was interrupted and has not come back since.
    pub overdue: AtomicBool,
    /// It halts, or is about to: whoever has something for it must send an IPI.
    pub sleeping: AtomicBool,
    /// What is in ring 3, or about to be, is a background thread.
    pub background: AtomicBool,
    /// Iterations of the core loop: who watches from outside (a monitor) sees by it that the core has not come to a stop.
    pub beats: AtomicU64,
}

pub const PERCORE_BYTES: usize = 256;
const _: () = assert!(size_of::<PerCore>() == PERCORE_BYTES);
const _: () = assert!(core::mem::offset_of!(PerCore, kernel_rsp) == 8);

// SAFETY: the two cells are touched only by their own core: by assembly with interrupts off, and by
// its trap handler. Everything else is atomic.
unsafe impl Sync for PerCore {}

impl PerCore {
    const fn new() -> Self {
        Self {
            user_rsp: UnsafeCell::new(0),
            kernel_rsp: UnsafeCell::new(0),
            apic_id: AtomicU32::new(0),
            online: AtomicBool::new(false),
            ticks: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            tick_entry: AtomicU64::new(0),
            ticks_in_entry: AtomicU64::new(0),
            bound_ticks: AtomicU64::new(10),
            timer_armed: AtomicBool::new(false),
            nmis: AtomicU64::new(0),
            wakes: AtomicU64::new(0),
            device_interrupts: AtomicU64::new(0),
            overdue: AtomicBool::new(false),
            sleeping: AtomicBool::new(false),
            background: AtomicBool::new(false),
            beats: AtomicU64::new(0),
        }
    }
}

#[unsafe(no_mangle)]
static IX_PERCORE: [PerCore; CORES_MAX] = [const { PerCore::new() }; CORES_MAX];

/// Adds 1 to a counter whose only writer is its own core: no locked instruction is needed.
#[inline]
pub fn bump(counter: &AtomicU64) -> u64 {
    let n = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(n, Ordering::Relaxed);
    n
}

/// The table entry of a core.
pub fn of(core: usize) -> &'static PerCore {
    &IX_PERCORE[core]
}

/// The core this runs on; 0 on the boot stack.
#[inline]
pub fn id() -> usize {
    let rsp: u64;
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags));
    };
    stacks::core_of(rsp, CORES_MAX).unwrap_or(0)
}

/// This core's entry.
pub fn this() -> &'static PerCore {
    of(id())
}
