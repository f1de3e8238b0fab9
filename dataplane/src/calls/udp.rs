//! `udp_sendv`: one datagram, all of it or nothing.
use super::send::{Entries, collect, locate};
use crate::acl::{self, Counts};
use crate::engine::Engine;
use crate::local::{Local, Waiting};
use crate::neighbor::Lookup;
use crate::ports::ANY_V4;
use crate::tx::Staged;
use crate::udp::Datagram;
use crate::{ipv4, ipv6};
use ix_abi::call::UDP_SENDV_INLINE_SG;
use ix_abi::stats::Drop;
use ix_abi::{Call, Handle, IpAddress, SocketAddress, Status};

/// Bytes of a UDP header.
const HEADER: usize = 8;

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
    let at = port.local.ip;
    let mut len: u64 = 0;
    for entry in &entries {
        len += entry.checked()?.len;
    }
    let (most, host) = match remote.ip.to_v4() {
        Some(to) => (usize::from(local.mss) + 40 - ipv4::HEADER - HEADER, to != [0; 4]),
        None => {
            let most = usize::from(local.v6.config.mtu) - ipv6::HEADER - HEADER;
            (most, ipv6::is_host(&remote.ip.0) && !local.is_ours(remote.ip))
        }
    };
    if remote.port == 0 || !host || len > most as u64 {
        return Err(Status::Invalid);
    }
    let (slot, hop) = route(local, at, remote.ip)?;
    datagram.local = slot;
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

/// From which of our addresses, through which neighbour: the binding's own address, if it has one.
fn route(local: &Local, at: IpAddress, to: IpAddress) -> Result<(u8, IpAddress), Status> {
    let (slot, hop) = local.route(to).ok_or(Status::Unreachable)?;
    if at == IpAddress::UNSPECIFIED || at == ANY_V4 {
        let fits = at == IpAddress::UNSPECIFIED || slot == 0;
        return if fits { Ok((slot, hop)) } else { Err(Status::Unsupported) };
    }
    if at.to_v4().is_some() != to.to_v4().is_some() {
        return Err(Status::Unsupported);
    }
    // Gone since it was bound: nothing can be sent from it.
    if !local.is_ours(at) {
        return Err(Status::Unreachable);
    }
    Ok((local.v6.slot_of(&at.0), hop))
}

/// To the transmit stage, or to wait for the neighbour.
fn dispatch(local: &mut Local, index: u32, hop: IpAddress) -> Result<(), Status> {
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
