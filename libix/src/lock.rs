//! A spin lock between the contexts of one application, in user space.
//!
//! The kernel's rule of no locks does not bind applications, but the core loop waits for whoever
//! waits here: hold one for tens of instructions, never across `enter`. The kernel parks a core only
//! while its context is inside `enter`, and interrupts a context only when it has overrun its bound
//! by far, so a holder is not taken off its core in the middle. A background thread has its turn
//! prolonged while it holds one ([`crate::thread::hold`]). A waiter spins reading, not writing, so
//! that the holder keeps its cache line.
#![allow(unsafe_code, reason = "lock_api's raw lock trait is unsafe to implement")]

use crate::thread;
use core::sync::atomic::{AtomicBool, Ordering};
use talc::lock_api::{GuardSend, Mutex, MutexGuard, RawMutex};

/// A value that one context at a time may use.
pub type SpinLock<T> = Mutex<RawSpin, T>;
/// The use of it.
pub type SpinGuard<'a, T> = MutexGuard<'a, RawSpin, T>;

/// The lock itself.
#[derive(Debug)]
pub struct RawSpin(AtomicBool);

// SAFETY: `lock` returns only after it has changed the flag from false to true, with acquire order;
// `unlock`, called by the holder only, changes it back with release order.
unsafe impl RawMutex for RawSpin {
    #[allow(clippy::declare_interior_mutable_const, reason = "lock_api asks for it: a fresh lock")]
    const INIT: RawSpin = RawSpin(AtomicBool::new(false));

    type GuardMarker = GuardSend;

    #[inline]
    fn lock(&self) {
        thread::begin_hold();
        while !self.take() {
            while self.0.load(Ordering::Relaxed) {
                core::hint::spin_loop();
            }
        }
    }

    #[inline]
    fn try_lock(&self) -> bool {
        thread::begin_hold();
        let taken = self.take();
        if !taken {
            thread::end_hold();
        }
        taken
    }

    #[inline]
    unsafe fn unlock(&self) {
        self.0.store(false, Ordering::Release);
        thread::end_hold();
    }
}

impl RawSpin {
    #[inline]
    fn take(&self) -> bool {
        self.0.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }
}
