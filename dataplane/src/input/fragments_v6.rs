//! Fragments of IPv6 packets (RFC 8200 §4.5), put together as [`super::fragments`] does those of IPv4, in the
//! same table and within the same bounds: behind the first one's headers, without extension headers.
use super::eth::{self, HEADER as ETHERNET};
use super::transport::steer;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::fragments::{Added, Key, Piece};
use crate::ipv6::{Address, HEADER};
use crate::limits::{MBUF_BYTES, RECEIVE_RESERVE};
use crate::local::Local;
use crate::mbuf::Rest;
use crate::rss::group_of;
use ix_abi::IpAddress;
use ix_abi::stats::{Counter, Drop};

/// Where the payload is collected.
const PAYLOAD: usize = ETHERNET + HEADER;
/// Of the byte behind the first of an IPv6 header: congestion experienced.
const CE: u8 = 0x30;

/// A fragment, as its headers say.
#[derive(Clone, Copy, Debug)]
pub struct Fragment {
    /// The sender.
    pub source: Address,
    /// Us alone.
    pub destination: Address,
    /// What follows the fragment header.
    pub protocol: u8,
    /// Which of the sender's packets it is of.
    pub id: u32,
    /// Where it begins in that, in units of eight bytes.
    pub offset: u16,
    /// Nothing follows.
    pub last: bool,
    /// Where its bytes are in the buffer.
    pub payload: usize,
    /// How many there are.
    pub len: usize,
}

/// Takes a fragment; the packet, once it is whole.
#[cold]
pub fn handle(engine: &mut Engine, frame: RxFrame, f: &Fragment) -> Option<RxFrame> {
    let local = &mut engine.local;
    let id = group_of(local.toeplitz.hash_v6(f.source, f.destination, 0, 0), local.groups);
    let owner = local.owners.get(usize::from(id.0)).copied();
    if owner != Some(local.core) {
        steer(engine, frame, owner);
        return None;
    }
    let (offset, len) = (usize::from(f.offset) * 8, f.len);
    if PAYLOAD + offset + len > MBUF_BYTES {
        eth::drop(engine, frame, Drop::FragmentTooLong);
        return None;
    }
    let piece = Piece { offset: offset as u16, len: len as u16, last: f.last };
    insert(local, frame, f, piece)
}

fn insert(local: &mut Local, frame: RxFrame, f: &Fragment, piece: Piece) -> Option<RxFrame> {
    let Local { fragments, pool, stats, now, .. } = local;
    let mut mbuf = frame.mbuf;
    let Some(table) = fragments else {
        stats.drop(Drop::IpFragment);
        pool.free(mbuf);
        return None;
    };
    let area = pool.area();
    let key = Key {
        source: IpAddress(f.source),
        destination: IpAddress(f.destination),
        protocol: f.protocol,
        id: f.id,
    };
    let start = usize::from(frame.offset);
    let (at, len) = (PAYLOAD + usize::from(piece.offset), usize::from(piece.len));
    let headers: Option<[u8; PAYLOAD]> =
        area.data(&mbuf).get(start..).and_then(|data| data.first_chunk().copied());
    let added = match headers {
        Some(_) => table.add(&key, piece, |spoilt| pool.free(spoilt)),
        None => Added::Useless(Drop::Truncated),
    };
    let headers = headers.unwrap_or([0; PAYLOAD]);
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
            data.copy_within(f.payload..f.payload + len, at);
            data[..PAYLOAD].copy_from_slice(&headers);
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
                let bytes = area.data(&mbuf).get(f.payload..f.payload + len);
                let data = area.data_mut(buffer);
                if let (Some(bytes), Some(place)) = (bytes, data.get_mut(at..at + len)) {
                    place.copy_from_slice(bytes);
                }
                // The first fragment's headers, with the mark of any (RFC 3168 §5.3).
                let marked = data[15] & CE == CE || headers[15] & CE == CE;
                if piece.offset == 0 {
                    data[..PAYLOAD].copy_from_slice(&headers);
                }
                data[15] |= if marked { CE } else { 0 };
                stats.add(Counter::FragmentBytes, len as u64);
            }
            pool.free(mbuf);
            if added != Added::Complete(slot) {
                return None;
            }
            let (mut mbuf, total) = table.take(slot)?;
            stats.add(Counter::DatagramsReassembled, 1);
            let h = &mut area.data_mut(&mut mbuf)[ETHERNET..PAYLOAD];
            h[4..6].copy_from_slice(&total.to_be_bytes());
            h[6] = f.protocol;
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
