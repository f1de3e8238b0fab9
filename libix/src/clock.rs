//! Time without system calls: the kernel's stamp of the batch, refined by the time-stamp counter.
#![allow(unsafe_code, reason = "rdtsc is an intrinsic")]

/// The time-stamp counter.
#[inline]
pub fn tsc() -> u64 {
    // SAFETY: every x86-64 has RDTSC, and the kernel leaves it to user mode (CR4.TSD clear).
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Ticks as nanoseconds; 0 while the frequency is unknown. Meant for spans of at most an hour.
pub const fn ticks_to_ns(ticks: u64, tsc_khz: u32) -> u64 {
    if tsc_khz == 0 { 0 } else { ticks.saturating_mul(1_000_000) / tsc_khz as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_ticks_is_a_second() {
        assert_eq!(ticks_to_ns(2_600_000_000, 2_600_000), 1_000_000_000);
        assert_eq!(ticks_to_ns(5, 0), 0);
    }
}
