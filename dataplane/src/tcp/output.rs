//! What a connection sends in the transmit stage: what [`repair`] says, new data as the windows allow,
//! FIN, or a bare acknowledgement; one frame where one will do.
mod syn;

use self::syn::syn;
use crate::acl;
use crate::checksum;
use crate::conn::{Conn, Flags, State};
use crate::device::{Fragment, Pseudo, TxChecksum, TxFull, TxQueue};
use crate::family::Family;
use crate::fast::emit;
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::limits::TX_BURST;
use crate::local::{Local, Waiting};
use crate::mbuf::Mbuf;
use crate::neighbor::Lookup;
use crate::tap;
use crate::tcp::blocks::{self, Blocks};
use crate::tcp::ecn::{self, Ecn};
use crate::tcp::gso;
use crate::tcp::listen::trying;
use crate::tcp::pmtu;
use crate::tcp::receive::window_field;
use crate::tcp::sent::{self, FIRST};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::timers::persist;
use crate::tcp::wire::{self, Emit, HEADER, flag};
use crate::tcp::{rack, recovery, repair, send_queue};
use crate::time::Instant;
use crate::tx::Staged;
use arrayvec::ArrayVec;
use ix_abi::stats::{Counter, Drop};

/// Sends for all connections of the group that want to. `Err`: the queue is full, some still want to.
#[inline]
pub fn run<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
) -> Result<(), TxFull> {
    while let Some(index) = group.pop_output() {
        if connection(group, local, queue, index).is_err() {
            group.want_output(index, local);
            return Err(TxFull);
        }
    }
    Ok(())
}

/// Sends for one connection.
#[inline]
fn connection<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &group.conns[index];
    if conn.state == State::Closed && !conn.flags.contains(Flags::RESET) {
        group.free_if_done(index, local);
        return Ok(());
    }
    if conn.mac_epoch != local.mac_epoch && !reach(group, local, index) {
        return Ok(());
    }
    let conn = &group.conns[index];
    match conn.state {
        State::Closed => return reset(group, local, queue, index),
        State::SynSent | State::SynReceived => return syn(group, local, queue, index),
        _ => {}
    }
    if has_only_fin(conn) {
        return fin(group, local, queue, index);
    }
    let mut more = false;
    if conn.lost > 0 || conn.flags.intersects(Flags::RETRANSMIT | Flags::PROBE) {
        more = repair::run(group, local, queue, index)?;
    }
    // What is lost goes first (RFC 6675 §4, NextSeg).
    if group.conns[index].state.can_send() && group.conns[index].lost == 0 {
        more |= data(group, local, queue, index, TX_BURST)?;
    }
    acknowledge(group, local, queue, index)?;
    timers(group, local, index);
    if more {
        group.want_output(index, local);
    }
    Ok(())
}

/// Whether FIN is all that is to be sent, and may be, while nothing is under way.
#[inline(always)]
fn has_only_fin(conn: &Conn) -> bool {
    const UNUSUAL: Flags =
        Flags::RETRANSMIT.union(Flags::PROBE).union(Flags::PERSIST).union(Flags::UNPREDICTED);
    conn.flags & UNUSUAL.union(Flags::FIN_QUEUED).union(Flags::V6) == Flags::FIN_QUEUED
        && conn.state.can_send()
        && conn.snd_una == conn.snd_end
        && conn.snd_nxt == conn.snd_end
        && conn.snd_max == conn.snd_end
        && conn.recovery == NIL
        && conn.lost == 0
        && conn.snd_wnd > 0
        && !blocks::any(conn)
}

/// Whether FIN is all that the connection has to send, and it can go.
#[inline(always)]
pub fn may_finish(conn: &Conn, local: &Local) -> bool {
    conn.mac_epoch == local.mac_epoch && has_only_fin(conn)
}

