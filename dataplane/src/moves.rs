//! Flow groups on the move: from the wish until nothing of the group is under way to its old owner.
//!
//! The old owner (`source`) tells the application, which reads `group_out`; stops sending for the group and waits until
//! the device has sent what it has; hands the group over by value; then forwards what still comes to it until
//! every other core, and the device, has turned to the new owner. The new owner (`target`) serves the group from the
//! hand-over on, and says so; only then all others are told whose it is, so that nobody's frames come before the group.
//! Frames that come through the old owner are older than those that come any other way: the latter
//! are held until the old owner says that it has forwarded its last. So nothing is lost and nothing is
//! overtaken, and what a move costs does not depend on what is in the group.
//!
//! Any number of groups move at the same time. A group that moves does not begin another move before this one is over.
pub(crate) mod relief;
pub(crate) mod source;
pub(crate) mod target;

use crate::device::RxFrame;
use crate::engine::Engine;
use crate::fifo::GroupSet;
use crate::limits::MOVE_EARLY_MAX;
use crate::local::Local;
use crate::message::Message;
use crate::time::Instant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::Drop;
use ix_abi::{CoreId, GroupId, Status};
pub use relief::{Grant, Wake, Woken};

/// What a core knows of a group that moves.
#[derive(Debug, Default)]
pub(crate) enum Move {
    /// It does not.
    #[default]
    Rest,
    /// The application is to consume `group_out`.
    Leaving {
        to: CoreId,
        /// Where the event ends in the ring, once it is written.
        told: Option<u32>,
        since: Instant,
    },
    /// What was staged is to be handed to the queue; then frames before `frame` are to leave.
    Draining {
        to: CoreId,
        /// See [`crate::tx::Tx::is_unstaged`].
        staged: u32,
        frame: Option<u32>,
        since: Instant,
    },
    /// It is the other's; others are to turn to it.
    Flushing(Flushing),
    /// It is ours; its old owner still forwards.
    Arriving(Arriving),
}

#[derive(Debug)]
pub(crate) struct Flushing {
    pub(crate) to: CoreId,
    /// The group's when it went.
    age: u64,
    /// The new owner has it, and all others were told.
    pub(crate) told: bool,
    /// Cores that have not turned, a bit each.
    pub(crate) unturned: u64,
    /// The device has turned.
    redirected: bool,
    /// What other cores had forwarded before they turned is forwarded after this sweep, and so it is.
    sweep: Option<u32>,
    mesh_is_swept: bool,
    /// What the device had delivered before it turned ends there, by [`Moves::taken`]; and it is forwarded.
    queue_end: Option<u64>,
    queue_is_swept: bool,
    since: Instant,
}

#[derive(Debug)]
pub(crate) struct Arriving {
    pub(crate) from: CoreId,
    /// The group's when it came.
    pub(crate) age: u64,
    /// Frames that came another way, oldest first; at most `limits::MOVE_HELD_MAX`.
    pub(crate) held: VecDeque<RxFrame>,
    /// The old owner has forwarded its last: where its frames end.
    pub(crate) settled: Option<u32>,
    since: Instant,
}

/// Where the device is to bring a group's frames; core 0's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The entry of the indirection table.
    pub group: GroupId,
    /// Whose queue it is to name.
    pub to: CoreId,
    /// Whose queue it has named, if that core has one.
    pub asker: CoreId,
    /// That core waits for it, since it has moved the group, which is as old as this.
    pub waits: Option<u64>,
}

/// A core's part in all moves.
#[derive(Debug)]
pub(crate) struct Moves {
    by_group: Box<[Move]>,
    /// Groups that do not rest.
    active: GroupSet,
    arriving: GroupSet,
    /// Frames that were quicker than the groups they are of; at most `limits::MOVE_EARLY_MAX`.
    early: VecDeque<(CoreId, RxFrame)>,
    /// Messages that wait for room.
    outbox: VecDeque<(CoreId, Message)>,
    redirects: VecDeque<Redirect>,
    outcomes: VecDeque<(GroupId, Status)>,
    woken: VecDeque<Woken>,
    /// Groups are given to a core that was woken.
    giving: bool,
    /// The device has an indirection table.
    rss: bool,
    /// Frames that this core has taken from its own queue while groups moved.
    taken: u64,
    /// Something is to be done for cores that are lent.
    lending: bool,
    /// What [`Moves::are_under_way`] says.
    under_way: bool,
}

impl Moves {
    pub(crate) fn new(groups: u16, rss: bool) -> Moves {
        Moves {
            by_group: (0..groups).map(|_| Move::Rest).collect(),
            active: GroupSet::default(),
            arriving: GroupSet::default(),
            // Room for all that can be under way at once: later there may be no memory.
            early: VecDeque::with_capacity(MOVE_EARLY_MAX),
            outbox: VecDeque::with_capacity(4 * usize::from(groups) + 64),
            redirects: VecDeque::with_capacity(2 * usize::from(groups)),
            outcomes: VecDeque::with_capacity(2 * usize::from(groups)),
            woken: VecDeque::with_capacity(CORES_MAX),
            giving: false,
            rss,
            taken: 0,
            lending: false,
            under_way: false,
        }
    }

