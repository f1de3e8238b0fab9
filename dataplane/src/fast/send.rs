//! The predicted call: a `sendv` of one piece that fits a segment and its windows, on a connection that has
//! nothing else to send. It leaves as a frame at once; the doorbell comes with the transmit stage.
use super::brief::brief;
use super::emit;
use super::{Way, folded, pieces};
use crate::calls::send::locate;
use crate::conn::{Conn, Flags};
use crate::device::TxQueue;
use crate::engine::Engine;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Mbuf, Meta, NO_MBUF, Place};
use crate::rings::Words;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::receive;
use crate::tcp::send_queue::{self, Source};
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS};
use crate::time::Instant;
use ix_abi::stats::Counter;
use ix_abi::{Handle, Op};

/// The first word of a `sendv` with one entry that wants no result.
pub(super) const ONE_PIECE: u64 = Op::Sendv.0 as u64 | 1 << 32;

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
    .union(Flags::UNPREDICTED)
    .union(Flags::V6);

/// What the record says; each word is read once.
pub(super) struct Wish {
    pub handle: Handle,
    pub addr: u64,
    pub len: u64,
    pub done: u64,
}

/// Runs calls from the head of the ring on as long as they are predicted ones, at most `most` of the `ready` slots that are there;
/// how many. The caller consumes them. Not while somebody looks at each packet (`Local::slow`).
#[inline(never)]
pub fn calls<T: TxQueue>(engine: &mut Engine, queue: &mut T, most: u32, ready: u32) -> u32 {
    let mut done = 0;
    while done < most && run(engine, queue, done, ready - done) != Way::Other {
        done += 1;
    }
    done
}

/// Runs the call behind which there is no other, if it is a predicted one; it says `words`, and was consumed. Apart from [`calls`],
/// so that what that keeps from one to the next takes no registers here.
#[inline(always)]
pub fn call<T: TxQueue>(engine: &mut Engine, queue: &mut T, words: Words) -> Way {
    // It is consumed.
    run_words(engine, queue, words, u32::MAX, 1)
}

/// Runs the call `ahead` slots behind the head of the ring, if it is a predicted one; `ready` slots are there from it on. The
/// caller consumes it, unless it is [`Way::Other`].
#[inline(always)]
fn run<T: TxQueue>(engine: &mut Engine, queue: &mut T, ahead: u32, ready: u32) -> Way {
    let Some(app) = &engine.local.app else { return Way::Other };
    let words = app.rings.record(ahead).words();
    // More for the same connection follows: all of it may fit one segment.
    let followed = ready > 1 && app.rings.record(ahead.wrapping_add(1)).word::<1>() == words.handle;
    if followed && words.first == ONE_PIECE {
        return Way::Other;
    }
    run_words(engine, queue, words, ahead, ready)
}

/// The same of the call that says `words`.
#[inline(always)]
fn run_words<T: TxQueue>(
    engine: &mut Engine,
    queue: &mut T,
    words: Words,
    ahead: u32,
    ready: u32,
) -> Way {
    let Engine { local, groups, .. } = &mut *engine;
    let Words { first, handle, addr, len, done } = words;
    if first != ONE_PIECE {
        return Way::of(match first {
            pieces::TWO_PIECES => pieces::call(engine, queue, ahead, ready),
            _ => brief(engine, queue, first, Handle(handle), addr),
        });
    }
    let handle = Handle(handle);
    let Some(Some(group)) = groups.get_mut(usize::from(handle.group().0)) else {
        return Way::Other;
    };
    // Not by way of the box: else that is kept for what is rare.
    let group = &mut **group;
    let tx_base = group.tx_base;
    let Some(conn) = group.conns.get_mut(handle.index()) else { return Way::Other };
    if folded::may_answer::<false>(conn, local, handle, len, done) {
        let said = (addr, len, done);
        let sent = folded::answer::<T, false>(conn, local, queue, tx_base, said);
        return if sent { Way::Folded } else { Way::Other };
    }
    Way::of(otherwise(group, local, queue, handle, ahead))
}

/// The same on a connection that is not folded, or does something else. Reads the record anew, and believes what it
/// says now, but for the handle.
#[inline(never)]
fn otherwise<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    handle: Handle,
    ahead: u32,
) -> bool {
    let Some(app) = &local.app else { return false };
    let Words { first, addr, len, done, .. } = app.rings.record(ahead).words();
    let wish = Wish { handle, addr, len, done };
    let (index, tx_base) = (handle.index(), group.tx_base);
    let conn = group.conns.at_mut(index);
    if conn.is_folded() {
        let one = first == ONE_PIECE;
        let said = (addr, len, done);
        if one && folded::may_answer::<true>(conn, local, handle, len, done) {
            return folded::answer::<T, true>(conn, local, queue, tx_base, said);
        }
        group.conns.settle(index);
    }
    if first != ONE_PIECE {
        return false;
    }
    let conn = &mut group.conns[index];
    if !predicted(conn, local, &wish) {
        return false;
    }
    let Wish { addr, len, done, .. } = wish;
    if !answers_in_place(conn, local, &wish) {
        return from_elsewhere(group, local, queue, index, (addr, len, done));
    }
    local.stats.add(Counter::PayloadOut, len);
    // All that was received is returned.
    let window = receive::window_field_beside(conn, 0);
    if transmit(conn, local, queue, tx_base, window) {
        fold(group, local, index);
    } else {
        follow_up(group, local, index);
    }
    true
}

