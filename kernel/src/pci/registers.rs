//! Device registers behind a bounds check: the kernel's `Mmio`.
#![allow(unsafe_code, reason = "volatile access to mapped registers")]

use ix_dataplane::device::Mmio;
use ix_kernel_core::addr::Virt;

/// A mapped window of registers. Copies refer to the same window.
#[derive(Clone, Copy, Debug)]
pub struct Registers {
    base: u64,
    len: usize,
}

impl Registers {
    /// # Safety
    /// `len` bytes at `base` are mapped, uncached, for ever, and are registers of one device.
    pub unsafe fn new(base: Virt, len: usize) -> Self {
        Self { base: base.0, len }
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let fits = offset.checked_add(size_of::<T>()).is_some_and(|end| end <= self.len);
        let at = self.base + offset as u64;
        (fits && at.is_multiple_of(size_of::<T>() as u64)).then_some(at as *mut T)
    }

    #[inline]
    fn get<T: Copy>(&self, offset: usize, none: T) -> T {
        match self.at::<T>(offset) {
            // SAFETY: in the window and aligned; the window is mapped for ever (`new`).
            Some(p) => unsafe { p.read_volatile() },
            None => none,
        }
    }

    #[inline]
    fn put<T>(&self, offset: usize, value: T) {
        if let Some(p) = self.at::<T>(offset) {
            // SAFETY: as in `get`.
            unsafe { p.write_volatile(value) }
        }
    }
}

impl Mmio for Registers {
    #[inline]
    fn read8(&self, offset: usize) -> u8 {
        self.get(offset, u8::MAX)
    }
    #[inline]
    fn read16(&self, offset: usize) -> u16 {
        self.get(offset, u16::MAX)
    }
    #[inline]
    fn read32(&self, offset: usize) -> u32 {
        self.get(offset, u32::MAX)
    }
    #[inline]
    fn write8(&self, offset: usize, value: u8) {
        self.put(offset, value);
    }
    #[inline]
    fn write16(&self, offset: usize, value: u16) {
        self.put(offset, value);
    }
    #[inline]
    fn write32(&self, offset: usize, value: u32) {
        self.put(offset, value);
    }
}
