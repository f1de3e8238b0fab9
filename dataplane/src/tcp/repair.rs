//! What is sent again, in the transmit stage: what is taken for lost, loss probes, and probes of a
//! window that is shut.
use crate::conn::{Conn, Flags};
use crate::device::{TxFull, TxQueue};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::TX_BURST;
use crate::local::Local;
use crate::tcp::listen::trying;
use crate::tcp::output::{Piece, new_segment, segment};
use crate::tcp::pmtu;
use crate::tcp::rack::{self, Timer};
use crate::tcp::recovery::{self, Probe};
use crate::tcp::sent::{self, FIRST, Marks, Record};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::timers::next_try;
use crate::tcp::wire::flag;
use crate::time::Instant;
use ix_abi::stats::Counter;

/// Sends what is due. `true`: there is more, but its turn is over.
#[cold]
#[inline(never)]
pub fn run<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<bool, TxFull> {
    if group.conns[index].flags.contains(Flags::PROBE) {
        // Below the window, so that it must be answered, and without payload: RFC 9293 §3.8.6.1
        // wants an octet, but there may be none, since a shut window admits none from the application.
        let seq = group.conns[index].snd_una.minus(1);
        segment(
            group,
            local,
            queue,
            index,
            Piece { seq, at: NIL, len: 0, flags: flag::ACK, size: 0 },
        )?;
        group.conns[index].flags -= Flags::PROBE;
    }
    let conn = &group.conns[index];
    if !conn.state.can_send() {
        return Ok(false);
    }
    if conn.flags.contains(Flags::RETRANSMIT) {
        loss_probe(group, local, queue, index)?;
        group.conns[index].flags -= Flags::RETRANSMIT;
    }
    resend(group, local, queue, index)
}

/// Sends what is taken for lost, as far as windows allow.
fn resend<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<bool, TxFull> {
    let mut at = sent::head(&group.conns[index]);
    let mut start = group.conns[index].snd_una;
    let mut left = TX_BURST;
    while at != NIL && group.conns[index].lost > 0 {
        let conn = &group.conns[index];
        let record = sent::get(conn, &group.sent, at);
        if record.marks.contains(Marks::LOST) {
            if left == 0 {
                return Ok(true);
            }
            left -= 1;
            let room = recovery::allowance(conn, &group.recoveries);
            let Some(len) = may_resend(conn, &record, start, room) else { return Ok(false) };
            send_record(group, local, queue, index, (at, start, len))?;
        }
        let record = sent::get(&group.conns[index], &group.sent, at);
        start = record.end;
        at = record.next;
    }
    Ok(false)
}

/// Bytes of payload of a record that begins at `start`; its FIN is beside them.
fn payload(conn: &Conn, record: &Record, start: WrappingSeq) -> u32 {
    record.end.since(start) - u32::from(record.end.after(conn.snd_end))
}

/// How much of a record may be sent now; `None`: nothing.
fn may_resend(conn: &Conn, record: &Record, start: WrappingSeq, room: u32) -> Option<u32> {
    let payload = payload(conn, record, start);
    let window = conn.snd_wnd.saturating_sub(start.since(conn.snd_una));
    let len = payload.min(u32::from(conn.mss)).min(window);
    // The peer may have taken its window back (RFC 9293 §3.8.6).
    let shut = payload > 0 && len == 0;
    (!shut && room >= len.max(1)).then_some(len)
}

/// Sends `len` bytes of the record at `at`, which begins at `start`, and its FIN if they are all.
fn send_record<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    (at, start, len): (u32, WrappingSeq, u32),
) -> Result<(), TxFull> {
    let conn = &group.conns[index];
    let record = sent::get(conn, &group.sent, at);
    let fin = record.end.after(conn.snd_end) && len == payload(conn, &record, start);
    let flags = flag::ACK | flag::PSH | if fin { flag::FIN } else { 0 };
    let piece = Piece { seq: start, at: conn.seg_head, len, flags, size: 0 };
    let len = segment(group, local, queue, index, piece)?;
    local.stats.add(Counter::TcpRetransmits, 1);
    let conn = &mut group.conns[index];
    let end = start.plus(len);
    if !conn.path.is_empty() {
        pmtu::sent_again(conn, local, start, end);
    }
    if end != record.end {
        // Without room to note the part, the whole counts as sent, and what was not is lost again.
        let _noted = sent::split(conn, &mut group.sent, at, end);
    }
    let record = sent::get_mut(conn, &mut group.sent, at);
    let was_lost = record.marks.contains(Marks::LOST);
    record.marks = (record.marks - Marks::LOST) | Marks::AGAIN;
    record.at = sent::clock(local.now);
    let end = record.end;
    if was_lost {
        conn.lost -= end.since(start);
    }
    recovery::went_out(conn, &mut group.recoveries, len, Some(end));
    if conn.rto_at == Instant::NEVER || at == FIRST && conn.timer == Timer::Retransmit {
        conn.timer = Timer::Retransmit;
        conn.rto_at = next_try(conn, local);
    }
    trying(conn, local.now);
    Ok(())
}

/// No acknowledgement came in two round trips: asks for one, by new data if there is some, else by the
/// last segment again (RFC 8985 §7.3).
fn loss_probe<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    if sent::head(&group.conns[index]) == NIL || group.conns[index].lost > 0 {
        return Ok(());
    }
    if !recovery::open(group, index) {
        return first_unnoted(group, local, queue, index);
    }
    local.stats.add(Counter::TcpLossProbes, 1);
    let mss = u32::from(group.conns[index].mss);
    let new = new_segment(group, local, queue, index, mss)?;
    if !new {
        let (at, start) = last_segment(&mut group.conns[index], &mut group.sent);
        let conn = &group.conns[index];
        let record = sent::get(conn, &group.sent, at);
        if let Some(len) = may_resend(conn, &record, start, u32::MAX) {
            send_record(group, local, queue, index, (at, start, len))?;
        }
    }
    let conn = &mut group.conns[index];
    let probe = Probe { end: conn.snd_max, again: !new };
    group.recoveries[conn.recovery].probe = Some(probe);
    rack::restart(conn, local);
    Ok(())
}

/// Place and beginning of the newest record.
fn last(conn: &Conn, records: &sent::Records) -> (u32, WrappingSeq) {
    let (mut at, mut start) = (FIRST, conn.snd_una);
    while at != conn.sent_tail {
        let record = sent::get(conn, records, at);
        start = record.end;
        at = record.next;
    }
    (at, start)
}

/// Place and beginning of the newest segment: of a large frame the last part, which becomes a record.
fn last_segment(conn: &mut Conn, records: &mut sent::Records) -> (u32, WrappingSeq) {
    let (at, start) = last(conn, records);
    let end = sent::get(conn, records, at).end;
    // FIN rides on it.
    let payload_end = if end.after(conn.snd_end) { conn.snd_end } else { end };
    let segment = payload_end.minus(u32::from(conn.mss));
    if segment.after(start) && sent::split(conn, records, at, segment) {
        return (sent::get(conn, records, at).next, segment);
    }
    (at, start)
}

/// Sends the oldest segment again, with nothing to note that in.
fn first_unnoted<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &group.conns[index];
    if let Some(len) = may_resend(conn, &conn.first, conn.snd_una, u32::MAX) {
        let start = conn.snd_una;
        send_record(group, local, queue, index, (FIRST, start, len))?;
        let conn = &mut group.conns[index];
        // Its acknowledgement does not say to which it is: nothing is measured before the next flight.
        conn.timed = conn.snd_max.plus(1);
    }
    Ok(())
}
