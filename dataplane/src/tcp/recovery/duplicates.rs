//! Peers without selective acknowledgements: duplicate ones are counted (RFC 5681 §3.2, RFC 6582).
use super::Stage;
use crate::conn::{Conn, Flags};
use crate::group::FlowGroup;
use crate::tcp::sent::{self, Marks, Records};
use crate::tcp::wire::Packet;

/// Duplicate acknowledgements that mean a loss (RFC 5681 §3.2).
const DUP_ACKS: u8 = 3;

/// Whether the same acknowledgement again says that a segment has arrived (RFC 5681 §2); with
/// selective acknowledgements only those do.
pub(super) fn repeats(conn: &Conn, packet: &Packet) -> bool {
    !conn.flags.contains(Flags::SACK)
        && packet.ack == conn.snd_una
        && packet.seq_len() == 0
        && conn.snd_una.before(conn.snd_max)
        && u32::from(packet.window) << conn.snd_shift == conn.snd_wnd
}

/// Without selective acknowledgements: counts duplicates, each of which says that some segment has
/// arrived (RFC 6582 §3.2). Returns the bytes that are taken as delivered.
pub(super) fn count(group: &mut FlowGroup, index: u32, repeats: bool, acked: u32) -> u32 {
    let FlowGroup { conns, sent: records, recoveries, .. } = group;
    let conn = &mut conns[index];
    let recovery = &mut recoveries[conn.recovery];
    let mss = u32::from(conn.mss);
    if repeats {
        recovery.dup_acks = recovery.dup_acks.saturating_add(1);
        if recovery.stage == Stage::Timeout {
            return 0;
        }
        let before = conn.sacked;
        let most = conn.flight().saturating_sub(conn.lost);
        conn.sacked = (before + mss).min(most).max(before);
        let third = recovery.dup_acks == DUP_ACKS && recovery.stage == Stage::Disorder;
        // The acknowledgement must be beyond what the last recovery was about (§3.2 step 1, §4.1).
        let beyond = conn.recover != conn.snd_una && !conn.is_ahead(conn.recover);
        if third && beyond {
            lose_first(conn, records);
        }
        // (A large frame of which there is no memory for a part is lost as a whole: then less is taken as delivered than before.)
        return conn.sacked.saturating_sub(before);
    }
    if acked == 0 {
        return 0;
    }
    let counted = conn.sacked.min(acked.saturating_sub(mss));
    match recovery.stage {
        // A partial acknowledgement: the next hole (§3.2 step 3).
        Stage::Fast if conn.snd_una.before(conn.recover) => {
            conn.sacked -= counted;
            lose_first(conn, records);
        }
        _ => {
            recovery.dup_acks = 0;
            conn.sacked = 0;
        }
    }
    acked - counted
}

/// Takes the first record for lost, unless it was sent again already.
fn lose_first(conn: &mut Conn, records: &mut Records) {
    let segment = conn.snd_una.plus(u32::from(conn.mss));
    let more = segment.before(conn.first.end) && segment.before(conn.snd_end);
    if more && conn.snd_una != conn.snd_max {
        // Of a large frame only the first segment is known to be missing.
        let _or_all_of_it = sent::split(conn, records, sent::FIRST, segment);
    }
    let first = sent::get(conn, records, sent::FIRST);
    if conn.snd_una != conn.snd_max && !first.marks.intersects(Marks::LOST | Marks::AGAIN) {
        conn.first.marks |= Marks::LOST;
        let len = first.end.since(conn.snd_una);
        conn.lost += len;
        conn.sacked = conn.sacked.min(conn.flight() - conn.lost.min(conn.flight()));
    }
}
