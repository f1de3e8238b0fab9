//! A connection: what a folded one needs per message in its first two cache lines, what any established one does in the next
//! three, the rest behind. 448 bytes, two of them to spare.
use crate::flow_table::{END, FlowKey, Link, NIL};
use crate::mbuf::NO_MBUF;
use crate::settings::Settings;
use crate::tcp::congestion::{Algorithm, Congestion, CongestionControl};
use crate::tcp::ecn::Ecn;
use crate::tcp::pmtu::Path;
use crate::tcp::rack::{Reordering, Timer};
use crate::tcp::rtt::RttEstimator;
use crate::tcp::send_queue::Segment;
use crate::tcp::sent::{self, FIRST, Marks, Record};
use crate::tcp::seq::WrappingSeq;
use crate::time::Instant;
mod folded;
mod slots;

pub use folded::{FOLDED, FORM, PLAIN, RESTING, Unfolding};
pub use slots::Conns;

use bitflags::bitflags;
use ix_abi::{Cookie, DeadReason, Handle, IpAddress};

/// RFC 9293 §3.3.2. `Listen` is not a connection's state here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// The network has nothing more to do with it; the application or frames in flight may.
    #[default]
    Closed,
    /// Our SYN is out.
    SynSent,
    /// The peer's SYN is in, our SYN-ACK out.
    SynReceived,
    /// Data both ways.
    Established,
    /// Our FIN is out.
    FinWait1,
    /// Our FIN is acknowledged.
    FinWait2,
    /// The peer's FIN is in.
    CloseWait,
    /// Both FINs are out, ours is not acknowledged.
    Closing,
    /// The peer's FIN was first, ours is out.
    LastAck,
    /// Both are acknowledged; old segments may still come.
    TimeWait,
}

impl State {
    /// Whether our side may still send payload that the application gave.
    pub const fn can_send(self) -> bool {
        use State::{CloseWait, Closing, Established, FinWait1, LastAck};
        matches!(self, Established | CloseWait | FinWait1 | Closing | LastAck)
    }

    /// Whether both sides know of each other.
    pub const fn is_synchronized(self) -> bool {
        !matches!(self, State::Closed | State::SynSent | State::SynReceived)
    }

    /// Whether the peer may still send payload.
    pub const fn can_receive(self) -> bool {
        matches!(self, State::Established | State::FinWait1 | State::FinWait2)
    }
}

bitflags! {
    /// What is true of a connection beside its state.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// In the group's list of connections that have something to transmit.
        const IN_OUTPUT = 1 << 0;
        /// In the group's list of connections that have events.
        const IN_EVENTS = 1 << 1;
        /// In the group's list of connections that wait for frames to complete.
        const IN_HOLD = 1 << 2;
        /// In the flow table.
        const IN_TABLE = 1 << 3;
        /// An acknowledgement must go out in the next transmit stage.
        const ACK_NOW = 1 << 4;
        /// The application opened it by `connect`.
        const ACTIVE = 1 << 5;
        /// The application was told of it and has not answered.
        const KNOCKED = 1 << 6;
        /// The application has given its cookie.
        const ACCEPTED = 1 << 7;
        /// Counted in its listener's backlog: among the handshakes while it is in SYN-RECEIVED.
        const IN_BACKLOG = 1 << 8;
        /// `close` or `abort` was called: nothing more is received for the application.
        const APP_CLOSED = 1 << 9;
        /// The handle is of no use any more: the application was told, or never knew it.
        const APP_GONE = 1 << 10;
        /// FIN follows the accepted data.
        const FIN_QUEUED = 1 << 11;
        /// The peer's FIN has arrived in order.
        const FIN_RECEIVED = 1 << 12;
        /// A `sendv` was cut short: a window event is owed.
        const REFUSED = 1 << 13;
        /// RST is to be sent, then it is over.
        const RESET = 1 << 14;
        /// The retransmission timer stands for the persist timer (RFC 9293 §3.8.6.1).
        const PERSIST = 1 << 15;
        /// Something was retransmitted and not acknowledged since: the timer backs off.
        const BACKED_OFF = 1 << 16;
        /// In fast recovery (RFC 6582, RFC 6675).
        const RECOVERY = 1 << 18;
        /// A loss probe is to be sent now (RFC 8985 §7.3).
        const RETRANSMIT = 1 << 19;
        /// A probe of the peer's window is to be sent now.
        const PROBE = 1 << 20;
        /// The peer scales windows.
        const SCALED = 1 << 21;
        /// Waits for the neighbour's address.
        const NEEDS_NEIGHBOR = 1 << 22;
        /// The `dead` event was posted before the application asked for the end.
        const DEAD_TOLD = 1 << 23;
        /// The end has come; `reason` says why.
        const ENDED = 1 << 24;
        /// The slot is free.
        const FREED = 1 << 25;
        /// `connect` failed or was answered: `connected` is posted or pending.
        const CONNECT_TOLD = 1 << 26;
        /// Both send timestamps with every segment (RFC 7323 §3.2).
        const TIMESTAMPS = 1 << 27;
        /// The peer understands selective acknowledgements (RFC 2018 §2).
        const SACK = 1 << 28;
        /// Congestion is notified, or the path is narrow: header prediction knows neither.
        const UNPREDICTED = 1 << 29;
        /// Over IPv6.
        const V6 = 1 << 31;
    }
}

