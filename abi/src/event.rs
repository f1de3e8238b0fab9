//! Event conditions: 64-byte records of the event ring, written by the kernel only.
use crate::addr::SocketAddress;
use crate::handle::{Cookie, GroupId, Handle};
use crate::status::{DeadReason, Status, open_enum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One slot of the event ring. Unused fields are 0.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Event {
    /// A [`Kind`].
    pub kind: u16,
    /// By kind: a [`Status`], a [`DeadReason`], an operation.
    pub aux: u16,
    /// By kind: bytes, or a flow group.
    pub len: u32,
    /// The object.
    pub handle: u64,
    /// The cookie that the application gave it; the tag in a `result`.
    pub cookie: u64,
    /// By kind.
    pub words: [u64; 5],
}

const _: () = assert!(size_of::<Event>() == 64 && align_of::<Event>() == 64);
const _: () = assert!(core::mem::offset_of!(Event, words) == 24);

open_enum! {
    /// Kinds of event records.
    Kind {
        /// Nothing; skipped.
        Nop = 0: "nop",
        /// A remotely opened connection waits for `accept` or `reject`.
        Knock = 1: "knock",
        /// The outcome of `connect`.
        Connected = 2: "connected",
        /// Payload in the receive area.
        Recv = 3: "recv",
        /// Bytes whose memory is the application's again, and the window that is open now.
        Sent = 4: "sent",
        /// The last event of a connection.
        Dead = 5: "dead",
        /// The peer sent FIN: no more `recv` will come.
        Eof = 6: "eof",
        /// A datagram.
        UdpRecv = 7: "udp_recv",
        /// A datagram has left; its memory is the application's again.
        UdpSent = 8: "udp_sent",
        /// A timer fired.
        Timer = 9: "timer",
        /// A flow group is now served by this context.
        GroupIn = 10: "group_in",
        /// A flow group leaves this context.
        GroupOut = 11: "group_out",
        /// This context's core is about to be parked.
        Parking = 12: "parking",
        /// The dataplane ends.
        Shutdown = 13: "shutdown",
        /// The outcome of a call.
        Result = 14: "result",
        /// `sent` and `recv` in one record: what one segment of a conversation brings.
        RecvSent = 15: "recv_sent",
    }
}

/// A decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are described in docs/abi.md, record by record")]
pub enum Condition {
    Nop,
    Knock { handle: Handle, listener: Handle, remote: SocketAddress, local_port: u16 },
    Connected { handle: Handle, cookie: Cookie, outcome: Status, window: u32 },
    Recv { handle: Handle, cookie: Cookie, addr: u64, len: u32 },
    Sent { handle: Handle, cookie: Cookie, bytes: u32, window: u32 },
    Dead { handle: Handle, cookie: Cookie, reason: DeadReason },
    Eof { handle: Handle, cookie: Cookie },
    UdpRecv { handle: Handle, cookie: Cookie, addr: u64, len: u32, remote: SocketAddress },
    UdpSent { handle: Handle, cookie: Cookie, tag: u64, bytes: u32 },
    Timer { handle: Handle, cookie: Cookie },
    GroupIn { group: GroupId, life: u16 },
    GroupOut { group: GroupId, life: u16 },
    Parking,
    Shutdown,
    Result { op: u16, status: Status, handle: Handle, tag: u64, value: u64 },
    RecvSent { handle: Handle, cookie: Cookie, addr: u64, len: u32, sent: u32, window: u32 },
    Unknown { kind: u16 },
}

impl Condition {
    /// The record of this condition. `Unknown` becomes `Nop`. Inlined, since it is nearly always known which.
    #[inline(always)]
    pub fn encode(self) -> Event {
        let mut e = Event::default();
        match self {
            Condition::Nop | Condition::Unknown { .. } => {}
            Condition::Knock { handle, listener, remote, local_port } => {
                let [a, b, c] = remote.to_words();
                e = event(Kind::Knock, handle, Cookie(0));
                e.words = [a, b, c, listener.0, u64::from(local_port)];
            }
            Condition::Connected { handle, cookie, outcome, window } => {
                e = event(Kind::Connected, handle, cookie);
                e.aux = outcome.0;
                e.words[0] = u64::from(window);
            }
            Condition::Recv { handle, cookie, addr, len } => {
                e = event(Kind::Recv, handle, cookie);
                e.len = len;
                e.words[0] = addr;
            }
            Condition::Sent { handle, cookie, bytes, window } => {
                e = event(Kind::Sent, handle, cookie);
                e.len = bytes;
                e.words[0] = u64::from(window);
            }
            Condition::Dead { handle, cookie, reason } => {
                e = event(Kind::Dead, handle, cookie);
                e.aux = reason.0;
            }
            Condition::Eof { handle, cookie } => e = event(Kind::Eof, handle, cookie),
            Condition::UdpRecv { handle, cookie, addr, len, remote } => {
                let [a, b, c] = remote.to_words();
                e = event(Kind::UdpRecv, handle, cookie);
                e.len = len;
                e.words = [addr, a, b, c, 0];
            }
            Condition::UdpSent { handle, cookie, tag, bytes } => {
                e = event(Kind::UdpSent, handle, cookie);
                e.len = bytes;
                e.words[0] = tag;
            }
            Condition::Timer { handle, cookie } => e = event(Kind::Timer, handle, cookie),
            Condition::GroupIn { group, life } => {
                e.kind = Kind::GroupIn.0;
                e.len = u32::from(group.0) | u32::from(life) << 16;
            }
            Condition::GroupOut { group, life } => {
                e.kind = Kind::GroupOut.0;
                e.len = u32::from(group.0) | u32::from(life) << 16;
            }
            Condition::Parking => e.kind = Kind::Parking.0,
            Condition::Shutdown => e.kind = Kind::Shutdown.0,
            Condition::Result { op, status, handle, tag, value } => {
                e = event(Kind::Result, handle, Cookie(tag));
                e.aux = status.0;
                e.len = u32::from(op);
                e.words[0] = value;
            }
            Condition::RecvSent { handle, cookie, addr, len, sent, window } => {
                e = event(Kind::RecvSent, handle, cookie);
                e.len = len;
                e.words[0] = addr;
                e.words[1] = u64::from(sent) | u64::from(window) << 32;
            }
        }
        e
    }

    /// What the record says; a kind of a newer version is `Unknown`, to be skipped. Inlined, so that who has looked
    /// at the kind pays for nothing else.
    #[inline(always)]
    pub fn decode(e: &Event) -> Condition {
        let handle = Handle(e.handle);
        let cookie = Cookie(e.cookie);
        let w = &e.words;
        let address = |at: usize| SocketAddress::from_words([w[at], w[at + 1], w[at + 2]]);
        match Kind(e.kind) {
            Kind::Nop => Condition::Nop,
            Kind::Knock => Condition::Knock {
                handle,
                listener: Handle(w[3]),
                remote: address(0),
                local_port: w[4] as u16,
            },
            Kind::Connected => {
                Condition::Connected { handle, cookie, outcome: Status(e.aux), window: w[0] as u32 }
            }
            Kind::Recv => Condition::Recv { handle, cookie, addr: w[0], len: e.len },
            Kind::Sent => Condition::Sent { handle, cookie, bytes: e.len, window: w[0] as u32 },
            Kind::Dead => Condition::Dead { handle, cookie, reason: DeadReason(e.aux) },
            Kind::Eof => Condition::Eof { handle, cookie },
            Kind::UdpRecv => {
                Condition::UdpRecv { handle, cookie, addr: w[0], len: e.len, remote: address(1) }
            }
            Kind::UdpSent => Condition::UdpSent { handle, cookie, tag: w[0], bytes: e.len },
            Kind::Timer => Condition::Timer { handle, cookie },
            Kind::GroupIn => {
                Condition::GroupIn { group: GroupId(e.len as u16), life: (e.len >> 16) as u16 }
            }
            Kind::GroupOut => {
                Condition::GroupOut { group: GroupId(e.len as u16), life: (e.len >> 16) as u16 }
            }
            Kind::Parking => Condition::Parking,
            Kind::Shutdown => Condition::Shutdown,
            Kind::Result => Condition::Result {
                op: e.len as u16,
                status: Status(e.aux),
                handle,
                tag: e.cookie,
                value: w[0],
            },
            Kind::RecvSent => Condition::RecvSent {
                handle,
                cookie,
                addr: w[0],
                len: e.len,
                sent: w[1] as u32,
                window: (w[1] >> 32) as u32,
            },
            Kind(kind) => Condition::Unknown { kind },
        }
    }

    /// The same with a `recv_sent` taken apart: the `sent` comes first.
    pub fn split(self) -> (Condition, Option<Condition>) {
        match self {
            Condition::RecvSent { handle, cookie, addr, len, sent, window } => (
                Condition::Sent { handle, cookie, bytes: sent, window },
                Some(Condition::Recv { handle, cookie, addr, len }),
            ),
            other => (other, None),
        }
    }
}

fn event(kind: Kind, handle: Handle, cookie: Cookie) -> Event {
    Event { kind: kind.0, handle: handle.0, cookie: cookie.0, ..Event::default() }
}
