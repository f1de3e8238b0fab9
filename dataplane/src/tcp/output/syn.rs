//! SYN and SYN-ACK.
use super::{finish_checksum, header};
use crate::conn::{Conn, Flags, State};
use crate::device::{TxChecksum, TxFull, TxQueue};
use crate::family::Family;
use crate::fast::emit;
use crate::group::FlowGroup;
use crate::limits::RECEIVE_SHIFT;
use crate::local::Local;
use crate::tap;
use crate::tcp::ecn;
use crate::tcp::listen::{SYN_WINDOW, trying};
use crate::tcp::sent::{self, FIRST};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{self, HEADER, flag};
use crate::time::Instant;
use ix_abi::stats::Counter;

/// SYN or SYN-ACK, with our options.
pub fn syn<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    let conn = &mut group.conns[index];
    let first = conn.state == State::SynReceived && conn.snd_max == conn.iss;
    if first && !conn.flags.intersects(Flags::V6.union(Flags::UNPREDICTED)) {
        return syn_ack(group, local, queue, index);
    }
    if conn.flags.contains(Flags::V6) {
        syn_of::<T, [u8; 16]>(group, local, queue, index)
    } else {
        syn_of::<T, [u8; 4]>(group, local, queue, index)
    }
}

/// The first answer to a SYN over IPv4, as [`syn_of`] makes it.
#[inline]
fn syn_ack<T: TxQueue>(
    group: &mut FlowGroup,
    local: &mut Local,
    queue: &mut T,
    index: u32,
) -> Result<(), TxFull> {
    if !local.tx.ready() {
        return Err(TxFull);
    }
    let conn = &mut group.conns[index];
    let said = syn_options(conn, local, true);
    emit::syn_ack(conn, local, queue, &said)?;
    if local.tap.is_on() {
        tap::sent(local, |_| ());
    }
    sent::push(conn, &mut group.sent, FIRST, conn.iss.plus(1), sent::clock(local.now));
    went_out(conn, local);
    let at = conn.rto_at;
    group.arm_at(index, at, local);
    Ok(())
}

/// What our SYN says; in an `answer` only what the peer has offered.
#[inline(always)]
fn syn_options(conn: &Conn, local: &Local, answer: bool) -> wire::SynOptions {
    let ours = |flag| !answer || conn.flags.contains(flag);
    let value = local.ts_clock().wrapping_add(conn.ts_offset);
    wire::SynOptions {
        mss: local.mss_at(conn.local),
        shift: ours(Flags::SCALED).then_some(RECEIVE_SHIFT),
        sack_permitted: ours(Flags::SACK),
        timestamps: ours(Flags::TIMESTAMPS).then_some((value, conn.ts_recent)),
    }
}

/// Our SYN is under way, its clock runs.
#[inline(always)]
fn went_out(conn: &mut Conn, local: &Local) {
    conn.snd_nxt = conn.iss.plus(1);
    conn.snd_max = conn.snd_nxt;
    conn.flags -= Flags::ACK_NOW;
    // It may have been stopped while the neighbour's address was looked for.
    if conn.rto_at == Instant::NEVER {
        conn.rto_at = local.now + conn.rtt.timeout();
    }
    trying(conn, local.now);
}

#[inline(never)]
fn syn_of<T: TxQueue, A: Family>(
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
    let (congestion, tos) = ecn::syn_bits(conn, local);
    let mut emit = header::<A>(conn, local, conn.iss, (flags | congestion, tos), SYN_WINDOW);
    if !answer {
        emit.ack = WrappingSeq(0);
    }
    let said = syn_options(conn, local, answer);
    let offload = local.tx_checksum;
    let slot = local.tx.header();
    let Some(at) = slot[A::BELOW + HEADER..].first_chunk_mut() else { return Err(TxFull) };
    let (options, _) = wire::emit_syn_options(at, &said);
    let header_len = HEADER + options;
    wire::emit(slot, &emit, options, 0);
    finish_checksum(slot, &emit, header_len, header_len as u16, 0, offload);
    let frame = local.tx.begin(A::BELOW + header_len);
    if offload {
        frame.checksum = Some(TxChecksum { start: A::BELOW as u16, offset: 16 });
    }
    local.tx.push(queue, &mut local.stats)?;
    if local.tap.is_on() {
        tap::sent(local, |_| ());
    }
    if conn.snd_max == conn.iss {
        sent::push(conn, &mut group.sent, FIRST, conn.iss.plus(1), sent::clock(local.now));
    } else {
        // An answer would not say to which (RFC 6298 §3): measured is what comes behind it.
        conn.timed = conn.iss.plus(2);
        local.stats.add(Counter::TcpRetransmits, 1);
    }
    went_out(conn, local);
    group.arm(index, local);
    Ok(())
}
