//! Descriptor rings as atomics, and tables indexed modulo their length.
//!
//! # Why this is sound
//! 1. A ring is what `Dma::alloc` returned: zeroed, valid, aligned, never freed, and nobody else's on the driver's
//!    side. So references into it are `'static`.
//! 2. It is only ever seen as atomic integers, for which every bit pattern is a value and which may change at any
//!    time: whatever the device writes, and when, is no undefined behaviour.
//! 3. Lengths are powers of two and indices are masked, so every access is within.
#![allow(unsafe_code, reason = "memory that a device writes; masked indices instead of checks")]

use crate::error::InitError;
use alloc::boxed::Box;
use core::mem::{align_of, size_of};
use core::sync::atomic::AtomicU64;
use ix_dataplane::device::{BusAddr, Dma};

/// A descriptor, of either direction (§7.1.6, §7.2.3.2): an address, then all else.
pub(crate) type Descriptor = [AtomicU64; 2];

/// Rings are aligned to 128 bytes (§7.1.9, §7.2.3.3).
const ALIGN: usize = 128;

/// A ring of descriptors, shared with the device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    cells: &'static [Descriptor],
    mask: u32,
    bus: BusAddr,
}

impl Ring {
    /// A ring of `len` descriptors, a power of two.
    pub fn alloc(dma: &mut impl Dma, what: &'static str, len: u16) -> Result<Ring, InitError> {
        assert!(len.is_power_of_two());
        let count = usize::from(len);
        let bytes = count * size_of::<Descriptor>();
        let no_memory = InitError::NoMemory { what, bytes };
        let region = dma.alloc(bytes, ALIGN).ok_or(no_memory)?;
        let aligned = region.ptr.addr().get().is_multiple_of(ALIGN)
            && region.bus.0.is_multiple_of(ALIGN as u64);
        if region.len < bytes || !aligned {
            return Err(no_memory);
        }
        const { assert!(align_of::<Descriptor>() <= ALIGN) };
        // SAFETY: the region has `bytes` bytes (checked), is valid, initialised and never freed (1), is aligned
        // (checked), and a descriptor is made of atomics (2), so that shared references are right.
        let cells =
            unsafe { core::slice::from_raw_parts(region.ptr.cast::<Descriptor>().as_ptr(), count) };
        Ok(Ring { cells, mask: u32::from(len) - 1, bus: region.bus })
    }

    /// The descriptor with a number, modulo the length.
    #[inline(always)]
    pub fn at(&self, number: u32) -> &'static Descriptor {
        // SAFETY: the mask is the length, a power of two, minus 1: the index is below the length.
        unsafe { self.cells.get_unchecked((number & self.mask) as usize) }
    }

    /// The descriptors from a number on, at most `count`, up to the ring's end.
    #[inline(always)]
    pub fn run(&self, number: u32, count: usize) -> &'static [Descriptor] {
        let rest = &self.cells[(number & self.mask) as usize..];
        &rest[..count.min(rest.len())]
    }

    /// Number modulo the length.
    #[inline(always)]
    pub const fn slot(&self, number: u32) -> u32 {
        number & self.mask
    }

    /// How many descriptors.
    #[inline(always)]
    pub const fn len(&self) -> u32 {
        self.mask + 1
    }

    /// Where the device sees it.
    pub const fn bus(&self) -> BusAddr {
        self.bus
    }
}

/// A table of the driver's own, indexed modulo its length, a power of two.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Box<[T]>,
    mask: u32,
}

impl<T: Copy> Table<T> {
    /// `len` entries of one value.
    pub fn new(len: u16, value: T) -> Table<T> {
        assert!(len.is_power_of_two());
        Table { entries: (0..len).map(|_| value).collect(), mask: u32::from(len) - 1 }
    }

    /// The entry at `index` modulo the length.
    #[inline(always)]
    pub fn get(&self, index: u32) -> T {
        // SAFETY: the mask is the length, a power of two, minus 1: the index is below the length.
        unsafe { *self.entries.get_unchecked((index & self.mask) as usize) }
    }

    /// Replaces the entry at `index` modulo the length.
    #[inline(always)]
    pub fn set(&mut self, index: u32, value: T) {
        // SAFETY: as in `get`.
        unsafe { *self.entries.get_unchecked_mut((index & self.mask) as usize) = value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr::NonNull;
    use ix_dataplane::device::DmaRegion;

    struct Given(Option<DmaRegion>);

    impl Dma for Given {
        fn alloc(&mut self, _: usize, _: usize) -> Option<DmaRegion> {
            self.0.take()
        }
    }

    #[repr(align(128))]
    struct Lines([u64; 64]);

    fn region(len: usize, bus: u64) -> Given {
        let lines: &'static mut Lines = Box::leak(Box::new(Lines([0; 64])));
        let ptr = NonNull::new(lines.0.as_mut_ptr()).unwrap().cast();
        Given(Some(DmaRegion { ptr, bus: BusAddr(bus), len }))
    }

    #[test]
    fn a_dma_service_that_gives_less_or_misaligned_memory_is_refused() {
        let error = Some(InitError::NoMemory { what: "x", bytes: 512 });
        assert_eq!(Ring::alloc(&mut Given(None), "x", 32).err(), error);
        assert_eq!(Ring::alloc(&mut region(511, 0), "x", 32).err(), error);
        assert_eq!(Ring::alloc(&mut region(512, 64), "x", 32).err(), error);
        assert!(Ring::alloc(&mut region(512, 128), "x", 32).is_ok());
    }

    #[test]
    fn indices_wrap_at_the_length() {
        let mut table = Table::new(8, 0);
        table.set(11, 100);
        assert_eq!((table.get(3), table.get(u32::MAX)), (100, 0));
    }
}
