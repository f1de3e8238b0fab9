//! Cores that are lent: to another dataplane, and back.
//!
//! *Asked*, a core first gives its flow groups away, then learns that nobody sends it anything any more, empties its rings and
//! leaves at a quiescent point. *Forced*, it is stopped wherever it is, and core 0 says so: the groups that no other core has begin
//! afresh on others, empty. Either way nobody waits for it, counts on it or sends it anything while it is away: what every
//! core has to know is told to it when it returns (`sync`). If it was forced, it gives up what it still has of its
//! groups first (`relics`): their connections end, for the application, with a reset.
//!
//! Core 0 keeps the book (`round`). A change is a round: each core that is there takes it over and answers. What messages of
//! different cores say of one group may come in any order, so a group has an age, which grows with each move, and its
//! high half with each time that it begins afresh: who hears of an older one knows that it is over.
pub(crate) mod relics;
pub(crate) mod round;
pub(crate) mod sync;

use crate::engine::Engine;
use crate::message::Message;
use crate::moves::Move;
use ix_abi::{CoreId, GroupId};
use relics::Relics;
use round::Book;
pub use round::Presence;

/// A core's part in lending.
#[derive(Debug)]
pub(crate) struct Lend {
    /// Connections of a group.
    limit: u32,
    /// Queue pairs of the device.
    pairs: u16,
    /// Core 0 has told this core to leave, and it has not.
    asked: bool,
    /// It leaves at its next quiescent point.
    leaves: bool,
    /// It was away, and was not told what it has missed.
    out: bool,
    /// The same, and it was stopped: of what was said to it before, nearly all is over.
    stopped: bool,
    /// Its queues and rings were empty in the last iteration.
    dry: bool,
    /// Of the cores that are away those that were stopped, a bit each: the others have heard all that they had waited for.
    taken: u64,
    relics: Relics,
    /// Core 0's.
    book: Book,
}

impl Lend {
    pub(crate) fn new(limit: u32, pairs: u16, groups: u16, others: u16) -> Lend {
        Lend {
            limit,
            pairs,
            asked: false,
            leaves: false,
            out: false,
            stopped: false,
            dry: false,
            taken: 0,
            relics: Relics::default(),
            book: Book::new(groups, others),
        }
    }

    /// Whether the loop has to look here.
    pub(crate) fn has_work(&self) -> bool {
        self.asked || !self.relics.is_empty() || self.book.is_open()
    }

    /// Whether a core is away since it was stopped, as far as this one knows.
    pub(crate) fn is_taken(&self, core: CoreId) -> bool {
        self.taken >> core.0 & 1 != 0
    }

    /// Core 0: keeps an answer for a core that is away.
    pub(crate) fn keep(&mut self, to: CoreId, message: Message) {
        self.book.keep(to, message);
    }

    /// What is left of groups that were taken by force.
    pub(crate) fn relics(&self) -> impl Iterator<Item = &alloc::boxed::Box<crate::FlowGroup>> {
        self.relics.groups()
    }
}

impl Engine {
    /// Whether the loop has to look here, for whoever asks whether anything is under way.
    fn look_at_lend(&mut self) {
        let has_work = self.lend.has_work();
        self.moves.set_lending(has_work);
    }

    /// This core was told to leave, and has nothing left that anybody waits for: it is to be handed over now, between two
    /// iterations. Said once; [`Engine::come_back`] follows.
    pub fn take_leave(&mut self) -> bool {
        core::mem::take(&mut self.lend.leaves)
    }

    /// The core that has left runs again: it serves as soon as it was told what it has missed.
    pub fn come_back(&mut self) {
        self.stir();
        self.lend.out = true;
        self.tell(CoreId(0), Message::Back);
    }

    /// Whether this core was away and was not told yet what it has missed.
    pub fn is_out(&self) -> bool {
        self.lend.out
    }

