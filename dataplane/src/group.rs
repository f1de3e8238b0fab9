//! A flow group: the unit of ownership. It owns its connections, their send segments, its flow
//! table, timers and lists by value; moving it to another core is moving this value.
mod timers;
mod unreached;

use crate::acl;
use crate::addresses::Generations;
use crate::conn::{Conn, Conns, Flags, Pending, State, Unfolding};
use crate::engine::gauge;
use crate::fifo::Fifo;
use crate::flow_table::{FlowTable, NIL};
use crate::limits::{HALF_OPEN_SHARE, SEGMENTS_PER_GROUP, SENT_PER_GROUP, TIME_WAIT_EVICT_TRIES};
use crate::local::Local;
use crate::ports::{SLOTS, Waiting};
use crate::slab::Slab;
use crate::tcp::close;
use crate::tcp::recovery::{self, Recoveries};
use crate::tcp::send_queue::Segments;
use crate::tcp::sent::Records;
use crate::time::Instant;
use crate::wheel::Wheel;
use ix_abi::stats::{Counter, Drop};
use ix_abi::{GroupId, Handle, Status};

/// How far apart the first generations of a group's lives are: the golden section of what there are, so that any few of
/// them are far apart.
const GENERATIONS_APART: u64 = 0x9e_3779;

/// All groups of the port; `None`: another core's.
pub(crate) type Groups = alloc::boxed::Box<[Option<alloc::boxed::Box<FlowGroup>>]>;

/// One entry of the port's RSS indirection table, and all that belongs to it.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct FlowGroup {
    // What each message needs: two cache lines.
    /// Frames that have come for it.
    pub(crate) frames: u64,
    /// Added to the core's frame numbers, so that those of the group go on when it moves.
    pub(crate) tx_base: u32,
    /// Its number.
    pub id: GroupId,
    /// Its connections.
    pub conns: Conns,
    /// Finds a connection.
    pub table: FlowTable,
    // The rest.
    /// Their send segments.
    pub segments: Segments,
    /// Records of what they have under way.
    pub sent: Records,
    /// What is kept of those that repair losses.
    pub recoveries: Recoveries,
    /// A timer for each connection.
    wheel: Wheel,
    /// What the core's index of deadlines is armed for.
    due_at: Instant,
    /// How often it has gone to another core; in the high half, how often it has begun afresh since it was taken by force.
    pub(crate) age: u64,
    /// What the first handle of each slot has.
    first_generation: u32,
    /// Applications up to this one had ended when it left its last core.
    pub(crate) app_ended: u32,
    /// Connections that have something to transmit.
    output: Fifo,
    /// Connections that have events.
    events: Fifo,
    /// Connections that wait for a frame to complete.
    hold: Fifo,
    /// Ends of the list of connections in TIME-WAIT, the oldest first.
    time_wait: [u32; 2],
    /// Of each listener's backlog, what this group has.
    pub backlog: [Waiting; SLOTS],
    /// Handshakes of all listeners.
    pub half_open: u32,
    half_open_max: u32,
    /// Connections that wait for their next hop's address, which their core asks for.
    pub(crate) unreached: u32,
    /// SYN cookies that were sent may come back until then.
    pub cookies_until: Instant,
    /// Of our IPv6 addresses, those that its connections are of.
    pub addresses: Generations,
}

impl FlowGroup {
    /// An empty group of at most `limit` connections.
    pub fn new(
        id: GroupId,
        limit: u32,
        groups: u16,
        now: Instant,
        unfolding: Unfolding,
    ) -> FlowGroup {
        FlowGroup {
            id,
            conns: Conns::new(limit, unfolding),
            segments: Slab::new(SEGMENTS_PER_GROUP),
            sent: Slab::new(SENT_PER_GROUP),
            recoveries: recovery::recoveries(),
            table: FlowTable::new(limit, groups),
            wheel: Wheel::new(now, 0),
            due_at: Instant::NEVER,
            frames: 0,
            age: 0,
            first_generation: 1,
            tx_base: 0,
            app_ended: 0,
            output: Fifo::default(),
            events: Fifo::default(),
            hold: Fifo::default(),
            time_wait: [NIL; 2],
            backlog: [Waiting::default(); SLOTS],
            half_open: 0,
            half_open_max: (limit / HALF_OPEN_SHARE).max(1),
            unreached: 0,
            cookies_until: Instant(0),
            addresses: Generations::default(),
        }
    }

