//! Loss detection by time: RACK-TLP (RFC 8985). A segment is lost if one that was sent later has
//! arrived and it has had time enough to be overtaken; if nothing arrives at all, a probe asks.
use crate::conn::{Conn, Flags};
use crate::flow_table::NIL;
use crate::limits::{MAX_ACK_DELAY, PROBE_TIMEOUT_INITIAL, REORDER_PERSIST};
use crate::local::Local;
use crate::tcp::recovery::{Recovery, Stage};
use crate::tcp::sent::{self, Marks, Record, Records};
use crate::tcp::seq::WrappingSeq;
use crate::time::{Duration, Instant};

/// What the connection's timer `rto_at` stands for, if not for persist or the end of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Timer {
    /// Retransmission (RFC 6298).
    #[default]
    Retransmit,
    /// The loss probe (RFC 8985 §7).
    Probe,
    /// The end of a reordering window (RFC 8985 §6.2).
    Reorder,
}

/// How long a segment may be late (RFC 8985 §6.2 step 4); kept for the life of the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reordering {
    /// Quarters of the least round-trip time, less one.
    multiplier: u8,
    /// Recoveries until that is forgotten.
    persist: u8,
    /// Segments were seen out of order.
    seen: bool,
}

/// The newest segment that has arrived, by the time it was sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Newest {
    at: u32,
    end: WrappingSeq,
    rtt: Duration,
    known: bool,
}

impl Newest {
    /// Whether the segment was sent after `record`.
    fn is_after(&self, record: &Record) -> bool {
        let later = self.at.wrapping_sub(record.at) as i32;
        self.known && (later > 0 || later == 0 && self.end.after(record.end))
    }
}

/// A record has arrived for the first time (§6.2 steps 2 and 3). `high` is the end of the highest one
/// that had arrived before, `echo` how long ago by its timestamp what the peer answers was sent.
pub fn arrived(
    conn: &mut Conn,
    newest: &mut Newest,
    record: &Record,
    high: WrappingSeq,
    now: u32,
    echo: Option<Duration>,
) {
    let rtt = sent::since(now, record.at);
    if record.marks.contains(Marks::AGAIN) {
        // Perhaps the first transmission has arrived, and this one says nothing about time.
        let before = echo.is_some_and(|age| age > rtt + Duration::from_ms(1));
        if before || rtt < conn.rtt.least() {
            return;
        }
    } else if record.end.before(high) {
        conn.reordering.seen = true;
    }
    if !newest.is_after(record) {
        *newest = Newest { at: record.at, end: record.end, rtt, known: true };
    }
}

/// The peer has received something twice: the window was too short (§6.2 step 4). Once per round trip.
pub fn duplicated(conn: &mut Conn) {
    if conn.is_ahead(conn.duplicate_round) {
        return;
    }
    conn.duplicate_round = conn.snd_max;
    conn.reordering.multiplier = conn.reordering.multiplier.saturating_add(1);
    conn.reordering.persist = REORDER_PERSIST;
}

/// A recovery has ended.
pub fn recovered(conn: &mut Conn) {
    let reordering = &mut conn.reordering;
    reordering.persist = reordering.persist.saturating_sub(1);
    if reordering.persist == 0 {
        reordering.multiplier = 0;
    }
}

/// The reordering window.
fn window(conn: &Conn, stage: Stage) -> Duration {
    let Reordering { multiplier, seen, .. } = conn.reordering;
    // Without reordering, three segments that have arrived behind it say that one is lost.
    if !seen && (stage != Stage::Disorder || conn.sacked > 2 * u32::from(conn.mss)) {
        return Duration(0);
    }
    let quarters = u64::from(multiplier) + 1;
    Duration(conn.rtt.least().0 / 4 * quarters).min(conn.rtt.smoothed())
}

/// Marks what is lost by now; returns how long until more may be (§6.2 step 5).
pub fn detect(
    conn: &mut Conn,
    records: &mut Records,
    recovery: &Recovery,
    now: u32,
) -> Option<Duration> {
    let newest = recovery.newest;
    if !newest.known {
        return None;
    }
    let patience = newest.rtt + window(conn, recovery.stage);
    let mut wait = None;
    let mut at = sent::head(conn);
    let mut start = conn.snd_una;
    while at != NIL {
        let record = sent::get(conn, records, at);
        let age = sent::since(now, record.at);
        if record.marks.intersects(Marks::SACKED | Marks::LOST) {
            // Known already.
        } else if !newest.is_after(&record) {
            // All behind it were sent later still, but for those that were sent again.
            if !record.marks.contains(Marks::AGAIN) && !start.before(recovery.again_end) {
                break;
            }
        } else if age >= patience {
            sent::get_mut(conn, records, at).marks |= Marks::LOST;
            conn.lost += record.end.since(start);
        } else {
            wait = wait.max(Some(Duration(patience.0 - age.0)));
        }
        start = record.end;
        at = record.next;
    }
    wait
}

/// Sets the timer for what is under way: the loss probe if one may help, else retransmission. It counts
/// from now, after an acknowledgement or what was sent (RFC 6298 §5, RFC 8985 §7.2).
#[inline]
pub fn restart(conn: &mut Conn, local: &Local) {
    conn.timer = Timer::Retransmit;
    if conn.snd_una == conn.snd_max {
        conn.rto_at = Instant::NEVER;
        return;
    }
    conn.rto_at = local.now + conn.rtt.timeout();
    if is_more_than_one(conn) {
        schedule_probe(conn, local);
    }
}

/// More was sent (RFC 8985 §7.2).
#[inline]
pub fn sent_more(conn: &mut Conn, local: &Local) {
    if conn.rto_at == Instant::NEVER {
        conn.timer = Timer::Retransmit;
        conn.rto_at = local.now + conn.rtt.timeout();
    }
    if is_more_than_one(conn) {
        schedule_probe(conn, local);
    }
}

/// Whether more than one segment is under way; records are of frames, which may have many.
#[inline(always)]
fn is_more_than_one(conn: &Conn) -> bool {
    conn.sent_count > 0 || conn.flight() > u32::from(conn.mss)
}

/// Puts the loss probe in the place of the retransmission timer if it comes before it.
fn schedule_probe(conn: &mut Conn, local: &Local) {
    let now = local.now;
    let calm = conn.recovery == NIL && conn.timer != Timer::Reorder;
    if !calm || !conn.flags.contains(Flags::SACK) {
        return;
    }
    let smoothed = conn.rtt.smoothed();
    // Not before the peer, and whoever schedules it, had time to answer (§7.2 has the timer's granularity).
    let mut after = Duration(2 * smoothed.0).max(local.profile.probe_min);
    if smoothed.0 == 0 {
        after = PROBE_TIMEOUT_INITIAL;
    }
    if conn.flight() < 2 * u32::from(conn.mss) {
        // Less than what a peer has to acknowledge at once (RFC 9293 §3.8.6.3).
        after = after + MAX_ACK_DELAY;
    }
    // Not so late that, sending on and on, the retransmission timer would never fire.
    let age = sent::since(sent::clock(now), conn.first.at);
    let left = Duration(conn.rtt.timeout().0.saturating_sub(age.0));
    if after < left {
        conn.timer = Timer::Probe;
        conn.rto_at = now + after;
    } else if conn.timer == Timer::Probe {
        conn.timer = Timer::Retransmit;
        conn.rto_at = now + left;
    }
}
