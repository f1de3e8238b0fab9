//! Physical cores that several dataplanes list, and how they go from one to another: `ix_kernel_core::vmx::moves` decides, the core
//! itself carries it out, in root mode. Whoever is away keeps its state; interrupts for it are kept, too, and never sent to the core.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use ix_abi::control::GiveRefusal;
use ix_kernel_core::vmx::icr;
use ix_kernel_core::vmx::moves::{Dataplane as Number, Shared, Step};
use ix_kernel_core::vmx::page::Wish;
use ix_kernel_core::vmx::partition::schedule::Schedule;
use spin::{Mutex, Once};

use super::dataplane::{Dataplane, State};
use super::instructions::wrmsr;
use super::kept::{self, Vectors};
use crate::{apic, time};

const X2APIC_ICR: u32 = 0x830;
/// What a dataplane that is not asked by a schedule is given.
pub const PATIENCE_NS: u64 = 1_000_000_000;

/// So long before a core is stopped its dataplane hears that its time is over.
const LAST_NS: u64 = 20_000_000;

static LENT: Once<Vec<Lent>> = Once::new();

/// Such a core.
#[derive(Debug)]
pub struct Lent {
    physical: usize,
    /// Numbers of the dataplanes that list it, and its number in each.
    members: Vec<(u8, usize)>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Shared,
    schedule: Option<Schedule>,
    /// When the schedule's next move is to begin; `None`: one is under way, or somebody is not up.
    next_ns: Option<u64>,
    counts: Counts,
}

/// How often it has moved.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    asked: u64,
    /// Of them, those that were not answered in time.
    forced: u64,
    /// Its owner had ended, or had nothing on it.
    idle: u64,
}

/// A move that this core is to carry out.
#[derive(Clone, Copy, Debug)]
pub struct Switch {
    pub from: u8,
    pub to: u8,
    pub is_forced: bool,
}

fn lent() -> &'static [Lent] {
    LENT.get().map_or(&[], Vec::as_slice)
}

/// Before any dataplane runs: finds such cores. Each is at first of the dataplane that comes first.
pub fn set_up(dataplanes: &[Dataplane], schedules: &[Schedule], cores: usize) {
    let mut all = Vec::new();
    for physical in 0..cores {
        let place = |d: &Dataplane| d.cores.iter().position(|core| *core == physical);
        let members: Vec<(u8, usize)> =
            dataplanes.iter().enumerate().filter_map(|(i, d)| Some((i as u8, place(d)?))).collect();
        let [(first, _), others @ ..] = &members[..] else { continue };
        if others.is_empty() {
            continue;
        }
        for (d, me) in others {
            dataplanes[usize::from(*d)].page.set_away(*me, true);
        }
        for (d, _) in &members {
            for (other, _) in members.iter().filter(|(other, _)| other != d) {
                let (d, other) = (usize::from(*d), usize::from(*other));
                dataplanes[d].page.set_neighbour(other, &dataplanes[other].name);
            }
        }
        let names: Vec<&str> =
            members.iter().map(|(d, _)| &*dataplanes[usize::from(*d)].name).collect();
        log::info!("core {physical} is shared by {}: the first has it", names.join(", "));
        let shared = Shared::new(Number(*first), others.iter().map(|(d, _)| Number(*d)));
        let schedule = schedules.iter().find(|s| usize::from(s.core) == physical).copied();
        let inner = Inner { shared, schedule, next_ns: None, counts: Counts::default() };
        all.push(Lent { physical, members, inner: Mutex::new(inner) });
    }
    LENT.call_once(|| all);
}

/// `None`: the core is one dataplane's for good.
pub fn of(physical: usize) -> Option<&'static Lent> {
    lent().iter().find(|lent| lent.physical == physical)
}

fn number(d: &Dataplane) -> u8 {
    d.page.place().0 as u8
}

fn dataplane(number: u8) -> &'static Dataplane {
    &super::dataplanes()[usize::from(number)]
}

