//! The predicted segment: acknowledges all that is out or nothing, and brings the next bytes or none.
use super::apart;
use super::edges;
use super::folded::{self, Request};
use super::parse::{self, Head, Segment};
use crate::conn::{Conn, Flags, State};
use crate::device::RxFrame;
use crate::group::{FlowGroup, Groups};
use crate::input::eth;
use crate::ipv4;
use crate::limits::{RECEIVE_RESERVE, RECEIVE_SHARE, RECEIVE_SHARE_OF_FREE};
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, Meta, NO_MBUF};
use crate::rings::Word;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::Timer;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS, flag};
use crate::tcp::{congestion, send_queue, sent, timestamps};
use crate::time::Instant;
use ix_abi::event::Kind;
use ix_abi::stats::Counter;

/// What makes a segment anything but predictable.
pub(super) const SLOW: Flags = Flags::IN_EVENTS
    .union(Flags::IN_HOLD)
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

/// What has become of a frame, or of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The shortest: it was what a folded connection expects. Nothing but its event has come of it, or its frame.
    Folded,
    /// It was predicted, too. A frame's buffer is not the caller's any more.
    Predicted,
    /// It was not, and nothing has happened.
    Other,
}

impl Way {
    #[inline(always)]
    pub(super) const fn of(predicted: bool) -> Way {
        if predicted { Way::Predicted } else { Way::Other }
    }
}

/// Takes a frame, whose buffer is then not the caller's any more, unless it is [`Way::Other`].
#[inline(always)]
pub fn receive(local: &mut Local, groups: &mut Groups, frame: &RxFrame) -> Way {
    match receive_lone(local, groups, frame) {
        Ok(request) => {
            request.hold::<false>(local);
            Way::Folded
        }
        Err(way) => way,
    }
}

/// The same of the only one of an iteration. If it is what a folded connection expects, the application is told, and may answer before
/// its request is held.
#[inline(always)]
pub fn receive_lone<'a>(
    local: &mut Local,
    groups: &'a mut Groups,
    frame: &RxFrame,
) -> Result<Request<'a>, Way> {
    if local.event_room == 0 {
        return Err(Way::Other);
    }
    let Some(read) = parse::headers(local, frame) else { return Err(Way::Other) };
    let (head, hash, total) = read;
    let id = hash as usize & groups.len().wrapping_sub(1);
    let Some(Some(group)) = groups.get_mut(id) else { return Err(Way::Other) };
    // Not by way of the box: else that is kept for what is rare.
    let group = &mut **group;
    let Some(index) = group.table.find_tuple(&group.conns, hash, head.tuple()) else {
        return Err(Way::of(edges::stranger(group, local, Segment::new(read), frame)));
    };
    let conn = group.conns.at(index);
    let len = total.wrapping_sub(folded::HEADERS);
    let Some(news) = folded::expects(conn, local, group.tx_base, head, len, &frame.mbuf) else {
        return Err(Way::of(unexpected(group, local, index, frame)));
    };
    let FlowGroup { conns, tx_base, frames, .. } = group;
    let conn = conns.at_mut(index);
    *frames += 1;
    Ok(folded::take(conn, local, *tx_base, frame, news, len))
}

/// The same on connection `index`, which is not folded, or gets something else. Reads the headers anew: so that nothing is kept
/// for it by who does not need it.
#[inline(never)]
fn unexpected(group: &mut FlowGroup, local: &mut Local, index: u32, frame: &RxFrame) -> bool {
    let conn = group.conns.at(index);
    let Some(segment) = parse::again(local, frame, conn.hash) else { return false };
    if conn.state != State::Established {
        let kind = (conn.flags, conn.state);
        return edges::unpredicted(group, local, index, kind, segment, frame);
    }
    otherwise(group, local, index, segment, frame)
}

/// The same on one that is established.
#[inline(always)]
fn otherwise(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let FlowGroup { conns, tx_base, frames, .. } = &mut *group;
    let conn = conns.at_mut(index);
    if conn.is_folded() {
        if apart::take(conn, local, *tx_base, segment, frame) {
            *frames += 1;
            return true;
        }
        conns.settle(index);
    }
    let conn = &mut conns[index];
    if !predicted(conn, local, *tx_base, segment) {
        let kind = (conn.flags, conn.state);
        return edges::unpredicted(group, local, index, kind, segment, frame);
    }
    if !may_hold(conn, local, &frame.mbuf) {
        return false;
    }
    *frames += 1;
    if take(conn, local, segment.head(), segment.total(), frame) {
        follow_up(group, local, index);
    }
    true
}

