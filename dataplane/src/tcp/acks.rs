//! What an acknowledgement does: it frees memory, measures, moves windows. What is more to it when
//! something is missing is in [`recovery`].
use crate::conn::{Conn, Flags, Pending, State};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::SEGMENTS_PER_CONNECTION;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::tcp::challenge::suspicious;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::Packet;
use crate::tcp::{close, congestion, rack, recovery, send_queue, sent, timers};
use crate::time::Instant;
use ix_abi::DeadReason;
use ix_abi::stats::Drop;

/// Takes the acknowledgement and the window of an acceptable segment. `false`: the segment is to be
/// dropped, or has ended the connection.
#[inline]
pub fn handle(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    packet: &Packet,
    mbuf: &Mbuf,
) -> bool {
    let conn = &mut group.conns[index];
    if packet.ack.after(conn.snd_max) {
        local.stats.drop(Drop::TcpOutOfWindow);
        suspicious(group, local, index);
        return false;
    }
    let advances = packet.ack.after(conn.snd_una);
    // Whether something is missing, or this may say so.
    let odd = conn.recovery != NIL
        || packet.ack == conn.snd_una && packet.seq_len() == 0 && conn.snd_una != conn.snd_max
        || packet.has_more_options() && conn.flags.contains(Flags::SACK);
    if advances && !odd {
        advance(group, local, index, packet.ack);
    } else if packet.ack.before(conn.snd_una) {
        if packet.ack.before(conn.snd_una.minus(conn.max_wnd)) {
            // RFC 5961 §5.2.
            local.stats.drop(Drop::TcpOutOfWindow);
            suspicious(group, local, index);
            return false;
        }
    } else if odd {
        let area = local.pool.area();
        recovery::acknowledged(group, local, index, packet, area.data(mbuf));
    }
    window(group, local, index, packet, advances);
    let conn = &group.conns[index];
    if conn.flags.contains(Flags::FIN_QUEUED) && conn.all_acked() {
        return fin_acked(group, local, index);
    }
    true
}

/// New data is acknowledged, and nothing is missing.
#[inline]
pub fn advance(group: &mut FlowGroup, local: &mut Local, index: u32, ack: WrappingSeq) {
    let conn = &mut group.conns[index];
    let acked = ack.since(conn.snd_una);
    let flight = conn.snd_max.since(conn.snd_una);
    if !ack.before(conn.timed) {
        conn.timed = conn.snd_max;
        let rtt = sent::since(sent::clock(local.now), conn.first.at);
        conn.rtt.measured(rtt, local.rto_min_us);
    }
    conn.snd_una = ack;
    if conn.sent_count > 0 {
        sent::pop_to(conn, &mut group.sent, ack);
    }
    if conn.snd_nxt.before(ack) {
        conn.snd_nxt = ack;
        send_queue::catch_up(conn, &group.segments);
    }
    progress(conn, local);
    congestion::grow(conn, acked, flight, local.now);
    rack::restart(conn, local);
    if has_to_send(conn) {
        group.want_output(index, local);
    }
    release(group, local, index);
    group.arm(index, local);
}

/// The peer gets on: the timer backs off no longer (RFC 6298 §5.7), and patience begins anew.
#[inline]
pub fn progress(conn: &mut Conn, local: &Local) {
    if conn.flags.contains(Flags::BACKED_OFF) {
        conn.flags -= Flags::BACKED_OFF;
        conn.rtt.settle(local.rto_min_us);
    }
    conn.retries = 0;
    conn.trying_since = if conn.snd_una == conn.snd_max { Instant::NEVER } else { local.now };
}

/// Whether anything could leave now, windows allowing.
#[inline(always)]
pub fn has_to_send(conn: &Conn) -> bool {
    conn.snd_nxt != conn.snd_end.plus(u32::from(conn.flags.contains(Flags::FIN_QUEUED)))
        && conn.snd_nxt.at_or_before(conn.snd_end)
        || conn.lost > 0
}

