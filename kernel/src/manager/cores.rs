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

/// Cores for background threads, a bit each. Written by core 0. They run such threads while they are parked.
static BACKGROUND: AtomicU64 = AtomicU64::new(0);

/// Whether the core is reserved for background threads.
#[inline]
pub fn is_reserved(core: usize) -> bool {
    BACKGROUND.load(Ordering::Relaxed) & 1 << core != 0
}

/// The cores that are.
pub fn reserved() -> impl Iterator<Item = usize> {
    let mask = BACKGROUND.load(Ordering::Relaxed);
    (0..CORES_MAX).filter(move |core| mask & 1 << core != 0)
}

/// What is under way.
#[derive(Default)]
enum Task {
    #[default]
    None,
    /// One group.
    Move(Pending),
    /// All groups over the first `serving` cores.
    Spread { command: Option<Pending>, serving: usize, since: u64 },
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
    /// The last `background` cores are reserved, as far as one remains that serves.
    pub(super) fn new(cores: usize, groups: u16, background: usize) -> Self {
        let cores = cores.min(CORES_MAX);
        let background = background.min(cores - 1);
        BACKGROUND.store(last(cores, background), Ordering::Relaxed);
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
        let most = self.cores - reserved().count();
        if serving > most {
            return control::answer(c, Status::InUse, most as u64);
        }
        self.serve(engine, Some(c), serving);
    }

    /// The last `count` cores, none of which serves, are for background threads from now on.
    pub(super) fn reserve(&mut self, c: Pending, count: u16) {
        let count = usize::from(count);
        let parked = PARKED.load(Ordering::Relaxed);
        if count >= self.cores || last(self.cores, count) & !parked != 0 {
            return control::answer(c, Status::Invalid, u64::from(parked.count_ones()));
        }
        let before = BACKGROUND.swap(last(self.cores, count), Ordering::Relaxed);
        let concerned = |core: &usize| before & 1 << core != 0 || is_reserved(*core);
        (0..self.cores).filter(concerned).for_each(net::wake_core);
        log::info!("{count} of {} cores are reserved for background threads", self.cores);
        control::set(header::BACKGROUND, BACKGROUND.load(Ordering::Relaxed));
        control::answer(c, Status::Ok, count as u64);
    }

    fn serve(&mut self, engine: &mut Engine, command: Option<Pending>, serving: usize) {
        let before = PARKED.load(Ordering::Relaxed);
        PARKED.store(before & !all(serving), Ordering::Relaxed);
        (0..serving).filter(|core| before & 1 << core != 0).for_each(net::wake_core);
        self.task = Task::Spread { command, serving, since: engine.now().0 };
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
            let reserved = reserved().count();
            if reserved > 0 {
                self.serve(engine, None, self.cores - reserved);
            }
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
                if let Some(command) = command {
                    control::answer(command, status, serving as u64);
                }
            }
        }
    }

    fn publish(&self, engine: &Engine) {
        control::set(header::ACTIVE, all(self.cores) & !PARKED.load(Ordering::Relaxed));
        control::set(header::BACKGROUND, BACKGROUND.load(Ordering::Relaxed));
        for group in 0..self.groups {
            let owner = engine.owner(GroupId(group)).map_or(0, |core| core.0);
            control::set(OWNERS_BASE + usize::from(group) * 8, owner.into());
        }
    }
}

/// The last `count` of so many cores, a bit each.
const fn last(cores: usize, count: usize) -> u64 {
    all(cores) & !all(cores - count)
}

/// The first `count` cores, a bit each.
const fn all(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}
