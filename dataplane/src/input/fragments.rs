//! Fragments of IPv4 datagrams: put together in the buffer of the first that came, then taken as if
//! the datagram had arrived whole. All fragments from one host go to one core, whatever queue they
//! came from.
//!
//! A datagram has to fit a buffer, with its headers. That is every TCP segment, and UDP up to 2,006
//! bytes; longer ones are dropped and counted, since the application's contract names a datagram
//! by one address.
use super::eth::{self, HEADER as ETHERNET};
use super::transport::steer;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::fragments::{Added, Key, Piece, Table};
use crate::ipv4::{self, HEADER};
use crate::limits::{MBUF_BYTES, RECEIVE_RESERVE};
use crate::local::Local;
use crate::mbuf::{Mbuf, Rest};
use crate::rss::group_of;
use crate::tcp::ecn::CE;
use ix_abi::IpAddress;
use ix_abi::stats::{Counter, Drop};

/// Where the payload is collected: behind headers without options.
const PAYLOAD: usize = ETHERNET + HEADER;

/// Datagrams that are not complete.
pub type Fragments = Table<Mbuf>;

/// A table for the buffers that there are.
pub fn table() -> Fragments {
    Table::new((MBUF_BYTES - PAYLOAD) as u16)
}

/// What a fragment's headers say.
struct Fragment {
    key: Key,
    piece: Piece,
    tos: u8,
    /// Where its payload starts in the buffer.
    payload: usize,
    /// Both headers as they came, without options.
    headers: [u8; PAYLOAD],
}

/// Takes a fragment, whose header is intact and as long as it says.
#[cold]
pub fn handle(engine: &mut Engine, frame: RxFrame) {
    let local = &mut engine.local;
    let Some(fragment) = parse(local, &frame) else {
        return eth::drop(engine, frame, Drop::IpMalformed);
    };
    if fragment.headers[30..34] != local.address || local.ipv4.is_none() {
        return eth::drop(engine, frame, Drop::NotForUs);
    }
    let source = [26, 27, 28, 29].map(|at| fragment.headers[at]);
    let id = group_of(local.toeplitz.hash_v4(source, local.address, 0, 0), local.groups);
    let owner = local.owners.get(usize::from(id.0)).copied();
    if owner != Some(local.core) {
        return steer(engine, frame, owner);
    }
    if let Some(whole) = insert(local, frame.mbuf, &fragment) {
        super::ipv4::handle(engine, whole);
    }
}

fn parse(local: &Local, frame: &RxFrame) -> Option<Fragment> {
    let start = usize::from(frame.offset);
    let bytes = eth::bytes(local.pool.area().data(&frame.mbuf), frame)?;
    let headers: [u8; PAYLOAD] = *bytes.first_chunk()?;
    let h: &[u8; HEADER] = headers[ETHERNET..].first_chunk()?;
    let header_len = usize::from(h[0] & 15) * 4;
    let len = usize::from(u16::from_be_bytes([h[2], h[3]])).checked_sub(header_len)?;
    let field = u16::from_be_bytes([h[6], h[7]]);
    let last = field & 0x2000 == 0;
    // In units of eight bytes: at most 65,528.
    let piece = Piece { offset: (field & 0x1fff) * 8, len: len as u16, last };
    let key = Key {
        source: IpAddress::v4([h[12], h[13], h[14], h[15]]),
        destination: IpAddress::v4([h[16], h[17], h[18], h[19]]),
        protocol: h[9],
        id: u32::from(u16::from_be_bytes([h[4], h[5]])),
    };
    Some(Fragment { key, piece, tos: h[1], payload: start + ETHERNET + header_len, headers })
}

/// Puts a fragment where it belongs; the datagram, once it is complete.
fn insert(local: &mut Local, mut mbuf: Mbuf, fragment: &Fragment) -> Option<RxFrame> {
    let Local { fragments, pool, stats, now, .. } = local;
    let Some(table) = fragments else {
        stats.drop(Drop::IpFragment);
        pool.free(mbuf);
        return None;
    };
    let area = pool.area();
    let piece = fragment.piece;
    let (at, len) = (PAYLOAD + usize::from(piece.offset), usize::from(piece.len));
    let added = table.add(&fragment.key, piece, |spoilt| pool.free(spoilt));
    match added {
        Added::Useless(reason) => {
            stats.drop(reason);
            pool.free(mbuf);
            None
        }
        Added::New => {
            if pool.available_at_home(&mbuf) <= RECEIVE_RESERVE {
                stats.drop(Drop::NoBuffer);
                pool.free(mbuf);
                return None;
            }
            let data = area.data_mut(&mut mbuf);
            data.copy_within(fragment.payload..fragment.payload + len, at);
            data[..PAYLOAD].copy_from_slice(&fragment.headers);
            stats.add(Counter::FragmentBytes, len as u64);
            let mut evicted = false;
            table.begin(fragment.key, piece, mbuf, *now, |oldest| {
                evicted = true;
                pool.free(oldest);
            });
            if evicted {
                stats.drop(Drop::FragmentsFull);
            }
            None
        }
        Added::Place(slot) | Added::Complete(slot) => {
            if let Some(buffer) = table.buffer(slot) {
                let bytes = area.data(&mbuf).get(fragment.payload..fragment.payload + len);
                let data = area.data_mut(buffer);
                if let (Some(bytes), Some(place)) = (bytes, data.get_mut(at..at + len)) {
                    place.copy_from_slice(bytes);
                }
                headers(&mut data[..PAYLOAD], fragment);
                stats.add(Counter::FragmentBytes, len as u64);
            }
            pool.free(mbuf);
            if added != Added::Complete(slot) {
                return None;
            }
            let (mut mbuf, total) = table.take(slot)?;
            stats.add(Counter::DatagramsReassembled, 1);
            complete(area.data_mut(&mut mbuf), total);
            let len = PAYLOAD as u16 + total;
            let checksum = RxChecksum::Unknown;
            Some(RxFrame {
                mbuf,
                offset: 0,
                len,
                rest: Rest::NONE,
                merged: 0,
                checksum,
                hash: None,
            })
        }
    }
}

/// The headers of the whole are the first fragment's; but if the network has marked any, it has
/// marked the whole (RFC 3168 §5.3).
fn headers(of_whole: &mut [u8], fragment: &Fragment) {
    let marked = (of_whole[15] | fragment.tos) & CE;
    let any = of_whole[15] & CE == CE || fragment.tos & CE == CE;
    if fragment.piece.offset == 0 {
        of_whole.copy_from_slice(&fragment.headers);
    }
    if any {
        of_whole[15] |= marked;
    }
}

/// Makes the header that of a datagram which was never in pieces.
fn complete(data: &mut [u8], total: u16) {
    let h = &mut data[ETHERNET..PAYLOAD];
    let from = [h[12], h[13], h[14], h[15]];
    let to = [h[16], h[17], h[18], h[19]];
    let (tos, protocol) = (h[1], h[9]);
    ipv4::emit_marked(h, tos, from, to, protocol, HEADER as u16 + total);
}

/// Gives up what has waited for too long. Whether there was any.
pub fn expire(local: &mut Local) -> bool {
    let mut any = false;
    while let Some(expired) = local.fragments.as_mut().and_then(|t| t.pop_expired(local.now)) {
        any = true;
        if let Some(mbuf) = expired {
            local.stats.drop(Drop::FragmentTimeout);
            local.pool.free(mbuf);
        }
    }
    any
}