/// Runs `f` while core `core` of `d` cannot move; `f` is told whether it is there.
pub fn while_there<T>(d: &Dataplane, core: usize, f: impl FnOnce(bool) -> T) -> T {
    let Some(lent) = of(d.cores[core]) else { return f(true) };
    let inner = lent.inner.lock();
    f(inner.shared.running() == Some(Number(number(d))))
}

/// Whether core `core` of `d` serves another dataplane, and so cannot run anything of `d`, unless it looks at its state first.
pub fn is_elsewhere(d: &Dataplane, core: usize) -> bool {
    let Some(lent) = of(d.cores[core]) else { return false };
    let running = lent.inner.lock().shared.running();
    running.is_some_and(|there| there != Number(number(d)))
}

/// An interrupt for a core of `d`, by one of its own.
pub fn interrupt(d: &Dataplane, core: usize, vector: u8) {
    while_there(d, core, |is_there| {
        if is_there {
            wrmsr(X2APIC_ICR, icr::fixed(d.apic_ids[core], vector));
        } else {
            d.virtual_cores[core].keep_pending(vector);
        }
    });
}

/// `d` is not going to run again: nobody moves a core to it.
pub fn goes_down(d: &Dataplane) {
    for lent in lent().iter().filter(|lent| lent.place_in(number(d)).is_some()) {
        let step = lent.inner.lock().shared.goes_down(Number(number(d)));
        lent.tell(step);
        apic::nmi(lent.physical);
    }
}

/// `d` begins another life: what it was asked for, it has forgotten.
pub fn begins_again(d: &Dataplane) {
    for lent in lent() {
        let mut inner = lent.inner.lock();
        if inner.shared.running() == Some(Number(number(d))) {
            inner.next_ns = None;
            if let Ok(step) = inner.shared.want(Number(number(d)), time::now_ns(), 0) {
                lent.tell(step);
            }
        }
    }
}

/// A dataplane gives a core of its own to the next that lists it, or to number `to`. Who gets it.
pub fn give(d: &Dataplane, core: usize, to: Option<u8>) -> Result<u8, GiveRefusal> {
    let lent = d.cores.get(core).and_then(|physical| of(*physical));
    let lent = lent.ok_or(GiveRefusal::NotShared)?;
    let from = number(d);
    let to = to.or_else(|| lent.next(from)).ok_or(GiveRefusal::Down)?;
    let mut inner = lent.inner.lock();
    let step = inner.shared.give((Number(from), Number(to)), time::now_ns(), PATIENCE_NS)?;
    lent.tell(step);
    drop(inner);
    // It arms its timer for the deadline.
    apic::nmi(lent.physical);
    Ok(to)
}

/// What the log says of them.
pub fn report() {
    lent().iter().for_each(Lent::report);
}

impl Lent {
    fn place_in(&self, d: u8) -> Option<usize> {
        self.members.iter().find(|(of, _)| *of == d).map(|(_, me)| *me)
    }

    /// Who comes after `d` in the configuration, of those that are up.
    fn next(&self, d: u8) -> Option<u8> {
        let at = self.members.iter().position(|(of, _)| *of == d)?;
        let others = self.members[at + 1..].iter().chain(&self.members[..at]);
        others
            .map(|(of, _)| *of)
            .find(|of| matches!(dataplane(*of).state(), State::Runs | State::Stops))
    }

    /// Whose it is, or was last.
    pub fn owner(&self) -> u8 {
        self.inner.lock().shared.owner().0
    }

    fn tell(&self, step: Step) {
        let (owner, wish) = match step {
            Step::Ask { owner, deadline_ns } => {
                let left_ns = deadline_ns.saturating_sub(time::now_ns());
                // Before it is stopped wherever it is, it may come to a point where it holds nothing.
                let in_us = (left_ns - LAST_NS.min(left_ns / 2)) / 1000;
                let deadline = time::tsc() + in_us * time::tsc_khz() / 1000;
                (owner, Wish::Leave { deadline })
            }
            Step::Withdraw { owner } => (owner, Wish::Keep),
            Step::Stay | Step::Switch { .. } => return,
        };
        if let Some(me) = self.place_in(owner.0) {
            dataplane(owner.0).page.set_wish(me, wish);
        }
    }

