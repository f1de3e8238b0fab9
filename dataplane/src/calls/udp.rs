//! `udp_sendv`: one datagram, all of it or nothing.
use super::send::{Entries, collect, locate};
use crate::acl::{self, Counts};
use crate::engine::Engine;
use crate::local::{Local, Waiting};
use crate::neighbor::Lookup;
use crate::tx::Staged;
use crate::udp::Datagram;
use ix_abi::call::UDP_SENDV_INLINE_SG;
use ix_abi::stats::Drop;
use ix_abi::{Call, Handle, IpAddress, SocketAddress, Status};

/// Bytes of IPv4 and UDP headers.
const HEADERS: u64 = 28;

pub(super) fn sendv(
    engine: &mut Engine,
    call: &Call,
    handle: Handle,
    remote: SocketAddress,
    count: usize,
) -> Result<(), Status> {
    let local = &mut engine.local;
    let mut entries = Entries::new();
    collect(&mut entries, local, call, count, UDP_SENDV_INLINE_SG);
    let port = local.udp.ports.by_handle(handle).ok_or(Status::BadHandle)?;
    let mut datagram = Datagram {
        handle,
        cookie: port.cookie,
        tag: call.tag,
        source_port: port.local.port,
        remote,
        ..Datagram::default()
    };
    let to = remote.ip.to_v4().ok_or(Status::Unsupported)?;
    let mut len: u64 = 0;
    for entry in &entries {
        len += entry.checked()?.len;
    }
    if remote.port == 0 || to == [0; 4] || len + HEADERS > u64::from(local.mss) + 40 {
        return Err(Status::Invalid);
    }
    let hop = local.next_hop(to).ok_or(Status::Unreachable)?;
    let flow = datagram.flow(local);
    acl::judge(local, &flow, Counts::Rate).map_err(|_| Status::Denied)?;
    datagram.acl = local.acl_generation;
    datagram.len = len as u32;
    for entry in &entries {
        let (mut addr, mut left) = (entry.addr, entry.len);
        while left > 0 {
            let piece = locate(local, addr, left).and_then(|piece| {
                datagram.pieces.try_push(piece).map_err(|full| {
                    full.element().1.release(local);
                    Status::Limit
                })?;
                Ok(u64::from(piece.0.len()))
            });
            match piece {
                Ok(taken) => {
                    addr += taken;
                    left -= taken;
                }
                Err(status) => return Err(undo(local, datagram, status)),
            }
        }
    }
    let Some(index) = local.udp.datagrams.alloc() else {
        return Err(undo(local, datagram, Status::Again));
    };
    local.udp.datagrams[index] = datagram;
    dispatch(local, index, hop)
}

/// To the transmit stage, or to wait for the neighbour.
fn dispatch(local: &mut Local, index: u32, hop: [u8; 4]) -> Result<(), Status> {
    let hop = IpAddress::v4(hop);
    let queued = match local.neighbors.lookup(hop, local.now) {
        Lookup::Found(mac) => local.tx.stage(Staged::Datagram { index, mac: mac.0 }).is_ok(),
        Lookup::Unknown => {
            let pended = local.neighbors.pend(hop, Waiting::Datagram(index), local.now).is_ok();
            if !pended {
                local.stats.drop(Drop::ArpPendingFull);
            }
            pended
        }
    };
    if queued {
        return Ok(());
    }
    let datagram = core::mem::take(&mut local.udp.datagrams[index]);
    local.udp.datagrams.release(index);
    Err(undo(local, datagram, Status::Again))
}

fn undo(local: &mut Local, datagram: Datagram, status: Status) -> Status {
    for (_, source) in datagram.pieces {
        source.release(local);
    }
    status
}
