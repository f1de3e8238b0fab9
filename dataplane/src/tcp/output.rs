//! What a connection sends in the transmit stage: retransmissions, new data as the windows allow,
//! FIN, or a bare acknowledgement; one frame where one will do.
use crate::acl;
use crate::checksum;
use crate::conn::{Conn, Flags, State};
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::group::FlowGroup;
use crate::limits::{RECEIVE_SHIFT, TX_BURST};
use crate::local::{Local, Waiting};
use crate::neighbor::Lookup;
use crate::tap;
use crate::tcp::congestion::CongestionControl;
use crate::tcp::listen::{SYN_WINDOW, trying};
use crate::tcp::receive::window_field;
use crate::tcp::send_queue;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::timers::persist;
use crate::tcp::wire::{self, BELOW, Emit, HEADER, flag};
use crate::time::Instant;
use ix_abi::IpAddress;
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
    if conn.mac_epoch != local.mac_epoch && !resolve(group, local, index) {
        return Ok(());
    }
    let conn = &group.conns[index];
    match conn.state {
        State::Closed => return reset(group, local, queue, index),
        State::SynSent | State::SynReceived => return syn(group, local, queue, index),
        _ => {}
    }
    if conn.flags.intersects(Flags::RETRANSMIT | Flags::PROBE) {
        repair(group, local, queue, index)?;
    }
    let more =
        if group.conns[index].state.can_send() { data(group, local, queue, index)? } else { false };
    acknowledge(group, local, queue, index)?;
    timers(group, local, index);
    if more {
        group.want_output(index, local);
    }
    Ok(())
}

/// New data, and FIN, as far as windows allow. `true`: its turn is over, but not its data.
#[inline]
fn data<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<bool, TxFull> {
    for _ in 0..TX_BURST {
        let conn = &group.conns[index];
        let fin = conn.flags.contains(Flags::FIN_QUEUED);
        if conn.snd_nxt == conn.snd_end.plus(u32::from(fin)) || conn.snd_nxt.after(conn.snd_end) {
            return Ok(false);
        }
        let unsent = conn.snd_end.since(conn.snd_nxt);
        let window = conn.snd_wnd.min(conn.cc.window().saturating_add(conn.inflation));
        let flight = conn.flight();
        let len = unsent.min(u32::from(conn.mss)).min(window.saturating_sub(flight));
        let last = len == unsent;
        if len == 0 && !(fin && last) {
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
        if fin && last {
            flags |= flag::FIN;
        }
        let (seq, at) = (conn.snd_nxt, conn.seg_next);
        let sent = segment(group, local, queue, index, Piece { seq, at, len, flags })?;
        let conn = &mut group.conns[index];
        conn.snd_nxt = seq.plus(sent);
        send_queue::catch_up(conn, &group.segments);
        account(conn, local, seq);
    }
    Ok(true)
}

/// Bookkeeping of a data segment that went out from `seq` to `snd_nxt`.
#[inline]
fn account(conn: &mut Conn, local: &mut Local, seq: WrappingSeq) {
    if seq.before(conn.snd_max) {
        local.stats.add(Counter::TcpRetransmits, 1);
        conn.flags -= Flags::TIMING;
    } else if !conn.flags.contains(Flags::TIMING) {
        conn.flags |= Flags::TIMING;
        conn.timed = conn.snd_nxt;
        conn.timed_at = local.now;
    }
    conn.snd_max = conn.snd_max.later(conn.snd_nxt);
    conn.flags -= Flags::PERSIST;
    if conn.rto_at == Instant::NEVER {
        conn.rto_at = local.now + conn.rtt.timeout();
    }
    trying(conn, local.now);
}

/// The first unacknowledged segment again, or a probe of the peer's window.
fn repair<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &group.conns[index];
    if conn.flags.contains(Flags::PROBE) {
        // Below the window, so that it must be answered, and without payload: RFC 9293 §3.8.6.1
        // wants an octet, but there may be none, since a shut window admits none from the application.
        let seq = conn.snd_una.minus(1);
        let piece = Piece { seq, at: crate::flow_table::NIL, len: 0, flags: flag::ACK };
        segment(group, local, queue, index, piece)?;
        group.conns[index].flags -= Flags::PROBE;
    }
    let conn = &group.conns[index];
    if !conn.flags.contains(Flags::RETRANSMIT) {
        return Ok(());
    }
    let outstanding = conn.snd_max.since(conn.snd_una);
    let queued =
        if conn.snd_una.after(conn.snd_end) { 0 } else { conn.snd_end.since(conn.snd_una) };
    let len = queued.min(u32::from(conn.mss)).min(outstanding);
    let fin = conn.flags.contains(Flags::FIN_QUEUED) && len == queued && outstanding > queued;
    if conn.state.can_send() && (len > 0 || fin) {
        let flags = flag::ACK | flag::PSH | if fin { flag::FIN } else { 0 };
        let piece = Piece { seq: conn.snd_una, at: conn.seg_head, len, flags };
        segment(group, local, queue, index, piece)?;
        local.stats.add(Counter::TcpRetransmits, 1);
    }
    let conn = &mut group.conns[index];
    conn.flags -= Flags::RETRANSMIT | Flags::TIMING;
    conn.rto_at = local.now + conn.rtt.timeout();
    Ok(())
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
        let piece = Piece { seq, at: crate::flow_table::NIL, len: 0, flags: flag::ACK };
        segment(group, local, queue, index, piece)?;
    } else if conn.ack_at == Instant::NEVER {
        conn.ack_at = local.now + crate::limits::DELAYED_ACK;
    }
    Ok(())
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
struct Piece {
    seq: WrappingSeq,
    at: u32,
    len: u32,
    flags: u8,
}

