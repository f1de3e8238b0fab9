//! A connection in its short form. Header prediction ([`crate::fast`]) finds nearly every connection in one of four
//! states: the application holds one received buffer or none, and one segment is out or none. There most of what a
//! connection knows follows from the rest, and is not kept up while it is folded.
//!
//! Folded is a connection that is established over IPv4 with both timestamps and scaled windows, or neither, of which
//! nothing is missing, queued, or in a list, and nothing of the following is stored:
//!
//! | what | is |
//! |---|---|
//! | `snd_nxt`, `snd_max` | `snd_end` |
//! | send queue | from `snd_una` to `snd_end`, all of it sent: part of a receive buffer, which [`Conn::kept_source`] names, or `own_segment`; empty if that is nothing |
//! | `first` | that segment, sent at `trying_since`, once |
//! | `rtt`'s timeout | what its measurements come to |
//! | `rto_at`, `trying_since` | a timeout after that, and that, while it is out |
//! | `released`, `timed` | `snd_una` |
//! | `wl1`, `wl2` | the last segment's |
//! | receive queue | the buffer of [`Conn::kept_place`], all of which the application holds, if it holds anything; that none follows is not noted there |
//! | `ack_owed` | `rx_held` |
//! | `ack_at` | while something is held, a delayed acknowledgement's time after `trying_since`: when that came. (So nothing is out then.) |
//! | `retries` | 0; folded: whether [`crate::owing`] counts it |
//! | `ts_recent_at` | `trying_since`: about then, and not in the future |
//!
//! So that a message needs two cache lines, the places of three of these keep other things: `ack_at` where the request is that is
//! held, or the answer that is out, `ack_owed` the congestion window, `rtt`'s timeout what the sum of a header is made of, as long as our address and the
//! neighbour's are what they were. No answer of a folded connection uses that in full, and so it does not grow; one
//! that would is sent by who is complete.
//!
//! Only [`crate::fast`] works on one. Everything else goes through [`super::Conns::whole`] first.
use super::{Conn, Flags};
use crate::flow_table::NIL;
use crate::mbuf::{Area, Mbuf, Meta, NO_MBUF, Place};
use crate::tcp::congestion::{self, CongestionControl};
use crate::tcp::send_queue::{OWN, Source};
use crate::tcp::sent::{self, Marks};
use crate::tcp::timestamps;
use crate::time::{Duration, Instant};

/// In [`Conn::acl`]: it is folded. So one comparison tells that, and that the rules are those that it was judged by.
pub const FOLDED: u32 = 1 << 31;
/// The same of one that has neither timestamps nor scaled windows, beside [`FOLDED`]: so that comparison fails, and who asks
/// further finds out.
pub const PLAIN: u32 = 1 << 30;
/// The same of one that waits for a request and has nothing out.
pub const RESTING: u32 = 1 << 29;
/// Bits of [`Conn::acl`] that say in what form a connection is; the others are the number of the rules.
pub const FORM: u32 = FOLDED | PLAIN | RESTING;

/// What is the same for all connections, and asked when one is folded no more.
#[derive(Clone, Copy, Debug)]
pub struct Unfolding {
    /// Where the receive buffers are.
    pub area: &'static Area,
    /// Longest that an acknowledgement waits.
    pub delayed_ack: Duration,
    /// Shortest retransmission timeout.
    pub rto_min_us: u32,
}

impl Conn {
    /// Whether it is folded.
    #[inline(always)]
    pub fn is_folded(&self) -> bool {
        self.acl & FOLDED != 0
    }

    /// [`Conn::form`] of one that is folded under such rules, and holds nothing.
    pub const fn form_at_rest(generation: u32) -> u64 {
        (generation ^ FOLDED) as u64
    }

    /// Whether all it has to do is to wait for the answer to what it has sent just now, which was predicted. `generation`
    /// is that of the rules, `rto_min_us` the least retransmission timeout.
    #[inline(always)]
    pub fn may_fold(&self, generation: u32, rto_min_us: u32) -> bool {
        const BOTH: Flags = Flags::TIMESTAMPS.union(Flags::SCALED);
        const LISTED: Flags = Flags::IN_OUTPUT.union(Flags::IN_EVENTS).union(Flags::IN_HOLD);
        // Not yet with the first answer, which may be the only one.
        let flags = self.flags & BOTH.union(LISTED);
        self.snd_una != self.iss.plus(1)
            && (flags == BOTH || flags.is_empty())
            && self.rx_buffers == 0
            && self.acl == generation
            && self.retries == 0
            && self.sent_bytes == 0
            && self.seg_count == 1
            && self.seg_head == OWN
            && self.rtt.is_settled(rto_min_us)
            // And so it stays, see `fast::folded::expects`.
            && (flags.is_empty() || self.rcv_edge.since(self.rcv_nxt) >= 2 * u32::from(self.mss))
            && !congestion::is_in_use(self, self.snd_end.since(self.snd_una))
    }

