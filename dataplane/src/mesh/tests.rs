use super::*;
use crate::device::RxChecksum;
use crate::mbuf::Rest;
use proptest::prelude::*;
extern crate std;
use std::thread;

fn frame(index: u32) -> RxFrame {
    RxFrame {
        mbuf: Mbuf::from_raw(index),
        offset: 0,
        len: 60,
        rest: Rest::NONE,
        merged: 0,
        checksum: RxChecksum::Unknown,
        hash: None,
    }
}

fn small() -> Sizes {
    Sizes { frames: 4, homes: 4, messages: 2 }
}

#[test]
fn what_is_sent_arrives_after_the_flush_and_names_its_sender() {
    let mut ends = build::<&str>(3, small());
    let (a, rest) = ends.split_at_mut(1);
    assert_eq!((a[0].core(), a[0].cores()), (CoreId(0), 3));
    a[0].send_frame(CoreId(2), frame(5)).unwrap();
    a[0].send_home(CoreId(2), Mbuf::from_raw(6)).unwrap();
    a[0].send(CoreId(1), "hello").unwrap();
    assert!(!rest[1].refresh());
    assert!(rest[1].next_frame().is_none());
    let mut woken = Vec::new();
    a[0].flush(|core| woken.push(core));
    assert_eq!(woken, [CoreId(1), CoreId(2)]);
    a[0].flush(|_| panic!("nothing new"));
    assert!(rest[0].refresh() && rest[1].refresh());
    assert_eq!(rest[0].next_message(), Some((CoreId(0), "hello")));
    assert_eq!(rest[1].next_frame().unwrap().1.mbuf, Mbuf::from_raw(5));
    assert_eq!(rest[1].next_home(), Some((CoreId(0), Mbuf::from_raw(6))));
    for end in rest {
        assert!(end.next_frame().is_none() && end.next_home().is_none());
        assert!(end.next_message().is_none());
        assert!(!end.refresh());
    }
}

#[test]
fn a_busy_core_hears_a_bell_within_a_glance_for_each_core_and_an_idle_one_at_once() {
    let cores = 8;
    let mut ends = build::<u32>(cores, small());
    let heard_after = |ends: &mut Vec<Endpoint<u32>>| {
        let glances = (1..=100).find(|_| ends[3].glance()).expect("it is heard");
        assert!(ends[3].next_message().is_some());
        glances
    };
    let quiet = |ends: &mut Vec<Endpoint<u32>>| {
        let end = &mut ends[3];
        assert!(end.next_frame().is_none() && end.next_home().is_none());
        assert!(end.next_message().is_none());
        // The last look at what was waiting.
        end.refresh();
        for _ in 0..2 * ATTENTIVE_GLANCES {
            assert!(!ends[3].glance());
        }
        assert_eq!(ends[3].attentive, 0);
    };
    let mut latest = 0;
    for peer in (0..cores).filter(|p| *p != 3) {
        quiet(&mut ends);
        ends[usize::from(peer)].send(CoreId(3), 1).unwrap();
        ends[usize::from(peer)].flush(|_| ());
        latest = latest.max(heard_after(&mut ends));
        // Another one soon after, of whomever, is heard at once.
        let other = usize::from(peer == 0);
        ends[other].send(CoreId(3), 2).unwrap();
        ends[other].flush(|_| ());
        assert_eq!(heard_after(&mut ends), 1);
    }
    assert!((2..=u32::from(cores)).contains(&latest), "{latest}");
    quiet(&mut ends);
    ends[0].send(CoreId(3), 3).unwrap();
    ends[0].flush(|_| ());
    ends[3].attend();
    assert_eq!(heard_after(&mut ends), 1);
}

