//! What a kernel is told: within what it asks for cores, and which it may wake by itself.
use crate::policy::{Config, Kind};
use ix_abi::demand::{LIMIT_NS_MAX, Limits};
use ix_abi::limits::CORES_MAX;
use std::time::Duration;

/// How long a grant holds: it does not outlive its daemon by more.
pub const LEASE: Duration = Duration::from_secs(3);
/// How often it is renewed.
pub const RENEW: Duration = Duration::from_secs(1);

/// The limits of a policy: `authorised` cores may serve before the daemon is asked, those of `active` do.
pub fn limits(config: &Config, cores: usize, active: u64, authorised: u32) -> Limits {
    if config.policy == Kind::Static {
        return Limits::DEFAULT;
    }
    let rules = config.rules();
    let ns = |us: f64| ((us * 1e3) as u64).clamp(1, LIMIT_NS_MAX);
    let ms = |ms: u64| ms.saturating_mul(1_000_000).min(LIMIT_NS_MAX);
    let permille = |share: f64| (share * 1e3).clamp(0.0, 1e3) as u16;
    let most = match config.cores.max {
        0 => cores as u32,
        max => max.min(cores as u32),
    };
    let most = most.clamp(1, CORES_MAX as u32) as u16;
    let high = permille(rules.up_busy).max(2);
    let grant = grant(cores, active, authorised);
    Limits {
        cores_min: (config.cores.min.clamp(1, u32::from(most))) as u16,
        cores_max: most,
        grant,
        wake_delay_ns: ns(rules.wake_delay_us),
        wake_after_ns: ns(rules.wake_after_us),
        lease_ns: if grant == 0 { 0 } else { LEASE.as_nanos() as u64 },
        delay_target_ns: ns(rules.up_delay_us),
        depth_target: rules.up_queue.ceil().max(1.0) as u64,
        busy_high_permille: high,
        busy_low_permille: permille(rules.down_busy).clamp(1, high - 1),
        up_hold_ns: ms(rules.up_after_up_ms),
        down_hold_ns: ms(rules.smooth_ms),
    }
}

/// The parked cores of the lowest numbers, as many as may be woken.
fn grant(cores: usize, active: u64, authorised: u32) -> u64 {
    let more = authorised.saturating_sub(active.count_ones()) as usize;
    let parked = (0..cores.min(CORES_MAX)).filter(|core| active & 1 << core == 0);
    parked.take(more).fold(0, |grant, core| grant | 1 << core)
}
