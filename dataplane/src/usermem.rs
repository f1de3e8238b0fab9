//! The application's memory as the kernel may touch it: a table of 2 MiB frames whose one look-up
//! gives the kernel's alias and the bus address.
//!
//! The kernel's memory service fills the table ([`UserMap::map`]); engines only look up. A frame
//! that a send refers to is pinned by a counter of the referring core, which only that core writes;
//! the service takes a page away in this order: `unmap`, let every core pass a quiescent point,
//! wait until [`UserMap::pins`] is 0.
//!
//! # Safety
//! An [`Extent`] is made only here (from a mapped frame) and by [`crate::mbuf`] (from a held
//! buffer); whoever keeps one also keeps the pin or the buffer reference.
#![allow(unsafe_code, reason = "reads memory that the application may change meanwhile")]

use crate::device::BusAddr;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use ix_abi::CoreId;
use ix_abi::layout::{
    CONTEXT_BASE, CONTEXT_BYTES, CONTEXTS_MAX, HEAP_BASE, IMAGE_BASE, IMAGE_END, PAGE_BYTES,
    USER_END,
};

/// Number of a 2 MiB frame in a [`UserMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameIndex(u32);

impl FrameIndex {
    /// As a word, below 2^31.
    pub const fn to_raw(self) -> u32 {
        self.0
    }

    /// The inverse of [`FrameIndex::to_raw`].
    pub const fn from_raw(index: u32) -> FrameIndex {
        FrameIndex(index)
    }
}

/// Contiguous bytes that a device may read and the kernel may sum.
///
/// Packed to 20 bytes, so that a send segment with its links is half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Extent {
    alias: usize,
    bus: BusAddr,
    len: u32,
}

impl Default for Extent {
    fn default() -> Extent {
        Extent { alias: 0, bus: BusAddr(0), len: 0 }
    }
}

impl Extent {
    /// # Safety
    /// `len` bytes at `alias` are readable for as long as the extent is used, and `bus` is the same
    /// memory for the device.
    pub(crate) unsafe fn new(alias: usize, bus: BusAddr, len: u32) -> Extent {
        Extent { alias, bus, len }
    }

    /// Where the device finds it.
    #[inline]
    pub fn bus(&self) -> BusAddr {
        self.bus
    }

    /// Its length.
    #[inline]
    #[allow(clippy::len_without_is_empty, reason = "an extent is never asked whether it is empty")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The part `[from, from + len)` of it, cut to what there is.
    #[inline]
    #[must_use]
    pub fn part(&self, from: u32, len: u32) -> Extent {
        let from = from.min(self.len);
        Extent {
            alias: self.alias + from as usize,
            bus: self.bus.offset(u64::from(from)),
            len: len.min(self.len - from),
        }
    }

    /// Copies its first bytes to `out`; how many. For looking at packets only: the application may
    /// write meanwhile.
    pub fn read(&self, out: &mut [u8]) -> usize {
        let len = out.len().min(self.len as usize);
        // SAFETY: `len` bytes at `alias` are readable by the constructor's contract, and `len` bytes
        // of `out` are ours; no Rust reference to the application's bytes is made, and assembly may
        // read what another core writes. DF is clear by the calling convention.
        unsafe {
            core::arch::asm!(
                "rep movsb",
                inout("rcx") len => _,
                inout("rsi") self.alias => _,
                inout("rdi") out.as_mut_ptr() => _,
                options(nostack, preserves_flags),
            );
        }
        len
    }

    /// The Internet checksum's partial sum over it, see [`crate::checksum`].
    #[inline]
    pub fn sum(&self) -> u64 {
        // SAFETY: the bytes are readable by the constructor's contract; volatile, since the
        // application may write them meanwhile: then its own checksum is wrong, nothing else.
        unsafe { crate::checksum::sum_raw(self.alias as *const u8, self.len as usize) }
    }
}

#[derive(Debug, Default)]
struct Frame {
    /// Kernel address of the frame's first byte; 0: not mapped.
    alias: AtomicUsize,
    bus: AtomicU64,
}

/// The 2 MiB frames of one address space.
#[derive(Debug)]
pub struct UserMap {
    frames: Box<[Frame]>,
    /// By core, then by frame; written by that core only.
    pins: Box<[Box<[AtomicU32]>]>,
    heap_pages: u64,
}

const IMAGE_PAGES: u64 = (IMAGE_END - IMAGE_BASE) / PAGE_BYTES;
const CONTEXT_PAGES: u64 = CONTEXTS_MAX as u64 * CONTEXT_BYTES / PAGE_BYTES;

