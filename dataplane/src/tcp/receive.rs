//! Payload and FIN of an acceptable segment: to the application in order, by reference (small ones that it piles
//! up: [`crumbs`]); and the window, which the application's pace opens.
use crate::conn::{Conn, Flags, Pending, State};
use crate::group::FlowGroup;
use crate::limits::{
    RECEIVE_RESERVE, RECEIVE_SHARE, RECEIVE_SHARE_OF_FREE, RECEIVE_SHIFT, RECEIVE_WINDOW,
};
use crate::local::Local;
use crate::mbuf::{Mbuf, Meta, NO_MBUF};
use crate::tcp::input::challenge;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Packet, flag};
use crate::tcp::{acks, close, crumbs, reassembly};
use ix_abi::stats::{Counter, Drop};
use ix_abi::{DeadReason, Status};

/// Takes the payload and FIN of a segment that lies in the window.
#[inline]
pub fn handle(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mbuf: Mbuf) {
    let conn = &mut group.conns[index];
    if !conn.state.can_receive() {
        // Behind the peer's FIN: a repetition of it at best.
        challenge(group, local, index);
        return local.pool.free(mbuf);
    }
    if packet.len == 0 {
        local.pool.free(mbuf);
        if packet.seq == conn.rcv_nxt {
            fin(group, local, index);
        } else {
            challenge(group, local, index);
        }
        return;
    }
    if conn.flags.contains(Flags::APP_CLOSED) {
        local.stats.drop(Drop::TcpAfterClose);
        local.pool.free(mbuf);
        return close::abort(group, local, index, DeadReason::Aborted);
    }
    if !local.rest.is_none() {
        return in_pieces(group, local, index, packet, mbuf);
    }
    keep(group, local, index, packet, mbuf);
}

/// A segment in several buffers: the part in each is kept as if it had come alone. After one for which there is
/// no room, nothing is: the peer sends it again.
#[cold]
#[inline(never)]
fn in_pieces(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mbuf: Mbuf) {
    let area = local.pool.area();
    let mut rest = local.rest.take();
    let (mut cut, mut left, mut seq) = (packet.cut, packet.len, packet.seq);
    let mut piece = Some((mbuf, packet.offset, local.rest_from.saturating_sub(packet.offset)));
    while let Some((mbuf, offset, bytes)) = piece {
        piece = rest.pop(area);
        let old = cut.min(bytes);
        cut -= old;
        let len = left.min(bytes - old);
        if len == 0 {
            local.pool.free(mbuf);
            continue;
        }
        left -= len;
        let flags = if left == 0 { packet.flags } else { packet.flags & !flag::FIN };
        let part = Packet { seq, offset: offset + old, cut: 0, len, flags, ..*packet };
        let next = group.conns[index].rcv_nxt == seq;
        keep(group, local, index, &part, mbuf);
        seq = seq.plus(u32::from(len));
        if next && group.conns[index].rcv_nxt.before(seq) {
            left = 0;
        }
    }
    let conn = &mut group.conns[index];
    if local.rest_merged != 0 && packet.len > local.rest_merged {
        // RFC 5681 §4.2: these were two full-sized segments at least, whatever we send ourselves.
        conn.ack_owed = conn.ack_owed.max(2 * u32::from(conn.mss));
    }
}