    /// The next control message, and whose. A core that was stopped takes no part in anything before it is told what it has missed:
    /// it reads core 0's alone, whose earlier ones are of what has ended without it.
    pub(crate) fn next_message(&mut self) -> Option<(CoreId, Message)> {
        if !self.lend.stopped {
            return self.local.mesh.next_message();
        }
        while let Some(message) = self.local.mesh.next_message_of(CoreId(0)) {
            match message {
                // Somebody waits for these.
                Message::Sync(_) | Message::Outcome { .. } | Message::Rules(_) => {
                    return Some((CoreId(0), message));
                }
                Message::Group(group) => self.end_late(group),
                _ => {}
            }
        }
        None
    }

    /// A message about lending.
    pub(crate) fn lend_message(&mut self, from: CoreId, message: Message) {
        match message {
            Message::Presence { absent, taken, round } => {
                self.hear(absent, taken);
                let owned = self.claims();
                self.tell(from, Message::Heard { round, owned });
            }
            Message::Leave => {
                self.lend.asked = true;
                self.lend.dry = false;
                // Who has said that it sends nothing more may not have rung yet for what it had sent.
                self.local.mesh.heed(u64::MAX);
                self.look_at_lend();
            }
            Message::Sync(sync) => sync.into_iter().for_each(|sync| self.take_sync(sync)),
            Message::Afresh(afresh) => {
                for group in afresh.groups {
                    self.adopt(group);
                }
                for (group, owner, age) in afresh.owners {
                    self.hear_owner(group, owner, age);
                }
            }
            Message::Heard { round, owned } => self.heard(from, round, &owned),
            Message::Leaves => self.has_left(from),
            Message::Stays | Message::Back => self.returns(from),
            _ => debug_assert!(false, "not about lending: {message:?}"),
        }
    }

    /// At the quiescent point, while there is something to do. Whether anything was done.
    #[cold]
    pub(crate) fn run_lend(&mut self) -> bool {
        let mut busy = self.run_relics();
        if self.lend.asked {
            busy = true;
            self.leave_if_done();
        }
        if self.lend.book.is_open() {
            busy = true;
            self.go_on();
        }
        self.look_at_lend();
        busy
    }

    /// After the receive stage: whether queues and rings were empty.
    pub(crate) fn received_for_lend(&mut self, dry: bool) {
        self.lend.dry = dry;
    }

    /// Whoever was told to leave does when it has nothing left; one that got a group meanwhile stays.
    fn leave_if_done(&mut self) {
        if self.has_groups() {
            self.lend.asked = false;
            return self.tell(CoreId(0), Message::Stays);
        }
        let sent = !self.local.tx.has_staged() && self.local.pool.away() == 0;
        if self.moves.rest() && self.lend.dry && sent && !self.local.mesh.has_messages() {
            self.lend.asked = false;
            self.lend.leaves = true;
            self.tell(CoreId(0), Message::Leaves);
        }
    }

    /// Some cores are away: nobody waits for them, and nothing is sent to them. Of those that were `taken`, what they had sent
    /// before is taken first.
    fn hear(&mut self, absent: u64, taken: u64) {
        self.stir();
        let back = self.local.mesh.absent() & !absent;
        self.local.mesh.set_absent(absent);
        self.lend.taken = (self.lend.taken | taken) & absent;
        if back != 0 {
            self.local.pool.embark();
        }
        self.hear_out(taken);
        self.forget_absent();
    }

    /// Takes the last words of cores. Core 0 leaves requests for which there is no room.
    fn hear_out(&mut self, cores: u64) {
        for core in (0..self.local.cores).map(CoreId).filter(|core| cores >> core.0 & 1 != 0) {
            while self.may_take_message()
                && let Some(message) = self.local.mesh.next_message_of(core)
            {
                self.message(core, message);
            }
        }
    }

