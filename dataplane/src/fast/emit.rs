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
use crate::tcp::wire::{BELOW, HEADER, SynOptions, TIMESTAMPS, emit_syn_options, flag};

/// First word of an IPv4 header without options, its length apart; DF, identification 0; time to live 64,
/// protocol TCP.
const VERSION: u32 = 0x4500_0000;
const DONT_FRAGMENT: u32 = 0x4000;
const LIFE: u32 = 0x4006_0000;

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
    let bits = (conn.snd_nxt, flag::ACK | flag::PSH);
    let headers = stamped(conn, local, bits, payload.len(), || payload.sum())?;
    let payload = Fragment { bus: payload.bus(), len: payload.len() };
    let checksum = local.tx_checksum.then_some(CHECKSUM);
    local.tx.push_pair(queue, &mut local.stats, [headers, payload], checksum)
}

/// Builds and pushes a segment without payload from `bits`, a sequence number and control bits.
#[inline]
pub fn bare<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    bits: (WrappingSeq, u8),
) -> Result<u32, TxFull> {
    let headers = stamped(conn, local, bits, 0, || 0)?;
    alone(local, queue, headers)
}

/// Builds and pushes a SYN-ACK with these options.
#[inline]
pub fn syn_ack<T: TxQueue>(
    conn: &Conn,
    local: &mut Local,
    queue: &mut T,
    options: &SynOptions,
) -> Result<u32, TxFull> {
    let (offload, sender, address) = (local.tx_checksum, local.sender, local.address);
    let (slot, bus) = local.tx.slot();
    let Some((h, rest)) = slot.split_first_chunk_mut::<{ BELOW + HEADER }>() else {
        return Err(TxFull);
    };
    let Some(at) = rest.first_chunk_mut() else { return Err(TxFull) };
    let (len, sum) = emit_syn_options(at, options);
    let (header, flags) = ((HEADER + len) as u32, u32::from(flag::SYN | flag::ACK));
    let word = header << 26 | flags << 16 | u32::from(SYN_WINDOW);
    let sums = fixed(h, conn, (sender, address), conn.iss, word, header);
    seal(h, sums, offload, || sum);
    alone(local, queue, Fragment { bus, len: (BELOW + HEADER + len) as u32 })
}

const CHECKSUM: TxChecksum = TxChecksum { start: BELOW as u16, offset: 16 };

/// Pushes the frame that is all in the header slot.
#[inline(always)]
fn alone<T: TxQueue>(local: &mut Local, queue: &mut T, all: Fragment) -> Result<u32, TxFull> {
    let frame = local.tx.begin(all.len as usize);
    if local.tx_checksum {
        frame.checksum = Some(CHECKSUM);
    }
    local.tx.push_begun(queue, &mut local.stats, all.len as usize)
}

/// Writes all headers, timestamps included, of a segment with `len` bytes of payload, whose partial sum `payload`
/// gives; `bits` are the sequence number and control bits.
#[inline(always)]
fn stamped(
    conn: &mut Conn,
    local: &mut Local,
    (seq, flags): (WrappingSeq, u8),
    len: u32,
    payload: impl FnOnce() -> u64,
) -> Result<Fragment, TxFull> {
    let offload = local.tx_checksum;
    let value = local.ts_clock().wrapping_add(conn.ts_offset);
    let stamped = conn.flags.contains(Flags::TIMESTAMPS);
    let header = if stamped { HEADER + TIMESTAMPS } else { HEADER };
    let window = window_field(conn);
    let origin = (local.sender, local.address);
    let (slot, bus) = local.tx.slot();
    let Some((h, rest)) = slot.split_first_chunk_mut::<{ BELOW + HEADER }>() else {
        return Err(TxFull);
    };
    let word = (header as u32) << 26 | u32::from(flags) << 16 | u32::from(window);
    let sums = fixed(h, conn, origin, seq, word, header as u32 + len);
    if stamped && let Some(at) = rest.first_chunk_mut::<TIMESTAMPS>() {
        at[0..4].copy_from_slice(&super::parse::STAMPS_HEAD);
        at[4..8].copy_from_slice(&value.to_be_bytes());
        at[8..12].copy_from_slice(&conn.ts_recent.to_be_bytes());
    }
    let head = u64::from(u32::from_ne_bytes(super::parse::STAMPS_HEAD));
    let options = || if stamped { head + sum_of(value) + sum_of(conn.ts_recent) } else { 0 };
    seal(h, sums, offload, || checksum::add(options(), payload()));
    Ok(Fragment { bus, len: (BELOW + header) as u32 })
}

/// Writes what all headers have, but for the TCP checksum and the urgent pointer. Returns the partial sums of the
/// pseudo-header and of the rest. `word` holds the header's length, control bits and window.
#[inline(always)]
fn fixed(
    h: &mut [u8; BELOW + HEADER],
    conn: &Conn,
    (sender, address): (u64, [u8; 4]),
    seq: WrappingSeq,
    word: u32,
    tcp_len: u32,
) -> (u64, u64) {
    // Two bytes too many, which our own address goes over: a load and a store.
    let [a, b, c, d, e, f] = conn.mac;
    h[0..8].copy_from_slice(&[a, b, c, d, e, f, conn.timer as u8, conn.retries]);
    h[6..14].copy_from_slice(&sender.to_ne_bytes());
    // IPv4. The sum of its words but the checksum, in the order of the wire.
    let first = VERSION | (tcp_len + ipv4::HEADER as u32);
    let (from, to) = (u32::from_ne_bytes(address), conn.tuple as u32);
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
    h[34..38].copy_from_slice(&ports.to_ne_bytes());
    h[38..42].copy_from_slice(&seq.0.to_be_bytes());
    h[42..46].copy_from_slice(&conn.rcv_nxt.0.to_be_bytes());
    h[46..50].copy_from_slice(&word.to_be_bytes());
    let pseudo = addresses + sum_of(u32::from(ipv4::TCP) << 16 | tcp_len);
    (pseudo, u64::from(ports) + sum_of(seq.0) + sum_of(conn.rcv_nxt.0) + sum_of(word))
}

/// Fills the TCP checksum in, the pseudo-header's alone where the device does the rest; and no urgent pointer.
#[inline(always)]
fn seal(
    h: &mut [u8; BELOW + HEADER],
    (pseudo, fixed): (u64, u64),
    offload: bool,
    rest: impl FnOnce() -> u64,
) {
    let field = if offload {
        checksum::fold(pseudo)
    } else {
        !checksum::fold(checksum::add(pseudo + fixed, rest()))
    };
    h[50..54].copy_from_slice(&u32::from(field).to_ne_bytes());
}

const _: () = assert!(eth::HEADER + ipv4::HEADER == BELOW);
