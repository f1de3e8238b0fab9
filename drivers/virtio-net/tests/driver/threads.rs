//! The device on a thread of its own, asleep whenever it may be: no notification may get lost,
//! though the driver has no fence between publishing and looking whether one is wanted.
use crate::fake::Fake;
use crate::fake::queue::scatter;
use crate::rig::Rig;
use ix_dataplane::device::{RxBatch, RxQueue, TxQueue};
use ix_virtio_net::Features;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU32, fence};
use std::time::{Duration, Instant};

const FRAMES: u32 = 60_000;

/// Echoes: each transmitted frame comes back as a received one. Sleeps when it has nothing to do,
/// after having said that it wants to be woken.
fn echo(fake: &Fake, stop: &AtomicBool) {
    let memory = fake.with(|d| d.memory.clone());
    let want = |wanted| {
        fake.with(|d| (0..2).for_each(|i| d.queues[i].want_notifications(&memory, wanted)));
        fence(SeqCst);
    };
    let mut waiting = None;
    while !stop.load(SeqCst) {
        want(false);
        let mut progress = true;
        while progress {
            progress = fake.with(|d| {
                if waiting.is_none() {
                    waiting = d.transmit(0).map(|(_, frame)| frame);
                }
                let Some(frame) = &waiting else { return false };
                let Some(chain) = d.queues[0].take(&memory) else { return false };
                let written = scatter(
                    &memory,
                    &chain,
                    &[&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0][..], frame].concat(),
                );
                d.queues[0].complete(&memory, u32::from(chain.head), written);
                waiting = None;
                true
            });
        }
        *fake.bells.rung.lock().unwrap() = false;
        want(true);
        let work = |waiting: &Option<Vec<u8>>| {
            fake.with(|d| {
                let queue = usize::from(waiting.is_none());
                d.queues[queue].available(&memory) > 0
            })
        };
        if work(&waiting) {
            continue;
        }
        let rung = fake.bells.rung.lock().unwrap();
        let (_rung, timeout) = fake
            .bells
            .condition
            .wait_timeout_while(rung, Duration::from_secs(5), |rung| !*rung)
            .unwrap();
        let lost = timeout.timed_out() && !stop.load(SeqCst) && {
            drop(_rung);
            work(&waiting)
        };
        assert!(!lost, "a notification was lost");
    }
}

#[test]
fn no_notification_is_lost_to_a_device_that_sleeps_whenever_it_may() {
    let mut rig = Rig::without(Features::HASH_REPORT);
    let device = Fake { device: rig.fake.device.clone(), bells: rig.fake.bells.clone() };
    let stop = Arc::new(AtomicBool::new(false));
    let thread = std::thread::spawn({
        let stop = stop.clone();
        move || echo(&device, &stop)
    });
    let (frame, _) = rig.frame(&[54, 10]);
    let (mut sent, mut seen, mut done) = (0, 0, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut size = 1;
    while seen < FRAMES {
        assert!(Instant::now() < deadline, "stalled: sent {sent}, done {done}, seen {seen}");
        assert!(!thread.is_finished(), "the device thread failed");
        rig.replenish();
        // Batches of 1 to 32, each waited for, so that the device falls asleep often.
        if seen == sent {
            size = size % 32 + 1;
            for _ in 0..size.min(FRAMES - sent) {
                if rig.port.tx[0].push(&frame).is_ok() {
                    sent += 1;
                }
            }
            rig.tx().kick();
        }
        done += rig.tx().reclaim();
        let mut batch = RxBatch::new();
        seen += rig.rx().poll(64, &mut batch) as u32;
        for frame in batch {
            rig.pool.free(frame.mbuf);
        }
    }
    stop.store(true, SeqCst);
    *rig.fake.bells.rung.lock().unwrap() = true;
    rig.fake.bells.condition.notify_all();
    thread.join().expect("the device thread ends well");
    done += rig.tx().reclaim();
    assert_eq!((done, rig.rx().device_errors()), (FRAMES, 0));
    rig.assert_conserved(0);
}

/// The sleeper writes its wish and then looks for frames, the device writes a frame and then looks
/// for the wish: one of them must see the other's, or the core halts with a frame waiting.
#[test]
fn a_core_about_to_halt_sees_the_frame_or_the_device_sees_that_it_wants_an_interrupt() {
    const ROUNDS: u32 = 20_000;
    let mut rig = Rig::without(Features::HASH_REPORT);
    let memory = rig.buffers.memory.clone();
    rig.fake.with(|d| d.queues[0].want_notifications(&memory, false));
    let [posted, ready, start, done, wanted] = [const { AtomicU32::new(0) }; 5];
    let deadline = Instant::now() + Duration::from_secs(60);
    let wait_for = |counter: &AtomicU32, value| {
        let mut spins = 0_u32;
        while counter.load(SeqCst) != value {
            spins += 1;
            if spins.is_multiple_of(1000) {
                std::thread::yield_now();
                assert!(Instant::now() < deadline, "the other side is gone");
            }
        }
    };
    let device = rig.fake.device.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                wait_for(&posted, round);
                let queue = &mut device.lock().unwrap().queues[0];
                let chain = queue.take(&memory).unwrap();
                let mut bytes = [7; 72];
                bytes[10..12].copy_from_slice(&[1, 0]);
                let len = scatter(&memory, &chain, &bytes);
                queue.write_used(&memory, queue.used(), u32::from(chain.head), len);
                ready.store(round, SeqCst);
                wait_for(&start, round);
                // All is prepared but the index, so that both sides race at close quarters.
                queue.jump(&memory, 1);
                fence(SeqCst);
                wanted.store(u32::from(queue.wants_interrupt(&memory)), SeqCst);
                done.store(round, SeqCst);
            }
        });
        for round in 1..=ROUNDS {
            // The device wants no notification here: the driver must not need its lock.
            rig.port.rx[0].replenish(&mut rig.pool);
            rig.port.rx[0].disarm_interrupt();
            posted.store(round, SeqCst);
            wait_for(&ready, round);
            start.store(round, SeqCst);
            for _ in 0..round % 97 {
                std::hint::black_box(round);
            }
            let waits = rig.port.rx[0].arm_interrupt();
            wait_for(&done, round);
            assert!(waits || wanted.load(SeqCst) == 1, "round {round}: asleep with a frame");
            let mut batch = RxBatch::new();
            assert_eq!(rig.port.rx[0].poll(64, &mut batch), 1);
            rig.pool.free(batch.pop().unwrap().mbuf);
        }
    });
}
