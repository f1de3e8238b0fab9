use super::*;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use proptest::prelude::*;
extern crate std;
use std::thread;

proptest! {
    #[test]
    fn the_ring_agrees_with_a_queue(
        capacity in 1_usize..20, steps in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let (mut producer, mut consumer) = ring::<Box<u8>>(capacity);
        let capacity = capacity.next_power_of_two();
        prop_assert_eq!(producer.capacity() as usize, capacity);
        let mut model = VecDeque::new();
        for step in steps {
            if step & 1 == 0 {
                let fits = model.len() < capacity;
                prop_assert_eq!(producer.is_full(), !fits);
                prop_assert_eq!(producer.push(Box::new(step)).is_ok(), fits);
                if fits {
                    model.push_back(step);
                }
            } else {
                prop_assert_eq!(consumer.peek(|v| **v), model.front().copied());
                prop_assert_eq!(consumer.pop().map(|v| *v), model.pop_front());
            }
            prop_assert_eq!((producer.len(), consumer.available()), (model.len(), model.len()));
            prop_assert_eq!((producer.is_empty(), consumer.is_empty()), (model.is_empty(), model.is_empty()));
        }
    }
}

#[test]
fn a_full_ring_gives_the_value_back() {
    let (mut producer, mut consumer) = ring(2);
    assert_eq!(producer.push('a'), Ok(()));
    assert_eq!(producer.push('b'), Ok(()));
    assert_eq!(producer.push('c'), Err('c'));
    assert_eq!(consumer.pop(), Some('a'));
    assert_eq!(producer.push('c'), Ok(()));
}

#[test]
fn indices_wrap() {
    let (mut producer, mut consumer) = ring(4);
    let start = u32::MAX - 5;
    producer.tail = start;
    producer.cached_head = start;
    consumer.head = start;
    consumer.cached_tail = start;
    producer.shared.tail.0.store(start, Ordering::Relaxed);
    producer.shared.head.0.store(start, Ordering::Relaxed);
    for i in 0..20 {
        assert_eq!(producer.push(i), Ok(()));
        assert_eq!(producer.push(i + 100), Ok(()));
        assert_eq!(producer.len(), 2);
        assert_eq!(
            (consumer.pop(), consumer.pop(), consumer.pop()),
            (Some(i), Some(i + 100), None)
        );
    }
}

#[test]
fn what_is_left_in_the_ring_is_dropped_once() {
    let probe = Arc::new(());
    let (mut producer, mut consumer) = ring(8);
    for _ in 0..6 {
        assert!(producer.push(Arc::clone(&probe)).is_ok());
    }
    drop(consumer.pop());
    drop(producer);
    assert_eq!(Arc::strong_count(&probe), 6);
    drop(consumer);
    assert_eq!(Arc::strong_count(&probe), 1);
}

#[test]
fn the_indices_share_no_cache_line() {
    assert_eq!(align_of::<Shared<u8>>(), 128);
    let tail = core::mem::offset_of!(Shared<u8>, tail);
    let head = core::mem::offset_of!(Shared<u8>, head);
    let slots = core::mem::offset_of!(Shared<u8>, slots);
    assert!(
        tail.abs_diff(head) >= 128 && slots.abs_diff(tail) >= 128 && slots.abs_diff(head) >= 128
    );
}

#[test]
fn between_threads_every_value_arrives_once_and_in_order() {
    const N: u64 = 200_000;
    // Boxes, so that a value read twice or torn is a crash and not a number.
    let (mut producer, mut consumer) = ring::<Box<(u64, u64)>>(16);
    let pusher = thread::spawn(move || {
        for i in 0..N {
            let mut value = Box::new((i, !i));
            while let Err(back) = producer.push(value) {
                value = back;
                thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    while expected < N {
        match consumer.pop() {
            Some(value) => {
                assert_eq!(*value, (expected, !expected));
                expected += 1;
            }
            None => thread::yield_now(),
        }
    }
    pusher.join().unwrap();
    assert!(consumer.pop().is_none());
}
