//! Congestion control: how much may be in flight. One trait, three algorithms: [`newreno`],
//! [`cubic`] (the default) and [`dctcp`].
//!
//! What to retransmit, and when recovery begins and ends, is the connection's business; an
//! algorithm only keeps the window. All sizes are bytes; all arithmetic is in integers.
pub mod cubic;
pub mod dctcp;
pub mod newreno;

use crate::conn::Conn;
use crate::limits::{INITIAL_WINDOW_SEGMENTS, SLOW_START_SEGMENTS};
use crate::tcp::ecn::Ecn;
use crate::tcp::seq::WrappingSeq;
use crate::time::Instant;
pub use cubic::Cubic;
pub use dctcp::Dctcp;
pub use newreno::NewReno;

/// What an algorithm answers to. The reductions are mutually exclusive per window of data: the
/// caller sees to that.
pub trait CongestionControl {
    /// The window as the algorithm wants it.
    fn window(&self) -> u32;
    /// A connection was established with this segment size.
    fn start(&mut self, mss: u32, now: Instant);
    /// `acked` new bytes were acknowledged, outside of recovery, while the window was in full use
    /// (else it must not grow: a window that is not used proves nothing, RFC 7661). `rtt_us` is
    /// the smoothed round-trip time, 0 if it is not known.
    fn acked(&mut self, acked: u32, mss: u32, rtt_us: u32, now: Instant);
    /// A segment was lost and acknowledgements told: recovery begins.
    fn lost(&mut self, flight: u32, mss: u32, now: Instant);
    /// Recovery has ended with `flight` bytes still out.
    fn recovered(&mut self, flight: u32, mss: u32, now: Instant);
    /// The retransmission timer fired.
    fn timed_out(&mut self, flight: u32, mss: u32, now: Instant);
    /// The peer says that the network has marked what was sent; once for a window of data
    /// (RFC 3168 §6.1.2). As a loss, unless the algorithm knows better.
    fn marked(&mut self, flight: u32, mss: u32, now: Instant) {
        self.lost(flight, mss, now);
    }
    /// Nothing was sent for longer than the retransmission timeout: sending begins with the initial window, and
    /// slow start leads back to the threshold (RFC 5681 §4.1).
    fn rested(&mut self, mss: u32);
    /// The last reduction was for nothing: what was taken for lost was late (RFC 4015, RFC 9438
    /// §4.9). Nothing happens if there is none to take back.
    fn undo(&mut self);
    /// How much of what is acknowledged was marked: `acked` bytes up to `una`, all or nothing of
    /// them; `nxt` is what comes next. Told of every acknowledgement where the peer echoes marks
    /// exactly (RFC 8257 §3.3).
    fn echoed(&mut self, acked: u32, marked: bool, una: WrappingSeq, nxt: WrappingSeq) {
        let _ = (acked, marked, una, nxt);
    }
}

/// The algorithms by number, as configuration and applications name them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Algorithm {
    /// RFC 9438.
    #[default]
    Cubic = 0,
    /// RFC 5681 and RFC 6582.
    NewReno = 1,
    /// RFC 8257: for networks that mark early, and for nothing else.
    Dctcp = 2,
}

impl Algorithm {
    /// The algorithm with this number.
    pub const fn from_number(number: u64) -> Option<Algorithm> {
        match number {
            0 => Some(Algorithm::Cubic),
            1 => Some(Algorithm::NewReno),
            2 => Some(Algorithm::Dctcp),
            _ => None,
        }
    }
}

/// A connection's algorithm and its state.
#[derive(Clone, Copy, Debug)]
pub enum Congestion {
    /// See [`Cubic`].
    Cubic(Cubic),
    /// See [`NewReno`].
    NewReno(NewReno),
    /// See [`Dctcp`].
    Dctcp(Dctcp),
}

const _: () = assert!(size_of::<Congestion>() == 44);

impl Default for Congestion {
    fn default() -> Congestion {
        Congestion::new(Algorithm::default())
    }
}

