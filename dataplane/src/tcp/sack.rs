//! Selective acknowledgements as the sender takes them (RFC 2018 §5, RFC 2883, RFC 6675 §4): which
//! blocks are to be believed, and the marks that they leave on the records of what is under way.
use crate::conn::Conn;
use crate::flow_table::NIL;
use crate::tcp::sent::{self, Marks, Record, Records};
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{SACK_BLOCKS_MAX, SackBlock};
use arrayvec::ArrayVec;

#[cfg(test)]
mod tests;

/// What a segment's blocks say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Blocks behind the acknowledgement and within what was sent, in order of their beginning.
    pub blocks: ArrayVec<SackBlock, SACK_BLOCKS_MAX>,
    /// What the peer has received twice (RFC 2883 §4).
    pub duplicate: Option<SackBlock>,
}

/// Sorts out the blocks of a segment that acknowledges `ack`. Those that make no sense are ignored.
pub fn sort_out(conn: &Conn, ack: WrappingSeq, blocks: &[SackBlock]) -> Told {
    let mut told = Told::default();
    let oldest = ack.minus(conn.max_wnd.max(1 << 16));
    for (i, &(left, right)) in blocks.iter().enumerate() {
        if !left.before(right) || right.after(conn.snd_max) {
            continue;
        }
        let within = |&(l, r): &SackBlock| l.at_or_before(left) && right.at_or_before(r);
        if right.at_or_before(ack) {
            // Below the acknowledgement: a duplicate if it comes first, else nothing new.
            if i == 0 && !left.before(oldest) {
                told.duplicate = Some((left, right));
            }
            continue;
        }
        if i == 0 && blocks.get(1).is_some_and(within) {
            told.duplicate = Some((left, right));
            continue;
        }
        let block = (left.later(ack), right);
        let at = told.blocks.iter().take_while(|(l, _)| l.before(block.0)).count();
        if told.blocks.try_insert(at, block).is_err() {
            break;
        }
    }
    told
}

/// Marks what lies in `blocks`, which are in order; calls `newly` with each record that was not
/// marked before, and its length. One walk from the first record to the end of the last block. A
/// record that a block cuts is split; if there is no room for that, it is left as it is, which is
/// safe: it is then at worst sent again.
pub fn mark(
    conn: &mut Conn,
    records: &mut Records,
    blocks: &[SackBlock],
    mut newly: impl FnMut(&Record, u32),
) {
    let mut blocks = blocks.iter().copied().peekable();
    let mut before = NIL;
    let mut at = sent::head(conn);
    let mut start = conn.snd_una;
    while at != NIL {
        while blocks.next_if(|(_, right)| right.at_or_before(start)).is_some() {}
        let Some(&(left, right)) = blocks.peek() else { return };
        let record = sent::get(conn, records, at);
        let apart = record.end.at_or_before(left) || record.marks.contains(Marks::SACKED);
        // What is before the block stays as it is, and the walk goes on with the rest.
        let cut = if left.after(start) { left } else { right };
        let whole = left.at_or_before(start) && record.end.at_or_before(right);
        if !apart && !whole && sent::split(conn, records, at, cut) {
            continue;
        }
        if !apart && whole {
            take(conn, records, at, start, &mut newly);
            if before != NIL && is_marked(conn, records, before) {
                sent::merge(conn, records, before);
                at = before;
            }
            let next = sent::get(conn, records, at).next;
            if next != NIL && is_marked(conn, records, next) {
                sent::merge(conn, records, at);
            }
        }
        let record = sent::get(conn, records, at);
        before = at;
        start = record.end;
        at = record.next;
    }
}

fn is_marked(conn: &Conn, records: &Records, at: u32) -> bool {
    sent::get(conn, records, at).marks.contains(Marks::SACKED)
}

fn take(
    conn: &mut Conn,
    records: &mut Records,
    at: u32,
    start: WrappingSeq,
    newly: &mut impl FnMut(&Record, u32),
) {
    let record = sent::get(conn, records, at);
    let len = record.end.since(start);
    conn.sacked += len;
    if record.marks.contains(Marks::LOST) {
        conn.lost -= len;
    }
    newly(&record, len);
    let marks = (record.marks - Marks::LOST) | Marks::SACKED;
    sent::get_mut(conn, records, at).marks = marks;
}

/// Takes all marks of a walk back: the peer has dropped what it had told of (RFC 2018 §8).
pub fn forget(conn: &mut Conn, records: &mut Records) {
    let mut at = sent::head(conn);
    while at != NIL {
        let record = sent::get_mut(conn, records, at);
        record.marks -= Marks::SACKED;
        at = record.next;
    }
    conn.sacked = 0;
}
