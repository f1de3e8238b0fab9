//! Which cores serve, and which flow group is where: what `ixcp` asks for, carried out by the engines. Cores that do not
//! serve have no groups and are parked: halted until somebody has something for them. Core 0 always serves.
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::control::{OWNERS_BASE, header};
use ix_abi::event_log::EventKind;
use ix_abi::limits::{CORES_MAX, GROUPS_MAX};
use ix_abi::status::Status;
use ix_abi::{CoreId, GroupId};
use ix_dataplane::engine::Engine;
use ix_kernel_core::spread;
use log::Level;

use super::{demand, lending};
use crate::control::{self, Pending};
use crate::{net, time, watch};

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
    /// All groups over the cores of a set.
    Spread { command: Option<Answer>, serving: u64, since: u64 },
}

/// What a spread answers.
#[derive(Clone, Copy)]
struct Answer {
    to: Pending,
    value: u64,
}

pub(super) struct Cores {
    cores: usize,
    groups: u16,
    task: Task,
    /// Moves that are not over.
    under_way: usize,
    /// Groups that it has asked to move.
    asked: [bool; GROUPS_MAX],
    moves: u64,
    published: bool,
    /// A group has come to a core that is parked.
    astray: bool,
    demand: demand::Task,
    lending: lending::Task,
    /// Cores that served before they were away, and those of them that are back and are to serve again, a bit each.
    served: u64,
    back: u64,
    /// The monitor has wished something.
    lends: bool,
    /// The page says of groups that a core has them which was stopped: they begin afresh, which nobody tells.
    stale: bool,
}

impl Cores {
    /// The last `background` cores are reserved, as far as one remains that serves.
    /// Others send through the queues of the cores `sharing`.
    pub(super) fn new(cores: usize, groups: u16, background: usize, sharing: u64) -> Self {
        let cores = cores.min(CORES_MAX);
        let background = background.min(cores - 1);
        BACKGROUND.store(last(cores, background), Ordering::Relaxed);
        Self {
            cores,
            groups,
            task: Task::None,
            under_way: 0,
            asked: [false; GROUPS_MAX],
            moves: 0,
            published: false,
            astray: false,
            demand: demand::Task::new(cores),
            lending: lending::Task::new(cores, sharing, last(cores, background)),
            served: 0,
            back: 0,
            lends: false,
            stale: false,
        }
    }

    pub(super) fn is_busy(&self) -> bool {
        // What a command has given up waiting for is still to be counted as its own.
        !matches!(self.task, Task::None) || self.under_way > 0
    }

    /// A group is to go to a core that serves.
    pub(super) fn move_group(&mut self, engine: &mut Engine, c: Pending, group: u16, core: u16) {
        if usize::from(core) < self.cores && self.lending.away() >> core & 1 != 0 {
            return control::answer(c, Status::Away, 1 << core);
        }
        if group >= self.groups || usize::from(core) >= self.cores || is_parked(core.into()) {
            return control::answer(c, Status::Invalid, 0);
        }
        self.task = Task::Move(c);
        self.ask(engine, group, core);
    }

    fn ask(&mut self, engine: &mut Engine, group: u16, core: u16) {
        self.under_way += 1;
        self.asked[usize::from(group) % GROUPS_MAX] = true;
        engine.move_group(GroupId(group), CoreId(core));
    }

    /// Limits of the bulk area.
    pub(super) fn set_limits(&mut self, c: Pending) {
        match self.demand.set_limits(time::now_ns()) {
            Ok(number) => control::answer(c, Status::Ok, number),
            Err(status) => control::answer(c, status, 0),
        }
    }

    /// The first `count` cores serve from now on.
    pub(super) fn set_count(&mut self, engine: &mut Engine, c: Pending, count: u16) {
        let serving = usize::from(count);
        if serving == 0 || serving > self.cores {
            return control::answer(c, Status::Invalid, self.cores as u64);
        }
        let most = self.cores - reserved().count();
        if serving > most {
            return control::answer(c, Status::InUse, most as u64);
        }
        let away = self.lending.away() & all(serving);
        if away != 0 {
            return control::answer(c, Status::Away, away);
        }
        let answer = Answer { to: c, value: serving as u64 };
        self.serve(engine, Some(answer), all(serving));
    }

