//! Core 0's book of who is there. Each change is a round; a change while a round is under way begins another. When all have
//! answered, nobody sends anything to a core that leaves, groups that nobody has begin afresh, and who is back
//! is told what it has missed.
use super::Lend;
use crate::engine::Engine;
use crate::fifo::GroupSet;
use crate::group::FlowGroup;
use crate::limits::REQUESTS_MAX;
use crate::message::Message;
use crate::moves::Redirect;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use ix_abi::limits::CORES_MAX;
use ix_abi::{CoreId, GroupId, Status};

/// Whether a core is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    #[default]
    Here,
    /// It was asked to leave.
    Leaving,
    /// It has left.
    Away,
    /// It was stopped.
    Taken,
    /// It is back, and is about to be told what it has missed.
    Returning,
}

/// Groups that begin afresh.
#[derive(Debug)]
pub struct Afresh {
    /// Whose they are, and how old that is.
    pub(super) owners: Vec<(GroupId, CoreId, u64)>,
    /// The receiver's.
    #[allow(clippy::vec_box, reason = "each goes to its place as it is, and stays there")]
    pub(super) groups: Vec<Box<FlowGroup>>,
}

#[derive(Debug)]
pub(super) struct Book {
    states: [Presence; CORES_MAX],
    round: u32,
    /// A round is under way, or something is to be done after it.
    open: bool,
    /// Cores that have not answered, a bit each.
    unheard: u64,
    /// Groups that somebody has.
    claimed: GroupSet,
    /// Cores whose groups are to begin afresh, a bit each.
    bereft: u64,
    /// Where.
    heirs: u64,
    /// Cores that leave and were not told to, a bit each.
    untold: u64,
    /// Whom a group's move was asked of.
    asked: Box<[Option<CoreId>]>,
    /// Messages for cores that are away, which somebody waits for there: at most `limits::REQUESTS_MAX` for each.
    kept: VecDeque<(CoreId, Message)>,
}

