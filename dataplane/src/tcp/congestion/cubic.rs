//! CUBIC (RFC 9438): after a reduction the window follows `C(t - K)^3 + W_max` of real time, so
//! that it comes back to where it was fast, stays there long, and then looks for more; where that is
//! less than Reno would have, it follows Reno.
//!
//! Time is counted in ticks of 2^20 ns, so that it costs a shift. `K` is not kept: the curve is a
//! function of the time since its flat point, which is one tick number.
use super::{Basis, CongestionControl};
use crate::time::Instant;

/// `C`, 0.4 segments per cubed second, in 2^-46 segments per cubed tick.
const C: u64 = 32_452;
/// 2^30 / C: cubed ticks per 2^-16 segments.
const C_INVERSE: u64 = 33_087;
/// Farthest from its flat point that the curve is looked at, in ticks: nine minutes.
const FARTHEST: i32 = 1 << 19;

/// CUBIC's state.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cubic {
    pub(super) basis: Basis,
    /// `W_max`: where the curve is flat. Before an epoch, where the last one ended; 0 after a timeout.
    w_max: u32,
    /// The tick of the flat point: the epoch's first and `K`.
    flat_at: u32,
    /// The tick of the last growth.
    grew_at: u32,
    /// `W_est`: what Reno would have; 0: no epoch has begun.
    estimate: u32,
    /// Bytes acknowledged towards its next segment.
    credit: u32,
    /// What the window's last growth lacks to a whole byte, in parts of the window.
    fraction: u32,
}

fn tick(now: Instant) -> u32 {
    (now.0 >> 20) as u32
}

impl Cubic {
    /// Congestion avoidance begins (§4.2).
    #[cold]
    fn begin(&mut self, mss: u32, tick: u32) {
        let window = self.basis.window;
        let climb = u64::from(self.w_max.saturating_sub(window));
        if climb == 0 {
            // After a timeout (§4.8), or a slow start that met no loss.
            self.w_max = window;
        }
        let k = cube_root((climb << 16) / u64::from(mss) * C_INVERSE);
        self.flat_at = tick.wrapping_add(k);
        self.grew_at = tick;
        self.estimate = window;
        self.credit = 0;
        self.fraction = 0;
    }

    /// `W_cubic` at a tick.
    fn curve(&self, tick: u32, mss: u32) -> u32 {
        let from_flat = (tick.wrapping_sub(self.flat_at) as i32).clamp(-FARTHEST, FARTHEST);
        let distance = u64::from(from_flat.unsigned_abs());
        // 57 bits at most; less 10, plus 15, less 16 of C, plus 16 of the segment size.
        let parts = (((distance * distance * distance) >> 10) * C) >> 16;
        let bytes = ((parts * u64::from(mss)) >> 20).min(u64::from(u32::MAX)) as u32;
        if from_flat < 0 {
            self.w_max.saturating_sub(bytes)
        } else {
            self.w_max.saturating_add(bytes)
        }
    }

    /// Brings the estimate of Reno's window up to date (§4.3): a segment for each `1/alpha` windows,
    /// with alpha = 3(1 - beta)/(1 + beta) = 9/17 until the old window is reached, then 1.
    fn reno(&mut self, acked: u32, mss: u32) {
        let window = self.basis.window;
        let catching_up = self.estimate < self.basis.prior;
        let price = if catching_up { (u64::from(window) * 17 / 9) as u32 } else { window };
        self.credit = self.credit.saturating_add(acked);
        if self.credit >= price {
            self.credit -= price;
            self.estimate = self.estimate.saturating_add(mss);
        }
    }

    /// §4.6 and §4.7: 0.7 of what was in flight; and who has less than last time gives up some of
    /// it for newcomers.
    fn leave_epoch(&mut self, flight: u32) -> u32 {
        let window = self.basis.window;
        let less = window < self.w_max;
        self.w_max = if less { (u64::from(window) * 17 / 20) as u32 } else { window };
        self.estimate = 0;
        (u64::from(flight) * 7 / 10) as u32
    }
}

impl CongestionControl for Cubic {
    #[inline(always)]
    fn window(&self) -> u32 {
        self.basis.window
    }

    fn start(&mut self, mss: u32, _now: Instant) {
        *self = Cubic::default();
        self.basis.start(mss);
    }

    fn acked(&mut self, acked: u32, mss: u32, rtt_us: u32, now: Instant) {
        if self.basis.in_slow_start() {
            return self.basis.slow_start(acked, mss);
        }
        let tick = tick(now);
        let rtt = rtt_us >> 10;
        if self.estimate == 0 {
            self.begin(mss, tick);
        }
        // Time in which the window was not in use does not count (§5.8): with one that is, something
        // is acknowledged in every round trip.
        let idle = tick.wrapping_sub(self.grew_at).saturating_sub(2 * rtt + 2);
        self.flat_at = self.flat_at.wrapping_add(idle);
        self.grew_at = tick;
        self.reno(acked, mss);
        let window = self.basis.window;
        if self.curve(tick, mss) < self.estimate {
            self.basis.window = window.max(self.estimate);
            return;
        }
        // §4.4, §4.5: so that the curve is reached in a round trip, but at most half as much again.
        let most = window.saturating_add(window / 2);
        let target = self.curve(tick.wrapping_add(rtt), mss).clamp(window, most);
        let growth = u64::from(target - window) * u64::from(acked) + u64::from(self.fraction);
        let window = u64::from(window.max(1));
        self.fraction = (growth % window) as u32;
        self.basis.window = (window + growth / window).min(u64::from(u32::MAX)) as u32;
    }

    fn lost(&mut self, flight: u32, mss: u32, _now: Instant) {
        let to = self.leave_epoch(flight);
        self.basis.reduce(to, mss);
    }

    fn recovered(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.basis.recovered(flight, mss);
    }

    fn timed_out(&mut self, flight: u32, mss: u32, _now: Instant) {
        let to = self.leave_epoch(flight);
        self.basis.collapse(to, mss);
        self.w_max = 0;
    }

    fn rested(&mut self, mss: u32) {
        self.basis.rested(mss);
        // The old curve was for a window that was in use.
        self.estimate = 0;
    }

    fn undo(&mut self) {
        if self.basis.undo() {
            // The old curve is not known any more: a new one begins flat, where the window is.
            self.w_max = self.basis.window;
            self.estimate = 0;
        }
    }
}

/// The integer part of the cube root, a bit at a time from the top: 21 rounds, no division.
fn cube_root(of: u64) -> u32 {
    let mut rest = of;
    let mut root: u64 = 0;
    let mut shift = 63;
    while shift >= 0 {
        root *= 2;
        // (root + 1)^3 - root^3
        let step = 3 * root * (root + 1) + 1;
        if rest >> shift >= step {
            rest -= step << shift;
            root += 1;
        }
        shift -= 3;
    }
    root as u32
}

#[cfg(test)]
mod tests;
