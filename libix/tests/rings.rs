//! The raw tier: rings that wrap, rings that are full, calls of several slots, news of the future.

mod fake;

use fake::{PEER, boot, boot_at, kernel};
use ix_abi::call::Request;
use ix_abi::event::Event;
use ix_abi::layout::{CALL_SLOTS, EVENT_SLOTS};
use ix_abi::limits::SG_MAX;
use ix_abi::{Condition, Cookie, GroupId, Handle, SgEntry, Status};
use libix::Context;

fn timer(cookie: u64) -> Condition {
    Condition::Timer { handle: Handle::NONE, cookie: Cookie(cookie) }
}

fn drain(context: &mut Context) -> Vec<Condition> {
    std::iter::from_fn(|| context.next_event()).collect()
}

#[test]
fn events_come_in_order_across_the_wrap_of_ring_and_index() {
    let mut context = boot_at(u32::MAX - 40_000, "");
    let mut expected = 0;
    for round in 0..30 {
        let count = 1 + round * 97 % u64::from(EVENT_SLOTS);
        kernel(|k| k.pending.extend((expected..expected + count).map(timer)));
        assert_eq!(u64::from(context.enter()), count);
        let seen = drain(&mut context);
        assert!(seen.iter().zip(expected..).all(|(event, cookie)| *event == timer(cookie)));
        assert_eq!(seen.len() as u64, count);
        expected += count;
    }
    assert!(expected > u64::from(EVENT_SLOTS) * 2);
}

#[test]
fn calls_arrive_in_order_across_the_wrap_of_ring_and_index() {
    let mut context = boot_at(u32::MAX - 40_000, "");
    kernel(|k| k.patient = true);
    for n in 0..60_000u64 {
        context.timer_cancel(Handle(n));
        if n % 7777 == 0 {
            context.enter();
        }
    }
    context.enter();
    kernel(|k| {
        let handles = k.calls.iter().map(|(request, _)| match request {
            Request::TimerCancel { handle } => handle.0,
            other => panic!("{other:?}"),
        });
        assert!(handles.eq(0..60_000));
    });
}

#[test]
fn a_sendv_of_any_size_keeps_its_entries_in_order_also_where_the_ring_wraps() {
    let bytes = [7u8; SG_MAX];
    // Offsets such that continuation slots fall on both sides of the ring's end.
    for first in (CALL_SLOTS - 20)..CALL_SLOTS {
        let mut context = boot_at(first, "");
        let handle = kernel(|k| k.knock(1));
        context.accept(handle, Cookie(0));
        for count in [1, 2, 3, 6, 7, SG_MAX] {
            let sg: Vec<SgEntry> =
                (0..count).map(|i| SgEntry { addr: bytes[i..].as_ptr() as u64, len: 1 }).collect();
            context.sendv(handle, &sg, 0, false);
            context.enter();
            kernel(|k| {
                let (request, seen) = k.calls.last().unwrap();
                assert_eq!(*request, Request::Sendv { handle, sg_count: count, done: 0 });
                assert_eq!(*seen, sg);
            });
        }
    }
}

#[test]
fn a_datagram_of_several_pieces_keeps_its_entries_in_order() {
    let mut context = boot_at(CALL_SLOTS - 1, "");
    let bytes = [1u8; 9];
    for count in [1, 2, 5, 9] {
        let sg: Vec<SgEntry> =
            (0..count).map(|i| SgEntry { addr: bytes[i..].as_ptr() as u64, len: 1 }).collect();
        context.udp_sendv(Handle(9), PEER, &sg, 0);
        context.enter();
        kernel(|k| assert_eq!(k.calls.last().unwrap().1, sg));
    }
}

#[test]
fn a_full_syscall_ring_is_flushed_and_no_call_is_lost() {
    let mut context = boot("");
    kernel(|k| k.pending.push_back(timer(0)));
    context.enter();
    assert_eq!(context.next_event(), Some(timer(0)));
    let calls = u64::from(CALL_SLOTS) * 2 + 100;
    for n in 0..calls {
        context.timer_cancel(Handle(n));
    }
    // The event in hand stayed unread, or `enter` would have waited for news, for ever perhaps.
    kernel(|k| assert_eq!((k.enters, k.calls.len()), (3, CALL_SLOTS as usize * 2)));
    assert_eq!(drain(&mut context), []);
    kernel(|k| k.pending.push_back(timer(1)));
    context.enter();
    kernel(|k| assert_eq!(k.calls.len() as u64, calls));
}

#[test]
fn when_both_rings_are_full_events_move_aside_and_keep_their_order() {
    let mut context = boot("");
    kernel(|k| k.pending.extend((0..u64::from(EVENT_SLOTS)).map(timer)));
    context.enter();
    assert_eq!(context.next_event(), Some(timer(0)));
    // Each of these fails and needs room for its result, of which there is none.
    let calls = CALL_SLOTS * 3;
    for n in 0..calls {
        // SAFETY: the handle names nothing, so nothing is returned.
        unsafe { context.recv_done(Handle(u64::from(n) + 1), 1) };
    }
    let mut expected = (1..u64::from(EVENT_SLOTS)).map(timer);
    let mut results = 0;
    loop {
        for event in drain(&mut context) {
            match event {
                Condition::Result { status, handle, .. } => {
                    results += 1;
                    assert_eq!((status, handle.0), (Status::BadHandle, results));
                }
                timer => assert_eq!(Some(timer), expected.next(), "in order, before the results"),
            }
        }
        if results == u64::from(calls) {
            break;
        }
        context.enter();
    }
    assert_eq!(expected.next(), None);
}

#[test]
fn events_of_a_newer_kernel_are_unknown_and_harmless() {
    let mut context = boot("");
    kernel(|k| {
        k.emit_raw(Event { kind: 999, aux: 1, len: 2, handle: 3, cookie: 4, words: [5; 5] });
        k.pending.push_back(timer(1));
    });
    context.enter();
    assert_eq!(drain(&mut context), [Condition::Unknown { kind: 999 }, timer(1)]);
}

#[test]
fn a_call_is_settled_when_its_batch_has_run_and_all_events_since_are_read() {
    let mut context = boot("");
    let handle = kernel(|k| k.knock(1));
    context.accept(handle, Cookie(0));
    let index = context.call_index();
    assert!(!context.is_settled(index));
    context.enter();
    assert!(!context.is_settled(index), "its result may be unread");
    drain(&mut context);
    assert!(context.is_settled(index));
}

#[test]
fn the_time_of_a_batch_is_the_kernels() {
    let mut context = boot("");
    kernel(|k| {
        k.now_ns = 5_000_000;
        k.pending.push_back(Condition::GroupIn { group: GroupId(0), life: 0 });
    });
    context.enter();
    assert_eq!(context.now_ns(), 5_001_000);
}
