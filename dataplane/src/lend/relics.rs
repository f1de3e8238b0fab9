//! What is left of groups that were taken by force: connections that the application is told are reset, whose buffers it may
//! still hold. They stay on the core that had them until it has let go of all.
use super::Lend;
use crate::conn::{Conn, Flags, Pending, State};
use crate::core_loop;
use crate::engine::Engine;
use crate::events;
use crate::group::FlowGroup;
use crate::local::Local;
use crate::mbuf::{Holder, Mbuf, NO_MBUF};
use crate::message::Message;
use crate::moves::Move;
use crate::moves::target::end_of_app;
use crate::tcp::{acks, close};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use ix_abi::stats::Counter;
use ix_abi::{Condition, CoreId, DeadReason, GroupId, Handle};

#[derive(Debug)]
struct Relic {
    group: Box<FlowGroup>,
    /// The application was told that it left: what it has laid aside for this life of the group has to come back.
    laid_aside: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Relics(Vec<Relic>);

impl Relics {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = &Box<FlowGroup>> {
        self.0.iter().map(|relic| &relic.group)
    }
}

impl Lend {
    /// The group and place of a connection that is over and that the application still knows.
    #[cold]
    #[inline(never)]
    pub(crate) fn relic(&mut self, handle: Handle) -> Option<(&mut FlowGroup, u32)> {
        let ours = self.relics.0.iter_mut().filter(|relic| relic.group.id == handle.group());
        ours.map(|relic| &mut *relic.group)
            .find_map(|group| group.resolve(handle).ok().map(|index| (group, index)))
    }
}

impl Engine {
    /// This core was stopped, everybody has gone on without it, and it runs again: nothing that it has is its own any
    /// more. To be called at the first quiescent point since, before anything else; as [`Engine::come_back`].
    pub fn give_up(&mut self) {
        self.stir();
        (self.lend.out, self.lend.stopped) = (true, true);
        (self.lend.asked, self.lend.leaves) = (false, false);
        self.end_relief();
        self.local.pool.area().disown(self.local.core);
        for relic in &self.lend.relics.0 {
            keep_all_delivered(&relic.group, &self.local);
        }
        let mut held = VecDeque::new();
        for group in (0..self.local.groups).map(GroupId) {
            if let Some(Move::Arriving(arriving)) = self.moves.get(group) {
                held.append(&mut arriving.held);
            }
            if self.owns(group) {
                self.end_by_force(group);
            }
            self.moves.set(group, Move::Rest);
        }
        while self.moves.unsent(u64::MAX, u64::MAX).is_some() {}
        // They are others' now, who answer them as they answer strangers'.
        for frame in held {
            core_loop::take(self, &frame);
        }
        self.tell(CoreId(0), Message::Back);
        self.look_at_lend();
    }

    /// A group came that has begun afresh elsewhere since it was sent.
    #[cold]
    pub(crate) fn end_late(&mut self, group: Box<FlowGroup>) {
        let id = group.id;
        let at = usize::from(id.0);
        // (A newer life of it may be here.)
        let ours = self.groups.get_mut(at).and_then(Option::take);
        let (owner, age) = (self.local.owners[at], self.local.ages[at]);
        let told = self.local.app.as_ref().is_some_and(|app| app.group_in.contains(id));
        let state = self.moves.get(id).map(core::mem::take).unwrap_or_default();
        let (leaving, frozen) = (self.local.leaving.contains(id), self.local.frozen.contains(id));
        // (It is in `group_in` with this, so that what the application has laid aside comes back.)
        self.give_group(group);
        self.end_by_force(id);
        self.local.owners[at] = owner;
        self.local.ages[at] = age;
        self.groups[at] = ours;
        if let Some(app) = self.local.app.as_mut().filter(|_| told) {
            app.group_in.insert(id);
        }
        self.moves.set(id, state);
        if leaving {
            self.local.leaving.insert(id);
        }
        if frozen {
            self.local.frozen.insert(id);
        }
        if let Some(group) = &mut self.groups[at] {
            // Sets and deadlines of this core are by group: they went with the other.
            group.enlist(&mut self.local);
        }
    }