/// Sends FIN now for a connection that [`may_finish`], which then need not wait for the transmit stage. `false`: there is
/// no room, or others are before it, and nothing has happened.
#[inline(always)]
pub fn fin_at_once<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> bool {
    let sent = group.is_next_output(index) && fin(group, local, queue, index).is_ok();
    if sent {
        group.skip_output(index, local);
    }
    sent
}

/// Sends FIN: what [`data`], [`acknowledge`] and [`timers`] come to then.
#[inline]
fn fin<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &mut group.conns[index];
    bare(conn, local, queue, conn.snd_nxt, flag::FIN | flag::PSH | flag::ACK)?;
    let end = conn.snd_nxt.plus(1);
    sent::push(conn, &mut group.sent, FIRST, end, sent::clock(local.now));
    conn.snd_nxt = end;
    conn.snd_max = end;
    rack::sent_more(conn, local);
    trying(conn, local.now);
    let at = conn.rto_at;
    group.arm_at(index, at, local);
    Ok(())
}

/// New data, and FIN, as far as windows allow. `true`: its turn is over, but not its data.
#[inline]
fn data<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    most: u32,
) -> Result<bool, TxFull> {
    for _ in 0..most {
        let room = recovery::allowance(&group.conns[index], &group.recoveries);
        if !new_segment(group, local, queue, index, room)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The next segment of new data, if congestion control leaves `room` for it and the peer's window
/// too. Whether it was sent.
#[inline]
pub fn new_segment<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    room: u32,
) -> Result<bool, TxFull> {
    let conn = &mut group.conns[index];
    let fin = conn.flags.contains(Flags::FIN_QUEUED);
    if conn.snd_nxt == conn.snd_end.plus(u32::from(fin)) || conn.snd_nxt.after(conn.snd_end) {
        return Ok(false);
    }
    let unsent = conn.snd_end.since(conn.snd_nxt);
    let flight = conn.flight();
    let room = conn.snd_wnd.saturating_sub(flight).min(room).min(unsent);
    let size = pmtu::segment_size(conn, room, local.now);
    let len = gso::frame_size(conn, local, size, room, unsent);
    let last = len == unsent;
    // FIN takes a place in the peer's window; behind one that is shut it would be dropped.
    let fin = fin && last && flight + len < conn.snd_wnd;
    if len == 0 && !fin {
        return Ok(false);
    }
    // Sender's side of silly window avoidance (RFC 9293 §3.8.6.2.1).
    if !last && len < u32::from(conn.mss) && flight > 0 && len < conn.max_wnd / 2 {
        return Ok(false);
    }
    let mut flags = flag::ACK;
    if last {
        flags |= flag::PSH;
    }
    if fin {
        flags |= flag::FIN;
    }
    let (seq, at) = (conn.snd_nxt, conn.seg_next);
    let Some(place) = sent::reserve(conn, &mut group.sent) else { return Ok(false) };
    let piece = Piece { seq, at, len, flags, size: size as u16 };
    let len = match segment(group, local, queue, index, piece) {
        Ok(len) => len,
        Err(full) => {
            sent::cancel(&mut group.sent, place);
            return Err(full);
        }
    };
    let conn = &mut group.conns[index];
    let end = seq.plus(len);
    sent::push(conn, &mut group.sent, place, end, sent::clock(local.now));
    recovery::went_out(conn, &mut group.recoveries, len, None);
    conn.snd_nxt = end;
    conn.snd_max = end;
    send_queue::catch_up(conn, &group.segments);
    conn.flags -= Flags::PERSIST;
    rack::sent_more(conn, local);
    trying(conn, local.now);
    Ok(true)
}

/// A bare acknowledgement, if one is due and nothing has carried it; else later.
#[inline]
fn acknowledge<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &mut group.conns[index];
    if conn.ack_owed == 0 && !conn.flags.contains(Flags::ACK_NOW) {
        return Ok(());
    }
    if conn.flags.contains(Flags::ACK_NOW) || conn.ack_owed >= 2 * u32::from(conn.mss) {
        let seq = conn.snd_max;
        let piece = Piece { seq, at: NIL, len: 0, flags: flag::ACK, size: 0 };
        segment(group, local, queue, index, piece)?;
    } else if conn.ack_at == Instant::NEVER {
        conn.ack_at = local.now + local.profile.delayed_ack;
    }
    Ok(())
}