bitflags! {
    /// Events that wait to be posted.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Pending: u8 {
        /// `knock`.
        const KNOCK = 1 << 0;
        /// `connected`, with success.
        const CONNECTED = 1 << 1;
        /// `sent`.
        const SENT = 1 << 2;
        /// `recv`.
        const RECV = 1 << 3;
        /// `eof`.
        const EOF = 1 << 4;
        /// `dead`, or `connected` with a failure.
        const DEAD = 1 << 5;
    }
}

/// A connection.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Conn {
    // Line 0: found by, and what a segment is held against. All that a folded connection keeps up is in the first two.
    /// The peer's IPv4 address and both ports, in the order of a received header; of IPv6 the ports alone.
    pub tuple: u64,
    // These two are one word for `Conn::form`, and the next two are one for `Conn::expected`.
    /// The set of rules that it was judged by.
    pub acl: u32,
    /// Bytes that the application was told of and has not returned.
    pub rx_held: u32,
    /// After the last byte that the application gave; FIN comes here.
    pub snd_end: WrappingSeq,
    /// Next expected from the peer.
    pub rcv_nxt: WrappingSeq,
    /// Right edge of the window that the peer was told.
    pub rcv_edge: WrappingSeq,
    /// Oldest that is not acknowledged.
    pub snd_una: WrappingSeq,
    /// The peer's window, in bytes from `snd_una`.
    pub snd_wnd: u32,
    /// Largest window that the peer ever offered (for its SWS avoidance).
    pub max_wnd: u32,
    /// The peer's timestamp to echo (RFC 7323 §4.3).
    pub ts_recent: u32,
    /// What is added to the clock in our timestamps.
    pub ts_offset: u32,
    /// Oldest receive buffer that is not returned.
    pub rx_head: u32,
    /// The last frame with payload of this connection, in the group's numbering.
    pub last_tx: u32,
    /// Next in the bucket.
    pub hash_next: Link,
    /// Largest payload of a frame.
    pub mss: u16,
    /// Shift of the windows that the peer sends.
    pub snd_shift: u8,
    /// Timeouts in a row.
    pub retries: u8,
    /// What `rto_at` stands for.
    pub timer: Timer,
    /// See [`Pending`].
    pub pending: Pending,

    // Line 1: whose it is, times, and the way out.
    /// The application's.
    pub cookie: Cookie,
    /// What the application calls it; changes when the slot is freed.
    pub name: Handle,
    /// When the connection's first unanswered transmission was.
    pub trying_since: Instant,
    /// Delayed acknowledgement.
    pub ack_at: Instant,
    /// Round-trip estimator.
    pub rtt: RttEstimator,
    /// What a frame to the next hop begins with: its Ethernet address, and two bytes of ours.
    pub ether: [u8; 8],
    /// Valid while it is the neighbour table's epoch.
    pub mac_epoch: u32,
    /// Bytes received in order since the last acknowledgement went out.
    pub ack_owed: u32,

    // Line 2: what was sent, and how much may be. Congestion control goes on in the next.
    /// The segment of the send queue at place `send_queue::OWN`.
    pub own_segment: Segment,
    /// Congestion control.
    pub cc: Congestion,

    // Behind it: what else an established connection asks for with each message.
    // These four are one word for `Conn::is_usual`, and the next three are one for `Conn::is_in_order`.
    /// See [`State`].
    pub state: State,
    /// See [`Ecn`].
    pub ecn: Ecn,
    /// See [`Path`].
    pub path: Path,
    /// The slot of our address; 0: IPv4.
    pub local: u8,
    /// First buffer of the out-of-order queue.
    pub ooo_head: u32,
    /// Records beside the first.
    pub sent_count: u16,
    /// Bytes of `twice`.
    pub twice_len: u16,
    /// The connection's recovery, if something is missing.
    pub recovery: u32,
    /// See [`Flags`].
    pub flags: Flags,
    /// After the highest ever sent.
    pub snd_max: WrappingSeq,
    /// Next to send.
    pub snd_nxt: WrappingSeq,
    /// Retransmission, persist, FIN-WAIT-2 or TIME-WAIT timer.
    pub rto_at: Instant,
    /// What the wheel is armed for; may be earlier than the timers below.
    pub timer_at: Instant,
    /// The record of the oldest that is under way; it begins at `snd_una`.
    pub first: Record,
    /// Newest.
    pub rx_tail: u32,
    /// Before this the application has its memory back, or is about to be told.
    pub released: WrappingSeq,
    /// The round trip is measured when this is acknowledged: once per round trip.
    pub timed: WrappingSeq,
    /// Sequence number of the segment that last changed `snd_wnd`.
    pub wl1: WrappingSeq,
    /// Acknowledgement number of it.
    pub wl2: WrappingSeq,
    /// Bytes it was not told of.
    pub rx_waiting: u32,
    /// Oldest segment of application memory, the newest, and the one that `snd_nxt` is in.
    pub seg_head: u32,
    /// See `seg_head`.
    pub seg_tail: u32,
    /// See `seg_head`.
    pub seg_next: u32,
    /// How many segments.
    pub seg_count: u16,
    /// Receive buffers held, out-of-order ones included.
    pub rx_buffers: u16,
    /// Place of the newest record.
    pub sent_tail: u32,
    /// `sendv`s of this batch are refused: an earlier one was cut short.
    pub refused_batch: u32,

    // The rest: what is needed once in a while.
    /// When to see whether the peer lives.
    pub keep_at: Instant,
    /// Where it came from.
    pub listener: Handle,
    /// When `ts_recent` came, in units of 2^30 ns.
    pub ts_recent_at: u32,
    /// Bytes to report in the next `sent`.
    pub sent_bytes: u32,
    /// Oldest that the application was not told of.
    pub rx_undelivered: u32,
    /// The peer.
    pub remote: IpAddress,
    /// Toeplitz hash of the frames that arrive.
    pub hash: u32,
    /// Next in the output list.
    pub output_next: u32,
    /// Next in the event list.
    pub events_next: u32,
    /// Recovery ends when this is acknowledged.
    pub recover: WrappingSeq,
    /// Release up to here ...
    pub hold_seq: WrappingSeq,
    /// ... when this frame has completed.
    pub hold_tx: u32,
    /// Next in the hold list.
    pub hold_next: u32,
    /// First sequence number that we sent.
    pub iss: WrappingSeq,
    /// Bytes under way that the peer has told of selectively, or by duplicate acknowledgements.
    pub sacked: u32,
    /// Bytes that are taken for lost and were not sent again since.
    pub lost: u32,
    /// Until this is acknowledged no more duplicates are counted (RFC 8985 `dsack_round`).
    pub duplicate_round: WrappingSeq,
    /// What was received twice and is to be told (RFC 2883).
    pub twice: WrappingSeq,
    /// What had moved when `keep_at` was set, see `tcp::keep_alive`.
    pub keep_mark: u32,
    /// What was out when the window was last reduced for a mark ends here.
    pub ecn_end: WrappingSeq,
    /// Where the segment of `probe_mss` ends.
    pub probe_end: WrappingSeq,
    /// When the next one is tried, in seconds.
    pub probe_at: u32,
    /// The segment size that the links at both ends admit, while the path admits less.
    pub mss_ends: u16,
    /// The larger segment size that is being tried.
    pub probe_mss: u16,
    /// How many are in the out-of-order queue.
    pub ooo_count: u16,
    /// The rule by whose limits it counts, or `acl::UNLIMITED`.
    pub acl_rule: u16,
    /// What the application has set.
    pub settings: Settings,
    /// Why it ended, if `ENDED`.
    pub reason: DeadReason,
    /// Keep-alive probes without answer.
    pub keep_unanswered: u8,
    /// What is known of reordering.
    pub reordering: Reordering,
}

