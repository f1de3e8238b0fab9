//! Every interleaving that the memory model allows:
//! `RUSTFLAGS="--cfg loom" cargo test -p ix-dataplane --lib spsc`.
use super::*;
use alloc::boxed::Box;
use loom::thread;

#[test]
fn in_every_interleaving_values_arrive_once_and_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = ring::<Box<u32>>(2);
        let pusher = thread::spawn(move || {
            let mut pushed = 0;
            for _ in 0..4 {
                if producer.push(Box::new(pushed)).is_ok() {
                    pushed += 1;
                }
            }
            pushed
        });
        let mut popped = 0;
        for _ in 0..3 {
            if let Some(value) = consumer.pop() {
                assert_eq!(*value, popped);
                popped += 1;
            }
        }
        let pushed = pusher.join().unwrap();
        while let Some(value) = consumer.pop() {
            assert_eq!(*value, popped);
            popped += 1;
        }
        assert_eq!(popped, pushed);
    });
}

#[test]
fn in_every_interleaving_what_is_left_is_dropped_once() {
    loom::model(|| {
        let probe = Arc::new(());
        let (mut producer, mut consumer) = ring::<Arc<()>>(2);
        let value = Arc::clone(&probe);
        let pusher = thread::spawn(move || {
            assert!(producer.push(Arc::clone(&value)).is_ok());
            assert!(producer.push(value).is_ok());
        });
        drop(consumer.pop());
        drop(consumer);
        pusher.join().unwrap();
        assert_eq!(Arc::strong_count(&probe), 1);
    });
}