/// A bare acknowledgement of what has arrived so far, ahead of what the transmit stage will send;
/// to where `mbuf`, whose frame begins at `frame`, came from.
#[cold]
pub fn acknowledge_apart(conn: &mut Conn, local: &mut Local, mbuf: &Mbuf, frame: u16) {
    if conn.flags.contains(Flags::V6) {
        acknowledge_apart_of::<[u8; 16]>(conn, local, mbuf, frame);
    } else {
        acknowledge_apart_of::<[u8; 4]>(conn, local, mbuf, frame);
    }
}

fn acknowledge_apart_of<A: Family>(conn: &mut Conn, local: &mut Local, mbuf: &Mbuf, frame: u16) {
    let at = usize::from(frame) + 6;
    let source = local.pool.area().data(mbuf).get(at..at + 6).and_then(|mac| mac.first_chunk());
    let Some(mac_to) = source.copied() else { return };
    let window = window_field(conn);
    let bits = ecn::bits(conn, conn.snd_max, 0, flag::ACK);
    let emit = header::<A>(conn, local, conn.snd_max, (flag::ACK | bits.0, bits.1), window);
    let emit = Emit { mac_to, ..emit };
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let options = if stamped { wire::TIMESTAMPS } else { 0 };
    let mut bytes = ArrayVec::from([0; 96]);
    bytes.truncate(A::BELOW + HEADER + options);
    wire::emit(&mut bytes, &emit, options, 0);
    if stamped && let Some(at) = bytes[A::BELOW + HEADER..].first_chunk_mut() {
        let value = local.ts_clock().wrapping_add(conn.ts_offset);
        wire::emit_timestamps(at, value, conn.ts_recent);
    }
    wire::checksum_in_place(&mut bytes, emit.ip_from, emit.ip_to);
    if local.tx.stage(Staged::Bytes(bytes)).is_err() {
        return local.stats.drop(Drop::TxRingFull);
    }
    conn.ack_owed = 0;
    conn.ack_at = Instant::NEVER;
}

/// Arms what has to be armed after a turn.
#[inline]
fn timers(group: &mut FlowGroup, local: &mut Local, index: u32) {
    let conn = &mut group.conns[index];
    persist(conn, local);
    group.arm(index, local);
}

/// A segment to build: `len` bytes from `seq`, which lie in segment `at` of the queue or behind it.
#[derive(Clone, Copy)]
pub struct Piece {
    /// Its first sequence number.
    pub seq: WrappingSeq,
    /// A segment of the queue.
    pub at: u32,
    /// Bytes of payload.
    pub len: u32,
    /// Control bits.
    pub flags: u8,
    /// Bytes of a segment, if the device may cut it; 0: it is one.
    pub size: u16,
}

/// Builds and pushes a segment; returns the sequence numbers that it took. It carries the newest
/// acknowledgement. Fewer bytes than asked for if they are in too many pieces.
#[inline]
pub fn segment<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    piece: Piece,
) -> Result<u32, TxFull> {
    let conn = &mut group.conns[index];
    if conn.flags.contains(Flags::V6) {
        return segment_v6(group, local, queue, index, piece);
    }
    if piece.len == 0 && !blocks::any(conn) && !conn.ecn.contains(Ecn::ON) {
        return bare(conn, local, queue, piece.seq, piece.flags);
    }
    segment_of::<T, [u8; 4]>(group, local, queue, index, piece)
}

/// [`segment`] of one without payload over IPv4, which has nothing to say but the usual.
#[inline(always)]
fn bare<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    seq: WrappingSeq,
    flags: u8,
) -> Result<u32, TxFull> {
    if !local.tx.ready() {
        return Err(TxFull);
    }
    emit::bare(conn, local, queue, (seq, flags))?;
    conn.flags -= Flags::ACK_NOW;
    conn.ack_owed = 0;
    conn.ack_at = Instant::NEVER;
    if local.tap.is_on() {
        tap::sent(local, |_| ());
    }
    Ok(u32::from(flags & flag::FIN != 0))
}

