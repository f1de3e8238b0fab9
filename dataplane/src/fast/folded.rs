//! The shortest way: request and answer on a folded connection ([`crate::conn::FOLDED`]). A segment brings a request and
//! acknowledges the last answer, whole; a call sends an answer that fits a segment, and returns the request. What
//! is told by the connection being folded is not asked again.
use super::emit;
use super::parse::Head;
use super::receive::{event, may_take};
use super::send::ONE_PIECE;
use crate::calls::send::locate;
use crate::conn::{Conn, FOLDED, PLAIN};
use crate::device::{RxFrame, TxQueue};
use crate::ipv4;
use crate::limits::{RECEIVE_SHIFT, RECEIVE_WINDOW};
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, Place};
use crate::rings::Words;
use crate::tcp::receive;
use crate::tcp::sent;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS};
use crate::usermem::Extent;
use ix_abi::Handle;
use ix_abi::event::Kind;
use ix_abi::stats::Counter;

/// Bytes of headers, from IP's on.
pub const HEADERS: u32 = (ipv4::HEADER + HEADER + TIMESTAMPS) as u32;

/// What is said by the segment that a folded connection expects, beside its bytes.
#[derive(Clone, Copy)]
pub struct News {
    /// The window, as its field has it.
    window: u32,
    /// The timestamp.
    stamp: u32,
}

/// Whether a folded connection, under the rules that are in force, gets what it expects: `len` bytes, if its headers have
/// timestamps.
#[inline(always)]
pub fn expects(
    conn: &Conn,
    local: &Local,
    tx_base: u32,
    head: Head<'_>,
    len: u32,
    mbuf: &Mbuf,
) -> Option<News> {
    // It holds nothing.
    let expected = conn.form() == local.form_at_rest
        && head.seq_and_ack() == conn.expected()
        && len != 0
        // RFC 5681 §4.2: two full-sized segments are acknowledged at once. Fewer bytes always fit the window: see `Conn::may_fold`,
        // and `window`.
        && len < 2 * u32::from(conn.mss)
        && local.tx.has_left(conn.last_tx.wrapping_sub(tx_base))
        && may_take(local, mbuf);
    if !expected {
        return None;
    }
    debug_assert!(len <= conn.rcv_edge.since(conn.rcv_nxt));
    // The last, so that they are at hand when they are kept.
    let window = head.window_of_ack()?;
    let stamp = head.stamp();
    (stamp.wrapping_sub(conn.ts_recent) as i32 >= 0).then_some(News { window, stamp })
}

/// A request that the application is told of: it holds it from now on, but no book of buffers says so until [`Request::hold`].
pub struct Request<'a> {
    conn: &'a mut Conn,
    tx_base: u32,
}

/// Takes it, with what it says and `len` bytes.
#[inline(always)]
pub fn take<'a>(
    conn: &'a mut Conn,
    local: &mut Local,
    tx_base: u32,
    frame: &RxFrame,
    news: News,
    len: u32,
) -> Request<'a> {
    match local.pool.has(conn.kept_place().index()) {
        true => take_in::<true>(conn, local, frame, news, len),
        false => take_otherwise(conn, local, frame, news, len),
    }
    Request { conn, tx_base }
}

/// The same for another: a call of its own.
#[inline(never)]
fn take_otherwise(conn: &mut Conn, local: &mut Local, frame: &RxFrame, news: News, len: u32) {
    take_in::<false>(conn, local, frame, news, len);
}

/// The same; `OWN`: the answer was in a buffer of this core's.
#[inline(always)]
fn take_in<const OWN: bool>(
    conn: &mut Conn,
    local: &mut Local,
    frame: &RxFrame,
    news: News,
    len: u32,
) {
    // Nothing is held: so something is out.
    let acked = conn.snd_end.since(conn.snd_una);
    debug_assert!(acked > 0);
    conn.ts_recent = news.stamp;
    conn.snd_wnd = news.window << conn.snd_shift;
    // With a branch: it hardly ever rises.
    if conn.snd_wnd > conn.max_wnd {
        conn.max_wnd = conn.snd_wnd;
    }
    acknowledged::<OWN>(conn, local);
    let offset = frame.offset + (BELOW + HEADER + TIMESTAMPS) as u16;
    let place = Place::of(&frame.mbuf, offset);
    let addr = get(conn, local, place, len);
    let window = u64::from(conn.snd_wnd.min(conn.kept_window()));
    event(conn, local, Kind::RecvSent, len, [addr, u64::from(acked) | window << 32]);
}

