//! Selective acknowledgements as the receiver gives them: what has arrived behind a hole (RFC 2018 §4),
//! and what has arrived twice (RFC 2883).
use crate::conn::{Conn, Flags};
use crate::local::Local;
use crate::mbuf::NO_MBUF;
use crate::tcp::reassembly;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{OPTIONS_MAX, SACK_BLOCKS_MAX, SackBlock};
use arrayvec::ArrayVec;

/// A SACK option with the NOPs before it.
pub type Blocks = ArrayVec<u8, OPTIONS_MAX>;

/// Bytes of the option without blocks.
const HEAD: usize = 4;
/// Bytes of a block.
const BLOCK: usize = 8;

/// Whether there is something to tell.
#[inline(always)]
pub fn any(conn: &Conn) -> bool {
    (conn.ooo_head != NO_MBUF || conn.twice_len > 0) && conn.flags.contains(Flags::SACK)
}

/// Remembers that `[from, to)` has arrived a second time.
pub fn twice(conn: &mut Conn, from: WrappingSeq, to: WrappingSeq) {
    conn.twice = from;
    conn.twice_len = to.since(from).min(u32::from(u16::MAX)) as u16;
}

/// Whether all of the range is here. What lies behind a hole may have been thrown away since it came: told first, it would pass for
/// something that was received just now (RFC 2883 §4).
fn is_there(conn: &Conn, local: &Local, (from, to): SackBlock) -> bool {
    let mut there = !to.after(conn.rcv_nxt);
    reassembly::runs(conn, local, |(left, right), _| {
        there |= left.at_or_before(from) && !to.after(right);
    });
    there
}

/// The option to send now, which has room beside `used` bytes of others: the duplicate, then the runs
/// behind holes, first the one that something was added to last. What was received twice is told once.
#[cold]
#[inline(never)]
pub fn take(conn: &mut Conn, local: &Local, used: usize) -> Blocks {
    let most = ((OPTIONS_MAX - used - HEAD) / BLOCK).min(SACK_BLOCKS_MAX);
    let mut blocks = ArrayVec::<SackBlock, SACK_BLOCKS_MAX>::new();
    if conn.twice_len > 0 {
        let range = (conn.twice, conn.twice.plus(u32::from(conn.twice_len)));
        if is_there(conn, local, range) {
            blocks.push(range);
        }
        conn.twice_len = 0;
    }
    let room = most - blocks.len();
    // The newest runs in order, found in one walk.
    let mut newest = ArrayVec::<(SackBlock, u32), { SACK_BLOCKS_MAX + 1 }>::new();
    reassembly::runs(conn, local, |block, age| {
        let at = newest.iter().take_while(|(_, a)| *a <= age).count();
        newest.insert(at, (block, age));
        newest.truncate(room);
    });
    blocks.extend(newest.into_iter().map(|(block, _)| block));
    let mut option = Blocks::new();
    if !blocks.is_empty() {
        option.extend([1, 1, 5, (2 + BLOCK * blocks.len()) as u8]);
        for (left, right) in blocks {
            option.extend(left.0.to_be_bytes());
            option.extend(right.0.to_be_bytes());
        }
    }
    option
}
