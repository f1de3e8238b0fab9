//! The kernel's pure logic: everything that can be decided without touching hardware, so that it is
//! tested on the host. No `unsafe`, no I/O; `alloc` only in what host tools call (builders).
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;

#[cfg(test)]
extern crate std;

pub mod acpi_tables;
pub mod addr;
pub mod archive;
pub mod clock;
pub mod cmdline;
pub mod commands;
pub mod demand;
pub mod efi;
pub mod elf_image;
pub mod frames;
pub mod lending;
pub mod lines;
pub mod memory_map;
pub mod multiboot2;
pub mod nictest;
pub mod paging;
pub mod pixels;
pub mod placement;
pub mod rtc;
pub mod smbios;
pub mod spread;
pub mod stacks;
pub mod symbols;
pub mod text_grid;
pub mod threads;
pub mod vmx;
