//! Small segments for an application that gives nothing back yet: copied behind the bytes of the connection's last
//! buffer, once it holds half of the buffers that it may, and they are worth less than its window promised.
//!
//! Otherwise a peer that sends a few bytes in each segment, to an application that wants a whole message first, would
//! fill the connection's share of buffers before the message is there, and the stream stood still for ever.
//!
//! The application may hold the front of that buffer already: of the rest it is told apart ([`told`]).
use crate::conn::{Conn, Flags};
use crate::limits::{MBUF_BYTES, RECEIVE_SHARE, RECEIVE_WINDOW};
use crate::local::Local;
use crate::mbuf::{Mbuf, Meta, NO_MBUF};
use crate::tcp::receive::share;
use ix_abi::stats::Counter;

/// Bytes in each buffer of a share that make a whole window.
const WORTH: usize = RECEIVE_WINDOW as usize / RECEIVE_SHARE as usize;

/// Whether the payload of this buffer, which continues the stream, is to go behind the connection's last. Its meta is set.
#[inline]
pub fn fits(conn: &Conn, local: &Local, mbuf: &Mbuf) -> bool {
    let held = usize::from(conn.rx_buffers - conn.ooo_count);
    let bytes = (conn.rx_held + conn.rx_waiting) as usize;
    if held == 0 || held < share(local, mbuf) / 2 || bytes >= held * WORTH {
        return false;
    }
    let area = local.pool.area();
    let last = Mbuf::from_raw(conn.rx_tail);
    let Meta { offset, len, .. } = area.meta(&last);
    let _stays_in_the_list = last.into_raw();
    let end = usize::from(offset) + usize::from(len);
    end + usize::from(area.meta(mbuf).len) <= MBUF_BYTES
}

/// Copies the payload of a buffer that [`fits`] behind the connection's last, where the application may only read.
#[cold]
#[inline(never)]
pub fn join(conn: &mut Conn, local: &mut Local, mbuf: Mbuf) {
    let area = local.pool.area();
    let mut last = Mbuf::from_raw(conn.rx_tail);
    let (from, mut to) = (area.meta(&mbuf), area.meta(&last));
    let payload = &area.data(&mbuf)[usize::from(from.offset)..][..usize::from(from.len)];
    let end = usize::from(to.offset + to.len);
    area.data_mut(&mut last)[end..][..payload.len()].copy_from_slice(payload);
    to.len += from.len;
    area.set_meta(&mut last, to);
    let _stays_in_the_list = last.into_raw();
    if conn.rx_undelivered == NO_MBUF {
        conn.rx_undelivered = conn.rx_tail;
    }
    local.pool.free(mbuf);
    local.stats.add(Counter::PayloadCopied, u64::from(from.len));
}

/// How many bytes of the first buffer of which it was not told all the application was told of.
#[inline]
pub fn told(conn: &Conn, first: &Meta) -> u16 {
    // A FIN has a sequence number, and comes last.
    let fin = u32::from(conn.flags.contains(Flags::FIN_RECEIVED));
    let from = conn.rcv_nxt.0.wrapping_sub(fin).wrapping_sub(conn.rx_waiting);
    let told = from.wrapping_sub(first.word);
    debug_assert!(told < u32::from(first.len));
    told as u16
}
