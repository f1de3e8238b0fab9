//! Background threads: for what takes long and no client waits for. They run on cores that are reserved for them
//! (`background=` on the kernel's command line, `ixcp cores reserve`), are preempted, and share the program's memory.
//! They have no connections: what they find out for those, they leave where [`crate::App::on_timer`] looks.
//!
//! What elastic threads may wait for, a lock above all, a background thread holds under [`hold`]; libix's own locks do
//! that by themselves.
#![allow(unsafe_code, reason = "places a thread's block and stack in memory of its own")]

use crate::lock::SpinLock;
use crate::memory;
use crate::syscall::{outcome, syscall};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use core::time::Duration;
use ix_abi::Status;
use ix_abi::call::Direct;
use ix_abi::layout::{HEAP_END, PAGE_BYTES, ThreadBlock};
use ix_abi::limits::WAIT_MAX_US;

type Main = Box<dyn FnOnce() + Send>;

/// `ThreadBlock`, as this library uses it: the lowest bytes of the page that is the thread's stack.
#[repr(C, align(64))]
struct Block {
    hold: AtomicU32,
    ended: AtomicU32,
    /// How many threads have had this stack.
    uses: AtomicU32,
    main: UnsafeCell<Option<Main>>,
}

const _: () = assert!(
    size_of::<Block>() == size_of::<ThreadBlock>()
        && offset_of!(Block, hold) == offset_of!(ThreadBlock, hold)
        && offset_of!(Block, ended) == offset_of!(ThreadBlock, ended)
);

// SAFETY: `main` is written before the thread starts and taken by the thread; the rest is atomic.
unsafe impl Sync for Block {}

/// Every stack that there is; those whose thread has ended are used again.
static STACKS: SpinLock<Vec<&'static Block>> = SpinLock::new(Vec::new());
/// The lowest address of them; those of elastic threads lie above `HEAP_END`.
static LOWEST: AtomicUsize = AtomicUsize::new(usize::MAX);

/// A background thread.
pub struct Thread {
    block: &'static Block,
    /// Which of those that have its stack it is.
    using: u32,
    number: u64,
}

/// Starts a background thread. It ends when `main` returns; a panic in it ends the program. `State`: no core is reserved;
/// `Limit`: there are as many as there may be.
pub fn spawn(main: impl FnOnce() + Send + 'static) -> Result<Thread, Status> {
    let main: Main = Box::new(main);
    let mut stacks = STACKS.lock();
    let block = match stacks.iter().find(|block| block.ended.load(Ordering::Acquire) != 0) {
        Some(block) => block,
        None => {
            let block = new_stack()?;
            stacks.push(block);
            block
        }
    };
    block.hold.store(0, Ordering::Relaxed);
    block.ended.store(0, Ordering::Relaxed);
    let using = block.uses.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
    // SAFETY: no thread uses the block: it is new, or its thread has ended; we hold the list's lock.
    unsafe { *block.main.get() = Some(main) };
    let at = core::ptr::from_ref(block) as u64;
    let entry = begin as extern "C" fn(&'static Block) -> !;
    match outcome(syscall(Direct::Thread, entry as usize as u64, at + PAGE_BYTES, at)) {
        Ok(number) => Ok(Thread { block, using, number }),
        Err(status) => {
            // SAFETY: as above: the thread was not started.
            unsafe { *block.main.get() = None };
            block.ended.store(1, Ordering::Release);
            Err(status)
        }
    }
}

fn new_stack() -> Result<&'static Block, Status> {
    let at = memory::take_guarded()? as usize;
    LOWEST.fetch_min(at, Ordering::Relaxed);
    let to: *mut Block = core::ptr::with_exposed_provenance_mut(at);
    let (hold, ended) = (AtomicU32::new(0), AtomicU32::new(1));
    // SAFETY: the page is mapped, aligned, and ours for good.
    unsafe {
        to.write(Block { hold, ended, uses: AtomicU32::new(0), main: UnsafeCell::new(None) });
        Ok(&*to)
    }
}