    /// Folds it, which may be; `sums` are those that `fast::emit` makes of its packets' headers.
    #[inline(always)]
    pub fn fold(&mut self, area: &Area, sums: u32) {
        let plain = !self.flags.contains(Flags::TIMESTAMPS);
        self.acl |= if plain { FOLDED | PLAIN } else { FOLDED };
        self.keep_place(match self.own_segment.source().as_sole() {
            Some(_) => area.place(&self.own_segment.extent()),
            None => Place::NOWHERE,
        });
        self.ack_owed = self.cc.window();
        self.rtt.keep(sums);
    }

    /// The congestion window of one that is folded.
    #[inline(always)]
    pub fn kept_window(&self) -> u32 {
        self.ack_owed
    }

    /// Of one that is folded, where the request begins that the application holds; else where the answer is that is out: in a
    /// receive buffer which is its alone, or nowhere, and then where `own_segment` says.
    #[inline(always)]
    pub fn kept_place(&self) -> Place {
        Place(self.ack_at.0)
    }

    /// Whose memory the answer is.
    pub fn kept_source(&self) -> Source {
        match self.kept_place() {
            Place::NOWHERE => self.own_segment.source(),
            place => Source::sole(Mbuf::from_raw(place.index())),
        }
    }

    /// Keeps that place.
    #[inline(always)]
    pub fn keep_place(&mut self, place: Place) {
        self.ack_at = Instant(place.0);
    }

    /// Folds it no more.
    #[inline(always)]
    pub fn settle(&mut self, how: &Unfolding) {
        if self.is_folded() {
            self.unfold(how);
        }
    }

    /// When it has to do something by itself, if nothing comes before: acknowledge what it holds, or send again.
    #[inline]
    pub fn folded_deadline(&self, how: &Unfolding) -> Instant {
        debug_assert!(self.is_folded());
        let held = self.rx_held > 0;
        let after = if held { how.delayed_ack } else { self.rtt.settled(how.rto_min_us) };
        self.trying_since + after
    }

    /// Whether frames that are out, or may go out again, refer to memory.
    pub fn refers_to_memory(&self) -> bool {
        if self.is_folded() { self.snd_una != self.snd_end } else { self.seg_count > 0 }
    }

    /// Makes good what was not kept up.
    #[cold]
    #[inline(never)]
    fn unfold(&mut self, how: &Unfolding) {
        self.acl &= !FORM;
        self.retries = 0;
        self.snd_nxt = self.snd_end;
        self.snd_max = self.snd_end;
        self.released = self.snd_una;
        self.timed = self.snd_una;
        self.wl1 = self.rcv_nxt.minus(self.rx_held);
        self.wl2 = self.snd_una;
        self.rtt.settle(how.rto_min_us);
        self.unfold_sent(how.area);
        self.unfold_received(how.area, how.delayed_ack);
        if self.snd_una == self.snd_end {
            self.trying_since = Instant::NEVER;
        }
    }

    fn unfold_sent(&mut self, area: &Area) {
        let is_out = self.snd_una != self.snd_end;
        if is_out {
            self.unfold_answer(area);
        }
        self.first.end = self.snd_end;
        self.first.at = sent::clock(self.trying_since);
        self.ts_recent_at = timestamps::age_clock(self.trying_since);
        self.first.marks = Marks::empty();
        let place = if is_out { OWN } else { NIL };
        (self.seg_head, self.seg_tail, self.seg_next) = (place, place, NIL);
        self.seg_count = u16::from(is_out);
        if is_out {
            self.own_segment.begins(self.snd_una);
            self.rto_at = Instant(self.trying_since.0 + self.rtt.timeout().0);
        } else {
            self.rto_at = Instant::NEVER;
        }
    }

    /// Says in the segment where the answer is.
    fn unfold_answer(&mut self, area: &Area) {
        let place = self.kept_place();
        if place == Place::NOWHERE {
            return;
        }
        let mbuf = Mbuf::from_raw(place.index());
        let len = self.snd_end.since(self.snd_una);
        let extent = area.extent(&mbuf, place.offset(), len);
        self.own_segment.refer(extent, Source::sole(mbuf));
    }

    fn unfold_received(&mut self, area: &Area, delayed_ack: Duration) {
        self.ack_owed = self.rx_held;
        let held = self.rx_held > 0;
        self.rx_buffers = u16::from(held);
        let place = self.kept_place();
        self.ack_at = if held { self.trying_since + delayed_ack } else { Instant::NEVER };
        if held {
            let mut mbuf = place.mbuf();
            let word = self.rcv_nxt.minus(self.rx_held).0;
            let received = area.meta(&mbuf);
            area.set_meta(&mut mbuf, Meta { next: NO_MBUF, word, ..received });
            self.rx_head = mbuf.into_raw();
        } else {
            self.rx_head = NO_MBUF;
        }
        self.rx_tail = self.rx_head;
    }
}
