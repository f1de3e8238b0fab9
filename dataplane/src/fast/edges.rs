//! How a connection begins and ends, in a straight line: the acknowledgement that completes a handshake, the
//! peer's FIN behind all its data, the acknowledgement of our own FIN. Their events are written at once.
//!
//! Whatever is not exactly that goes on to `tcp` with the headers as they were read, so that none are read twice.
use super::parse::Segment;
use super::receive::{SLOW, acknowledged, header_len};
use crate::acl::UNLIMITED;
use crate::conn::{Conn, Flags, State};
use crate::device::RxFrame;
use crate::events;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Mbuf, NO_MBUF};
use crate::ports::SLOTS;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::rack::Timer;
use crate::tcp::wire::flag;
use crate::tcp::{self, listen, send_queue, sent, timestamps};
use crate::time::Instant;
use ix_abi::DeadReason;
use ix_abi::event::{Event, Kind};
use ix_abi::stats::Counter;

/// Events of one segment at most.
const EVENTS: u32 = 2;

/// Takes a segment of no connection, if it is a SYN; else `false`, and nothing has happened.
#[inline(never)]
pub fn stranger(
    group: &mut FlowGroup,
    local: &mut Local,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    if segment.flags() != flag::SYN || !is_host(local, segment) {
        return false;
    }
    let Some(packet) = segment.packet(local, frame) else { return false };
    group.frames += 1;
    let mbuf = taken(frame);
    if local.acl.is_some() {
        local.stir();
        listen::stranger(group, local, &packet, mbuf, None);
    } else {
        listen::open(group, local, &packet, &mbuf, UNLIMITED, None);
        // It is answered by its connection, or without one.
        if local.tx.has_staged() {
            local.stir();
        }
        local.pool.free(mbuf);
    }
    true
}

/// Takes a segment of connection `index`, with these flags and in that state, that was not predicted.
#[inline(always)]
pub fn unpredicted(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    (flags, state): (Flags, State),
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    if flags.contains(Flags::V6) || segment.flags() == flag::SYN {
        // No host, for else it would be another connection; or one whose timestamp is to be read.
        return false;
    }
    match state {
        State::SynReceived => establish(group, local, index, segment, frame),
        State::Established => finish(group, local, index, segment, frame),
        State::LastAck => end(group, local, index, segment, frame),
        _ => otherwise(group, local, index, segment, frame),
    }
}

/// The same for what is none of these.
#[inline(never)]
fn otherwise(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let Some(packet) = segment.packet(local, frame) else { return false };
    group.frames += 1;
    local.stir();
    tcp::input::segment(group, local, index, &packet, taken(frame));
    true
}

/// The frame's buffer, which is not the caller's any more.
#[inline(always)]
fn taken(frame: &RxFrame) -> Mbuf {
    Mbuf::from_raw(frame.mbuf.index())
}

/// Whether the sender can be answered, as `input::ipv4` has it.
#[inline(always)]
fn is_host(local: &Local, segment: Segment<'_>) -> bool {
    let [from, ..] = segment.tuple().to_ne_bytes();
    let address = u32::from_ne_bytes(local.address);
    let peer = segment.tuple() as u32;
    from != 127 && from < 224 && peer != 0 && peer != address && local.ipv4.is_some()
}

/// Whether it has these control bits, a timestamp if it must, and no payload.
#[inline(always)]
fn is_empty(conn: &Conn, segment: Segment<'_>, flags: u8) -> bool {
    header_len(conn, segment, flags) == Some(segment.total())
}

/// What makes the end of a handshake anything but what is expected.
const UNUSUAL_BEGINNING: Flags = SLOW.union(Flags::IN_OUTPUT).union(Flags::ACTIVE);

/// Whether the segment does nothing but to acknowledge our SYN, which was sent once.
#[inline(always)]
fn completes(conn: &Conn, local: &Local, segment: Segment<'_>) -> bool {
    conn.flags & UNUSUAL_BEGINNING.union(Flags::IN_BACKLOG) == Flags::IN_BACKLOG
        && conn.acl == local.acl_generation
        && segment.seq() == conn.rcv_nxt
        && segment.ack() == conn.snd_max
        && segment.ack() == conn.snd_end
        && conn.snd_una == conn.iss
        && conn.timed == conn.iss
        && conn.first.marks.is_empty()
        && conn.recovery == NIL
        && conn.settings.keep_alive().is_none()
        && is_empty(conn, segment, flag::ACK)
}

/// The handshake is complete: the application is told. Otherwise, if it does not listen any more, or accepts too slowly.
#[inline(never)]
fn establish(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let FlowGroup { conns, backlog, half_open, frames, .. } = &mut *group;
    let conn = &mut conns[index];
    if !completes(conn, local, segment) {
        return otherwise(group, local, index, segment, frame);
    }
    let port = local.listeners.by_handle(conn.listener);
    let Some(port) = port.filter(|port| port.waiting.knocked < port.backlog) else {
        return otherwise(group, local, index, segment, frame);
    };
    *frames += 1;
    port.waiting.completed();
    backlog[conn.listener.index() as usize % SLOTS].completed();
    *half_open = half_open.saturating_sub(1);
    local.stats.add(Counter::TcpAccepted, 1);
    let ticks = sent::clock(local.now).wrapping_sub(conn.first.at);
    conn.rtt.measured_ticks(ticks, local.rto_min_us);
    conn.timed = conn.snd_max;
    conn.snd_una = conn.snd_max;
    rest(conn);
    conn.state = State::Established;
    conn.flags |= Flags::KNOCKED;
    hear(conn, local, segment);
    conn.max_wnd = conn.snd_wnd;
    let event = events::knock(conn);
    post(local, &event);
    local.pool.free(taken(frame));
    true
}

