//! What else a folded connection gets, and stays folded: the acknowledgement of its answer apart from the next request, that request
//! then, and both together without timestamps. For what [`super::folded::expects`] denies, so that it costs the usual
//! case nothing.
use super::folded;
use super::parse::Segment;
use super::receive::{event, header_len, may_take};
use crate::conn::{Conn, FOLDED, PLAIN, RESTING};
use crate::device::RxFrame;
use crate::input::eth;
use crate::local::Local;
use crate::mbuf::{Mbuf, Place};
use crate::tcp::wire::flag;
use ix_abi::event::Kind;

/// Takes the segment, if the connection is folded, and stays so with it; `false`: nothing has happened.
#[inline(never)]
pub fn take(
    conn: &mut Conn,
    local: &mut Local,
    tx_base: u32,
    segment: Segment<'_>,
    frame: &RxFrame,
) -> bool {
    let Some((header, len)) = expected(conn, local, tx_base, segment) else { return false };
    if !may_take(local, &frame.mbuf) {
        return false;
    }
    let acked = segment.ack().since(conn.snd_una);
    if conn.acl & PLAIN == 0 {
        conn.ts_recent = segment.stamp();
    }
    conn.snd_wnd = segment.window() << conn.snd_shift;
    conn.max_wnd = conn.max_wnd.max(conn.snd_wnd);
    if acked > 0 {
        folded::acknowledged::<false>(conn, local);
    }
    let window = u64::from(conn.snd_wnd.min(conn.kept_window()));
    let (kind, bytes, words) = if len > 0 {
        let offset = frame.offset + eth::HEADER as u16 + header as u16;
        let place = Place::of(&frame.mbuf, offset);
        let addr = folded::get(conn, local, place, len);
        folded::hold(conn, local);
        local.owing.push(conn);
        conn.acl &= !RESTING;
        match acked {
            0 => (Kind::Recv, len, [addr, 0]),
            _ => (Kind::RecvSent, len, [addr, u64::from(acked) | window << 32]),
        }
    } else {
        local.pool.free(Mbuf::from_raw(frame.mbuf.index()));
        conn.acl |= RESTING;
        (Kind::Sent, acked, [window, 0])
    };
    event(conn, local, kind, bytes, words);
    true
}

/// Bytes of the IP and TCP headers and of the payload, if the segment is one of those.
#[inline(always)]
fn expected(conn: &Conn, local: &Local, tx_base: u32, segment: Segment<'_>) -> Option<(u32, u32)> {
    if (conn.acl & !(PLAIN | RESTING)) ^ local.acl_generation != FOLDED {
        return None;
    }
    let header = header_len(conn, segment, flag::ACK)?;
    let len = segment.total().checked_sub(header)?;
    let acked = segment.ack().since(conn.snd_una);
    let expected = segment.seq() == conn.rcv_nxt
        && segment.ack() == conn.snd_end
        // Neither is what is out nor what is held for an acknowledgement that says nothing new.
        && conn.rx_held == 0
        && acked | len != 0
        && len <= conn.rcv_edge.since(conn.rcv_nxt)
        && len < 2 * u32::from(conn.mss)
        && (acked == 0 || local.tx.has_left(conn.last_tx.wrapping_sub(tx_base)));
    expected.then_some((header, len))
}
