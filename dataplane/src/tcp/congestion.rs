//! Congestion control: how much may be in flight. One trait; NewReno (RFC 5681, RFC 6582) for now.
//!
//! What to retransmit, and when recovery begins and ends, is the connection's business
//! (`tcp::recovery`); an algorithm only keeps the window.
use crate::limits::INITIAL_WINDOW_SEGMENTS;
use crate::time::Instant;

/// An algorithm. All sizes are bytes.
pub trait CongestionControl {
    /// The window as the algorithm wants it.
    fn window(&self) -> u32;
    /// A connection was established with this segment size.
    fn start(&mut self, mss: u32, now: Instant);
    /// `acked` new bytes were acknowledged, outside of recovery, while the window was in full use
    /// (else it must not grow: RFC 9293 gives no credit for an idle window, RFC 7661).
    fn acked(&mut self, acked: u32, mss: u32, now: Instant);
    /// A segment was lost and duplicate acknowledgements told: recovery begins.
    fn lost(&mut self, flight: u32, mss: u32, now: Instant);
    /// Recovery has ended with `flight` bytes still out.
    fn recovered(&mut self, flight: u32, mss: u32, now: Instant);
    /// The retransmission timer fired.
    fn timed_out(&mut self, flight: u32, mss: u32, now: Instant);
}

/// NewReno's state.
#[derive(Clone, Copy, Debug, Default)]
pub struct NewReno {
    window: u32,
    threshold: u32,
    /// Bytes acknowledged towards the next segment, in congestion avoidance (RFC 3465).
    credit: u32,
}

impl CongestionControl for NewReno {
    #[inline(always)]
    fn window(&self) -> u32 {
        self.window
    }

    fn start(&mut self, mss: u32, _now: Instant) {
        // RFC 6928 §2: ten segments, at most 14,600 bytes unless two segments are more.
        let most = (INITIAL_WINDOW_SEGMENTS * 1460).max(2 * mss);
        self.window = (INITIAL_WINDOW_SEGMENTS * mss).min(most);
        self.threshold = u32::MAX;
        self.credit = 0;
    }

    fn acked(&mut self, acked: u32, mss: u32, _now: Instant) {
        if self.window < self.threshold {
            self.window = self.window.saturating_add(acked.min(2 * mss));
            return;
        }
        self.credit = self.credit.saturating_add(acked);
        if self.credit >= self.window {
            self.credit -= self.window;
            self.window = self.window.saturating_add(mss);
        }
    }

    fn lost(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.threshold = (flight / 2).max(2 * mss);
        self.window = self.threshold;
        self.credit = 0;
    }

    fn recovered(&mut self, flight: u32, mss: u32, _now: Instant) {
        // RFC 6582 §3.2 step 3 (1): no burst of what was held back.
        self.window = self.threshold.min(flight.max(mss) + mss);
    }

    fn timed_out(&mut self, flight: u32, mss: u32, _now: Instant) {
        self.threshold = (flight / 2).max(2 * mss);
        self.window = mss;
        self.credit = 0;
    }
}

#[cfg(test)]
mod tests;