/// A call, so that the code of IPv4 stays together.
#[inline(never)]
fn segment_v6<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    piece: Piece,
) -> Result<u32, TxFull> {
    segment_of::<T, [u8; 16]>(group, local, queue, index, piece)
}

#[inline(always)]
fn segment_of<T: TxQueue, A: Family>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
    piece: Piece,
) -> Result<u32, TxFull> {
    if !local.tx.ready() {
        return Err(TxFull);
    }
    let offload = local.tx_checksum;
    let conn = &group.conns[index];
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let mut options = if stamped { wire::TIMESTAMPS } else { 0 };
    // What has arrived out of order is told of by bare acknowledgements, which have the room.
    let tells = blocks::any(conn);
    let mut told = Blocks::default();
    if tells && piece.len == 0 && piece.flags == flag::ACK {
        told = blocks::take(&mut group.conns[index], local, options);
        options += told.len();
    }
    let conn = &group.conns[index];
    let frame = local.tx.begin(A::BELOW + HEADER + options);
    let mut sum = 0;
    let mut odd = false;
    let len = if piece.len == 0 {
        0
    } else {
        send_queue::gather(conn, &group.segments, piece.at, piece.seq, piece.len, |part| {
            let fragment = Fragment { bus: part.bus(), len: part.len() };
            if frame.fragments.try_push(fragment).is_err() {
                return false;
            }
            if !offload {
                let partial = part.sum();
                let partial = if odd { checksum::at_odd_offset(partial) } else { partial };
                sum = checksum::add(sum, partial);
                odd ^= part.len() % 2 == 1;
            }
            true
        })
    };
    let len = gso::shape::<A>(frame, HEADER + options, piece.size, piece.len, len);
    let large = frame.gso.is_some();
    let mut flags = piece.flags;
    if len < piece.len {
        flags &= !(flag::FIN | flag::PSH);
    }
    if offload {
        frame.checksum = Some(TxChecksum { start: A::BELOW as u16, offset: 16 });
    }
    let conn = &mut group.conns[index];
    let window = window_field(conn);
    let (congestion, tos) = ecn::bits(conn, piece.seq, len, flags);
    let emit = header::<A>(conn, local, piece.seq, (flags | congestion, tos), window);
    let ts = (local.ts_clock().wrapping_add(conn.ts_offset), conn.ts_recent);
    let slot = local.tx.header();
    wire::emit(slot, &emit, options, len as usize);
    if stamped && let Some(at) = slot[A::BELOW + HEADER..].first_chunk_mut() {
        wire::emit_timestamps(at, ts.0, ts.1);
    }
    if !told.is_empty() {
        let at = A::BELOW + HEADER + options - told.len();
        slot[at..at + told.len()].copy_from_slice(&told);
    }
    let tcp_len = ((HEADER + options) as u32 + len) as u16;
    finish_checksum(slot, &emit, HEADER + options, tcp_len, sum, offload);
    if large && local.gso_pseudo == Pseudo::WithoutLength {
        gso::leave_length_out(slot, emit.ip_from, emit.ip_to);
    }
    let number = local.tx.push(queue, &mut local.stats)?;
    let number = group.tx_number(number);
    let conn = &mut group.conns[index];
    if len > 0 {
        conn.last_tx = number;
    }
    if !tells || len == 0 {
        conn.flags -= Flags::ACK_NOW;
    }
    conn.ack_owed = 0;
    conn.ack_at = Instant::NEVER;
    if local.tap.is_on() {
        tap_segment(group, local, index, &piece, len);
    }
    Ok(len + u32::from(flags & flag::FIN != 0))
}