/// Takes the peer's window (RFC 9293 §3.10.7.4: only from segments that are not older). A segment that `advances`
/// `snd_una` is none, whatever its sequence number: the peer has sent old data again, and its window counts from
/// the new acknowledgement.
#[inline]
fn window(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, advances: bool) {
    let conn = &mut group.conns[index];
    let newer =
        conn.wl1.before(packet.seq) || conn.wl1 == packet.seq && conn.wl2.at_or_before(packet.ack);
    if packet.ack.before(conn.snd_una) {
        return;
    }
    // An answer to a probe: the peer lives, however long its window stays shut, and however old what it says of that is
    // (MUST-37). But once the application has closed, nobody is left to put an end to it (RFC 6429 §4), and patience
    // does.
    if conn.flags.contains(Flags::PERSIST) && !conn.flags.contains(Flags::APP_CLOSED) {
        conn.trying_since = Instant::NEVER;
    }
    let window = u32::from(packet.window) << conn.snd_shift;
    // While it is shut, one that reaches further is none of the past, whatever its sequence number: peers do not take back what they
    // offered (RFC 9293 §3.8.6). Some go back to send again, and count from there for as long as we take nothing.
    let opens = conn.flags.contains(Flags::PERSIST) && window > conn.snd_wnd;
    if !newer && !advances && !opens {
        return;
    }
    conn.wl1 = conn.wl1.later(packet.seq);
    conn.wl2 = packet.ack;
    let before = core::mem::replace(&mut conn.snd_wnd, window);
    conn.max_wnd = conn.max_wnd.max(window);
    if conn.flags.contains(Flags::PERSIST) && window > 0 {
        conn.flags -= Flags::PERSIST;
        conn.retries = 0;
        conn.rtt.settle(local.rto_min_us);
        rack::restart(conn, local);
    }
    if window > before {
        if has_to_send(conn) {
            group.want_output(index, local);
        }
        announce_window(group, local, index);
    }
    timers::persist(&mut group.conns[index], local);
    group.arm(index, local);
}

/// Tells an application whose `sendv` was cut short that there is room again, once it is worth it.
pub fn announce_window(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.flags.contains(Flags::REFUSED) && worth_sending(conn) {
        group.want_event(index, Pending::SENT, local);
    }
}

/// Whether there is room for a decent segment (RFC 9293 §3.8.6.2.1: no silly ones) and a record of
/// it. With nothing under way any room will do, since nothing else would come to make more.
#[inline]
pub fn worth_sending(conn: &Conn) -> bool {
    let room = conn.send_room();
    let idle = conn.snd_una == conn.snd_end;
    let decent = if idle { 1 } else { u32::from(conn.mss).min(conn.max_wnd / 2).max(1) };
    conn.seg_count < SEGMENTS_PER_CONNECTION && room >= decent
}

/// Gives acknowledged memory back to the application, as far as no frame in flight refers to it.
#[inline]
pub fn release(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    let upto = if conn.snd_una.after(conn.snd_end) { conn.snd_end } else { conn.snd_una };
    if upto.at_or_before(conn.released) {
        return;
    }
    if group.has_left(conn.last_tx, local) {
        release_to(group, local, index, upto);
    } else if !conn.flags.contains(Flags::IN_HOLD) {
        let conn = &mut group.conns[index];
        conn.hold_seq = upto;
        conn.hold_tx = conn.last_tx;
        group.want_hold(index, local);
    }
}

/// The frame that memory was held for has left.
pub fn held_frame_left(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.flags.contains(Flags::ENDED) {
        return close::settle(group, local, index);
    }
    let upto = conn.hold_seq;
    if upto.after(conn.released) {
        release_to(group, local, index, upto);
    }
    release(group, local, index);
}

#[inline]
fn release_to(group: &mut FlowGroup, local: &mut Local, index: u32, upto: WrappingSeq) {
    let conn = &mut group.conns[index];
    conn.sent_bytes += upto.since(conn.released);
    conn.released = upto;
    send_queue::release(conn, &mut group.segments, upto, local);
    group.want_event(index, Pending::SENT, local);
}

/// Our FIN and all before it is acknowledged. `false`: that was the end.
fn fin_acked(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    let conn = &mut group.conns[index];
    match conn.state {
        State::FinWait1 => {
            conn.state = State::FinWait2;
            if conn.flags.contains(Flags::APP_CLOSED) {
                conn.rto_at = local.now + local.profile.fin_wait_2;
                group.arm(index, local);
            }
            true
        }
        State::Closing => {
            enter_time_wait(group, local, index);
            true
        }
        State::LastAck => {
            close::end(group, local, index, DeadReason::Closed);
            false
        }
        _ => true,
    }
}

/// Both sides are closed; what is late may still come.
pub fn enter_time_wait(group: &mut FlowGroup, local: &mut Local, index: u32) {
    if group.conns[index].state != State::TimeWait {
        group.waits(index);
    }
    let conn = &mut group.conns[index];
    conn.state = State::TimeWait;
    conn.rto_at = local.now + local.profile.time_wait;
    conn.ack_at = Instant::NEVER;
    group.arm(index, local);
    if group.conns[index].flags.contains(Flags::APP_CLOSED) {
        close::tell(group, local, index, DeadReason::Closed);
    }
}
