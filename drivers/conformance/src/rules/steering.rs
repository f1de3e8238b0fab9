//! The indirection table.
use crate::frames::{Flow, number_of, numbered};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{NicControl, Progress, RxQueue};
use ix_dataplane::rng::Rng;

const FOUR: Wishes = Wishes { pairs: 4, rx_ring: 256, tx_ring: 256, mtu: 1500, buffers: 2048 };

/// Each flow comes to the queue that the table names for its group, and flows spread.
pub fn flows_come_to_the_queues_that_the_table_names<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    if let Some(verdict) = super::without_queues(&rig.capabilities) {
        return verdict;
    }
    let pairs = rig.rx.len();
    let mut seen = vec![0; pairs];
    for number in 0..1000_u16 {
        rig.replenish();
        let flow = Flow::any(number);
        assert!(rig.arrive(&numbered(flow, 1, 80)));
        let queue = rig.queue_of(flow);
        let got = rig.poll(queue, 64);
        assert_eq!(got.len(), 1, "{flow:?} comes to queue {queue}");
        rig.free(got);
        seen[queue] += 1;
    }
    assert!(seen.iter().all(|count| *count > 1000 / pairs / 2), "flows by queue: {seen:?}");
    rig.finish();
    Verdict::Kept
}

/// A flow that sends all the time while its group moves: all of it arrives, in its old queue before the commit, in its new one
/// after `Done`, and in order in each.
pub fn a_change_of_the_table_moves_a_flow_and_loses_nothing<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    if let Some(verdict) = super::without_queues(&rig.capabilities) {
        return verdict;
    }
    let mut rng = Rng::from_seed(5);
    let clock = rig.device.clock();
    let pairs = rig.rx.len();
    for round in 0..300_u16 {
        rig.replenish();
        let flow = Flow { ports: [rng.next_u32() as u16, 7], ..Flow::any(round) };
        let (group, old) = (rig.group(flow), rig.queue_of(flow));
        let new = (old + 1 + rng.below(pairs as u64 - 1) as usize) % pairs;
        let mut sent = 0;
        let mut send = |rig: &mut Rig<B>| {
            assert!(rig.device.deliver(&numbered(flow, sent, 80)), "there are buffers");
            sent += 1;
        };
        (0..3).for_each(|_| send(&mut rig));
        rig.control.set_reta(group, new as u16).expect("both exist");
        // Staged is not sent: these, too, come to the old one.
        (0..2).for_each(|_| send(&mut rig));
        let committed = 5;
        rig.control.commit(clock()).expect("no change is under way");
        let mut turns = 0;
        loop {
            match rig.control.poll(clock()) {
                Progress::Done => break,
                Progress::Pending => send(&mut rig),
                other => panic!("the change of the table: {other:?}"),
            }
            turns += 1;
            assert!(turns < 200, "the change does not end");
        }
        rig.device.settle();
        assert_eq!(usize::from(rig.control.reta()[usize::from(group)]), new);
        let mut at = vec![Vec::new(); pairs];
        take(&mut rig, &mut at);
        (0..3).for_each(|_| send(&mut rig));
        rig.device.settle();
        let mut after = vec![Vec::new(); pairs];
        take(&mut rig, &mut after);
        assert_eq!(after[new].len(), 3, "round {round}: frames after the change, in {after:?}");
        assert!(at[old].len() >= committed, "round {round}: frames before it, in {at:?}");
        assert!(at.iter().flatten().count() == at[old].len() + at[new].len());
        let mut all: Vec<u32> = at.into_iter().chain(after).flatten().collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..sent), "round {round}: each once");
    }
    rig.finish();
    Verdict::Kept
}

/// Polls all queues: numbers of frames by queue, in order.
fn take<B: Bench>(rig: &mut Rig<B>, numbers: &mut [Vec<u32>]) {
    for (queue, numbers) in numbers.iter_mut().enumerate() {
        let got = rig.poll(queue, 1024);
        numbers.extend(got.iter().map(|got| number_of(&got.bytes)));
        assert!(numbers.is_sorted(), "in order: {numbers:?}");
        rig.free(got);
    }
}

/// They change nothing.
pub fn entries_and_queues_that_do_not_exist_are_refused<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::ready(make, FOUR);
    if let Some(verdict) = super::without_rss(&rig.capabilities) {
        return verdict;
    }
    let (groups, pairs) = (rig.capabilities.groups, rig.control.pairs());
    let before = rig.control.reta().to_vec();
    for (group, queue) in [(groups, 0), (u16::MAX, 0), (0, pairs), (1, u16::MAX)] {
        assert!(rig.control.set_reta(group, queue).is_err(), "group {group} to queue {queue}");
    }
    assert_eq!(rig.control.reta(), before);
    assert_eq!(rig.control.queue_of(groups), None);
    let clock = rig.device.clock();
    rig.control.commit(clock()).expect("what is there can be sent");
    rig.wait_for_table();
    assert_eq!(rig.control.reta(), before);
    rig.finish();
    Verdict::Kept
}

/// A second change is refused while one is under way; `Done` is said once.
pub fn one_change_at_a_time_whose_end_is_said_once<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    if let Some(verdict) = super::without_rss(&rig.capabilities) {
        return verdict;
    }
    let clock = rig.device.clock();
    let is_idle = |rig: &mut Rig<B>| matches!(rig.control.poll(clock()), Progress::Idle);
    assert!(is_idle(&mut rig), "nothing is under way");
    for group in 0..rig.capabilities.groups {
        let queue = group % rig.control.pairs();
        rig.control.set_reta(group, queue).expect("both exist");
        rig.control.commit(clock()).expect("no change is under way");
        assert!(rig.control.commit(clock()).is_err(), "one is under way");
        rig.wait_for_table();
        assert!(is_idle(&mut rig), "once");
    }
    rig.finish();
    Verdict::Kept
}

/// It neither makes the change fail that is under way, nor gets into force with it.
pub fn what_is_staged_during_a_change_waits_for_the_next<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    if let Some(verdict) = super::without_queues(&rig.capabilities) {
        return verdict;
    }
    let clock = rig.device.clock();
    for number in 0..400_u16 {
        let flow = Flow::tcp(number);
        let (group, old) = (rig.group(flow), rig.queue_of(flow));
        let pairs = rig.control.pairs();
        let neighbour = group ^ 1;
        let other = (rig.control.queue_of(neighbour).expect("it is there") + 1) % pairs;
        rig.control.set_reta(neighbour, other).expect("both exist");
        rig.control.commit(clock()).expect("no change is under way");
        let new = (old as u16 + 1) % pairs;
        rig.control.set_reta(group, new).expect("may be staged at any time");
        rig.wait_for_table();
        let comes_to = |rig: &mut Rig<B>, queue: usize| {
            rig.replenish();
            assert!(rig.arrive(&numbered(flow, 1, 80)));
            let got = rig.poll(queue, 64);
            let there = got.len() == 1;
            rig.free(got);
            let elsewhere = rig.poll_all();
            assert_eq!(elsewhere.is_empty(), there);
            rig.free(elsewhere);
            there
        };
        assert!(comes_to(&mut rig, old), "group {group} before its commit");
        rig.control.commit(clock()).expect("no change is under way");
        rig.wait_for_table();
        assert!(comes_to(&mut rig, usize::from(new)), "group {group} after it");
    }
    assert!(rig.rx.iter().all(|queue| queue.waiting() == 0));
    rig.finish();
    Verdict::Kept
}