    /// Ends the connections of a group that is here, and keeps what the application still has of them.
    pub(super) fn end_by_force(&mut self, id: GroupId) {
        let at = usize::from(id.0);
        let mut laid_aside = match self.moves.get(id) {
            Some(Move::Leaving { told, .. }) => told.is_some(),
            Some(Move::Draining { .. }) => true,
            _ => false,
        };
        let Engine { local, groups, .. } = self;
        if let Some(app) = &mut local.app {
            laid_aside |= app.group_in.contains(id);
            app.group_in.remove(id);
        }
        let Some(Some(group)) = groups.get_mut(at) else { return };
        let reset = end_all(group, local);
        local.stats.add(Counter::TcpForceResets, reset);
        local.leaving.remove(id);
        local.frozen.remove(id);
        self.moves.set(id, Move::Rest);
        let Some(mut group) = self.take_group(id, CoreId(0)) else { return };
        let local = &mut self.local;
        group.rebase_tx(0, local.tx.next());
        if !group.conns.is_empty() || laid_aside {
            self.lend.relics.0.push(Relic { group, laid_aside });
        }
        self.look_at_lend();
    }

    /// Goes on with what is left. Whether anything was done.
    pub(super) fn run_relics(&mut self) -> bool {
        let mut relics = core::mem::take(&mut self.lend.relics.0);
        let mut busy = false;
        for relic in &mut relics {
            busy |= run(relic, &mut self.local);
            let id = relic.group.id;
            if !self.owns(id) {
                self.local.events_ready.remove(id);
                self.local.holding.remove(id);
                self.local.output_ready.remove(id);
            }
        }
        relics.retain(|relic| !relic.group.conns.is_empty() || relic.laid_aside);
        self.lend.relics.0 = relics;
        busy
    }

    /// The application is gone, and so is all that it had of them.
    pub(crate) fn end_relics_of_app(&mut self) {
        for relic in &mut self.lend.relics.0 {
            relic.laid_aside = false;
            end_of_app(&mut relic.group, &mut self.local);
        }
    }
}

/// Ends all connections of a group; how many were not over.
fn end_all(group: &mut FlowGroup, local: &mut Local) -> u64 {
    let mut reset = 0;
    while let Some(index) = group.pop_output() {
        // Nothing is sent for them any more.
        group.conns[index].flags -= Flags::RESET;
    }
    for index in 0..group.conns.capacity() {
        group.conns.settle(index);
        let conn = &mut group.conns[index];
        if conn.flags.contains(Flags::FREED) {
            continue;
        }
        conn.flags -= Flags::RESET;
        match conn.state {
            State::Closed => group.free_if_done(index, local),
            State::TimeWait => close::time_wait_over(group, local, index),
            _ => {
                reset += 1;
                undeliver(conn);
                close::end(group, local, index, DeadReason::Reset);
            }
        }
    }
    keep_all_delivered(group, local);
    reset
}

fn keep_all_delivered(group: &FlowGroup, local: &Local) {
    for index in 0..group.conns.capacity() {
        let conn = &group.conns[index];
        if !conn.flags.contains(Flags::FREED) {
            keep_delivered(conn, local);
        }
    }
}

/// What the application was not told of, it is not told of any more; it goes with what it holds.
fn undeliver(conn: &mut Conn) {
    conn.rx_undelivered = NO_MBUF;
    conn.rx_waiting = 0;
    conn.pending -= Pending::RECV | Pending::EOF;
}

/// What it holds is held for this core, not for the group, which is another's.
fn keep_delivered(conn: &Conn, local: &Local) {
    let area = local.pool.area();
    let mut at = conn.rx_head;
    while at != NO_MBUF {
        let mbuf = Mbuf::from_raw(at);
        // Of the front of the first that is not delivered whole the application may have been told.
        if area.holder(at) != Holder::NONE {
            area.set_holder(&mbuf, Holder::relic(local.core));
        }
        let is_last = at == conn.rx_undelivered;
        at = if is_last { NO_MBUF } else { area.meta(&mbuf).next };
        let _still_held = mbuf.into_raw();
    }
}

fn run(relic: &mut Relic, local: &mut Local) -> bool {
    let Relic { group, laid_aside } = relic;
    let mut busy = false;
    while let Some(index) = group.pop_hold(local) {
        busy = true;
        acks::held_frame_left(group, local, index);
    }
    let Some(app) = local.app.as_mut().filter(|app| !app.condemned) else {
        *laid_aside &= local.app.is_some();
        return busy;
    };
    let mut room = app.rings.room().saturating_sub(events::RESERVE);
    if *laid_aside && room > 0 {
        let life = (group.age >> 32) as u16;
        app.rings.post(&Condition::GroupIn { group: group.id, life }.encode());
        local.stats.add(Counter::Events, 1);
        (*laid_aside, room, busy) = (false, room - 1, true);
    }
    // Of a call since: nothing is sent for it.
    while let Some(index) = group.pop_output() {
        group.conns[index].flags -= Flags::RESET;
        group.free_if_done(index, local);
    }
    while !*laid_aside && let Some(index) = group.first_event() {
        if !events::post_connection(group, local, index, &mut room) {
            break;
        }
        busy = true;
    }
    busy
}
