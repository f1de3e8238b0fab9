//! A slab: values at stable small indices, grown by chunks up to a limit, never moved.
//!
//! Slots are always initialised, so that a value can keep something (its generation) over reuse.
//! Growing allocates one chunk, and is refused when there is no memory; a warm slab allocates
//! nothing.
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// Slots in a chunk.
pub const CHUNK: usize = 64;

/// Values of type `T` by index.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Box<[T; CHUNK]>>,
    free: Vec<u32>,
    limit: u32,
}

impl<T: Default> Slab<T> {
    /// An empty slab of at most `limit` values.
    pub const fn new(limit: u32) -> Slab<T> {
        Slab { chunks: Vec::new(), free: Vec::new(), limit }
    }

    /// A free slot, as its last user left it; `None` at the limit, or without memory.
    #[inline]
    pub fn alloc(&mut self) -> Option<u32> {
        match self.free.pop() {
            Some(index) => Some(index),
            None => self.grow(),
        }
    }

    /// Makes the first chunk, if there is none yet and there is memory for it: then the first use need not.
    pub fn prepare(&mut self) {
        if self.capacity() == 0
            && let Some(index) = self.alloc()
        {
            self.release(index);
        }
    }

    /// Gives a slot back.
    #[inline]
    pub fn release(&mut self, index: u32) {
        debug_assert!(self.free.len() < self.free.capacity());
        self.free.push(index);
    }

    /// The value at an index that may be anything.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        let index = index as usize;
        self.chunks.get(index / CHUNK).map(|chunk| &chunk[index % CHUNK])
    }

    /// The same, to be changed.
    #[inline]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        let index = index as usize;
        self.chunks.get_mut(index / CHUNK).map(|chunk| &mut chunk[index % CHUNK])
    }

    /// Slots in use.
    pub fn len(&self) -> u32 {
        self.capacity() - self.free.len() as u32
    }

    /// Slots there are.
    pub fn capacity(&self) -> u32 {
        (self.chunks.len() * CHUNK) as u32
    }

    #[cold]
    fn grow(&mut self) -> Option<u32> {
        let first = self.capacity();
        if first >= self.limit {
            return None;
        }
        // Without memory there is no slot: what then fails is a call or a packet, not the kernel.
        self.free.try_reserve_exact(first as usize + CHUNK).ok()?;
        self.chunks.try_reserve(1).ok()?;
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(CHUNK).ok()?;
        chunk.resize_with(CHUNK, T::default);
        let chunk: Box<[T]> = chunk.into();
        self.chunks.push(chunk.try_into().ok()?);
        let end = (first + CHUNK as u32).min(self.limit);
        self.free.extend((first + 1..end).rev());
        Some(first)
    }
}

impl<T> Index<u32> for Slab<T> {
    type Output = T;
    #[inline(always)]
    fn index(&self, index: u32) -> &T {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl<T> IndexMut<u32> for Slab<T> {
    #[inline(always)]
    fn index_mut(&mut self, index: u32) -> &mut T {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::Slab;

    #[test]
    fn a_slab_gives_each_slot_once_and_stops_at_its_limit() {
        let mut slab: Slab<u64> = Slab::new(100);
        let mut seen: alloc::vec::Vec<u32> = (0..100).map(|_| slab.alloc().unwrap()).collect();
        assert_eq!(slab.alloc(), None);
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 100);
        assert_eq!(*seen.last().unwrap(), 99);
        slab[99] = 7;
        slab.release(99);
        assert_eq!(slab.alloc(), Some(99));
        assert_eq!(slab[99], 7, "what the last user left");
        assert!(slab.get(5000).is_none());
    }
}