/// Nothing is under way any more.
#[inline(always)]
fn rest(conn: &mut Conn) {
    conn.retries = 0;
    conn.trying_since = Instant::NEVER;
    conn.timer = Timer::Retransmit;
    conn.rto_at = Instant::NEVER;
}

/// Takes what the headers say of the peer: its clock and its window.
#[inline(always)]
fn hear(conn: &mut Conn, local: &Local, segment: Segment<'_>) {
    if conn.flags.contains(Flags::TIMESTAMPS) {
        timestamps::take_in_order(conn, local.now, segment.stamp());
    }
    conn.snd_wnd = segment.window() << conn.snd_shift;
    conn.wl1 = segment.seq();
    conn.wl2 = segment.ack();
}

/// Whether a FIN comes behind all that the peer has sent, and has arrived, and acknowledges all that we have.
#[inline(always)]
fn finishes(conn: &Conn, local: &Local, tx_base: u32, segment: Segment<'_>) -> bool {
    local.event_room >= EVENTS
        && conn.flags & SLOW.union(Flags::ACCEPTED) == Flags::ACCEPTED
        && conn.acl == local.acl_generation
        && segment.seq() == conn.rcv_nxt
        && conn.rcv_edge != conn.rcv_nxt
        && conn.ooo_head == NO_MBUF
        && conn.recovery == NIL
        && conn.sent_count == 0
        && conn.keep_unanswered == 0
        && segment.ack() == conn.snd_end
        && segment.ack() == conn.snd_max
        && (segment.ack() == conn.snd_una
            || conn.first.marks.is_empty() && local.tx.has_left(conn.last_tx.wrapping_sub(tx_base)))
        && is_empty(conn, segment, flag::FIN | flag::ACK)
}

/// The peer has said all: the application is told, and the peer that this was heard.
#[inline(never)]
fn finish(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let FlowGroup { conns, segments, tx_base, frames, .. } = &mut *group;
    let conn = &mut conns[index];
    if !finishes(conn, local, *tx_base, segment) {
        return otherwise(group, local, index, segment, frame);
    }
    *frames += 1;
    let acked = segment.ack().since(conn.snd_una);
    if acked > 0 && acknowledged(conn, local, acked) {
        send_queue::release_rest(conn, segments, local);
    }
    hear(conn, local, segment);
    conn.max_wnd = conn.max_wnd.max(conn.snd_wnd);
    let eof = record(conn, Kind::Eof);
    if acked > 0 {
        let mut event = Event { kind: Kind::Sent.0, len: acked, ..eof };
        event.words[0] = u64::from(conn.snd_wnd.min(conn.cc.window()));
        post(local, &event);
    }
    conn.rcv_nxt = conn.rcv_nxt.plus(1);
    conn.flags |= Flags::FIN_RECEIVED;
    conn.state = State::CloseWait;
    post(local, &eof);
    conn.flags |= Flags::ACK_NOW;
    group.want_output(index, local);
    local.pool.free(taken(frame));
    true
}

/// Flags of a connection that was closed behind its peer.
const CLOSED: Flags = Flags::ACCEPTED.union(Flags::APP_CLOSED).union(Flags::FIN_QUEUED);

/// Whether the segment acknowledges our FIN, and nothing else of the connection is left.
#[inline(always)]
fn ends(conn: &Conn, local: &Local, segment: Segment<'_>) -> bool {
    conn.flags & SLOW.union(Flags::IN_OUTPUT).union(CLOSED) == CLOSED
        && conn.acl == local.acl_generation
        && segment.seq() == conn.rcv_nxt
        && segment.ack() == conn.snd_max
        && segment.ack() == conn.snd_end.plus(1)
        && conn.snd_una == conn.snd_end
        && conn.recovery == NIL
        && conn.sent_count == 0
        && conn.seg_head == NIL
        && is_empty(conn, segment, flag::ACK)
}

/// Both sides have said all and know it: the application is told, and the slot is free.
#[inline(never)]
fn end(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let conn = &mut group.conns[index];
    if !ends(conn, local, segment) {
        return otherwise(group, local, index, segment, frame);
    }
    group.frames += 1;
    debug_assert!(conn.rx_head == NO_MBUF, "returned by `close`, and none came behind FIN");
    conn.state = State::Closed;
    let event = Event { aux: DeadReason::Closed.0, ..record(conn, Kind::Dead) };
    post(local, &event);
    group.leave(index, local);
    group.free(index, local);
    local.pool.free(taken(frame));
    true
}

/// An event of the connection, to be completed.
#[inline(always)]
fn record(conn: &Conn, kind: Kind) -> Event {
    let (handle, cookie) = (conn.name.0, conn.cookie.0);
    Event { kind: kind.0, handle, cookie, ..Event::default() }
}

/// Writes an event, for which there is room.
#[inline(always)]
fn post(local: &mut Local, event: &Event) {
    if let Some(app) = &mut local.app {
        app.rings.post(event);
    }
    local.event_room -= 1;
    local.stats.add(Counter::Events, 1);
}
