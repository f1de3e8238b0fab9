//! Fragments of IPv6 packets (RFC 8200 §4.5), put together by [`super::reassembly`] behind the first one's headers,
//! without extension headers.
use super::eth::{self, HEADER as ETHERNET};
use super::reassembly::{self, Part};
use super::transport::steer_to_owner;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::fragments::{Key, Piece};
use crate::ipv6::{Address, HEADER};
use crate::limits::MBUF_BYTES;
use crate::local::Local;
use crate::mbuf::Rest;
use crate::rss::group_of;
use ix_abi::IpAddress;
use ix_abi::stats::Drop;

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
    let id = usize::from(id.0);
    if local.owners.get(id) != Some(&local.core) {
        steer_to_owner(engine, frame, id);
        return None;
    }
    let (offset, len) = (usize::from(f.offset) * 8, f.len);
    if PAYLOAD + offset + len > MBUF_BYTES {
        eth::drop(engine, frame, Drop::FragmentTooLong);
        return None;
    }
    let piece = Piece { offset: offset as u16, len: len as u16, last: f.last };
    put(local, frame, f, piece)
}

/// Its headers, and where its payload goes.
fn put(local: &mut Local, frame: RxFrame, f: &Fragment, piece: Piece) -> Option<RxFrame> {
    let start = usize::from(frame.offset);
    let area = local.pool.area();
    let headers: Option<[u8; PAYLOAD]> =
        area.data(&frame.mbuf).get(start..).and_then(|data| data.first_chunk().copied());
    let Some(headers) = headers else {
        local.stats.drop(Drop::Truncated);
        local.pool.free(frame.mbuf);
        return None;
    };
    let key = Key {
        source: IpAddress(f.source),
        destination: IpAddress(f.destination),
        protocol: f.protocol,
        id: f.id,
    };
    let part = Part { key, piece, payload: f.payload, headers: &headers, mark: CE };
    let (mut mbuf, total) = reassembly::put(local, frame.mbuf, &part)?;
    let h = &mut area.data_mut(&mut mbuf)[ETHERNET..PAYLOAD];
    h[4..6].copy_from_slice(&total.to_be_bytes());
    h[6] = f.protocol;
    let (len, checksum) = (PAYLOAD as u16 + total, RxChecksum::Unknown);
    Some(RxFrame { rest: Rest::NONE, merged: 0, mbuf, offset: 0, len, checksum, hash: None })
}