/// Keeps the payload of a segment that is all in one buffer, and takes its FIN.
#[inline(always)]
fn keep(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mut mbuf: Mbuf) {
    let conn = &mut group.conns[index];
    let meta = Meta {
        next: NO_MBUF,
        offset: packet.offset + packet.cut,
        len: packet.len,
        references: 0,
        word: packet.seq.0,
    };
    local.pool.area().set_meta(&mut mbuf, meta);
    let continues = packet.seq == conn.rcv_nxt;
    // What continues the stream takes the place of what lies behind a hole, if it must: else data
    // behind a hole could keep the hole open for ever.
    let may = continues && crumbs::fits(conn, local, &mbuf)
        || may_hold(conn, local, &mbuf)
        || continues && reassembly::drop_last(conn, local);
    if !may {
        local.pool.free(mbuf);
        return challenge(group, local, index);
    }
    if !continues {
        // RFC 5681 §4.2: at once, so that the peer counts. A FIN behind a hole comes again.
        reassembly::insert(conn, local, mbuf);
        return challenge(group, local, index);
    }
    append(conn, local, mbuf, meta.len);
    if conn.ooo_head != NO_MBUF {
        while let Some(next) = reassembly::take(conn, local) {
            let len = local.pool.area().meta(&next).len;
            append(conn, local, next, len);
        }
        conn.flags |= Flags::ACK_NOW;
    }
    group.want_event(index, Pending::RECV, local);
    group.want_output(index, local);
    let end = packet.seq.plus(u32::from(packet.len));
    if packet.has(flag::FIN) && group.conns[index].rcv_nxt == end {
        fin(group, local, index);
    }
}

/// Whether the connection may hold one more buffer: its share, which shrinks as buffers get scarce.
#[inline]
fn may_hold(conn: &Conn, local: &mut Local, mbuf: &Mbuf) -> bool {
    // Where it came from: this core may have buffers in plenty, and no queue that they feed.
    let free = local.pool.available_at_home(mbuf);
    if free <= RECEIVE_RESERVE {
        local.stats.drop(Drop::NoBuffer);
        return false;
    }
    if usize::from(conn.rx_buffers) >= share(local, mbuf) {
        local.stats.drop(Drop::TcpReceiveShare);
        return false;
    }
    true
}

/// The buffers that a connection may hold, of which this is one.
#[inline]
pub fn share(local: &Local, mbuf: &Mbuf) -> usize {
    let free = local.pool.available_at_home(mbuf);
    usize::from(RECEIVE_SHARE).min(free / RECEIVE_SHARE_OF_FREE).max(1)
}

/// Appends a buffer's payload to what the application is to get. Its meta is set, `next` is not looked at.
#[inline]
fn append(conn: &mut Conn, local: &mut Local, mbuf: Mbuf, len: u16) {
    if crumbs::fits(conn, local, &mbuf) {
        crumbs::join(conn, local, mbuf);
    } else {
        link(conn, local, mbuf);
    }
    let len = u32::from(len);
    conn.rx_waiting += len;
    conn.rcv_nxt = conn.rcv_nxt.plus(len);
    conn.ack_owed = conn.ack_owed.saturating_add(len);
    local.stats.add(Counter::PayloadIn, u64::from(len));
}

/// Makes a buffer the connection's last.
#[inline]
fn link(conn: &mut Conn, local: &mut Local, mut mbuf: Mbuf) {
    let area = local.pool.area();
    let mut meta = area.meta(&mbuf);
    meta.next = NO_MBUF;
    area.set_meta(&mut mbuf, meta);
    let index = mbuf.into_raw();
    if conn.rx_tail == NO_MBUF {
        conn.rx_head = index;
    } else {
        let mut tail = Mbuf::from_raw(conn.rx_tail);
        let mut meta = area.meta(&tail);
        meta.next = index;
        area.set_meta(&mut tail, meta);
        let _stays_in_the_list = tail.into_raw();
    }
    conn.rx_tail = index;
    if conn.rx_undelivered == NO_MBUF {
        conn.rx_undelivered = index;
    }
    conn.rx_buffers += 1;
}

/// The peer's FIN, in order.
fn fin(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    conn.rcv_nxt = conn.rcv_nxt.plus(1);
    conn.flags |= Flags::FIN_RECEIVED;
    reassembly::clear(conn, local);
    let closed = conn.flags.contains(Flags::APP_CLOSED);
    match conn.state {
        State::Established => conn.state = State::CloseWait,
        // Our FIN is not acknowledged, or that was seen before: RFC 9293 §3.10.7.4, eighth.
        State::FinWait1 => conn.state = State::Closing,
        State::FinWait2 => acks::enter_time_wait(group, local, index),
        _ => {}
    }
    if !closed {
        group.want_event(index, Pending::EOF, local);
    }
    challenge(group, local, index);
}

