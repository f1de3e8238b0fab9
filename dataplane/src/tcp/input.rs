//! What an arriving segment does to its connection (RFC 9293 §3.10.7), with the checks of RFC 5961
//! against blind attacks.
use crate::acl;
use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::tcp::challenge::suspicious;
use crate::tcp::ecn::{self, Ecn};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Packet, flag};
use crate::tcp::{
    acks, blocks, close, keep_alive, listen, pmtu, receive, sent, time_wait, timestamps,
};
use ix_abi::DeadReason;
use ix_abi::stats::{Counter, Drop};

/// A segment for this group, its checksum verified.
#[inline]
pub fn handle(group: &mut FlowGroup, local: &mut Local, packet: &Packet, mbuf: Mbuf) {
    let found = group.table.find_at(&group.conns, packet.hash, &packet.key, packet.local);
    match found {
        Some(index) => {
            group.conns.settle(index);
            segment(group, local, index, packet, mbuf);
        }
        None => listen::stranger(group, local, packet, mbuf, None),
    }
}

/// The same, of connection `index`, which is whole.
#[inline]
pub fn segment(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mbuf: Mbuf) {
    let conn = &group.conns[index];
    let (state, stale) = (conn.state, conn.acl != local.acl_generation);
    if stale && !acl::still_allowed(group, local, index) {
        return local.pool.free(mbuf);
    }
    match state {
        State::SynSent => {
            syn_sent(group, local, index, packet, &mbuf);
            local.pool.free(mbuf);
        }
        State::TimeWait => time_wait::segment(group, local, index, packet, mbuf),
        _ => synchronized(group, local, index, packet, mbuf),
    }
}

/// What follows the handshake's first half.
#[inline]
fn synchronized(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    arrived: &Packet,
    mbuf: Mbuf,
) {
    if !timestamps::acceptable(group, local, index, arrived) {
        return local.pool.free(mbuf);
    }
    let mut packet = *arrived;
    let conn = &mut group.conns[index];
    if packet.seq != conn.rcv_nxt || packet.seq_len() > conn.rcv_edge.since(conn.rcv_nxt) {
        if crosses(conn, &packet) {
            packet.seq = conn.rcv_nxt;
            packet.flags &= !flag::SYN;
        } else if !acceptable(conn, &packet) {
            ecn::syn_again(conn, &packet);
            unacceptable(group, local, index, &packet);
            return local.pool.free(mbuf);
        }
        if packet.seq_len() > 0 {
            note_old(conn, &packet);
            trim(conn, &mut packet);
            // What was cut off is a repetition or a probe: either way the peer wants to hear of it.
            // But no answer to a bare ACK ahead of a hole: with holes both ways it would never end.
            challenge(group, local, index);
        }
    }
    if group.conns[index].keep_unanswered != 0 {
        keep_alive::heard(group, local, index);
    }
    if packet.flags & (flag::RST | flag::SYN | flag::ACK) != flag::ACK {
        odd_flags(group, local, index, &packet, arrived.seq);
        return local.pool.free(mbuf);
    }
    if group.conns[index].state == State::SynReceived
        && !handshake_done(group, local, index, &packet, &mbuf)
    {
        return local.pool.free(mbuf);
    }
    let conn = &mut group.conns[index];
    if conn.ecn.contains(Ecn::ON) {
        let silent = local.frozen.contains(group.id);
        ecn::arrived(conn, local, &packet, &mbuf, silent);
    }
    if !conn.path.is_empty() {
        pmtu::acknowledged(conn, local, packet.ack);
    }
    if !acks::handle(group, local, index, &packet, &mbuf) {
        return local.pool.free(mbuf);
    }
    timestamps::take(&mut group.conns[index], local.now, arrived);
    if packet.len > 0 || packet.has(flag::FIN) {
        receive::handle(group, local, index, &packet, mbuf);
    } else {
        local.pool.free(mbuf);
    }
}

/// RFC 9293 §3.10.7.4, first check: whether any part of the segment is in the window.
fn acceptable(conn: &Conn, packet: &Packet) -> bool {
    let end = packet.seq.plus(packet.seq_len());
    if packet.seq_len() == 0 {
        // Up to the right edge and with it: that is where the ACKs of a peer come from that has
        // filled the window with what was lost. (RFC 9293 would have it before the edge, and if all
        // such ACKs are dropped, the windows that they announce are never heard of.)
        return !packet.seq.before(conn.rcv_nxt) && !packet.seq.after(conn.rcv_edge);
    }
    packet.seq.before(conn.rcv_edge) && end.after(conn.rcv_nxt)
        // A probe of, or data beyond, a closed window: its acknowledgement still counts.
        || (packet.seq == conn.rcv_nxt && conn.rcv_edge == conn.rcv_nxt)
}

/// What of the payload has arrived before is told in the answer (RFC 2883 §4).
fn note_old(conn: &mut Conn, packet: &Packet) {
    let end = packet.seq.plus(u32::from(packet.len));
    if packet.seq.before(conn.rcv_nxt) && packet.len > 0 && !packet.has(flag::SYN) {
        blocks::twice(conn, packet.seq, if end.before(conn.rcv_nxt) { end } else { conn.rcv_nxt });
    }
}

/// The SYN-ACK of a peer that opens the connection as we do: the SYN was taken before, and the rest
/// completes the handshake (RFC 9293 §3.5, figure 7; by the window alone it would be an old segment).
fn crosses(conn: &Conn, packet: &Packet) -> bool {
    conn.state == State::SynReceived
        && packet.flags & (flag::SYN | flag::ACK | flag::RST) == flag::SYN | flag::ACK
        && packet.seq.plus(1) == conn.rcv_nxt
        && packet.ack == conn.snd_max
}

