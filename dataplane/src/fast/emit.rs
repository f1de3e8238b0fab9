//! The headers of a data segment over IPv4, written in one go: as `tcp::wire` writes them, word by word.
use crate::checksum;
use crate::conn::{Conn, Flags};
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::fast::parse::STAMPS_HEAD;
use crate::input::eth;
use crate::ipv4;
use crate::limits::TX_HEADER_BYTES;
use crate::local::Local;
use crate::tcp::listen::SYN_WINDOW;
use crate::tcp::receive::window_field;
use crate::tcp::seq::WrappingSeq;
use crate::tcp::wire::{BELOW, HEADER, SynOptions, TIMESTAMPS, emit_syn_options, flag};
use crate::usermem::Extent;

/// What the first bytes of an IPv4 header without options are: version and length, and service; DF, and
/// no offset; time to live and protocol. In the order of the machine, as a checksum takes them.
pub const VERSION: [u8; 2] = [0x45, 0];
const DONT_FRAGMENT: [u8; 2] = [0x40, 0];
const LIFE: [u8; 2] = [64, ipv4::TCP];

/// What they and our address add to the header's sum, not folded: [`Local::address_sum`].
pub const fn address_sum(address: [u8; 4]) -> u32 {
    let [a, b, c, d] = address;
    let fixed = half(VERSION) as u32 + half(DONT_FRAGMENT) as u32 + half(LIFE) as u32;
    fixed + half([a, b]) as u32 + half([c, d]) as u32
}

/// The folded sum of such a header to the connection's peer, its length and checksum apart; in the upper half that of the
/// pseudo-header, to which the same length is added.
#[inline(always)]
pub fn sums(conn: &Conn, address_sum: u32) -> u32 {
    // Of at most six halves, and of both those of the peer's address at once, with the carry from the higher one.
    let (sum, carry) = (conn.tuple as u32).overflowing_add(address_sum);
    let sum = sum + u32::from(carry);
    let header = (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16;
    u32::from(header) | u32::from(add(header, TO_PSEUDO)) << 16
}

/// The folded sum of two.
#[inline(always)]
fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    sum + u16::from(carry)
}

/// What is added to the folded sum of such a header, its checksum apart, to make that of the pseudo-header: both have the
/// addresses and the protocol, one of them the length of the packet, the other of the segment (RFC 9293 §3.1).
const TO_PSEUDO: u16 = !(0x4500 + 0x4000 + 0x4000 + ipv4::HEADER as u16).to_be();

const fn half(bytes: [u8; 2]) -> u16 {
    u16::from_ne_bytes(bytes)
}

/// The partial sum over a number as the wire has it.
#[inline(always)]
fn sum_of(word: u32) -> u64 {
    u64::from(word.to_be())
}

/// Builds and pushes a segment with the payload `extent`, from `seq`, which tells of `window`; the frame's
/// number. Sums are taken of what is written, not read back; `offload`: the device takes them.
#[inline(always)]
pub fn data<T: TxQueue, const STAMPED: bool>(
    conn: &Conn,
    local: &mut Local,
    queue: &mut T,
    offload: bool,
    (seq, window): (WrappingSeq, u32),
    sums: u32,
    extent: Extent,
) -> Result<u32, TxFull> {
    const FLAGS: u8 = flag::ACK | flag::PSH;
    let said = Said { seq, flags: FLAGS, window };
    let len = extent.len();
    let sum = if offload { 0 } else { extent.sum() };
    let headers = stamped::<STAMPED>(conn, local, offload, said, sums, (len, sum));
    let payload = Fragment { bus: extent.bus(), len };
    let checksum = offload.then_some(CHECKSUM);
    local.tx.push_pair(queue, &mut local.stats, headers, payload, checksum)
}

