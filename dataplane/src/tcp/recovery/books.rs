//! The books of what is under way, for tests.
use crate::conn::{Conn, Flags, State};
use crate::flow_table::NIL;
use crate::group::FlowGroup;
use crate::tcp::sent::{self, Marks};

/// Whether the records of a connection cover what is under way without a gap, and its counts are
/// those of their marks; for tests. Walks them all.
pub fn is_consistent(group: &FlowGroup, conn: &Conn) -> bool {
    if conn.state == State::Closed {
        // Abandoned: the records are gone, the numbers stay.
        return conn.sent_count == 0 && conn.sacked + conn.lost == 0 && conn.recovery == NIL;
    }
    let (mut sacked, mut lost, mut count) = (0, 0, 0);
    let mut start = conn.snd_una;
    let mut at = sent::head(conn);
    let mut last = sent::FIRST;
    while at != NIL && count <= u32::from(conn.sent_count) {
        let record = sent::get(conn, &group.sent, at);
        let len = record.end.since(start);
        if len == 0 || record.end.after(conn.snd_max) {
            return false;
        }
        sacked += if record.marks.contains(Marks::SACKED) { len } else { 0 };
        lost += if record.marks.contains(Marks::LOST) { len } else { 0 };
        count += 1;
        (start, last, at) = (record.end, at, record.next);
    }
    let by_marks = conn.flags.contains(Flags::SACK);
    let idle = conn.snd_una == conn.snd_max;
    at == NIL
        && (idle && conn.sent_count == 0 || start == conn.snd_max && last == conn.sent_tail)
        && (idle || count == u32::from(conn.sent_count) + 1)
        && (sacked == conn.sacked || !by_marks)
        && lost == conn.lost
        && (conn.recovery != NIL || sacked + lost == 0)
}

/// Whether all records and recoveries in use are some connection's; for tests.
pub fn all_returned(group: &FlowGroup) -> bool {
    let used = |index| group.conns.at(index);
    let live = |conn: &&Conn| !conn.flags.contains(Flags::FREED);
    let conns = || (0..group.conns.capacity()).map(used).filter(live);
    let records: u32 = conns().map(|conn| u32::from(conn.sent_count)).sum();
    let recoveries = conns().filter(|conn| conn.recovery != NIL).count();
    records == group.sent.len() && recoveries == group.recoveries.len() as usize
}
