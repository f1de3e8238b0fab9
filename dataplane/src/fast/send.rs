//! The predicted call: a `sendv` of one piece that fits a segment and its windows, on a connection that has
//! nothing else to send. It leaves as a frame at once; the doorbell comes with the transmit stage.
use super::emit;
use crate::calls::send::locate;
use crate::conn::{Conn, Flags, State};
use crate::device::TxQueue;
use crate::engine::Engine;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, NO_MBUF};
use crate::tcp::congestion::CongestionControl;
use crate::tcp::send_queue::{self, Source};
use crate::tcp::{blocks, receive};
use crate::usermem::Extent;
use ix_abi::stats::Counter;
use ix_abi::{GroupId, Handle, Op};

/// The first word of a `sendv` with one entry that wants no result.
const ONE_PIECE: u64 = Op::Sendv.0 as u64 | 1 << 32;

const SLOW: Flags = Flags::IN_OUTPUT
    .union(Flags::APP_CLOSED)
    .union(Flags::APP_GONE)
    .union(Flags::ENDED)
    .union(Flags::FIN_QUEUED)
    .union(Flags::REFUSED)
    .union(Flags::RESET)
    .union(Flags::PERSIST)
    .union(Flags::BACKED_OFF)
    .union(Flags::RECOVERY)
    .union(Flags::RETRANSMIT)
    .union(Flags::PROBE)
    .union(Flags::UNPREDICTED);

/// What the record says; each word is read once.
struct Wish {
    handle: Handle,
    addr: u64,
    len: u64,
    done: u64,
}

/// Runs the call at the head of the ring and consumes it, if it is a predicted one; `ready` slots are there.
/// `false`: it is not, and nothing has happened.
#[inline(always)]
pub fn sendv<T: TxQueue>(engine: &mut Engine, queue: &mut T, ready: u32) -> bool {
    let Engine { local, groups, .. } = engine;
    let Some(wish) = wish(local, ready) else { return false };
    let id = wish.handle.group();
    let Some(Some(group)) = groups.get_mut(usize::from(id.0)) else { return false };
    let index = wish.handle.index();
    let FlowGroup { conns, segments, tx_base, .. } = &mut **group;
    let Some(conn) = conns.get_mut(index) else { return false };
    if !predicted(conn, local, &wish) {
        return false;
    }
    let Some((extent, source)) = piece(local, id, &wish) else { return false };
    if !send_queue::append(conn, segments, extent, source) {
        source.release(local);
        return false;
    }
    local.stats.add(Counter::PayloadOut, wish.len);
    if let Some(app) = &mut local.app {
        app.rings.consume(1);
    }
    if wish.done > 0 && !returned(conn, local, wish.done) {
        return_and_send(group, local, queue, index, &extent, wish.done);
    } else if !transmit(conn, local, queue, *tx_base, &extent) {
        follow_up(group, local, index);
    }
    true
}

/// Sends all that is queued, which is `payload`; `false`: there is more to do, see [`follow_up`].
#[inline(always)]
fn transmit<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    payload: &Extent,
) -> bool {
    let Ok(number) = emit::data(conn, local, queue, payload) else { return false };
    conn.last_tx = number.wrapping_add(tx_base);
    conn.sent(local.now);
    conn.rto_at >= conn.timer_at
}

#[inline(always)]
fn wish(local: &Local, ready: u32) -> Option<Wish> {
    let rings = &local.app.as_ref()?.rings;
    if local.slow || rings.call_word(0, 0) != ONE_PIECE {
        return None;
    }
    let handle = rings.call_word(0, 1);
    // More for the same connection follows: all of it may fit one segment.
    if ready > 1 && rings.call_word(1, 1) == handle {
        return None;
    }
    let (addr, len, done) = (rings.call_word(0, 3), rings.call_word(0, 4), rings.call_word(0, 7));
    Some(Wish { handle: Handle(handle), addr, len, done })
}

#[inline(always)]
fn predicted(conn: &Conn, local: &Local, wish: &Wish) -> bool {
    let window = conn.snd_wnd.min(conn.cc.window()).min(u32::from(conn.mss));
    conn.generation == wish.handle.generation()
        && conn.flags & SLOW.union(Flags::ACCEPTED) == Flags::ACCEPTED
        && conn.is_usual()
        && conn.is_in_order()
        && conn.snd_una == conn.snd_end
        && conn.refused_batch != local.batch
        && wish.len.wrapping_sub(1) < u64::from(window)
        && wish.done <= u64::from(conn.rx_held)
        && conn.mac_epoch == local.mac_epoch
        && local.tx.ready()
}

/// The memory that the call names, if it is in one piece.
#[inline(always)]
fn piece(local: &mut Local, group: GroupId, wish: &Wish) -> Option<(Extent, Source)> {
    let received = local.pool.area().received(wish.addr, wish.len, Holder::group(group));
    if let Some((extent, index)) = received {
        local.pool.reference(index);
        return Some((extent, Source::buffer(index)));
    }
    let (extent, source) = locate(local, wish.addr, wish.len).ok()?;
    if u64::from(extent.len()) == wish.len {
        return Some((extent, source));
    }
    source.release(local);
    None
}

/// Takes all received bytes back, if that is what `done` says and they are in one buffer. The window goes out
/// with the segment that follows.
#[inline(always)]
fn returned(conn: &mut Conn, local: &mut Local, done: u64) -> bool {
    if conn.rx_head != conn.rx_tail || done != u64::from(conn.rx_held) || conn.rx_waiting > 0 {
        return false;
    }
    let mbuf = Mbuf::from_raw(conn.rx_head);
    conn.rx_head = NO_MBUF;
    conn.rx_tail = NO_MBUF;
    conn.rx_held = 0;
    conn.rx_buffers -= 1;
    local.pool.return_held(mbuf);
    true
}

/// Returns bytes of several buffers, or not all of one, before the segment that tells of the window.
#[inline(never)]
fn return_and_send<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    payload: &Extent,
    done: u64,
) {
    // `predicted` has checked it.
    let _never_fails = receive::done(group, local, index, done);
    let tx_base = group.tx_base;
    if !transmit(&mut group.conns[index], local, queue, tx_base, payload) {
        follow_up(group, local, index);
    }
}

/// The queue was full, or the timer has to be armed.
#[inline(never)]
fn follow_up(group: &mut FlowGroup, local: &mut Local, index: u32) {
    if group.conns[index].snd_nxt != group.conns[index].snd_end {
        group.want_output(index, local);
    }
    group.arm(index, local);
}