impl UserMap {
    /// An empty table for a heap arena of at most `heap_pages` pages, used by `cores` cores.
    pub fn new(heap_pages: u32, cores: u16) -> UserMap {
        let heap_pages = u64::from(heap_pages);
        let count = (IMAGE_PAGES + CONTEXT_PAGES + heap_pages) as usize;
        let pins_of_core = || (0..count).map(|_| AtomicU32::new(0)).collect::<Vec<_>>().into();
        UserMap {
            frames: (0..count).map(|_| Frame::default()).collect(),
            pins: (0..cores).map(|_| pins_of_core()).collect(),
            heap_pages,
        }
    }

    /// Enters the frame at the user address `addr` (2 MiB aligned). `false`: the address is outside
    /// of what the table covers.
    ///
    /// # Safety
    /// `alias` is readable for 2 MiB and `bus` is the same memory for devices, until the frame is
    /// unmapped *and* every core has passed a quiescent point *and* its pins are 0.
    pub unsafe fn map(&self, addr: u64, alias: usize, bus: BusAddr) -> bool {
        let Some(index) = self.index(addr) else { return false };
        let frame = &self.frames[index];
        frame.bus.store(bus.0, Ordering::Relaxed);
        frame.alias.store(alias, Ordering::Release);
        true
    }

    /// Takes the frame at `addr` out: no new references from now on.
    pub fn unmap(&self, addr: u64) {
        if let Some(index) = self.index(addr) {
            self.frames[index].alias.store(0, Ordering::Release);
        }
    }

    /// References of all cores to the frame at `addr`.
    pub fn pins(&self, addr: u64) -> u32 {
        let Some(index) = self.index(addr) else { return 0 };
        self.pins.iter().fold(0, |sum, p| sum.wrapping_add(p[index].load(Ordering::Acquire)))
    }

    /// References of all cores to all frames, for conservation checks.
    pub fn pins_total(&self) -> u32 {
        let all = self.pins.iter().flat_map(|of_core| of_core.iter());
        all.fold(0, |sum, p| sum.wrapping_add(p.load(Ordering::Acquire)))
    }

    /// The leading part of `[addr, addr + len)` that lies in one frame, if that frame is the
    /// application's; pinned for `core` until [`UserMap::unpin`].
    #[inline]
    pub fn pin(&self, core: CoreId, addr: u64, len: u64) -> Option<(Extent, FrameIndex)> {
        let index = self.index(addr)?;
        let frame = &self.frames[index];
        let alias = frame.alias.load(Ordering::Acquire);
        if alias == 0 {
            return None;
        }
        let within = addr % PAGE_BYTES;
        let len = len.min(PAGE_BYTES - within) as u32;
        self.add_pins(core, index, 1);
        let bus = BusAddr(frame.bus.load(Ordering::Relaxed)).offset(within);
        // SAFETY: the frame is mapped, by `map`'s contract it is readable until unpinned.
        let extent = unsafe { Extent::new(alias + within as usize, bus, len) };
        Some((extent, FrameIndex(index as u32)))
    }

    /// Ends a pin.
    #[inline]
    pub fn unpin(&self, core: CoreId, frame: FrameIndex) {
        self.add_pins(core, frame.0 as usize, u32::MAX);
    }

    /// A load and a store: only `core` itself calls this for its counters.
    #[inline]
    fn add_pins(&self, core: CoreId, index: usize, n: u32) {
        if let Some(pin) = self.pins.get(usize::from(core.0)).and_then(|pins| pins.get(index)) {
            pin.store(pin.load(Ordering::Relaxed).wrapping_add(n), Ordering::Release);
        }
    }

    #[inline]
    fn index(&self, addr: u64) -> Option<usize> {
        let heap_end = HEAP_BASE + self.heap_pages * PAGE_BYTES;
        let page = if (HEAP_BASE..heap_end).contains(&addr) {
            IMAGE_PAGES + CONTEXT_PAGES + (addr - HEAP_BASE) / PAGE_BYTES
        } else if (IMAGE_BASE..IMAGE_END).contains(&addr) {
            (addr - IMAGE_BASE) / PAGE_BYTES
        } else if (CONTEXT_BASE..USER_END).contains(&addr) {
            IMAGE_PAGES + (addr - CONTEXT_BASE) / PAGE_BYTES
        } else {
            return None;
        };
        Some(page as usize)
    }
}