/// The same of a payload in two pieces.
#[inline(always)]
pub fn data_of_two<T: TxQueue, const STAMPED: bool>(
    conn: &Conn,
    local: &mut Local,
    queue: &mut T,
    (seq, window): (WrappingSeq, u16),
    [first, second]: [Extent; 2],
) -> Result<u32, TxFull> {
    let said = Said { seq, flags: flag::ACK | flag::PSH, window: window.into() };
    let (offload, len) = (local.tx_checksum, first.len() + second.len());
    let sum = match first.len() % 2 {
        _ if offload => 0,
        0 => checksum::add(first.sum(), second.sum()),
        _ => checksum::add(first.sum(), checksum::at_odd_offset(second.sum())),
    };
    let sums = sums(conn, local.address_sum);
    let headers = stamped::<STAMPED>(conn, local, offload, said, sums, (len, sum));
    let frame = local.tx.begin(headers.len as usize);
    for piece in [first, second] {
        frame.fragments.push(Fragment { bus: piece.bus(), len: piece.len() });
    }
    frame.checksum = offload.then_some(CHECKSUM);
    local.tx.push_begun(queue, &mut local.stats, (headers.len + len) as usize)
}

/// Builds and pushes a segment without payload from `bits`, a sequence number and control bits.
#[inline(always)]
pub fn bare<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    bits: (WrappingSeq, u8),
) -> Result<u32, TxFull> {
    let (seq, flags) = bits;
    let said = Said { seq, flags, window: window_field(conn).into() };
    let offload = local.tx_checksum;
    let sum = sums(conn, local.address_sum);
    let headers = if conn.flags.contains(Flags::TIMESTAMPS) {
        stamped::<true>(conn, local, offload, said, sum, (0, 0))
    } else {
        stamped::<false>(conn, local, offload, said, sum, (0, 0))
    };
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
    let Local { tx, sender, address, address_sum, tx_checksum, .. } = local;
    let (slot, bus) = tx.slot();
    let Some((h, rest)) = slot.split_first_chunk_mut::<{ BELOW + HEADER }>() else {
        return Err(TxFull);
    };
    let Some(at) = rest.first_chunk_mut() else { return Err(TxFull) };
    let (len, sum) = emit_syn_options(at, options);
    let said = Said { seq: conn.iss, flags: flag::SYN | flag::ACK, window: SYN_WINDOW.into() };
    let of_header = sums(conn, *address_sum);
    let pseudo = below(h, conn, (*sender, *address, of_header), (HEADER + len) as u32);
    let word = fixed(h, conn, said, HEADER + len);
    let field = match *tx_checksum {
        true => pseudo,
        false => whole(pseudo, sum_of_fixed(conn, said.seq, word) + sum),
    };
    seal(h, field);
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

/// What a segment says beside what its connection does.
#[derive(Clone, Copy)]
struct Said {
    seq: WrappingSeq,
    /// Control bits.
    flags: u8,
    /// As the field has it.
    window: u32,
}

/// Writes all headers, timestamps included if there are, of a segment with `len` bytes of payload, whose partial sum is
/// `sum` unless the device takes it.
#[inline(always)]
fn stamped<const STAMPED: bool>(
    conn: &Conn,
    local: &mut Local,
    offload: bool,
    said: Said,
    sums: u32,
    (len, sum): (u32, u64),
) -> Fragment {
    let header = if STAMPED { HEADER + TIMESTAMPS } else { HEADER };
    let Local { tx, sender, address, ts_now, .. } = local;
    let (slot, bus) = tx.slot();
    let (h, rest) = split(slot);
    let pseudo = below(h, conn, (*sender, *address, sums), header as u32 + len);
    let word = fixed(h, conn, said, header);
    let value = ts_now.wrapping_add(conn.ts_offset);
    if STAMPED {
        rest[0..4].copy_from_slice(&STAMPS_HEAD);
        rest[4..8].copy_from_slice(&value.to_be_bytes());
        rest[8..12].copy_from_slice(&conn.ts_recent.to_be_bytes());
    }
    // Where the device does the rest, the field has the sum of the pseudo-header.
    let field = if offload {
        pseudo
    } else {
        let stamps = if STAMPED { sum_of_stamps(value, conn.ts_recent) } else { 0 };
        whole(pseudo, checksum::add(sum_of_fixed(conn, said.seq, word) + stamps, sum))
    };
    seal(h, field);
    Fragment { bus, len: (BELOW + header) as u32 }
}

type Fixed = [u8; BELOW + HEADER];

/// The slot's bytes for headers without options, and those for timestamps.
#[inline(always)]
fn split(slot: &mut [u8; TX_HEADER_BYTES]) -> (&mut Fixed, &mut [u8; TIMESTAMPS]) {
    const { assert!(TX_HEADER_BYTES >= BELOW + HEADER + TIMESTAMPS) }
    let (h, rest) = slot.split_first_chunk_mut().unwrap_or_else(|| unreachable!());
    (h, rest.first_chunk_mut().unwrap_or_else(|| unreachable!()))
}

/// Writes the Ethernet and IP headers for `len` bytes of TCP header and payload; the folded partial sum of their
/// pseudo-header.
#[inline(always)]
fn below(
    h: &mut Fixed,
    conn: &Conn,
    (sender, address, sums): (u64, [u8; 4], u32),
    len: u32,
) -> u16 {
    h[0..8].copy_from_slice(&conn.ether);
    h[8..16].copy_from_slice(&sender.to_ne_bytes());
    let len = (len as u16 + ipv4::HEADER as u16).to_be_bytes();
    let (from, to) = (u32::from_ne_bytes(address), conn.tuple as u32);
    let sum = add(sums as u16, half(len));
    let [l, m] = len;
    let [d, o] = DONT_FRAGMENT;
    // The identification is 0.
    h[16..22].copy_from_slice(&[l, m, 0, 0, d, o]);
    let [life, protocol] = LIFE;
    let [x, y] = (!sum).to_ne_bytes();
    h[22..26].copy_from_slice(&[life, protocol, x, y]);
    h[26..30].copy_from_slice(&from.to_ne_bytes());
    h[30..34].copy_from_slice(&to.to_ne_bytes());
    add((sums >> 16) as u16, half(len))
}

/// Writes the TCP header of `header` bytes but for the options, checksum and urgent pointer; its word with the control bits.
#[inline(always)]
fn fixed(h: &mut Fixed, conn: &Conn, said: Said, header: usize) -> u32 {
    h[34..38].copy_from_slice(&ports(conn).to_ne_bytes());
    h[38..42].copy_from_slice(&said.seq.0.to_be_bytes());
    h[42..46].copy_from_slice(&conn.rcv_nxt.0.to_be_bytes());
    let word = (header as u32) << 26 | u32::from(said.flags) << 16 | said.window;
    h[46..50].copy_from_slice(&word.to_be_bytes());
    word
}

/// The ports as we send them: the other way round than those received.
#[inline(always)]
fn ports(conn: &Conn) -> u32 {
    ((conn.tuple >> 32) as u32).rotate_left(16)
}

/// The partial sum of what [`fixed`] writes.
#[inline(always)]
fn sum_of_fixed(conn: &Conn, seq: WrappingSeq, word: u32) -> u64 {
    u64::from(ports(conn)) + sum_of(seq.0) + sum_of(conn.rcv_nxt.0) + sum_of(word)
}

/// The same of timestamps.
#[inline(always)]
fn sum_of_stamps(value: u32, echo: u32) -> u64 {
    u64::from(u32::from_ne_bytes(STAMPS_HEAD)) + sum_of(value) + sum_of(echo)
}

/// The TCP checksum of a pseudo-header and of the rest.
#[inline(always)]
fn whole(pseudo: u16, rest: u64) -> u16 {
    !checksum::fold(checksum::add(u64::from(pseudo), rest))
}

/// Fills the TCP checksum in, and no urgent pointer.
#[inline(always)]
fn seal(h: &mut Fixed, checksum: u16) {
    h[50..54].copy_from_slice(&u32::from(checksum).to_ne_bytes());
}

const _: () = assert!(eth::HEADER + ipv4::HEADER == BELOW);
