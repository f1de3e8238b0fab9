//! UDP: datagrams that the application has been or will be told of, and those that it sends.
use crate::acl;
use crate::limits::{DATAGRAM_PIECES_MAX, DATAGRAMS_MAX, UDP_HELD_MAX};
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, Meta, NO_MBUF};
use crate::ports::Ports;
use crate::slab::Slab;
use crate::tcp::send_queue::Source;
use crate::usermem::Extent;
use alloc::collections::VecDeque;
use arrayvec::ArrayVec;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{Condition, Cookie, Event, Handle, SocketAddress, Status};
use ix_acl::{Direction, Flow, Protocol};

/// A datagram that the application sends.
#[derive(Debug, Default)]
pub struct Datagram {
    /// The binding.
    pub handle: Handle,
    /// Its cookie.
    pub cookie: Cookie,
    /// Of the call.
    pub tag: u64,
    /// Our port.
    pub source_port: u16,
    /// The slot of our address.
    pub local: u8,
    /// The receiver.
    pub remote: SocketAddress,
    /// The payload, where the application has it.
    pub pieces: ArrayVec<(Extent, Source), DATAGRAM_PIECES_MAX>,
    /// Its length.
    pub len: u32,
    /// The set of rules that let it pass.
    pub acl: u32,
}

impl Datagram {
    /// What the rules are asked about.
    pub fn flow(&self, local: &Local) -> Flow {
        let ports = (self.remote.port, self.source_port);
        acl::flow(local.ip_at(self.local), Direction::Out, Protocol::Udp, self.remote.ip, ports)
    }
}

/// A received datagram that the application has not been told of.
#[derive(Debug)]
struct Received {
    mbuf: Mbuf,
    handle: Handle,
    remote: SocketAddress,
}

/// One core's UDP.
#[derive(Debug)]
pub struct Udp {
    /// The bindings.
    pub ports: Ports,
    received: VecDeque<Received>,
    /// Datagrams that the application holds or is about to.
    held: u32,
    /// Datagrams being sent.
    pub datagrams: Slab<Datagram>,
    /// Those that have left and were not reported.
    left: VecDeque<u32>,
}

impl Udp {
    /// With these bindings.
    pub fn new(ports: Ports) -> Udp {
        Udp {
            ports,
            received: VecDeque::with_capacity(UDP_HELD_MAX as usize),
            held: 0,
            datagrams: Slab::new(DATAGRAMS_MAX),
            left: VecDeque::with_capacity(DATAGRAMS_MAX as usize),
        }
    }

    /// Datagrams that wait to be told of.
    pub fn waiting(&self) -> usize {
        self.received.len()
    }

    /// Whether the application is to be told something.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.received.is_empty() || !self.left.is_empty()
    }
}

/// Keeps a datagram for the application that has bound its port.
pub fn receive(
    local: &mut Local,
    port: u16,
    remote: SocketAddress,
    mut mbuf: Mbuf,
    offset: u16,
    len: u16,
) {
    let Some(handle) = local.udp.ports.by_port(port).map(|p| p.handle) else {
        local.stats.drop(Drop::UdpNoPort);
        return local.pool.free(mbuf);
    };
    let scarce = local.pool.available_at_home(&mbuf) <= crate::limits::RECEIVE_RESERVE;
    if local.udp.held >= UDP_HELD_MAX || scarce {
        local.stats.drop(Drop::UdpQueueFull);
        return local.pool.free(mbuf);
    }
    let meta = Meta { next: NO_MBUF, offset, len, references: 0, word: handle.index() };
    local.pool.area().set_meta(&mut mbuf, meta);
    local.udp.held += 1;
    local.udp.received.push_back(Received { mbuf, handle, remote });
}

/// The next event of UDP; the caller has room for it.
pub fn next_event(local: &mut Local) -> Option<Event> {
    if let Some(index) = local.udp.left.pop_front() {
        let datagram = &local.udp.datagrams[index];
        let Datagram { handle, cookie, tag, len: bytes, .. } = *datagram;
        local.udp.datagrams.release(index);
        return Some(Condition::UdpSent { handle, cookie, tag, bytes }.encode());
    }
    while let Some(Received { mbuf, handle, remote }) = local.udp.received.pop_front() {
        let Some(cookie) = local.udp.ports.by_handle(handle).map(|p| p.cookie) else {
            // Closed meanwhile.
            local.udp.held -= 1;
            local.pool.free(mbuf);
            continue;
        };
        let area = local.pool.area();
        area.set_holder(&mbuf, Holder::core(local.core));
        let meta = area.meta(&mbuf);
        let addr = area.user_addr(&mbuf, meta.offset);
        let _held_by_the_application = mbuf.into_raw();
        local.stats.add(Counter::UdpIn, 1);
        let len = u32::from(meta.len);
        return Some(Condition::UdpRecv { handle, cookie, addr, len, remote }.encode());
    }
    None
}

/// `udp_recv_done`.
pub fn recv_done(local: &mut Local, handle: Handle, addr: u64) -> Result<(), Status> {
    let area = local.pool.area();
    let (index, offset) = area.locate(addr).ok_or(Status::Fault)?;
    if area.holder(index) != Holder::core(local.core) {
        return Err(Status::Invalid);
    }
    let mbuf = Mbuf::from_raw(index);
    let meta = area.meta(&mbuf);
    if meta.offset != offset || meta.word != handle.index() {
        let _still_held = mbuf.into_raw();
        return Err(Status::Invalid);
    }
    local.udp.held -= 1;
    local.pool.return_held(mbuf);
    Ok(())
}

/// The frame of a datagram has left, or never will.
pub fn finished(local: &mut Local, index: u32) {
    let pieces = core::mem::take(&mut local.udp.datagrams[index].pieces);
    for (_, source) in pieces {
        source.release(local);
    }
    if local.app.is_some() && local.udp.datagrams[index].handle != Handle::NONE {
        local.udp.left.push_back(index);
    } else {
        local.udp.datagrams.release(index);
    }
}

/// The application is gone: what it holds and what it was to be told.
pub fn app_gone(local: &mut Local) {
    while let Some(Received { mbuf, .. }) = local.udp.received.pop_front() {
        local.pool.free(mbuf);
    }
    while let Some(index) = local.udp.left.pop_front() {
        local.udp.datagrams.release(index);
    }
    // Those in flight are not reported to the next application.
    for index in 0..local.udp.datagrams.capacity() {
        local.udp.datagrams[index].handle = Handle::NONE;
    }
    let area = local.pool.area();
    for index in 0..area.buffers() {
        if area.holder(index) == Holder::core(local.core) {
            local.pool.return_held(Mbuf::from_raw(index));
        }
    }
    local.udp.held = 0;
}
