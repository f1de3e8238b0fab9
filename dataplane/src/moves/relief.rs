//! A congested core wakes a parked one that it has been granted, and gives it about half of its load, without asking
//! anybody: when frames have waited for longer than the grant says, for as long as it says.
//!
//! The poll that finds them late is not processed before the first groups have gone, and what it has for those goes
//! after them first. Else what a full batch costs would stand between the decision and its effect.
use super::Move;
use super::target::group_of_frame;
use crate::device::{RxBatch, RxFrame};
use crate::engine::Engine;
use crate::fifo::GroupSet;
use crate::limits::{RELIEF_CALL_MAX, RELIEF_HURRY, RELIEF_ROUND};
use crate::message::Message;
use crate::time::Instant;
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
    /// When the first frames had been sent after the first group; 0: not yet, or none waited.
    pub given_ns: u64,
    /// How long it had waited in between until the device had sent what was sent before.
    pub waited_ns: u64,
    /// This core was woken: the beginning of the iteration that got the first group.
    pub taken_ns: u64,
    /// The end of that iteration.
    pub took_ns: u64,
    /// The beginning of the one that found the first frame for it.
    pub found_ns: u64,
    /// When the application had served the first frame, and what it called for it was executed.
    pub served_ns: u64,
}

/// What is under way.
#[derive(Clone, Copy, Debug, Default)]
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

#[derive(Clone, Copy, Debug)]
struct Giving {
    to: CoreId,
    /// What is received is held until the first group has gone, and until when at most; `None`: that is over.
    hurry: Option<u64>,
    /// The first group, and its load.
    first: (GroupId, u64),
    /// Since when only the device keeps it.
    drains: Option<u64>,
    /// The others that are to go.
    rest: GroupSet,
}

/// What is to be done with what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hurry {
    /// The usual.
    No,
    /// It waits.
    Hold,
    /// What is of this group goes first.
    Over(GroupId),
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
}

impl Engine {
    /// Leave to wake a core, or none. To be said again about every millisecond: one grant serves once.
    pub fn set_grant(&mut self, grant: Option<Grant>) {
        let me = self.local.core;
        let cores = self.local.cores;
        let absent = self.local.mesh.absent();
        let grant = grant
            .filter(|grant| grant.to != me && grant.to.0 < cores && absent >> grant.to.0 & 1 == 0);
        self.end_call();
        if !matches!(self.relief.state, State::Rest) {
            return;
        }
        if grant.is_none() {
            self.forget_lateness();
        }
        self.relief.grant = grant;
        if self.relief.since.is_none() {
            self.local.measure.set_alarm(grant.map_or(u64::MAX, |grant| grant.delay_ns));
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
            self.local.measure.set_alarm(u64::MAX);
            self.local.measure.force(false);
        }
    }

    /// To whom groups are given, or may be.
    pub(crate) fn relief_to(&self) -> Option<CoreId> {
        match self.relief.state {
            State::Giving(giving) => Some(giving.to),
            _ => self.relief.grant.map(|grant| grant.to),
        }
    }

    /// Nothing is given to anybody, and nobody calls.
    #[cold]
    pub(crate) fn end_relief(&mut self) {
        self.relief = Relief::default();
        self.moves.giving = false;
        self.moves.look();
        self.local.measure.set_alarm(u64::MAX);
        self.local.measure.force(false);
    }

    fn forget_lateness(&mut self) {
        self.relief.since = None;
        self.local.measure.force(false);
    }