#[test]
fn a_full_ring_and_a_core_that_is_not_there_give_the_item_back() {
    let mut ends = build::<u8>(2, small());
    for core in [CoreId(0), CoreId(2), CoreId(u16::MAX)] {
        assert!(ends[0].send_frame(core, frame(0)).is_err());
        assert!(ends[0].send_home(core, Mbuf::from_raw(0)).is_err());
        assert_eq!(ends[0].send(core, 7), Err(7));
    }
    ends[0].flush(|_| panic!("nothing was sent"));
    for i in 0..4 {
        ends[0].send_frame(CoreId(1), frame(i)).unwrap();
    }
    assert_eq!(ends[0].send_frame(CoreId(1), frame(9)).unwrap_err().mbuf, Mbuf::from_raw(9));
    assert_eq!(ends[0].broadcast_room(), 2);
    ends[0].send(CoreId(1), 1).unwrap();
    assert_eq!(ends[0].broadcast_room(), 1);
}

#[test]
fn one_core_has_nobody_to_talk_to_and_does_not_mind() {
    let mut alone = build::<u8>(1, small()).pop().unwrap();
    assert!(!alone.refresh());
    assert!(alone.next_frame().is_none());
    assert_eq!(alone.broadcast_room(), usize::MAX);
    alone.flush(|_| panic!("nobody"));
}

#[test]
fn a_busy_peer_does_not_starve_another() {
    let mut ends = build::<u8>(3, small());
    for i in 0..4 {
        ends[1].send_frame(CoreId(0), frame(10 + i)).unwrap();
    }
    ends[2].send_frame(CoreId(0), frame(20)).unwrap();
    ends[1].flush(|_| ());
    ends[2].flush(|_| ());
    ends[0].refresh();
    let first_two: Vec<CoreId> = (0..2).map(|_| ends[0].next_frame().unwrap().0).collect();
    assert!(first_two.contains(&CoreId(2)), "{first_two:?}");
}

#[test]
fn what_one_loop_leaves_is_there_in_the_next_without_another_bell() {
    let mut ends = build::<u8>(2, small());
    ends[1].send_frame(CoreId(0), frame(1)).unwrap();
    ends[1].send_frame(CoreId(0), frame(2)).unwrap();
    ends[1].flush(|_| ());
    assert!(ends[0].refresh());
    let _ = ends[0].next_frame().unwrap().1.mbuf.into_raw();
    assert!(ends[0].refresh());
    assert_eq!(ends[0].next_frame().unwrap().1.mbuf.into_raw(), 2);
}

proptest! {
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        steps in proptest::collection::vec((0_u16..4, 0_u16..4, 0_u8..6), 0..300),
    ) {
        let mut ends = build::<u32>(4, small());
        let mut model = std::collections::BTreeMap::<(u16, u16), std::collections::VecDeque<u32>>::new();
        let mut number = 0;
        for (a, b, what) in steps {
            match what {
                0..3 => {
                    let accepted = ends[usize::from(a)].send(CoreId(b), number).is_ok();
                    let queue = model.entry((a, b)).or_default();
                    // The ring frees a slot when the receiver takes it, not when the sender looks.
                    prop_assert_eq!(accepted, a != b && queue.len() < 2);
                    if accepted {
                        queue.push_back(number);
                    }
                    number += 1;
                }
                3 => ends[usize::from(a)].flush(|_| ()),
                _ => {
                    ends[usize::from(a)].refresh();
                    if let Some((from, got)) = ends[usize::from(a)].next_message() {
                        prop_assert_eq!(model.get_mut(&(from.0, a)).unwrap().pop_front(), Some(got));
                    }
                }
            }
        }
        for end in &mut ends {
            end.flush(|_| ());
        }
        for core in 0..4_u16 {
            ends[usize::from(core)].refresh();
            while let Some((from, got)) = ends[usize::from(core)].next_message() {
                prop_assert_eq!(model.get_mut(&(from.0, core)).unwrap().pop_front(), Some(got));
            }
        }
        prop_assert!(model.values().all(|queue| queue.is_empty()));
    }
}