    /// The cores of `set` serve from now on.
    pub(super) fn set(&mut self, engine: &mut Engine, c: Pending, set: u64) {
        if set & 1 == 0 || set & !all(self.cores) != 0 {
            return control::answer(c, Status::Invalid, all(self.cores));
        }
        let background = BACKGROUND.load(Ordering::Relaxed);
        if set & background != 0 {
            return control::answer(c, Status::InUse, all(self.cores) & !background);
        }
        let away = self.lending.away() & set;
        if away != 0 {
            return control::answer(c, Status::Away, away);
        }
        self.serve(engine, Some(Answer { to: c, value: set }), set);
    }

    /// The last `count` cores, none of which serves, are for background threads from now on.
    pub(super) fn reserve(&mut self, c: Pending, count: u16) {
        let count = usize::from(count);
        let parked = PARKED.load(Ordering::Relaxed);
        if count >= self.cores || last(self.cores, count) & !parked != 0 {
            return control::answer(c, Status::Invalid, u64::from(parked.count_ones()));
        }
        let away = self.lending.away() & last(self.cores, count);
        if away != 0 {
            return control::answer(c, Status::Away, away);
        }
        self.lending.set_reserved(last(self.cores, count));
        let before = BACKGROUND.swap(last(self.cores, count), Ordering::Relaxed);
        let concerned = |core: &usize| before & 1 << core != 0 || is_reserved(*core);
        (0..self.cores).filter(concerned).for_each(net::wake_core);
        log::info!("{count} of {} cores are reserved for background threads", self.cores);
        control::set(header::BACKGROUND, BACKGROUND.load(Ordering::Relaxed));
        control::answer(c, Status::Ok, count as u64);
    }

    /// A core is to go to another dataplane: the one whose name is in the bulk area, of so many bytes, or the next.
    pub(super) fn give(&self, c: Pending, core: u16, name_bytes: usize) {
        match self.lending.give(core.into(), name_bytes) {
            Ok(to) => control::answer(c, Status::Ok, to.into()),
            Err(why) => control::answer(c, why.status(), why.0.into()),
        }
    }

    fn serve(&mut self, engine: &mut Engine, command: Option<Answer>, serving: u64) {
        let before = PARKED.load(Ordering::Relaxed);
        PARKED.store(before & !serving, Ordering::Relaxed);
        (0..self.cores).filter(|core| before & serving & 1 << core != 0).for_each(net::wake_core);
        self.task = Task::Spread { command, serving, since: engine.now().0 };
        self.spread(engine, serving);
    }

    /// Asks for every move that is still due.
    fn spread(&mut self, engine: &mut Engine, serving: u64) {
        let mut owners = [0; GROUPS_MAX];
        for (group, owner) in (0..self.groups).zip(&mut owners) {
            *owner = engine.owner(GroupId(group)).map_or(0, |core| core.0);
        }
        let owners = &owners[..usize::from(self.groups)];
        spread::moves(owners, serving, |group, to| self.ask(engine, group, to));
    }

    /// Every millisecond: what has become of the moves, and who was woken.
    pub(super) fn step(&mut self, engine: &mut Engine, now: u64) {
        if !self.published {
            self.published = true;
            self.publish(engine);
            self.demand.show_limits();
            let reserved = reserved().count();
            if reserved > 0 {
                self.serve(engine, None, all(self.cores - reserved));
            }
        }
        while let Some(woken) = engine.woken() {
            let parked = PARKED.load(Ordering::Relaxed);
            PARKED.store(parked & !(1 << woken.core.0), Ordering::Relaxed);
            self.demand.woken(woken.core.0, woken.by.0, now);
            self.publish(engine);
        }
        let last = self.outcomes(engine);
        let parked = PARKED.load(Ordering::Relaxed);
        // Cores for background threads are not to be had.
        let free = parked & !BACKGROUND.load(Ordering::Relaxed) & !self.lending.away();
        self.demand.tick(now, all(self.cores) & !parked, free);
        self.lend(engine);
        if self.under_way > 0 {
            return;
        }
        match core::mem::take(&mut self.task) {
            Task::None if core::mem::take(&mut self.astray) => {
                self.serve(engine, None, all(self.cores) & !parked);
            }
            Task::None => {}
            Task::Move(command) => control::answer(command, last, self.moves),
            Task::Spread { command, serving, since } => {
                self.spread(engine, serving);
                if self.under_way > 0 && now.saturating_sub(since) < PATIENCE_NS {
                    self.task = Task::Spread { command, serving, since };
                    return;
                }
                let status = if self.under_way > 0 { Status::TimedOut } else { Status::Ok };
                // One that was stopped meanwhile does not serve.
                let serving = serving & !self.lending.away() | 1;
                if status == Status::Ok {
                    PARKED.store(all(self.cores) & !serving, Ordering::Relaxed);
                    // Cores that come and go at the monitor's wish are no news.
                    let told = command.is_some() || !self.lends;
                    let level = if told { Level::Info } else { Level::Debug };
                    log::log!(level, "{} of {} cores serve", serving.count_ones(), self.cores);
                }
                self.publish(engine);
                if let Some(Answer { to, value }) = command {
                    control::answer(to, status, value);
                }
            }
        }
    }

