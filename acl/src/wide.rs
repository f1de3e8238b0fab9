//! 128-bit words and the few vector instructions on them that the look-up needs. SSE2 is part of x86-64: the
//! compiler assumes it everywhere, and still wants to be told at each instruction.
#![allow(unsafe_code, reason = "vector instructions, for all of which one argument holds")]

use core::arch::x86_64 as sse2;

/// 128 bits.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Wide(sse2::__m128i);

impl Wide {
    /// From two halves.
    #[inline(always)]
    pub fn from_halves(low: u64, high: u64) -> Wide {
        // SAFETY: every x86-64 has SSE2, which is all that the instruction needs.
        Wide(unsafe { sse2::_mm_set_epi64x(high as i64, low as i64) })
    }

    /// The halves, the lower first.
    #[inline(always)]
    pub fn halves(self) -> [u64; 2] {
        // SAFETY: as in `from_halves`.
        unsafe {
            let high = sse2::_mm_unpackhi_epi64(self.0, self.0);
            [sse2::_mm_cvtsi128_si64(self.0) as u64, sse2::_mm_cvtsi128_si64(high) as u64]
        }
    }

    /// From four signed numbers.
    #[inline(always)]
    pub fn from_numbers(n: [i32; 4]) -> Wide {
        // SAFETY: as in `from_halves`.
        Wide(unsafe { sse2::_mm_set_epi32(n[3], n[2], n[1], n[0]) })
    }

    /// Bits that both have.
    #[inline(always)]
    pub fn and(self, other: Wide) -> Wide {
        // SAFETY: as in `from_halves`.
        Wide(unsafe { sse2::_mm_and_si128(self.0, other.0) })
    }

    /// Bits that one of them alone has.
    #[inline(always)]
    pub fn xor(self, other: Wide) -> Wide {
        // SAFETY: as in `from_halves`.
        Wide(unsafe { sse2::_mm_xor_si128(self.0, other.0) })
    }

    /// Of sixteen quarters of words: a bit for each in which no bit is set.
    #[inline(always)]
    pub fn empty_quarters([a, b, c, d]: [Wide; 4]) -> u32 {
        // SAFETY: as in `from_halves`.
        unsafe {
            let zero = sse2::_mm_setzero_si128();
            let low = sse2::_mm_packs_epi32(
                sse2::_mm_cmpeq_epi32(a.0, zero),
                sse2::_mm_cmpeq_epi32(b.0, zero),
            );
            let high = sse2::_mm_packs_epi32(
                sse2::_mm_cmpeq_epi32(c.0, zero),
                sse2::_mm_cmpeq_epi32(d.0, zero),
            );
            sse2::_mm_movemask_epi8(sse2::_mm_packs_epi16(low, high)) as u32
        }
    }

    /// Of sixteen signed numbers: a bit for each that is greater than all four of `point`'s, which are
    /// the same.
    #[inline(always)]
    pub fn greater(numbers: &[Wide; 4], point: Wide) -> u32 {
        let [a, b, c, d] = *numbers;
        // SAFETY: as in `from_halves`.
        unsafe {
            let low = sse2::_mm_packs_epi32(
                sse2::_mm_cmpgt_epi32(a.0, point.0),
                sse2::_mm_cmpgt_epi32(b.0, point.0),
            );
            let high = sse2::_mm_packs_epi32(
                sse2::_mm_cmpgt_epi32(c.0, point.0),
                sse2::_mm_cmpgt_epi32(d.0, point.0),
            );
            sse2::_mm_movemask_epi8(sse2::_mm_packs_epi16(low, high)) as u32
        }
    }
}