impl Request<'_> {
    /// Runs a call, if it is the answer: it returns the request, and sends one piece. `false`: it is not, or there is no room, and
    /// nothing has happened.
    #[inline(always)]
    pub fn answer<T: TxQueue>(&mut self, local: &mut Local, queue: &mut T, words: &Words) -> bool {
        let Request { conn, tx_base } = self;
        let Words { first, handle, addr, len, done } = *words;
        if first != ONE_PIECE || handle != conn.name.0 || !may_send(conn, local, len, done) {
            return false;
        }
        let held = conn.kept_place();
        let Some(place) = local.pool.area().within(held, addr, len, done) else {
            return elsewhere::<T, false, false>(conn, local, queue, *tx_base, (addr, len));
        };
        let sent = send_at::<T, false>(conn, local, queue, *tx_base, (place, len));
        if sent {
            conn.keep_place(place);
        }
        sent
    }

    /// The application has not answered yet. `LONE`: none else was told of anything.
    #[inline(always)]
    pub fn hold<const LONE: bool>(self, local: &mut Local) {
        let Request { conn, .. } = self;
        hold(conn, local);
        match LONE {
            true => local.owing.push_lone(conn),
            false => local.owing.push(conn),
        }
    }
}

/// The segment that was out has arrived: its memory is the application's again. The congestion window stays, see
/// [`may_answer`].
#[inline(always)]
pub(super) fn acknowledged<const OWN: bool>(conn: &mut Conn, local: &mut Local) {
    let ticks = sent::clock(local.now).wrapping_sub(sent::clock(conn.trying_since));
    conn.snd_una = conn.snd_end;
    conn.rtt.follow_ticks(ticks);
    if OWN {
        local.pool.free_own(conn.kept_place().mbuf());
    } else {
        conn.kept_source().release(local);
    }
}

/// The application holds `len` bytes at that place from now on; their address there.
#[inline(always)]
pub(super) fn get(conn: &mut Conn, local: &mut Local, place: Place, len: u32) -> u64 {
    conn.keep_place(place);
    conn.rx_held = len;
    conn.rcv_nxt = conn.rcv_nxt.plus(len);
    local.stats.add(Counter::PayloadIn, u64::from(len));
    local.pool.area().user_addr_at(place)
}

/// Books it.
#[inline(always)]
pub(super) fn hold(conn: &mut Conn, local: &mut Local) {
    let holder = Holder::group(conn.name.group());
    // Who wants more of it takes the connection up first.
    local.pool.area().begin(conn.kept_place(), conn.rx_held as u16, holder);
    conn.trying_since = local.now;
}

/// Whether the connection is a folded one of this name, `AS_PLAIN` as it says, that may send `len` bytes now and return `done`.
#[inline(always)]
pub fn may_answer<const AS_PLAIN: bool>(
    conn: &Conn,
    local: &Local,
    name: Handle,
    len: u64,
    done: u64,
) -> bool {
    conn.acl & (FOLDED | PLAIN) == if AS_PLAIN { FOLDED | PLAIN } else { FOLDED }
        && conn.name == name
        // So nothing is out.
        && done > 0
        && may_send(conn, local, len, done)
}

/// The same of one that is, and has that name.
#[inline(always)]
fn may_send(conn: &Conn, local: &Local, len: u64, done: u64) -> bool {
    len.wrapping_sub(1) < u64::from(conn.mss)
        && done == u64::from(conn.rx_held)
        && conn.snd_wnd >= len as u32
        // Not in full use, see `congestion::is_in_use`.
        && u64::from(conn.kept_window()) >= len + u64::from(conn.mss)
        && conn.mac_epoch == local.mac_epoch
        && local.tx.ready()
}

/// Sends `len` bytes from `addr`, and takes the request back, which is `done` bytes. `false`: it is not memory that may be sent, or
/// there is no room, and nothing has happened. Part of its caller, which is all that it is for.
#[inline(always)]
pub fn answer<T: TxQueue, const AS_PLAIN: bool>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    (addr, len, done): (u64, u64, u64),
) -> bool {
    let area = local.pool.area();
    let Some(place) = area.part(conn.kept_place(), addr, len, done) else {
        return elsewhere::<T, AS_PLAIN, true>(conn, local, queue, tx_base, (addr, len));
    };
    let sent = send_at::<T, AS_PLAIN>(conn, local, queue, tx_base, (place, len));
    if sent {
        area.take_back(place);
        conn.keep_place(place);
        local.owing.answered(conn);
    }
    sent
}

