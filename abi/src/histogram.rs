//! Log-linear histograms of times: eight buckets to an octave, so that any value is known to an eighth of itself.
//!
//! Values are nanoseconds in units of 64; below 1024 ns the buckets are 64 ns wide, above an eighth of their octave; the last
//! has everything from 1.006 s on. Counts only grow.

/// Bits of a value below a unit: a unit has 64 ns.
pub const UNIT_BITS: u32 = 6;
/// Buckets of an octave are `1 << SUB_BITS`.
const SUB_BITS: u32 = 3;
const SUB: u64 = 1 << SUB_BITS;
/// Bits of the largest value that is told from larger ones, in units.
const VALUE_BITS: u32 = 24;
const VALUE_MAX: u64 = (1 << VALUE_BITS) - 1;

/// How many buckets a histogram has.
pub const BUCKETS: usize = ((VALUE_BITS - SUB_BITS + 1) << SUB_BITS) as usize;
const _: () = assert!(BUCKETS == 176 && place(VALUE_MAX) as usize == BUCKETS - 1);

/// How many [`place`] can say; it begins anew beyond 1,000 s.
pub const PLACES: usize = u8::MAX as usize + 1;

/// The bucket of a value in nanoseconds.
pub const fn bucket(ns: u64) -> usize {
    let units = ns >> UNIT_BITS;
    place(if units < VALUE_MAX { units } else { VALUE_MAX }) as usize
}

/// The bucket of a value in units of 64 ns, if there were no last one.
#[inline(always)]
pub const fn place(units: u64) -> u8 {
    let octave = (units | SUB).ilog2() - SUB_BITS;
    (octave * SUB as u32 + (units >> octave) as u32) as u8
}

/// The least value of a bucket in nanoseconds; for the number behind the last, where that would end.
pub const fn floor_ns(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let units = if bucket < 2 * SUB { bucket } else { (SUB + bucket % SUB) << (bucket / SUB - 1) };
    units << UNIT_BITS
}

/// The value in nanoseconds that so many of a thousand counts do not exceed, rounded up to its bucket's end; 0 if
/// nothing was counted.
pub fn quantile_ns(counts: &[u64], permille: u64) -> u64 {
    let all = counts.iter().fold(0, |sum: u64, n| sum.saturating_add(*n));
    if all == 0 {
        return 0;
    }
    let rank = (u128::from(all) * u128::from(permille)).div_ceil(1000).max(1);
    let mut below = 0;
    for (bucket, n) in counts.iter().enumerate() {
        below += u128::from(*n);
        if *n > 0 && below >= rank {
            return floor_ns(bucket + 1);
        }
    }
    0
}

/// The end of the highest bucket in which anything was counted: no value was larger, unless it is the last; 0 if
/// nothing was.
pub fn max_ns(counts: &[u64]) -> u64 {
    counts.iter().rposition(|n| *n > 0).map_or(0, |bucket| floor_ns(bucket + 1))
}

#[cfg(test)]
mod tests;
