//! Symbols that precompiled `core` and `alloc` of the host target expect from libc and libgcc.
//!
//! Only freestanding programs (the kernel, the applications) link this: `use ix_rt as _;`. A host
//! program that did would have its libc's `memcpy` replaced. The unit tests therefore see the same
//! functions under mangled names.
#![no_std]
#![deny(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod mem;
pub mod unwind;
