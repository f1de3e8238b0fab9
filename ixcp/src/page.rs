//! The control page: aligned 64-bit words, read and written one at a time. It is a file mapping, or is told over a serial
//! line.
//!
//! The other side of a mapping is a running kernel that may write at any moment, or be broken. So a word is only
//! ever touched by one atomic load or store, and no reference to plain memory is made.
#![allow(unsafe_code, reason = "maps a file and reads its words")]

use crate::line::{Line, LineError, Shadow};
use ix_abi::control::{BULK_BASE, PAGE_BYTES, REPLY_BASE, REPLY_BYTES};
use nix::fcntl::OFlag;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::{File, OpenOptions};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why a file is not a control page that can be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// A system call failed.
    #[error("cannot {action} the control page {}: {cause}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said. It is in the text, and so no `source`, which would be told twice.
        cause: io::Error,
    },
    /// A file of another size.
    #[error("{} is not a control page: it has {found} bytes instead of {PAGE_BYTES}", path.display())]
    Size {
        /// Which file.
        path: PathBuf,
        /// Its size.
        found: u64,
    },
    /// A serial line that leads to none.
    #[error("no control page over the serial line {}: {cause}", path.display())]
    Line {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: LineError,
    },
}

/// A control page.
#[derive(Debug)]
pub struct Page(Backing);

#[derive(Debug)]
enum Backing {
    Mapped(Mapped),
    Line(Box<Mutex<Shadow>>),
}

#[derive(Debug)]
struct Mapped {
    base: NonNull<c_void>,
}

// SAFETY: the mapping belongs to this value alone (not to a thread) and is accessed only through
// atomics, which any thread may use.
unsafe impl Send for Mapped {}
// SAFETY: as above; every method takes `&self` and performs one atomic access.
unsafe impl Sync for Mapped {}

impl Page {
    /// Makes the file (which must not exist), all words 0, and maps it.
    pub fn create(path: &Path) -> Result<Page, MapError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(failed("create", path))?;
        file.set_len(PAGE_BYTES as u64).map_err(failed("size", path))?;
        Page::map(path, &file)
    }

    /// Whether it is a mapping: a look at it costs nothing. A serial line is slow, and others want it, too.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Backing::Mapped(_))
    }

    /// Maps an existing file; of a socket or a terminal, asks what is at its other end.
    pub fn open(path: &Path) -> Result<Page, MapError> {
        let kind = std::fs::metadata(path).map_err(failed("open", path))?.file_type();
        if kind.is_socket() || kind.is_char_device() {
            let line = Line::open(path)
                .map_err(|cause| MapError::Line { path: path.to_owned(), cause })?;
            return Ok(Page(Backing::Line(Box::new(Mutex::new(Shadow::new(line))))));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(path)
            .map_err(failed("open", path))?;
        Page::map(path, &file)
    }

    fn map(path: &Path, file: &File) -> Result<Page, MapError> {
        let found = file.metadata().map_err(failed("examine", path))?.len();
        if found != PAGE_BYTES as u64 {
            return Err(MapError::Size { path: path.to_owned(), found });
        }
        let length = NonZeroUsize::new(PAGE_BYTES).expect("not 0");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the system's choice aliases no Rust object.
        let base = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, file, 0) };
        let base = base.map_err(|e| failed("map", path)(e.into()))?;
        Ok(Page(Backing::Mapped(Mapped { base })))
    }

    /// Whether it is told over a serial line, where there are no capture rings.
    pub fn is_line(&self) -> bool {
        matches!(self.0, Backing::Line(_))
    }

    /// Why a serial line has told nothing more; all that is read since then is 0.
    pub fn failure(&self) -> Option<String> {
        match &self.0 {
            Backing::Mapped(_) => None,
            Backing::Line(shadow) => lock(shadow).failure(),
        }
    }

    /// Reads a word.
    pub fn load(&self, offset: usize) -> u64 {
        match &self.0 {
            Backing::Mapped(mapped) => mapped.word(offset).load(Ordering::Relaxed),
            Backing::Line(shadow) => lock(shadow).load(offset, false),
        }
    }

    /// Reads a word; what is read after it is at least as new.
    pub fn load_acquire(&self, offset: usize) -> u64 {
        match &self.0 {
            Backing::Mapped(mapped) => mapped.word(offset).load(Ordering::Acquire),
            Backing::Line(shadow) => lock(shadow).load(offset, true),
        }
    }

    /// Reads a word of a block that counts its changes: what is read after it is at least as new. Over a line words come in
    /// pieces, each of one moment and newer than the one before, so that a piece serves for all of its words.
    pub fn load_in_block(&self, offset: usize) -> u64 {
        if self.is_line() { self.load(offset) } else { self.load_acquire(offset) }
    }

    /// Writes a word.
    pub fn store(&self, offset: usize, value: u64) {
        match &self.0 {
            Backing::Mapped(mapped) => mapped.word(offset).store(value, Ordering::Relaxed),
            Backing::Line(shadow) => lock(shadow).store(offset, value, false),
        }
    }

    /// Lays bytes in the bulk area, for the command that is about to be sent.
    pub fn lay_bulk(&self, bytes: &[u8]) {
        for (i, part) in bytes.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            self.store(BULK_BASE + i * 8, u64::from_le_bytes(word));
        }
    }

    /// The beginning of the reply area: at most `count` bytes.
    pub fn reply(&self, count: usize) -> Vec<u8> {
        let words = count.min(REPLY_BYTES).div_ceil(8);
        let mut all: Vec<u8> =
            (0..words).flat_map(|i| self.load(REPLY_BASE + i * 8).to_le_bytes()).collect();
        all.truncate(count);
        all
    }

    /// The text there, of at most `count` bytes: whatever it is, it can be printed.
    pub fn reply_text(&self, count: usize) -> String {
        let bytes = self.reply(count);
        let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
        crate::serial::printable(&bytes[..end])
    }

    /// Writes a word; whoever reads it sees what was written before it.
    pub fn store_release(&self, offset: usize, value: u64) {
        match &self.0 {
            Backing::Mapped(mapped) => mapped.word(offset).store(value, Ordering::Release),
            Backing::Line(shadow) => lock(shadow).store(offset, value, true),
        }
    }
}

fn lock(shadow: &Mutex<Shadow>) -> MutexGuard<'_, Shadow> {
    shadow.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mapped {
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < PAGE_BYTES, "word offset {offset:#x}");
        // SAFETY: inside the mapping and aligned (asserted; the base is at a page), which lives as long
        // as `self`. Both sides access it by atomic words only. The file does not shrink: only this
        // user reaches it, and nothing here truncates it.
        unsafe { &*self.base.as_ptr().cast::<AtomicU64>().add(offset / 8) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map` with this length, and no reference into it is left.
        // An error would leave the mapping in place, which harms nothing.
        let _ = unsafe { munmap(self.base, PAGE_BYTES) };
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> MapError {
    move |cause| MapError::Io { action, path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests;
