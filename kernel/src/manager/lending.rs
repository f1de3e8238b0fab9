//! Cores that the monitor lends to other dataplanes: what it wishes (its page), what core 0 does about it, and where a core leaves.
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ix_abi::CoreId;
use ix_abi::control::{GiveRefusal, REPLY_BASE, leaves_offset};
use ix_abi::limits::CORES_MAX;
use ix_abi::status::Status;
use ix_dataplane::engine::Engine;
use ix_dataplane::lend;
use ix_kernel_core::lending::{Action, Lending, Presence, Seen, Shape, Source, State};

use crate::vmx::guest;
use crate::{control, net, selftest, smp, time};

/// How often each core was given up for lost: written by core 0, for the core itself to find when it runs again.
static TAKEN: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];
/// How often each had been stopped in earlier lives of the dataplane.
static BEFORE: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];
/// For `selftest=vmx-deaf`: wishes are not heard.
static DEAF: AtomicBool = AtomicBool::new(false);
/// For `selftest=vmx-stubborn`: nor is it that the time is over.
static STUBBORN: AtomicBool = AtomicBool::new(false);

/// How long the end of an application waits for cores that are away.
const RECALL_NS: u64 = 2_000_000_000;
/// How long a core that was stopped waits for core 0 to know it.
const KNOWN_NS: u64 = 100_000_000;

/// The monitor's page.
struct Monitor;

impl Source for Monitor {
    fn wants_away(&self, core: usize) -> bool {
        guest::is_wished_away(core) && !DEAF.load(Ordering::Relaxed)
    }
    /// A core that was not there at boot is one that was stopped before it did anything.
    fn times_taken(&self, core: usize) -> u32 {
        let since =
            guest::times_taken(core).wrapping_sub(BEFORE[core % CORES_MAX].load(Ordering::Relaxed));
        since + ABSENT_AT_BOOT[core % CORES_MAX].load(Ordering::Relaxed)
    }
}

/// 1: so it was.
static ABSENT_AT_BOOT: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];

/// The monitor's wishes are not heard from now on: cores are only had by force; wherever they are, if it is `stubborn`, too.
pub fn be_deaf(stubborn: bool) {
    DEAF.store(true, Ordering::Relaxed);
    STUBBORN.store(stubborn, Ordering::Relaxed);
}

/// Whether a core stays although its time is over.
pub fn is_stubborn() -> bool {
    STUBBORN.load(Ordering::Relaxed)
}

/// How often a core was taken: another number than at the last look, and it has to give up what it had.
pub fn times_taken(core: usize) -> u32 {
    TAKEN[core % CORES_MAX].load(Ordering::Acquire)
}

/// A core hands itself over; returns when it is the dataplane's again.
pub fn leave() {
    guest::leave(true);
}

/// A core that the monitor is about to stop anyway, since it was asked for in vain, hands itself over with all that it has, at a point
/// where it holds nothing that others wait for. Returns when it is back and core 0 knows (`taken`: how often it was before).
pub fn leave_late(core: usize, taken: u32) {
    guest::leave(false);
    let until = time::now_ns() + KNOWN_NS;
    while times_taken(core) == taken && time::now_ns() < until {
        core::hint::spin_loop();
    }
}

/// What is to become of the cores that serve.
pub(super) enum Order {
    /// As it is.
    Nothing,
    /// These are not to serve: a bit each.
    Clear(u64),
    /// This one was stopped, and does not serve any more.
    Taken(usize),
    /// This one is back for good: it serves again.
    Welcome(usize),
    /// Something else has changed.
    Changed,
}

/// Core 0's part.
pub(super) struct Task {
    cores: usize,
    lending: Lending,
    /// Since when the end of an application waits for cores that are away.
    waits: Option<u64>,
}

impl Task {
    pub(super) fn new(cores: usize, sharing: u64, reserved: u64) -> Self {
        let lending = Lending::new(Shape { cores, sharing, reserved });
        for core in 0..cores.min(CORES_MAX) {
            BEFORE[core].store(guest::times_taken(core), Ordering::Relaxed);
            ABSENT_AT_BOOT[core].store(u32::from(smp::is_absent(core)), Ordering::Relaxed);
        }
        Self { cores, lending, waits: None }
    }

