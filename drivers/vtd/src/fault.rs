//! A request that was refused (§7.3).
use crate::SourceId;
use core::fmt;

/// A refused request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose it was.
    pub source: SourceId,
    /// The page that it was for.
    pub page: u64,
    /// It was a write.
    pub write: bool,
    /// Why (appendix A).
    pub reason: u8,
}

impl Fault {
    /// Of a fault recording register's halves (§11.4.7.6).
    pub(crate) fn decode(low: u64, high: u64) -> Fault {
        Fault {
            source: SourceId(high as u16),
            page: low & !0xfff,
            write: high & 1 << 62 == 0,
            reason: (high >> 32) as u8,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (source, page) = (self.source, self.page);
        let what = if self.write { "write to" } else { "read from" };
        let why = match self.reason {
            1..=3 => "it has no tables",
            4 => "beyond what the unit addresses",
            5 => "nothing was given to it for writing there",
            6 => "nothing was given to it there",
            7..=0xd => "its tables are not understood",
            _ => "as the unit says",
        };
        write!(f, "{source} tried to {what} page {page:#x}: {why} (reason {:#x})", self.reason)
    }
}
