use super::*;
use alloc::collections::{BTreeSet, BinaryHeap};
use core::cmp::Reverse;
use proptest::prelude::*;

const IDS: u32 = 40;

/// A heap with lazy deletion: the plainest thing that is right.
struct Model {
    heap: BinaryHeap<Reverse<(u64, u32)>>,
    armed: [Option<u64>; IDS as usize],
    present: u64,
}

impl Model {
    fn arm(&mut self, id: u32, at: u64) {
        let tick = at.div_ceil(TICK_NS).max(self.present + 1);
        self.armed[id as usize] = Some(tick);
        self.heap.push(Reverse((tick, id)));
    }

    fn advance(&mut self, now: u64) {
        self.present = self.present.max(now / TICK_NS);
    }

    fn pop_all(&mut self) -> BTreeSet<u32> {
        let mut due = BTreeSet::new();
        while let Some(&Reverse((tick, id))) = self.heap.peek() {
            if tick > self.present {
                break;
            }
            self.heap.pop();
            if self.armed[id as usize] == Some(tick) {
                self.armed[id as usize] = None;
                due.insert(id);
            }
        }
        due
    }

    fn earliest(&self) -> Option<u64> {
        self.armed.iter().flatten().min().copied()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arm { id: u32, after: u64 },
    ArmInThePast { id: u32, before: u64 },
    Cancel { id: u32 },
    Advance { by: u64 },
    ToNextDeadline,
    PopSome { count: usize },
    PopAll,
}

/// Distances of all magnitudes: within a tick, each level, beyond the last, years.
fn distance() -> impl Strategy<Value = u64> {
    (0_u32..58, any::<u64>()).prop_map(|(bits, random)| random & ((1 << bits) - 1))
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0..IDS;
    prop_oneof![
        6 => (id.clone(), distance()).prop_map(|(id, after)| Step::Arm { id, after }),
        1 => (id.clone(), distance()).prop_map(|(id, before)| Step::ArmInThePast { id, before }),
        2 => id.prop_map(|id| Step::Cancel { id }),
        3 => distance().prop_map(|by| Step::Advance { by }),
        3 => Just(Step::ToNextDeadline),
        1 => (1_usize..4).prop_map(|count| Step::PopSome { count }),
        3 => Just(Step::PopAll),
    ]
}

fn agrees_with_the_heap(start: u64, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut now = start;
    let mut wheel = Wheel::new(Instant(now), IDS);
    let mut model =
        Model { heap: BinaryHeap::new(), armed: [None; IDS as usize], present: now / TICK_NS };
    for step in steps {
        match step {
            Step::Arm { id, after } => {
                wheel.arm(id, Instant(now + after));
                model.arm(id, now + after);
            }
            Step::ArmInThePast { id, before } => {
                wheel.arm(id, Instant(now.saturating_sub(before)));
                model.arm(id, now.saturating_sub(before));
            }
            Step::Cancel { id } => {
                wheel.cancel(id);
                model.armed[id as usize] = None;
            }
            Step::Advance { by } => now += by,
            Step::ToNextDeadline => {
                let next = wheel.next_deadline();
                if next != Instant::NEVER {
                    now = now.max(next.0);
                }
            }
            Step::PopSome { count } => {
                for _ in 0..count {
                    let Some(id) = wheel.pop_expired() else { break };
                    let tick = model.armed[id as usize].take();
                    prop_assert!(tick.is_some_and(|tick| tick <= model.present), "{} early", id);
                }
            }
            Step::PopAll => {
                let mut popped = BTreeSet::new();
                while let Some(id) = wheel.pop_expired() {
                    prop_assert!(popped.insert(id), "{} twice", id);
                }
                prop_assert_eq!(popped, model.pop_all());
            }
        }
        if matches!(step, Step::Advance { .. } | Step::ToNextDeadline) {
            wheel.advance(Instant(now));
            model.advance(now);
        }
        let armed = model.armed.iter().flatten().count();
        prop_assert_eq!(wheel.len() as usize, armed);
        prop_assert_eq!(wheel.is_empty(), armed == 0);
        for id in 0..IDS {
            let expected = model.armed[id as usize].map(|tick| Instant(tick * TICK_NS));
            prop_assert_eq!(wheel.deadline(id), expected);
        }
        match model.earliest() {
            Some(tick) => prop_assert!(wheel.next_deadline() <= Instant(tick * TICK_NS)),
            None => prop_assert_eq!(wheel.next_deadline(), Instant::NEVER),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_wheel_agrees_with_a_heap(
        start in distance(), steps in proptest::collection::vec(step(), 1..120),
    ) {
        agrees_with_the_heap(start, steps)?;
    }

    #[test]
    fn going_from_deadline_to_deadline_fires_every_timer_in_order(
        start in distance(), after in proptest::collection::vec(distance(), 1..IDS as usize),
    ) {
        let mut wheel = Wheel::new(Instant(start), IDS);
        for (id, after) in after.iter().enumerate() {
            wheel.arm(id as u32, Instant(start + after));
        }
        let (mut fired, mut last, mut hops) = (0, 0, 0);
        while !wheel.is_empty() {
            let next = wheel.next_deadline();
            wheel.advance(next);
            hops += 1;
            while let Some(id) = wheel.pop_expired() {
                let at = start + after[id as usize];
                let tick = at.div_ceil(TICK_NS).max(start / TICK_NS + 1);
                prop_assert_eq!(next.0, tick * TICK_NS);
                prop_assert!(tick >= last);
                last = tick;
                fired += 1;
            }
            // Five moves down for each, and one per turn of the whole wheel while any is far.
            let turns = (next.0 - start) >> (TICK_SHIFT + 30);
            prop_assert!(hops <= 6 * after.len() as u64 + turns + 1, "{} hops", hops);
        }
        prop_assert_eq!(fired, after.len());
    }
}

#[test]
fn a_timer_is_never_early_and_fires_with_the_tick_that_follows_its_deadline() {
    let mut wheel = Wheel::new(Instant(0), 1);
    wheel.arm(0, Instant(5 * TICK_NS + 1));
    wheel.advance(Instant(5 * TICK_NS + 1));
    assert_eq!(wheel.pop_expired(), None);
    wheel.advance(Instant(6 * TICK_NS - 1));
    assert_eq!(wheel.pop_expired(), None);
    wheel.advance(Instant(6 * TICK_NS));
    assert_eq!(wheel.pop_expired(), Some(0));
    assert_eq!(wheel.pop_expired(), None);
    assert_eq!(wheel.deadline(0), None);
}

#[test]
fn a_deadline_on_a_tick_is_exact() {
    let mut wheel = Wheel::new(Instant(0), 1);
    wheel.arm(0, Instant(7 * TICK_NS));
    assert_eq!(wheel.next_deadline(), Instant(7 * TICK_NS));
    wheel.advance(Instant(7 * TICK_NS));
    assert_eq!(wheel.pop_expired(), Some(0));
}

#[test]
fn arming_for_the_past_fires_at_the_next_tick_and_cannot_keep_a_handler_in_a_loop() {
    let mut wheel = Wheel::new(Instant(0), 1);
    wheel.advance(Instant(100 * TICK_NS));
    wheel.arm(0, Instant(3));
    assert_eq!(wheel.pop_expired(), None);
    wheel.advance(Instant(101 * TICK_NS));
    assert_eq!(wheel.pop_expired(), Some(0));
}

#[test]
fn an_expired_timer_can_still_be_cancelled_or_armed_anew() {
    let mut wheel = Wheel::new(Instant(0), 4);
    (0..4).for_each(|id| wheel.arm(id, Instant(TICK_NS)));
    wheel.advance(Instant(TICK_NS));
    assert_eq!(wheel.next_deadline(), Instant(0));
    wheel.cancel(0);
    wheel.arm(3, Instant(9 * TICK_NS));
    let mut popped: Vec<u32> = core::iter::from_fn(|| wheel.pop_expired()).collect();
    popped.sort_unstable();
    assert_eq!(popped, [1, 2]);
    assert_eq!(wheel.next_deadline(), Instant(9 * TICK_NS));
}

#[test]
fn the_end_of_time_disarms() {
    let mut wheel = Wheel::new(Instant(0), 1);
    wheel.arm(0, Instant(5));
    wheel.arm(0, Instant::NEVER);
    assert!(wheel.is_empty());
    wheel.arm(0, Instant(u64::MAX - 1));
    wheel.advance(Instant(u64::MAX - TICK_NS));
    assert_eq!(wheel.pop_expired(), None);
}

#[test]
fn growing_keeps_what_is_armed() {
    let mut wheel = Wheel::new(Instant(0), 1);
    wheel.arm(0, Instant(1));
    assert!(wheel.grow(1000));
    wheel.arm(999, Instant(1));
    assert!(wheel.grow(10));
    assert_eq!((wheel.capacity(), wheel.len()), (1000, 2));
    wheel.advance(Instant(TICK_NS));
    assert!(wheel.pop_expired().is_some() && wheel.pop_expired().is_some());
}

#[test]
fn a_wheel_without_timers_takes_less_than_1500_bytes() {
    assert!(size_of::<Wheel>() < 1500, "{}", size_of::<Wheel>());
}

#[test]
fn a_million_timers_on_one_slot_fire_once_each() {
    const N: u32 = 1_000_000;
    let mut wheel = Wheel::new(Instant(0), N);
    (0..N).for_each(|id| wheel.arm(id, Instant(3_600_000_000_000)));
    wheel.advance(Instant(3_600_000_000_000 - TICK_NS));
    assert_eq!(wheel.pop_expired(), None);
    wheel.advance(Instant(3_600_000_000_000 + TICK_NS));
    let mut fired = 0;
    while wheel.pop_expired().is_some() {
        fired += 1;
    }
    assert_eq!(fired, N);
}

#[test]
fn what_expired_first_is_popped_first() {
    let tick = |n| Instant(n * TICK_NS);
    let mut wheel = Wheel::new(tick(0), 8);
    for id in 0..6 {
        wheel.arm(id, tick(10 + 10 * u64::from(id)));
    }
    wheel.advance(tick(20));
    // What was not popped yet stays before those that expire later; the last may go, as any.
    wheel.cancel(1);
    wheel.advance(tick(30));
    wheel.advance(tick(60));
    wheel.cancel(5);
    wheel.arm(7, tick(70));
    wheel.advance(tick(70));
    let popped: Vec<u32> = core::iter::from_fn(|| wheel.pop_expired()).collect();
    assert_eq!(popped, [0, 2, 3, 4, 7]);
}
