//! Cells for what is written once while one core runs and only read afterwards.
#![allow(unsafe_code, reason = "shared cells with a single boot-time writer")]

use core::cell::UnsafeCell;

/// A static that the boot core fills before other cores start.
pub struct BootCell<T>(UnsafeCell<T>);

// SAFETY: access is by raw pointer only; each use argues why it is alone.
unsafe impl<T> Sync for BootCell<T> {}

impl<T> BootCell<T> {
    pub const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub const fn get(&self) -> *mut T {
        self.0.get()
    }
}
