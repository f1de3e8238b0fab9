//! The predicted call of two pieces: a `sendv` of, say, a header and a body that fit a segment together, on a connection that has
//! nothing else to send. They leave as one frame at once. It does not fold the connection, whose send queue is not in it alone.
use super::emit;
use super::send::{Wish, follow_up, predicted, returned};
use crate::calls::send::locate;
use crate::conn::{Conn, Flags};
use crate::device::{TxFull, TxQueue};
use crate::engine::Engine;
use crate::local::Local;
use crate::tcp::receive;
use crate::tcp::send_queue::{self, Source};
use crate::usermem::Extent;
use ix_abi::stats::Counter;
use ix_abi::{Handle, Op};

/// The first word of a `sendv` with two entries, which are both in its first slot, that wants no result.
pub const TWO_PIECES: u64 = Op::Sendv.0 as u64 | 2 << 32;

/// A piece of the application's memory, and who it is to be given back to.
type Piece = (Extent, Source);

/// Runs the call `ahead` slots behind the head of the ring, which is such a one, if its connection is; `ready` slots are there from it
/// on. The caller consumes it. `false`: it is not, and nothing has happened.
#[inline(never)]
pub fn call<T: TxQueue>(engine: &mut Engine, queue: &mut T, ahead: u32, ready: u32) -> bool {
    let Engine { local, groups, .. } = engine;
    let Some(app) = &local.app else { return false };
    let record = app.rings.record(ahead);
    let handle = Handle(record.word::<1>());
    // More for the same connection follows: all of it may fit one segment.
    if ready > 1 && app.rings.record(ahead.wrapping_add(1)).word::<1>() == handle.0 {
        return false;
    }
    let first = (record.word::<3>(), record.word::<4>());
    let second = (record.word::<5>(), record.word::<6>());
    let done = record.word::<7>();
    let Some(Some(group)) = groups.get_mut(usize::from(handle.group().0)) else { return false };
    let (index, tx_base) = (handle.index(), group.tx_base);
    let Some(conn) = group.conns.whole(index) else { return false };
    let (Some(len), false) = (first.1.checked_add(second.1), first.1 == 0 || second.1 == 0) else {
        return false;
    };
    if !predicted(conn, local, &Wish { handle, addr: 0, len, done }) {
        return false;
    }
    let Some(pieces) = locate_both(local, first, second) else { return false };
    let [first, second] = pieces;
    // The queue is empty: so there is a place for the first.
    let before = conn.snd_end;
    send_queue::append_first(conn, first.0, first.1);
    if !send_queue::append(conn, &mut group.segments, second.0, second.1) {
        second.1.release(local);
        send_queue::undo(conn, &mut group.segments, 0, before, local);
        return false;
    }
    local.stats.add(Counter::PayloadOut, len);
    if done > 0 && !returned(conn, local, done) {
        // `predicted` has checked it.
        let _never_fails = receive::done(group, local, index, done);
    }
    let conn = &mut group.conns[index];
    let pushed = transmit(conn, local, queue, [first.0, second.0]);
    if let Ok(number) = pushed {
        conn.last_tx = number.wrapping_add(tx_base);
        conn.sent(local.now);
    }
    if pushed.is_err() || conn.rto_at < conn.timer_at {
        follow_up(group, local, index);
    }
    true
}

/// Both pieces, if each is contiguous for the device, and memory that may be sent.
#[inline(always)]
fn locate_both(local: &mut Local, first: (u64, u64), second: (u64, u64)) -> Option<[Piece; 2]> {
    let first = locate_whole(local, first)?;
    let Some(second) = locate_whole(local, second) else {
        first.1.release(local);
        return None;
    };
    Some([first, second])
}

#[inline(always)]
fn locate_whole(local: &mut Local, (addr, len): (u64, u64)) -> Option<Piece> {
    let (extent, source) = locate(local, addr, len).ok()?;
    if u64::from(extent.len()) == len {
        return Some((extent, source));
    }
    source.release(local);
    None
}

#[inline(always)]
fn transmit<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    pieces: [Extent; 2],
) -> Result<u32, TxFull> {
    let said = (conn.snd_nxt, receive::window_field(conn));
    match conn.flags.contains(Flags::TIMESTAMPS) {
        true => emit::data_of_two::<T, true>(conn, local, queue, said, pieces),
        false => emit::data_of_two::<T, false>(conn, local, queue, said, pieces),
    }
}
