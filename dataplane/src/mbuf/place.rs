//! Where something is in the receive buffers.
use super::Mbuf;
use crate::limits::MBUF_BYTES;

/// A byte of a buffer, by its distance from the area's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub u64);

impl Place {
    /// That byte of a buffer.
    #[inline(always)]
    pub const fn of(mbuf: &Mbuf, offset: u16) -> Place {
        Place(mbuf.0 as u64 * MBUF_BYTES as u64 + offset as u64)
    }

    /// In no buffer.
    pub const NOWHERE: Place = Place(u64::MAX);

    /// The buffer's number, of nowhere one that no buffer has.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        (self.0 / MBUF_BYTES as u64) as u32
    }

    /// The buffer's number without a cut, where that needs none.
    #[inline(always)]
    pub(super) const fn at(self) -> usize {
        (self.0 / MBUF_BYTES as u64) as usize
    }

    /// The buffer. As [`Mbuf::from_raw`].
    #[inline(always)]
    pub const fn mbuf(self) -> Mbuf {
        Mbuf(self.index())
    }

    /// Where in the buffer.
    pub const fn offset(self) -> u16 {
        (self.0 % MBUF_BYTES as u64) as u16
    }
}