/// Lines that a message of a folded connection touches, the first of them.
pub const CONN_LINES: usize = 2;

impl Conn {
    /// The peer and the ports.
    pub fn key(&self) -> FlowKey {
        FlowKey {
            remote: self.remote,
            remote_port: self.remote_port(),
            local_port: self.local_port(),
        }
    }

    /// Says whose it is.
    pub fn set_key(&mut self, key: &FlowKey) {
        self.remote = key.remote;
        self.tuple = key.tuple();
    }

    /// The peer's port.
    #[inline]
    pub fn remote_port(&self) -> u16 {
        u16::from_be((self.tuple >> 32) as u16)
    }

    /// Our port.
    #[inline]
    pub fn local_port(&self) -> u16 {
        u16::from_be((self.tuple >> 48) as u16)
    }

    /// Sent and not acknowledged.
    #[inline(always)]
    pub fn flight(&self) -> u32 {
        self.snd_nxt.since(self.snd_una)
    }

    /// All that is queued went out for the first time, now, while nothing else was out.
    #[inline(always)]
    pub fn sent(&mut self, now: Instant) {
        self.snd_nxt = self.snd_end;
        self.snd_max = self.snd_end;
        self.seg_next = NIL;
        // Behind it is none: that is so while there are no others.
        debug_assert!(self.sent_count == 0 && self.first.next == NIL && self.sent_tail == FIRST);
        self.first.end = self.snd_end;
        self.first.at = sent::clock(now);
        self.first.marks = Marks::empty();
        self.timer = Timer::Retransmit;
        self.rto_at = Instant(now.0 + self.rtt.timeout().0);
        self.trying_since = now;
        self.flags -= Flags::ACK_NOW;
        self.ack_owed = 0;
        self.ack_at = Instant::NEVER;
    }

