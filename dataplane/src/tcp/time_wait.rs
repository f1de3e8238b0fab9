//! TIME-WAIT: what it still answers, and when its place may be taken before its time is over.
use crate::conn::{Conn, Flags, State};
use crate::group::FlowGroup;
use crate::limits::TIME_WAIT_REUSE;
use crate::local::Local;
use crate::mbuf::Mbuf;
use crate::tcp::challenge::suspicious;
use crate::tcp::input::challenge;
use crate::tcp::listen;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{Packet, flag};
use crate::tcp::{acks, close};
use ix_abi::stats::Drop;

/// How far behind the old stream a new one begins at least: beyond all that the old windows let in.
const GAP: u32 = 1 << 17;

/// A segment for a connection in TIME-WAIT (RFC 9293 §3.10.7.4).
pub fn segment(group: &mut FlowGroup, local: &mut Local, index: u32, packet: &Packet, mbuf: Mbuf) {
    let conn = &mut group.conns[index];
    if packet.has(flag::RST) {
        // RFC 1337: ignored, so that TIME-WAIT cannot be assassinated.
        local.stats.drop(Drop::TcpOutOfWindow);
    } else if packet.has(flag::SYN) {
        if packet.has(flag::ACK) || !may_begin_anew(conn, packet) {
            local.stats.drop(Drop::TcpOutOfWindow);
            suspicious(group, local, index);
        } else if listen::has_room(group, local, packet) {
            let after = make_way(group, local, index);
            return listen::stranger(group, local, packet, mbuf, Some(after));
        } else {
            // A cookie cannot know where the old stream ended. The SYN comes again.
            local.stats.drop(Drop::TcpSynQueueFull);
        }
    } else if packet.seq_len() > 0 {
        let end = packet.seq.plus(packet.seq_len());
        if packet.has(flag::FIN) && end == conn.rcv_nxt {
            // Our last acknowledgement was lost: the time begins again.
            acks::enter_time_wait(group, local, index);
            challenge(group, local, index);
        } else {
            local.stats.drop(Drop::TcpOutOfWindow);
            suspicious(group, local, index);
        }
    }
    local.pool.free(mbuf);
}

/// Whether a SYN is beyond all that the old incarnation sent: by its timestamp (RFC 6191 §2), or, where
/// that says nothing, by its sequence number (RFC 1122 §4.2.2.13).
fn may_begin_anew(conn: &Conn, packet: &Packet) -> bool {
    let beyond = packet.seq.after(conn.rcv_nxt);
    match packet.ts {
        // What may still be under way has no timestamp, and will be told by that.
        Some(_) if !conn.flags.contains(Flags::TIMESTAMPS) => true,
        Some((value, _)) if value != conn.ts_recent => {
            (value.wrapping_sub(conn.ts_recent) as i32) > 0
        }
        _ => beyond,
    }
}

/// Whether `connect` may take the place of a connection: one in TIME-WAIT for so long that our
/// timestamps, which the peer looks at, have moved on.
pub fn may_reopen(conn: &Conn, local: &Local) -> bool {
    let until = local.now + local.profile.time_wait;
    conn.state == State::TimeWait
        && conn.flags.contains(Flags::TIMESTAMPS)
        && until.since(conn.rto_at) >= TIME_WAIT_REUSE
}

/// Ends it early. Returns what the new incarnation's sequence numbers must lie after.
pub fn make_way(group: &mut FlowGroup, local: &mut Local, index: u32) -> WrappingSeq {
    let after = group.conns[index].snd_max;
    close::time_wait_over(group, local, index);
    after
}

/// The initial sequence number for an incarnation that follows one which ended at `after`: the
/// clock's, unless the old one was faster than the clock.
pub fn beyond(iss: WrappingSeq, after: Option<WrappingSeq>) -> WrappingSeq {
    match after {
        Some(after) if !iss.after(after) => after.plus(GAP),
        _ => iss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_incarnation_begins_beyond_an_old_one_that_was_faster_than_the_clock() {
        let old = WrappingSeq(u32::MAX - 5);
        let later = old.plus(1000);
        assert_eq!(beyond(later, Some(old)), later, "the clock was faster");
        assert_eq!(beyond(old, Some(old)), old.plus(GAP));
        assert_eq!(beyond(old.minus(1_000_000), Some(old)), old.plus(GAP));
        assert_eq!(beyond(later, None), later);
    }
}
