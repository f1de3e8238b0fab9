//! Headers of a data segment, written in one go.
use crate::checksum;
use crate::conn::Conn;
use crate::device::{Fragment, TxChecksum, TxFull, TxQueue};
use crate::local::Local;
use crate::tcp::receive::window_field;
use crate::tcp::wire::{self, BELOW, Emit, HEADER, flag};
use crate::usermem::Extent;

/// Builds and pushes a segment with all of `payload`, from `snd_nxt`; the frame's number.
#[inline(always)]
pub fn data<T: TxQueue>(
    conn: &mut Conn,
    local: &mut Local,
    queue: &mut T,
    payload: &Extent,
) -> Result<u32, TxFull> {
    let offload = local.tx_checksum;
    let window = window_field(conn);
    let [.., a, b, c, d] = conn.key.remote.0;
    let emit = Emit {
        mac_to: conn.mac,
        mac_from: local.mac,
        ip_from: local.address,
        ip_to: [a, b, c, d],
        port_from: conn.key.local_port,
        port_to: conn.key.remote_port,
        seq: conn.snd_nxt,
        ack: conn.rcv_nxt,
        flags: flag::ACK | flag::PSH,
        window,
    };
    let frame = local.tx.begin(BELOW + HEADER);
    frame.fragments.push(Fragment { bus: payload.bus(), len: payload.len() });
    frame.checksum = offload.then_some(TxChecksum { start: BELOW as u16, offset: 16 });
    let slot = local.tx.header();
    wire::emit(slot, &emit, 0, payload.len() as usize);
    let tcp_len = (HEADER as u32 + payload.len()) as u16;
    let pseudo = checksum::pseudo_v4(emit.ip_from, emit.ip_to, crate::ipv4::TCP, tcp_len);
    let field = if offload {
        checksum::fold(pseudo).to_ne_bytes()
    } else {
        let header = checksum::sum(&slot[BELOW..BELOW + HEADER]);
        checksum::finish(checksum::add(checksum::add(pseudo, header), payload.sum()))
    };
    slot[BELOW + 16..BELOW + 18].copy_from_slice(&field);
    local.tx.push(queue, &mut local.stats)
}
