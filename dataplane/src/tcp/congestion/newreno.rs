//! NewReno (RFC 5681, RFC 6582), with appropriate byte counting (RFC 3465).
use super::{Basis, CongestionControl};
use crate::time::Instant;

/// NewReno's state.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct NewReno {
    pub(super) basis: Basis,
    /// Bytes acknowledged towards the next segment, in congestion avoidance.
    credit: u32,
}

impl NewReno {
    /// Continues in congestion avoidance with `window` bytes.
    pub(super) fn reduce(&mut self, window: u32, mss: u32) {
        self.basis.reduce(window, mss);
        self.credit = 0;
    }
}

impl CongestionControl for NewReno {
    #[inline(always)]
    fn window(&self) -> u32 {
        self.basis.window
    }

    fn start(&mut self, mss: u32, _now: Instant) {
        self.basis.start(mss);
        self.credit = 0;
    }

    fn acked(&mut self, acked: u32, mss: u32, _rtt_us: u32, _now: Instant) {
        if self.basis.in_slow_start() {
            self.basis.slow_start(acked, mss);
        } else {
            self.basis.linear(&mut self.credit, acked, mss);
        }
    }

    fn lost(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.reduce(flight / 2, mss);
    }

    fn recovered(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.basis.recovered(flight, mss);
    }

    fn timed_out(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.basis.collapse(flight / 2, mss);
        self.credit = 0;
    }

    fn rested(&mut self, mss: u32) {
        self.basis.rested(mss);
        self.credit = 0;
    }

    fn undo(&mut self) {
        let _there_was_one = self.basis.undo();
    }
}

#[cfg(test)]
mod tests;
