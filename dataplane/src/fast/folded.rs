//! The shortest way: request and answer on a folded connection ([`crate::conn::FOLDED`]). A segment brings a request and
//! acknowledges the last answer, whole; a call sends an answer that fits a segment, and returns the request. What
//! is told by the connection being folded is not asked again.
use super::emit;
use super::parse::{Head, Segment};
use super::receive::{event, may_take};
use crate::calls::send::locate;
use crate::conn::{Conn, FOLDED};
use crate::device::{RxFrame, TxQueue};
use crate::ipv4;
use crate::limits::{RECEIVE_SHIFT, RECEIVE_WINDOW};
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, Meta, NO_MBUF};
use crate::tcp::congestion::{self, CongestionControl};
use crate::tcp::receive::window_field_of;
use crate::tcp::send_queue::Source;
use crate::tcp::sent;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS, flag};
use crate::time::Instant;
use crate::usermem::Extent;
use ix_abi::Handle;
use ix_abi::event::Kind;
use ix_abi::stats::Counter;

/// Bytes of headers, from IP's on.
const HEADERS: u32 = (ipv4::HEADER + HEADER + TIMESTAMPS) as u32;

/// Whether a folded connection, under the rules that are in force, gets what it expects.
#[inline(always)]
pub fn expects(conn: &Conn, local: &Local, tx_base: u32, segment: Segment<'_>, mbuf: &Mbuf) -> bool {
    let len = segment.total().wrapping_sub(HEADERS);
    conn.acl ^ FOLDED == local.acl_generation
        && segment.is_stamped(flag::ACK)
        && segment.stamp().wrapping_sub(conn.ts_recent) as i32 >= 0
        && segment.seq() == conn.rcv_nxt
        && segment.ack() == conn.snd_end
        && conn.rx_held == 0
        // Of one of length 0 it is more than there can be.
        && len.wrapping_sub(1) < conn.rcv_edge.since(conn.rcv_nxt)
        // RFC 5681 §4.2: two full-sized segments are acknowledged at once.
        && len < 2 * u32::from(conn.mss)
        && local.tx.has_left(conn.last_tx.wrapping_sub(tx_base))
        && may_take(local, mbuf)
}

/// Takes it, which has `total` bytes of IP header and what follows. A call of its own, and the last thing that its caller
/// does. Always `true`.
#[inline(never)]
pub fn take(
    conn: &mut Conn,
    local: &mut Local,
    head: Head<'_>,
    total: u32,
    frame: &RxFrame,
    name: Handle,
) -> bool {
    // Nothing is held: so something is out.
    let acked = conn.snd_end.since(conn.snd_una);
    hear(conn, head);
    acknowledged(conn, local, acked);
    let len = total - HEADERS;
    let addr = hold(conn, local, name, len, frame);
    let window = u64::from(conn.snd_wnd.min(conn.cc.window()));
    event(conn, local, name, Kind::RecvSent, len, [addr, u64::from(acked) | window << 32]);
    conn.ack_at = Instant(local.now.0 + local.profile.delayed_ack.0);
    debug_assert!(acked > 0 && conn.timer_at <= conn.ack_at);
    true
}

/// The peer's clock and window.
#[inline(always)]
fn hear(conn: &mut Conn, head: Head<'_>) {
    conn.ts_recent = head.stamp();
    conn.snd_wnd = head.window() << conn.snd_shift;
    conn.max_wnd = conn.max_wnd.max(conn.snd_wnd);
}

/// The segment that was out has arrived: its memory is the application's again.
#[inline(always)]
fn acknowledged(conn: &mut Conn, local: &mut Local, acked: u32) {
    let ticks = sent::clock(local.now).wrapping_sub(sent::clock(conn.trying_since));
    conn.rtt.measured_ticks(ticks, local.rto_min_us);
    conn.snd_una = conn.snd_end;
    if congestion::is_in_use(conn, acked) {
        congestion::grow(conn, acked, acked, local.now);
    }
    conn.own_segment.source().release(local);
}

