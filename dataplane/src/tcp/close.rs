//! The ends of a connection. The network's end and the application's are two things: a slot is free
//! when both have come and no frame in flight refers to the application's memory any more.
use crate::conn::{Flags, Pending, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Mbuf, NO_MBUF};
use crate::ports::{SLOTS, Waiting};
use crate::tcp::{acks, reassembly, recovery, send_queue};
use crate::time::Instant;
use ix_abi::{DeadReason, Status};

/// The network is done with the connection, for `reason`; not in order unless that is `Closed`.
pub fn end(group: &mut FlowGroup, local: &mut Local, index: u32, reason: DeadReason) {
    leave_backlog(group, local, index);
    if group.conns[index].state == State::TimeWait {
        // Its address went away.
        group.waits_no_more(index);
    }
    let conn = &mut group.conns[index];
    conn.state = State::Closed;
    conn.rto_at = Instant::NEVER;
    conn.ack_at = Instant::NEVER;
    conn.keep_at = Instant::NEVER;
    conn.ack_owed = 0;
    conn.flags -= Flags::ACK_NOW | Flags::RETRANSMIT | Flags::PROBE | Flags::RECOVERY;
    reassembly::clear(conn, local);
    recovery::abandon(group, index);
    group.leave(index, local);
    let conn = &group.conns[index];
    if reason == DeadReason::Closed && !conn.flags.contains(Flags::APP_CLOSED) {
        // In order, and the application has shut down but not closed: it will.
        return;
    }
    tell(group, local, index, reason);
}

/// Remembers why it is over and tells the application when its memory is its own again.
pub fn tell(group: &mut FlowGroup, local: &mut Local, index: u32, reason: DeadReason) {
    let conn = &mut group.conns[index];
    if !conn.flags.contains(Flags::ENDED) {
        conn.flags |= Flags::ENDED;
        conn.reason = reason;
    }
    settle(group, local, index);
}

/// Goes on with the end once the connection's last frame has left.
pub fn settle(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.seg_head != crate::flow_table::NIL && !group.has_left(conn.last_tx, local) {
        let conn = &mut group.conns[index];
        conn.hold_tx = conn.last_tx;
        return group.want_hold(index, local);
    }
    let conn = &mut group.conns[index];
    // Bytes that were acknowledged before the end are still reported as sent.
    let acked = if conn.snd_una.after(conn.snd_end) { conn.snd_end } else { conn.snd_una };
    if acked.after(conn.released) {
        conn.sent_bytes += acked.since(conn.released);
        conn.released = acked;
        conn.pending |= Pending::SENT;
    }
    send_queue::release_all(conn, &mut group.segments, local);
    let known = conn.flags.intersects(Flags::KNOCKED | Flags::ACTIVE);
    if conn.flags.contains(Flags::APP_GONE) {
        group.free_if_done(index, local);
    } else if !known {
        forget(group, local, index);
    } else if !conn.flags.contains(Flags::DEAD_TOLD) {
        group.want_event(index, Pending::DEAD, local);
    }
}

/// The application has nothing to do with the connection (any more): returns its buffers.
pub fn forget(group: &mut FlowGroup, local: &mut Local, index: u32) {
    drop_received(group, local, index);
    let conn = &mut group.conns[index];
    conn.flags |= Flags::APP_GONE;
    conn.pending = Pending::empty();
    group.free_if_done(index, local);
}

/// Returns all receive buffers of the connection, held by the application or not.
pub fn drop_received(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    reassembly::clear(conn, local);
    let mut at = conn.rx_head;
    while at != NO_MBUF {
        let mbuf = Mbuf::from_raw(at);
        at = local.pool.area().meta(&mbuf).next;
        local.pool.return_held(mbuf);
    }
    conn.rx_head = NO_MBUF;
    conn.rx_tail = NO_MBUF;
    conn.rx_undelivered = NO_MBUF;
    conn.rx_held = 0;
    conn.rx_waiting = 0;
    conn.rx_buffers = 0;
}

