//! The headers of a data segment over IPv4, written in one go: as `tcp::wire` writes them, word by word.
use crate::checksum;
use crate::conn::{Conn, Flags};
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::receive::window_field;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS, flag};
use crate::usermem::Extent;

/// First word of an IPv4 header without options, its length apart; DF, identification 0; time to live 64,
/// protocol TCP.
const VERSION: u32 = 0x4500_0000;
const DONT_FRAGMENT: u32 = 0x4000;
const LIFE: u32 = 0x4006_0000;

/// Builds and pushes a segment with all of `payload`, from `snd_nxt`; the frame's number.
#[inline(always)]
pub fn data<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    payload: &Extent,
) -> Result<u32, TxFull> {
    let offload = local.tx_checksum;
    let stamps = (local.ts_clock().wrapping_add(conn.ts_offset), conn.ts_recent);
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let header = if stamped { HEADER + TIMESTAMPS } else { HEADER };
    let window = window_field(conn);
    let checksum = offload.then_some(TxChecksum { start: BELOW as u16, offset: 16 });
    let fragment = Fragment { bus: payload.bus(), len: payload.len() };
    let slot = local.tx.begin_with(BELOW + header, fragment, checksum);
    let Some(h) = slot.first_chunk_mut::<{ BELOW + HEADER + TIMESTAMPS }>() else {
        return Err(TxFull);
    };
    h[0..6].copy_from_slice(&conn.mac);
    h[6..12].copy_from_slice(&local.mac);
    h[12..14].copy_from_slice(&[8, 0]);
    // IPv4. The sum of its words but the checksum, in the order of the wire.
    let tcp_len = header as u32 + payload.len();
    let first = (VERSION | (tcp_len + ipv4::HEADER as u32)).to_be();
    let (from, to) = (u32::from_ne_bytes(local.address), conn.tuple as u32);
    let addresses = u64::from(from) + u64::from(to);
    let sum =
        u64::from(first) + u64::from(DONT_FRAGMENT.to_be()) + u64::from(LIFE.to_be()) + addresses;
    let [s0, s1] = checksum::finish(sum);
    h[14..18].copy_from_slice(&first.to_ne_bytes());
    h[18..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    h[22..26].copy_from_slice(&[64, ipv4::TCP, s0, s1]);
    h[26..30].copy_from_slice(&from.to_ne_bytes());
    h[30..34].copy_from_slice(&to.to_ne_bytes());
    // TCP: the ports the other way round than those received.
    let ports = ((conn.tuple >> 32) as u32).rotate_left(16);
    h[34..38].copy_from_slice(&ports.to_ne_bytes());
    h[38..42].copy_from_slice(&conn.snd_nxt.0.to_be_bytes());
    h[42..46].copy_from_slice(&conn.rcv_nxt.0.to_be_bytes());
    let [w0, w1] = window.to_be_bytes();
    h[46..50].copy_from_slice(&[(header as u8 / 4) << 4, flag::ACK | flag::PSH, w0, w1]);
    if stamped {
        h[54..58].copy_from_slice(&super::parse::STAMPS_HEAD);
        h[58..62].copy_from_slice(&stamps.0.to_be_bytes());
        h[62..66].copy_from_slice(&stamps.1.to_be_bytes());
    }
    let len_and_protocol = ((u32::from(ipv4::TCP) << 16) | tcp_len).to_be();
    let pseudo = addresses + u64::from(len_and_protocol);
    let [c0, c1] = if offload {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        h[50..54].fill(0);
        let sum = checksum::sum(&h[BELOW..BELOW + header]);
        checksum::finish(checksum::add(checksum::add(pseudo, sum), payload.sum()))
    };
    h[50..54].copy_from_slice(&[c0, c1, 0, 0]);
    let bytes = BELOW + header + payload.len() as usize;
    local.tx.push_counted(queue, &mut local.stats, bytes)
}

const _: () = assert!(eth::HEADER + ipv4::HEADER == BELOW);
