//! The application of a simulated dataplane: holds conversations by the raw ABI, checks every event
//! against the rules of `docs/abi.md`, and misbehaves a little.
mod datagrams;
mod handover;
mod nonsense;

use self::datagrams::Datagrams;
use super::book::{End, SharedBook, Side, Talk};
use super::conn::Conn;
use super::faults;
use super::heap::Heap;
use super::memory::Pages;
use super::net::StationId;
use super::peer::PORT;
use super::rings::UserRings;
use super::swarm::MachineDraw;
use super::{MS, Time};
use ix_abi::call::{Call, Op, SgEntry};
use ix_abi::event::Condition;
use ix_abi::layout::RX_BASE;
use ix_abi::{Cookie, DeadReason, GroupId, Handle, SocketAddress, Status};
use ix_dataplane::platform::AppReturn;
use ix_dataplane::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// What the contexts of an application share.
#[derive(Debug)]
pub struct Shared {
    /// Whose application it is.
    pub station: StationId,
    /// The oracle.
    pub book: SharedBook,
    /// Draws.
    pub rng: Rng,
    /// Its make.
    pub draw: MachineDraw,
    /// Its heap.
    pub heap: Heap,
    /// The receive area, which it can read.
    pub rx: Rc<Pages>,
    /// Conversations that are being opened, by cookie: their groups may move meanwhile.
    pub opening: BTreeMap<u64, Talk>,
    /// Connections of groups that have left one context and have not come to another.
    /// By group, and by its life.
    pub depot: BTreeMap<(u16, u16), Vec<(u64, Conn)>>,
    /// Its cores leave now and then: not every context has flow groups.
    pub lends: bool,
    /// The port for datagrams, once it is bound.
    pub binding: Option<Handle>,
    /// The longest that a timer was late.
    pub timer_late: Time,
    /// Calls that ask or answer.
    pub answers: u64,
}

impl Shared {
    /// Reads received bytes at a user address.
    pub fn received(&self, addr: u64, bytes: &mut [u8]) {
        let at = addr.checked_sub(RX_BASE).expect("an address in the receive area");
        self.rx.read(at as usize, bytes);
    }
}

/// What a tag stands for.
#[derive(Debug)]
pub enum Tag {
    /// The listener.
    Listen,
    /// A `sendv` of this connection.
    Send(u64),
    /// A timer.
    Timer,
    /// A `connect` with this cookie.
    Connect(u64),
    /// A call that cannot succeed.
    Nonsense,
    /// The binding of the port for datagrams.
    Bind,
    /// A datagram.
    Datagram,
    /// A call whose failure would be a defect.
    Plain(&'static str),
}

/// Calls to be written at the end of an entry.
#[derive(Debug, Default)]
pub struct Outbox {
    /// With entries beyond the record's.
    pub calls: Vec<(Call, Vec<SgEntry>)>,
    /// Tags of calls that may still have a result.
    pub tags: BTreeMap<u64, (Tag, Option<u32>)>,
    /// Tags of different contexts differ, since what they stand for may move.
    next_tag: u64,
}

impl Outbox {
    /// Adds a call under a new tag; its index in the ring is filled in when it is written.
    pub fn push(&mut self, call: Call, more: Vec<SgEntry>, tag: Tag) -> u64 {
        self.next_tag += 1;
        self.calls.push((call.with_tag(self.next_tag), more));
        self.tags.insert(self.next_tag, (tag, None));
        self.next_tag
    }
}

/// One context: an elastic thread.
#[derive(Debug)]
pub struct Context {
    number: usize,
    /// Its rings.
    pub rings: UserRings,
    /// With the life that each is in.
    groups: BTreeMap<u16, u16>,
    conns: BTreeMap<u64, Conn>,
    /// Those of `Shared::opening` that this one began.
    opening: BTreeSet<u64>,
    /// Sorted by time, latest first.
    plans: Vec<(Time, Talk)>,
    outbox: Outbox,
    next_cookie: u64,
    /// Armed, and when it is due.
    timer: Option<(u64, Time)>,
    /// It was refused one, and goes round in circles for a while before it tries again.
    refused: bool,
    /// `calls_consumed` at the end of the entry before the last.
    consumed: u32,
    preempted: bool,
    started: bool,
    datagrams: Datagrams,
}

/// How long an application waits in its own way that cannot have a timer.
const LINGER: Time = MS / 2;

/// `index` of a ring lies before `consumed`.
pub fn is_before(index: u32, consumed: u32) -> bool {
    consumed.wrapping_sub(index) as i32 >= 0
}

impl Context {
    /// The context of a core, with the conversations that it will open.
    pub fn new(number: usize, mut plans: Vec<(Time, Talk)>) -> Context {
        plans.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        Context {
            number,
            rings: UserRings::new(),
            groups: BTreeMap::new(),
            conns: BTreeMap::new(),
            opening: BTreeSet::new(),
            plans,
            outbox: Outbox { next_tag: (number as u64) << 40, ..Outbox::default() },
            next_cookie: (1 + number as u64) << 32,
            timer: None,
            refused: false,
            consumed: 0,
            preempted: false,
            started: false,
            datagrams: Datagrams::default(),
        }
    }

