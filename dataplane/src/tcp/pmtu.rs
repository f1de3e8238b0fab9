//! The largest packet that a connection's path takes. It is believed to be that of our link and the
//! peer's, until a router says otherwise (RFC 1191) or until packets of full size, and only they,
//! seem not to arrive (RFC 4821: routers may be silent). Later, single larger segments find out
//! whether more passes again; a lost one is no sign of congestion by itself, but is treated as one,
//! which costs little at one in minutes.
use crate::conn::{Conn, Flags};
use crate::group::FlowGroup;
use crate::ipv6::MTU_MIN;
use crate::limits::{PATH_MTU_MIN, PATH_MTU_PROBE_AGAIN, PATH_MTU_PROBE_FIRST};
use crate::local::Local;
use crate::tcp::recovery;
use crate::tcp::seq::WrappingSeq;
use crate::time::Instant;
use bitflags::bitflags;
use ix_abi::stats::Counter;

bitflags! {
    /// What is true of a connection's path.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Path: u8 {
        /// It takes less than the links at its ends: `Conn::mss` is below `Conn::mss_ends`.
        const NARROW = 1 << 0;
        /// A larger segment, which ends before `Conn::probe_end`, is on its way.
        const PROBING = 1 << 1;
        /// A router has said that the peer cannot be reached.
        const UNREACHABLE = 1 << 2;
    }
}

/// Packet sizes that are tried, upwards one by one: the floor, IPv6's least, tunnels, PPPoE, Ethernet,
/// and what is between it and large frames.
const SIZES: [u16; 7] = [PATH_MTU_MIN, 1280, 1400, 1492, 1500, 4352, 8166];
/// What is tried first when packets vanish without a word.
const MODEST: u16 = 1280;
/// Timeouts in a row of a full segment that mean that its size is the reason.
const TIMEOUTS: u8 = 2;

/// Bytes of IP and TCP headers in a data segment.
pub fn headers(conn: &Conn) -> u16 {
    let ip = if conn.flags.contains(Flags::V6) { 40 } else { 20 };
    ip + crate::tcp::wire::HEADER as u16 + option_bytes(conn)
}

/// The smallest size that is believed; IPv6 has a floor of its own (RFC 8201 §4).
fn floor(conn: &Conn) -> u16 {
    if conn.flags.contains(Flags::V6) { MTU_MIN } else { PATH_MTU_MIN }
}

/// Bytes of the options that each data segment has.
fn option_bytes(conn: &Conn) -> u16 {
    if conn.flags.contains(Flags::TIMESTAMPS) { crate::tcp::wire::TIMESTAMPS as u16 } else { 0 }
}

/// A router has said that a packet of `packet_len` bytes does not fit: the next link takes `mtu`.
pub fn too_big(group: &mut FlowGroup, local: &mut Local, index: u32, mtu: u16, packet_len: u16) {
    let conn = &mut group.conns[index];
    let ours = conn.mss + headers(conn);
    // Of old routers that say nothing, the next size below (RFC 1191 §5).
    let smaller = SIZES.iter().rev().find(|size| **size < packet_len.min(ours));
    let mtu = if mtu == 0 { smaller.copied().unwrap_or(floor(conn)) } else { mtu };
    // That it was sent must be possible, and that it did not fit.
    if packet_len > ours && !conn.path.contains(Path::PROBING) || packet_len <= mtu || mtu >= ours {
        return;
    }
    if !lower(conn, local, mtu, PATH_MTU_PROBE_AGAIN) {
        return;
    }
    if conn.state.can_send() && conn.snd_una.before(conn.snd_max) {
        recovery::resegment(group, local, index);
    }
}

