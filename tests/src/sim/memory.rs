//! Host memory in the place of RAM: the kernel's alias, the device's bus address and the
//! application's address are three different numbers, so that none is taken for another.
#![allow(unsafe_code, reason = "stands for physical memory")]

use ix_dataplane::device::BusAddr;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::cell::RefCell;
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::rc::Rc;

const ALIGN: usize = 2 << 20;

/// Zeroed memory, 2 MiB aligned. Mapped, so that what nobody touches costs nothing: most of it.
#[derive(Debug)]
pub struct Pages {
    ptr: NonNull<u8>,
    size: usize,
    mapping: (NonNull<c_void>, usize),
}

impl Pages {
    /// `len` bytes.
    pub fn new(len: usize) -> Pages {
        let size = len.max(1);
        let whole = NonZeroUsize::new(size + ALIGN).expect("it is not 0");
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: an address of the system's choice, where nothing is; `Drop` ends it.
        let start = unsafe { mmap_anonymous(None, whole, access, MapFlags::MAP_PRIVATE) };
        let start = start.expect("memory for a simulated machine");
        let bytes: NonNull<u8> = start.cast();
        let skip = bytes.addr().get().next_multiple_of(ALIGN) - bytes.addr().get();
        // SAFETY: less than `ALIGN` further, within the mapping.
        let ptr = unsafe { bytes.add(skip) };
        Pages { ptr, size, mapping: (start, whole.get()) }
    }

    /// The first byte.
    pub fn ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// In bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Copies out of it.
    pub fn read(&self, at: usize, bytes: &mut [u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.size()));
        let (len, into) = (bytes.len(), NonNull::from(bytes).cast());
        // SAFETY: within the allocation; the whole simulation is one thread, and the engine's own
        // references into it do not live across its calls.
        unsafe { self.ptr.add(at).copy_to_nonoverlapping(into, len) };
    }

    /// Copies into it.
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.size()));
        // SAFETY: as in `read`.
        unsafe {
            self.ptr.add(at).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len());
        };
    }

    /// A word.
    pub fn word<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut bytes = [0; N];
        self.read(at, &mut bytes);
        bytes
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        let (start, len) = self.mapping;
        // SAFETY: mapped by `new`, and nobody has it any more.
        let unmapped = unsafe { munmap(start, len) };
        debug_assert!(unmapped.is_ok());
    }
}

/// What devices can reach: memory by bus address.
#[derive(Debug, Default)]
pub struct Bus {
    regions: RefCell<Vec<(u64, Rc<Pages>)>>,
}

impl Bus {
    /// Makes `pages` reachable, at an address of their own.
    pub fn attach(&self, pages: &Rc<Pages>) -> BusAddr {
        let mut regions = self.regions.borrow_mut();
        // Far apart: an address that runs over the end of one hits nothing.
        let base = 0x0123_0000_0000 + regions.len() as u64 * (1 << 32);
        regions.push((base, Rc::clone(pages)));
        BusAddr(base)
    }

    /// Takes what was attached at `base` out of reach.
    pub fn detach(&self, base: BusAddr) {
        for (at, _) in self.regions.borrow_mut().iter_mut().filter(|(at, _)| *at == base.0) {
            *at = u64::MAX;
        }
    }

    /// A device reads.
    pub fn read(&self, from: BusAddr, bytes: &mut [u8]) {
        for (base, pages) in self.regions.borrow().iter() {
            let Some(at) = from.0.checked_sub(*base) else { continue };
            if at + bytes.len() as u64 <= pages.size() as u64 {
                return pages.read(at as usize, bytes);
            }
        }
        panic!("the NIC is told to read {} bytes at {from:x?}, where nothing is", bytes.len());
    }
}