/// Shows the tap the segment that was just pushed, with `len` bytes of payload.
#[cold]
#[inline(never)]
fn tap_segment(group: &FlowGroup, local: &mut Local, index: u32, piece: &Piece, len: u32) {
    let FlowGroup { conns, segments, .. } = group;
    tap::sent(local, |frame| {
        if len > 0 {
            let take = |part| frame.take(part);
            send_queue::gather(&conns[index], segments, piece.at, piece.seq, len, take);
        }
    });
}

#[inline(always)]
fn header<A: Family>(
    conn: &Conn,
    local: &Local,
    seq: WrappingSeq,
    bits: (u8, u8),
    window: u16,
) -> Emit<A> {
    Emit {
        mac_to: conn.mac(),
        mac_from: local.mac,
        ip_from: A::own(local, conn.local),
        ip_to: A::from_ip(conn.remote),
        port_from: conn.local_port(),
        port_to: conn.remote_port(),
        seq,
        ack: conn.rcv_nxt,
        flags: bits.0,
        window,
        hops: local.v6.config.hops,
        tos: bits.1,
    }
}

/// Completes the TCP checksum: the pseudo-header's sum if the device does the rest, else all of it.
#[inline(always)]
fn finish_checksum<A: Family>(
    slot: &mut [u8],
    emit: &Emit<A>,
    header_len: usize,
    tcp_len: u16,
    payload: u64,
    offload: bool,
) {
    let pseudo = A::pseudo(emit.ip_from, emit.ip_to, crate::ipv4::TCP, tcp_len);
    let field = if offload {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        let header = checksum::sum(&slot[A::BELOW..A::BELOW + header_len]);
        checksum::finish(checksum::add(checksum::add(pseudo, header), payload))
    };
    slot[A::BELOW + 16..A::BELOW + 18].copy_from_slice(&field);
}

/// RST; the connection is over already.
fn reset<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let seq = group.conns[index].snd_max;
    let flags = flag::RST | flag::ACK;
    segment(group, local, queue, index, Piece { seq, at: NIL, len: 0, flags, size: 0 })?;
    group.conns[index].flags -= Flags::RESET;
    local.stats.add(Counter::TcpResetsSent, 1);
    group.free_if_done(index, local);
    Ok(())
}

/// Finds the next hop's address, nearly always the router's, by which others have gone before.
#[inline(always)]
fn reach(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    let conn = &mut group.conns[index];
    let judged = conn.acl == local.acl_generation;
    judged && local.through_router(conn) || resolve(group, local, index)
}

/// Finds the next hop's address. `false`: not yet; the connection comes back when it is there, or by
/// its retransmission timer.
#[cold]
fn resolve(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    local.stir();
    if group.conns[index].acl != local.acl_generation && !acl::still_allowed(group, local, index) {
        return false;
    }
    let conn = &mut group.conns[index];
    let hop = local.hop_from(conn.local, conn.remote);
    if let Some(hop) = hop {
        if let Lookup::Found(mac) = local.neighbors.lookup(hop, local.now) {
            conn.ether = local.ether(mac.0);
            conn.mac_epoch = local.mac_epoch;
            local.found(hop, mac.0);
            return true;
        }
        if !conn.flags.contains(Flags::NEEDS_NEIGHBOR) {
            let waiting = Waiting::Connection(conn.name);
            match local.neighbors.pend(hop, waiting, local.now) {
                Ok(()) => {
                    conn.flags |= Flags::NEEDS_NEIGHBOR;
                    group.unreached += 1;
                }
                Err(_) => local.stats.drop(Drop::ArpPendingFull),
            }
        }
    } else {
        local.stats.drop(Drop::NoRoute);
    }
    if conn.state == State::Closed {
        conn.flags -= Flags::RESET;
        group.free_if_done(index, local);
        return false;
    }
    if conn.rto_at == Instant::NEVER {
        conn.rto_at = local.now + conn.rtt.timeout();
    }
    trying(conn, local.now);
    group.arm(index, local);
    false
}
