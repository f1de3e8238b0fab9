//! Cores that the monitor lends to other dataplanes: what it wishes, what core 0 does about it, and where a core leaves.
//!
//! The monitor's page will be the source of wishes, and [`leave`] its call. Until those are merged the wishes are words in
//! memory that nobody writes, and the call returns at once.
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use ix_abi::CoreId;
use ix_abi::limits::CORES_MAX;
use ix_abi::status::Status;
use ix_dataplane::engine::Engine;
use ix_dataplane::lend;
use ix_kernel_core::lending::{Action, Lending, Presence, Seen, Shape, Source};

use crate::{net, time};

/// What the monitor wishes. STUB: to be read from its page.
static WISHES: AtomicU64 = AtomicU64::new(0);
/// How often it has stopped each core. STUB: likewise.
static STOPPED: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];

/// How often each core was given up for lost: written by core 0, for the core itself to find when it runs again.
static TAKEN: [AtomicU32; CORES_MAX] = [const { AtomicU32::new(0) }; CORES_MAX];

/// How long the end of an application waits for cores that are away.
const RECALL_NS: u64 = 2_000_000_000;

/// The words above.
struct Memory;

impl Source for Memory {
    fn wants_away(&self, core: usize) -> bool {
        WISHES.load(Ordering::Relaxed) >> core & 1 != 0
    }
    fn times_taken(&self, core: usize) -> u32 {
        STOPPED[core % CORES_MAX].load(Ordering::Relaxed)
    }
}

/// How often a core was taken: another number than at the last look, and it has to give up what it had.
pub fn times_taken(core: usize) -> u32 {
    TAKEN[core % CORES_MAX].load(Ordering::Relaxed)
}

/// A core hands itself over; returns when it is the dataplane's again. STUB: the monitor's call (VMCALL YIELD) goes here. It returns at
/// once, so that a core which was asked to leave returns in the same moment.
pub fn leave(_core: usize) {}

/// What is to become of the cores that serve.
pub(super) enum Order {
    /// As it is.
    Nothing,
    /// These are not to serve: a bit each.
    Clear(u64),
    /// This one was stopped, and does not serve any more.
    Taken(usize),
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
        Self { cores, lending, waits: None }
    }

    pub(super) fn set_reserved(&mut self, reserved: u64) {
        self.lending.set_reserved(reserved);
    }

    /// Cores that cannot serve, a bit each.
    pub(super) fn away(&self) -> u64 {
        self.lending.away()
    }

    /// Every millisecond, for one core: `parked` are those that do not serve, `serving` those that do, a bit each.
    pub(super) fn step(&mut self, engine: &mut Engine, core: usize, masks: (u64, u64)) -> Order {
        let (parked, serving) = masks;
        if let Some(why) = self.lending.refusal(core, &Memory) {
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
        match self.lending.step(core, seen, &Memory) {
            Action::Nothing | Action::Welcome if self.lending.state(core) == before => {
                return Order::Nothing;
            }
            Action::Nothing | Action::Welcome => {}
            Action::Clear => return Order::Clear(1 << core),
            Action::SendAway => {
                // What is refused now is tried again: a group may have come to it.
                if engine.send_away(id) == Status::Ok {
                    net::wake_core(core);
                }
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
        log::info!("core {core} is {}", self.lending.state(core).name());
        Order::Changed
    }

    pub(super) fn cores(&self) -> usize {
        self.cores
    }

    /// An application has to end and cores that are away have a part of it: they are to come back. Whether that has taken too long.
    pub(super) fn recall(&mut self, ends: bool) -> bool {
        if !ends || self.lending.gone() == 0 {
            self.waits = None;
            return false;
        }
        let now = time::now_ns();
        if self.waits.is_none() {
            log::info!("the application ends: the cores that are away are called back");
            // STUB: said to the monitor, once there is its page.
        }
        now.saturating_sub(*self.waits.get_or_insert(now)) > RECALL_NS
    }
}
