//! Timestamps (RFC 7323): protection against segments that the sequence number has come round for.
use crate::conn::{Conn, Flags};
use crate::group::FlowGroup;
use crate::limits::TS_RECENT_VALID;
use crate::local::Local;
use crate::tcp::input::challenge;
use crate::tcp::wire::{Packet, flag};
use crate::time::Instant;
use ix_abi::stats::Drop;

/// Bits of the clock of `ts_recent_at`: 1.07 s.
const AGE_SHIFT: u32 = 30;

/// The clock of `ts_recent_at`.
#[inline(always)]
pub fn age_clock(now: Instant) -> u32 {
    (now.0 >> AGE_SHIFT) as u32
}

/// The check against old segments, PAWS (§5.3 R1), before any other. `false`: to be dropped.
#[inline(always)]
pub fn acceptable(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet) -> bool {
    let conn = &group.conns[index];
    match packet.ts {
        Some((value, _)) if value.wrapping_sub(conn.ts_recent) as i32 >= 0 => true,
        _ if !conn.flags.contains(Flags::TIMESTAMPS) => true,
        _ => odd(group, local, index, packet),
    }
}

/// A segment with an older timestamp than the last, or without one.
#[cold]
#[inline(never)]
fn odd(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet) -> bool {
    let conn = &group.conns[index];
    // Resets need none, and a SYN that comes now is answered in any case (RFC 5961 §4).
    if packet.has(flag::RST) || packet.ts.is_none() && packet.has(flag::SYN) {
        return true;
    }
    if packet.ts.is_some() {
        // After this long the timestamp clock may have come round itself (§5.5).
        let age = age_clock(local.now).wrapping_sub(conn.ts_recent_at);
        if u64::from(age) << AGE_SHIFT >= TS_RECENT_VALID.0 {
            return true;
        }
        challenge(group, local, index);
    }
    // One without a timestamp is dropped silently (§3.2).
    local.stats.drop(Drop::TcpTimestamp);
    false
}

/// Takes the timestamp of a segment that is acceptable in every respect, if it is the one to echo: that
/// of the segment that the next acknowledgement moves beyond, or of a later one (§4.3).
#[inline(always)]
pub fn take(conn: &mut Conn, now: Instant, packet: &Packet) {
    if let Some((value, _)) = packet.ts
        && packet.seq.at_or_before(conn.last_ack_sent())
    {
        conn.ts_recent = value;
        conn.ts_recent_at = age_clock(now);
    }
}

/// [`take`], of a segment that begins at `rcv_nxt`.
#[inline(always)]
pub fn take_in_order(conn: &mut Conn, now: Instant, value: u32) {
    if conn.ack_owed == 0 {
        conn.ts_recent = value;
        conn.ts_recent_at = age_clock(now);
    }
}

/// What the peer's SYN says begins it.
pub fn begin(conn: &mut Conn, now: Instant, value: u32) {
    conn.flags |= Flags::TIMESTAMPS;
    conn.ts_recent = value;
    conn.ts_recent_at = age_clock(now);
}
