//! The predicted segment: acknowledges all that is out or nothing, and brings the next bytes or none.
use super::parse::{self, Segment};
use crate::conn::{Conn, Flags, State};
use crate::device::RxFrame;
use crate::engine::Engine;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::{RECEIVE_RESERVE, RECEIVE_SHARE, RECEIVE_SHARE_OF_FREE};
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, Meta, NO_MBUF};
use crate::rss::group_of;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::Timer;
use crate::tcp::send_queue::{self, Segments};
use crate::tcp::{congestion, sent, timestamps};
use crate::time::Instant;
use ix_abi::GroupId;
use ix_abi::event::{Event, Kind};
use ix_abi::stats::Counter;

/// What makes a segment anything but predictable.
const SLOW: Flags = Flags::IN_EVENTS
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

/// Takes a frame, whose buffer is then not the caller's any more; `false`: it is not a predicted segment, and
/// nothing has happened.
#[inline(always)]
pub fn receive(engine: &mut Engine, frame: &RxFrame) -> bool {
    let Engine { local, groups, .. } = engine;
    if local.event_room == 0 {
        return false;
    }
    let Some(segment) = parse::segment(local, frame) else { return false };
    let id = group_of(segment.hash, local.groups);
    let Some(Some(group)) = groups.get_mut(usize::from(id.0)) else { return false };
    let FlowGroup { conns, segments, table, tx_base, .. } = &mut **group;
    let Some(index) = table.find_tuple(conns, segment.hash, segment.tuple) else { return false };
    let conn = &mut conns[index];
    if !predicted(conn, local, *tx_base, &segment) || !may_hold(conn, local, &frame.mbuf) {
        return false;
    }
    if let Some(stamp) = segment.stamp {
        timestamps::take_in_order(conn, local.now, stamp);
    }
    let acked = segment.ack.since(conn.snd_una);
    if acked > 0 {
        acknowledged(conn, segments, local, acked);
    }
    conn.snd_wnd = segment.window << conn.snd_shift;
    conn.max_wnd = conn.max_wnd.max(conn.snd_wnd);
    conn.wl1 = segment.seq;
    conn.wl2 = segment.ack;
    let mbuf = Mbuf::from_raw(frame.mbuf.index());
    post(conn, local, id, index, &segment, acked, mbuf);
    if segment.len > 0 && owes(conn, local) {
        follow_up(group, local, index);
    }
    true
}

/// Whether the segment is what the connection expects.
#[inline(always)]
fn predicted(conn: &Conn, local: &Local, tx_base: u32, segment: &Segment) -> bool {
    conn.flags & SLOW.union(Flags::ACCEPTED) == Flags::ACCEPTED
        && conn.is_usual()
        && conn.is_in_order()
        && conn.acl == local.acl_generation
        && segment.seq == conn.rcv_nxt
        && u32::from(segment.len) <= conn.rcv_edge.since(conn.rcv_nxt)
        && in_time(conn, segment)
        && if segment.ack == conn.snd_una {
            segment.len > 0
        } else {
            // All that is out and all that was given, and no frame in flight refers to it.
            segment.ack == conn.snd_end
                && segment.ack == conn.snd_max
                && conn.first.marks.is_empty()
                && local.tx.has_left(conn.last_tx.wrapping_sub(tx_base))
        }
}

/// Whether the segment has a timestamp if it must, which is none of the past (RFC 7323 §5.3 R1).
#[inline(always)]
fn in_time(conn: &Conn, segment: &Segment) -> bool {
    match segment.stamp {
        Some(stamp) => {
            conn.flags.contains(Flags::TIMESTAMPS) && stamp.wrapping_sub(conn.ts_recent) as i32 >= 0
        }
        None => !conn.flags.contains(Flags::TIMESTAMPS),
    }
}

/// Whether the connection's share allows it one more buffer; the same rule as `tcp::receive`'s, for buffers of
/// this core's own.
#[inline(always)]
fn may_hold(conn: &Conn, local: &Local, mbuf: &Mbuf) -> bool {
    let free = local.pool.available();
    let held = usize::from(conn.rx_buffers);
    local.pool.owns(mbuf)
        && free > RECEIVE_RESERVE
        && held < usize::from(RECEIVE_SHARE)
        && held * RECEIVE_SHARE_OF_FREE < free
}

/// Everything that was out is acknowledged, and its memory the application's again.
#[inline(always)]
fn acknowledged(conn: &mut Conn, segments: &mut Segments, local: &mut Local, acked: u32) {
    // One segment was out, and sent once: each is measured.
    let rtt = sent::since(sent::clock(local.now), conn.first.at);
    conn.rtt.measured(rtt, local.profile.rto_min);
    conn.timed = conn.snd_max;
    conn.snd_una = conn.snd_max;
    conn.released = conn.snd_max;
    conn.retries = 0;
    conn.trying_since = Instant::NEVER;
    conn.timer = Timer::Retransmit;
    conn.rto_at = Instant::NEVER;
    congestion::grow(conn, acked, acked, local.now);
    send_queue::release_all(conn, segments, local);
}

/// Tells the application of what came, which holds it from then on.
#[inline(always)]
fn post(
    conn: &mut Conn,
    local: &mut Local,
    group: GroupId,
    index: u32,
    segment: &Segment,
    acked: u32,
    mbuf: Mbuf,
) {
    let len = u32::from(segment.len);
    let window = u64::from(conn.snd_wnd.min(conn.cc.window()));
    let (kind, len, words) = if len == 0 {
        local.pool.free(mbuf);
        (Kind::Sent, acked, [window, 0])
    } else {
        let addr = append(conn, local, group, segment, mbuf);
        match acked {
            0 => (Kind::Recv, len, [addr, 0]),
            _ => (Kind::RecvSent, len, [addr, u64::from(acked) | window << 32]),
        }
    };
    let event = Event {
        kind: kind.0,
        aux: 0,
        len,
        handle: conn.handle(group, index).0,
        cookie: conn.cookie.0,
        words: [words[0], words[1], 0, 0, 0],
    };
    if let Some(app) = &mut local.app {
        app.rings.post(&event);
    }
    local.event_room -= 1;
    local.stats.add(Counter::Events, 1);
}

/// Appends the buffer to what the application holds; its address there.
#[inline(always)]
fn append(
    conn: &mut Conn,
    local: &mut Local,
    group: GroupId,
    segment: &Segment,
    mut mbuf: Mbuf,
) -> u64 {
    let area = local.pool.area();
    let Segment { offset, len, seq, .. } = *segment;
    area.set_meta(&mut mbuf, Meta { next: NO_MBUF, offset, len, references: 0, word: seq.0 });
    area.set_holder(&mbuf, Holder::group(group));
    let addr = area.user_addr(&mbuf, offset);
    let index = mbuf.into_raw();
    if conn.rx_tail == NO_MBUF {
        conn.rx_head = index;
    } else {
        area.link(conn.rx_tail, index);
    }
    conn.rx_tail = index;
    let len = u32::from(len);
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
        conn.ack_at = local.now + local.profile.delayed_ack;
    }
    conn.ack_owed >= 2 * u32::from(conn.mss) || conn.ack_at < conn.timer_at
}

#[inline(never)]
fn follow_up(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &group.conns[index];
    if conn.ack_owed >= 2 * u32::from(conn.mss) {
        group.want_output(index, local);
    }
    group.arm(index, local);
}
