//! What the timers of a connection do.
use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::listen::{patience, trying};
use crate::tcp::pmtu::Path;
use crate::tcp::{close, keep_alive, recovery};
use crate::time::Instant;
use ix_abi::DeadReason;
use ix_abi::stats::Counter;

/// The wheel has fired for the connection: perhaps in vain, see `FlowGroup::arm`.
pub fn fired(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
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

/// When the timer fires again: no later than when patience ends.
pub fn next_try(conn: &Conn, local: &Local) -> Instant {
    let next = local.now + conn.rtt.timeout();
    match conn.settings.user_timeout() {
        Some(wanted) if conn.trying_since != Instant::NEVER => {
            next.min(conn.trying_since + wanted).max(local.now)
        }
        _ => next,
    }
}

/// Starts the persist timer if a shut window is all that keeps data back, or the application
/// (RFC 9293 §3.8.6.1): the update that opens it may get lost.
#[inline]
pub fn persist(conn: &mut Conn, local: &Local) {
    let blocked =
        conn.snd_nxt.before(conn.snd_end) || conn.lost > 0 || conn.flags.contains(Flags::REFUSED);
    if blocked && conn.snd_wnd == 0 && conn.pipe() == 0 && conn.rto_at == Instant::NEVER {
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
