//! System calls: the batched ones as 64-byte records of the syscall ring, and the direct ones.
//!
//! A record is one cache line; `sendv` and `udp_sendv` with many scatter-gather entries continue
//! in the following slots. The kernel copies a record once and decodes the copy: what the
//! application writes afterwards changes nothing.
use crate::addr::SocketAddress;
use crate::handle::{Cookie, Handle};
use crate::limits::{
    BACKLOG_MAX, KEEP_ALIVE_PROBES_MAX, OPTION_TIME_MAX_US, SG_BYTES_MAX, SG_MAX, TIMER_MAX_US,
};
use crate::status::{Status, open_enum};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One slot of the syscall ring. Unused fields are 0.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct Call {
    /// An [`Op`].
    pub op: u16,
    /// Bits of [`Call::WANT_RESULT`] and others.
    pub flags: u16,
    /// Scatter-gather entries of this call, else 0.
    pub sg_count: u16,
    /// 0.
    pub reserved: u16,
    /// The object, or 0 where the call makes one.
    pub handle: u64,
    /// Returned in the call's `result` event.
    pub tag: u64,
    /// Arguments, by operation.
    pub words: [u64; 5],
}

const _: () = assert!(size_of::<Call>() == 64 && align_of::<Call>() == 64);
const _: () = assert!(core::mem::offset_of!(Call, words) == 24);

/// A piece of the application's memory.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct SgEntry {
    /// User address of the first byte.
    pub addr: u64,
    /// Length in bytes.
    pub len: u64,
}

/// A continuation slot: four more scatter-gather entries.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(64))]
pub struct SgSlot(pub [SgEntry; 4]);

const _: () = assert!(size_of::<SgSlot>() == 64);

/// Scatter-gather entries in the first slot of `sendv` (words 0 to 3).
pub const SENDV_INLINE_SG: usize = 2;
/// Entries in the first slot of `udp_sendv` (its words hold the address): none, words 3 and 4 hold one.
pub const UDP_SENDV_INLINE_SG: usize = 1;

/// Slots that a call with `sg_count` entries takes in all, `inline` of them in its first slot.
pub const fn slots(sg_count: usize, inline: usize) -> usize {
    1 + sg_count.saturating_sub(inline).div_ceil(4)
}

open_enum! {
    /// Operation numbers of batched calls.
    Op {
        /// Nothing; skipped.
        Nop = 0: "nop",
        /// `listen`: word 0..2 local address and port, word 3 backlog.
        Listen = 1: "listen",
        /// `accept`: word 0 cookie.
        Accept = 2: "accept",
        /// `reject`.
        Reject = 3: "reject",
        /// `connect`: word 0 cookie, words 1..4 remote address and port.
        Connect = 4: "connect",
        /// `sendv`: words 0..4 two scatter-gather entries, then continuation slots; word 4 received bytes to
        /// return as by `recv_done` once the entries are taken, which may name them.
        Sendv = 5: "sendv",
        /// `recv_done`: word 0 bytes.
        RecvDone = 6: "recv_done",
        /// `close`.
        Close = 7: "close",
        /// `abort`.
        Abort = 8: "abort",
        /// `shutdown`: FIN after what was sent, receiving goes on.
        Shutdown = 9: "shutdown",
        /// `udp_bind`: words 0..3 local address and port, word 3 cookie.
        UdpBind = 10: "udp_bind",
        /// `udp_sendv`: words 0..3 remote address and port, words 3..5 one entry, then continuation slots.
        UdpSendv = 11: "udp_sendv",
        /// `udp_recv_done`: word 0 user address of the datagram's first byte, as `udp_recv` gave it.
        UdpRecvDone = 12: "udp_recv_done",
        /// `udp_close`.
        UdpClose = 13: "udp_close",
        /// `timer_set`: word 0 cookie, word 1 delay in microseconds.
        TimerSet = 14: "timer_set",
        /// `timer_cancel`.
        TimerCancel = 15: "timer_cancel",
        /// `unlisten`: no new connections; those that exist stay.
        Unlisten = 16: "unlisten",
        /// `set_option`: word 0 a [`TcpOption`], word 1 its value.
        SetOption = 17: "set_option",
    }
}

