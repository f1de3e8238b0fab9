//! Fragments of IPv4 datagrams: put together by [`super::reassembly`], then taken as if the datagram had arrived
//! whole. All fragments from one host go to one core, whatever queue they came from.
use super::eth::{self, HEADER as ETHERNET};
use super::reassembly::{self, Part};
use super::transport::steer_to_owner;
use crate::device::{RxChecksum, RxFrame};
use crate::engine::Engine;
use crate::fragments::{Key, Piece, Table};
use crate::ipv4::{self, HEADER};
use crate::limits::MBUF_BYTES;
use crate::local::Local;
use crate::mbuf::{Mbuf, Rest};
use crate::rss::group_of;
use crate::tcp::ecn::CE;
use ix_abi::IpAddress;
use ix_abi::stats::Drop;

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
    let id = usize::from(id.0);
    if local.owners.get(id) != Some(&local.core) {
        return steer_to_owner(engine, frame, id);
    }
    let Fragment { key, piece, payload, headers } = fragment;
    let part = Part { key, piece, payload, headers: &headers, mark: CE };
    if let Some((mut mbuf, total)) = reassembly::put(local, frame.mbuf, &part) {
        complete(local.pool.area().data_mut(&mut mbuf), total);
        let (len, checksum) = (PAYLOAD as u16 + total, RxChecksum::Unknown);
        super::ipv4::handle(
            engine,
            RxFrame { rest: Rest::NONE, merged: 0, mbuf, offset: 0, len, checksum, hash: None },
        );
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
    Some(Fragment { key, piece, payload: start + ETHERNET + header_len, headers })
}

/// Makes the header that of a datagram which was never in pieces.
fn complete(data: &mut [u8], total: u16) {
    let h = &mut data[ETHERNET..PAYLOAD];
    let from = [h[12], h[13], h[14], h[15]];
    let to = [h[16], h[17], h[18], h[19]];
    let (tos, protocol) = (h[1], h[9]);
    ipv4::emit_marked(h, tos, from, to, protocol, HEADER as u16 + total);
}
