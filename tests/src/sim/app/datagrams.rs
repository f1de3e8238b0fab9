//! The application's datagrams: each says by its number what it must be, wherever it comes out.
use super::{Outbox, Shared, Tag};
use crate::sim::heap::Chunk;
use crate::sim::peer::UDP_PORT;
use crate::sim::{MS, Time};
use ix_abi::call::{Call, SgEntry};
use ix_abi::{Cookie, Handle, SocketAddress, Status};
use std::collections::{BTreeMap, VecDeque};

/// Largest payload.
const LEN_MAX: u64 = 1472;

/// A datagram that the application holds.
#[derive(Debug)]
struct Held {
    addr: u64,
    len: usize,
    remote: SocketAddress,
}

/// One context's datagrams.
#[derive(Debug, Default)]
pub struct Datagrams {
    to_send: u64,
    /// By tag, with their numbers.
    flying: BTreeMap<u64, (u64, Chunk)>,
    held: VecDeque<Held>,
    /// One was refused: the next not before.
    again_at: Time,
}

impl Datagrams {
    /// Nothing is under way, held or to be sent.
    pub fn is_idle(&self) -> bool {
        self.to_send == 0 && self.flying.is_empty() && self.held.is_empty()
    }

    /// The context's first turn.
    pub fn start(&mut self, context: usize, outbox: &mut Outbox, shared: &mut Shared) {
        self.to_send = shared.draw.datagrams;
        if context == 0 {
            let local = SocketAddress { port: UDP_PORT, ..SocketAddress::default() };
            let call = Call::udp_bind(local, Cookie(7));
            outbox.push(Call { flags: Call::WANT_RESULT, ..call }, Vec::new(), Tag::Bind);
        }
    }

    /// The result of the binding.
    pub fn bound(status: Status, handle: Handle, shared: &mut Shared) {
        assert_eq!(status, Status::Ok, "udp_bind");
        shared.binding = Some(handle);
        let mut book = shared.book.borrow_mut();
        let now = book.now;
        book.bound.insert(shared.station, now);
    }

    /// Sends some, gives some back.
    pub fn drive(&mut self, outbox: &mut Outbox, shared: &mut Shared, now: Time) {
        let Some(binding) = shared.binding else { return };
        for _ in 0..shared.rng.below(4) {
            if self.to_send > 0 && now >= self.again_at {
                self.send(binding, outbox, shared);
            }
        }
        while !self.held.is_empty() && shared.rng.chance(1, 2) {
            let Some(held) = self.held.pop_front() else { break };
            check(&held, shared);
            let call = Call::udp_recv_done(binding, held.addr);
            outbox.push(call, Vec::new(), Tag::Plain("udp_recv_done"));
        }
    }

    fn send(&mut self, binding: Handle, outbox: &mut Outbox, shared: &mut Shared) {
        let len = 8 + shared.rng.below(LEN_MAX - 7) as usize;
        let Some(chunk) = shared.heap.alloc(len) else { return };
        let id = shared.rng.next_u64() >> 1;
        let mut book = shared.book.borrow_mut();
        let mut to = shared.rng.below(u64::from(book.stations) - 1) as u8;
        to += u8::from(to >= shared.station.0);
        let bytes = book.datagram(id, shared.station, to, len);
        let to = super::StationId(to);
        drop(book);
        shared.heap.write(chunk.addr, &bytes);
        let remote = SocketAddress::v4(to.ip(), UDP_PORT);
        let half = 1 + shared.rng.below(len as u64 - 1);
        let first = SgEntry { addr: chunk.addr, len: half };
        let second = SgEntry { addr: chunk.addr + half, len: len as u64 - half };
        let call = Call::udp_sendv(binding, remote, 2, first);
        let tag = outbox.push(call, vec![second], Tag::Datagram);
        self.flying.insert(tag, (id, chunk));
        self.to_send -= 1;
    }

    /// A `udp_recv` event.
    pub fn received(&mut self, addr: u64, len: u32, remote: SocketAddress, shared: &mut Shared) {
        let held = Held { addr, len: len as usize, remote };
        let bytes = check(&held, shared);
        let from = remote.ip.to_v4().expect("an IPv4 address");
        shared.book.borrow_mut().datagram_arrived(shared.station, from, &bytes);
        self.held.push_back(held);
    }

    /// A `udp_sent` event.
    pub fn sent(&mut self, tag: u64, bytes: u32, shared: &mut Shared) {
        let (_, chunk) = self.flying.remove(&tag).expect("`udp_sent` for a datagram under way");
        assert_eq!(bytes as usize, chunk.len, "`udp_sent` of another length");
        shared.heap.free(&chunk);
    }

    /// The result of a `udp_sendv` that failed: once more, later.
    pub fn refused(&mut self, tag: u64, status: Status, shared: &mut Shared, now: Time) {
        // Another core may not know of the binding yet.
        assert!(matches!(status, Status::Again | Status::BadHandle), "udp_sendv: {status:?}");
        self.again_at = now + MS;
        let (id, chunk) = self.flying.remove(&tag).expect("a datagram under way");
        shared.book.borrow_mut().datagrams.remove(&id);
        shared.heap.free(&chunk);
        self.to_send += 1;
    }
}

/// What is held reads as what was sent.
fn check(held: &Held, shared: &Shared) -> Vec<u8> {
    assert_eq!(held.remote.port, UDP_PORT, "a datagram from {:?}", held.remote);
    let mut bytes = vec![0; held.len];
    shared.received(held.addr, &mut bytes);
    shared.book.borrow().check_datagram(shared.station, &bytes);
    bytes
}