    /// The core itself, in root mode: whether it is to go to somebody else now.
    pub fn look(&self) -> Option<Switch> {
        let now = time::now_ns();
        let mut inner = self.inner.lock();
        self.follow_schedule(&mut inner, now);
        switch_of(inner.shared.look(now))
    }

    /// Its dataplane has left it; without having been asked it stays.
    pub fn yielded(&self) -> Option<Switch> {
        switch_of(self.inner.lock().shared.yielded())
    }

    /// Its dataplane has ended: on to the next one, if there is any.
    pub fn pass_on(&self, d: u8) -> Option<Switch> {
        let next = self.next(d)?;
        let mut inner = self.inner.lock();
        inner.shared.want(Number(next), time::now_ns(), 0).ok()?;
        switch_of(inner.shared.look(time::now_ns()))
    }

    fn follow_schedule(&self, inner: &mut Inner, now: u64) {
        let Some(schedule) = inner.schedule else { return };
        let owner = inner.shared.owner().0;
        let all_up = || self.members.iter().all(|(d, _)| dataplane(*d).is_up());
        match inner.next_ns {
            None if inner.shared.due_ns().is_none() && all_up() => {
                inner.next_ns = Some(now + schedule.every_us * 1000);
            }
            Some(at) if now >= at && !all_up() => inner.next_ns = None,
            Some(at) if now >= at => {
                inner.next_ns = None;
                let Some(to) = self.next(owner) else { return };
                if let Ok(step) = inner.shared.want(Number(to), now, schedule.patience_us * 1000) {
                    self.tell(step);
                }
            }
            _ => {}
        }
    }

    /// When the core has to look again.
    pub fn due_ns(&self) -> Option<u64> {
        let inner = self.inner.lock();
        inner.shared.due_ns().or(inner.next_ns)
    }

    /// Carries a move out, with the state of whoever was here put away. `pending`: interrupts that were still to come to it;
    /// `was_running`: it had something here.
    pub fn switch(&self, switch: Switch, pending: Vectors, was_running: bool) {
        let (from, to) = (dataplane(switch.from), dataplane(switch.to));
        if let Some(me) = self.place_in(switch.from) {
            from.virtual_cores[me].keep_all_pending(pending);
            let is_forced = switch.is_forced && was_running;
            if was_running {
                from.page.count_leave(me, is_forced);
            }
            from.page.set_away(me, true);
        }
        if let Some(me) = self.place_in(switch.to) {
            to.page.set_wish(me, Wish::Keep);
            to.page.set_away(me, false);
        }
        let mut inner = self.inner.lock();
        let counts = &mut inner.counts;
        counts.asked += 1;
        counts.forced += u64::from(switch.is_forced && was_running);
        counts.idle += u64::from(!was_running);
        let step = inner.shared.switched(time::now_ns(), true);
        self.tell(step);
        let left = inner.schedule.as_mut().map(|schedule| {
            schedule.times -= 1;
            schedule.times
        });
        if left == Some(0) {
            inner.schedule = None;
            drop(inner);
            self.report();
        }
    }

    fn report(&self) {
        let Counts { asked, forced, idle } = self.inner.lock().counts;
        log::info!(
            "core {}: {asked} moves: {} left as asked, {forced} forced, {idle} with nothing on it",
            self.physical,
            asked - forced - idle
        );
    }

    /// Interrupts that came while its core was away go to `d`, which is about to run here.
    pub fn raise_pending(&self, d: &Dataplane, me: usize) {
        kept::raise(d.virtual_cores[me].take_pending());
    }
}

fn switch_of(step: Step) -> Option<Switch> {
    match step {
        Step::Switch { from, to, is_forced } => Some(Switch { from: from.0, to: to.0, is_forced }),
        _ => None,
    }
}

impl Dataplane {
    /// Whether its kernel has come so far that its first core serves.
    fn is_up(&self) -> bool {
        self.state() == State::Runs && self.virtual_cores[0].heartbeat.load(Ordering::Relaxed) != 0
    }
}