#[test]
fn messages_that_are_heeded_are_read_without_a_bell() {
    let mut ends = build::<u32>(3, Sizes::default());
    ends[1].send(CoreId(0), 7).unwrap();
    ends[0].refresh();
    assert_eq!((ends[0].next_message(), ends[0].has_messages()), (None, false));
    ends[0].heed(1 << 1);
    assert!(ends[0].has_messages() && ends[0].refresh());
    assert_eq!(ends[0].next_message(), Some((CoreId(1), 7)));
    assert!(ends[0].has_messages(), "there may be more");
    assert_eq!((ends[0].next_message(), ends[0].has_messages()), (None, false));
    // Of cores that there are not, too, and of this one.
    ends[0].heed(u64::MAX);
    assert_eq!((ends[0].next_message(), ends[0].has_messages()), (None, false));
}

#[test]
fn frames_up_to_an_end_are_taken_however_many_come_and_without_a_bell() {
    let mut ends = build::<u32>(3, small());
    let [a, b, c] = &mut ends[..] else { unreachable!() };
    (1..=2).for_each(|index| a.send_frame(CoreId(2), frame(index)).unwrap());
    let end = c.frames_end(CoreId(0));
    assert!(!c.is_quiet() && !c.has_taken(CoreId(0), end));
    a.send_frame(CoreId(2), frame(3)).unwrap();
    b.send_frame(CoreId(2), frame(4)).unwrap();
    let taken = [1, 2].map(|_| c.next_frame().unwrap().1.mbuf);
    assert_eq!(taken, [1, 2].map(Mbuf::from_raw));
    assert!(c.has_taken(CoreId(0), end), "the third came later, the fourth is another's");
    assert!(!c.has_taken(CoreId(0), end.wrapping_add(1)));
    let end = c.frames_end(CoreId(9));
    assert!(c.has_taken(CoreId(9), end), "there is no such core");
}

#[test]
fn a_sweep_is_over_when_what_was_there_was_taken_and_the_next_begins_after_it() {
    let mut ends = build::<u32>(3, small());
    let [a, b, c] = &mut ends[..] else { unreachable!() };
    let none = c.sweep();
    assert!(c.has_swept(none), "there is nothing");
    a.send_frame(CoreId(2), frame(1)).unwrap();
    b.send_frame(CoreId(2), frame(2)).unwrap();
    let first = c.sweep();
    assert!(!c.has_swept(first));
    a.send_frame(CoreId(2), frame(3)).unwrap();
    let second = c.sweep();
    assert_ne!(first, second, "the third is not of the one that is under way");
    let swept = |c: &mut Endpoint<u32>| [first, second].map(|sweep| c.has_swept(sweep));
    let mut taken = Vec::new();
    for _ in 0..5 {
        // There is always more.
        let (_, frame) = c.next_frame().unwrap();
        a.send_frame(CoreId(2), frame).unwrap();
        taken.push(swept(c));
    }
    let half = [true, false];
    assert_eq!(taken, [[false; 2], half, half, half, [true; 2]]);
}

#[test]
fn between_threads_a_bell_that_was_heard_means_that_the_items_are_there() {
    const N: u32 = 20_000;
    let mut ends = build::<u32>(2, Sizes { frames: 8, homes: 8, messages: 8 });
    let mut receiver = ends.pop().unwrap();
    let mut sender = ends.pop().unwrap();
    let thread = thread::spawn(move || {
        for i in 0..N {
            while sender.send(CoreId(1), i).is_err() {
                sender.flush(|_| ());
                thread::yield_now();
            }
            if i % 3 == 0 {
                sender.flush(|_| ());
            }
        }
        sender.flush(|_| ());
    });
    let mut expected = 0;
    while expected < N {
        if !receiver.refresh() {
            thread::yield_now();
        }
        while let Some((_, got)) = receiver.next_message() {
            assert_eq!(got, expected);
            expected += 1;
        }
    }
    thread.join().unwrap();
}
