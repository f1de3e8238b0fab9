//! Causes that are not queues' (§8.2.3.5.1). They are latched in EICR though no vector is theirs, and are polled.

/// Registers may read all ones.
const NOBODY: u32 = u32::MAX;
const PCI_EXCEPTION: u32 = 1 << 18;
const LINK_CHANGE: u32 = 1 << 20;
/// X540: its own sensor. 82599: SDP0, to which boards connect theirs.
const OVERHEATED: u32 = 1 << 23 | 1 << 24;
const ECC: u32 = 1 << 28;

/// What has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// The link came up or went down, perhaps both.
    pub link_changed: bool,
    /// The chip, or its board, is too hot; it stops by itself when that goes on.
    pub overheated: bool,
    /// An access to memory was answered with an error: what it may not reach, or is not there.
    pub memory_error: bool,
    /// Memory of the chip was corrupted: reset the port.
    pub corrupted: bool,
}

impl Events {
    pub(crate) const fn from_cause(cause: u32) -> Events {
        let there = cause != NOBODY;
        Events {
            link_changed: there && cause & LINK_CHANGE != 0,
            overheated: there && cause & OVERHEATED != 0,
            memory_error: there && cause & PCI_EXCEPTION != 0,
            corrupted: there && cause & ECC != 0,
        }
    }
}
