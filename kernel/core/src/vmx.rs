//! The pure parts of the monitor that runs dataplanes under Intel VT-x: encodings, checks, parsers and
//! state machines that need no ring 0. "SDM" is Intel's Software Developer's Manual, volume 3.

pub mod bitmaps;
pub mod capability;
pub mod control;
pub mod cores;
pub mod cpuid;
pub mod ept;
pub mod exits;
pub mod fields;
pub mod give;
pub mod icr;
pub mod moves;
pub mod page;
pub mod partition;
pub mod pci;
pub mod restart;
pub mod start_info;
pub mod state;
pub mod timer;
pub mod uart;
pub mod watchdog;