/// The connection does not count in its listener's backlog any more.
#[inline(always)]
pub fn leave_backlog(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if !conn.flags.contains(Flags::IN_BACKLOG) {
        return;
    }
    conn.flags -= Flags::IN_BACKLOG;
    let (listener, half_open) = (conn.listener, conn.state == State::SynReceived);
    let less = |waiting: &mut Waiting| {
        let part = if half_open { &mut waiting.half_open } else { &mut waiting.knocked };
        *part = part.saturating_sub(1);
    };
    if half_open {
        group.half_open = group.half_open.saturating_sub(1);
    }
    less(&mut group.backlog[listener.index() as usize % SLOTS]);
    if let Some(port) = local.listeners.by_handle(listener) {
        less(&mut port.waiting);
    }
}

/// The application's `close`.
pub fn close(group: &mut FlowGroup, local: &mut Local, index: u32) -> Result<(), Status> {
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::DEAD_TOLD) {
        forget(group, local, index);
        return Ok(());
    }
    if conn.flags.contains(Flags::APP_CLOSED) {
        return Err(Status::State);
    }
    conn.flags |= Flags::APP_CLOSED;
    conn.pending -= Pending::RECV | Pending::EOF;
    drop_received(group, local, index);
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::ENDED) {
        return Ok(());
    }
    match conn.state {
        State::SynSent => end(group, local, index, DeadReason::Aborted),
        State::TimeWait | State::Closed => tell(group, local, index, DeadReason::Closed),
        State::FinWait2 => {
            conn.rto_at = local.now + local.profile.fin_wait_2;
            group.arm(index, local);
        }
        _ => queue_fin(group, local, index),
    }
    Ok(())
}

/// The application's `shutdown`.
pub fn shutdown(group: &mut FlowGroup, local: &mut Local, index: u32) -> Result<(), Status> {
    let conn = &group.conns[index];
    if conn.flags.intersects(Flags::APP_CLOSED | Flags::FIN_QUEUED | Flags::ENDED) {
        return Err(Status::State);
    }
    match conn.state {
        State::Established | State::CloseWait => {
            queue_fin(group, local, index);
            Ok(())
        }
        _ => Err(Status::State),
    }
}

/// FIN after all that was accepted.
fn queue_fin(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::FIN_QUEUED) {
        return;
    }
    conn.flags |= Flags::FIN_QUEUED;
    conn.flags -= Flags::REFUSED;
    conn.state = match conn.state {
        State::CloseWait => State::LastAck,
        State::SynReceived => State::SynReceived,
        _ => State::FinWait1,
    };
    group.want_output(index, local);
}

/// Ends the connection now: RST to the peer, if it knows of it.
pub fn abort(group: &mut FlowGroup, local: &mut Local, index: u32, reason: DeadReason) {
    let conn = &mut group.conns[index];
    let silent = matches!(conn.state, State::Closed | State::SynSent | State::TimeWait);
    if !silent {
        conn.flags |= Flags::RESET;
        group.want_output(index, local);
    }
    if group.conns[index].state == State::TimeWait {
        return tell(group, local, index, reason);
    }
    end(group, local, index, reason);
}

/// The application's `abort`.
pub fn app_abort(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::DEAD_TOLD) {
        return forget(group, local, index);
    }
    conn.flags |= Flags::APP_CLOSED;
    conn.pending -= Pending::RECV | Pending::EOF;
    drop_received(group, local, index);
    let conn = &group.conns[index];
    if !conn.flags.contains(Flags::ENDED) {
        abort(group, local, index, DeadReason::Aborted);
    }
}

/// The application is gone, all of it.
pub fn app_gone(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::FREED) {
        return;
    }
    conn.flags |= Flags::APP_CLOSED | Flags::APP_GONE;
    conn.pending = Pending::empty();
    drop_received(group, local, index);
    if group.conns[index].flags.contains(Flags::ENDED) {
        return settle(group, local, index);
    }
    abort(group, local, index, DeadReason::Aborted);
}

/// The 2 MSL are over.
pub fn time_wait_over(group: &mut FlowGroup, local: &mut Local, index: u32) {
    group.waits_no_more(index);
    let conn = &mut group.conns[index];
    conn.state = State::Closed;
    conn.rto_at = Instant::NEVER;
    conn.keep_at = Instant::NEVER;
    group.leave(index, local);
    acks::release(group, local, index);
    group.free_if_done(index, local);
}
