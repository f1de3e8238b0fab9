//! What is under way: a record for each range of sequence numbers that went out in one segment, in
//! order, from `snd_una` to `snd_max` without a gap.
//!
//! The first record is in the connection itself and begins at `snd_una`, so that a single segment in
//! flight touches nothing else; the others are in a slab of the group. What the peer has told of
//! selectively is merged into one record for each run of it, so that a walk passes holes and what
//! is behind them, not each segment.
use crate::conn::Conn;
use crate::flow_table::NIL;
use crate::limits::SENT_PER_CONNECTION;
use crate::slab::Slab;
use crate::tcp::seq::WrappingSeq;
use crate::time::{Duration, Instant};
use bitflags::bitflags;

#[cfg(test)]
mod tests;

bitflags! {
    /// What is known of a record.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Marks: u8 {
        /// The peer has it (RFC 2018); to be kept all the same, since it may change its mind.
        const SACKED = 1 << 0;
        /// Taken for lost, and not sent again since.
        const LOST = 1 << 1;
        /// Was sent more than once.
        const AGAIN = 1 << 2;
    }
}

/// A range that went out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Record {
    /// Its end; it begins where the one before ends.
    pub end: WrappingSeq,
    /// When it was sent last, by [`clock`].
    pub at: u32,
    /// The next one, or `NIL`.
    pub next: u32,
    /// See [`Marks`].
    pub marks: Marks,
}

const _: () = assert!(size_of::<Record>() == 16);

impl Default for Record {
    fn default() -> Record {
        Record { end: WrappingSeq(0), at: 0, next: NIL, marks: Marks::empty() }
    }
}

/// The records of a group's connections but for each one's first.
pub type Records = Slab<Record>;

/// The place of the record in the connection.
pub const FIRST: u32 = NIL - 1;

/// Bits of a clock tick: 1.024 µs. The clock goes round in 73 minutes.
const CLOCK_SHIFT: u32 = 10;

/// The clock of send times.
#[inline(always)]
pub fn clock(now: Instant) -> u32 {
    (now.0 >> CLOCK_SHIFT) as u32
}

/// Time from `at` to `now`, both of the clock.
#[inline(always)]
pub fn since(now: u32, at: u32) -> Duration {
    Duration(u64::from(now.wrapping_sub(at)) << CLOCK_SHIFT)
}

/// The record at a place.
#[inline]
pub fn get(conn: &Conn, records: &Records, at: u32) -> Record {
    if at == FIRST { conn.first } else { records[at] }
}

/// The same, to change it.
#[inline]
pub fn get_mut<'a>(conn: &'a mut Conn, records: &'a mut Records, at: u32) -> &'a mut Record {
    if at == FIRST { &mut conn.first } else { &mut records[at] }
}

/// Place of the first record, or `NIL` if nothing is under way.
#[inline]
pub fn head(conn: &Conn) -> u32 {
    if conn.snd_una == conn.snd_max { NIL } else { FIRST }
}

/// A place for the record of what is sent next; `None`: not before some are acknowledged.
#[inline]
pub fn reserve(conn: &Conn, records: &mut Records) -> Option<u32> {
    if conn.snd_una == conn.snd_max {
        return Some(FIRST);
    }
    if conn.sent_count >= SENT_PER_CONNECTION { None } else { records.alloc() }
}

/// Gives back a place that was reserved in vain.
pub fn cancel(records: &mut Records, place: u32) {
    if place != FIRST {
        records.release(place);
    }
}

/// Records in the reserved place what was sent from `snd_max` to `end`.
#[inline]
pub fn push(conn: &mut Conn, records: &mut Records, place: u32, end: WrappingSeq, at: u32) {
    let record = Record { end, at, next: NIL, marks: Marks::empty() };
    if place == FIRST {
        conn.first = record;
        conn.sent_tail = FIRST;
        return;
    }
    records[place] = record;
    get_mut(conn, records, conn.sent_tail).next = place;
    conn.sent_tail = place;
    conn.sent_count += 1;
}

/// Takes the first record out; there is another.
#[inline]
pub fn pop(conn: &mut Conn, records: &mut Records) {
    let next = conn.first.next;
    conn.first = records[next];
    records.release(next);
    conn.sent_count -= 1;
    if conn.sent_tail == next {
        conn.sent_tail = FIRST;
    }
}

/// Takes out the records that lie before `ack`, none of which is marked.
#[inline]
pub fn pop_to(conn: &mut Conn, records: &mut Records, ack: WrappingSeq) {
    while conn.first.end.at_or_before(ack) && conn.sent_count > 0 {
        pop(conn, records);
    }
}

/// Forgets all but the first.
pub fn clear(conn: &mut Conn, records: &mut Records) {
    let mut at = conn.first.next;
    while conn.sent_count > 0 && at != NIL {
        let next = records[at].next;
        records.release(at);
        conn.sent_count -= 1;
        at = next;
    }
    conn.first.next = NIL;
    conn.sent_tail = FIRST;
}

/// Cuts a record in two at `seq`, which lies inside of it; `false`: there is no room.
pub fn split(conn: &mut Conn, records: &mut Records, at: u32, seq: WrappingSeq) -> bool {
    if conn.sent_count >= SENT_PER_CONNECTION {
        return false;
    }
    let Some(second) = records.alloc() else { return false };
    records[second] = get(conn, records, at);
    let first = get_mut(conn, records, at);
    first.end = seq;
    first.next = second;
    conn.sent_count += 1;
    if conn.sent_tail == at {
        conn.sent_tail = second;
    }
    true
}

/// Makes a record and the one behind it one, with the marks of the first and the later time.
pub fn merge(conn: &mut Conn, records: &mut Records, at: u32) {
    let next = get(conn, records, at).next;
    let second = records[next];
    let first = get_mut(conn, records, at);
    first.end = second.end;
    first.next = second.next;
    if second.at.wrapping_sub(first.at) as i32 > 0 {
        first.at = second.at;
    }
    records.release(next);
    conn.sent_count -= 1;
    if conn.sent_tail == next {
        conn.sent_tail = at;
    }
}
