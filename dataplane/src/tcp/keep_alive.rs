//! Keep-alive (RFC 9293 §3.8.4), off unless the application asks for it: an idle peer is asked, by a
//! segment below the window, whether it lives.
//!
//! The path of packets knows nothing of it. What has moved since the timer was set is seen by comparing two
//! sequence numbers when it fires; so a peer is asked after one interval of silence at least and two at
//! most. Only while a question is out does an arriving segment look here.
use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::tcp::listen::trying;
use crate::tcp::timers;
use crate::time::Instant;
use ix_abi::stats::Counter;

/// Grows with all that is received in order, and all that is acknowledged.
fn mark(conn: &Conn) -> u32 {
    conn.rcv_nxt.0.wrapping_add(conn.snd_una.0)
}

/// Watches from now on, if the application wants it: the option was set, the connection is established,
/// or the peer has been heard.
pub fn restart(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    conn.keep_unanswered = 0;
    conn.keep_mark = mark(conn);
    let idle = conn.settings.keep_alive().filter(|_| conn.state != State::Closed);
    conn.keep_at = idle.map_or(Instant::NEVER, |idle| local.now + idle);
    group.arm_keep_alive(index, local);
}

/// The same; and if nothing else waits, the wheel need not fire in vain for the next question, which is not to be
/// asked.
fn restart_later(group: &mut FlowGroup, local: &mut Local, index: u32) {
    restart(group, local, index);
    group.put_off(index);
}

/// A segment has come while a question was out.
#[cold]
pub fn heard(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    if conn.snd_una == conn.snd_max {
        conn.trying_since = Instant::NEVER;
    }
    restart_later(group, local, index);
}

/// The timer has fired.
#[cold]
pub fn due(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    conn.keep_at = Instant::NEVER;
    match conn.state {
        State::Closed | State::TimeWait => return,
        State::Established | State::CloseWait | State::FinWait2 => {}
        // What is out is watched by the retransmission timer. Later, perhaps.
        _ => return restart(group, local, index),
    }
    if mark(conn) != conn.keep_mark {
        return heard(group, local, index);
    }
    let watched = conn.snd_una != conn.snd_max || conn.flags.contains(Flags::PERSIST);
    if watched {
        return restart(group, local, index);
    }
    let tried = local.now.since(conn.trying_since);
    let late = conn.settings.user_timeout().is_some_and(|most| tried >= most);
    if conn.keep_unanswered >= conn.settings.keep_alive_probes() || late && conn.keep_unanswered > 0
    {
        return timers::give_up(group, local, index);
    }
    conn.keep_unanswered += 1;
    trying(conn, local.now);
    conn.flags |= Flags::PROBE;
    let mut next = local.now + conn.settings.keep_alive_interval();
    if let Some(most) = conn.settings.user_timeout() {
        next = next.min(conn.trying_since + most).max(local.now);
    }
    conn.keep_at = next;
    local.stats.add(Counter::TcpKeepAliveProbes, 1);
    group.want_output(index, local);
    group.arm_keep_alive(index, local);
}