    /// The same in place of one that was taken from its core by force, with its `age`: its handles are not those of
    /// the old one's connections.
    pub(crate) fn afresh(
        id: GroupId,
        limit: u32,
        groups: u16,
        now: Instant,
        age: u64,
        unfolding: Unfolding,
    ) -> FlowGroup {
        let spread = (age >> 32).wrapping_mul(GENERATIONS_APART) as u32 & Handle::FIELD_MAX;
        let first_generation = spread.max(1);
        FlowGroup { age, first_generation, ..FlowGroup::new(id, limit, groups, now, unfolding) }
    }

    /// The connection that a handle of this group names, if the application may use it.
    #[inline]
    pub fn resolve(&mut self, handle: Handle) -> Result<u32, Status> {
        let index = handle.index();
        let conn = self.conns.whole(index).ok_or(Status::BadHandle)?;
        let known = conn.flags.intersects(Flags::KNOCKED.union(Flags::ACTIVE));
        let alive = conn.name == handle && known;
        if alive && !conn.flags.contains(Flags::APP_GONE) {
            Ok(index)
        } else {
            Err(Status::BadHandle)
        }
    }

    /// A fresh connection, not in the flow table yet.
    #[inline(always)]
    pub fn allocate(&mut self, local: &mut Local) -> Option<u32> {
        let Some(index) = self.conns.alloc().or_else(|| self.evict(local)) else {
            local.stats.drop(Drop::TcpTableFull);
            return None;
        };
        if self.wheel.capacity() < self.conns.capacity() && !self.grow() {
            self.conns.release(index);
            local.stats.drop(Drop::TcpTableFull);
            return None;
        }
        let name = self.conns[index].name;
        self.conns[index] = Conn { name, flags: Flags::empty(), ..Conn::default() };
        Some(index)
    }

    /// Makes room for what all connections may need beside their slots; `false`: no memory.
    #[cold]
    fn grow(&mut self) -> bool {
        let count = self.conns.capacity();
        // Slots that were not used yet.
        for index in self.wheel.capacity()..count {
            self.conns[index].name = Handle::new(self.id, self.first_generation, index);
        }
        // What the first loss needs is there before it: then is no time to allocate.
        self.segments.prepare();
        self.sent.prepare();
        self.recoveries.prepare();
        self.wheel.grow(count)
    }

    /// A slot of a connection in TIME-WAIT, cut short since there is no other: better than to turn
    /// new connections away, and what RFC 6191 §5 expects of busy servers.
    #[cold]
    fn evict(&mut self, local: &mut Local) -> Option<u32> {
        for _ in 0..TIME_WAIT_EVICT_TRIES {
            let [index, _] = self.time_wait;
            if index == NIL {
                return None;
            }
            close::time_wait_over(self, local, index);
            if let Some(index) = self.conns.alloc() {
                return Some(index);
            }
        }
        None
    }

    /// Whether peers may begin one more handshake that takes a slot.
    pub fn may_begin(&self) -> bool {
        self.half_open < self.half_open_max
    }

    /// A connection has entered TIME-WAIT: the newest of those.
    pub fn waits(&mut self, index: u32) {
        let [first, last] = &mut self.time_wait;
        self.conns[index].set_waiting([*last, NIL]);
        match *last {
            NIL => *first = index,
            last => {
                let [before, _] = self.conns[last].waiting();
                self.conns[last].set_waiting([before, index]);
            }
        }
        *last = index;
    }

    /// A connection leaves TIME-WAIT.
    pub fn waits_no_more(&mut self, index: u32) {
        let [before, behind] = self.conns[index].waiting();
        match before {
            NIL => self.time_wait[0] = behind,
            before => {
                let [first, _] = self.conns[before].waiting();
                self.conns[before].set_waiting([first, behind]);
            }
        }
        match behind {
            NIL => self.time_wait[1] = before,
            behind => {
                let [_, last] = self.conns[behind].waiting();
                self.conns[behind].set_waiting([before, last]);
            }
        }
    }