    /// Whether any group moves, from here or to here, or a message waits.
    #[inline(always)]
    pub(crate) fn are_under_way(&self) -> bool {
        self.under_way
    }

    fn look(&mut self) {
        self.under_way = self.lending || !self.rest();
    }

    /// Whether no group moves and no message waits.
    pub(crate) fn rest(&self) -> bool {
        self.active.is_empty() && self.outbox.is_empty() && !self.has_early() && !self.giving
    }

    /// Whether something is to be done for cores that are lent.
    pub(crate) fn is_lending(&self) -> bool {
        self.lending
    }

    pub(crate) fn set_lending(&mut self, lending: bool) {
        self.lending = lending;
        self.look();
    }

    /// The oldest message that has not been sent and is not going to be: to cores that are `absent`; but what those wait for
    /// before they leave, only to such as were `taken`.
    pub(crate) fn unsent(&mut self, absent: u64, taken: u64) -> Option<(CoreId, Message)> {
        let is_moot = |(to, message): &(CoreId, Message)| {
            let cores = if message.ends_a_wait() { taken } else { absent };
            cores >> to.0 & 1 != 0
        };
        let at = self.outbox.iter().position(is_moot)?;
        let unsent = self.outbox.remove(at);
        self.look();
        unsent
    }

    /// Core 0: the device is to do so, if it has a table.
    pub(crate) fn turn(&mut self, redirect: Redirect) {
        if self.rss {
            self.redirects.push_back(redirect);
        }
    }

    /// Whether it has not done all that is to keep frames from a core's queue.
    pub(crate) fn redirects_for(&self, asker: CoreId) -> bool {
        self.redirects.iter().any(|redirect| redirect.asker == asker)
    }

    /// Core 0: a move is over, and nobody else says so.
    pub(crate) fn ended(&mut self, group: GroupId, status: Status) {
        self.outcomes.push_back((group, status));
    }

    /// Whether frames may have to be held.
    #[inline(always)]
    pub(crate) fn has_arrivals(&self) -> bool {
        !self.arriving.is_empty()
    }

    /// Receive buffers with frames that are held.
    pub(crate) fn held(&self) -> usize {
        let held = |m: &Move| match m {
            Move::Arriving(arriving) => arriving.held.len(),
            _ => 0,
        };
        self.by_group.iter().map(held).sum::<usize>() + self.early.len()
    }

    /// Whether a frame of the group, which its owner has sent to us, is of one that is on its way to us. If it went
    /// the other way just now, the owner had not heard of it.
    #[cold]
    pub(crate) fn is_early(&mut self, group: GroupId) -> bool {
        self.rests(group)
    }

    /// Keeps a frame of a group that its sender has given to us, of which we shall hear at the next quiescent point.
    #[cold]
    pub(crate) fn keep_early(&mut self, local: &mut Local, from: CoreId, frame: RxFrame) {
        if self.early.len() < MOVE_EARLY_MAX {
            self.early.push_back((from, frame));
            // The group is in its ring by now, but it may not have rung for it.
            local.mesh.heed(1 << from.0);
            return self.look();
        }
        local.stats.drop(Drop::SteerFull);
        local.pool.free(frame.mbuf);
        frame.rest.free(&mut local.pool);
    }

    /// Whether there are such frames.
    #[inline(always)]
    pub(crate) fn has_early(&self) -> bool {
        !self.early.is_empty()
    }

    /// Whether the group does not move.
    fn rests(&mut self, group: GroupId) -> bool {
        matches!(self.get(group), Some(Move::Rest))
    }

    /// Groups that leave and are still here.
    fn leaving(&self) -> usize {
        let leaves = |m: &&Move| matches!(m, Move::Leaving { .. } | Move::Draining { .. });
        self.by_group.iter().filter(leaves).count()
    }

    pub(crate) fn get(&mut self, group: GroupId) -> Option<&mut Move> {
        self.by_group.get_mut(usize::from(group.0))
    }

    pub(crate) fn set(&mut self, group: GroupId, state: Move) {
        match state {
            Move::Rest => self.active.remove(group),
            _ => self.active.insert(group),
        }
        match state {
            Move::Arriving(_) => self.arriving.insert(group),
            _ => self.arriving.remove(group),
        }
        if let Some(place) = self.get(group) {
            *place = state;
        }
        self.look();
    }

    pub(crate) fn keep(&mut self, to: CoreId, message: Message) {
        self.outbox.push_back((to, message));
        self.look();
    }
}

impl Engine {
    /// Core 0: a group is to go to core `to`, wherever it is. [`Engine::move_outcome`] tells what became of it.
    pub fn move_group(&mut self, group: GroupId, to: CoreId) {
        self.stir();
        match self.owner(group) {
            Some(owner) if to.0 < self.local.cores => {
                self.lend.has_asked(group, owner);
                self.tell(owner, Message::Move { group, to });
            }
            _ => self.moved(group, Status::Invalid),
        }
    }