    /// The iteration before was longer than the alarm allows, or frames are known to be late.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_late(&mut self) {
        let wake = &mut self.local.measure.wake;
        if wake.taken_ns != 0 && wake.took_ns == 0 {
            wake.took_ns = self.local.now.0;
        }
        if self.relief.grant.is_none() {
            self.local.measure.set_alarm(u64::MAX);
            return;
        }
        // The next poll tells whether there are frames, and calls `judge`.
        self.local.stir();
        self.local.measure.force(true);
    }

    /// A poll was looked at closely: so many frames were there, or are, some of them in `batch`.
    #[cold]
    pub(crate) fn judge(&mut self, frames: usize, batch: &RxBatch) {
        let Some(grant) = self.relief.grant else { return };
        let delay = self.local.measure.oldest_ns(self.local.now);
        if frames == 0 || delay <= grant.delay_ns {
            self.local.measure.set_alarm(grant.delay_ns);
            return self.forget_lateness();
        }
        let now = self.local.now.0;
        let since = *self.relief.since.get_or_insert(now);
        // Each iteration looks from now on.
        self.local.measure.set_alarm(0);
        let late_ns = now.saturating_sub(since);
        if late_ns >= grant.after_ns {
            self.relieve(grant, delay, late_ns, batch);
        }
    }

    /// Wakes the core and begins to give.
    fn relieve(&mut self, grant: Grant, delay_ns: u64, late_ns: u64, batch: &RxBatch) {
        self.relief.grant = None;
        self.relief.since = None;
        self.local.measure.set_alarm(u64::MAX);
        self.local.measure.force(false);
        let half = self.load() / 2;
        let groups = (0..self.local.groups).map(GroupId);
        if groups.filter(|id| self.moves.rests(*id) && self.owns(*id)).nth(1).is_none() {
            // A core without groups serves nobody, not even its application.
            return;
        }
        // Of a frame that waits, so that one follows at once.
        let waits = batch.iter().find_map(|frame| self.may_go(frame, half));
        let Some(first) = waits.or_else(|| self.heaviest(half)) else {
            // All of it is one group's: elsewhere it would be as late.
            return;
        };
        self.stir();
        let now = self.local.now.0;
        let giving = Giving {
            to: grant.to,
            hurry: Some(now + RELIEF_HURRY.0),
            first: (first, self.load_of(first)),
            drains: None,
            rest: GroupSet::default(),
        };
        let wake = &mut self.local.measure.wake;
        wake.count += 1;
        (wake.to, wake.delay_ns, wake.late_ns) = (grant.to.0, delay_ns, late_ns);
        (wake.began_ns, wake.given_ns, wake.waited_ns) = (now, 0, 0);
        self.tell(grant.to, Message::Serve);
        self.tell(CoreId(0), Message::Woken { core: grant.to });
        self.relief.state = State::Giving(giving);
        self.moves.giving = true;
        // Until the hurry is over.
        self.local.measure.force(true);
        self.begin_move(first, grant.to);
        self.run_moves();
    }

    /// Frames of a group in the last window and since; 0 if it is not here.
    fn load_of(&self, group: GroupId) -> u64 {
        let group = self.groups.get(usize::from(group.0)).and_then(Option::as_ref);
        group.map_or(0, |group| self.local.measure.loads.now(group.id, group.frames))
    }

    /// The same of all that are here.
    fn load(&self) -> u64 {
        let loads = &self.local.measure.loads;
        self.groups.iter().flatten().map(|group| loads.now(group.id, group.frames)).sum()
    }

    /// The group of a frame, if it may go.
    fn may_go(&mut self, frame: &RxFrame, most: u64) -> Option<GroupId> {
        let group = group_of_frame(&self.local, frame)?;
        let fits = self.owns(group) && self.load_of(group) <= most;
        (fits && self.moves.rests(group)).then_some(group)
    }

    /// Of the groups that rest here, the one with the most frames, but for those with none and with more than `most`.
    fn heaviest(&mut self, most: u64) -> Option<GroupId> {
        let mut best = (0, None);
        for group in (0..self.local.groups).map(GroupId) {
            let load = self.load_of(group);
            if load > best.0 && load <= most && self.moves.rests(group) {
                best = (load, Some(group));
            }
        }
        best.1
    }

    /// What goes beside the first group: so that half of the load does, and half of the groups that have none.
    fn plan(&mut self, first: u64) -> GroupSet {
        let mut plan = GroupSet::default();
        let mut load = ((self.load() + first) / 2).saturating_sub(first);
        let mut idle = true;
        for group in (0..self.local.groups).map(GroupId) {
            if !self.owns(group) || !self.moves.rests(group) {
                continue;
            }
            match self.load_of(group) {
                0 => {
                    idle = !idle;
                    if idle {
                        plan.insert(group);
                    }
                }
                some if some <= load => {
                    load -= some;
                    plan.insert(group);
                }
                _ => {}
            }
        }
        plan
    }

    /// While it hurries: what is to be done with what was received.
    #[cold]
    pub(crate) fn hurry(&mut self) -> Hurry {
        let State::Giving(Giving { hurry: Some(until), first: (first, _), .. }) = self.relief.state
        else {
            return Hurry::No;
        };
        if self.owns(first) {
            // The device may have sent what it had since the quiescent point.
            self.run_moves();
        }
        if !self.owns(first) {
            return Hurry::Over(first);
        }
        if self.local.now.0 >= until {
            self.end_hurry();
            return Hurry::No;
        }
        Hurry::Hold
    }

    /// It is `now` and held: whether by the device alone is noted.
    #[cold]
    pub(crate) fn held(&mut self, now: Instant) {
        let State::Giving(giving) = &mut self.relief.state else { return };
        if matches!(self.moves.get(giving.first.0), Some(Move::Draining { .. })) {
            giving.drains.get_or_insert(now.0);
        }
    }

    /// The first group is gone, at `gone`, and frames have followed it, or there were none.
    #[cold]
    pub(crate) fn hurried(&mut self, gone: Instant, now: Instant, frames: usize) {
        if let State::Giving(Giving { drains, .. }) = self.relief.state {
            let wake = &mut self.local.measure.wake;
            wake.waited_ns = drains.map_or(0, |since| gone.0.saturating_sub(since));
            wake.given_ns = if frames > 0 { now.0 } else { 0 };
        }
        self.end_hurry();
    }

    fn end_hurry(&mut self) {
        self.local.measure.force(false);
        if let State::Giving(mut giving) = self.relief.state {
            giving.hurry = None;
            giving.rest = self.plan(giving.first.1);
            self.relief.state = State::Giving(giving);
        }
    }

    /// The next frame of the group in the batch.
    pub(crate) fn pick_out(&self, group: GroupId, batch: &mut RxBatch) -> Option<RxFrame> {
        let of_it = |frame: &RxFrame| group_of_frame(&self.local, frame) == Some(group);
        let at = batch.iter().position(of_it)?;
        Some(batch.remove(at))
    }

    /// At the quiescent point, while groups are given.
    pub(super) fn give_on(&mut self) {
        let State::Giving(mut giving) = self.relief.state else { return };
        if giving.hurry.is_some() {
            return;
        }
        while self.moves.leaving() < RELIEF_ROUND
            && let Some(group) = giving.rest.next(0)
        {
            giving.rest.remove(group);
            self.begin_move(group, giving.to);
        }
        let over = giving.rest.is_empty();
        self.relief.state = if over { State::Rest } else { State::Giving(giving) };
        self.moves.giving = !over;
        self.moves.look();
    }

    /// Frames of other cores that are taken in this iteration: the first, for which this core was woken, alone.
    pub(crate) fn steered_most(&self) -> usize {
        let first = matches!(self.relief.state, State::Called | State::Taken);
        if first { 1 } else { self.rx_batch }
    }

    /// The application has had what was received. Whether that is to be noted, by [`Engine::served`].
    #[inline(always)]
    pub(crate) fn is_serving(&self) -> bool {
        matches!(self.relief.state, State::Serving)
    }

    /// It has had the first frame of the first group.
    #[cold]
    pub(crate) fn served(&mut self, now: Instant) {
        self.local.measure.wake.served_ns = now.0;
        self.relief.state = State::Rest;
    }

    /// Another core calls us.
    pub(super) fn called(&mut self) {
        self.relief.called = true;
        if matches!(self.relief.state, State::Rest) {
            self.relief.state = State::Called;
            self.relief.called_at = self.local.now;
            let wake = &mut self.local.measure.wake;
            (wake.taken_ns, wake.took_ns, wake.found_ns, wake.served_ns) = (0, 0, 0, 0);
        }
    }

    /// A group has come.
    pub(super) fn taken(&mut self, now: Instant) {
        if matches!(self.relief.state, State::Called) {
            self.relief.state = State::Taken;
            self.local.measure.wake.taken_ns = now.0;
            // The end of this iteration and the first frame are to be told.
            self.local.measure.set_alarm(0);
            self.local.measure.force(true);
        }
    }

    /// A frame of another core has been taken.
    #[cold]
    pub(crate) fn served_some(&mut self) {
        if matches!(self.relief.state, State::Taken) {
            self.relief.state = State::Serving;
            self.local.measure.wake.found_ns = self.local.now.0;
            self.local.measure.force(false);
        }
    }
}