/// The same for other memory than what holds the request.
#[inline(never)]
fn from_elsewhere<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    (addr, len, done): (u64, u64, u64),
) -> bool {
    let tx_base = group.tx_base;
    let conn = &mut group.conns[index];
    if !piece(conn, local, addr, len) {
        return false;
    }
    local.stats.add(Counter::PayloadOut, len);
    if done > 0 && !returned(conn, local, done) {
        // `predicted` has checked it.
        let _never_fails = receive::done(group, local, index, done);
    }
    let conn = &mut group.conns[index];
    let window = receive::window_field(conn);
    if transmit(conn, local, queue, tx_base, window) {
        fold(group, local, index);
    } else {
        follow_up(group, local, index);
    }
    true
}

/// Folds the connection, if it is one that may be. While it is, none of its timers is due before the wheel looks at it.
#[inline(always)]
fn fold(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.may_fold(local.acl_generation, local.rto_min_us) {
        let soonest = Instant(local.now.0 + local.profile.rto_min.0);
        if conn.timer_at > soonest {
            group.arm_rather_early(index, soonest, local);
        }
        let conn = &mut group.conns[index];
        conn.fold(local.pool.area(), emit::sums(conn, local.address_sum));
    }
}

/// Sends all that is queued; `false`: there is more to do, see [`follow_up`].
#[inline(always)]
fn transmit<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    window: u16,
) -> bool {
    let len = u64::from(conn.own_segment.extent().len());
    if conn.flags.contains(Flags::TIMESTAMPS) {
        local.stats.add(Counter::TxBytes, (BELOW + HEADER + TIMESTAMPS) as u64 + len);
        transmit_as::<T, true>(conn, local, queue, tx_base, window)
    } else {
        local.stats.add(Counter::TxBytes, (BELOW + HEADER) as u64 + len);
        transmit_as::<T, false>(conn, local, queue, tx_base, window)
    }
}

/// A call of its own, so that what it works on stays in registers.
#[inline(never)]
fn transmit_as<T: TxQueue, const STAMPED: bool>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    window: u16,
) -> bool {
    let offload = local.tx_checksum;
    let (seq, extent) = (conn.snd_nxt, conn.own_segment.extent());
    let said = (seq, window.into());
    let sum = emit::sums(conn, local.address_sum);
    let Ok(number) = emit::data::<T, STAMPED>(conn, local, queue, offload, said, sum, extent)
    else {
        let header = if STAMPED { BELOW + HEADER + TIMESTAMPS } else { BELOW + HEADER };
        let bytes = header as u64 + u64::from(conn.own_segment.extent().len());
        local.stats.add(Counter::TxBytes, bytes.wrapping_neg());
        return false;
    };
    conn.last_tx = number.wrapping_add(tx_base);
    conn.sent(local.now);
    conn.rto_at >= conn.timer_at
}

#[inline(always)]
pub(super) fn predicted(conn: &Conn, local: &Local, wish: &Wish) -> bool {
    let len = wish.len as u32;
    conn.name == wish.handle
        && conn.flags & SLOW.union(Flags::ACCEPTED) == Flags::ACCEPTED
        && conn.is_usual()
        && conn.is_in_order()
        && conn.seg_head == NIL
        && conn.refused_batch != local.batch
        && wish.len.wrapping_sub(1) < u64::from(conn.mss)
        && conn.snd_wnd >= len
        && conn.cc.window() >= len
        && wish.done <= u64::from(conn.rx_held)
        && conn.mac_epoch == local.mac_epoch
        && local.tx.ready()
}

/// Queues the memory that the call names, if it is in one buffer that holds all that the application has of this
/// connection, and the call returns all of that: then the buffer is the segment's from now on, and the window
/// goes out with it.
#[inline(always)]
fn answers_in_place(conn: &mut Conn, local: &mut Local, wish: &Wish) -> bool {
    let all = wish.done == u64::from(conn.rx_held) && wish.done > 0 && conn.rx_waiting == 0;
    if !all || conn.rx_head != conn.rx_tail {
        return false;
    }
    let mbuf = Mbuf::from_raw(conn.rx_head);
    let area = local.pool.area();
    let Meta { offset, len, .. } = area.meta(&mbuf);
    let held = Place::of(&mbuf, offset);
    let Some(place) = area.part(held, wish.addr, wish.len, len.into()) else {
        let _still_held = mbuf.into_raw();
        return false;
    };
    let extent = area.extent_at(place, wish.len);
    send_queue::append_first(conn, extent, Source::sole(local.pool.take_back(mbuf)));
    conn.rx_head = NO_MBUF;
    conn.rx_tail = NO_MBUF;
    conn.rx_held = 0;
    conn.rx_buffers -= 1;
    true
}

/// Takes all received bytes back, if that is what `done` says and they are in one buffer. The window goes out
/// with the segment that follows.
#[inline(always)]
pub(super) fn returned(conn: &mut Conn, local: &mut Local, done: u64) -> bool {
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

/// Queues the memory that the call names, if it is in one piece.
#[inline]
fn piece(conn: &mut Conn, local: &mut Local, addr: u64, len: u64) -> bool {
    let Ok((extent, source)) = locate(local, addr, len) else { return false };
    if u64::from(extent.len()) != len {
        source.release(local);
        return false;
    }
    send_queue::append_first(conn, extent, source);
    true
}

/// The queue was full, or the timer has to be armed.
#[inline(never)]
pub(super) fn follow_up(group: &mut FlowGroup, local: &mut Local, index: u32) {
    if group.conns[index].snd_nxt != group.conns[index].snd_end {
        group.want_output(index, local);
    }
    group.arm_early(index, local);
}
