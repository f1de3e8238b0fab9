//! How many cores the dataplane wants, on the control page; and the grants with which congested cores wake parked ones.
use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::CoreId;
use ix_abi::control::BULK_BASE;
use ix_abi::demand::{LIMIT_WORDS, Limits, word};
use ix_abi::event_log::EventKind;
use ix_abi::limits::CORES_MAX;
use ix_abi::measure::WINDOW_LENGTH_NS;
use ix_abi::status::Status;
use ix_dataplane::moves::Grant;
use ix_kernel_core::demand::{self, Demand, Figures};

use crate::{control, measure, watch};

/// The grant of each core: which core (plus 1) in bits 0–15, a number above that which changes with it; 0: none. Written
/// by core 0.
static GRANTS: [AtomicU64; CORES_MAX] = [const { AtomicU64::new(0) }; CORES_MAX];
/// When a core may use it.
static DELAY_NS: AtomicU64 = AtomicU64::new(u64::MAX);
static AFTER_NS: AtomicU64 = AtomicU64::new(0);

/// A core's grant, with the number that tells it from others.
pub fn grant_of(core: usize) -> (u64, Option<Grant>) {
    let word = GRANTS[core % CORES_MAX].load(Ordering::Relaxed);
    let to = (word as u16).checked_sub(1).map(CoreId);
    let delay_ns = DELAY_NS.load(Ordering::Relaxed);
    let after_ns = AFTER_NS.load(Ordering::Relaxed);
    (word, to.map(|to| Grant { to, delay_ns, after_ns }))
}

/// Core 0's part.
pub(super) struct Task {
    cores: usize,
    demand: Demand,
    /// Limits taken into force.
    number: u64,
    next: u64,
    grant_ends: Option<u64>,
    /// Cores woken.
    wakes: u64,
    /// Grants given out.
    grants: u64,
    /// Whom each core may wake now; 0: nobody.
    given: [u16; CORES_MAX],
}

impl Task {
    pub(super) fn new(cores: usize) -> Self {
        Self {
            cores,
            demand: Demand::new(cores as u16),
            number: 0,
            next: 0,
            grant_ends: None,
            wakes: 0,
            grants: 0,
            given: [0; CORES_MAX],
        }
    }

    /// Limits that a client has laid into the bulk area: read once, then checked.
    pub(super) fn set_limits(&mut self, now: u64) -> Result<u64, Status> {
        let words: [u64; LIMIT_WORDS] = core::array::from_fn(|i| control::get(BULK_BASE + i * 8));
        let limits = Limits::decode(&words)?;
        self.number += 1;
        self.grant_ends = (limits.grant != 0 && limits.lease_ns != 0)
            .then(|| now.saturating_add(limits.lease_ns));
        self.demand.set_limits(limits);
        self.show_limits();
        Ok(self.number)
    }

    pub(super) fn show_limits(&self) {
        for (i, value) in self.demand.limits().encode().into_iter().enumerate() {
            control::set(word::LIMITS + i * 8, value);
        }
        control::set(word::GRANT_ENDS_NS, self.grant_ends.unwrap_or(0));
        control::set(word::LIMITS_NUMBER, self.number);
    }

    /// A core has woken another.
    pub(super) fn woken(&mut self, core: u16, by: u16, now: u64) {
        self.wakes += 1;
        control::set(word::LAST_WAKE, u64::from(core) | u64::from(by) << 16);
        control::set(word::LAST_WAKE_NS, now);
        control::set(word::WAKES, self.wakes);
        // No line on the console: that would take core 0, which may be the congested one, longer than the wake did.
    }

    /// Every millisecond. `serving` and `parked` are cores, a bit each; the others are reserved.
    pub(super) fn tick(&mut self, now: u64, serving: u64, parked: u64) {
        if self.grant_ends.is_some_and(|end| now >= end) {
            self.grant_ends = None;
            self.demand.set_limits(Limits { grant: 0, ..*self.demand.limits() });
            watch::log::record(EventKind::GrantEnds, 0, self.number, 0);
            self.show_limits();
        }
        if now >= self.next {
            self.next = now + WINDOW_LENGTH_NS;
            self.demand.set_cores((serving | parked).count_ones() as u16);
            self.look(now, serving);
        }
        self.grant(serving, parked);
    }

    fn look(&mut self, now: u64, serving: u64) {
        let cores = (0..self.cores).filter(|core| serving & 1 << core != 0);
        let seen = Figures::of(cores.map(measure::seen));
        let other = self.demand.look(now, &seen);
        for (offset, value) in [
            (word::LOOKED_NS, now),
            (word::SERVING, seen.serving.into()),
            (word::DELAY_P99_NS, seen.delay_p99_ns),
            (word::BUSY_PERMILLE, seen.busy_mean()),
            (word::BUSY_MAX_PERMILLE, seen.busy_max),
            (word::DEPTH_MAX, seen.depth_max),
            (word::FRAMES, seen.frames),
        ] {
            control::set(offset, value);
        }
        if other {
            let (want, since) = self.demand.want();
            control::set(word::SINCE_NS, since);
            control::set(word::WANT, want.encode());
            // What it has is no event.
            if want.cores != seen.serving {
                let figures = seen.busy_mean()
                    | u64::from(want.reason.0) << 16
                    | u64::from(seen.serving) << 32;
                let kind = EventKind::CoresWanted;
                watch::log::record(kind, want.cores, seen.delay_p99_ns, figures);
            }
        }
    }

    /// Tells each core whom it may wake.
    fn grant(&mut self, serving: u64, parked: u64) {
        let limits = *self.demand.limits();
        let room = u32::from(limits.cores_max).saturating_sub(serving.count_ones());
        let mut free = parked & limits.grant;
        while free.count_ones() > room {
            free &= !(1 << (63 - free.leading_zeros()));
        }
        let mut wanted = [0; CORES_MAX];
        if free != 0 {
            let busy: [u64; CORES_MAX] =
                core::array::from_fn(|core| measure::seen(core).busy_permille);
            demand::share_out(serving, free, &busy, |core, to| wanted[usize::from(core)] = to + 1);
            DELAY_NS.store(limits.wake_delay_ns, Ordering::Relaxed);
            AFTER_NS.store(limits.wake_after_ns, Ordering::Relaxed);
        }
        if wanted == self.given {
            return;
        }
        for core in 0..self.cores {
            if wanted[core] == self.given[core] {
                continue;
            }
            self.grants += 1;
            let word = if wanted[core] == 0 { 0 } else { self.grants << 16 };
            GRANTS[core].store(word | u64::from(wanted[core]), Ordering::Relaxed);
        }
        self.given = wanted;
    }
}
