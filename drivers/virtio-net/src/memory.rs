//! Memory shared with the device, as atomics, and tables indexed modulo their length.
//!
//! # Why this is sound
//! 1. A [`Block`] is what `Dma::alloc` returned: zeroed, valid, aligned, never freed, and nobody
//!    else's on the driver's side. So references into it are `'static`.
//! 2. It is only ever seen as atomic integers, for which every bit pattern is a value and which
//!    may change at any time: whatever the device writes, and when, is no undefined behaviour.
//! 3. Lengths are powers of two and indices are masked, so every access is within the block.
#![allow(unsafe_code, reason = "memory that a device writes; masked indices instead of checks")]

use crate::error::InitError;
use alloc::boxed::Box;
use core::mem::{align_of, size_of};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64};
use ix_dataplane::device::{BusAddr, Dma};

/// Types that a block may be seen as.
///
/// # Safety
/// All-zero and every other bit pattern is valid, and all parts are atomics.
pub(crate) unsafe trait Cell: 'static {}

// SAFETY: an atomic integer has no invalid bit pattern.
unsafe impl Cell for AtomicU8 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU16 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU32 {}
// SAFETY: as above.
unsafe impl Cell for AtomicU64 {}
// SAFETY: an array of cells has no other parts.
unsafe impl<T: Cell, const N: usize> Cell for [T; N] {}
// SAFETY: `repr(C)` of cells and arrays of cells only.
unsafe impl Cell for crate::tx::Slot {}

/// A piece of DMA memory, the driver's for ever.
#[derive(Debug)]
pub(crate) struct Block {
    ptr: NonNull<u8>,
    bus: BusAddr,
    bytes: usize,
}

impl Block {
    /// Asks `dma` for `bytes` bytes aligned to `align`, and checks what came.
    pub fn alloc(
        dma: &mut impl Dma,
        what: &'static str,
        bytes: usize,
        align: usize,
    ) -> Result<Block, InitError> {
        let no_memory = InitError::NoMemory { what, bytes };
        let region = dma.alloc(bytes, align).ok_or(no_memory)?;
        let aligned = region.ptr.addr().get().is_multiple_of(align)
            && region.bus.0.is_multiple_of(align as u64);
        if region.len < bytes || !aligned {
            return Err(no_memory);
        }
        Ok(Block { ptr: region.ptr, bus: region.bus, bytes })
    }

    /// `len` cells (a power of two) from byte `offset` on.
    pub fn cells<T: Cell>(&self, offset: usize, len: usize) -> Shared<T> {
        assert!(len.is_power_of_two());
        let end = len.checked_mul(size_of::<T>()).and_then(|bytes| bytes.checked_add(offset));
        assert!(end.is_some_and(|end| end <= self.bytes), "cells outside their block");
        // SAFETY: offset is at most the block's length, checked above.
        let first = unsafe { self.ptr.add(offset) };
        assert!(first.addr().get().is_multiple_of(align_of::<T>()));
        // SAFETY: the range is in the block, which is valid, initialised and never freed (1), is
        // aligned (checked), and T is made of atomics (2), so that shared references are right.
        let cells = unsafe { core::slice::from_raw_parts(first.cast::<T>().as_ptr(), len) };
        Shared { cells, mask: len - 1 }
    }

    /// One cell at byte `offset`.
    pub fn cell<T: Cell>(&self, offset: usize) -> &'static T {
        self.cells::<T>(offset, 1).at(0)
    }

    /// Where the device sees byte `offset`.
    pub fn bus(&self, offset: usize) -> BusAddr {
        self.bus.offset(offset as u64)
    }
}

/// A power of two of cells that the device sees too.
#[derive(Debug)]
pub(crate) struct Shared<T: 'static> {
    cells: &'static [T],
    mask: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Shared<T> {
        *self
    }
}

impl<T> Copy for Shared<T> {}

impl<T: Cell> Shared<T> {
    /// The cell at `index` modulo the length.
    #[inline]
    pub fn at(&self, index: usize) -> &'static T {
        // SAFETY: the mask is the length, a power of two, minus 1: the index is below the length.
        unsafe { self.cells.get_unchecked(index & self.mask) }
    }
}

/// A table of the driver's own, indexed modulo its length, a power of two.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Box<[T]>,
    mask: usize,
}

impl<T: Copy> Table<T> {
    /// `len` entries, the value of each by its index.
    pub fn new(len: usize, value: impl FnMut(usize) -> T) -> Table<T> {
        assert!(len.is_power_of_two());
        Table { entries: (0..len).map(value).collect(), mask: len - 1 }
    }

    /// The entry at `index` modulo the length.
    #[inline]
    pub fn get(&self, index: usize) -> T {
        // SAFETY: the mask is the length, a power of two, minus 1: the index is below the length.
        unsafe { *self.entries.get_unchecked(index & self.mask) }
    }

    /// Replaces the entry at `index` modulo the length.
    #[inline]
    pub fn set(&mut self, index: usize, value: T) {
        // SAFETY: as in `get`.
        unsafe { *self.entries.get_unchecked_mut(index & self.mask) = value }
    }

    /// The entries, for indices that need a check.
    #[inline]
    pub fn entries(&mut self) -> &mut [T] {
        &mut self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ix_dataplane::device::DmaRegion;

    struct Given(Option<DmaRegion>);

    impl Dma for Given {
        fn alloc(&mut self, _: usize, _: usize) -> Option<DmaRegion> {
            self.0.take()
        }
    }

    fn region(len: usize, bus: u64) -> Given {
        let words: &'static mut [u64] = Box::leak(Box::new([0; 64]));
        let ptr = NonNull::new(words.as_mut_ptr()).unwrap().cast();
        Given(Some(DmaRegion { ptr, bus: BusAddr(bus), len }))
    }

    #[test]
    fn a_dma_service_that_gives_less_or_misaligned_memory_is_refused() {
        let error = Some(InitError::NoMemory { what: "x", bytes: 512 });
        assert_eq!(Block::alloc(&mut Given(None), "x", 512, 8).err(), error);
        assert_eq!(Block::alloc(&mut region(511, 0), "x", 512, 8).err(), error);
        assert_eq!(Block::alloc(&mut region(512, 4), "x", 512, 8).err(), error);
        assert!(Block::alloc(&mut region(512, 8), "x", 512, 8).is_ok());
    }

    #[test]
    #[should_panic(expected = "cells outside their block")]
    fn cells_outside_a_block_are_refused() {
        let block = Block::alloc(&mut region(512, 0), "x", 512, 8).unwrap();
        let _ = block.cells::<AtomicU64>(8, 64);
    }

    #[test]
    fn indices_wrap_at_the_length() {
        let mut table = Table::new(8, |i| i);
        table.set(11, 100);
        assert_eq!((table.get(3), table.get(usize::MAX)), (100, 7));
    }
}
