//! What the timers of a connection do.
use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::congestion::{self, CongestionControl};
use crate::tcp::listen::{patience, trying};
use crate::tcp::pmtu::Path;
use crate::tcp::{acks, close, keep_alive, recovery, sent};
use crate::time::{Duration, Instant};
use ix_abi::DeadReason;
use ix_abi::stats::Counter;

/// The wheel has fired for the connection: perhaps in vain, see `FlowGroup::arm`.
pub fn fired(group: &mut FlowGroup, local: &mut Local, index: u32) {
    if group.put_off_folded(index, local) {
        return;
    }
    let Some(conn) = group.conns.whole(index) else { return };
    if conn.flags.contains(Flags::FREED) {
        return;
    }
    if conn.ack_at <= local.now {
        conn.ack_at = Instant::NEVER;
        if conn.ack_owed > 0 {
            conn.flags |= Flags::ACK_NOW;
            group.want_output(index, local);
        }
    }
    if group.conns[index].rto_at <= local.now {
        group.conns[index].rto_at = Instant::NEVER;
        due(group, local, index);
    }
    if group.conns[index].keep_at <= local.now {
        keep_alive::due(group, local, index);
    }
    if !group.conns[index].flags.contains(Flags::FREED) {
        group.arm(index, local);
        group.arm_keep_alive(index, local);
        rest(group, local, index);
    }
}

/// After a retransmission timeout in which nothing was sent, the window says nothing of the network any more
/// (RFC 5681 §4.1). Whoever sends need not look: the wheel stays armed for what was sent last, and fires in vain
/// once that is acknowledged.
fn rest(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    let mss = u32::from(conn.mss);
    let idle = conn.state.can_send() && conn.snd_una == conn.snd_max;
    if !idle || conn.cc.window() <= congestion::initial_window(mss) {
        return;
    }
    let quiet = sent::since(sent::clock(local.now), conn.first.at);
    let timeout = conn.rtt.timeout();
    if quiet >= timeout {
        conn.cc.rested(mss);
    } else {
        group.arm_at(index, local.now + Duration(timeout.0 - quiet.0), local);
    }
}

fn due(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    match conn.state {
        State::Closed => {}
        State::TimeWait => close::time_wait_over(group, local, index),
        State::FinWait2 if conn.flags.contains(Flags::APP_CLOSED) => {
            close::abort(group, local, index, DeadReason::TimedOut);
        }
        _ if !waits(conn) => {
            // It waited for an address, to send what nobody acknowledges.
            conn.trying_since = Instant::NEVER;
            group.want_output(index, local);
        }
        _ if local.now.since(conn.trying_since) >= patience(conn, &local.profile) => {
            give_up(group, local, index);
        }
        _ if conn.flags.contains(Flags::PERSIST) => {
            conn.flags |= Flags::PROBE;
            conn.rtt.back_off();
            conn.rto_at = next_try(conn, local);
            group.want_output(index, local);
        }
        _ => recovery::timer_fired(group, local, index),
    }
}

/// Whether something is to be answered: what is out, or has its turn to come.
fn waits(conn: &Conn) -> bool {
    let fin = u32::from(conn.flags.contains(Flags::FIN_QUEUED));
    !conn.state.is_synchronized()
        || conn.snd_una != conn.snd_max
        || conn.snd_max != conn.snd_end.plus(fin)
        || conn.flags.contains(Flags::PERSIST)
}

/// When the timer fires again: no later than when patience ends. (What is sent for the first time does not ask:
/// patience shorter than its timeout ends with that.)
pub fn next_try(conn: &Conn, local: &Local) -> Instant {
    let next = local.now + conn.rtt.timeout();
    if conn.trying_since == Instant::NEVER {
        return next;
    }
    next.min(conn.trying_since + patience(conn, &local.profile)).max(local.now)
}

/// Starts the persist timer if a shut window is all that keeps data back, or the application
/// (RFC 9293 §3.8.6.1): the update that opens it may get lost.
#[inline]
pub fn persist(conn: &mut Conn, local: &Local) {
    let blocked = acks::has_to_send(conn) || conn.flags.contains(Flags::REFUSED);
    // What is lost is not under way, so that nothing is left for the retransmission timer to wait for.
    let idle =
        conn.rto_at == Instant::NEVER || conn.lost > 0 && !conn.flags.contains(Flags::PERSIST);
    if blocked && conn.snd_wnd == 0 && conn.pipe() == 0 && idle {
        conn.flags |= Flags::PERSIST;
        conn.rto_at = local.now + conn.rtt.timeout();
        trying(conn, local.now);
    }
}

/// Nobody has answered for too long.
pub fn give_up(group: &mut FlowGroup, local: &mut Local, index: u32) {
    local.stats.add(Counter::TcpTimeouts, 1);
    if group.conns[index].state == State::SynReceived {
        // Perhaps a forged SYN: nothing to be said to whoever's address it was.
        close::end(group, local, index, DeadReason::TimedOut);
    } else {
        let unreachable = group.conns[index].path.contains(Path::UNREACHABLE);
        let reason = if unreachable { DeadReason::Unreachable } else { DeadReason::TimedOut };
        close::abort(group, local, index, reason);
    }
}