    /// Whether the list of connections in TIME-WAIT is of those, each once; for the books.
    pub(crate) fn all_in_time_wait_are_listed(&self) -> bool {
        let mut left = (0..self.conns.capacity())
            .filter(|index| self.conns.at(*index).state == State::TimeWait)
            .count();
        let [mut at, last] = self.time_wait;
        let mut before = NIL;
        while at != NIL && left > 0 && self.conns[at].state == State::TimeWait {
            let [back, next] = self.conns[at].waiting();
            if back != before {
                return false;
            }
            (before, at) = (at, next);
            left -= 1;
        }
        at == NIL && left == 0 && before == last
    }

    /// Enters a connection, whose key and hash are set, in the flow table.
    #[inline(always)]
    pub fn enter(&mut self, index: u32, local: &mut Local) -> bool {
        let conn = &mut self.conns[index];
        conn.flags |= Flags::IN_TABLE;
        let hash = conn.hash;
        if !self.table.insert(&mut self.conns, index, hash) {
            self.conns[index].flags -= Flags::IN_TABLE;
            local.stats.drop(Drop::TcpTableFull);
            return false;
        }
        gauge(&mut local.stats, Counter::TcpConnections, 1);
        true
    }

    /// Takes a connection out of the flow table: its frames are strangers from now on.
    #[inline]
    pub fn leave(&mut self, index: u32, local: &mut Local) {
        let conn = &mut self.conns[index];
        if conn.flags.contains(Flags::IN_TABLE) {
            conn.flags -= Flags::IN_TABLE;
            acl::closed(conn, local);
            self.table.remove(&mut self.conns, index);
            gauge(&mut local.stats, Counter::TcpConnections, -1);
        }
    }

    /// Gives a slot back if nobody needs it any more: not the network, not the application, no
    /// frame in flight, no list.
    pub fn free_if_done(&mut self, index: u32, local: &mut Local) {
        let conn = &mut self.conns[index];
        let listed = Flags::IN_OUTPUT | Flags::IN_EVENTS | Flags::IN_HOLD;
        let done = conn.state == State::Closed
            && conn.flags.contains(Flags::APP_GONE)
            && !conn.flags.intersects(listed | Flags::RESET)
            && conn.seg_head == NIL;
        if !done || conn.flags.contains(Flags::FREED) {
            return;
        }
        recovery::abandon(self, index);
        self.free(index, local);
    }

    /// Gives a slot back of which nothing is left: no record, no segment, no buffer, no place in a list.
    #[inline]
    pub fn free(&mut self, index: u32, local: &mut Local) {
        let conn = &mut self.conns[index];
        self.unreached -= u32::from(conn.flags.contains(Flags::NEEDS_NEIGHBOR));
        conn.flags = Flags::FREED;
        let generation = Handle::next_generation(conn.name.generation());
        conn.name = Handle::new(self.id, generation, index);
        self.wheel.cancel(index);
        self.conns.release(index);
        local.stats.add(Counter::TcpClosed, 1);
    }

    /// Frame `number` of this core in the group's numbering.
    #[inline(always)]
    pub fn tx_number(&self, number: u32) -> u32 {
        number.wrapping_add(self.tx_base)
    }

    /// Whether a frame, in the group's numbering, has left.
    #[inline(always)]
    pub fn has_left(&self, number: u32, local: &Local) -> bool {
        local.tx.has_left(number.wrapping_sub(self.tx_base))
    }

    /// Makes the group's frame numbers go on on another core, all of whose frames `next` counts.
    pub fn rebase_tx(&mut self, old_next: u32, new_next: u32) {
        self.tx_base = self.tx_base.wrapping_add(old_next).wrapping_sub(new_next);
    }

    /// The connection has something to transmit.
    #[inline(always)]
    pub fn want_output(&mut self, index: u32, local: &mut Local) {
        let conn = &mut self.conns[index];
        if conn.flags.contains(Flags::IN_OUTPUT) {
            return;
        }
        conn.flags |= Flags::IN_OUTPUT;
        self.want_first_output(index, local);
    }

    /// The same of a connection that is in no list yet, and says so itself.
    #[inline(always)]
    pub fn want_first_output(&mut self, index: u32, local: &mut Local) {
        debug_assert!(self.conns[index].flags.contains(Flags::IN_OUTPUT));
        let conns = &mut self.conns;
        self.output.push(index, |at, next| conns[at].output_next = next);
        local.output_ready.insert(self.id);
    }

    /// The next connection with something to transmit, out of the list.
    #[inline]
    pub fn pop_output(&mut self) -> Option<u32> {
        let index = self.output.head;
        if index == NIL {
            return None;
        }
        let conn = &mut self.conns[index];
        conn.flags -= Flags::IN_OUTPUT;
        self.output.remove_head(conn.output_next);
        Some(index)
    }

