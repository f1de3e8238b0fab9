//! A congested core wakes a parked one that it has been granted, and gives it about half of its load, without asking
//! anybody: when frames have waited for longer than the grant says, for as long as it says.
//!
//! What is late is seen before anything is done about it: the poll that finds it takes a single frame then, and so do the next
//! ones, until the first groups are handed over and a frame has followed them. Else what a full batch costs would stand
//! between the decision and its effect.
use crate::engine::Engine;
use crate::limits::{RELIEF_CALL_MAX, RELIEF_FIRST, RELIEF_HURRY_MAX, RELIEF_ROUND};
use crate::message::Message;
use crate::time::Instant;
use ix_abi::stats::Counter;
use ix_abi::{CoreId, GroupId};

/// Leave to wake a parked core, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Which.
    pub to: CoreId,
    /// When frames have waited for longer than this …
    pub delay_ns: u64,
    /// … at every poll that finds any, for so long.
    pub after_ns: u64,
}

/// A core was woken; for core 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Woken {
    /// Which.
    pub core: CoreId,
    /// By which.
    pub by: CoreId,
}

/// The last time that this core has woken another, or was woken, for whoever looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wake {
    /// How often it has woken one.
    pub count: u64,
    /// The last one.
    pub to: u16,
    /// How long a frame had waited then.
    pub delay_ns: u64,
    /// For how long that had been so.
    pub late_ns: u64,
    /// The beginning of the iteration that found it.
    pub began_ns: u64,
    /// The end of the one that sent the first frame after the first group; 0: not yet, or none came.
    pub given_ns: u64,
    /// This core was woken: the beginning of the iteration that got the first group.
    pub taken_ns: u64,
    /// The end of the one that has served the first frame.
    pub served_ns: u64,
}

/// What is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Rest,
    /// Groups go to another core.
    Giving(Giving),
    /// We were called, and have no group yet.
    Called,
    /// We have one, and no frame yet.
    Taken,
    /// A frame is being served.
    Serving,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Giving {
    to: CoreId,
    /// Load that is still to go.
    load: u64,
    /// Groups without load that are still to go.
    idle: usize,
    /// Iterations with small polls; `None`: that is over.
    hurry: Option<u32>,
    /// The first group.
    first: GroupId,
    /// Frames that had been steered to others when it went.
    steered: Option<u64>,
}

/// A core's part.
#[derive(Debug, Default)]
pub(crate) struct Relief {
    grant: Option<Grant>,
    /// Since when polls find frames that are late.
    since: Option<u64>,
    state: State,
    /// We were called, and the platform does not know.
    called: bool,
    called_at: Instant,
    /// The bound of polls that is wanted, while it is another.
    bound: Option<usize>,
}

impl Engine {
    /// Leave to wake a core, or none. To be said again about every millisecond: one grant serves once.
    pub fn set_grant(&mut self, grant: Option<Grant>) {
        let me = self.local.core;
        let cores = self.local.cores;
        let grant = grant.filter(|grant| grant.to != me && grant.to.0 < cores);
        self.end_call();
        if self.relief.state != State::Rest {
            return;
        }
        if grant.is_none() {
            self.forget_lateness();
        }
        self.relief.grant = grant;
        if self.relief.since.is_none() {
            self.local.measure.alarm = grant.map_or(u64::MAX, |grant| grant.delay_ns);
        }
    }

    /// Whether another core has called this one since the last question: it serves from now on.
    pub fn take_call(&mut self) -> bool {
        core::mem::take(&mut self.relief.called)
    }

    /// Whether this core has flow groups, or gets some.
    pub fn has_groups(&self) -> bool {
        self.groups.iter().any(Option::is_some)
    }

    /// Core 0: the next core that was woken.
    pub fn woken(&mut self) -> Option<Woken> {
        self.moves.woken.pop_front()
    }

    /// We were called long ago, and nothing came.
    fn end_call(&mut self) {
        let now = self.local.now;
        let waits = matches!(self.relief.state, State::Called | State::Taken | State::Serving);
        if waits && now.since(self.relief.called_at) > RELIEF_CALL_MAX {
            self.relief.state = State::Rest;
            self.local.measure.alarm = u64::MAX;
            self.local.measure.force(false);
        }
    }

    fn forget_lateness(&mut self) {
        self.relief.since = None;
        self.local.measure.force(false);
        self.take_full_batches();
    }