open_enum! {
    /// What `set_option` sets: of a connection, or of a listener for the connections that it gets from
    /// then on. Times are in microseconds and kept in milliseconds, rounded up.
    TcpOption {
        /// Silence of the peer after which it is asked whether it lives; 0: never, which is the default.
        KeepAlive = 1: "keep_alive_us",
        /// Time between two such questions; 0: the default.
        KeepAliveInterval = 2: "keep_alive_interval_us",
        /// Questions without answer that end a connection; 0: the default.
        KeepAliveProbes = 3: "keep_alive_probes",
        /// How long what was sent may stay without any answer; 0: the default.
        UserTimeout = 4: "user_timeout_us",
        /// A [`Congestion`].
        Congestion = 5: "congestion",
    }
}

open_enum! {
    /// Ways of congestion control.
    Congestion {
        /// The kernel's own choice.
        Default = 0: "default",
        /// RFC 5681 and RFC 6582.
        NewReno = 1: "newreno",
        /// RFC 9438.
        Cubic = 2: "cubic",
        /// RFC 8257.
        Dctcp = 3: "dctcp",
    }
}

impl TcpOption {
    /// Whether `value` is one that the option can have.
    pub const fn check(self, value: u64) -> Result<(), Status> {
        let most = match self {
            TcpOption::KeepAlive | TcpOption::KeepAliveInterval | TcpOption::UserTimeout => {
                OPTION_TIME_MAX_US
            }
            TcpOption::KeepAliveProbes => KEEP_ALIVE_PROBES_MAX,
            TcpOption::Congestion => Congestion::ALL.len() as u64 - 1,
            _ => return Err(Status::Unsupported),
        };
        if value <= most { Ok(()) } else { Err(Status::Invalid) }
    }
}

open_enum! {
    /// Direct calls, by the number in `rax` at SYSCALL. Arguments in `rdi`, `rsi`, `rdx`.
    Direct {
        /// `enter`: run the batch in the syscall ring, come back with events. Returns how many
        /// events are unread.
        Enter = 0: "enter",
        /// `exit(code)`: ends the application.
        Exit = 1: "exit",
        /// `log(addr, len, level)`: a line to the kernel's log.
        Log = 2: "log",
        /// `clock()`: nanoseconds since boot; wall clock with `rdi` = 1 (Unix time).
        Clock = 3: "clock",
        /// `map(addr, pages)`: 2 MiB pages of the heap arena, zeroed; `addr` is 2 MiB aligned.
        Map = 4: "map",
        /// `unmap(addr, pages)`.
        Unmap = 5: "unmap",
        /// `thread(entry, stack, block)`: starts a background thread; its number.
        Thread = 6: "thread",
        /// `wait(addr, value, timeout_us)`: until `wake`, if the word at `addr` is `value`. Background threads.
        Wait = 7: "wait",
        /// `wake(addr, count)`: how many were waiting there, and run again.
        Wake = 8: "wake",
        /// `ready()`: the application serves from now on; the kernel prints `ix: ready` once.
        Ready = 9: "ready",
        /// `leave()`: ends the calling background thread.
        Leave = 10: "leave",
    }
}

impl Call {
    /// Flag: a `result` event is wanted even if the call fully succeeds.
    pub const WANT_RESULT: u16 = 1;

    /// A call with everything else 0.
    pub const fn new(op: Op, handle: Handle) -> Call {
        Call {
            op: op.0,
            flags: 0,
            sg_count: 0,
            reserved: 0,
            handle: handle.0,
            tag: 0,
            words: [0; 5],
        }
    }

    /// The same with a tag and the wish for a result.
    pub const fn with_result(mut self, tag: u64) -> Call {
        self.flags |= Call::WANT_RESULT;
        self.tag = tag;
        self
    }

    /// The same with a tag, which a failure's `result` then carries.
    pub const fn with_tag(mut self, tag: u64) -> Call {
        self.tag = tag;
        self
    }

