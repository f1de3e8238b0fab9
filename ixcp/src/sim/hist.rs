//! Log-linear histograms: sixteen buckets to each power of two, so that a quantile is at most 6 % too high.

const SUB_BITS: u32 = 4;
const SUBS: usize = 1 << SUB_BITS;
const BUCKETS: usize = 40 * SUBS;

/// Counts of whole numbers, here nanoseconds.
#[derive(Clone, Debug)]
pub struct Hist {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    sum: u64,
}

impl Default for Hist {
    fn default() -> Hist {
        Hist { counts: Box::new([0; BUCKETS]), total: 0, sum: 0 }
    }
}

impl Hist {
    /// Counts a value.
    pub fn record(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.sum += value;
    }

    /// How many values.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Their mean; 0 without values.
    pub fn mean(&self) -> f64 {
        self.sum as f64 / self.total.max(1) as f64
    }

    /// Adds another's counts.
    pub fn add(&mut self, other: &Hist) {
        if other.total == 0 {
            return;
        }
        for (sum, n) in self.counts.iter_mut().zip(other.counts.iter()) {
            *sum += n;
        }
        self.total += other.total;
        self.sum += other.sum;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        if self.total > 0 {
            self.counts.fill(0);
            self.total = 0;
            self.sum = 0;
        }
    }

    /// The upper end of the bucket in which the share `q` of the values is reached; 0 without values.
    pub fn quantile(&self, q: f64) -> u64 {
        if self.total == 0 {
            return 0;
        }
        let wanted = ((self.total as f64 * q).ceil() as u64).clamp(1, self.total);
        let mut seen = 0;
        let at = self.counts.iter().position(|n| {
            seen += n;
            seen >= wanted
        });
        upper(at.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(value: u64) -> usize {
    if value < SUBS as u64 {
        return value as usize;
    }
    let exponent = value.ilog2() - SUB_BITS;
    let sub = (value >> exponent) as usize - SUBS;
    ((exponent as usize + 1) * SUBS + sub).min(BUCKETS - 1)
}

fn upper(bucket: usize) -> u64 {
    if bucket < SUBS {
        return bucket as u64;
    }
    let exponent = bucket / SUBS - 1;
    ((((bucket % SUBS) + SUBS + 1) as u64) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_a_bucket_that_ends_at_most_a_sixteenth_above_it() {
        for value in (0..4096).chain([1 << 20, (1 << 30) + 12345, (1 << 42) - 1]) {
            let end = upper(bucket(value));
            assert!(end >= value && end - value <= value / 16, "{value}: {end}");
        }
    }

    #[test]
    fn quantiles_are_of_the_counts() {
        let mut h = Hist::default();
        assert_eq!(h.quantile(0.99), 0);
        (1..=1000).for_each(|v| h.record(v));
        let p99 = h.quantile(0.99);
        assert!((990..=990 + 62).contains(&p99), "{p99}");
        assert_eq!(h.quantile(0.0), 1);
        let mut twice = h.clone();
        twice.add(&h);
        assert_eq!((twice.total(), twice.quantile(0.5)), (2000, h.quantile(0.5)));
    }
}