/// The application holds the buffer from now on, of which `len` bytes from `offset` are its; their address there.
#[inline(always)]
fn hold(
    conn: &mut Conn,
    local: &mut Local,
    name: Handle,
    len: u32,
    frame: &RxFrame,
) -> u64 {
    let offset = frame.offset + (BELOW + HEADER + TIMESTAMPS) as u16;
    let mut mbuf = Mbuf::from_raw(frame.mbuf.index());
    let area = local.pool.area();
    let word = conn.rcv_nxt.0;
    area.set_meta(&mut mbuf, Meta { next: NO_MBUF, offset, len: len as u16, references: 0, word });
    area.set_holder(&mbuf, Holder::group(name.group()));
    let addr = area.user_addr(&mbuf, offset);
    conn.rx_head = mbuf.into_raw();
    conn.rx_held = len;
    conn.rcv_nxt = conn.rcv_nxt.plus(len);
    local.stats.add(Counter::PayloadIn, u64::from(len));
    addr
}

/// What a call says, see `send::call`.
#[derive(Clone, Copy)]
pub struct Answer {
    pub generation: u32,
    pub len: u64,
    pub done: u64,
}

/// Whether a folded connection may send this now.
#[inline(always)]
pub fn may_answer(conn: &Conn, local: &Local, answer: &Answer) -> bool {
    conn.is_folded()
        && conn.generation == answer.generation
        && answer.len.wrapping_sub(1) < u64::from(conn.mss)
        // Not 0: so nothing is out.
        && conn.rx_held > 0
        && answer.done == u64::from(conn.rx_held)
        && conn.snd_wnd >= answer.len as u32
        && conn.cc.window() >= answer.len as u32
        && conn.mac_epoch == local.mac_epoch
        && local.tx.ready()
}

/// Sends `len` bytes from `addr`, and takes the request back. `false`: it is not memory that may be sent, or there is no
/// room, and nothing has happened. A call of its own, and the last thing that its caller does.
#[inline(never)]
pub fn answer<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    addr: u64,
    len: u64,
) -> bool {
    let mbuf = Mbuf::from_raw(conn.rx_head);
    let Some(extent) = local.pool.area().part(&mbuf, addr, len) else {
        let _still_held = mbuf.into_raw();
        return elsewhere(conn, local, queue, tx_base, addr, len);
    };
    let sent = send(conn, local, queue, tx_base, extent, Source::sole(mbuf));
    if sent {
        let _the_segment_has_it = local.pool.take_back(Mbuf::from_raw(conn.rx_head)).into_raw();
    }
    sent
}

/// The same from other memory than what holds the request.
#[inline(never)]
fn elsewhere<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    addr: u64,
    len: u64,
) -> bool {
    let Ok((extent, source)) = locate(local, addr, len) else { return false };
    let whole = u64::from(extent.len()) == len;
    let sent = whole && send(conn, local, queue, tx_base, extent, source);
    if sent {
        local.pool.return_held(Mbuf::from_raw(conn.rx_head));
    } else {
        source.release(local);
    }
    sent
}

/// Sends `extent`, which is the connection's from then on. `false`: there is no room.
#[inline(always)]
fn send<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    extent: Extent,
    source: Source,
) -> bool {
    let window = window_field_of::<RECEIVE_WINDOW, RECEIVE_SHIFT>(conn, 0);
    let said = (conn.snd_end, window);
    let Ok(number) = emit::data::<T, true>(conn, local, queue, said, extent) else { return false };
    let len = extent.len();
    conn.own_segment.refer(extent, source);
    conn.snd_end = conn.snd_end.plus(len);
    conn.rx_held = 0;
    conn.last_tx = number.wrapping_add(tx_base);
    conn.trying_since = local.now;
    local.stats.add(Counter::PayloadOut, u64::from(len));
    local.stats.add(Counter::TxBytes, (BELOW + HEADER + TIMESTAMPS) as u64 + u64::from(len));
    debug_assert!(conn.timer_at.0 <= local.now.0 + conn.rtt.timeout().0);
    true
}
