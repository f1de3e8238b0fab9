use super::*;

/// Names of the threads in the order in which they run, each for one turn.
fn turns(table: &mut Table<u32>, count: usize) -> Vec<u32> {
    let mut order = Vec::new();
    for _ in 0..count {
        let Some((slot, name)) = table.take() else { break };
        order.push(name);
        table.yielded(slot, name, false);
    }
    order
}

#[test]
fn turns_go_round() {
    let mut table = Table::new();
    for name in [1, 2, 3] {
        table.add(name).unwrap();
    }
    assert_eq!(turns(&mut table, 7), [1, 2, 3, 1, 2, 3, 1]);
}

#[test]
fn two_cores_never_get_the_same_thread_and_one_more_finds_none() {
    let mut table = Table::new();
    table.add(1).unwrap();
    table.add(2).unwrap();
    let (a, b) = (table.take().unwrap(), table.take().unwrap());
    assert_eq!((a.1, b.1), (1, 2));
    assert!(table.take().is_none());
    table.yielded(b.0, b.1, false);
    table.yielded(a.0, a.1, false);
    assert_eq!(turns(&mut table, 2), [2, 1]);
}

#[test]
fn who_holds_what_others_wait_for_comes_first() {
    let mut table = Table::new();
    for name in [1, 2, 3] {
        table.add(name).unwrap();
    }
    let (slot, name) = table.take().unwrap();
    table.yielded(slot, name, true);
    assert_eq!(turns(&mut table, 4), [1, 2, 3, 1]);
    assert_eq!(table.take_if(|name| *name == 3).map(|(_, name)| name), Some(3));
    assert!(table.take_if(|name| *name == 3).is_none());
}

#[test]
fn the_longest_waiting_are_woken_first_and_only_at_their_address() {
    let mut table = Table::new();
    for name in 1..=5 {
        table.add(name).unwrap();
    }
    for addr in [8, 8, 16, 8, 8] {
        let (slot, name) = table.take().unwrap();
        table.waits(slot, name, addr, 100);
    }
    let mut woken = Vec::new();
    assert_eq!(table.wake(8, 2, |name| woken.push(*name)), 2);
    assert_eq!(woken, [1, 2]);
    assert_eq!(table.wake(24, u64::MAX, |_| panic!("nobody waits there")), 0);
    assert_eq!(table.wake(8, u64::MAX, |name| woken.push(*name)), 2);
    assert_eq!(woken, [1, 2, 4, 5]);
    assert_eq!(table.ready(), 4);
    assert_eq!(turns(&mut table, 4), [1, 2, 4, 5]);
}

#[test]
fn a_wait_ends_when_its_time_comes() {
    let mut table = Table::new();
    assert_eq!(table.next_deadline_ns(), u64::MAX);
    for (name, deadline) in [(1, 30), (2, 10), (3, 20)] {
        table.add(name).unwrap();
        let (slot, name) = table.take().unwrap();
        table.waits(slot, name, 8, deadline);
    }
    assert_eq!(table.next_deadline_ns(), 10);
    assert_eq!(table.expire(9, |_| panic!("too early")), 0);
    let mut expired = Vec::new();
    assert_eq!(table.expire(20, |name| expired.push(*name)), 2);
    expired.sort_unstable();
    assert_eq!(expired, [2, 3]);
    assert_eq!(table.next_deadline_ns(), 30);
    assert_eq!(table.wake(8, 9, |_| ()), 1);
}

#[test]
fn there_is_a_limit_and_places_are_used_again() {
    let mut table = Table::new();
    for name in 0..BACKGROUND_THREADS_MAX as u32 {
        table.add(name).unwrap();
    }
    assert_eq!(table.add(99), Err(Full::Limit));
    let (slot, name) = table.take().unwrap();
    assert_eq!(table.add(99), Err(Full::Limit), "number {name} runs");
    table.ended(slot);
    assert_eq!(table.add(99), Ok(()));
    assert_eq!(table.add(100), Err(Full::Limit));
}