    /// Nothing goes to a core that is away, and no move waits for one that was stopped. One that leaves still does its part.
    fn forget_absent(&mut self) {
        let (absent, taken) = (self.local.mesh.absent(), self.lend.taken);
        let is = |core: CoreId| absent >> core.0 & 1 != 0;
        let is_taken = |core: CoreId| taken >> core.0 & 1 != 0;
        for group in (0..self.local.groups).map(GroupId) {
            match self.moves.get(group) {
                Some(Move::Leaving { to, told, .. }) if is(*to) => {
                    let told = told.is_some();
                    self.stay(group, told);
                }
                Some(Move::Draining { to, .. }) if is(*to) => self.stay(group, true),
                Some(Move::Flushing(flushing)) => {
                    flushing.unturned &= !taken;
                    if is_taken(flushing.to) && !flushing.told {
                        // The device turns with the group's next life.
                        self.tell_others(group, false);
                    }
                }
                Some(Move::Arriving(arriving))
                    if is_taken(arriving.from) && arriving.settled.is_none() =>
                {
                    let age = arriving.age;
                    self.settled(group, age);
                    self.tell_owned(group);
                }
                _ => {}
            }
        }
        if self.relief_to().is_some_and(is) {
            self.end_relief();
        }
        while let Some((to, message)) = self.moves.unsent(absent, taken) {
            match message {
                Message::Move { group, .. } => {
                    self.lend.has_answered(group, to);
                    self.moves.ended(group, ix_abi::Status::TimedOut);
                }
                Message::Group(_) => {
                    debug_assert!(false, "one goes only when there is room for it");
                }
                // It does not hear it, and so does not answer.
                Message::Owner { group, age, .. } => self.turned(group, to, age),
                // Somebody waits for it there.
                message @ Message::Outcome { .. } => self.lend.book.keep(to, message),
                _ => {}
            }
        }
        self.look_at_lend();
    }

    /// Everybody hears that a group is here: from whom it came may not have said so.
    fn tell_owned(&mut self, group: GroupId) {
        let (owner, age) = (self.local.core, self.local.ages[usize::from(group.0)]);
        for core in self.local.mesh.others() {
            self.tell(core, Message::Owner { group, owner, age });
        }
    }

    /// Groups that are here, or that this core has sent to one that was not stopped: if that one leaves, it finds the group first.
    fn claims(&mut self) -> crate::fifo::GroupSet {
        let mut claims = crate::fifo::GroupSet::default();
        for group in (0..self.local.groups).map(GroupId) {
            let sent = match self.moves.get(group) {
                Some(Move::Flushing(flushing)) => Some(flushing.to),
                _ => None,
            };
            if self.owns(group) || sent.is_some_and(|to| !self.lend.is_taken(to)) {
                claims.insert(group);
            }
        }
        claims
    }

    /// A group of which nothing is left begins here, empty.
    fn adopt(&mut self, mut group: alloc::boxed::Box<crate::FlowGroup>) {
        let id = group.id;
        if self.local.ages[usize::from(id.0)] > group.age {
            return;
        }
        self.local.stats.add(ix_abi::stats::Counter::GroupsIn, 1);
        group.app_ended = self.local.app_ended;
        group.addresses = self.local.v6.config.generations;
        let was_sent = matches!(self.moves.get(id), Some(Move::Flushing(_)));
        self.give_group(group);
        self.moves.set(id, Move::Rest);
        if was_sent {
            // It went from here to the core that was taken: that move is over.
            self.moved(id, ix_abi::Status::Ok);
        }
    }

    /// Another core says whose a group is. If it has begun afresh elsewhere, what is here of it is over.
    pub(crate) fn hear_owner(&mut self, group: GroupId, owner: CoreId, age: u64) {
        let Some(known) = self.local.ages.get_mut(usize::from(group.0)) else { return };
        if age <= *known {
            return;
        }
        if self.owns(group) && owner != self.local.core {
            self.end_by_force(group);
        }
        self.local.ages[usize::from(group.0)] = age;
        self.set_owner(group, owner);
    }
}