    /// What the monitor wishes of cores.
    fn lend(&mut self, engine: &mut Engine) {
        for core in 1..self.lending.cores() {
            let parked = PARKED.load(Ordering::Relaxed);
            let serving = all(self.cores) & !parked;
            match self.lending.step(engine, core, (parked, serving)) {
                lending::Order::Nothing => continue,
                // What is under way comes first; it is said again.
                lending::Order::Clear(cores) if matches!(self.task, Task::None) => {
                    self.served |= serving & cores;
                    self.back &= !cores;
                    self.serve(engine, None, serving & !cores);
                }
                lending::Order::Clear(_) => continue,
                lending::Order::Taken(core) => {
                    self.served |= serving & 1 << core;
                    self.back &= !(1 << core);
                    PARKED.store(parked | 1 << core, Ordering::Relaxed);
                    self.stale = true;
                }
                lending::Order::Welcome(core) => {
                    self.back |= self.served & 1 << core;
                    self.served &= !(1 << core);
                }
                lending::Order::Changed => {}
            }
            self.lends = true;
            self.publish(engine);
        }
        if self.stale {
            self.publish(engine);
            let gone = self.lending.gone();
            let mut owners = (0..self.groups).filter_map(|group| engine.owner(GroupId(group)));
            self.stale = owners.any(|core| gone >> core.0 & 1 != 0);
        }
        if self.back != 0 && matches!(self.task, Task::None) {
            let back = core::mem::take(&mut self.back);
            let reserved = BACKGROUND.load(Ordering::Relaxed);
            let serving = all(self.cores) & !PARKED.load(Ordering::Relaxed);
            self.serve(engine, None, serving | back & !reserved);
        }
    }

    /// An application ends: whether a core that is away keeps it from that for too long.
    pub(super) fn recall(&mut self, ends: bool) -> bool {
        self.lending.waits_too_long(ends)
    }

    /// Moves that are over, also those that nobody here has asked for; how the last one ended.
    fn outcomes(&mut self, engine: &mut Engine) -> Status {
        let mut last = Status::Ok;
        // Those to one core are one record: many moves must not drown what else happens.
        let mut run = None;
        while let Some((group, status)) = engine.move_outcome() {
            if core::mem::take(&mut self.asked[usize::from(group.0) % GROUPS_MAX]) {
                self.under_way = self.under_way.saturating_sub(1);
                last = status;
            }
            if let Some(owner) = engine.owner(group).filter(|_| status == Status::Ok) {
                self.moves += 1;
                self.astray |= is_parked(owner.0.into());
                control::set(OWNERS_BASE + usize::from(group.0) * 8, owner.0.into());
                control::set(header::MOVES, self.moves);
                run = Some(match run {
                    Some((_, to, before)) if to == owner => (group, to, before + 1),
                    _ => {
                        tell_moved(run);
                        (group, owner, 0)
                    }
                });
            }
        }
        tell_moved(run);
        last
    }

    fn publish(&self, engine: &Engine) {
        control::set(header::ACTIVE, all(self.cores) & !PARKED.load(Ordering::Relaxed));
        control::set(header::BACKGROUND, BACKGROUND.load(Ordering::Relaxed));
        control::set(header::AWAY, self.lending.away());
        for group in 0..self.groups {
            let owner = engine.owner(GroupId(group)).map_or(0, |core| core.0);
            control::set(OWNERS_BASE + usize::from(group) * 8, owner.into());
        }
    }
}

/// A group has gone to a core, and so many before it.
fn tell_moved(run: Option<(GroupId, CoreId, u16)>) {
    if let Some((group, to, before)) = run {
        watch::log::record(EventKind::GroupOut, before, group.0.into(), to.0.into());
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
