//! DCTCP (RFC 8257): the window shrinks by as much as the network marks, measured over each window
//! of data. For networks whose queues mark early; losses are answered as NewReno does.
use super::CongestionControl;
use super::newreno::NewReno;
use crate::tcp::seq::WrappingSeq;
use crate::time::Instant;

/// The part that a new measurement has in the estimate, `g` (§3.3), as a shift.
const GAIN_SHIFT: u32 = 4;
/// The estimate that everything is marked. What a connection begins with (§3.3).
const ALL: u32 = 1 << 16;

/// DCTCP's state.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Dctcp {
    /// What it is but for marks.
    pub(super) reno: NewReno,
    /// `alpha`, the part of the bytes that is marked, in 2^-16.
    alpha: u32,
    /// Bytes acknowledged in this window of data.
    acked: u32,
    /// Those of them that were marked.
    marked: u32,
    /// Where this window of data ends; valid if bytes were acknowledged.
    window_end: WrappingSeq,
}

impl Default for Dctcp {
    fn default() -> Dctcp {
        Dctcp {
            reno: NewReno::default(),
            alpha: ALL,
            acked: 0,
            marked: 0,
            window_end: WrappingSeq(0),
        }
    }
}

impl Dctcp {
    /// The measured part of marked bytes, in 2^-16.
    pub fn alpha(&self) -> u32 {
        self.alpha
    }
}

impl CongestionControl for Dctcp {
    #[inline(always)]
    fn window(&self) -> u32 {
        self.reno.window()
    }

    fn start(&mut self, mss: u32, now: Instant) {
        *self = Dctcp::default();
        self.reno.start(mss, now);
    }

    fn acked(&mut self, acked: u32, mss: u32, rtt_us: u32, now: Instant) {
        self.reno.acked(acked, mss, rtt_us, now);
    }

    fn lost(&mut self, flight: u32, mss: u32, now: Instant) {
        self.reno.lost(flight, mss, now);
    }

    fn recovered(&mut self, flight: u32, mss: u32, now: Instant) {
        self.reno.recovered(flight, mss, now);
    }

    fn timed_out(&mut self, flight: u32, mss: u32, now: Instant) {
        self.reno.timed_out(flight, mss, now);
    }

    /// §3.3: `cwnd * (1 - alpha / 2)`.
    fn marked(&mut self, _flight: u32, mss: u32, _now: Instant) {
        let window = self.reno.window();
        let cut = u64::from(window) * u64::from(self.alpha) / u64::from(2 * ALL);
        self.reno.reduce(window - cut as u32, mss);
    }

    fn rested(&mut self, mss: u32) {
        self.reno.rested(mss);
    }

    fn undo(&mut self) {
        self.reno.undo();
    }

    fn echoed(&mut self, acked: u32, marked: bool, una: WrappingSeq, nxt: WrappingSeq) {
        if self.acked == 0 {
            self.window_end = nxt;
        }
        self.acked = self.acked.saturating_add(acked);
        if marked {
            self.marked = self.marked.saturating_add(acked);
        }
        if self.acked == 0 || una.before(self.window_end) {
            return;
        }
        let part = (u64::from(self.marked) << 16) / u64::from(self.acked);
        let keep = self.alpha - (self.alpha >> GAIN_SHIFT);
        // What is below the gain's resolution goes, or alpha would never come to 0.
        let keep = if self.alpha < 1 << GAIN_SHIFT { 0 } else { keep };
        self.alpha = (keep + (part as u32 >> GAIN_SHIFT)).min(ALL);
        self.acked = 0;
        self.marked = 0;
    }
}

#[cfg(test)]
mod tests;