    /// Whether a result is wanted in any case.
    pub const fn wants_result(&self) -> bool {
        self.flags & Call::WANT_RESULT != 0
    }

    /// Slots that this record says it takes, itself included; bounded whatever it says.
    pub fn slots(&self) -> usize {
        let sg_count = usize::from(self.sg_count).min(SG_MAX);
        match Op(self.op) {
            Op::Sendv => slots(sg_count, SENDV_INLINE_SG),
            Op::UdpSendv => slots(sg_count, UDP_SENDV_INLINE_SG),
            _ => 1,
        }
    }

    /// `listen` on `local` (address `::` for any).
    pub const fn listen(local: SocketAddress, backlog: u32) -> Call {
        let mut call = Call::new(Op::Listen, Handle::NONE);
        let [a, b, c] = local.to_words();
        call.words = [a, b, c, backlog as u64, 0];
        call
    }

    /// `accept`.
    pub const fn accept(handle: Handle, cookie: Cookie) -> Call {
        let mut call = Call::new(Op::Accept, handle);
        call.words[0] = cookie.0;
        call
    }

    /// `connect`.
    pub const fn connect(cookie: Cookie, remote: SocketAddress) -> Call {
        let mut call = Call::new(Op::Connect, Handle::NONE);
        let [a, b, c] = remote.to_words();
        call.words = [cookie.0, a, b, c, 0];
        call
    }

    /// `sendv` of `sg_count` entries, of which the first two are given here.
    pub const fn sendv(handle: Handle, sg_count: u16, first: SgEntry, second: SgEntry) -> Call {
        let mut call = Call::new(Op::Sendv, handle);
        call.sg_count = sg_count;
        call.words = [first.addr, first.len, second.addr, second.len, 0];
        call
    }

    /// A `sendv` that also returns the oldest `bytes` received bytes, once its entries are taken.
    pub const fn with_recv_done(mut self, bytes: u64) -> Call {
        self.words[4] = bytes;
        self
    }

    /// `recv_done`.
    pub const fn recv_done(handle: Handle, bytes: u64) -> Call {
        let mut call = Call::new(Op::RecvDone, handle);
        call.words[0] = bytes;
        call
    }

    /// `udp_bind`.
    pub const fn udp_bind(local: SocketAddress, cookie: Cookie) -> Call {
        let mut call = Call::new(Op::UdpBind, Handle::NONE);
        let [a, b, c] = local.to_words();
        call.words = [a, b, c, cookie.0, 0];
        call
    }

    /// `udp_sendv` of `sg_count` entries, of which the first is given here.
    pub const fn udp_sendv(
        handle: Handle,
        remote: SocketAddress,
        sg_count: u16,
        first: SgEntry,
    ) -> Call {
        let mut call = Call::new(Op::UdpSendv, handle);
        call.sg_count = sg_count;
        let [a, b, c] = remote.to_words();
        call.words = [a, b, c, first.addr, first.len];
        call
    }

    /// `udp_recv_done` for the datagram that `udp_recv` reported at `addr`.
    pub const fn udp_recv_done(handle: Handle, addr: u64) -> Call {
        let mut call = Call::new(Op::UdpRecvDone, handle);
        call.words[0] = addr;
        call
    }

    /// `timer_set`: one shot, after `delay_us`.
    pub const fn timer_set(cookie: Cookie, delay_us: u64) -> Call {
        let mut call = Call::new(Op::TimerSet, Handle::NONE);
        call.words = [cookie.0, delay_us, 0, 0, 0];
        call
    }

    /// `set_option`.
    pub const fn set_option(handle: Handle, option: TcpOption, value: u64) -> Call {
        let mut call = Call::new(Op::SetOption, handle);
        call.words = [option.0 as u64, value, 0, 0, 0];
        call
    }

