//! A physical core that several dataplanes may run on, one at a time. It goes from one to another by
//! asking: the owner is asked to leave, and if it has not by a deadline the core is taken from it.
//!
//! The monitor keeps one of these per shared core, behind a lock. Any core may call [`Shared::want`];
//! what switches is only the core itself, in root mode, when [`Shared::look`] or [`Shared::yielded`] says
//! so; it says so once, and nothing else happens until [`Shared::switched`].

#[cfg(test)]
mod tests;

/// Longest time that an owner may be given, in whatever unit the caller's clock has: a deadline that is
/// further away is brought nearer, so that it always ends.
pub const PATIENCE_MAX_NS: u64 = 60_000_000_000;

/// A dataplane's number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Dataplane(pub u8);

/// What the caller does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing.
    Stay,
    /// Tell the owner (its monitor page) to leave by then, and call the core out so that it looks.
    Ask { owner: Dataplane, deadline_ns: u64 },
    /// Tell the owner that it may stay.
    Withdraw { owner: Dataplane },
    /// On the core itself: put `from` away as it is and go on with `to`, then [`Shared::switched`].
    Switch { from: Dataplane, to: Dataplane, is_forced: bool },
}

/// Why a wish is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The core is not listed for that dataplane.
    NotListed(Dataplane),
    /// That dataplane is down.
    Down(Dataplane),
    /// Who gives the core does not have it.
    Away,
    /// It goes somewhere else already.
    UnderWay,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Running,
    Asked {
        to: Dataplane,
        deadline_ns: u64,
    },
    /// `next`: who wanted it meanwhile, and how long the new owner is given.
    Switching {
        to: Dataplane,
        next: Option<(Dataplane, u64)>,
    },
}

/// One shared core.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shared {
    /// Dataplanes that list the core, a bit each; and those that are down.
    listed: u32,
    down: u32,
    owner: Dataplane,
    phase: Phase,
}

const fn bit(d: Dataplane) -> u32 {
    if d.0 < 32 { 1 << d.0 } else { 0 }
}

impl Shared {
    /// A core of `owner`, which `others` list, too.
    #[must_use]
    pub fn new(owner: Dataplane, others: impl Iterator<Item = Dataplane>) -> Self {
        let listed = others.fold(bit(owner), |all, d| all | bit(d));
        Self { listed, down: 0, owner, phase: Phase::Running }
    }

    /// Whose vCPU is on the core; `None` in the middle of a switch.
    #[must_use]
    pub const fn running(&self) -> Option<Dataplane> {
        match self.phase {
            Phase::Switching { .. } => None,
            _ => Some(self.owner),
        }
    }

    /// Who had it last.
    #[must_use]
    pub const fn owner(&self) -> Dataplane {
        self.owner
    }

    /// The core is to go to `to` within `patience_ns`. Wanting it for its owner takes an earlier wish back.
    pub fn want(&mut self, to: Dataplane, now_ns: u64, patience_ns: u64) -> Result<Step, Refusal> {
        if bit(to) & self.listed == 0 {
            return Err(Refusal::NotListed(to));
        }
        if bit(to) & self.down != 0 {
            return Err(Refusal::Down(to));
        }
        let patience_ns = patience_ns.min(PATIENCE_MAX_NS);
        let deadline_ns = now_ns.saturating_add(patience_ns);
        Ok(match self.phase {
            Phase::Running if to == self.owner => Step::Stay,
            Phase::Running => self.ask(to, deadline_ns),
            Phase::Asked { .. } if to == self.owner => {
                self.phase = Phase::Running;
                Step::Withdraw { owner: self.owner }
            }
            // Somebody else wants it now: the owner's time is not made longer.
            Phase::Asked { deadline_ns: before, .. } => self.ask(to, before.min(deadline_ns)),
            Phase::Switching { to: coming, .. } => {
                let next = (to != coming).then_some((to, patience_ns));
                self.phase = Phase::Switching { to: coming, next };
                Step::Stay
            }
        })
    }

    /// Its owner `from` gives the core to `to`, which is somebody else. What others have asked for comes first.
    pub fn give(
        &mut self,
        (from, to): (Dataplane, Dataplane),
        now_ns: u64,
        patience_ns: u64,
    ) -> Result<Step, Refusal> {
        match self.phase {
            Phase::Switching { .. } => Err(Refusal::UnderWay),
            _ if from != self.owner => Err(Refusal::Away),
            Phase::Asked { .. } => Err(Refusal::UnderWay),
            Phase::Running if to == from => Err(Refusal::NotListed(to)),
            Phase::Running => self.want(to, now_ns, patience_ns),
        }
    }

    const fn ask(&mut self, to: Dataplane, deadline_ns: u64) -> Step {
        self.phase = Phase::Asked { to, deadline_ns };
        Step::Ask { owner: self.owner, deadline_ns }
    }

    /// The owner's vCPU has left by itself. Without having been asked it goes on.
    pub fn yielded(&mut self) -> Step {
        match self.phase {
            Phase::Asked { to, .. } => self.switch(to, false),
            _ => Step::Stay,
        }
    }

    /// The core is in root mode and looks: at the watchdog's pace, when called out, when its owner is down.
    pub fn look(&mut self, now_ns: u64) -> Step {
        match self.phase {
            // One that is down has nothing to lose.
            Phase::Asked { to, .. } if self.down & bit(self.owner) != 0 => self.switch(to, false),
            Phase::Asked { to, deadline_ns } if now_ns >= deadline_ns => self.switch(to, true),
            _ => Step::Stay,
        }
    }

    const fn switch(&mut self, to: Dataplane, is_forced: bool) -> Step {
        let from = self.owner;
        self.phase = Phase::Switching { to, next: None };
        Step::Switch { from, to, is_forced }
    }

    /// The core runs the new owner, or (`is_done` false: its VMCS could not be loaded) the old one again.
    pub fn switched(&mut self, now_ns: u64, is_done: bool) -> Step {
        let Phase::Switching { to, next } = self.phase else { return Step::Stay };
        if is_done {
            self.owner = to;
        }
        self.phase = Phase::Running;
        match next {
            Some((d, patience_ns)) => self.want(d, now_ns, patience_ns).unwrap_or(Step::Stay),
            None => Step::Stay,
        }
    }

    /// A dataplane stays down: nobody moves a core to it any more.
    pub fn goes_down(&mut self, d: Dataplane) -> Step {
        self.down |= bit(d);
        match self.phase {
            Phase::Asked { to, .. } if to == d => {
                self.phase = Phase::Running;
                Step::Withdraw { owner: self.owner }
            }
            _ => Step::Stay,
        }
    }

    /// It is up again.
    pub const fn comes_up(&mut self, d: Dataplane) {
        self.down &= !bit(d);
    }

    /// When the core has to look at the latest; `None`: nothing is due.
    #[must_use]
    pub const fn due_ns(&self) -> Option<u64> {
        match self.phase {
            Phase::Asked { deadline_ns, .. } => Some(deadline_ns),
            _ => None,
        }
    }
}
