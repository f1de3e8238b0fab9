//! What can go wrong with a unit, and what to do about it.
use core::fmt;

/// Why a unit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VtdError {
    /// Its registers read as ones, or it has no version: there is no unit.
    Absent,
    /// It has none of the tables that are known here: its supported widths (CAP.SAGAW).
    Tables {
        /// As they are in the register.
        sagaw: u8,
    },
    /// It did not do what it was told within the time that it may take.
    Stuck {
        /// What that was.
        doing: &'static str,
    },
    /// No memory for its tables.
    NoMemory,
}

impl fmt::Display for VtdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VtdError::Absent => f.write_str(
                "there is no unit where the firmware says that one is: update the firmware, or iommu=off",
            ),
            VtdError::Tables { sagaw } => write!(
                f,
                "it knows neither tables of three nor of four levels (widths {sagaw:#x}): iommu=off"
            ),
            VtdError::Stuck { doing } => {
                write!(f, "it does not answer while {doing}: power the machine off, or iommu=off")
            }
            VtdError::NoMemory => f.write_str("no memory for its tables: more memory, or iommu=off"),
        }
    }
}

impl core::error::Error for VtdError {}