    /// Whether it holds nothing and wants nothing.
    pub fn is_idle(&self) -> bool {
        self.conns.is_empty()
            && self.opening.is_empty()
            && self.plans.is_empty()
            && self.datagrams.is_idle()
    }

    /// The numbers of its conversations, as far as they are known.
    pub fn talks(&self) -> impl Iterator<Item = u64> {
        self.conns.values().filter_map(Conn::talk_id)
    }

    /// How long its last turn took beyond the usual.
    pub fn lingered(&mut self) -> Time {
        if std::mem::take(&mut self.refused) { LINGER } else { 0 }
    }

    /// Everything that it holds, for the message of a failure.
    pub fn dump(&self, station: StationId) {
        for (handle, conn) in &self.conns {
            eprintln!("{station:?} context {}: {handle:#x} {conn:?}", self.number);
        }
        for cookie in &self.opening {
            eprintln!("{station:?} context {}: opening {cookie:#x}", self.number);
        }
        eprintln!("{station:?} context {}: {:?}", self.number, self.datagrams);
    }

    /// The thread runs until it calls `enter`, or is preempted.
    pub fn run(&mut self, shared: &mut Shared) -> AppReturn {
        if !std::mem::take(&mut self.preempted) && shared.rng.chance(shared.draw.preempt, 16) {
            // Before it has read anything, or (below) after it has written everything.
            self.preempted = true;
            return AppReturn::Preempted;
        }
        let now = self.rings.now();
        let consumed = self.rings.calls_consumed();
        for _ in 0..self.rings.events() {
            let condition = self.rings.next_event();
            let (condition, more) = condition.split();
            self.handle(condition, shared, now);
            if let Some(more) = more {
                self.handle(more, shared, now);
            }
        }
        self.settle(consumed, shared);
        self.opening.retain(|cookie| shared.opening.contains_key(cookie));
        if !self.started {
            self.started = true;
            self.start(shared);
        }
        self.open(shared, now);
        self.drive(shared, now);
        self.datagrams.drive(&mut self.outbox, shared, now);
        self.nonsense(shared);
        self.wake_up_later(shared, now);
        let cluttered = shared.rng.chance(shared.draw.clutter, 16);
        // As much room as the kernel keeps for results, and a little.
        let room = cluttered.then(|| 64 + shared.rng.below(8) as u32);
        self.write(room);
        self.consumed = consumed;
        AppReturn::Entered
    }

    fn start(&mut self, shared: &mut Shared) {
        if self.number == 0 {
            let local = SocketAddress { port: PORT, ..SocketAddress::default() };
            let call = Call { flags: Call::WANT_RESULT, ..Call::listen(local, 1024) };
            self.outbox.push(call, Vec::new(), Tag::Listen);
        }
        self.datagrams.start(self.number, &mut self.outbox, shared);
    }

    fn conn(&mut self, handle: Handle, cookie: Cookie, what: &str) -> &mut Conn {
        let Some(conn) = self.conns.get_mut(&handle.0) else {
            panic!("`{what}` for {handle:x?}, which is not alive")
        };
        assert_eq!(conn.cookie, cookie, "`{what}` with a foreign cookie");
        conn
    }

