//! The device on a thread of its own, asleep whenever it may be: no notification may get lost,
//! though the driver has no fence between publishing and looking whether one is wanted.
use crate::fake::Fake;
use crate::fake::queue::scatter;
use crate::rig::Rig;
use ix_dataplane::device::{RxBatch, RxQueue, TxQueue};
use ix_virtio_net::Features;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, fence};
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
                let written = scatter(&memory, &chain, &[&[0; 12][..], frame].concat());
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
