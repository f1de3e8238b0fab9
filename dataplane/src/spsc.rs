//! A bounded ring between one producer and one consumer: the only way that cores talk.
//!
//! Each side owns its index and publishes it with a release store; it reads the other's with an
//! acquire load only when its cached copy says full or empty. No read-modify-write instruction, no
//! fence: on x86 these are plain moves. The indices have cache lines of their own.
//!
//! # Safety
//! Indices run freely and wrap; slot = index & mask. Invariant: `head <= tail <= head + capacity`
//! (wrapping). Slots in `[head, tail)` hold a value and are the consumer's; the others are the
//! producer's. Only the producer moves `tail` (after writing the slot), only the consumer moves
//! `head` (after reading it). The two handles are neither `Clone` nor `Sync`-shared for use: every
//! method that touches a slot takes `&mut self`.
#![allow(unsafe_code, reason = "slots are handed from one core to another by the indices")]

#[cfg(not(loom))]
use alloc::sync::Arc;
use alloc::vec::Vec;
#[cfg(not(loom))]
use core::sync::atomic::AtomicU32;
use core::{mem::MaybeUninit, sync::atomic::Ordering};
#[cfg(loom)]
use loom::sync::{Arc, atomic::AtomicU32};

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
mod tests;

/// Keeps a value on cache lines that nothing else is on; two, for the adjacent-line prefetcher.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<T>(pub T);

#[cfg(not(loom))]
struct Slot<T>(core::cell::UnsafeCell<MaybeUninit<T>>);
#[cfg(loom)]
struct Slot<T>(loom::cell::UnsafeCell<MaybeUninit<T>>);

impl<T> Slot<T> {
    fn new() -> Slot<T> {
        #[cfg(not(loom))]
        return Slot(core::cell::UnsafeCell::new(MaybeUninit::uninit()));
        #[cfg(loom)]
        return Slot(loom::cell::UnsafeCell::new(MaybeUninit::uninit()));
    }

    /// Runs `f` on the slot for writing.
    #[inline(always)]
    fn with_mut<R>(&self, f: impl FnOnce(*mut MaybeUninit<T>) -> R) -> R {
        #[cfg(not(loom))]
        return f(self.0.get());
        #[cfg(loom)]
        return self.0.with_mut(f);
    }
}

struct Shared<T> {
    /// Written by the producer.
    tail: Padded<AtomicU32>,
    /// Written by the consumer.
    head: Padded<AtomicU32>,
    slots: Padded<Vec<Slot<T>>>,
}

// SAFETY: values only move through the ring, from the producer's thread to the consumer's; the
// invariant above keeps the two from touching one slot at once.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the ring owns the values that are in it.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline(always)]
    fn slot(&self, index: u32) -> &Slot<T> {
        // The length is a power of two and at least 1.
        let mask = self.slots.0.len() - 1;
        &self.slots.0[index as usize & mask]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            // SAFETY: both handles are gone, so everything in `[head, tail)` is ours, and each slot
            // there holds a value that nobody has taken.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The side that pushes.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: u32,
    cached_head: u32,
}

/// The side that pops.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: u32,
    cached_tail: u32,
}

impl<T> core::fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Producer").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> core::fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Consumer").field("len", &self.available()).finish_non_exhaustive()
    }
}

/// A ring for `capacity` values, rounded up to a power of two (at least 1, at most 2^31).
///
/// Making and dropping it allocates and counts references; pushing and popping does neither.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    assert!(capacity <= 1 << 31, "a ring of {capacity}");
    let slots = (0..capacity.max(1).next_power_of_two()).map(|_| Slot::new()).collect();
    let shared = Arc::new(Shared {
        tail: Padded(AtomicU32::new(0)),
        head: Padded(AtomicU32::new(0)),
        slots: Padded(slots),
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, cached_head: 0 };
    (producer, Consumer { shared, head: 0, cached_tail: 0 })
}

impl<T> Producer<T> {
    /// Appends a value; gives it back if the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        // SAFETY: the ring is not full, so the slot at `tail` is outside `[head, tail)`: it is ours
        // and holds no value. The acquire load that told us so ordered the consumer's read of the
        // slot's last value before this write.
        self.shared.slot(self.tail).with_mut(|slot| unsafe {
            (*slot).write(value);
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether a push would fail now.
    #[inline]
    pub fn is_full(&mut self) -> bool {
        if self.tail.wrapping_sub(self.cached_head) < self.capacity() {
            return false;
        }
        self.cached_head = self.shared.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.cached_head) >= self.capacity()
    }

    /// Values in the ring; the consumer may be taking some.
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.shared.head.0.load(Ordering::Acquire)) as usize
    }

    /// Whether all values have been taken.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values fit.
    #[inline]
    pub fn capacity(&self) -> u32 {
        self.shared.slots.0.len() as u32
    }
}

impl<T> Consumer<T> {
    /// Takes the oldest value.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the ring is not empty, so the slot at `head` holds a value and is ours; the
        // acquire load that told us so ordered the producer's write before this read. The value is
        // moved out exactly once, for `head` moves past it.
        let value =
            self.shared.slot(self.head).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Runs `f` on the oldest value without taking it.
    #[inline]
    pub fn peek<R>(&mut self, f: impl FnOnce(&T) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: as in `pop`; the reference does not outlive the call, in which `head` stays.
        Some(self.shared.slot(self.head).with_mut(|slot| f(unsafe { (*slot).assume_init_ref() })))
    }

    /// Whether there is nothing to pop now.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.head != self.cached_tail {
            return false;
        }
        self.cached_tail = self.shared.tail.0.load(Ordering::Acquire);
        self.head == self.cached_tail
    }

    /// How many values can be popped; the producer may be adding some.
    pub fn available(&self) -> usize {
        self.end().wrapping_sub(self.head) as usize
    }

    /// Where the values end now, for [`Consumer::has_passed`].
    pub fn end(&self) -> u32 {
        self.shared.tail.0.load(Ordering::Acquire)
    }

    /// Whether all values before `end` were popped: it is not among those that the ring can hold, or is the next.
    pub fn has_passed(&self, end: u32) -> bool {
        let ahead = end.wrapping_sub(self.head);
        ahead == 0 || ahead as usize > self.shared.slots.0.len()
    }
}
