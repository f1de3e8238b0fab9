//! Sequence numbers: 32 bits on a circle (RFC 9293 §3.4), so no `Ord`, which would promise a line.

/// A TCP sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WrappingSeq(pub u32);

impl WrappingSeq {
    /// Whether `self` comes before `other`.
    #[inline(always)]
    pub const fn before(self, other: WrappingSeq) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// Whether `self` comes after `other`.
    #[inline(always)]
    pub const fn after(self, other: WrappingSeq) -> bool {
        other.before(self)
    }

    /// Whether `self` is `other` or before it.
    #[inline(always)]
    pub const fn at_or_before(self, other: WrappingSeq) -> bool {
        !other.before(self)
    }

    /// Bytes from `earlier` to `self`, which the caller knows to be in that order.
    #[inline(always)]
    pub const fn since(self, earlier: WrappingSeq) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The sequence number `bytes` further on.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, bytes: u32) -> WrappingSeq {
        WrappingSeq(self.0.wrapping_add(bytes))
    }

    /// The sequence number `bytes` back.
    #[inline(always)]
    #[must_use]
    pub const fn minus(self, bytes: u32) -> WrappingSeq {
        WrappingSeq(self.0.wrapping_sub(bytes))
    }

    /// The later of two.
    #[inline(always)]
    #[must_use]
    pub const fn later(self, other: WrappingSeq) -> WrappingSeq {
        if self.before(other) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::WrappingSeq;

    #[test]
    fn order_holds_across_the_wrap() {
        let a = WrappingSeq(0xffff_fff0);
        let b = a.plus(0x20);
        assert_eq!(b, WrappingSeq(0x10));
        assert!(a.before(b) && b.after(a) && a.at_or_before(a));
        assert_eq!(b.since(a), 0x20);
        assert_eq!(a.later(b), b);
        assert_eq!(b.minus(0x20), a);
    }
}
