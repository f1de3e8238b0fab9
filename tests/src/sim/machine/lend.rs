//! Cores of a dataplane that leave for a while: asked, or stopped where they are between two iterations.
use super::Machine;
use crate::sim::swarm::MachineDraw;
use crate::sim::{MS, S, Time};
use ix_abi::stats::Counter;
use ix_abi::{CoreId, GroupId, Status};
use ix_dataplane::lend::Presence;

/// Times that cores of one dataplane leave.
const LENT_MAX: u64 = 40;
/// How long one that was asked may take before it is called back, or stopped.
const PATIENCE: Time = 2 * S;

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// Its groups are to go to others.
    Clearing { until: Time },
    /// They have gone.
    Leaving { until: Time },
    /// It does not run.
    Gone { until: Time, forced: bool },
    /// It runs, and is told what it has missed.
    Back,
}

/// What a core that is lent is about, one at a time.
#[derive(Debug, Default)]
pub(super) struct Lent {
    now: Option<(usize, Stage)>,
    /// Cores that can leave.
    cores: Vec<usize>,
    /// Those that have left, and those that were stopped.
    pub(super) left: u64,
    pub(super) taken: u64,
}

impl Lent {
    pub(super) fn new(draw: &MachineDraw) -> Lent {
        // Not one whose queue others send through.
        let shares =
            |core: &u16| (draw.queues..draw.cores).any(|other| other % draw.queues == *core);
        let cores = (1..draw.cores).filter(|core| !shares(core)).map(usize::from).collect();
        Lent { cores, ..Lent::default() }
    }

    /// The core that is, or is about to be, away.
    pub(super) fn core(&self) -> Option<usize> {
        self.now.map(|(core, _)| core)
    }

    /// Whether a core does not run.
    pub(super) fn is_gone(&self, core: usize) -> bool {
        self.gone() == Some(core)
    }

    /// The core that does not run.
    pub(super) fn gone(&self) -> Option<usize> {
        self.now.and_then(|(core, stage)| matches!(stage, Stage::Gone { .. }).then_some(core))
    }

    /// Nothing is under way.
    pub(super) fn is_over(&self) -> bool {
        self.now.is_none()
    }

    /// When to look again.
    pub(super) fn next(&self, now: Time) -> Time {
        match self.now {
            None => Time::MAX,
            Some((_, Stage::Gone { until, .. })) => until.max(now + 1),
            Some(_) => now + MS,
        }
    }
}

impl Machine {
    /// How often cores have left when they were asked, and were stopped.
    pub fn lent(&self) -> (u64, u64) {
        (self.lent.left, self.lent.taken)
    }

    /// Goes on with the core that is lent; `more`: another may be.
    pub(super) fn lend(&mut self, now: Time, more: bool) {
        let Some((core, stage)) = self.lent.now else {
            if more {
                self.begin_to_lend(now);
            }
            return;
        };
        let id = CoreId(core as u16);
        let next = match stage {
            Stage::Clearing { until } if self.owned(core) == 0 => {
                match self.cores[0].engine.send_away(id) {
                    Status::Ok => Stage::Leaving { until },
                    // A group is on its way there, or core 0 has not heard that the last has gone.
                    Status::InUse => stage,
                    other => panic!("core {core} is not sent away: {other:?}"),
                }
            }
            Stage::Clearing { until } if now > until => return self.lent.now = None,
            Stage::Clearing { .. } => {
                self.clear(core, now);
                stage
            }
            Stage::Leaving { until } => {
                if self.cores[core].engine.take_leave() {
                    self.lent.left += 1;
                    Stage::Gone { until: now + self.absence(), forced: false }
                } else if self.cores[0].engine.presence(id) == Presence::Here {
                    Stage::Clearing { until }
                } else if now > until {
                    self.cores[0].engine.recall(id);
                    Stage::Back
                } else {
                    stage
                }
            }
            Stage::Gone { until, forced } if now >= until => {
                let engine = &mut self.cores[core].engine;
                if forced {
                    engine.give_up();
                } else {
                    engine.come_back();
                }
                self.due[core].next = now;
                Stage::Back
            }
            Stage::Gone { .. } => stage,
            Stage::Back => {
                let engine = &mut self.cores[core].engine;
                if engine.take_leave() {
                    // It was called back too late.
                    Stage::Gone { until: now, forced: false }
                } else if self.cores[0].engine.presence(id) == Presence::Here
                    && !self.cores[core].engine.is_out()
                {
                    return self.lent.now = None;
                } else {
                    stage
                }
            }
        };
        self.lent.now = Some((core, next));
    }