impl Book {
    /// A book about so many groups and other cores; those who do not keep one have none of the latter.
    pub(super) fn new(groups: u16, others: u16) -> Book {
        Book {
            states: [Presence::Here; CORES_MAX],
            round: 0,
            open: false,
            unheard: 0,
            claimed: GroupSet::default(),
            bereft: 0,
            heirs: 0,
            untold: 0,
            asked: (0..groups).map(|_| None).collect(),
            // Room for all: later there may be no memory.
            kept: VecDeque::with_capacity(usize::from(others) * REQUESTS_MAX),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    fn all(&self, is: impl Fn(Presence) -> bool) -> u64 {
        let ours = self.states.iter().enumerate().filter(|(_, state)| is(**state));
        ours.fold(0, |cores, (core, _)| cores | 1 << core)
    }

    pub(super) fn keep(&mut self, to: CoreId, message: Message) {
        self.kept.push_back((to, message));
    }

    /// The oldest that is kept for a core.
    pub(super) fn kept_for(&mut self, core: CoreId) -> Option<Message> {
        let at = self.kept.iter().position(|(to, _)| *to == core)?;
        self.kept.remove(at).map(|(_, message)| message)
    }
}

impl Lend {
    /// Core 0: cores that nobody is to send anything, a bit each.
    pub(super) fn absent(&self) -> u64 {
        self.book.all(|state| !matches!(state, Presence::Here | Presence::Returning))
    }

    /// Core 0 has given a group to a core that is there. In a round, that one may have said already what it has, and this one
    /// says so last, when the move may be over.
    pub(crate) fn has_given(&mut self, group: GroupId) {
        self.book.claimed.insert(group);
    }

    /// Core 0 has asked a core to move a group.
    pub(crate) fn has_asked(&mut self, group: GroupId, of: CoreId) {
        if let Some(asked) = self.book.asked.get_mut(usize::from(group.0)) {
            *asked = Some(of);
        }
    }

    /// It has answered.
    pub(crate) fn has_answered(&mut self, group: GroupId, from: CoreId) {
        if let Some(asked) = self.book.asked.get_mut(usize::from(group.0))
            && *asked == Some(from)
        {
            *asked = None;
        }
    }
}

impl Engine {
    /// Core 0: whether a core is there.
    pub fn presence(&self, core: CoreId) -> Presence {
        self.lend.book.states.get(usize::from(core.0)).copied().unwrap_or_default()
    }

    /// Core 0: a core that has no flow groups is to leave. [`Engine::presence`] says when it has. `InUse`: it has groups;
    /// `State`: it is not there; `Invalid`: there is no such core, or it is core 0, which never leaves.
    pub fn send_away(&mut self, core: CoreId) -> Status {
        if core.0 == 0 || core.0 >= self.local.cores {
            return Status::Invalid;
        }
        if self.presence(core) != Presence::Here {
            return Status::State;
        }
        if self.local.owners.contains(&core) {
            return Status::InUse;
        }
        self.evict(core);
        self.lend.book.states[usize::from(core.0)] = Presence::Leaving;
        self.lend.book.untold |= 1 << core.0;
        self.begin_round();
        Status::Ok
    }

    /// Core 0: a core was stopped wherever it was, and may never come back. Its groups go on, empty, on the cores of
    /// `heirs`, a bit each; when it runs again it has to call [`Engine::give_up`]. Statuses as of [`Engine::send_away`].
    pub fn take_away(&mut self, core: CoreId, heirs: u64) -> Status {
        if core.0 == 0 || core.0 >= self.local.cores {
            return Status::Invalid;
        }
        if matches!(self.presence(core), Presence::Away | Presence::Taken) {
            return Status::State;
        }
        self.lend.book.states[usize::from(core.0)] = Presence::Taken;
        self.lend.book.bereft |= 1 << core.0;
        self.lend.book.untold &= !(1 << core.0);
        self.lend.book.heirs = heirs;
        self.acl.forget(core);
        self.begin_round();
        Status::Ok
    }

    /// Core 0: a core that was asked to leave and has not is to stay.
    pub fn recall(&mut self, core: CoreId) {
        if self.presence(core) == Presence::Leaving {
            self.returns(core);
        }
    }

    /// Everybody is to hear who is there.
    fn begin_round(&mut self) {
        self.stir();
        let absent = self.lend.absent();
        let book = &mut self.lend.book;
        // What core 0 has to say to those is in what they are told first.
        let returning = book.all(|state| state == Presence::Returning);
        let taken = book.all(|state| state == Presence::Taken);
        let ears = book.all(|state| matches!(state, Presence::Here | Presence::Leaving));
        book.round = book.round.wrapping_add(1);
        book.open = true;
        book.claimed = GroupSet::default();
        let all = (0..self.local.cores).fold(0, |all, core| all | 1u64 << core);
        book.unheard = ears & all & !1;
        let (round, unheard) = (book.round, book.unheard);
        self.hear(absent | returning, taken);
        for core in (1..self.local.cores).map(CoreId).filter(|core| unheard >> core.0 & 1 != 0) {
            self.tell(core, Message::Presence { absent, taken, round });
        }
        self.look_at_lend();
    }

    pub(super) fn heard(&mut self, from: CoreId, round: u32, owned: &GroupSet) {
        let book = &mut self.lend.book;
        if round == book.round {
            book.unheard &= !(1 << from.0);
            book.claimed.insert_all(owned);
        }
    }

    pub(super) fn has_left(&mut self, core: CoreId) {
        let before = core::mem::replace(
            &mut self.lend.book.states[usize::from(core.0) % CORES_MAX],
            Presence::Away,
        );
        // It was called back, and has not heard it in time.
        if before != Presence::Leaving {
            self.begin_round();
        }
    }

    pub(super) fn returns(&mut self, core: CoreId) {
        self.lend.book.states[usize::from(core.0) % CORES_MAX] = Presence::Returning;
        self.lend.book.untold &= !(1 << core.0);
        self.begin_round();
    }

    /// While a round is under way, or something is to be done after it.
    pub(super) fn go_on(&mut self) {
        if self.lend.book.unheard != 0 {
            return;
        }
        let bereft = self.lend.book.bereft;
        if bereft != 0 {
            self.hear_out(bereft);
            if !self.may_take_message() {
                // Of what they said last, something may be left.
                return;
            }
            self.begin_afresh();
        }
        let mut waits = false;
        for core in (1..self.local.cores).map(CoreId) {
            if self.lend.book.untold >> core.0 & 1 != 0 && !self.moves.redirects_for(core) {
                self.lend.book.untold &= !(1 << core.0);
                self.tell(core, Message::Leave);
            }
            if self.presence(core) == Presence::Returning {
                if self.bring_up_to_date(core) {
                    self.lend.book.states[usize::from(core.0)] = Presence::Here;
                    let others = self.local.mesh.absent() & !(1 << core.0);
                    self.hear(others, 0);
                } else {
                    waits = true;
                }
            }
        }
        self.lend.book.open = self.lend.book.untold != 0 || waits;
    }

    /// All groups that no core has.
    fn begin_afresh(&mut self) {
        let own = self.claims();
        let book = &mut self.lend.book;
        book.claimed.insert_all(&own);
        let claimed = book.claimed;
        let bereft = core::mem::take(&mut book.bereft);
        let is_bereft = |core: CoreId| bereft >> core.0 & 1 != 0;
        let owner =
            |group: GroupId, local: &crate::local::Local| local.owners[usize::from(group.0)];
        let mut orphans = Vec::new();
        for group in (0..self.local.groups).map(GroupId) {
            if !claimed.contains(group) {
                orphans.push((group, owner(group, &self.local)));
            }
        }
        for core in (1..self.local.cores).map(CoreId).filter(|core| is_bereft(*core)) {
            let area = self.local.pool.area();
            area.orphan(core, |group| orphans.contains(&(group, core)));
        }
        let heirs = self.heirs();
        let given =
            orphans.iter().enumerate().map(|(at, (group, _))| (*group, heirs[at % heirs.len()]));
        let given: Vec<_> = given.collect();
        self.give_afresh(&given);
        for core in (1..self.local.cores).map(CoreId).filter(|core| is_bereft(*core)) {
            self.evict(core);
        }
        for group in (0..self.local.groups).map(GroupId) {
            let asked = &mut self.lend.book.asked[usize::from(group.0)];
            if asked.is_some_and(is_bereft) {
                *asked = None;
                let status = if claimed.contains(group) { Status::Ok } else { Status::TimedOut };
                self.moves.ended(group, status);
            }
        }
    }

    fn heirs(&self) -> Vec<CoreId> {
        let there = |core: &CoreId| {
            self.lend.book.heirs >> core.0 & 1 != 0 && self.presence(*core) == Presence::Here
        };
        let mut heirs: Vec<_> = (0..self.local.cores).map(CoreId).filter(there).collect();
        if heirs.is_empty() {
            heirs.push(CoreId(0));
        }
        heirs
    }

    /// Tells all who are there whose these groups are from now on, and gives them: a message for each core, since many may have
    /// no room.
    fn give_afresh(&mut self, groups: &[(GroupId, CoreId)]) {
        let local = &self.local;
        let age = |group: GroupId| ((local.ages[usize::from(group.0)] >> 32) + 1) << 32;
        let owners: Vec<_> =
            groups.iter().map(|(group, heir)| (*group, *heir, age(*group))).collect();
        let (limit, count, now) = (self.lend.limit, local.groups, local.now);
        let unfolding = local.unfolding();
        let others: Vec<_> = local.mesh.others().collect();
        for core in others.into_iter().chain([local.core]) {
            let ours = owners.iter().filter(|(_, heir, _)| *heir == core);
            let fresh = |(group, _, age): &(GroupId, CoreId, u64)| {
                Box::new(FlowGroup::afresh(*group, limit, count, now, *age, unfolding))
            };
            let groups = ours.map(fresh).collect();
            let owners = owners.clone();
            self.tell(core, Message::Afresh(Box::new(Afresh { owners, groups })));
        }
    }

    /// No group's frames go to that core's queue: where their owner has none, core 0 forwards them.
    fn evict(&mut self, core: CoreId) {
        for group in (0..self.local.groups).map(GroupId) {
            let owner = self.local.owners[usize::from(group.0)];
            let to = if owner.0 < self.lend.pairs { owner } else { CoreId(0) };
            self.moves.turn(Redirect { group, to, asker: core, waits: None });
        }
    }
}
