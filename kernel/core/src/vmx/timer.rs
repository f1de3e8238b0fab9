//! The local APIC's timer of a vCPU that was put away: what is left of it when it is back (SDM 12.5.4). The time in between
//! counts, as if its core had slept.

#[cfg(test)]
mod tests;

const PERIODIC: u32 = 1 << 17;

/// The registers as they were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    pub lvt: u32,
    pub initial: u32,
    pub current: u32,
    pub divide: u32,
    /// When that was.
    pub at_ns: u64,
}

/// What the divide configuration register divides the clock by.
#[must_use]
pub const fn divisor(register: u32) -> u64 {
    match register >> 1 & 4 | register & 3 {
        7 => 1,
        n => 2 << n,
    }
}

impl Timer {
    /// The initial count to go on with; 0: it is off. `khz`: the timer's clock, not divided. One that would have run out meanwhile
    /// runs out at once; of a periodic one the phase is lost.
    #[must_use]
    pub fn initial(&self, now_ns: u64, khz: u64) -> u32 {
        if self.lvt & PERIODIC != 0 {
            return self.initial;
        }
        // Over, and pending already if it was not masked; or it never ran.
        if self.current == 0 {
            return 0;
        }
        let passed_ns = u128::from(now_ns.saturating_sub(self.at_ns));
        let ticks = passed_ns * u128::from(khz) / 1_000_000 / u128::from(divisor(self.divide));
        u128::from(self.current).saturating_sub(ticks).max(1) as u32
    }
}