    fn absence(&mut self) -> Time {
        [MS, 50 * MS, S][self.rng.below(3) as usize] + self.rng.below(10 * MS)
    }

    fn begin_to_lend(&mut self, now: Time) {
        let (lends, takes) = {
            let draw = &self.shared.borrow().draw;
            (draw.lends, draw.takes)
        };
        let count = self.lent.cores.len() as u64;
        if count == 0 || self.lent.left + self.lent.taken >= LENT_MAX {
            return;
        }
        if self.rng.chance(lends, 1024) {
            let core = self.lent.cores[self.rng.below(count) as usize];
            self.lent.now = Some((core, Stage::Clearing { until: now + PATIENCE }));
        } else if self.rng.chance(takes, 1024) {
            let core = self.lent.cores[self.rng.below(count) as usize];
            self.take(core, now);
        }
    }

    /// Groups that are still on the core go elsewhere.
    fn clear(&mut self, core: usize, now: Time) {
        if !self.life.is_quiet() {
            return;
        }
        let ours = (0..self.groups()).map(GroupId).filter(|id| self.cores[core].engine.owns(*id));
        // As many messages as a ring has room for beside others: else a `listen` may find none.
        for group in ours.take(16).collect::<Vec<_>>() {
            let others = self.cores.len() as u64 - 1;
            let to = (core + 1 + self.rng.below(others) as usize) % self.cores.len();
            self.wish(group, to, now);
        }
    }

    /// The core is stopped, with all that it has.
    fn take(&mut self, core: usize, now: Time) {
        let shared = self.shared.borrow();
        let mut book = shared.book.borrow_mut();
        let contexts = &self.cores[core].platform.context;
        book.taken.push((self.id, now));
        // What its context has, what is between contexts, and what is being opened, wherever.
        book.forced.extend(contexts.talks());
        book.forced.extend(shared.depot.values().flatten().filter_map(|(_, conn)| conn.talk_id()));
        book.forced.extend(shared.opening.values().map(|talk| talk.id));
        drop(book);
        drop(shared);
        let others = (0..self.cores.len()).filter(|other| *other != core);
        let heirs = others.fold(0, |heirs, other| heirs | 1 << other);
        let status = self.cores[0].engine.take_away(CoreId(core as u16), heirs);
        assert_eq!(status, Status::Ok);
        self.lent.taken += 1;
        self.lent.now = Some((core, Stage::Gone { until: now + self.absence(), forced: true }));
        for due in &mut self.due {
            due.next = due.next.min(now + super::LOOP);
        }
    }

    /// Whatever is lent is to come back at once, and nothing more is lent.
    pub(super) fn call_back(&mut self) {
        if let Some((core, Stage::Gone { until, .. })) = &mut self.lent.now {
            *until = 0;
            self.due[*core].next = 0;
        }
        let mut shared = self.shared.borrow_mut();
        (shared.draw.lends, shared.draw.takes) = (0, 0);
    }

    /// Without a core that was stopped no connection is reset by force.
    pub(super) fn check_forced(&self) {
        let forced = self.count(Counter::TcpForceResets);
        assert!(self.lent.taken > 0 || forced == 0, "{:?}: {forced} resets by force", self.id);
    }
}
