//! One piece of the client's memory, mapped into this process. The guest's processors write it meanwhile, so it is
//! accessed by atomic loads and stores: whole words where both sides are aligned, in the order of their addresses, so that
//! who sees the last word of a descriptor sees the first ones too.
#![allow(
    unsafe_code,
    reason = "maps memory that is shared with another process and accesses it by address"
)]

use nix::errno::Errno;
use nix::libc::off_t;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::{SFlag, fstat};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

const WORD_BYTES: usize = size_of::<u64>();

/// A mapping that ends with this value.
#[derive(Debug)]
pub struct Piece {
    base: NonNull<c_void>,
    bytes: usize,
    writable: bool,
}

impl Piece {
    /// Maps `bytes` of a file from `offset` on. The file must be memory, and must reach that far: what lies beyond its
    /// end would end this process with a signal.
    ///
    /// # Errors
    /// `EINVAL` if the file does not reach that far or is no memory, and what `mmap` says.
    pub fn map(fd: &OwnedFd, offset: u64, bytes: u64, writable: bool) -> Result<Piece, Errno> {
        let stat = fstat(fd)?;
        let file = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
        let end = offset.checked_add(bytes).ok_or(Errno::EINVAL)?;
        if !file || u64::try_from(stat.st_size).map_err(|_| Errno::EINVAL)? < end {
            return Err(Errno::EINVAL);
        }
        let length = usize::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        let length = NonZeroUsize::new(length).ok_or(Errno::EINVAL)?;
        let offset = off_t::try_from(offset).map_err(|_| Errno::EINVAL)?;
        let mut access = ProtFlags::PROT_READ;
        access.set(ProtFlags::PROT_WRITE, writable);
        // SAFETY: the kernel chooses where, so no memory of this process is replaced; nothing here makes
        // references to plain data in it, see the accesses below.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, fd, offset)? };
        Ok(Piece { base, bytes: length.get(), writable })
    }

    /// Whether it may be written.
    pub fn writable(&self) -> bool {
        self.writable
    }

    /// Reads `to.len()` bytes at `at`; the caller has checked that they are in it.
    pub fn read(&self, at: usize, to: &mut [u8]) {
        assert!(at <= self.bytes && to.len() <= self.bytes - at, "checked by the list of maps");
        let edge = edge(at, to.len());
        let (head, rest) = to.split_at_mut(edge);
        self.read_bytes(at, head);
        let mut at = at + edge;
        let (words, tail) = rest.as_chunks_mut::<WORD_BYTES>();
        for word in words {
            *word = self.word(at).load(Ordering::Acquire).to_ne_bytes();
            at += WORD_BYTES;
        }
        self.read_bytes(at, tail);
    }

    /// Writes `from` at `at`; the caller has checked that it is in it, and that it may be written.
    pub fn write(&self, at: usize, from: &[u8]) {
        assert!(at <= self.bytes && from.len() <= self.bytes - at, "checked by the list of maps");
        assert!(self.writable, "checked by the list of maps");
        let (head, rest) = from.split_at(edge(at, from.len()));
        self.write_bytes(at, head);
        let mut at = at + head.len();
        let (words, tail) = rest.as_chunks::<WORD_BYTES>();
        for word in words {
            self.word(at).store(u64::from_ne_bytes(*word), Ordering::Release);
            at += WORD_BYTES;
        }
        self.write_bytes(at, tail);
    }

    fn read_bytes(&self, at: usize, to: &mut [u8]) {
        for (i, byte) in to.iter_mut().enumerate() {
            *byte = self.byte(at + i).load(Ordering::Acquire);
        }
    }

    fn write_bytes(&self, at: usize, from: &[u8]) {
        for (i, byte) in from.iter().enumerate() {
            self.byte(at + i).store(*byte, Ordering::Release);
        }
    }

    fn byte(&self, at: usize) -> &AtomicU8 {
        assert!(at < self.bytes);
        // SAFETY: `at` is within the mapping, which lives as long as `self`; all accesses of this process are
        // atomic, and those of others are the hardware's, for which atomics are plain moves.
        unsafe { self.base.cast::<AtomicU8>().add(at).as_ref() }
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(WORD_BYTES) && at + WORD_BYTES <= self.bytes);
        // SAFETY: as for a byte; aligned, since mappings begin with a page and `at` is a multiple of the word's size.
        unsafe { self.base.byte_add(at).cast::<AtomicU64>().as_ref() }
    }
}

/// Bytes before the first whole word.
fn edge(at: usize, len: usize) -> usize {
    (at.next_multiple_of(WORD_BYTES) - at).min(len)
}

impl Drop for Piece {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and references into it live no longer than borrows of it.
        let _ = unsafe { munmap(self.base, self.bytes) };
    }
}

#[cfg(test)]
mod tests;
