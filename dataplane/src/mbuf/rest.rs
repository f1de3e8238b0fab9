//! The buffers of a received frame behind its first.
use super::{Area, Mbuf, Meta, NO_MBUF, Pool};

/// The right to the buffers that continue a received frame, in order: a list by [`Meta::next`], in which
/// `offset` and `len` say where the bytes are.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "dropped, it leaks its buffers: give them back to a pool"]
pub struct Rest(u32);

impl Rest {
    /// The frame has one buffer only.
    pub const NONE: Rest = Rest(NO_MBUF);

    /// Whether there are none.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        self.0 == NO_MBUF
    }

    /// The number of the first buffer, or [`NO_MBUF`].
    #[inline(always)]
    pub const fn first(&self) -> u32 {
        self.0
    }

    /// The list that begins with a number that [`Rest::first`] gave: exactly once for each.
    #[inline(always)]
    pub const fn from_raw(first: u32) -> Rest {
        Rest(first)
    }

    /// Moves it out.
    pub const fn take(&mut self) -> Rest {
        core::mem::replace(self, Rest::NONE)
    }

    /// Takes the first buffer: where its bytes start, and how many there are.
    pub fn pop(&mut self, area: &Area) -> Option<(Mbuf, u16, u16)> {
        if self.is_none() {
            return None;
        }
        let mbuf = Mbuf(self.0);
        let Meta { next, offset, len, .. } = area.meta(&mbuf);
        self.0 = next;
        Some((mbuf, offset, len))
    }

    /// The bytes of each buffer in turn; of one that lies outside of itself, none.
    pub fn pieces<'a>(&self, area: &'a Area) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut at = self.0;
        core::iter::from_fn(move || {
            if at == NO_MBUF {
                return None;
            }
            let mbuf = Mbuf(at);
            let Meta { next, offset, len, .. } = area.meta(&mbuf);
            at = next;
            let start = usize::from(offset);
            Some(area.data(&mbuf).get(start..start + usize::from(len)).unwrap_or(&[]))
        })
    }

    /// Gives all to the pool.
    #[cold]
    pub fn free(mut self, pool: &mut Pool) {
        while let Some((mbuf, ..)) = self.pop(pool.area()) {
            pool.free(mbuf);
        }
    }
}

/// A [`Rest`] that is being made: by a driver, as its device completes buffers.
#[derive(Debug)]
#[must_use = "dropped, it leaks its buffers"]
pub struct RestBuilder {
    first: u32,
    last: u32,
}

impl RestBuilder {
    /// Without buffers yet.
    pub const fn new() -> RestBuilder {
        RestBuilder { first: NO_MBUF, last: NO_MBUF }
    }

    /// Appends a buffer with `len` bytes from `offset`, which lie within it.
    pub fn push(&mut self, area: &Area, mut mbuf: Mbuf, offset: u16, len: u16) {
        area.set_meta(&mut mbuf, Meta { next: NO_MBUF, offset, len, references: 0, word: 0 });
        let index = mbuf.into_raw();
        if self.first == NO_MBUF {
            self.first = index;
        } else {
            area.link(self.last, index);
        }
        self.last = index;
    }

    /// The list.
    pub fn finish(self) -> Rest {
        Rest(self.first)
    }
}

impl Default for RestBuilder {
    fn default() -> RestBuilder {
        RestBuilder::new()
    }
}
