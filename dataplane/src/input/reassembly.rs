//! Datagrams in pieces, of either family: put together in the buffer of the first piece that came, behind
//! headers without options.
//!
//! A datagram has to fit a buffer, with its headers. That is every TCP segment, and UDP up to 2,006
//! bytes; longer ones are dropped and counted, since the application's contract names a datagram
//! by one address.
use crate::fragments::{Added, Key, Piece};
use crate::limits::RECEIVE_RESERVE;
use crate::local::Local;
use crate::mbuf::Mbuf;
use ix_abi::stats::{Counter, Drop};

/// Byte of a frame in which the network marks congestion: IPv4's second, IPv6's second.
const MARKS: usize = 15;

/// A fragment, as its headers say.
pub struct Part<'a> {
    pub key: Key,
    pub piece: Piece,
    /// Where its payload starts in the buffer.
    pub payload: usize,
    /// Ethernet's and IP's as they came, without what is between them and the payload of the whole.
    pub headers: &'a [u8],
    /// Congestion experienced, as the family writes it.
    pub mark: u8,
}

/// Puts a fragment where it belongs; the buffer and the bytes of payload in it, once they are complete. The headers
/// before them are the first fragment's.
pub fn put(local: &mut Local, mut mbuf: Mbuf, part: &Part<'_>) -> Option<(Mbuf, u16)> {
    let Local { fragments, pool, stats, now, .. } = local;
    let Some(table) = fragments else {
        stats.drop(Drop::IpFragment);
        pool.free(mbuf);
        return None;
    };
    let area = pool.area();
    let Part { key, piece, payload, headers, .. } = *part;
    let (at, len) = (headers.len() + usize::from(piece.offset), usize::from(piece.len));
    let added = table.add(&key, piece, |spoilt| pool.free(spoilt));
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
            data.copy_within(payload..payload + len, at);
            data[..headers.len()].copy_from_slice(headers);
            stats.add(Counter::FragmentBytes, len as u64);
            let mut evicted = false;
            table.begin(key, piece, mbuf, *now, |oldest| {
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
                let bytes = area.data(&mbuf).get(payload..payload + len);
                let data = area.data_mut(buffer);
                if let (Some(bytes), Some(place)) = (bytes, data.get_mut(at..at + len)) {
                    place.copy_from_slice(bytes);
                }
                merge(&mut data[..headers.len()], part);
                stats.add(Counter::FragmentBytes, len as u64);
            }
            pool.free(mbuf);
            if added != Added::Complete(slot) {
                return None;
            }
            let whole = table.take(slot)?;
            stats.add(Counter::DatagramsReassembled, 1);
            // It may well be of a group of the core that has forwarded its pieces.
            local.forwarded_by = None;
            Some(whole)
        }
    }
}

/// The headers of the whole are the first fragment's; but if the network has marked any, it has
/// marked the whole (RFC 3168 §5.3).
fn merge(of_whole: &mut [u8], part: &Part<'_>) {
    let marked = |headers: &[u8]| headers[MARKS] & part.mark == part.mark;
    let any = marked(of_whole) || marked(part.headers);
    if part.piece.offset == 0 {
        of_whole.copy_from_slice(part.headers);
    }
    if any {
        of_whole[MARKS] |= part.mark;
    }
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
