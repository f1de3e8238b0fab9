//! Timeouts: what the connection's timer does for what is under way, and what shows that it was
//! needless.
use super::{Recovery, Stage, find, open, wait_for_order};
use crate::conn::{Conn, Flags, State};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::{self, Timer};
use crate::tcp::sent::{self, Marks, Records};
use crate::tcp::wire::Packet;
use crate::tcp::{pmtu, sack, timers};
use ix_abi::stats::Counter;

/// The connection's timer has fired, for what is under way.
pub fn timer_fired(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if matches!(conn.state, State::SynSent | State::SynReceived) {
        return syn_timed_out(group, local, index);
    }
    if conn.snd_una == conn.snd_max {
        conn.rto_at = timers::next_try(conn, local);
        return group.want_output(index, local);
    }
    match core::mem::take(&mut conn.timer) {
        Timer::Reorder if conn.recovery != NIL => {
            // Not a timeout: some time has passed in which the rest could still have come.
            let outstanding = conn.flight();
            let wait = find(group, local, index, outstanding);
            let conn = &mut group.conns[index];
            rack::restart(conn, local);
            wait_for_order(conn, wait, local);
            group.want_output(index, local);
        }
        Timer::Probe => {
            conn.rto_at = timers::next_try(conn, local);
            if conn.recovery == NIL {
                conn.flags |= Flags::RETRANSMIT;
                group.want_output(index, local);
            }
        }
        _ => timed_out(group, local, index),
    }
}

/// No answer to our SYN, or SYN-ACK.
fn syn_timed_out(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.snd_una != conn.snd_max {
        local.stats.add(Counter::TcpTimeouts, 1);
        if conn.retries == 0 {
            conn.cc.timed_out(conn.flight(), u32::from(conn.mss), local.now);
        }
        conn.retries = conn.retries.saturating_add(1);
        conn.rtt.back_off();
        conn.flags |= Flags::BACKED_OFF;
        conn.snd_nxt = conn.snd_una;
    }
    conn.rto_at = timers::next_try(conn, local);
    group.want_output(index, local);
}

/// The retransmission timer (RFC 6298 §5.4–5.6, RFC 5681 §3.1): all that the peer has not told of is
/// lost.
fn timed_out(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let opened = open(group, index);
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    local.stats.add(Counter::TcpTimeouts, 1);
    pmtu::timed_out(conn, local);
    if conn.retries == 0 {
        conn.cc.timed_out(conn.flight(), u32::from(conn.mss), local.now);
    }
    conn.retries = conn.retries.saturating_add(1);
    conn.rtt.back_off();
    conn.flags |= Flags::BACKED_OFF;
    conn.flags -= Flags::RECOVERY;
    conn.recover = conn.snd_max;
    if opened {
        let recovery = &mut recoveries[conn.recovery];
        recovery.undo = None;
        if conn.retries == 1 && conn.flags.contains(Flags::TIMESTAMPS) {
            recovery.undo = Some(local.ts_clock().wrapping_add(conn.ts_offset));
        }
        recovery.stage = Stage::Timeout;
        recovery.dup_acks = 0;
        recovery.probe = None;
        lose_all(conn, records);
    } else {
        // No place for marks: the oldest alone, again and again, is slow but gets there.
        conn.flags |= Flags::RETRANSMIT;
    }
    // Also if its turn to be sent does not come: time runs out all the same.
    conn.rto_at = timers::next_try(conn, local);
    group.want_output(index, local);
}

/// What is under way is in segments that the path does not take: all of it goes out again in smaller ones.
/// That says nothing of the network's load (RFC 1191 §6.4).
#[cold]
pub fn resegment(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let opened = open(group, index);
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    if opened {
        let recovery = &mut recoveries[conn.recovery];
        recovery.probe = None;
        if recovery.stage == Stage::Disorder {
            // As after a timeout, but for the window.
            recovery.stage = Stage::Timeout;
            recovery.undo = None;
            conn.recover = conn.snd_max;
        }
        lose_all(conn, records);
    } else {
        conn.flags |= Flags::RETRANSMIT;
    }
    group.want_output(index, local);
}

/// Marks all as lost that the peer has not told of.
fn lose_all(conn: &mut Conn, records: &mut Records) {
    if !conn.flags.contains(Flags::SACK) {
        conn.sacked = 0;
    } else if conn.first.marks.contains(Marks::SACKED) {
        // It has told of the first, and does not acknowledge it: it has dropped what it had.
        sack::forget(conn, records);
    }
    conn.lost = 0;
    let mut at = sent::head(conn);
    let mut start = conn.snd_una;
    while at != NIL {
        let record = sent::get_mut(conn, records, at);
        let (end, next) = (record.end, record.next);
        if !record.marks.contains(Marks::SACKED) {
            record.marks |= Marks::LOST;
            conn.lost += end.since(start);
        }
        (start, at) = (end, next);
    }
}

/// The first acknowledgement after a timeout: whether it answers what was sent before, so that nothing
/// need have been lost (RFC 3522 §3.2). Then all is as it was (RFC 4015).
pub(super) fn was_needless(
    conn: &mut Conn,
    records: &mut Records,
    recovery: &mut Recovery,
    packet: &Packet,
) -> bool {
    let Some(at) = recovery.undo.take() else { return false };
    let needless = packet.ts.is_some_and(|(_, echo)| (echo.wrapping_sub(at) as i32) < 0);
    if needless {
        conn.cc.undo();
        unlose(conn, records);
    }
    needless
}

/// Nothing was lost after all.
fn unlose(conn: &mut Conn, records: &mut Records) {
    let mut at = sent::head(conn);
    while at != NIL {
        let record = sent::get_mut(conn, records, at);
        record.marks -= Marks::LOST;
        at = record.next;
    }
    conn.lost = 0;
}