/// Runs the expression with the variant's state.
macro_rules! each {
    ($self:expr, $state:ident => $body:expr) => {
        match $self {
            Congestion::Cubic($state) => $body,
            Congestion::NewReno($state) => $body,
            Congestion::Dctcp($state) => $body,
        }
    };
}

impl Congestion {
    /// An algorithm, to be started.
    pub fn new(algorithm: Algorithm) -> Congestion {
        match algorithm {
            Algorithm::Cubic => Congestion::Cubic(Cubic::default()),
            Algorithm::NewReno => Congestion::NewReno(NewReno::default()),
            Algorithm::Dctcp => Congestion::Dctcp(Dctcp::default()),
        }
    }

    /// Which algorithm it is.
    pub const fn algorithm(&self) -> Algorithm {
        match self {
            Congestion::Cubic(_) => Algorithm::Cubic,
            Congestion::NewReno(_) => Algorithm::NewReno,
            Congestion::Dctcp(_) => Algorithm::Dctcp,
        }
    }

    /// Goes on with another algorithm, from the same window and threshold.
    pub fn change(&mut self, algorithm: Algorithm) {
        if self.algorithm() == algorithm {
            return;
        }
        let basis = *self.basis();
        *self = Congestion::new(algorithm);
        *self.basis() = basis;
    }

    fn basis(&mut self) -> &mut Basis {
        match self {
            Congestion::Cubic(cubic) => &mut cubic.basis,
            Congestion::NewReno(reno) => &mut reno.basis,
            Congestion::Dctcp(dctcp) => &mut dctcp.reno.basis,
        }
    }
}

// What is out beyond the window counts for no reduction: limited transmit sent it (RFC 5681 §3.2), or it is
// what the recovery before has left behind, lost or told of, whose sum may be many windows. A fraction of that
// would be no reduction at all.
impl CongestionControl for Congestion {
    #[inline(always)]
    fn window(&self) -> u32 {
        // At the same place in all of them, so that this is one load.
        each!(self, state => state.window())
    }

    #[inline(always)]
    fn start(&mut self, mss: u32, now: Instant) {
        each!(self, state => state.start(mss, now));
    }

    #[inline(never)]
    fn acked(&mut self, acked: u32, mss: u32, rtt_us: u32, now: Instant) {
        each!(self, state => state.acked(acked, mss, rtt_us, now));
    }

    #[cold]
    fn lost(&mut self, flight: u32, mss: u32, now: Instant) {
        let flight = flight.min(self.window());
        each!(self, state => state.lost(flight, mss, now));
    }

    #[cold]
    fn recovered(&mut self, flight: u32, mss: u32, now: Instant) {
        each!(self, state => state.recovered(flight, mss, now));
    }

    #[cold]
    fn timed_out(&mut self, flight: u32, mss: u32, now: Instant) {
        let flight = flight.min(self.window());
        each!(self, state => state.timed_out(flight, mss, now));
    }

    #[cold]
    fn marked(&mut self, flight: u32, mss: u32, now: Instant) {
        let flight = flight.min(self.window());
        each!(self, state => state.marked(flight, mss, now));
    }

    #[cold]
    fn rested(&mut self, mss: u32) {
        each!(self, state => state.rested(mss));
    }

    #[cold]
    fn undo(&mut self) {
        each!(self, state => state.undo());
    }

    fn echoed(&mut self, acked: u32, marked: bool, una: WrappingSeq, nxt: WrappingSeq) {
        each!(self, state => state.echoed(acked, marked, una, nxt));
    }
}

/// Whether a window of which `flight` bytes were out is in full use: one that is not does not grow (RFC 7661).
#[inline(always)]
pub fn is_in_use(conn: &Conn, flight: u32) -> bool {
    flight + u32::from(conn.mss) > conn.cc.window()
}

