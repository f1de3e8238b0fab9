//! A set of a dataplane's cores, by their number in it.

/// Up to 64 cores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cores(pub u64);

impl Cores {
    /// How many a set can hold.
    pub const MAX: usize = 64;

    /// Cores 0 to `n - 1`.
    #[must_use]
    pub const fn first(n: usize) -> Self {
        Self(if n >= Self::MAX { u64::MAX } else { (1 << n) - 1 })
    }

    /// One core; none if there can be no such number.
    #[must_use]
    pub const fn one(core: usize) -> Self {
        Self(if core < Self::MAX { 1 << core } else { 0 })
    }

    #[must_use]
    pub const fn has(self, core: usize) -> bool {
        self.0 & Self::one(core).0 != 0
    }

    #[must_use]
    pub const fn with(self, core: usize) -> Self {
        Self(self.0 | Self::one(core).0)
    }

    #[must_use]
    pub const fn without(self, core: usize) -> Self {
        Self(self.0 & !Self::one(core).0)
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub fn iter(self) -> impl Iterator<Item = usize> {
        (0..Self::MAX).filter(move |core| self.has(*core))
    }
}
