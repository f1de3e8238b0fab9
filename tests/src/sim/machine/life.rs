//! What befalls a running dataplane: its flow groups move between cores, cores that are behind call others,
//! its application is ended and begins again. As the platforms would do it, between iterations.
use super::{Machine, attach, memory};
use crate::sim::app::Context;
use crate::sim::heap::Heap;
use crate::sim::nic;
use crate::sim::swarm::MachineDraw;
use crate::sim::{MS, Time, US};
use ix_abi::{CoreId, GroupId, Status};
use ix_dataplane::app::Drain;
use ix_dataplane::moves::Grant;

/// Moves of one dataplane: each makes more iterations, in which there may be more moves.
const MOVES_MAX: u64 = 1_000;

/// What is to come.
#[derive(Debug)]
pub(super) struct Life {
    groups: u16,
    /// Flow groups that have moved.
    moved: u64,
    /// Those that were to and have not, since application or device did not let go.
    stayed: u64,
    /// Groups that are wished to move, and have not answered.
    wished: Vec<GroupId>,
    /// Of restarts, latest first.
    restarts: Vec<Time>,
    /// The application is gone, and with it this memory, which frames may still refer to.
    ending: Option<Heap>,
    /// When to look again.
    next: Time,
}

impl Life {
    pub(super) fn new(draw: &MachineDraw) -> Life {
        let mut restarts = draw.restarts.clone();
        restarts.sort_by_key(|at| std::cmp::Reverse(*at));
        let next = restarts.last().copied().unwrap_or(Time::MAX);
        Life {
            groups: draw.groups,
            moved: 0,
            stayed: 0,
            wished: Vec::new(),
            restarts,
            ending: None,
            next,
        }
    }

    pub(super) fn next(&self) -> Time {
        self.next
    }

    /// Whether every wish was answered.
    pub(super) fn is_quiet(&self) -> bool {
        self.wished.is_empty()
    }

    /// Whether nothing is to come that somebody has to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.ending.is_none()
    }
}

impl Machine {
    /// Flow groups that have moved.
    pub fn moved(&self) -> u64 {
        self.life.moved
    }

    /// How often a core that was behind has called another.
    pub fn calls(&self) -> u64 {
        self.cores.iter().map(|core| core.engine.measure().wake().count).sum()
    }

    /// Nothing befalls it any more.
    pub fn retire(&mut self) {
        self.life.restarts.clear();
        self.shared.borrow_mut().draw.moves = 0;
        self.shared.borrow_mut().draw.grants = 0;
        self.call_back();
        self.look_ahead();
    }

    /// What is due.
    pub(super) fn live(&mut self, now: Time) {
        self.follow_moves();
        if self.life.ending.is_some() {
            self.begin_again(now);
        } else if self.life.restarts.last().is_some_and(|at| *at <= now) && self.lent.is_over() {
            self.life.restarts.pop();
            self.end_application(now);
        } else {
            let (often, flock) = {
                let draw = &self.shared.borrow().draw;
                (draw.moves, draw.flock)
            };
            let more = self.cores.len() > 1 && self.life.moved < MOVES_MAX;
            if more && self.rng.chance(often, 1024) {
                let to = self.rng.below(self.cores.len() as u64) as usize;
                (0..flock).for_each(|_| self.move_group(to, now));
            }
            let grants = self.shared.borrow().draw.grants;
            if self.cores.len() > 1 && self.rng.chance(grants, 1024) {
                self.grant();
            }
            self.look_after_calls(now);
        }
        let ends =
            self.life.ending.is_some() || self.life.restarts.last().is_some_and(|at| *at <= now);
        self.lend(now, !ends);
        let next = self.life.restarts.last().copied().unwrap_or(Time::MAX);
        let waits = self.life.ending.is_some() || !self.lent.is_over();
        self.life.next = if waits { now + MS } else { next.max(now + 1) };
        self.life.next = self.life.next.min(self.lent.next(now));
    }

    fn owner(&self, group: GroupId) -> Option<usize> {
        let owns = |at: &usize| self.cores[*at].engine.owns(group) && !self.lent.is_gone(*at);
        (0..self.cores.len()).find(owns)
    }

    pub(super) fn groups(&self) -> u16 {
        self.life.groups
    }

    /// A group to move: mostly one with connections.
    fn pick_group(&mut self) -> GroupId {
        let from = self.rng.below(self.cores.len() as u64) as usize;
        let nth = self.rng.below(1 << 20) as usize;
        let context = &self.cores[from].platform.context;
        let any = self.rng.below(u64::from(self.life.groups)) as u16;
        GroupId(context.some_group(nth).unwrap_or(any))
    }