/// The application's `recv_done`.
pub fn done(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    bytes: u64,
) -> Result<(), Status> {
    let conn = &mut group.conns[index];
    if bytes > u64::from(conn.rx_held) {
        return Err(Status::Invalid);
    }
    let mut left = bytes as u32;
    conn.rx_held -= left;
    while left > 0 && conn.rx_head != NO_MBUF {
        let mut mbuf = Mbuf::from_raw(conn.rx_head);
        let mut meta = local.pool.area().meta(&mbuf);
        if left < u32::from(meta.len) {
            meta.offset += left as u16;
            meta.len -= left as u16;
            meta.word = meta.word.wrapping_add(left);
            local.pool.area().set_meta(&mut mbuf, meta);
            let _stays_in_the_list = mbuf.into_raw();
            break;
        }
        left -= u32::from(meta.len);
        conn.rx_head = meta.next;
        conn.rx_buffers -= 1;
        local.pool.return_held(mbuf);
    }
    if conn.rx_head == NO_MBUF {
        conn.rx_tail = NO_MBUF;
    }
    if conn.state.can_receive() && window_moved(conn) {
        challenge(group, local, index);
    }
    Ok(())
}

/// Right edge of the window that could be told now.
#[inline]
fn possible_edge(conn: &Conn) -> WrappingSeq {
    let used = conn.rx_held + conn.rx_waiting;
    conn.rcv_nxt.plus(window_max(conn).saturating_sub(used))
}

/// Largest window that can be told to this peer.
#[inline]
fn window_max(conn: &Conn) -> u32 {
    if conn.flags.contains(Flags::SCALED) { RECEIVE_WINDOW } else { u32::from(u16::MAX) }
}

/// Whether the window's edge could move by `step`, which avoids silly windows
/// (RFC 9293 §3.8.6.2.2).
#[inline]
fn moves_by(conn: &Conn, step: u32) -> bool {
    let edge = possible_edge(conn);
    edge.after(conn.rcv_edge) && edge.since(conn.rcv_edge) >= step.min(window_max(conn) / 2)
}

/// Whether the peer should hear of the window now (RFC 5681 §4.2: at least every second segment).
#[inline]
fn window_moved(conn: &Conn) -> bool {
    moves_by(conn, 2 * u32::from(conn.mss))
}

/// The window field of a segment that goes out now; moves the edge if it is worth it.
#[inline]
pub fn window_field(conn: &mut Conn) -> u16 {
    window_field_beside(conn, conn.rx_held + conn.rx_waiting)
}

/// The same while so many received bytes are not returned.
#[inline(always)]
pub fn window_field_beside(conn: &mut Conn, used: u32) -> u16 {
    // Twice, each for constants.
    if conn.flags.contains(Flags::SCALED) {
        window_field_of::<RECEIVE_WINDOW, RECEIVE_SHIFT>(conn, used)
    } else {
        window_field_of::<{ u16::MAX as u32 }, 0>(conn, used)
    }
}

#[inline(always)]
fn window_field_of<const MAX: u32, const SHIFT: u8>(conn: &mut Conn, used: u32) -> u16 {
    const { assert!(MAX >> SHIFT <= u16::MAX as u32) }
    let told = conn.rcv_edge.since(conn.rcv_nxt);
    let possible = MAX.saturating_sub(used);
    let step = u32::from(conn.mss).min(MAX / 2);
    // Both are far below half the circle, or FIN took the last of what was told.
    if (possible.wrapping_sub(told) as i32) < step as i32 {
        return (told >> SHIFT).min(u32::from(u16::MAX)) as u16;
    }
    let field = possible >> SHIFT;
    conn.rcv_edge = conn.rcv_nxt.plus(field << SHIFT).later(conn.rcv_edge);
    field as u16
}