/// Builds and pushes a segment; returns the sequence numbers that it took. It carries the newest
/// acknowledgement. Fewer bytes than asked for if they are in too many pieces.
#[inline]
fn segment<T: TxQueue>(
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
    let stamped = group.conns[index].flags.contains(Flags::TIMESTAMPS);
    let options = if stamped { wire::TIMESTAMPS } else { 0 };
    let frame = local.tx.begin(BELOW + HEADER + options);
    let mut sum = 0;
    let mut odd = false;
    let len = if piece.len == 0 {
        0
    } else {
        send_queue::gather(&group.segments, piece.at, piece.seq, piece.len, |part| {
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
    let mut flags = piece.flags;
    if len < piece.len {
        flags &= !(flag::FIN | flag::PSH);
    }
    if offload {
        frame.checksum = Some(TxChecksum { start: BELOW as u16, offset: 16 });
    }
    let conn = &mut group.conns[index];
    let window = window_field(conn);
    let emit = header(conn, local, piece.seq, flags, window);
    let ts = (local.ts_clock().wrapping_add(conn.ts_offset), conn.ts_recent);
    let slot = local.tx.header();
    wire::emit(slot, &emit, options, len as usize);
    if stamped && let Some(at) = slot[BELOW + HEADER..].first_chunk_mut() {
        wire::emit_timestamps(at, ts.0, ts.1);
    }
    let tcp_len = ((HEADER + options) as u32 + len) as u16;
    finish_checksum(slot, &emit, HEADER + options, tcp_len, sum, offload);
    let number = local.tx.push(queue, &mut local.stats)?;
    let number = group.tx_number(number);
    let conn = &mut group.conns[index];
    if len > 0 {
        conn.last_tx = number;
    }
    conn.flags -= Flags::ACK_NOW;
    conn.ack_owed = 0;
    conn.ack_at = Instant::NEVER;
    if local.tap.is_on() {
        tap_segment(group, local, &piece, len);
    }
    Ok(len + u32::from(flags & flag::FIN != 0))
}

/// Shows the tap the segment that was just pushed, with `len` bytes of payload.
#[cold]
#[inline(never)]
fn tap_segment(group: &FlowGroup, local: &mut Local, piece: &Piece, len: u32) {
    tap::sent(local, |frame| {
        if len > 0 {
            send_queue::gather(&group.segments, piece.at, piece.seq, len, |part| frame.take(part));
        }
    });
}

#[inline(always)]
fn header(conn: &Conn, local: &Local, seq: WrappingSeq, flags: u8, window: u16) -> Emit {
    Emit {
        mac_to: conn.mac,
        mac_from: local.mac,
        ip_from: local.address,
        ip_to: v4(conn),
        port_from: conn.key.local_port,
        port_to: conn.key.remote_port,
        seq,
        ack: conn.rcv_nxt,
        flags,
        window,
    }
}

/// The peer's address; connections are IPv4 so far.
#[inline(always)]
fn v4(conn: &Conn) -> [u8; 4] {
    let [.., a, b, c, d] = conn.key.remote.0;
    [a, b, c, d]
}

/// Completes the TCP checksum: the pseudo-header's sum if the device does the rest, else all of it.
#[inline(always)]
fn finish_checksum(
    slot: &mut [u8],
    emit: &Emit,
    header_len: usize,
    tcp_len: u16,
    payload: u64,
    offload: bool,
) {
    let pseudo = checksum::pseudo_v4(emit.ip_from, emit.ip_to, crate::ipv4::TCP, tcp_len);
    let field = if offload {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        let header = checksum::sum(&slot[BELOW..BELOW + header_len]);
        checksum::finish(checksum::add(checksum::add(pseudo, header), payload))
    };
    slot[BELOW + 16..BELOW + 18].copy_from_slice(&field);
}

/// SYN or SYN-ACK, with our options.
#[inline(never)]
fn syn<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    if !local.tx.ready() {
        return Err(TxFull);
    }
    let conn = &mut group.conns[index];
    let answer = conn.state == State::SynReceived;
    let fresh = conn.snd_nxt == conn.iss;
    let repeat = answer && conn.flags.contains(Flags::ACK_NOW);
    if !(fresh || repeat) {
        return Ok(());
    }
    let flags = if answer { flag::SYN | flag::ACK } else { flag::SYN };
    let mut emit = header(conn, local, conn.iss, flags, SYN_WINDOW);
    if !answer {
        emit.ack = WrappingSeq(0);
    }
    // In an answer only what the peer has offered.
    let ours = |flag| !answer || conn.flags.contains(flag);
    let value = local.ts_clock().wrapping_add(conn.ts_offset);
    let mut options = [0; wire::OPTIONS_MAX];
    let said = wire::SynOptions {
        mss: local.mss,
        shift: ours(Flags::SCALED).then_some(RECEIVE_SHIFT),
        sack_permitted: ours(Flags::SACK),
        timestamps: ours(Flags::TIMESTAMPS).then_some((value, conn.ts_recent)),
    };
    let len = wire::emit_syn_options(&mut options, &said);
    let options = &options[..len];
    let offload = local.tx_checksum;
    let frame = local.tx.begin(BELOW + HEADER + options.len());
    if offload {
        frame.checksum = Some(TxChecksum { start: BELOW as u16, offset: 16 });
    }
    let slot = local.tx.header();
    let header_len = HEADER + options.len();
    wire::emit(slot, &emit, options.len(), 0);
    slot[BELOW + HEADER..BELOW + header_len].copy_from_slice(options);
    finish_checksum(slot, &emit, header_len, header_len as u16, 0, offload);
    local.tx.push(queue, &mut local.stats)?;
    if local.tap.is_on() {
        tap::sent(local, |_| ());
    }
    if conn.snd_max == conn.iss {
        conn.flags |= Flags::TIMING;
        conn.timed = conn.iss.plus(1);
        conn.timed_at = local.now;
    } else {
        conn.flags -= Flags::TIMING;
        local.stats.add(Counter::TcpRetransmits, 1);
    }
    conn.snd_nxt = conn.iss.plus(1);
    conn.snd_max = conn.snd_nxt;
    conn.flags -= Flags::ACK_NOW;
    if conn.rto_at == Instant::NEVER {
        conn.rto_at = local.now + conn.rtt.timeout();
    }
    trying(conn, local.now);
    group.arm(index, local);
    Ok(())
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
    segment(group, local, queue, index, Piece { seq, at: crate::flow_table::NIL, len: 0, flags })?;
    group.conns[index].flags -= Flags::RESET;
    local.stats.add(Counter::TcpResetsSent, 1);
    group.free_if_done(index, local);
    Ok(())
}

/// Finds the next hop's address. `false`: not yet; the connection comes back when it is there, or by
/// its retransmission timer.
#[cold]
fn resolve(group: &mut FlowGroup, local: &mut Local, index: u32) -> bool {
    let id = group.id;
    if group.conns[index].acl != local.acl_generation && !acl::still_allowed(group, local, index) {
        return false;
    }
    let conn = &mut group.conns[index];
    let hop = local.next_hop(v4(conn)).map(IpAddress::v4);
    if let Some(hop) = hop {
        if let Lookup::Found(mac) = local.neighbors.lookup(hop, local.now) {
            conn.mac = mac.0;
            conn.mac_epoch = local.mac_epoch;
            return true;
        }
        if !conn.flags.contains(Flags::NEEDS_NEIGHBOR) {
            let waiting = Waiting::Connection(conn.handle(id, index));
            match local.neighbors.pend(hop, waiting, local.now) {
                Ok(()) => conn.flags |= Flags::NEEDS_NEIGHBOR,
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