/// `acked` new bytes of `flight` were acknowledged, outside of recovery: the window grows if it was
/// in full use.
#[inline]
pub fn grow(conn: &mut Conn, acked: u32, flight: u32, now: Instant) {
    let mss = u32::from(conn.mss);
    if conn.ecn.contains(Ecn::ECHOED) {
        conn.ecn -= Ecn::ECHOED;
    } else if is_in_use(conn, flight) {
        let rtt_us = conn.rtt.smoothed_us();
        conn.cc.acked(acked, mss, rtt_us, now);
    }
}

/// RFC 6928 §2: ten segments, at most 14,600 bytes unless two segments are more.
#[inline]
pub fn initial_window(mss: u32) -> u32 {
    let most = (INITIAL_WINDOW_SEGMENTS * 1460).max(2 * mss);
    (INITIAL_WINDOW_SEGMENTS * mss).min(most)
}

/// What a loss is to halve of `flight`: not what limited transmit has sent beyond the window (RFC 5681 §3.2
/// step 2).
pub fn within_window(conn: &Conn, flight: u32) -> u32 {
    flight.min(conn.cc.window())
}

/// What the algorithms have in common: the window, the threshold between slow start and congestion
/// avoidance, and what both were before the last reduction.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Basis {
    window: u32,
    threshold: u32,
    /// The window before the last reduction; 0: there is none to take back.
    prior: u32,
    /// The last reduction ended a slow start.
    from_slow_start: bool,
    /// The last reduction was a timeout's.
    after_timeout: bool,
}

impl Basis {
    fn start(&mut self, mss: u32) {
        let window = initial_window(mss);
        *self = Basis { window, threshold: u32::MAX, ..Basis::default() };
    }

    fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// Slow start by appropriate byte counting (RFC 3465): one acknowledgement counts for at most
    /// [`SLOW_START_SEGMENTS`], after a timeout for one, since it may tell of what arrived before.
    fn slow_start(&mut self, acked: u32, mss: u32) {
        let limit = if self.after_timeout { mss } else { SLOW_START_SEGMENTS * mss };
        let window = self.window.saturating_add(acked.min(limit));
        self.window = window.min(self.threshold);
    }

    /// Congestion avoidance of RFC 5681 §3.1: a segment for each window's worth of `credit`.
    fn linear(&mut self, credit: &mut u32, acked: u32, mss: u32) {
        *credit = credit.saturating_add(acked);
        if *credit >= self.window {
            *credit -= self.window;
            self.window = self.window.saturating_add(mss);
        }
    }

    /// Remembers the window, for [`Basis::undo`].
    fn remember(&mut self) {
        self.prior = self.window;
        self.from_slow_start = self.in_slow_start();
    }

    /// A new threshold, which is the window too.
    fn reduce(&mut self, to: u32, mss: u32) {
        self.remember();
        self.threshold = to.max(2 * mss);
        self.window = self.threshold;
        self.after_timeout = false;
    }

    /// A new threshold, far below which it begins again (RFC 5681 §3.1).
    fn collapse(&mut self, threshold: u32, mss: u32) {
        self.remember();
        self.threshold = threshold.max(2 * mss);
        self.window = mss;
        self.after_timeout = true;
    }

    /// RFC 6582 §3.2 step 3 (1): no burst of what was held back.
    fn recovered(&mut self, flight: u32, mss: u32) {
        self.window = self.threshold.min(flight.max(mss).saturating_add(mss));
    }

    /// See [`CongestionControl::rested`].
    fn rested(&mut self, mss: u32) {
        self.window = self.window.min(initial_window(mss));
        self.after_timeout = false;
    }

    /// Takes the last reduction back; `false`: there is none.
    fn undo(&mut self) -> bool {
        let prior = core::mem::take(&mut self.prior);
        if prior == 0 {
            return false;
        }
        self.window = self.window.max(prior);
        self.threshold =
            if self.from_slow_start { u32::MAX } else { self.threshold.max(self.window) };
        self.after_timeout = false;
        true
    }
}

#[cfg(test)]
mod tests;