    /// A core may call another, if frames wait for it now.
    fn grant(&mut self) {
        let cores = self.cores.len() as u64;
        let (from, to) = (self.rng.below(cores) as usize, self.rng.below(cores) as u16);
        let delay_ns = [0, 5 * US, 50 * US][self.rng.below(3) as usize];
        let after_ns = [0, 0, 0, 100 * US][self.rng.below(4) as usize];
        self.cores[from].engine.set_grant(Some(Grant { to: CoreId(to), delay_ns, after_ns }));
    }

    /// A core that others have taken all from gets something back: a context without groups is not entered.
    fn look_after_calls(&mut self, now: Time) {
        while self.cores[0].engine.woken().is_some() {}
        let often = self.shared.borrow().draw.grants > 0 || self.lent() != (0, 0);
        let bare =
            |at: &usize| !self.cores[*at].engine.has_groups() && self.lent.core() != Some(*at);
        if often
            && self.life.wished.is_empty()
            && let Some(core) = (0..self.cores.len()).find(bare)
        {
            self.move_group(core, now);
        }
    }

    pub(super) fn owned(&self, core: usize) -> usize {
        let groups = (0..self.life.groups).map(GroupId);
        groups.filter(|id| self.cores[core].engine.owns(*id)).count()
    }

    /// Wishes that a group moved; whatever is under way of it.
    fn move_group(&mut self, to: usize, now: Time) {
        let group = self.pick_group();
        let from = self.owner(group);
        // `connect` needs one, or more than those that are leaving.
        if from.is_none_or(|from| self.owned(from) <= 1 + self.life.wished.len()) {
            return;
        }
        self.wish(group, to, now);
    }

    /// A group is to move, whoever has it.
    pub(super) fn wish(&mut self, group: GroupId, to: usize, now: Time) {
        self.life.wished.push(group);
        self.cores[0].engine.move_group(group, CoreId(to as u16));
        for due in &mut self.due {
            due.next = due.next.min(now + super::LOOP);
        }
    }

    /// The device does as it is told, in its own time; and what has become of wishes.
    pub(super) fn follow_moves(&mut self) {
        while let Some(redirect) = self.cores[0].engine.redirect() {
            if self.rng.chance(1, 2) {
                break;
            }
            nic::redirect(&mut self.nic.borrow_mut(), &redirect);
            self.cores[0].engine.redirected();
        }
        while let Some((group, status)) = self.cores[0].engine.move_outcome() {
            // Of a core that was behind and has called another, if nobody wished it.
            if let Some(at) = self.life.wished.iter().position(|wished| *wished == group) {
                self.life.wished.swap_remove(at);
            }
            match status {
                Status::Ok => self.life.moved += 1,
                Status::Again => {}
                Status::TimedOut => self.life.stayed += 1,
                other => panic!("{group:?} does not move: {other:?}"),
            }
        }
    }

    fn end_application(&mut self, now: Time) {
        let mut shared = self.shared.borrow_mut();
        let station = shared.station;
        shared.book.borrow_mut().crash_begins(station, now);
        let (heap, user) = memory(&shared.draw, &self.bus);
        let old = std::mem::replace(&mut shared.heap, heap);
        self.old_user = std::mem::replace(&mut self.user, user);
        for (number, core) in self.cores.iter_mut().enumerate() {
            core.engine.detach_app();
            let plans = core.platform.context.crash(&mut shared, now);
            // The rings stay until the engine has nothing of the application any more.
            self.next_plans.push((number, plans));
        }
        shared.binding = None;
        self.life.ending = Some(old);
    }

    fn begin_again(&mut self, now: Time) {
        for core in &mut self.cores {
            match core.engine.drain() {
                Drain::Done => {}
                Drain::Pending => return,
                Drain::TimedOut => panic!("{:?}: the queue completes, but not the drain", self.id),
            }
        }
        assert_eq!(self.old_user.pins_total(), 0, "{:?}: drained, and yet pinned", self.id);
        // From now on a device that reads there finds nothing.
        if let Some(heap) = self.life.ending.take() {
            heap.pages().for_each(|(_, _, at)| self.bus.detach(at));
        }
        for (number, plans) in std::mem::take(&mut self.next_plans) {
            let core = &mut self.cores[number];
            let plans = plans.into_iter().map(|(at, talk)| (at.max(now), talk)).collect();
            core.platform.context = Context::new(number, plans);
            attach(&mut core.engine, number as u16, &core.platform.context, &self.user);
            self.due[number].next = now;
        }
    }
}