    /// In what form it is, under which rules; above that how much the application holds. One load.
    #[inline(always)]
    pub fn form(&self) -> u64 {
        u64::from(self.acl) | u64::from(self.rx_held) << 32
    }

    /// What a segment says that comes next and acknowledges everything: its sequence number, and below that the acknowledgement.
    /// One load.
    #[inline(always)]
    pub fn expected(&self) -> u64 {
        u64::from(self.snd_end.0) | u64::from(self.rcv_nxt.0) << 32
    }

    /// Ethernet address of the next hop.
    pub fn mac(&self) -> [u8; 6] {
        let [mac @ .., _, _] = self.ether;
        mac
    }

    /// Whether it is established over IPv4, nothing is missing, and neither marks nor a narrow path ask for more
    /// than a look at each segment. Adjacent fields, so that it is two comparisons.
    #[inline(always)]
    pub fn is_usual(&self) -> bool {
        let what = [self.state as u8, self.ecn.bits(), self.path.bits(), self.local];
        u32::from_le_bytes(what) == State::Established as u32 && self.recovery == NIL
    }

    /// Whether nothing has arrived out of order or twice that is not told of, and at most one record is under
    /// way. One comparison.
    #[inline(always)]
    pub fn is_in_order(&self) -> bool {
        let counts = u64::from(self.sent_count) | u64::from(self.twice_len) << 16;
        u64::from(self.ooo_head) | counts << 32 == u64::from(NO_MBUF)
    }

    /// Whether a sequence number that was noted some time ago is not passed yet. Further back than half the
    /// circle it would seem to lie ahead, but not within what is under way.
    #[inline]
    pub fn is_ahead(&self, noted: WrappingSeq) -> bool {
        noted.since(self.snd_una) <= self.flight() && noted != self.snd_una
    }

    /// Bytes that are in the network, as far as is known (RFC 6675 §2).
    #[inline]
    pub fn pipe(&self) -> u32 {
        self.flight().saturating_sub(self.sacked + self.lost)
    }

    /// Bytes that a `sendv` may add now: what the peer's window and congestion control leave.
    #[inline]
    pub fn send_room(&self) -> u32 {
        let used = self.snd_end.since(self.snd_una);
        // Before the handshake's end, and after FIN, `used` may be "-1".
        let used = if used > i32::MAX as u32 { 0 } else { used };
        let congestion = self.cc.window().saturating_add(self.sacked);
        self.snd_wnd.min(congestion).saturating_sub(used)
    }

    /// The acknowledgement number that the peer was sent last.
    #[inline(always)]
    pub fn last_ack_sent(&self) -> WrappingSeq {
        self.rcv_nxt.minus(self.ack_owed)
    }

    /// Whose turn in TIME-WAIT comes before and behind its own, or `NIL`. They are where recovery keeps its marks: in
    /// TIME-WAIT all is acknowledged, and nothing that arrives gets that far.
    pub fn waiting(&self) -> [u32; 2] {
        [self.recover.0, self.duplicate_round.0]
    }