/// Takes a smaller size into use; `false`: it is none.
fn lower(conn: &mut Conn, local: &mut Local, mtu: u16, again: crate::time::Duration) -> bool {
    let mss = mtu.max(floor(conn)) - headers(conn);
    if mss >= conn.mss {
        return false;
    }
    if !conn.path.contains(Path::NARROW) {
        conn.mss_ends = conn.mss;
    }
    conn.mss = mss;
    conn.path |= Path::NARROW;
    conn.path -= Path::PROBING;
    conn.predict();
    conn.probe_at = seconds(local.now + again);
    local.stats.add(Counter::PathMtuLowered, 1);
    true
}

fn seconds(at: Instant) -> u32 {
    (at.0 / 1_000_000_000) as u32
}

/// The retransmission timer has fired, `conn.retries` times in a row before.
pub fn timed_out(conn: &mut Conn, local: &mut Local) {
    if conn.retries == 0 {
        conn.path -= Path::UNREACHABLE;
        conn.predict();
    }
    if conn.path.contains(Path::PROBING) {
        failed(conn, local);
    }
    let full = conn.snd_max.since(conn.snd_una) >= u32::from(conn.mss);
    if full && conn.retries > 0 && conn.retries.is_multiple_of(TIMEOUTS) {
        let size = conn.mss + headers(conn);
        let mtu = if size > MODEST { MODEST } else { PATH_MTU_MIN };
        lower(conn, local, mtu, PATH_MTU_PROBE_FIRST);
    }
}

/// An acknowledgement up to `ack`, before it is taken.
pub fn acknowledged(conn: &mut Conn, local: &mut Local, ack: WrappingSeq) {
    let after = ack.after(conn.snd_una) && !ack.after(conn.snd_max);
    if !conn.path.contains(Path::PROBING) || !after || ack.before(conn.probe_end) {
        return;
    }
    conn.path -= Path::PROBING;
    conn.mss = conn.probe_mss;
    if conn.mss >= conn.mss_ends {
        conn.path -= Path::NARROW;
        conn.predict();
    }
    // The next size at once: what follows from here is known to pass.
    conn.probe_at = seconds(local.now);
}

/// Something is sent again, in segments of the usual size, from `start` to `end`: if it is of the probe, that
/// was lost.
#[cold]
pub fn sent_again(conn: &mut Conn, local: &Local, start: WrappingSeq, end: WrappingSeq) {
    let probe = conn.probe_end.minus(u32::from(conn.probe_mss));
    if conn.path.contains(Path::PROBING) && start.before(conn.probe_end) && end.after(probe) {
        failed(conn, local);
    }
}

fn failed(conn: &mut Conn, local: &Local) {
    conn.path -= Path::PROBING;
    conn.probe_at = seconds(local.now + PATH_MTU_PROBE_AGAIN);
}

/// How many bytes the next segment may have of the `room` that windows and data leave: the segment
/// size, or more if it is time to try.
#[inline(always)]
pub fn segment_size(conn: &mut Conn, room: u32, now: Instant) -> u32 {
    let mss = u32::from(conn.mss);
    if conn.path.is_empty() || room <= mss { mss } else { probe(conn, mss, room, now) }
}

#[inline(never)]
fn probe(conn: &mut Conn, mss: u32, room: u32, now: Instant) -> u32 {
    let busy = conn.path.contains(Path::PROBING)
        || conn.flags.intersects(Flags::RECOVERY | Flags::BACKED_OFF)
        || conn.snd_nxt != conn.snd_max;
    let due = (seconds(now).wrapping_sub(conn.probe_at) as i32) >= 0;
    if !conn.path.contains(Path::NARROW) || busy || !due {
        return mss;
    }
    let headers = headers(conn);
    let larger = SIZES.iter().map(|size| size - headers).find(|mss| *mss > conn.mss);
    let wanted = larger.unwrap_or(u16::MAX).min(conn.mss_ends);
    if u32::from(wanted) > room {
        return mss;
    }
    conn.probe_mss = wanted;
    conn.probe_end = conn.snd_nxt.plus(u32::from(wanted));
    conn.path |= Path::PROBING;
    u32::from(wanted)
}
