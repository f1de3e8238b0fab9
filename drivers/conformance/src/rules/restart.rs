//! Stopping a port and starting it again, with whatever was under way.
use crate::frames::{Flow, number_of, numbered};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{NicControl, NicRx, NicTx, RxQueue, TxQueue};

const FOUR: Wishes = Wishes { pairs: 4, rx_ring: 64, tx_ring: 64, mtu: 1500, buffers: 1024 };

/// It receives and sends, on all queues.
fn works<B: Bench>(rig: &mut Rig<B>) {
    // What was posted before a start is told here at the latest.
    assert!(rig.poll_all().is_empty(), "no frame has come");
    for round in 0..100_u16 {
        rig.replenish();
        let bytes = numbered(Flow::any(round), u32::from(round), 80);
        assert!(rig.arrive(&bytes), "round {round}: there are buffers");
        let got = rig.poll_all();
        assert_eq!(got.len(), 1, "round {round}");
        assert!(got[0].bytes == bytes);
        rig.free(got);
        let queue = usize::from(round) % rig.tx.len();
        let frame = rig.frame(&bytes, &[74, 6]);
        rig.push(queue, &frame);
        rig.tx[queue].kick();
        rig.device.settle();
        assert!(rig.device.sent() == [bytes], "round {round}");
        assert_eq!(rig.tx[queue].reclaim(), 1);
    }
    rig.assert_conserved(0);
}

/// Buffers come home, also those of frames that nobody polled, and frames in flight are complete once.
pub fn a_restart_gives_every_buffer_and_every_frame_back_once<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    works(&mut rig);
    for (shown, pushed) in [(0_u32, 0_u32), (1, 1), (7, 9), (0, 5), (17, 31)] {
        rig.replenish();
        (0..20).for_each(|number| assert!(rig.arrive(&numbered(Flow::any(number), 1, 80))));
        let queue = (0..rig.rx.len()).find(|queue| rig.rx[*queue].waiting() > 1);
        let held = rig.poll(queue.expect("twenty frames in four queues"), 1);
        rig.device.hold(true);
        for number in 0..pushed {
            let frame = rig.frame(&numbered(Flow::tcp(1), number, 80), &[80]);
            rig.push(0, &frame);
            if number + 1 == shown {
                rig.tx[0].kick();
            }
        }
        rig.device.sent();
        assert_eq!(rig.tx[0].reclaim(), 0);
        let stopped = rig.stop();
        rig.device.hold(false);
        rig.assert_conserved(held.len());
        rig.rewind(&stopped);
        assert_eq!(rig.pool.available() + held.len(), rig.pool.capacity(), "all are home");
        assert_eq!(rig.tx[0].reclaim(), pushed, "what was in flight is the sender's again");
        assert_eq!((rig.tx[0].reclaim(), rig.tx[0].in_flight()), (0, 0), "once");
        rig.start(stopped);
        assert!(rig.device.sent().is_empty(), "what was given up does not leave");
        rig.free(held);
        works(&mut rig);
    }
    rig.finish();
    Verdict::Kept
}

/// Frames that the device had delivered are not lost by a stop: they are polled before the queues are rewound.
pub fn what_was_delivered_is_polled_after_the_stop<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    for round in 0..5 {
        rig.replenish();
        (0..40).for_each(|n| assert!(rig.arrive(&numbered(Flow::any(n), u32::from(n), 80))));
        let stopped = rig.stop();
        assert!(rig.rx.iter().any(NicRx::has_frames), "round {round}");
        let got = rig.poll_all();
        let mut numbers: Vec<u32> = got.iter().map(|got| number_of(&got.bytes)).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..40), "round {round}: all of them");
        assert!(!rig.rx.iter().any(NicRx::has_frames));
        rig.assert_conserved(40);
        rig.rewind(&stopped);
        rig.start(stopped);
        rig.free(got);
    }
    works(&mut rig);
    rig.finish();
    Verdict::Kept
}

/// The proof is one: no frame is taken, none leaves, no memory is written, no command is taken. A reset may be repeated.
pub fn a_stopped_device_takes_and_sends_nothing<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::ready(make, FOUR);
    let bytes = numbered(Flow::tcp(1), 1, 80);
    drop(rig.stop());
    let stopped = rig.stop();
    assert!(!rig.arrive(&bytes), "it takes no frame");
    assert!(!rig.rx.iter().any(NicRx::has_frames));
    let frame = rig.frame(&bytes, &[80]);
    rig.push(0, &frame);
    rig.tx[0].kick();
    rig.device.settle();
    assert!(rig.device.sent().is_empty(), "it sends none");
    assert_eq!(rig.tx[0].reclaim(), 0, "it completes none");
    let clock = rig.device.clock();
    assert!(rig.control.commit(clock()).is_err(), "it takes no command");
    rig.rewind(&stopped);
    assert_eq!(rig.tx[0].reclaim(), 1, "the frame is the sender's again");
    rig.replenish();
    assert!(!rig.arrive(&bytes), "not into buffers that are posted meanwhile either");
    rig.start(stopped);
    works(&mut rig);
    rig.finish();
    Verdict::Kept
}

/// Between rewind and restart queues may be used: what they publish is told when the device runs.
pub fn what_is_published_before_the_start_is_told_after_it<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    let stopped = rig.stop();
    rig.rewind(&stopped);
    rig.replenish();
    let bytes = numbered(Flow::tcp(1), 1, 80);
    let frame = rig.frame(&bytes, &[80]);
    rig.push(0, &frame);
    rig.tx[0].kick();
    assert!(rig.device.sent().is_empty(), "it is stopped");
    rig.start(stopped);
    // At the latest in these.
    let complete = rig.tx[0].reclaim();
    assert!(rig.poll_all().is_empty());
    rig.device.settle();
    assert!(rig.device.sent() == [bytes.clone()], "the frame leaves");
    assert_eq!(complete + rig.tx[0].reclaim(), 1);
    assert!(rig.arrive(&bytes), "the buffers are known");
    let got = rig.poll_all();
    assert_eq!(got.len(), 1);
    rig.free(got);
    works(&mut rig);
    rig.finish();
    Verdict::Kept
}

/// Flows come to where they came before.
pub fn the_table_is_the_same_after_a_restart<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, FOUR);
    if let Some(verdict) = super::without_queues(&rig.capabilities) {
        return verdict;
    }
    let pairs = rig.control.pairs();
    let groups = rig.capabilities.groups;
    for group in (0..groups).step_by(3) {
        let queue = (rig.control.queue_of(group).expect("it is there") + 1) % pairs;
        rig.steer(group, queue);
    }
    let table = rig.control.reta().to_vec();
    let stopped = rig.stop();
    rig.rewind(&stopped);
    rig.start(stopped);
    assert_eq!(rig.control.reta(), table);
    for number in 0..300 {
        rig.replenish();
        let flow = Flow::any(number);
        assert!(rig.arrive(&numbered(flow, 1, 80)));
        let got = rig.poll(rig.queue_of(flow), 64);
        assert_eq!(got.len(), 1, "{flow:?}");
        rig.free(got);
    }
    rig.finish();
    Verdict::Kept
}
