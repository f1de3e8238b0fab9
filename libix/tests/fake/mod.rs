//! A kernel in memory: it plays the other side of the rings, holds programs to the contract, and
//! poisons what they have given back. One per test thread.
#![allow(dead_code, reason = "each test file uses a part of it")]

mod tcp;

use ix_abi::call::{Call, Direct, Request, SgEntry, SgSlot};
use ix_abi::event::Event;
use ix_abi::layout::{
    CALL_SLOTS, CallHeader, EVENT_SLOTS, EventHeader, InfoPage, PAGE_BYTES, RING_SLOTS_OFFSET,
};
use ix_abi::ring::{readable, slot, writable};
use ix_abi::{Condition, Cookie, GroupId, Handle, SocketAddress, Status, VERSION};
use libix::context::{Context, Parts};
use libix::ring::Pages;
use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::ptr::NonNull;
pub use tcp::Tcp;

pub const PEER: SocketAddress = SocketAddress::v4([10, 0, 2, 2], 40_000);

thread_local! {
    static KERNEL: RefCell<Option<Kernel>> = const { RefCell::new(None) };
}

/// What one test's kernel knows.
pub struct Kernel {
    pages: Pages,
    produced: u32,
    consumed: u32,
    /// Events that wait for room in the ring.
    pub pending: VecDeque<Condition>,
    /// Every call, in order, with its entries.
    pub calls: Vec<(Request, Vec<SgEntry>)>,
    pub connections: BTreeMap<u64, Tcp>,
    /// Datagrams that the program holds, by address.
    pub datagrams: BTreeMap<u64, Vec<u8>>,
    pub now_ns: u64,
    pub enters: u64,
    pub ready: bool,
    /// `enter` may return without events, which a real kernel would not do.
    pub patient: bool,
    /// Reads and records, but plays nothing: for counting instructions of the program alone.
    pub silent: bool,
    /// Bytes of all entries of all calls, also of those that are not recorded.
    pub offered: u64,
    /// Leaves calls where they are, as a kernel without room for their results does.
    pub stalled: bool,
    batch: u64,
}

/// Starts a kernel in this thread; its rings' indices begin at `first`.
pub fn boot_at(first: u32, args: &str) -> Context {
    let page = || {
        let layout = Layout::from_size_align(PAGE_BYTES as usize, 4096).unwrap();
        // SAFETY: the layout has a size; the page is leaked, so it outlives the context.
        NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory for a ring")
    };
    let pages = Pages { events: page(), calls: page() };
    let kernel = Kernel {
        pages,
        produced: first,
        consumed: first,
        pending: VecDeque::new(),
        calls: Vec::new(),
        connections: BTreeMap::new(),
        datagrams: BTreeMap::new(),
        now_ns: 0,
        enters: 0,
        ready: false,
        patient: false,
        silent: false,
        offered: 0,
        stalled: false,
        batch: 0,
    };
    kernel.store_event_header();
    // SAFETY: the page is ours alone so far.
    unsafe {
        pages.calls.cast().write(CallHeader {
            produced: first,
            events_consumed: first,
            ..CallHeader::default()
        });
    }
    KERNEL.set(Some(kernel));
    let parts = Parts { index: 0, pages, info: info(args), door };
    // SAFETY: the pages are leaked, distinct and aligned; `Kernel` changes them in `door` only.
    unsafe { Context::from_parts(parts) }
}

pub fn boot(args: &str) -> Context {
    boot_at(0, args)
}

/// Does something with this thread's kernel.
pub fn kernel<R>(f: impl FnOnce(&mut Kernel) -> R) -> R {
    KERNEL.with_borrow_mut(|kernel| f(kernel.as_mut().expect("a kernel was booted")))
}

fn info(args: &str) -> &'static InfoPage {
    let mut info: InfoPage = zerocopy::FromZeros::new_zeroed();
    info.version = VERSION;
    (info.cores, info.groups, info.tsc_khz) = (1, 128, 1_000_000);
    info.args_len = args.len() as u32;
    info.args[..args.len()].copy_from_slice(args.as_bytes());
    Box::leak(Box::new(info))
}

