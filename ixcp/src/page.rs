//! The control page as a file mapping: aligned 64-bit words, read and written one at a time.
//!
//! The other side is a running kernel that may write at any moment, or be broken. So a word is only
//! ever touched by one atomic load or store, and no reference to plain memory is made.
#![allow(unsafe_code, reason = "maps a file and reads its words; the only unsafe module of ixcp")]

use ix_abi::control::PAGE_BYTES;
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags};
use std::ffi::c_void;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why a file is not a control page that can be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A system call failed.
    #[error("cannot {action} the control page {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of another size.
    #[error("{} is not a control page: it has {found} bytes instead of {PAGE_BYTES}", path.display())]
    Size {
        /// Which file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
}

/// A mapped control page.
#[derive(Debug)]
pub struct Page {
    base: NonNull<c_void>,
}

// SAFETY: the mapping belongs to this value alone (not to a thread) and is accessed only through
// atomics, which any thread may use.
unsafe impl Send for Page {}
// SAFETY: as above; every method takes `&self` and performs one atomic access.
unsafe impl Sync for Page {}

impl Page {
    /// Makes the file (which must not exist), all words 0, and maps it.
    pub fn create(path: &Path) -> Result<Page, MapError> {
        let error = |action| move |e: rustix::io::Errno| io(action, path, e);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::open(crate::sys::arg(path), flags, Mode::RUSR | Mode::WUSR)
            .map_err(error("create"))?;
        rustix::fs::ftruncate(&file, PAGE_BYTES as u64).map_err(error("size"))?;
        Page::map(path, &file)
    }

    /// Maps an existing file.
    pub fn open(path: &Path) -> Result<Page, MapError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(crate::sys::arg(path), flags, Mode::empty())
            .map_err(|e| io("open", path, e))?;
        Page::map(path, &file)
    }

    fn map(path: &Path, file: &rustix::fd::OwnedFd) -> Result<Page, MapError> {
        let stat = rustix::fs::fstat(file).map_err(|e| io("examine", path, e))?;
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        if found != PAGE_BYTES as u64 {
            return Err(MapError::Size { path: path.to_owned(), found });
        }
        // SAFETY: a new shared mapping at an address of the system's choice aliases no Rust object.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                PAGE_BYTES,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                file,
                0,
            )
        };
        let base = base.map_err(|e| io("map", path, e))?;
        let base = NonNull::new(base).ok_or_else(|| io("map", path, rustix::io::Errno::FAULT))?;
        Ok(Page { base })
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < PAGE_BYTES, "word offset {offset:#x}");
        // SAFETY: (1) the offset is inside the mapping and aligned (asserted; the base is aligned to
        // a page); (2) the mapping lives as long as `self`; (3) the memory is shared with another
        // process, and every access of ours is an atomic 64-bit one, as the protocol demands of the
        // other side too. The file cannot shrink below the mapping: it lies in a directory that
        // only this user can enter, and nothing in this program truncates it.
        unsafe { &*self.base.as_ptr().cast::<AtomicU64>().add(offset / 8) }
    }

    /// Reads a word.
    pub fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    /// Reads a word; what is read after it is at least as new.
    pub fn load_acquire(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// Writes a word.
    pub fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Relaxed);
    }

    /// Writes a word; whoever reads it sees what was written before it.
    pub fn store_release(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it is left.
        // An error would leave the mapping in place, which harms nothing.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr(), PAGE_BYTES) };
    }
}

fn io(action: &'static str, path: &Path, errno: rustix::io::Errno) -> MapError {
    MapError::Io { action, path: path.to_owned(), source: crate::sys::error(errno) }
}

#[cfg(test)]
mod tests;