    /// Core 0: the next move that is over, and how it ended: `Ok`; `Again`, since the group was moving already;
    /// `TimedOut`, since the application did not let go of it, or the device not of its frames: then it has stayed.
    pub fn move_outcome(&mut self) -> Option<(GroupId, Status)> {
        self.moves.outcomes.pop_front()
    }

    /// Core 0: what the device's indirection table is to say. The same until [`Engine::redirected`] is called.
    pub fn redirect(&self) -> Option<Redirect> {
        self.moves.redirects.front().copied()
    }

    /// Core 0: the device has done what [`Engine::redirect`] says, or cannot.
    pub fn redirected(&mut self) {
        self.stir();
        let done = self.moves.redirects.pop_front();
        if let Some(Redirect { group, asker, waits: Some(age), .. }) = done {
            self.tell(asker, Message::Redirected { group, age });
        }
    }

    /// Whose a group is, as far as this core knows.
    pub fn owner(&self, group: GroupId) -> Option<CoreId> {
        self.local.owners.get(usize::from(group.0)).copied()
    }

    /// Whether no group is on its way from or to this core.
    pub fn is_settled(&self) -> bool {
        !self.moves.are_under_way()
    }

    /// Sends a message, to this core as well; later if there is no room.
    pub(crate) fn tell(&mut self, to: CoreId, message: Message) {
        if to == self.local.core {
            return self.message(to, message);
        }
        // It is told who owns what when it returns; one that leaves does so only when it has its answers.
        let is_moot = match message {
            Message::Owner { .. } | Message::Serve => self.local.mesh.is_absent(to),
            _ => message.ends_a_wait() && self.lend.is_taken(to),
        };
        if is_moot {
            return;
        }
        // Messages of one pair of cores keep their order.
        if !self.moves.outbox.is_empty() {
            return self.moves.keep(to, message);
        }
        if let Err(message) = self.local.mesh.send(to, message) {
            self.moves.keep(to, message);
        }
    }

    /// A message about a move.
    pub(crate) fn move_message(&mut self, from: CoreId, message: Message) {
        match message {
            Message::Move { group, to } => self.begin_move(group, to),
            Message::Moved { group, status } => {
                self.lend.has_answered(group, from);
                self.moves.outcomes.push_back((group, status));
            }
            Message::Group(group) => self.arrive(from, group),
            Message::Owner { group, owner, age } => {
                self.hear_owner(group, owner, age);
                self.tell(from, Message::Turned { group, age });
            }
            Message::Turned { group, age } => self.turned(group, from, age),
            Message::Settled { group, age } => self.settled(group, age),
            Message::Redirect { group, to, age } => {
                let redirect = Redirect { group, to, asker: from, waits: Some(age) };
                self.moves.redirects.push_back(redirect);
            }
            Message::Redirected { group, age } => self.device_turned(group, age),
            Message::Serve => self.called(),
            Message::Woken { core } => self.moves.woken.push_back(Woken { core, by: from }),
            about_lending => self.lend_message(from, about_lending),
        }
    }

    pub(crate) fn moved(&mut self, group: GroupId, status: Status) {
        self.tell(CoreId(0), Message::Moved { group, status });
    }

    /// At the quiescent point, while any group moves.
    #[cold]
    pub(crate) fn run_moves(&mut self) {
        while let Some((to, message)) = self.moves.outbox.pop_front() {
            if let Err(message) = self.local.mesh.send(to, message) {
                self.moves.outbox.push_front((to, message));
                break;
            }
        }
        if self.moves.giving {
            self.give_on();
        }
        let mut from = 0;
        while let Some(group) = self.moves.active.next(from) {
            from = usize::from(group.0) + 1;
            self.leave(group);
        }
        self.moves.look();
    }

    /// Takes the frames that came before their groups.
    #[cold]
    pub(crate) fn take_early(&mut self) {
        // Its old owner sends a group before its frames: once all messages are read, one that is not here does not come. It
        // has gone the other way, and so do they.
        let all_heard = !self.local.mesh.has_messages();
        // What is early still is put behind them.
        for _ in 0..self.moves.early.len() {
            if let Some((from, frame)) = self.moves.early.pop_front() {
                self.local.forwarded_by = Some(from).filter(|_| !all_heard);
                self.take_guarded(frame, Some(from));
            }
        }
    }

    /// After the receive stage, while any group moves: how many frames were taken from the queue, how many it has still, and
    /// whether none of other cores are left.
    #[cold]
    pub(crate) fn received_for_moves(&mut self, taken: usize, waiting: usize, mesh_is_dry: bool) {
        self.moves.taken += taken as u64;
        self.received_for_lend(waiting == 0 && mesh_is_dry);
        let mut from = 0;
        while let Some(group) = self.moves.active.next(from) {
            from = usize::from(group.0) + 1;
            self.flush(group, waiting as u64);
            self.release(group);
        }
    }
}