    /// What the record asks for, its fields checked as far as they can be without the kernel's
    /// tables. Scatter-gather entries are not looked at: see [`Call::inline_sg`].
    pub fn decode(&self) -> Result<Request, Status> {
        if self.reserved != 0 || self.flags & !Call::WANT_RESULT != 0 {
            return Err(Status::Invalid);
        }
        let handle = Handle(self.handle);
        let w = &self.words;
        let address = |at: usize| SocketAddress::from_words([w[at], w[at + 1], w[at + 2]]);
        Ok(match Op(self.op) {
            Op::Nop => Request::Nop,
            Op::Listen if w[3] >= 1 && w[3] <= u64::from(BACKLOG_MAX) => {
                Request::Listen { local: address(0), backlog: w[3] as u32 }
            }
            Op::Accept => Request::Accept { handle, cookie: Cookie(w[0]) },
            Op::Reject => Request::Reject { handle },
            Op::Connect => Request::Connect { cookie: Cookie(w[0]), remote: address(1) },
            Op::Sendv => Request::Sendv { handle, sg_count: self.checked_sg_count()?, done: w[4] },
            Op::RecvDone => Request::RecvDone { handle, bytes: w[0] },
            Op::Close => Request::Close { handle },
            Op::Abort => Request::Abort { handle },
            Op::Shutdown => Request::Shutdown { handle },
            Op::UdpBind => Request::UdpBind { local: address(0), cookie: Cookie(w[3]) },
            Op::UdpSendv => {
                Request::UdpSendv { handle, remote: address(0), sg_count: self.checked_sg_count()? }
            }
            Op::UdpRecvDone => Request::UdpRecvDone { handle, addr: w[0] },
            Op::UdpClose => Request::UdpClose { handle },
            Op::TimerSet if w[1] <= TIMER_MAX_US => {
                Request::TimerSet { cookie: Cookie(w[0]), delay_us: w[1] }
            }
            Op::TimerCancel => Request::TimerCancel { handle },
            Op::Unlisten => Request::Unlisten { handle },
            Op::SetOption => {
                let option = TcpOption(u16::try_from(w[0]).map_err(|_| Status::Unsupported)?);
                option.check(w[1])?;
                Request::SetOption { handle, option, value: w[1] }
            }
            _ => return Err(Status::Invalid),
        })
    }

    fn checked_sg_count(&self) -> Result<usize, Status> {
        let count = usize::from(self.sg_count);
        if (1..=SG_MAX).contains(&count) { Ok(count) } else { Err(Status::Invalid) }
    }

    /// The scatter-gather entries in the first slot; those past `sg_count` are meaningless.
    pub fn inline_sg(&self) -> [SgEntry; 2] {
        let w = &self.words;
        match Op(self.op) {
            Op::UdpSendv => [SgEntry { addr: w[3], len: w[4] }, SgEntry::default()],
            _ => [SgEntry { addr: w[0], len: w[1] }, SgEntry { addr: w[2], len: w[3] }],
        }
    }
}

impl SgEntry {
    /// The entry, if its length is within the limit and it does not wrap around.
    pub const fn checked(self) -> Result<SgEntry, Status> {
        if self.len > SG_BYTES_MAX as u64 || self.addr.checked_add(self.len).is_none() {
            Err(Status::Fault)
        } else {
            Ok(self)
        }
    }
}

/// A decoded call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the operations, described at `Op`")]
pub enum Request {
    Nop,
    Listen { local: SocketAddress, backlog: u32 },
    Accept { handle: Handle, cookie: Cookie },
    Reject { handle: Handle },
    Connect { cookie: Cookie, remote: SocketAddress },
    Sendv { handle: Handle, sg_count: usize, done: u64 },
    RecvDone { handle: Handle, bytes: u64 },
    Close { handle: Handle },
    Abort { handle: Handle },
    Shutdown { handle: Handle },
    UdpBind { local: SocketAddress, cookie: Cookie },
    UdpSendv { handle: Handle, remote: SocketAddress, sg_count: usize },
    UdpRecvDone { handle: Handle, addr: u64 },
    UdpClose { handle: Handle },
    TimerSet { cookie: Cookie, delay_us: u64 },
    TimerCancel { handle: Handle },
    Unlisten { handle: Handle },
    SetOption { handle: Handle, option: TcpOption, value: u64 },
}