/// Takes what the segment acknowledges and its window, and its payload. Whether something is left for
/// [`follow_up`].
#[inline(never)]
fn take(
    conn: &mut Conn,
    local: &mut Local,
    segment: Head<'_>,
    total: u32,
    frame: &RxFrame,
) -> bool {
    let mut header = HEADERS;
    if conn.flags.contains(Flags::TIMESTAMPS) {
        timestamps::take_in_order(conn, local.now, segment.stamp());
        header += TIMESTAMPS as u16;
    }
    let acked = segment.ack().since(conn.snd_una);
    conn.snd_wnd = segment.window() << conn.snd_shift;
    conn.max_wnd = conn.max_wnd.max(conn.snd_wnd);
    conn.wl1 = conn.rcv_nxt;
    conn.wl2 = segment.ack();
    let more = acked > 0 && acknowledged(conn, local, acked);
    // `predicted` has seen that it is not negative.
    let len = total + eth::HEADER as u32 - u32::from(header);
    let mbuf = Mbuf::from_raw(frame.mbuf.index());
    post(conn, local, (frame.offset + header, len), acked, mbuf);
    more | (len > 0 && owes(conn, local))
}

/// Bytes of headers without options.
const HEADERS: u16 = (BELOW + HEADER) as u16;

/// Whether the segment is what the connection expects.
#[inline(always)]
fn predicted(conn: &Conn, local: &Local, tx_base: u32, segment: Segment<'_>) -> bool {
    const STAMPED: Flags = Flags::ACCEPTED.union(Flags::TIMESTAMPS);
    let flags = conn.flags & SLOW.union(STAMPED);
    let header = if flags == STAMPED && segment.is_stamped(flag::ACK) && in_time(conn, segment) {
        ipv4::HEADER + HEADER + TIMESTAMPS
    } else if flags == Flags::ACCEPTED && segment.is_bare(flag::ACK) {
        ipv4::HEADER + HEADER
    } else {
        return false;
    };
    let usual = conn.is_usual()
        && conn.is_in_order()
        && conn.acl == local.acl_generation
        && segment.seq() == conn.rcv_nxt;
    if !usual {
        return false;
    }
    let Some(len) = segment.total().checked_sub(header as u32) else { return false };
    let expected = if segment.ack() == conn.snd_una {
        len > 0
    } else {
        // All that is out and all that was given, and no frame in flight refers to it.
        segment.ack() == conn.snd_end
            && conn.snd_max == conn.snd_end
            && conn.first.marks.is_empty()
            && local.tx.has_left(conn.last_tx.wrapping_sub(tx_base))
    };
    expected && len <= conn.rcv_edge.since(conn.rcv_nxt)
}

/// Whether its timestamp is none of the past (RFC 7323 §5.3 R1).
#[inline(always)]
fn in_time(conn: &Conn, segment: Segment<'_>) -> bool {
    segment.stamp().wrapping_sub(conn.ts_recent) as i32 >= 0
}

/// Bytes of its IP and TCP headers, if the segment has these control bits, a timestamp exactly if it must, which is
/// none of the past (RFC 7323 §5.3 R1), and nothing else beside the data.
#[inline(always)]
pub(super) fn header_len(conn: &Conn, segment: Segment<'_>, flags: u8) -> Option<u32> {
    if conn.flags.contains(Flags::TIMESTAMPS) {
        (segment.is_stamped(flags) && in_time(conn, segment))
            .then_some((ipv4::HEADER + HEADER + TIMESTAMPS) as u32)
    } else {
        segment.is_bare(flags).then_some((ipv4::HEADER + HEADER) as u32)
    }
}

/// Whether half of the connection's share allows it one more buffer, for buffers of this core's own: beyond, and if one
/// that it cannot have, it is `tcp::receive`'s, by the same rule, and where small segments go together (`tcp::crumbs`).
#[inline(always)]
fn may_hold(conn: &Conn, local: &Local, mbuf: &Mbuf) -> bool {
    const { assert!(RECEIVE_SHARE > 0) }
    may_take(local, mbuf) && (conn.rx_buffers == 0 || is_within_share(conn, local.pool.available()))
}

/// The same for one that holds none.
#[inline(always)]
pub(super) fn may_take(local: &Local, mbuf: &Mbuf) -> bool {
    local.pool.owns(mbuf) && local.pool.available() > RECEIVE_RESERVE
}