    pub(super) fn set_reserved(&mut self, reserved: u64) {
        self.lending.set_reserved(reserved);
    }

    /// Cores that cannot serve, a bit each.
    pub(super) fn away(&self) -> u64 {
        self.lending.away()
    }

    /// Of them, those that do not run here, a bit each.
    pub(super) fn gone(&self) -> u64 {
        self.lending.gone()
    }

    /// The operator gives a core to the next dataplane that lists it, or to the one whose name the bulk area has; its number.
    pub(super) fn give(&self, core: usize, name_bytes: usize) -> Result<u8, GiveRefusal> {
        guest::page().ok_or(GiveRefusal::NoMonitor)?;
        self.lending.may_be_given(core)?;
        let name = if name_bytes == 0 { None } else { control::copy_bulk(name_bytes) };
        if name_bytes != 0 && name.is_none() {
            return Err(GiveRefusal::NoSuchDataplane);
        }
        let to = guest::give(core, name.as_deref())?;
        let its_name = guest::page().and_then(|page| page.neighbour(to)).unwrap_or_default();
        control::write_area(REPLY_BASE, &its_name);
        let shown = its_name.split(|byte| *byte == 0).next().unwrap_or_default();
        log::info!("core {core} is to go to {}, by command", shown.escape_ascii());
        Ok(to)
    }

    /// Every millisecond, for one core: `parked` are those that do not serve, `serving` those that do, a bit each.
    pub(super) fn step(&mut self, engine: &mut Engine, core: usize, masks: (u64, u64)) -> Order {
        let (parked, serving) = masks;
        control::set(leaves_offset(core), guest::leaves(core));
        if smp::is_absent(core) && !guest::is_away(core) {
            smp::start_late(core);
        }
        if let Some(why) = self.lending.refusal(core, &Monitor) {
            log::warn!("core {core} is not lent: {why}");
        }
        let id = CoreId(core as u16);
        let presence = match engine.presence(id) {
            lend::Presence::Here => Presence::Here,
            lend::Presence::Leaving => Presence::Leaving,
            lend::Presence::Away => Presence::Away,
            lend::Presence::Taken => Presence::Taken,
            lend::Presence::Returning => Presence::Returning,
        };
        let before = self.lending.state(core);
        let seen = Seen { parked: parked >> core & 1 != 0, presence };
        match self.lending.step(core, seen, &Monitor) {
            Action::Nothing if self.lending.state(core) == before => return Order::Nothing,
            Action::Nothing => {}
            Action::Welcome => {
                log::debug!("core {core} is back");
                selftest::vmx::core_moved(true);
                return Order::Welcome(core);
            }
            Action::Clear => return Order::Clear(1 << core),
            Action::SendAway => {
                // What is refused now is tried again: a group may have come to it.
                if engine.send_away(id) != Status::Ok {
                    return Order::Nothing;
                }
                net::wake_core(core);
            }
            Action::Recall => engine.recall(id),
            Action::Take => {
                // Before anybody else gets its groups: it looks there first when it runs again.
                let count = &TAKEN[core];
                count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
                let _it_had_left = engine.take_away(id, serving & !(1 << core));
                log::warn!("core {core} was stopped: its flow groups begin afresh elsewhere");
                return Order::Taken(core);
            }
        }
        if self.lending.state(core) == State::Away {
            selftest::vmx::core_moved(false);
        }
        log::debug!("core {core} is {}", self.lending.state(core).name());
        Order::Changed
    }

    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    /// An application has to end and cores that are away have a part of it. Whether they have been waited for too long.
    pub(super) fn waits_too_long(&mut self, ends: bool) -> bool {
        if !ends || self.lending.gone() == 0 {
            self.waits = None;
            return false;
        }
        let now = time::now_ns();
        if self.waits.is_none() {
            // They come when whoever has them lets them go; the monitor knows no call for that.
            log::info!("the application ends: its cores that are away are waited for");
        }
        now.saturating_sub(*self.waits.get_or_insert(now)) > RECALL_NS
    }
}
