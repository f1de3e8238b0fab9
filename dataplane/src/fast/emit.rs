//! The headers of a data segment over IPv4, written in one go: as `tcp::wire` writes them, word by word.
use crate::checksum;
use crate::conn::{Conn, Flags};
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::input::eth;
use crate::ipv4;
use crate::local::Local;
use crate::tcp::listen::SYN_WINDOW;
use crate::tcp::receive::window_field;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{
    BELOW, HEADER, SYN_OPTIONS_MAX, SynOptions, TIMESTAMPS, emit_syn_options, flag,
};
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
    let header = header_len(conn);
    let checksum = offload.then_some(TxChecksum { start: BELOW as u16, offset: 16 });
    let fragment = Fragment { bus: payload.bus(), len: payload.len() };
    let _slot = local.tx.begin_with(BELOW + header, fragment, checksum);
    let seq = conn.snd_nxt;
    headers(conn, local, seq, flag::ACK | flag::PSH, (header, payload.len()), || payload.sum())?;
    let bytes = BELOW + header + payload.len() as usize;
    local.tx.push_counted(queue, &mut local.stats, bytes)
}

/// Builds and pushes a segment without payload.
#[inline]
pub fn bare<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    seq: WrappingSeq,
    flags: u8,
) -> Result<u32, TxFull> {
    let header = header_len(conn);
    headers(conn, local, seq, flags, (header, 0), || 0)?;
    push(local, queue, BELOW + header)
}

/// Builds and pushes a SYN-ACK with these options.
#[inline]
pub fn syn_ack<T: TxQueue>(
    conn: &Conn,
    local: &mut Local,
    queue: &mut T,
    options: &SynOptions,
) -> Result<u32, TxFull> {
    let slot = local.tx.header();
    let Some(h) = slot.first_chunk_mut::<{ BELOW + HEADER + SYN_OPTIONS_MAX }>() else {
        return Err(TxFull);
    };
    let Some(at) = h[BELOW + HEADER..].first_chunk_mut() else { return Err(TxFull) };
    let header = HEADER + emit_syn_options(at, options);
    let Some(fixed) = h.first_chunk_mut() else { return Err(TxFull) };
    let macs = (&conn.mac, &local.mac);
    let bits = (header, flag::SYN | flag::ACK, SYN_WINDOW);
    let addresses = fixed_part(fixed, conn, macs, local.address, conn.iss, bits, header as u32);
    seal(h, addresses, header, header as u32, local.tx_checksum, || 0);
    push(local, queue, BELOW + header)
}

/// Pushes the frame that is all in the header slot.
#[inline(always)]
fn push<T: TxQueue>(local: &mut Local, queue: &mut T, len: usize) -> Result<u32, TxFull> {
    let frame = local.tx.begin(len);
    if local.tx_checksum {
        frame.checksum = Some(TxChecksum { start: BELOW as u16, offset: 16 });
    }
    local.tx.push_counted(queue, &mut local.stats, len)
}

/// Bytes of the TCP header of a segment that is no SYN.
#[inline(always)]
fn header_len(conn: &Conn) -> usize {
    if conn.flags.contains(Flags::TIMESTAMPS) { HEADER + TIMESTAMPS } else { HEADER }
}

/// Writes all headers into the next slot; `len` are the bytes of TCP's and of the payload, whose partial sum
/// `payload` gives.
#[inline(always)]
fn headers(
    conn: &mut Conn,
    local: &mut Local,
    seq: WrappingSeq,
    flags: u8,
    len: (usize, u32),
    payload: impl FnOnce() -> u64,
) -> Result<(), TxFull> {
    let header = len.0;
    let stamps = (local.ts_clock().wrapping_add(conn.ts_offset), conn.ts_recent);
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let window = window_field(conn);
    let slot = local.tx.header();
    let Some(h) = slot.first_chunk_mut::<{ BELOW + HEADER + TIMESTAMPS }>() else {
        return Err(TxFull);
    };
    let Some(fixed) = h.first_chunk_mut() else { return Err(TxFull) };
    let tcp_len = header as u32 + len.1;
    let macs = (&conn.mac, &local.mac);
    let addresses =
        fixed_part(fixed, conn, macs, local.address, seq, (header, flags, window), tcp_len);
    if stamped {
        h[54..58].copy_from_slice(&super::parse::STAMPS_HEAD);
        h[58..62].copy_from_slice(&stamps.0.to_be_bytes());
        h[62..66].copy_from_slice(&stamps.1.to_be_bytes());
    }
    seal(h, addresses, header, tcp_len, local.tx_checksum, payload);
    Ok(())
}

/// Writes what all headers have, but for the TCP checksum; the sum of the addresses.
#[inline(always)]
fn fixed_part(
    h: &mut [u8; BELOW + HEADER],
    conn: &Conn,
    macs: (&[u8; 6], &[u8; 6]),
    address: [u8; 4],
    seq: WrappingSeq,
    (header, flags, window): (usize, u8, u16),
    tcp_len: u32,
) -> u64 {
    h[0..6].copy_from_slice(macs.0);
    h[6..12].copy_from_slice(macs.1);
    h[12..14].copy_from_slice(&[8, 0]);
    // IPv4. The sum of its words but the checksum, in the order of the wire.
    let first = (VERSION | (tcp_len + ipv4::HEADER as u32)).to_be();
    let (from, to) = (u32::from_ne_bytes(address), conn.tuple as u32);
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
    h[38..42].copy_from_slice(&seq.0.to_be_bytes());
    h[42..46].copy_from_slice(&conn.rcv_nxt.0.to_be_bytes());
    let [w0, w1] = window.to_be_bytes();
    h[46..50].copy_from_slice(&[(header as u8 / 4) << 4, flags, w0, w1]);
    addresses
}

/// Fills the TCP checksum in: all of it, or the pseudo-header's where the device does the rest.
#[inline(always)]
fn seal<const N: usize>(
    h: &mut [u8; N],
    addresses: u64,
    header: usize,
    tcp_len: u32,
    offload: bool,
    payload: impl FnOnce() -> u64,
) {
    let len_and_protocol = ((u32::from(ipv4::TCP) << 16) | tcp_len).to_be();
    let pseudo = addresses + u64::from(len_and_protocol);
    let [c0, c1] = if offload {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        h[50..54].fill(0);
        let sum = checksum::sum(&h[BELOW..BELOW + header]);
        checksum::finish(checksum::add(checksum::add(pseudo, sum), payload()))
    };
    h[50..54].copy_from_slice(&[c0, c1, 0, 0]);
}

const _: () = assert!(eth::HEADER + ipv4::HEADER == BELOW);