    fn handle(&mut self, condition: Condition, shared: &mut Shared, now: Time) {
        match condition {
            Condition::GroupIn { group, life } => self.group_in(group, life, shared),
            Condition::GroupOut { group, life } => self.group_out(group, life, shared),
            Condition::Knock { handle, remote, local_port, .. } => {
                assert_eq!(local_port, PORT);
                assert!(remote.ip.to_v4().is_some_and(|ip| ip[..3] == [10, 0, 0]), "{remote:?}");
                self.fresh(handle);
                if shared.rng.chance(shared.draw.reject, 64) {
                    *shared.book.borrow_mut().rejected.entry(shared.station).or_default() += 1;
                    self.call(Call::new(Op::Reject, handle), "reject");
                    return;
                }
                let cookie = self.cookie();
                self.call(Call::accept(handle, cookie), "accept");
                self.conns.insert(handle.0, Conn::new(handle, cookie, Side::Acceptor, None, now));
            }
            Condition::Connected { handle, cookie, outcome, window } => {
                let talk =
                    shared.opening.remove(&cookie.0).expect("`connected` that nobody asked for");
                if outcome == Status::Ok {
                    self.fresh(handle);
                    assert!(window > 0, "connected with no window");
                    shared.book.borrow_mut().opened(talk.id);
                    let conn = Conn::new(handle, cookie, Side::Opener, Some(talk), now);
                    self.conns.insert(handle.0, conn);
                } else {
                    let end = match outcome {
                        Status::Refused => End::Refused,
                        Status::TimedOut | Status::Unreachable => End::TimedOut,
                        other => panic!("connected: {other:?}"),
                    };
                    shared.book.borrow_mut().end(talk.id, Side::Opener, end, now);
                }
            }
            Condition::Recv { handle, cookie, addr, len } => {
                let closed_before = self.consumed;
                let conn = self.conn(handle, cookie, "recv");
                conn.not_closed(closed_before, "recv");
                conn.received(addr, len, shared);
            }
            Condition::Eof { handle, cookie } => {
                let closed_before = self.consumed;
                let conn = self.conn(handle, cookie, "eof");
                conn.not_closed(closed_before, "eof");
                conn.eof(shared);
            }
            Condition::Sent { handle, cookie, bytes, window } => {
                self.conn(handle, cookie, "sent").sent(u64::from(bytes), window, shared);
            }
            Condition::Dead { handle, cookie, reason } => {
                self.dead(handle, cookie, reason, shared, now);
            }
            Condition::Timer { cookie, .. } => {
                let (expected, due) = self.timer.take().expect("a timer that was armed");
                assert_eq!(cookie.0, expected, "another timer");
                assert!(now >= due, "a timer {} ns early", due - now);
                shared.timer_late = shared.timer_late.max(now - due);
            }
            Condition::Result { op, status, handle, tag, value } => {
                self.result(Op(op), status, handle, tag, value, shared);
            }
            Condition::UdpRecv { addr, len, remote, .. } => {
                self.datagrams.received(addr, len, remote, shared);
            }
            Condition::UdpSent { tag, bytes, .. } => self.datagrams.sent(tag, bytes, shared),
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn fresh(&self, handle: Handle) {
        assert!(!self.conns.contains_key(&handle.0), "{handle:x?} is alive already");
        let GroupId(group) = handle.group();
        assert!(self.groups.contains_key(&group), "{handle:x?} of a group that is not ours");
    }

    fn cookie(&mut self) -> Cookie {
        self.next_cookie += 1;
        Cookie(self.next_cookie)
    }

    fn call(&mut self, call: Call, what: &'static str) {
        self.outbox.push(call, Vec::new(), Tag::Plain(what));
    }

    fn dead(
        &mut self,
        handle: Handle,
        cookie: Cookie,
        reason: DeadReason,
        shared: &mut Shared,
        now: Time,
    ) {
        self.conn(handle, cookie, "dead");
        let conn = self.conns.remove(&handle.0).expect("just seen");
        if !conn.closing {
            // What was received stays readable until `close`, which is all that may follow.
            conn.check_held(shared);
            self.call(Call::new(Op::Close, handle), "close of the dead");
        }
        conn.dead(reason, shared, now);
    }

    fn result(
        &mut self,
        op: Op,
        status: Status,
        handle: Handle,
        tag: u64,
        value: u64,
        shared: &mut Shared,
    ) {
        let (meaning, _) = self.outbox.tags.remove(&tag).expect("a result for a tag in use");
        match meaning {
            Tag::Listen => {
                assert_eq!((op, status), (Op::Listen, Status::Ok));
                assert_ne!(value | handle.0, 0, "no listener");
                shared.book.borrow_mut().crash_ends(shared.station, self.rings.now());
            }
            Tag::Timer if status == Status::Limit && faults::planned() => {
                self.timer = None;
                self.refused = true;
            }
            Tag::Timer => assert_eq!((op, status), (Op::TimerSet, Status::Ok)),
            Tag::Send(handle) => {
                // The connection may have died before the call was looked at.
                if let Some(conn) = self.conns.get_mut(&handle) {
                    assert_eq!(op, Op::Sendv);
                    conn.send_result(tag, status, value, shared);
                }
            }
            Tag::Bind => Datagrams::bound(status, handle, shared),
            Tag::Datagram => self.datagrams.refused(tag, status, shared, self.rings.now()),
            Tag::Connect(cookie)
                if status == Status::Limit
                    && (faults::planned() || shared.draw.moves > 0 || shared.lends) =>
            {
                // No room for one more connection, or no group here: again, later.
                let talk = shared.opening.remove(&cookie).expect("a talk that is being opened");
                self.plans.push((self.rings.now() + 100 * MS, talk));
                self.plans.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            }
            Tag::Connect(_) => panic!("connect: {status:?}"),
            Tag::Nonsense => assert_ne!(status, Status::Ok, "nonsense succeeds: {op:?}"),
            // A call on a connection that has died meanwhile: `dead` has come, or will come.
            Tag::Plain(what) => {
                if let (Some(conn), true) = (self.conns.get_mut(&handle.0), status != Status::Ok) {
                    assert_eq!(status, Status::State, "{what} of {handle:x?}");
                    conn.failed = Some(what);
                }
            }
        }
    }

    /// Calls that were consumed and have no result have succeeded: their results, if any, come
    /// before.
    fn settle(&mut self, consumed: u32, shared: &mut Shared) {
        let done = |(_, (_, index)): &(&u64, &(Tag, Option<u32>))| {
            index.is_some_and(|index| is_before(index, consumed))
        };
        let done: Vec<u64> = self.outbox.tags.iter().filter(done).map(|(tag, _)| *tag).collect();
        for tag in done {
            let Some((meaning, _)) = self.outbox.tags.remove(&tag) else { continue };
            match meaning {
                Tag::Send(handle) => {
                    if let Some(conn) = self.conns.get_mut(&handle) {
                        conn.send_accepted(tag, shared);
                    }
                }
                Tag::Nonsense => panic!("nonsense without a result"),
                // Core 0 answers for them, later.
                Tag::Listen | Tag::Bind => {
                    self.outbox.tags.insert(tag, (meaning, None));
                }
                Tag::Timer | Tag::Connect(_) | Tag::Plain(_) | Tag::Datagram => {}
            }
        }
    }

    fn open(&mut self, shared: &mut Shared, now: Time) {
        while self.plans.last().is_some_and(|(at, _)| *at <= now) {
            let Some((_, talk)) = self.plans.pop() else { break };
            let cookie = self.cookie();
            let remote = SocketAddress::v4(talk.acceptor.ip(), PORT);
            self.outbox.push(Call::connect(cookie, remote), Vec::new(), Tag::Connect(cookie.0));
            self.opening.insert(cookie.0);
            shared.opening.insert(cookie.0, talk);
        }
    }

    fn drive(&mut self, shared: &mut Shared, now: Time) {
        let mut conns = std::mem::take(&mut self.conns);
        for conn in conns.values_mut() {
            conn.drive(&mut self.outbox, shared, now);
        }
        self.conns = conns;
    }

    /// If anything is left to do that no event will remind of.
    fn wake_up_later(&mut self, shared: &mut Shared, now: Time) {
        if self.timer.is_some() || self.is_idle() {
            return;
        }
        let mut delay = 1 + shared.rng.below(20 * MS);
        if self.conns.is_empty() && self.opening.is_empty() && self.datagrams.is_idle() {
            let next = self.plans.last().map_or(now, |(at, _)| *at);
            delay = delay.max(next.saturating_sub(now));
        } else if self.conns.values().all(Conn::is_waiting) {
            delay += 200 * MS;
        }
        if shared.draw.eager {
            let next = self.plans.last().map_or(Time::MAX, |(at, _)| at.saturating_sub(now));
            delay = delay.min(next.max(1));
        }
        let micros = delay.div_ceil(1_000);
        let cookie = self.cookie();
        let mut call = Call::timer_set(cookie, micros);
        if shared.rng.chance(1, 2) {
            call.flags |= Call::WANT_RESULT;
        }
        self.outbox.push(call, Vec::new(), Tag::Timer);
        self.timer = Some((cookie.0, now + micros * 1_000));
    }

    /// Writes what fits into the ring, and shows it; `room`: what it leaves of the event ring.
    fn write(&mut self, room: Option<u32>) {
        let mut calls = std::mem::take(&mut self.outbox.calls).into_iter();
        while let Some((call, more)) = calls.next() {
            if (self.rings.room() as usize) < call.slots() {
                self.outbox.calls.push((call, more));
                self.outbox.calls.extend(calls);
                break;
            }
            let index = self.rings.write(&call, &more);
            if let Some((_, at)) = self.outbox.tags.get_mut(&call.tag) {
                *at = Some(index);
            }
            if matches!(Op(call.op), Op::Close | Op::Abort)
                && let Some(conn) = self.conns.get_mut(&call.handle)
                && conn.closing
                && call.reserved == 0
            {
                conn.closed_index = Some(index);
            }
        }
        self.rings.publish(room);
    }
}