#[inline(always)]
fn is_within_share(conn: &Conn, free: usize) -> bool {
    let held = usize::from(conn.rx_buffers);
    2 * held < usize::from(RECEIVE_SHARE) && 2 * held * RECEIVE_SHARE_OF_FREE < free
}

/// Everything that was out is acknowledged, and its memory the application's again. Whether there is more of that, which
/// [`release_rest`] gives back.
#[inline(always)]
#[must_use]
pub(super) fn acknowledged(conn: &mut Conn, local: &mut Local, acked: u32) -> bool {
    // One segment was out, and sent once: each is measured.
    let ticks = sent::clock(local.now).wrapping_sub(conn.first.at);
    conn.rtt.measured_ticks(ticks, local.rto_min_us);
    conn.timed = conn.snd_max;
    conn.snd_una = conn.snd_max;
    conn.released = conn.snd_max;
    conn.timer = Timer::Retransmit;
    conn.retries = 0;
    conn.trying_since = Instant::NEVER;
    conn.rto_at = Instant::NEVER;
    if congestion::is_in_use(conn, acked) {
        congestion::grow(conn, acked, acked, local.now);
    }
    send_queue::release_own(conn, local)
}

/// Tells the application of what came, which holds it from then on: `len` bytes of the buffer from `offset`.
#[inline(always)]
fn post(conn: &mut Conn, local: &mut Local, (offset, len): (u16, u32), acked: u32, mbuf: Mbuf) {
    let window = u64::from(conn.snd_wnd.min(conn.cc.window()));
    let (kind, len, words) = if len == 0 {
        local.pool.free(mbuf);
        (Kind::Sent, acked, [window, 0])
    } else {
        let addr = append(conn, local, (offset, len), mbuf);
        match acked {
            0 => (Kind::Recv, len, [addr, 0]),
            _ => (Kind::RecvSent, len, [addr, u64::from(acked) | window << 32]),
        }
    };
    event(conn, local, kind, len, words);
}

/// Writes an event of the connection, of a kind with at most two words.
#[inline(always)]
pub(super) fn event(
    conn: &Conn,
    local: &mut Local,
    kind: Kind,
    len: u32,
    [first, second]: [u64; 2],
) {
    if let Some(app) = &mut local.app {
        let (low, high) = (second as u32, (second >> 32) as u32);
        let [handle, cookie] = [conn.name.0, conn.cookie.0].map(Word::One);
        let head = Word::Halves(kind.0.into(), len);
        app.rings.post_words([head, handle, cookie, Word::One(first), Word::Halves(low, high)]);
    }
    local.event_room -= 1;
    local.stats.add(Counter::Events, 1);
}

/// Appends the buffer to what the application holds; its address there.
#[inline(always)]
fn append(conn: &mut Conn, local: &mut Local, (offset, len): (u16, u32), mut mbuf: Mbuf) -> u64 {
    let area = local.pool.area();
    let word = conn.rcv_nxt.0;
    area.set_meta(&mut mbuf, Meta { next: NO_MBUF, offset, len: len as u16, references: 0, word });
    area.set_holder(&mbuf, Holder::group(conn.name.group()));
    let addr = area.user_addr(&mbuf, offset);
    let index = mbuf.into_raw();
    if conn.rx_tail == NO_MBUF {
        conn.rx_head = index;
    } else {
        area.link(conn.rx_tail, index);
    }
    conn.rx_tail = index;
    conn.rx_buffers += 1;
    conn.rx_held += len;
    conn.rcv_nxt = conn.rcv_nxt.plus(len);
    conn.ack_owed += len;
    local.stats.add(Counter::PayloadIn, u64::from(len));
    addr
}

/// Notes that an acknowledgement is owed; whether that cannot wait for the application's answer and a timer that
/// runs anyway.
#[inline(always)]
fn owes(conn: &mut Conn, local: &Local) -> bool {
    if conn.ack_at == Instant::NEVER {
        conn.ack_at = Instant(local.now.0 + local.profile.delayed_ack.0);
    }
    conn.ack_owed >= 2 * u32::from(conn.mss) || conn.ack_at < conn.timer_at
}

#[inline(never)]
fn follow_up(group: &mut FlowGroup, local: &mut Local, index: u32) {
    send_queue::release_rest(&mut group.conns[index], &mut group.segments, local);
    let conn = &group.conns[index];
    if conn.ack_owed >= 2 * u32::from(conn.mss) {
        group.want_output(index, local);
        group.arm(index, local);
    } else if conn.ack_at < conn.timer_at {
        local.owing.push_whole(conn);
    }
}
