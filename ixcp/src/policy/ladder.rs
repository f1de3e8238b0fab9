//! The steps that a policy climbs: each has more capacity than the one below.
use super::Kind;
use serde::Serialize;
use std::fmt;

/// So many cores at such a frequency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Cores that serve.
    pub cores: u32,
    /// Their frequency as a share of the highest, above 0, at most 1.
    pub frequency: f64,
}

impl Step {
    /// In cores at the highest frequency.
    pub fn capacity(&self) -> f64 {
        f64::from(self.cores) * self.frequency
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.cores == 1 { "" } else { "s" };
        write!(f, "{} core{s}", self.cores)?;
        if self.frequency < 1.0 {
            write!(f, " at {:.0} % of the frequency", self.frequency * 100.0)?;
        }
        Ok(())
    }
}

/// The steps of a policy between `min` and `max` cores. `frequencies` are shares of the highest; what is no such share is
/// ignored. IX's order for energy: first cores, all at the lowest frequency, then the frequency of all of them: a core more
/// at a low frequency costs less than a higher frequency, since power grows with the square of the voltage.
pub fn steps(kind: Kind, min: u32, max: u32, frequencies: &[f64]) -> Vec<Step> {
    let min = min.max(1);
    let max = max.max(min);
    let mut rising: Vec<f64> =
        frequencies.iter().copied().filter(|f| *f > 0.0 && *f < 1.0).collect();
    rising.sort_by(f64::total_cmp);
    rising.dedup();
    rising.push(1.0);
    let lowest = if kind == Kind::Efficient { rising[0] } else { 1.0 };
    let cores = (min..=max).map(|cores| Step { cores, frequency: lowest });
    let faster = rising.into_iter().filter(|f| *f > lowest);
    cores.chain(faster.map(|frequency| Step { cores: max, frequency })).collect()
}
