//! Interrupts: wanted before a halt, and only then.
use crate::frames::{Flow, numbered};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{NicRx, RxQueue};

const FOUR: Wishes = Wishes { pairs: 4, rx_ring: 256, tx_ring: 256, mtu: 1500, buffers: 2048 };

/// Whoever polls is not interrupted: not before the first arming, not after a disarming.
pub fn a_queue_that_is_polled_is_not_woken<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    for round in 0..5 {
        for number in 0..100 {
            rig.replenish();
            assert!(rig.arrive(&numbered(Flow::any(number), 1, 80)));
            let got = rig.poll_all();
            rig.free(got);
        }
        let woken = rig.device.interrupts();
        assert!(woken.is_empty(), "round {round}: {woken:?} interrupt while they are polled");
        for queue in &mut rig.rx {
            queue.arm_interrupt();
            queue.disarm_interrupt();
        }
        rig.device.settle();
        // One may have been due already when they were armed.
        rig.device.interrupts();
    }
    rig.finish();
    Verdict::Kept
}

/// Arms a queue until no interrupt is left that was due before: a needless one is allowed after traffic.
fn arm_quietly<B: Bench>(rig: &mut Rig<B>, queue: usize) {
    for _ in 0..4 {
        assert!(!rig.rx[queue].arm_interrupt(), "no frame waits");
        rig.device.settle();
        if rig.device.interrupts().is_empty() {
            return;
        }
        rig.rx[queue].disarm_interrupt();
    }
    panic!("queue {queue} interrupts again and again, and no frame comes");
}

/// A halted core is woken by the next frame of its queue, and by no other's.
pub fn an_armed_queue_is_woken_by_its_next_frame_and_no_other_is<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    rig.replenish();
    let queues = rig.rx.len();
    let mut woken_at = vec![0; queues];
    (0..queues).for_each(|queue| arm_quietly(&mut rig, queue));
    for number in 0..400 {
        rig.replenish();
        assert!(rig.arrive(&numbered(Flow::any(number), 1, 80)));
        let woken = rig.device.interrupts();
        let queue = (0..queues).find(|queue| rig.rx[*queue].has_frames()).expect("it is there");
        assert_eq!(woken, [queue], "the frame is in queue {queue}");
        woken_at[queue] += 1;
        rig.rx[queue].disarm_interrupt();
        let got = rig.poll(queue, 64);
        rig.free(got);
        // Another one meanwhile wakes nobody, since its core is up.
        assert!(rig.arrive(&numbered(Flow::any(number), 2, 80)));
        assert!(rig.device.interrupts().is_empty(), "queue {queue} is polled");
        let got = rig.poll(queue, 64);
        assert_eq!(got.len(), 1);
        rig.free(got);
        arm_quietly(&mut rig, queue);
    }
    assert!(woken_at.iter().all(|count| *count > 400 / queues / 2), "{woken_at:?}");
    rig.finish();
    Verdict::Kept
}

/// `true` if and only if frames wait in this very queue: a core must not halt on them.
pub fn arming_says_exactly_whether_frames_wait<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    rig.replenish();
    for number in 0..300_u16 {
        rig.replenish();
        let flow = Flow::any(number);
        for count in 0..3 {
            for (queue, rx) in rig.rx.iter_mut().enumerate() {
                let frames = rx.has_frames();
                assert_eq!(frames, rx.waiting() > 0);
                assert_eq!(rx.arm_interrupt(), frames, "queue {queue}: {} wait", rx.waiting());
                rx.disarm_interrupt();
            }
            let there = rig.rx.iter().filter(|rx| rx.has_frames()).count();
            assert_eq!(there, usize::from(count > 0), "in one queue, if at all");
            assert!(rig.arrive(&numbered(flow, count, 80)));
        }
        let got = rig.poll_all();
        assert_eq!(got.len(), 3);
        rig.free(got);
    }
    rig.device.interrupts();
    rig.finish();
    Verdict::Kept
}
