//! `accept`, `close` and `recv_done` in a straight line, of a connection to which nothing else happens.
use crate::conn::{Conn, Flags, Pending, State};
use crate::device::TxQueue;
use crate::engine::Engine;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::NO_MBUF;
use crate::tcp::{self, close, receive};
use ix_abi::{Cookie, Handle, Op};

/// The first words of the calls without a result.
const ACCEPT: u64 = Op::Accept.0 as u64;
const CLOSE: u64 = Op::Close.0 as u64;
const RECV_DONE: u64 = Op::RecvDone.0 as u64;

/// Runs the call whose first word is `first`, with a handle and a further word, if it is one of those and nothing
/// is odd about it. The caller consumes it. `false`: it is not, and nothing has happened. A call of its own, so that a `sendv` is not held
/// against all of these first.
#[cold]
#[inline(never)]
pub fn brief<T: TxQueue>(
    engine: &mut Engine,
    queue: &mut T,
    first: u64,
    handle: Handle,
    word: u64,
) -> bool {
    match first {
        ACCEPT => accept(engine, handle, Cookie(word)),
        CLOSE => close(engine, queue, handle),
        RECV_DONE => recv_done(engine, handle, word),
        _ => false,
    }
}

/// The connection that the handle names, its group, and the core's things.
#[inline(always)]
fn find(engine: &mut Engine, handle: Handle) -> Option<(&mut FlowGroup, &mut Local, u32)> {
    let Engine { local, groups, .. } = engine;
    let group = groups.get_mut(usize::from(handle.group().0))?.as_mut()?;
    let index = handle.index();
    let conn = group.conns.get(index)?;
    (conn.name == handle).then_some((group, local, index))
}

#[inline(never)]
fn accept(engine: &mut Engine, handle: Handle, cookie: Cookie) -> bool {
    const ODD: Flags = Flags::ACCEPTED.union(Flags::APP_GONE).union(Flags::ENDED);
    let Some((group, local, index)) = find(engine, handle) else { return false };
    // Folded is one that is accepted, and so left as it is.
    let conn = group.conns.at_mut(index);
    if conn.flags & ODD.union(Flags::KNOCKED) != Flags::KNOCKED || !conn.pending.is_empty() {
        return false;
    }
    conn.flags |= Flags::ACCEPTED;
    conn.cookie = cookie;
    close::leave_backlog(group, local, index);
    true
}

/// Whether `close` does nothing but to queue FIN.
#[inline(always)]
fn closes(conn: &Conn) -> bool {
    const ODD: Flags = Flags::APP_CLOSED
        .union(Flags::APP_GONE)
        .union(Flags::DEAD_TOLD)
        .union(Flags::ENDED)
        .union(Flags::FIN_QUEUED);
    conn.flags & ODD.union(Flags::ACCEPTED) == Flags::ACCEPTED
        && matches!(conn.state, State::Established | State::CloseWait)
        && conn.rx_head == NO_MBUF
        && conn.ooo_head == NO_MBUF
}

#[inline(never)]
fn close<T: TxQueue>(engine: &mut Engine, queue: &mut T, handle: Handle) -> bool {
    let Some((group, local, index)) = find(engine, handle) else { return false };
    let Some(conn) = group.conns.whole(index) else { return false };
    if !closes(conn) {
        return false;
    }
    conn.flags |= Flags::APP_CLOSED | Flags::FIN_QUEUED;
    conn.flags -= Flags::REFUSED;
    conn.pending -= Pending::RECV | Pending::EOF;
    let passive = conn.state == State::CloseWait;
    conn.state = if passive { State::LastAck } else { State::FinWait1 };
    let may = tcp::output::may_finish(conn, local);
    if !may || !tcp::output::fin_at_once(group, local, queue, index) {
        group.want_output(index, local);
    }
    true
}

#[inline(never)]
fn recv_done(engine: &mut Engine, handle: Handle, bytes: u64) -> bool {
    let Some((group, local, index)) = find(engine, handle) else { return false };
    group.conns.settle(index);
    let known = Flags::ACCEPTED.union(Flags::APP_GONE);
    // It fails if they are more than there are, before anything has happened.
    group.conns[index].flags & known == Flags::ACCEPTED
        && receive::done(group, local, index, bytes).is_ok()
}
