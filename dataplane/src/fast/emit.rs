//! The headers of a data segment over IPv4, written in one go: as `tcp::wire` writes them, word by word.
use crate::checksum;
use crate::conn::{Conn, Flags};
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::receive::window_field;
use crate::tcp::wire::{BELOW, HEADER, TIMESTAMPS, flag};

/// First word of an IPv4 header without options, its length apart; DF, identification 0; time to live 64,
/// protocol TCP.
const VERSION: u32 = 0x4500_0000;
const DONT_FRAGMENT: u32 = 0x4000;
const LIFE: u32 = 0x4006_0000;
/// Of the word with the header's length and the window: control bits.
const BITS: u32 = ((flag::ACK | flag::PSH) as u32) << 16;

/// The partial sum over a number as the wire has it.
#[inline(always)]
fn sum_of(word: u32) -> u64 {
    u64::from(word.to_be())
}

/// Builds and pushes a segment with the one that the send queue has, from `snd_nxt`; the frame's number. Sums are taken of
/// what is written, not read back.
#[inline(always)]
pub fn data<T: TxQueue>(conn: &mut Conn, local: &mut Local, queue: &mut T) -> Result<u32, TxFull> {
    let payload = conn.own_segment.extent();
    let offload = local.tx_checksum;
    let value = local.ts_clock().wrapping_add(conn.ts_offset);
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let header = if stamped { HEADER + TIMESTAMPS } else { HEADER };
    let window = window_field(conn);
    let (slot, bus) = local.tx.slot();
    let Some(h) = slot.first_chunk_mut::<{ BELOW + HEADER + TIMESTAMPS }>() else {
        return Err(TxFull);
    };
    // Two bytes too many, which our own address goes over: a load and a store.
    let [a, b, c, d, e, f] = conn.mac;
    h[0..8].copy_from_slice(&[a, b, c, d, e, f, conn.timer as u8, conn.retries]);
    h[6..14].copy_from_slice(&local.sender.to_ne_bytes());
    // IPv4. The sum of its words but the checksum, in the order of the wire.
    let tcp_len = header as u32 + payload.len();
    let first = VERSION | (tcp_len + ipv4::HEADER as u32);
    let (from, to) = (u32::from_ne_bytes(local.address), conn.tuple as u32);
    let addresses = u64::from(from) + u64::from(to);
    let [s0, s1] =
        checksum::finish(sum_of(first) + sum_of(DONT_FRAGMENT) + sum_of(LIFE) + addresses);
    h[14..18].copy_from_slice(&first.to_be_bytes());
    h[18..22].copy_from_slice(&DONT_FRAGMENT.to_be_bytes());
    h[22..26].copy_from_slice(&[64, ipv4::TCP, s0, s1]);
    h[26..30].copy_from_slice(&from.to_ne_bytes());
    h[30..34].copy_from_slice(&to.to_ne_bytes());
    // TCP: the ports the other way round than those received.
    let ports = ((conn.tuple >> 32) as u32).rotate_left(16);
    let bits = (header as u32) << 26 | BITS | u32::from(window);
    h[34..38].copy_from_slice(&ports.to_ne_bytes());
    h[38..42].copy_from_slice(&conn.snd_nxt.0.to_be_bytes());
    h[42..46].copy_from_slice(&conn.rcv_nxt.0.to_be_bytes());
    h[46..50].copy_from_slice(&bits.to_be_bytes());
    if stamped {
        h[54..58].copy_from_slice(&super::parse::STAMPS_HEAD);
        h[58..62].copy_from_slice(&value.to_be_bytes());
        h[62..66].copy_from_slice(&conn.ts_recent.to_be_bytes());
    }
    let pseudo = addresses + sum_of(u32::from(ipv4::TCP) << 16 | tcp_len);
    let field = if offload {
        checksum::fold(pseudo)
    } else {
        let fixed =
            u64::from(ports) + sum_of(conn.snd_nxt.0) + sum_of(conn.rcv_nxt.0) + sum_of(bits);
        let head = u64::from(u32::from_ne_bytes(super::parse::STAMPS_HEAD));
        let options = if stamped { head + sum_of(value) + sum_of(conn.ts_recent) } else { 0 };
        !checksum::fold(checksum::add(pseudo + fixed + options, payload.sum()))
    };
    // And no urgent pointer.
    h[50..54].copy_from_slice(&u32::from(field).to_ne_bytes());
    let headers = Fragment { bus, len: (BELOW + header) as u32 };
    let payload = Fragment { bus: payload.bus(), len: payload.len() };
    let checksum = offload.then_some(TxChecksum { start: BELOW as u16, offset: 16 });
    local.tx.push_pair(queue, &mut local.stats, [headers, payload], checksum)
}

const _: () = assert!(eth::HEADER + ipv4::HEADER == BELOW);
