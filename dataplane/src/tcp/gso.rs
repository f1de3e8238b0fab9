//! Segmentation by the device (TSO): one frame carries many segments' payload, which costs the work of
//! one. Where the device cannot, frames are segments, and nothing here costs anything.
use crate::checksum;
use crate::conn::Conn;
use crate::device::{Gso, TxFrame};
use crate::family::{ETHERNET, Family};
use crate::ipv4;
use crate::ipv6;
use crate::local::Local;
use crate::tcp::ecn;
use crate::tcp::pmtu::headers;
use crate::tcp::wire::HEADER;

/// How many bytes the next frame may have of `room`, which windows and data leave, if segments have
/// at most `size`. Without the device's help a segment is a frame.
#[inline(always)]
pub fn frame_size(conn: &Conn, local: &Local, size: u32, room: u32, unsent: u32) -> u32 {
    if local.tso == 0 || room <= size {
        return room.min(size);
    }
    many(conn, local, size, room, unsent)
}

fn many(conn: &Conn, local: &Local, size: u32, room: u32, unsent: u32) -> u32 {
    // A probe of the path is one segment; CWR must be on one segment alone (virtio 1.2 §5.1.6.2.1 asks
    // for a feature otherwise).
    if size != u32::from(conn.mss) || ecn::tells(conn, conn.snd_nxt) {
        return size;
    }
    let most = u32::from(local.tso.saturating_sub(headers(conn)));
    let len = room.min(most.max(size));
    // Whole segments, unless it is the end of what there is.
    if len == unsent { len } else { len - len % size }
}

/// Makes the frame, whose TCP header has `header_len` bytes, one that the device cuts, if `len` bytes of
/// payload are more than a segment of `size`. The bytes that it carries then: whole segments, if
/// there was no room for all `wanted`.
#[inline(always)]
pub fn shape<A: Family>(
    frame: &mut TxFrame,
    header_len: usize,
    size: u16,
    wanted: u32,
    len: u32,
) -> u32 {
    if size == 0 || len <= u32::from(size) {
        return len;
    }
    cut(frame, A::BELOW + header_len, size, (wanted, len), A::VERSION == 6)
}

fn cut(
    frame: &mut TxFrame,
    header_len: usize,
    size: u16,
    (wanted, len): (u32, u32),
    ipv6: bool,
) -> u32 {
    let whole = if len < wanted { len - len % u32::from(size) } else { len };
    if whole < len {
        frame.truncate(header_len + whole as usize);
    }
    if whole > u32::from(size) {
        frame.gso = Some(Gso { size, header_len: header_len as u16, ipv6 });
    }
    whole
}

/// Makes the headers in `slot` such as [`Pseudo::WithoutLength`](crate::device::Pseudo) says.
#[cold]
#[inline(never)]
pub fn leave_length_out<A: Family>(slot: &mut [u8], from: A, to: A) {
    if A::VERSION == 4 {
        slot[ETHERNET..][ipv4::SUM].fill(0);
    }
    let pseudo = A::pseudo(from, to, ipv4::TCP, 0);
    put_sum(slot, A::BELOW, pseudo);
}

/// Undoes it, for who shows the frame to others.
pub fn put_length_back(frame: &mut [u8]) {
    let Some((_, ip)) = frame.split_at_mut_checked(ETHERNET) else { return };
    let v4 = ip.first().is_some_and(|first| first >> 4 == 4);
    let (tcp, field) = if v4 { (ipv4::HEADER, 2) } else { (ipv6::HEADER, 4) };
    if ip.len() < tcp + HEADER {
        return;
    }
    let mut len = u16::from_be_bytes([ip[field], ip[field + 1]]);
    if v4 {
        len = len.wrapping_sub(ipv4::HEADER as u16);
        let sum = checksum::finish(checksum::sum(&ip[..ipv4::HEADER]));
        ip[ipv4::SUM].copy_from_slice(&sum);
    }
    let pseudo = u64::from(u16::from_ne_bytes([ip[tcp + SUM], ip[tcp + SUM + 1]]));
    put_sum(ip, tcp, checksum::add(pseudo, u64::from(len.to_be())));
}

/// Where a TCP header has its sum.
const SUM: usize = 16;

fn put_sum(bytes: &mut [u8], tcp: usize, sum: u64) {
    bytes[tcp + SUM..tcp + SUM + 2].copy_from_slice(&checksum::fold(sum).to_ne_bytes());
}
