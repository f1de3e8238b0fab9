//! Linearisable per key: threads hammer one key set through connections of their own, and a search
//! decides on the recorded histories. The search itself is held to histories with known answers.
mod common;

use common::client::{Client, shared};
use common::linear::load::{Ask, Load, run};
use common::linear::{Event, Op, Outcome, check};
use std::time::{Duration, Instant};

fn event(from: u64, to: u64, op: Op, outcome: Outcome) -> Event {
    Event { from, to, op, outcome }
}

fn set(from: u64, to: u64, value: &str, version: u64) -> Event {
    event(from, to, Op::Set(value.into()), Outcome::Stored(version))
}

fn get(from: u64, to: u64, value: &str, version: u64) -> Event {
    event(from, to, Op::Get, Outcome::Value(value.into(), version))
}

fn miss(from: u64, to: u64) -> Event {
    event(from, to, Op::Get, Outcome::NotFound)
}

fn delete(from: u64, to: u64, outcome: Outcome) -> Event {
    event(from, to, Op::Delete, outcome)
}

fn incr(from: u64, to: u64, value: &str, version: u64) -> Event {
    event(from, to, Op::Incr(1), Outcome::Value(value.into(), version))
}

#[test]
fn the_checker_accepts_what_has_an_order() {
    let histories = [
        vec![],
        vec![miss(0, 1), set(2, 3, "a", 1), get(4, 5, "a", 1)],
        // A get beside a set may see it or not.
        vec![set(0, 10, "a", 1), miss(1, 2), get(3, 4, "a", 1)],
        // The set that was asked for later came first.
        vec![set(0, 10, "a", 2), set(1, 9, "b", 1), get(11, 12, "a", 2)],
        vec![set(0, 1, "1", 1), incr(2, 8, "3", 3), incr(3, 7, "2", 2), get(9, 10, "3", 3)],
        // All at once, given in the wrong order.
        vec![
            get(0, 9, "ab", 2),
            event(0, 9, Op::Append("b".into()), Outcome::Stored(2)),
            delete(0, 9, Outcome::Deleted),
            set(0, 9, "a", 1),
            miss(0, 9),
        ],
        // At the same moment counts as beside each other.
        vec![set(0, 5, "a", 1), miss(5, 6)],
    ];
    for history in histories {
        assert!(check(&history).is_ok(), "{history:?}");
    }
}

#[test]
fn the_checker_refuses_what_has_none() {
    let cas = |from, to, expected, outcome| event(from, to, Op::Cas(expected, "c".into()), outcome);
    let histories = [
        // A stale read.
        vec![set(0, 1, "a", 1), set(2, 3, "b", 2), get(4, 5, "a", 1)],
        // A value nobody wrote, or under another version.
        vec![set(0, 1, "a", 1), get(2, 3, "b", 1)],
        vec![set(0, 1, "a", 1), get(2, 3, "a", 2)],
        // Two reads beside a write see it in the wrong order.
        vec![set(0, 1, "a", 1), set(2, 9, "b", 2), get(3, 4, "b", 2), get(5, 6, "a", 1)],
        // A lost update: both increments made two of one.
        vec![set(0, 1, "1", 1), incr(2, 5, "2", 2), incr(3, 6, "2", 3)],
        // Both stored over the same version.
        vec![set(0, 1, "a", 1), cas(2, 5, 1, Outcome::Stored(2)), cas(3, 6, 1, Outcome::Stored(3))],
        // It said that there was another version, and there was none.
        vec![set(0, 1, "a", 1), cas(2, 3, 1, Outcome::Exists)],
        // Deleted twice, or found after that.
        vec![set(0, 1, "a", 1), delete(2, 5, Outcome::Deleted), delete(3, 6, Outcome::Deleted)],
        vec![set(0, 1, "a", 1), delete(2, 3, Outcome::Deleted), get(4, 5, "a", 1)],
        // Half of an append.
        vec![
            set(0, 1, "a", 1),
            event(2, 3, Op::Append("b".into()), Outcome::Stored(2)),
            get(4, 5, "a", 2),
        ],
        // Versions that go back.
        vec![set(0, 1, "a", 5), set(2, 3, "b", 4)],
    ];
    for history in histories {
        assert!(check(&history).is_err(), "{history:?}");
    }
}

/// Every order of a few operations, by brute force: the search and the definition agree.
#[test]
fn the_checker_agrees_with_trying_all_orders() {
    let mut rng = common::rng::Rng::new(7);
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let history: Vec<Event> = (0..1 + rng.below(5))
            .map(|_| {
                let from = rng.below(12) as u64;
                let to = from + rng.below(8) as u64;
                let (value, version) = (["1", "2", "3"][rng.below(3)], 1 + rng.below(3) as u64);
                match rng.below(5) {
                    0 => set(from, to, value, version),
                    1 => get(from, to, value, version),
                    2 => miss(from, to),
                    3 => incr(from, to, value, version),
                    _ => delete(
                        from,
                        to,
                        [Outcome::Deleted, Outcome::NotFound][rng.below(2)].clone(),
                    ),
                }
            })
            .collect();
        let expected = some_order_fits(&history, &mut vec![]);
        assert_eq!(check(&history).is_ok(), expected, "{history:?}");
        if expected { accepted += 1 } else { refused += 1 }
    }
    assert!(accepted > 1000 && refused > 1000, "{accepted} accepted, {refused} refused");
}

fn some_order_fits(history: &[Event], order: &mut Vec<usize>) -> bool {
    if order.len() == history.len() {
        // One after the other, each a moment of its own: checked without any overlap.
        let moments = order.iter().zip(0u64..);
        let line: Vec<Event> = moments
            .map(|(&n, at)| Event { from: 2 * at, to: 2 * at + 1, ..history[n].clone() })
            .collect();
        return check(&line).is_ok();
    }
    (0..history.len()).any(|n| {
        let rest = |m: &usize| !order.contains(m) && *m != n;
        let too_early = (0..history.len()).filter(rest).any(|m| history[m].to < history[n].from);
        if order.contains(&n) || too_early {
            return false;
        }
        order.push(n);
        let fits = some_order_fits(history, order);
        order.pop();
        fits
    })
}

impl Ask for Client<'static> {
    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        Client::ask(self, request)
    }
}

#[test]
fn four_threads_on_one_key_set_are_linearisable_per_key() {
    // On a busy machine the threads may hardly meet: on until they have.
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut overlaps = 0;
    for seed in 1.. {
        // Values that are copied, and values that are sent from the store.
        let value_len = if seed % 2 == 0 { 3000 } else { 10 };
        let shared = &*Box::leak(Box::new(shared(64 << 20)));
        let clients = (0..4).map(|n| Box::new(Client::new(shared, n)) as Box<dyn Ask + Send>);
        let load = Load { seed, keys: 3, operations: 5_000, lockstep: 10, value_len };
        let summary = run(clients.collect(), load);
        println!("{load:?}: {summary:?}");
        assert_eq!(summary.operations, 20_000);
        assert_eq!(shared.store.figures().evictions, 0, "nothing may go by itself");
        assert!(summary.exists > 100 && summary.deleted > 100, "{summary:?}");
        overlaps += summary.overlaps;
        if seed >= 4 && (overlaps > 10_000 || Instant::now() > deadline) {
            break;
        }
    }
    assert!(overlaps > 500, "the threads met {overlaps} times only");
}