/// The thread's first function, on its stack.
extern "C" fn begin(block: &'static Block) -> ! {
    // SAFETY: `spawn` has put it there before it started this thread, and nobody else looks.
    if let Some(main) = unsafe { (*block.main.get()).take() } {
        main();
    }
    loop {
        syscall(Direct::Leave, 0, 0, 0);
    }
}

impl Thread {
    /// Its number, as the kernel's log names it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        // Its stack may be another's by now.
        self.block.ended.load(Ordering::Acquire) != 0
            || self.block.uses.load(Ordering::Relaxed) != self.using
    }

    /// Waits for its end. Background threads only: `Denied` to others.
    pub fn join(self) -> Result<(), Status> {
        while !self.is_finished() {
            match wait(&self.block.ended, 0, Duration::from_micros(WAIT_MAX_US)) {
                Ok(()) | Err(Status::Again | Status::TimedOut) => {}
                Err(status) => return Err(status),
            }
        }
        Ok(())
    }
}

impl core::fmt::Debug for Thread {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Thread").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Waits until [`wake`], if `word` is `value`: `Again` if it is not, `TimedOut` after `timeout` (an hour at most), `Denied` to
/// elastic threads. It may also return without a reason: look again.
pub fn wait(word: &AtomicU32, value: u32, timeout: Duration) -> Result<(), Status> {
    let timeout_us = u64::try_from(timeout.as_micros()).unwrap_or(WAIT_MAX_US);
    outcome(syscall(Direct::Wait, word.as_ptr() as u64, value.into(), timeout_us)).map(|_| ())
}

/// Wakes at most `count` of those who wait for `word`; how many there were. Change the word before. Any thread.
pub fn wake(word: &AtomicU32, count: u64) -> u64 {
    outcome(syscall(Direct::Wake, word.as_ptr() as u64, count, 0)).unwrap_or(0)
}

/// Sleeps. Background threads only; others go on at once.
pub fn sleep(time: Duration) {
    static NEVER: AtomicU32 = AtomicU32::new(0);
    let _ = wait(&NEVER, 0, time);
}

/// What others wait for is held while this lives: the kernel prolongs a background thread's turn by up to a millisecond.
/// For tens of microseconds, as every lock.
#[derive(Debug)]
#[must_use = "nothing is held any more when it is dropped"]
pub struct Hold(());

/// Begins to hold something; in elastic threads it does nothing.
pub fn hold() -> Hold {
    begin_hold();
    Hold(())
}

impl Drop for Hold {
    fn drop(&mut self) {
        end_hold();
    }
}

#[inline]
pub(crate) fn begin_hold() {
    if let Some(hold) = own_hold() {
        // Its own thread is the only one that writes.
        hold.store(hold.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
    }
}

#[inline]
pub(crate) fn end_hold() {
    if let Some(hold) = own_hold() {
        core::sync::atomic::compiler_fence(Ordering::SeqCst);
        // A guard may have come from another thread.
        hold.store(hold.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }
}

/// The word of the background thread that runs this, if it is one: where its stack is tells.
#[inline]
fn own_hold() -> Option<&'static AtomicU32> {
    let here = 0u8;
    let at = (&raw const here).expose_provenance();
    if at < LOWEST.load(Ordering::Relaxed) || at >= HEAP_END as usize {
        return None;
    }
    let block: *const Block = core::ptr::with_exposed_provenance(at & !(PAGE_BYTES as usize - 1));
    // SAFETY: within the heap area from the first such stack on, a stack pointer is on one of them: other stacks are
    // elsewhere. Its page begins with the block, which stays for good.
    Some(unsafe { &(*block).hold })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_no_background_thread_holds_nothing() {
        assert!(own_hold().is_none());
        let _hold = hold();
        let lock = SpinLock::new(1);
        assert!(lock.try_lock().is_some_and(|guard| *guard == 1));
    }
}