fn door(number: Direct, _: u64, _: u64, _: u64) -> u64 {
    kernel(|k| match number {
        Direct::Enter => k.enter(),
        Direct::Ready => {
            k.ready = true;
            0
        }
        other => panic!("direct call {other:?}"),
    })
}

impl Kernel {
    fn call_header(&self) -> CallHeader {
        // SAFETY: the program writes only outside of `door`, on this thread.
        unsafe { self.pages.calls.cast().read() }
    }

    fn store_event_header(&self) {
        let header = EventHeader {
            produced: self.produced,
            calls_consumed: self.consumed,
            now_ns: self.now_ns,
            ..EventHeader::default()
        };
        // SAFETY: the page is the kernel's; the program looks at it after `door` has returned.
        unsafe { self.pages.events.cast().write(header) }
    }

    fn room(&self) -> u32 {
        writable(self.produced, self.call_header().events_consumed, EVENT_SLOTS)
    }

    fn emit(&mut self, condition: Condition) {
        assert!(self.room() > 0, "the event ring overflows");
        self.emit_raw(condition.encode());
    }

    pub fn emit_raw(&mut self, event: Event) {
        let at = RING_SLOTS_OFFSET + slot(self.produced, EVENT_SLOTS) * 64;
        // SAFETY: a slot inside the page.
        unsafe { self.pages.events.add(at).cast().write(event) }
        self.produced = self.produced.wrapping_add(1);
    }

    fn enter(&mut self) -> u64 {
        self.enters += 1;
        self.batch += 1;
        self.now_ns += 1_000;
        let header = self.call_header();
        readable(self.produced, header.events_consumed, EVENT_SLOTS)
            .expect("the program claims events that it was not given");
        readable(header.produced, self.consumed, CALL_SLOTS)
            .expect("the program claims more calls than the ring holds");
        while self.consumed != header.produced && self.room() > 0 && !self.stalled {
            self.one_call();
        }
        while self.room() > 0
            && let Some(condition) = self.pending.pop_front()
        {
            self.emit(condition);
        }
        self.store_event_header();
        let unread = self.produced.wrapping_sub(header.events_consumed);
        assert!(unread > 0 || self.patient, "a real kernel would wait for ever");
        u64::from(unread)
    }

    /// Address of the syscall slot `ahead` of the next one.
    fn call_slot(&self, ahead: u32) -> NonNull<u8> {
        let at = RING_SLOTS_OFFSET + slot(self.consumed.wrapping_add(ahead), CALL_SLOTS) * 64;
        // SAFETY: a slot inside the page.
        unsafe { self.pages.calls.add(at) }
    }

    fn one_call(&mut self) {
        // SAFETY: the program wrote the slot.
        let call: Call = unsafe { self.call_slot(0).cast().read() };
        let mut sg = Vec::new();
        let slots = call.slots() as u32;
        if call.sg_count > 0 {
            let inline = if slots == 1 { usize::from(call.sg_count) } else { 2 };
            let inline = if call.op == ix_abi::Op::UdpSendv.0 { 1 } else { inline };
            sg.extend_from_slice(&call.inline_sg()[..inline.min(2)]);
            for ahead in 1..slots {
                // SAFETY: the program wrote the slot.
                let more: SgSlot = unsafe { self.call_slot(ahead).cast().read() };
                sg.extend(more.0);
            }
            sg.truncate(usize::from(call.sg_count));
        }
        self.consumed = self.consumed.wrapping_add(slots);
        self.offered += sg.iter().map(|entry| entry.len).sum::<u64>();
        if self.silent {
            return;
        }
        let request = call.decode().expect("a well-formed record");
        self.calls.push((request, sg.clone()));
        let (status, value) = self.execute(request, &sg, call.tag);
        if status != Status::Ok || call.wants_result() {
            let made = matches!(
                request,
                Request::Listen { .. } | Request::Connect { .. } | Request::UdpBind { .. }
            );
            let handle = if made { Handle(value) } else { Handle(call.handle) };
            let op = call.op;
            self.emit(Condition::Result { op, status, handle, tag: call.tag, value });
        }
    }