/// A segment outside of the window: the peer hears what we have. What no honest peer needs an answer
/// to is answered now and then only.
#[cold]
fn unacceptable(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet) {
    local.stats.drop(Drop::TcpOutOfWindow);
    let conn = &mut group.conns[index];
    note_old(conn, packet);
    // A lost answer to a SYN, to data or FIN; a probe of the window or of our being alive.
    let again = conn.state == State::SynReceived
        || !packet.has(flag::SYN) && packet.seq_len() > 0
        || packet.seq.plus(1) == conn.rcv_nxt && !packet.has(flag::SYN);
    match packet.has(flag::RST) {
        true => {}
        false if again => challenge(group, local, index),
        false => suspicious(group, local, index),
    }
}

/// Cuts off what lies outside of the window.
fn trim(conn: &Conn, packet: &mut Packet) {
    if packet.seq.before(conn.rcv_nxt) {
        let mut old = conn.rcv_nxt.since(packet.seq);
        if packet.has(flag::SYN) {
            packet.flags &= !flag::SYN;
            packet.seq = packet.seq.plus(1);
            old -= 1;
        }
        let old = old.min(u32::from(packet.len)) as u16;
        packet.seq = packet.seq.plus(u32::from(old));
        packet.cut += old;
        packet.len -= old;
    }
    let room = conn.rcv_edge.since(packet.seq);
    if u32::from(packet.len) > room {
        packet.len = room as u16;
        packet.flags &= !flag::FIN;
    }
}

/// RST, SYN, or no ACK, within the window; `seq` is what the segment arrived with.
fn odd_flags(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    packet: &Packet,
    seq: WrappingSeq,
) {
    let conn = &mut group.conns[index];
    if packet.has(flag::RST) {
        // RFC 5961 §3.2: only the exact sequence number resets, and that before data was cut off.
        if seq == conn.rcv_nxt {
            local.stats.add(Counter::TcpResetsReceived, 1);
            close::end(group, local, index, DeadReason::Reset);
        } else {
            local.stats.drop(Drop::TcpOutOfWindow);
            suspicious(group, local, index);
        }
    } else if packet.has(flag::SYN) {
        local.stats.drop(Drop::TcpOutOfWindow);
        // RFC 5961 §4.2: whatever its sequence number. Also in SYN-RECEIVED, where RFC 9293 would go back
        // to LISTEN: a peer that has begun anew answers with the RST that does so.
        suspicious(group, local, index);
    } else {
        local.stats.drop(Drop::TcpMalformed);
    }
}

/// An acknowledgement of what we have, one per batch.
pub fn challenge(group: &mut FlowGroup, local: &mut Local, index: u32) {
    group.conns[index].flags |= Flags::ACK_NOW;
    group.want_output(index, local);
}

/// The ACK of our SYN-ACK. `false`: it was not, and the segment is done with.
fn handshake_done(
    group: &mut FlowGroup,
    local: &mut Local,
    index: u32,
    packet: &Packet,
    mbuf: &Mbuf,
) -> bool {
    let conn = &mut group.conns[index];
    if packet.ack.at_or_before(conn.snd_una) || packet.ack.after(conn.snd_max) {
        local.stats.drop(Drop::TcpOutOfWindow);
        listen::reset_answer(local, packet, mbuf);
        return false;
    }
    if !listen::may_knock(group, local, index) {
        return false;
    }
    let conn = &mut group.conns[index];
    conn.state =
        if conn.flags.contains(Flags::FIN_QUEUED) { State::FinWait1 } else { State::Established };
    conn.snd_wnd = u32::from(packet.window) << conn.snd_shift;
    conn.max_wnd = conn.snd_wnd;
    conn.wl1 = packet.seq;
    conn.wl2 = packet.ack;
    listen::established(group, local, index);
    group.conns[index].state != State::Closed
}

/// An answer to our SYN (RFC 9293 §3.10.7.3).
fn syn_sent(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mbuf: &Mbuf) {
    let conn = &mut group.conns[index];
    let acks_ours = packet.has(flag::ACK)
        && packet.ack.after(conn.iss)
        && packet.ack.at_or_before(conn.snd_max);
    if packet.has(flag::ACK) && !acks_ours {
        if !packet.has(flag::RST) {
            listen::reset_answer(local, packet, mbuf);
        }
        return;
    }
    if packet.has(flag::RST) {
        if acks_ours {
            local.stats.add(Counter::TcpResetsReceived, 1);
            close::end(group, local, index, DeadReason::Reset);
        }
        return;
    }
    if !packet.has(flag::SYN) {
        return local.stats.drop(Drop::TcpOutOfWindow);
    }
    listen::take_syn(conn, local, packet, mbuf);
    if acks_ours {
        conn.state = State::Established;
        conn.snd_una = packet.ack;
        // It may have timed out, and not been sent again yet.
        conn.snd_nxt = packet.ack;
        conn.snd_wnd = u32::from(packet.window);
        conn.max_wnd = conn.snd_wnd;
        acks::progress(conn, local);
        conn.rto_at = crate::time::Instant::NEVER;
        if conn.timed == conn.iss {
            conn.timed = conn.snd_max;
            let rtt = sent::since(sent::clock(local.now), conn.first.at);
            conn.rtt.measured(rtt, local.rto_min_us);
        }
        listen::established(group, local, index);
        challenge(group, local, index);
    } else {
        // Simultaneous open (RFC 9293 §3.5): our SYN again, with an ACK.
        conn.state = State::SynReceived;
        conn.snd_nxt = conn.iss;
        group.want_output(index, local);
    }
}