    /// See [`Conn::waiting`].
    pub fn set_waiting(&mut self, [before, behind]: [u32; 2]) {
        self.recover = WrappingSeq(before);
        self.duplicate_round = WrappingSeq(behind);
    }

    /// Begins anew with the congestion control that the application has chosen.
    pub fn choose_congestion(&mut self, default: Algorithm, now: Instant) {
        self.cc = Congestion::new(self.settings.algorithm(default));
        self.cc.start(u32::from(self.mss), now);
    }

    /// Says whether header prediction may have the connection, after a change of `ecn` or `path`.
    pub fn predict(&mut self) {
        let odd = self.ecn.contains(Ecn::ON) || !self.path.is_empty();
        self.flags.set(Flags::UNPREDICTED, odd);
    }

    /// Whether every byte and FIN that was queued is acknowledged.
    pub fn all_acked(&self) -> bool {
        self.snd_una.at_or_before(self.snd_end.plus(1)) && self.snd_una.after(self.snd_end)
    }
}

impl Default for Conn {
    fn default() -> Conn {
        Conn {
            remote: IpAddress::UNSPECIFIED,
            tuple: 0,
            hash: 0,
            hash_next: END,
            name: Handle::NONE,
            flags: Flags::FREED,
            rcv_nxt: WrappingSeq(0),
            rcv_edge: WrappingSeq(0),
            snd_una: WrappingSeq(0),
            snd_nxt: WrappingSeq(0),
            state: State::Closed,
            pending: Pending::empty(),
            snd_shift: 0,
            snd_max: WrappingSeq(0),
            snd_end: WrappingSeq(0),
            released: WrappingSeq(0),
            snd_wnd: 0,
            seg_head: NIL,
            seg_tail: NIL,
            seg_next: NIL,
            seg_count: 0,
            mss: 0,
            last_tx: 0,
            sent_bytes: 0,
            rx_head: NO_MBUF,
            rx_tail: NO_MBUF,
            rx_undelivered: NO_MBUF,
            rx_held: 0,
            rx_waiting: 0,
            ack_owed: 0,
            cookie: Cookie(0),
            timer_at: Instant::NEVER,
            rto_at: Instant::NEVER,
            ack_at: Instant::NEVER,
            wl1: WrappingSeq(0),
            wl2: WrappingSeq(0),
            output_next: NIL,
            events_next: NIL,
            mac_epoch: 0,
            ether: [0; 8],
            rx_buffers: 0,
            cc: Congestion::default(),
            rtt: RttEstimator::default(),
            timed: WrappingSeq(0),
            recover: WrappingSeq(0),
            ooo_head: NO_MBUF,
            ooo_count: 0,
            max_wnd: 0,
            retries: 0,
            trying_since: Instant::NEVER,
            refused_batch: 0,
            hold_seq: WrappingSeq(0),
            hold_tx: 0,
            hold_next: NIL,
            listener: Handle::NONE,
            reason: DeadReason::Closed,
            iss: WrappingSeq(0),
            acl: 0,
            acl_rule: crate::acl::UNLIMITED,
            ts_recent: 0,
            ts_recent_at: 0,
            ts_offset: 0,
            own_segment: Segment::default(),
            first: Record::default(),
            sent_tail: FIRST,
            sent_count: 0,
            timer: Timer::Retransmit,
            reordering: Reordering::default(),
            sacked: 0,
            lost: 0,
            recovery: NIL,
            duplicate_round: WrappingSeq(0),
            twice: WrappingSeq(0),
            twice_len: 0,
            local: 0,
            settings: Settings::default(),
            keep_at: Instant::NEVER,
            keep_mark: 0,
            keep_unanswered: 0,
            ecn: Ecn::empty(),
            ecn_end: WrappingSeq(0),
            path: Path::empty(),
            mss_ends: 0,
            probe_mss: 0,
            probe_end: WrappingSeq(0),
            probe_at: 0,
        }
    }
}

const _: () = assert!(size_of::<Conn>() <= 448);
const _: () = assert!(core::mem::offset_of!(Conn, cookie) == 64);
const _: () = assert!(core::mem::offset_of!(Conn, own_segment) == 128);
const _: () = assert!(core::mem::offset_of!(Conn, cc) == 160);
const _: () = assert!(core::mem::offset_of!(Conn, ooo_head) % 8 == 0);
