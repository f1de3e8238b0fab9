//! Out-of-order data: received buffers in a sorted list, overlaps trimmed, nothing copied.
//!
//! The list is short (`limits::REASSEMBLY_MAX`), and what arrives usually goes to its end or fills
//! the hole before its head. A buffer's `Meta::word` is the sequence number of its first byte.
use crate::conn::Conn;
use crate::limits::REASSEMBLY_MAX;
use crate::local::Local;
use crate::mbuf::{Area, Mbuf, Meta, NO_MBUF, WAITS};
use crate::tcp::blocks;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::SackBlock;
use ix_abi::stats::{Counter, Drop};

fn meta_of(area: &Area, index: u32) -> Meta {
    let mbuf = Mbuf::from_raw(index);
    let meta = area.meta(&mbuf);
    let _stays_in_the_list = mbuf.into_raw();
    meta
}

fn set_meta(area: &Area, index: u32, meta: Meta) {
    let mut mbuf = Mbuf::from_raw(index);
    area.set_meta(&mut mbuf, meta);
    let _stays_in_the_list = mbuf.into_raw();
}

fn seq(meta: &Meta) -> WrappingSeq {
    WrappingSeq(meta.word)
}

fn end(meta: &Meta) -> WrappingSeq {
    seq(meta).plus(u32::from(meta.len))
}

/// Calls `run` with each range without a hole in it, and how many buffers came since its newest.
pub fn runs(conn: &Conn, local: &Local, mut run: impl FnMut(SackBlock, u32)) {
    let area = local.pool.area();
    let mut at = conn.ooo_head;
    while at != NO_MBUF {
        let first = meta_of(area, at);
        let age = |meta: &Meta| local.out_of_order.wrapping_sub(meta.references) & !WAITS;
        let mut block = (seq(&first), end(&first));
        let mut youngest = age(&first);
        at = first.next;
        while at != NO_MBUF {
            let next = meta_of(area, at);
            if seq(&next) != block.1 {
                break;
            }
            block.1 = end(&next);
            youngest = youngest.min(age(&next));
            at = next.next;
        }
        run(block, youngest);
    }
}

/// The buffer counts as having come just now.
fn touch(area: &Area, index: u32, count: u32) {
    set_meta(area, index, Meta { references: WAITS | count, ..meta_of(area, index) });
}

/// Frees a buffer of the list, out of which it is taken.
fn free(local: &mut Local, index: u32) {
    let area = local.pool.area();
    set_meta(area, index, Meta { references: 0, ..meta_of(area, index) });
    local.pool.free(Mbuf::from_raw(index));
}

/// Cuts `bytes` off the front.
fn cut_front(meta: &mut Meta, bytes: u32) {
    let bytes = bytes.min(u32::from(meta.len)) as u16;
    meta.offset += bytes;
    meta.len -= bytes;
    meta.word = meta.word.wrapping_add(u32::from(bytes));
}

/// Keeps a buffer whose meta (offset, len, word) is set and lies after `rcv_nxt`; what is there
/// already is cut off, and what is nothing new is freed. In the list nothing refers to a buffer, and
/// `Meta::references` says by a count when it came, marked by [`WAITS`].
pub fn insert(conn: &mut Conn, local: &mut Local, mut mbuf: Mbuf) {
    if conn.ooo_count >= REASSEMBLY_MAX {
        local.stats.drop(Drop::TcpReassemblyFull);
        return local.pool.free(mbuf);
    }
    let area = local.pool.area();
    local.out_of_order = local.out_of_order.wrapping_add(1);
    let mut new = area.meta(&mbuf);
    new.references = WAITS | local.out_of_order;
    let (from, to) = (seq(&new), end(&new));
    let mut before = NO_MBUF;
    let mut at = conn.ooo_head;
    while at != NO_MBUF && seq(&meta_of(area, at)).at_or_before(seq(&new)) {
        before = at;
        at = meta_of(area, at).next;
    }
    if before != NO_MBUF {
        let covered = end(&meta_of(area, before));
        if covered.after(seq(&new)) {
            let twice = covered.since(seq(&new));
            blocks::twice(conn, from, if covered.before(to) { covered } else { to });
            cut_front(&mut new, twice);
            touch(area, before, local.out_of_order);
        }
    }
    // Followers that it covers whole go; one that it reaches into keeps its bytes, ours are cut.
    while at != NO_MBUF && new.len > 0 {
        let follower = meta_of(area, at);
        if seq(&follower).after(end(&new)) || seq(&follower) == end(&new) {
            break;
        }
        if end(&follower).after(end(&new)) {
            blocks::twice(conn, seq(&follower), to);
            new.len = seq(&follower).since(seq(&new)) as u16;
            break;
        }
        blocks::twice(conn, seq(&follower), end(&follower));
        free(local, at);
        conn.ooo_count -= 1;
        conn.rx_buffers -= 1;
        at = follower.next;
    }
    let kept = new.len > 0;
    if kept {
        new.next = at;
        area.set_meta(&mut mbuf, new);
        local.stats.add(Counter::TcpOutOfOrder, 1);
        conn.ooo_count += 1;
        conn.rx_buffers += 1;
        at = mbuf.into_raw();
    } else {
        local.pool.free(mbuf);
    }
    if before == NO_MBUF {
        conn.ooo_head = at;
    } else {
        let mut meta = meta_of(area, before);
        meta.next = at;
        set_meta(area, before, meta);
    }
}

/// The next buffer that continues the stream at `rcv_nxt`, trimmed to it.
pub fn take(conn: &mut Conn, local: &mut Local) -> Option<Mbuf> {
    let area = local.pool.area();
    while conn.ooo_head != NO_MBUF {
        let mut meta = meta_of(area, conn.ooo_head);
        if seq(&meta).after(conn.rcv_nxt) {
            return None;
        }
        let mut mbuf = Mbuf::from_raw(conn.ooo_head);
        conn.ooo_head = meta.next;
        conn.ooo_count -= 1;
        conn.rx_buffers -= 1;
        let twice = conn.rcv_nxt.since(seq(&meta));
        cut_front(&mut meta, twice);
        meta.references = 0;
        area.set_meta(&mut mbuf, meta);
        if meta.len == 0 {
            local.pool.free(mbuf);
            continue;
        }
        return Some(mbuf);
    }
    None
}

/// Frees the last buffer, whose data the peer will have to send again; whether there was one.
pub fn drop_last(conn: &mut Conn, local: &mut Local) -> bool {
    if conn.ooo_head == NO_MBUF {
        return false;
    }
    let area = local.pool.area();
    let (mut before, mut last) = (NO_MBUF, conn.ooo_head);
    loop {
        let next = meta_of(area, last).next;
        if next == NO_MBUF {
            break;
        }
        (before, last) = (last, next);
    }
    if before == NO_MBUF {
        conn.ooo_head = NO_MBUF;
    } else {
        set_meta(area, before, Meta { next: NO_MBUF, ..meta_of(area, before) });
    }
    conn.ooo_count -= 1;
    conn.rx_buffers -= 1;
    free(local, last);
    true
}

/// Frees all.
pub fn clear(conn: &mut Conn, local: &mut Local) {
    while conn.ooo_head != NO_MBUF {
        let at = conn.ooo_head;
        conn.ooo_head = meta_of(local.pool.area(), at).next;
        conn.rx_buffers -= 1;
        free(local, at);
    }
    conn.ooo_count = 0;
}
