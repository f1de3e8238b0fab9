//! Scarcity by seed: memory that there is none of, a transmit queue that is full, buffers that are
//! elsewhere. What fails is drawn for each run and ends at a time; then everything must go on.
//!
//! Allocations fail in the test program's allocator (`tests/faults.rs`), only while an engine runs:
//! the engine itself has no hook for it, and nothing of it is in what ships. An allocation of its
//! that cannot be refused ends the test program.
use super::swarm::Swarm;
use super::{MS, S, Time};
use ix_dataplane::rng::Rng;
use std::cell::Cell;

/// What fails in a run, each once in so many times; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plan {
    /// Allocations of an engine.
    pub allocations: u32,
    /// Pushes to a transmit queue.
    pub pushes: u32,
    /// Replenishings of a receive queue, which then takes buffers away instead.
    pub refills: u32,
    /// Until then.
    pub until: Time,
}

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An allocation.
    Allocation,
    /// A push to a transmit queue.
    Push,
    /// A refill of a receive queue.
    Refill,
}

/// Kinds of faults.
pub const KINDS: usize = 3;

thread_local! {
    static PLAN: Cell<Option<Plan>> = const { Cell::new(None) };
    static STATE: Cell<u64> = const { Cell::new(0) };
    static NOW: Cell<Time> = const { Cell::new(0) };
    static IN_ENGINE: Cell<bool> = const { Cell::new(false) };
    static DONE: Cell<[u64; KINDS]> = const { Cell::new([0; KINDS]) };
}

/// Draws what fails in a run, and makes its machines small.
pub fn draw(swarm: &mut Swarm, rng: &mut Rng) -> Plan {
    let one_of = |rng: &mut Rng, choices: &[u32]| choices[rng.below(choices.len() as u64) as usize];
    for machine in &mut swarm.machines {
        // A group that begins afresh takes memory that cannot be refused.
        machine.takes = 0;
        if rng.chance(1, 2) {
            machine.mesh = one_of(rng, &[1, 2, 8]) as usize;
        }
        if rng.chance(1, 3) {
            machine.connections = one_of(rng, &[1, 2, 8]);
        }
        if rng.chance(1, 4) {
            // More than there are header slots.
            machine.tx_ring = 4096;
            machine.tx_delay = 100 * MS;
        }
    }
    Plan {
        allocations: one_of(rng, &[0, 1, 2, 2, 5]),
        pushes: one_of(rng, &[0, 2, 5, 50]),
        refills: one_of(rng, &[0, 2, 10]),
        until: [100 * MS, S, 5 * S][rng.below(3) as usize],
    }
}

/// Puts a plan in force in this thread, or none.
pub fn begin(plan: Option<Plan>, seed: u64) {
    PLAN.set(plan);
    STATE.set(seed);
    NOW.set(0);
    DONE.set([0; KINDS]);
}

/// Whether there is a plan: calls may fail that otherwise must not.
pub fn planned() -> bool {
    PLAN.get().is_some()
}

/// How much was made to fail, by [`Kind`].
pub fn done() -> [u64; KINDS] {
    DONE.get()
}

/// The virtual time.
pub fn set_time(now: Time) {
    NOW.set(now);
}

/// Whether this one fails. Allocates nothing.
pub fn strikes(kind: Kind) -> bool {
    let Some(plan) = PLAN.get().filter(|plan| NOW.get() < plan.until) else { return false };
    let one_in = match kind {
        Kind::Allocation if !IN_ENGINE.get() => 0,
        Kind::Allocation => plan.allocations,
        Kind::Push => plan.pushes,
        Kind::Refill => plan.refills,
    };
    if one_in == 0 {
        return false;
    }
    // splitmix64
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let z = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    let strikes = (z ^ z >> 31).is_multiple_of(u64::from(one_in));
    if strikes {
        let mut done = DONE.get();
        done[kind as usize] += 1;
        DONE.set(done);
    }
    strikes
}

/// Whether an allocation that is asked for now is refused: for the program's allocator.
pub fn refuses_allocation() -> bool {
    IN_ENGINE.get() && strikes(Kind::Allocation)
}

/// While it lives, what runs is an engine, or is not: callbacks into the simulation are not.
#[derive(Debug)]
pub struct Scope {
    before: bool,
}

impl Scope {
    /// An engine runs.
    pub fn engine() -> Scope {
        Scope { before: IN_ENGINE.replace(true) }
    }

    /// The simulation itself runs.
    pub fn simulation() -> Scope {
        Scope { before: IN_ENGINE.replace(false) }
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        IN_ENGINE.set(self.before);
    }
}