    fn execute(&mut self, request: Request, sg: &[SgEntry], tag: u64) -> (Status, u64) {
        match request {
            Request::Listen { .. } => (Status::Ok, Handle::new(GroupId::DATAPLANE, 1, 1).0),
            Request::UdpBind { .. } => (Status::Ok, Handle::new(GroupId::DATAPLANE, 1, 2).0),
            Request::TimerSet { .. } => (Status::Ok, Handle::new(GroupId::DATAPLANE, 1, 3).0),
            Request::Connect { .. } => {
                let handle = Handle::new(GroupId(3), 1, 1000);
                self.connections.insert(handle.0, Tcp::new(handle, true));
                (Status::Ok, handle.0)
            }
            Request::UdpSendv { handle, .. } => {
                let bytes = sg.iter().map(|entry| entry.len).sum::<u64>() as u32;
                self.pending.push_back(Condition::UdpSent {
                    handle,
                    cookie: Cookie(0),
                    tag,
                    bytes,
                });
                (Status::Ok, 0)
            }
            Request::UdpRecvDone { addr, .. } => match self.datagrams.remove(&addr) {
                Some(mut datagram) => {
                    datagram.fill(0xdd);
                    datagram.leak(); // still there, poisoned, for who looks at it too late
                    (Status::Ok, 0)
                }
                None => (Status::Invalid, 0),
            },
            Request::SetOption { handle, .. } if handle.group() == GroupId::DATAPLANE => {
                (Status::Ok, 0)
            }
            Request::Unlisten { .. }
            | Request::UdpClose { .. }
            | Request::TimerCancel { .. }
            | Request::Nop => (Status::Ok, 0),
            Request::Accept { handle, .. }
            | Request::Reject { handle }
            | Request::Sendv { handle, .. }
            | Request::RecvDone { handle, .. }
            | Request::Close { handle }
            | Request::Abort { handle }
            | Request::Shutdown { handle }
            | Request::SetOption { handle, .. } => {
                let Some(tcp) = self.connections.get_mut(&handle.0) else {
                    return (Status::BadHandle, 0);
                };
                let outcome = tcp.execute(request, sg, self.batch, &mut self.pending);
                if tcp.is_gone() {
                    self.connections.remove(&handle.0);
                }
                outcome
            }
        }
    }

    /// A connection of group 0 knocks.
    pub fn knock(&mut self, index: u32) -> Handle {
        let handle = Handle::new(GroupId(0), 1, index);
        self.connections.insert(handle.0, Tcp::new(handle, false));
        let listener = Handle::new(GroupId::DATAPLANE, 1, 1);
        self.pending.push_back(Condition::Knock { handle, listener, remote: PEER, local_port: 7 });
        handle
    }

    pub fn tcp(&mut self, handle: Handle) -> &mut Tcp {
        self.connections.get_mut(&handle.0).expect("the connection is there")
    }

    /// Bytes arrive.
    pub fn recv(&mut self, handle: Handle, bytes: &[u8]) {
        let event = self.tcp(handle).deliver(bytes);
        self.pending.push_back(event);
    }

    /// The peer acknowledges `bytes` and opens its window to `window`.
    pub fn ack(&mut self, handle: Handle, bytes: u64, window: u64) {
        let event = self.tcp(handle).ack(bytes, window);
        self.pending.push_back(event);
    }

    pub fn eof(&mut self, handle: Handle) {
        self.pending.push_back(Condition::Eof { handle, cookie: Cookie(0) });
    }

    /// The connection ends, by the peer or because its end was asked for.
    pub fn dead(&mut self, handle: Handle, reason: ix_abi::DeadReason) {
        self.pending.push_back(Condition::Dead { handle, cookie: Cookie(0), reason });
        if self.tcp(handle).die() {
            self.connections.remove(&handle.0);
        }
    }

    /// A datagram arrives.
    pub fn udp_recv(&mut self, bytes: &[u8]) -> u64 {
        let datagram = bytes.to_vec();
        let addr = datagram.as_ptr().expose_provenance() as u64;
        self.datagrams.insert(addr, datagram);
        let handle = Handle::new(GroupId::DATAPLANE, 1, 2);
        let (cookie, len) = (Cookie(5), bytes.len() as u32);
        self.pending.push_back(Condition::UdpRecv { handle, cookie, addr, len, remote: PEER });
        addr
    }
}