/// The same from other memory than what holds the request. `HELD`: that is booked.
#[inline(never)]
fn elsewhere<T: TxQueue, const AS_PLAIN: bool, const HELD: bool>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    (addr, len): (u64, u64),
) -> bool {
    let Ok((extent, source)) = locate(local, addr, len) else { return false };
    let whole = u64::from(extent.len()) == len;
    let sent = whole
        && match local.tx_checksum {
            true => send_as::<T, true, AS_PLAIN>(conn, local, queue, tx_base, extent),
            false => send_as::<T, false, AS_PLAIN>(conn, local, queue, tx_base, extent),
        };
    if !sent {
        source.release(local);
        return false;
    }
    let request = conn.kept_place().mbuf();
    conn.keep_place(Place::NOWHERE);
    conn.own_segment.refer(extent, source);
    if HELD {
        local.owing.answered(conn);
        local.pool.return_held(request);
    } else {
        local.pool.free(request);
    }
    true
}

/// The window field of an answer, see `tcp::receive::window_field_of`: nothing that was received waits, and no FIN has
/// come.
#[inline(always)]
fn window(conn: &mut Conn) -> u32 {
    let told = conn.rcv_edge.since(conn.rcv_nxt);
    const {
        assert!(
            RECEIVE_WINDOW >= 3 * u16::MAX as u32,
            "two full-sized segments fit after each answer"
        );
    }
    debug_assert!(told <= RECEIVE_WINDOW);
    if told + u32::from(conn.mss) > RECEIVE_WINDOW {
        return told >> RECEIVE_SHIFT;
    }
    core::hint::cold_path();
    conn.rcv_edge = conn.rcv_nxt.plus(RECEIVE_WINDOW);
    RECEIVE_WINDOW >> RECEIVE_SHIFT
}

/// Sends `len` bytes from a place, which the connection is to keep. `false`: there is no room.
#[inline(always)]
fn send_at<T: TxQueue, const AS_PLAIN: bool>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    (place, len): (Place, u64),
) -> bool {
    let area = local.pool.area();
    // Twice, each for what it knows of checksums; without them nobody looks where it is for us.
    if local.tx_checksum {
        let extent = area.extent_at(place, len);
        send_as::<T, true, AS_PLAIN>(conn, local, queue, tx_base, extent)
    } else {
        let extent = area.extent_at(place, len);
        send_as::<T, false, AS_PLAIN>(conn, local, queue, tx_base, extent)
    }
}

/// Sends `extent`, which the connection is to keep. `false`: there is no room.
#[inline(always)]
fn send_as<T: TxQueue, const OFFLOAD: bool, const AS_PLAIN: bool>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    tx_base: u32,
    extent: Extent,
) -> bool {
    let len = extent.len();
    // Before the window is decided, and so not in one go with the count of packets: else vectors are made of the two.
    let options = if AS_PLAIN { 0 } else { TIMESTAMPS };
    let bytes = u64::from((BELOW + HEADER + options) as u32 + len);
    local.stats.add(Counter::TxBytes, bytes);
    let window = if AS_PLAIN { receive::window_field_beside(conn, 0).into() } else { window(conn) };
    let (said, sum) = ((conn.snd_end, window), conn.rtt.kept());
    let pushed = match AS_PLAIN {
        true => emit::data::<T, false>(conn, local, queue, OFFLOAD, said, sum, extent),
        false => emit::data::<T, true>(conn, local, queue, OFFLOAD, said, sum, extent),
    };
    let Ok(number) = pushed else {
        local.stats.add(Counter::TxBytes, bytes.wrapping_neg());
        return false;
    };
    conn.snd_end = conn.snd_end.plus(len);
    conn.rx_held = 0;
    conn.last_tx = number.wrapping_add(tx_base);
    conn.trying_since = local.now;
    local.stats.add(Counter::PayloadOut, u64::from(len));
    debug_assert!(conn.timer_at.0 <= local.now.0 + conn.rtt.settled(local.rto_min_us).0);
    true
}