    /// The iteration before was longer than the alarm allows, or frames are known to be late.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_late(&mut self) {
        let now = self.local.now.0;
        if self.relief.state == State::Serving {
            self.local.measure.wake.served_ns = now;
            self.local.measure.alarm = u64::MAX;
            self.relief.state = State::Rest;
            return;
        }
        let Some(grant) = self.relief.grant else {
            self.local.measure.alarm = u64::MAX;
            return;
        };
        // The next poll tells whether there are frames, and calls `judge`.
        self.local.measure.force(true);
        let since = self.relief.since.unwrap_or(now);
        if now.saturating_sub(since) >= grant.after_ns {
            self.take_small_batches();
        }
    }

    /// A poll was looked at closely: so many frames were there, or are.
    #[cold]
    pub(crate) fn judge(&mut self, frames: usize) {
        let Some(grant) = self.relief.grant else { return };
        let (now, delay) = (self.local.now.0, self.local.measure.oldest_ns(self.local.now));
        if frames == 0 || delay <= grant.delay_ns {
            self.local.measure.alarm = grant.delay_ns;
            return self.forget_lateness();
        }
        let since = *self.relief.since.get_or_insert(now);
        // Each iteration looks from now on.
        self.local.measure.alarm = 0;
        let late_ns = now.saturating_sub(since);
        if late_ns >= grant.after_ns {
            self.relieve(grant, delay, late_ns);
        }
    }

    /// Wakes the core and begins to give.
    fn relieve(&mut self, grant: Grant, delay_ns: u64, late_ns: u64) {
        self.relief.grant = None;
        self.relief.since = None;
        self.local.measure.alarm = u64::MAX;
        self.local.measure.force(false);
        let (mut load, mut idle) = (0, 0);
        for group in self.groups.iter().flatten() {
            match self.local.measure.loads.now(group.id, group.frames) {
                0 => idle += 1,
                frames => load += frames,
            }
        }
        let mut giving = Giving {
            to: grant.to,
            load: load / 2,
            idle: idle / 2,
            hurry: Some(0),
            first: GroupId(0),
            steered: None,
        };
        let Some(first) = self.heaviest(giving.load) else {
            // All of it is one group's: elsewhere it would be as late.
            return self.take_full_batches();
        };
        self.stir();
        giving.first = first;
        let wake = &mut self.local.measure.wake;
        wake.count += 1;
        (wake.to, wake.delay_ns, wake.late_ns) = (grant.to.0, delay_ns, late_ns);
        (wake.began_ns, wake.given_ns) = (self.local.now.0, 0);
        self.tell(grant.to, Message::Serve);
        self.tell(CoreId(0), Message::Woken { core: grant.to });
        self.relief.state = State::Giving(giving);
        self.moves.giving = true;
        self.take_small_batches();
        self.give(RELIEF_FIRST);
        self.run_moves();
    }

    /// Of the groups that rest here, the one with the most frames, but for those with none and with more than `most`.
    fn heaviest(&mut self, most: u64) -> Option<GroupId> {
        let Engine { groups, moves, local, .. } = self;
        let mut best = (0, None);
        for group in groups.iter().flatten() {
            let load = local.measure.loads.now(group.id, group.frames);
            if load > best.0 && load <= most && moves.rests(group.id) {
                best = (load, Some(group.id));
            }
        }
        best.1
    }

    fn an_idle_one(&mut self) -> Option<GroupId> {
        let Engine { groups, moves, local, .. } = self;
        let mut idle = |id, frames| local.measure.loads.now(id, frames) == 0 && moves.rests(id);
        groups.iter().flatten().find(|group| idle(group.id, group.frames)).map(|group| group.id)
    }

    /// Lets groups go until `count` do.
    fn give(&mut self, count: usize) {
        let State::Giving(mut giving) = self.relief.state else { return };
        while self.moves.leaving() < count {
            let group = if let Some(group) = self.heaviest(giving.load) {
                let frames = self.groups[usize::from(group.0)].as_ref().map_or(0, |g| g.frames);
                giving.load -= self.local.measure.loads.now(group, frames);
                group
            } else if giving.idle > 0
                && let Some(group) = self.an_idle_one()
            {
                giving.idle -= 1;
                group
            } else {
                (giving.load, giving.idle) = (0, 0);
                break;
            };
            self.begin_move(group, giving.to);
        }
        self.relief.state = State::Giving(giving);
    }

    /// At the quiescent point, while groups are given.
    pub(super) fn give_on(&mut self) {
        let State::Giving(mut giving) = self.relief.state else { return };
        if let Some(turns) = giving.hurry {
            let steered = self.local.stats.get(Counter::RxSteeredOut);
            match giving.steered {
                None if !self.owns(giving.first) => giving.steered = Some(steered),
                Some(before) if steered != before => {
                    self.local.measure.wake.given_ns = self.local.now.0;
                    giving.hurry = None;
                }
                _ => giving.hurry = Some(turns + 1).filter(|turns| *turns < RELIEF_HURRY_MAX),
            }
            if giving.hurry.is_none() {
                self.take_full_batches();
            }
            self.relief.state = State::Giving(giving);
        }
        if giving.hurry.is_none() {
            self.give(RELIEF_ROUND);
        }
        let State::Giving(Giving { load: 0, idle: 0, hurry: None, .. }) = self.relief.state else {
            return;
        };
        self.relief.state = State::Rest;
        self.moves.giving = false;
        self.moves.look();
    }

    fn take_small_batches(&mut self) {
        if self.relief.bound.is_none() {
            self.relief.bound = Some(self.rx_batch);
            self.rx_batch = 1;
        }
    }

    pub(crate) fn take_full_batches(&mut self) {
        if let Some(bound) = self.relief.bound.take() {
            self.rx_batch = bound;
        }
    }

    /// The bound that was asked for is another: at once, or when polls may take so many again.
    pub(crate) fn set_bound(&mut self, frames: usize) {
        match &mut self.relief.bound {
            Some(bound) => *bound = frames,
            None => self.rx_batch = frames,
        }
        self.local.measure.set_bound(frames);
    }

    /// Another core calls us.
    pub(super) fn called(&mut self) {
        self.relief.called = true;
        if self.relief.state == State::Rest {
            self.relief.state = State::Called;
            self.relief.called_at = self.local.now;
            let wake = &mut self.local.measure.wake;
            (wake.taken_ns, wake.served_ns) = (0, 0);
        }
    }

    /// A group has come.
    pub(super) fn taken(&mut self, now: Instant) {
        if self.relief.state == State::Called {
            self.relief.state = State::Taken;
            self.local.measure.wake.taken_ns = now.0;
            // The first frame is to be told.
            self.local.measure.force(true);
        }
    }

    /// A frame of another core has been taken.
    #[cold]
    pub(crate) fn served_some(&mut self) {
        if self.relief.state == State::Taken {
            self.relief.state = State::Serving;
            self.local.measure.force(false);
            self.local.measure.alarm = 0;
        }
    }
}