    /// Whether no other connection of the group has to transmit before this one.
    #[inline(always)]
    pub fn is_next_output(&self, index: u32) -> bool {
        self.output.head == index || !self.conns[index].flags.contains(Flags::IN_OUTPUT)
    }

    /// Such a connection has transmitted what it had to: out of the list, if it is in.
    #[inline(always)]
    pub fn skip_output(&mut self, index: u32, local: &mut Local) {
        if self.output.head == index {
            self.pop_output();
            if self.output.is_empty() {
                local.output_ready.remove(self.id);
            }
        }
    }

    /// The connection has an event to post.
    #[inline]
    pub fn want_event(&mut self, index: u32, pending: Pending, local: &mut Local) {
        let conn = &mut self.conns[index];
        conn.pending |= pending;
        if conn.flags.contains(Flags::IN_EVENTS) {
            return;
        }
        conn.flags |= Flags::IN_EVENTS;
        let conns = &mut self.conns;
        self.events.push(index, |at, next| conns[at].events_next = next);
        local.events_ready.insert(self.id);
        local.stir();
    }

    /// The next connection with events, still in the list.
    #[inline]
    pub fn first_event(&self) -> Option<u32> {
        (!self.events.is_empty()).then_some(self.events.head)
    }

    /// Takes the first connection off the list of those with events.
    #[inline]
    pub fn remove_first_event(&mut self) {
        let conn = &mut self.conns[self.events.head];
        conn.flags -= Flags::IN_EVENTS;
        self.events.remove_head(conn.events_next);
    }

    /// Nobody is left to be told: empties the list of connections with events, which may be the last
    /// thing that keeps them.
    pub fn forget_events(&mut self, local: &mut Local) {
        while let Some(index) = self.first_event() {
            self.remove_first_event();
            self.free_if_done(index, local);
        }
        local.events_ready.remove(self.id);
    }

    /// The connection waits for its frame `hold_tx`.
    pub fn want_hold(&mut self, index: u32, local: &mut Local) {
        let conn = &mut self.conns[index];
        if conn.flags.contains(Flags::IN_HOLD) {
            return;
        }
        conn.flags |= Flags::IN_HOLD;
        let conns = &mut self.conns;
        self.hold.push(index, |at, next| conns[at].hold_next = next);
        local.holding.insert(self.id);
        local.stir();
    }

    /// The next connection whose frame has left, out of the list.
    pub fn pop_hold(&mut self, local: &Local) -> Option<u32> {
        let index = self.hold.head;
        if index == NIL || !self.has_left(self.conns[index].hold_tx, local) {
            return None;
        }
        let conn = &mut self.conns[index];
        conn.flags -= Flags::IN_HOLD;
        self.hold.remove_head(conn.hold_next);
        Some(index)
    }

    /// Whether connections wait for frames.
    pub fn has_hold(&self) -> bool {
        !self.hold.is_empty()
    }

    /// Whether a connection has something in its send queue. Walks all of them.
    pub fn refers_to_memory(&self) -> bool {
        (0..self.conns.capacity()).any(|index| self.conns.at(index).refers_to_memory())
    }

    /// The group leaves the core: takes it out of the core's sets, index and gauge.
    pub fn detach(&mut self, local: &mut Local) {
        gauge(&mut local.stats, Counter::TcpConnections, -i64::from(self.table.len()));
        local.due.cancel(u32::from(self.id.0));
        self.due_at = Instant::NEVER;
        local.output_ready.remove(self.id);
        local.events_ready.remove(self.id);
        local.holding.remove(self.id);
    }

    /// The group has come to the core.
    pub fn attach(&mut self, local: &mut Local) {
        gauge(&mut local.stats, Counter::TcpConnections, i64::from(self.table.len()));
        self.enlist(local);
    }

    /// Enters the group in the core's sets and index.
    pub fn enlist(&mut self, local: &mut Local) {
        self.due_at = Instant::NEVER;
        self.index_deadline(local);
        if !self.output.is_empty() {
            local.output_ready.insert(self.id);
        }
        if !self.events.is_empty() {
            local.events_ready.insert(self.id);
        }
        if !self.hold.is_empty() {
            local.holding.insert(self.id);
        }
    }
}
