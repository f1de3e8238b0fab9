//! Which cores serve, and which flow group is where: what `ixcp` asks for, carried out by the engines. Cores serve from
//! core 0 on; the others have no groups and are parked: halted until somebody has something for them.
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::control::{OWNERS_BASE, header};
use ix_abi::event_log::EventKind;
use ix_abi::limits::{CORES_MAX, GROUPS_MAX};
use ix_abi::status::Status;
use ix_abi::{CoreId, GroupId};
use ix_dataplane::engine::Engine;
use ix_kernel_core::spread;

use crate::control::{self, Pending};
use crate::{net, watch};

/// How long a command may take; what has not moved by then stays.
const PATIENCE_NS: u64 = 3_000_000_000;

/// Parked cores, a bit each. Written by core 0.
static PARKED: AtomicU64 = AtomicU64::new(0);

/// Whether the core is parked.
#[inline]
pub fn is_parked(core: usize) -> bool {
    PARKED.load(Ordering::Relaxed) & 1 << core != 0
}

/// What is under way.
#[derive(Default)]
enum Task {
    #[default]
    None,
    /// One group.
    Move(Pending),
    /// All groups over the first `serving` cores.
    Spread { command: Pending, serving: usize, since: u64 },
}

pub(super) struct Cores {
    cores: usize,
    groups: u16,
    task: Task,
    /// Moves that are not over.
    under_way: usize,
    moves: u64,
    published: bool,
}

impl Cores {
    pub(super) fn new(cores: usize, groups: u16) -> Self {
        let cores = cores.min(CORES_MAX);
        Self { cores, groups, task: Task::None, under_way: 0, moves: 0, published: false }
    }

    pub(super) fn is_busy(&self) -> bool {
        // What a command has given up waiting for is still to be counted as its own.
        !matches!(self.task, Task::None) || self.under_way > 0
    }

    /// A group is to go to a core that serves.
    pub(super) fn move_group(&mut self, engine: &mut Engine, c: Pending, group: u16, core: u16) {
        if group >= self.groups || usize::from(core) >= self.cores || is_parked(core.into()) {
            return control::answer(c, Status::Invalid, 0);
        }
        self.under_way = 1;
        self.task = Task::Move(c);
        engine.move_group(GroupId(group), CoreId(core));
    }

    /// The first `count` cores serve from now on.
    pub(super) fn set(&mut self, engine: &mut Engine, c: Pending, count: u16) {
        let serving = usize::from(count);
        if serving == 0 || serving > self.cores {
            return control::answer(c, Status::Invalid, self.cores as u64);
        }
        let before = PARKED.load(Ordering::Relaxed);
        PARKED.store(before & !all(serving), Ordering::Relaxed);
        (0..serving).filter(|core| before & 1 << core != 0).for_each(net::wake_core);
        self.task = Task::Spread { command: c, serving, since: engine.now().0 };
        self.spread(engine, serving);
    }

    /// Asks for every move that is still due.
    fn spread(&mut self, engine: &mut Engine, serving: usize) {
        let mut owners = [0; GROUPS_MAX];
        for (group, owner) in (0..self.groups).zip(&mut owners) {
            *owner = engine.owner(GroupId(group)).map_or(0, |core| core.0);
        }
        let owners = &owners[..usize::from(self.groups)];
        spread::moves(owners, serving, |group, to| {
            self.under_way += 1;
            engine.move_group(GroupId(group), CoreId(to));
        });
    }

    /// Every millisecond: what has become of the moves.
    pub(super) fn step(&mut self, engine: &mut Engine, now: u64) {
        if !self.published {
            self.published = true;
            self.publish(engine);
        }
        let mut last = Status::Ok;
        while let Some((group, status)) = engine.move_outcome() {
            self.under_way = self.under_way.saturating_sub(1);
            last = status;
            if let Some(owner) = engine.owner(group).filter(|_| status == Status::Ok) {
                self.moves += 1;
                control::set(OWNERS_BASE + usize::from(group.0) * 8, owner.0.into());
                control::set(header::MOVES, self.moves);
                watch::log::record(EventKind::GroupOut, 0, group.0.into(), owner.0.into());
            }
        }
        if self.under_way > 0 {
            return;
        }
        match core::mem::take(&mut self.task) {
            Task::None => {}
            Task::Move(command) => control::answer(command, last, self.moves),
            Task::Spread { command, serving, since } => {
                self.spread(engine, serving);
                if self.under_way > 0 && now.saturating_sub(since) < PATIENCE_NS {
                    self.task = Task::Spread { command, serving, since };
                    return;
                }
                let status = if self.under_way > 0 { Status::TimedOut } else { Status::Ok };
                if status == Status::Ok {
                    PARKED.store(all(self.cores) & !all(serving), Ordering::Relaxed);
                    log::info!("{serving} of {} cores serve", self.cores);
                }
                self.publish(engine);
                control::answer(command, status, serving as u64);
            }
        }
    }

    fn publish(&self, engine: &Engine) {
        control::set(header::ACTIVE, all(self.cores) & !PARKED.load(Ordering::Relaxed));
        for group in 0..self.groups {
            let owner = engine.owner(GroupId(group)).map_or(0, |core| core.0);
            control::set(OWNERS_BASE + usize::from(group) * 8, owner.into());
        }
    }
}

/// The first `count` cores, a bit each.
const fn all(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}
