//! Register writes: they are what a batch costs.
use crate::frames::{Flow, numbered};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{RxQueue, TxQueue};

/// A kick rings once for all that was pushed, and not at all for nothing; pushing and reclaiming do not ring.
pub fn one_doorbell_shows_a_batch_of_frames_and_none_shows_nothing<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    let frame = rig.frame(&numbered(Flow::tcp(1), 1, 60), &[54, 6]);
    rig.device.doorbells();
    rig.tx[0].kick();
    assert_eq!(rig.device.doorbells(), 0, "nothing was pushed");
    for count in [1_u32, 3, 16, 64] {
        for _ in 0..count {
            rig.push(0, &frame);
        }
        assert_eq!(rig.device.doorbells(), 0, "{count}: pushing rings no bell");
        rig.tx[0].kick();
        assert_eq!(rig.device.doorbells(), 1, "{count}: a bell for all");
        rig.tx[0].kick();
        assert_eq!(rig.device.doorbells(), 0, "{count}: nothing was pushed since");
        rig.device.settle();
        assert_eq!(rig.device.sent().len() as u32, count);
        assert_eq!(rig.tx[0].reclaim(), count);
        rig.tx[0].kick();
        assert_eq!(rig.device.doorbells(), 0, "{count}: nor is reclaiming told");
    }
    rig.finish();
    Verdict::Kept
}

/// The same for buffers.
pub fn one_doorbell_posts_a_batch_of_buffers_and_none_posts_nothing<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    rig.device.doorbells();
    rig.replenish();
    assert_eq!(rig.device.doorbells(), 1, "a bell for the ring");
    for _ in 0..3 {
        rig.replenish();
        assert_eq!(rig.device.doorbells(), 0, "the ring is full");
    }
    for round in 0..20 {
        assert!((0..64).all(|number| rig.device.deliver(&numbered(Flow::tcp(1), number, 60))));
        rig.device.settle();
        let got = rig.poll(0, 64);
        assert_eq!((got.len(), rig.device.doorbells()), (64, 0), "polling rings no bell");
        rig.free(got);
        rig.rx[0].replenish(&mut rig.pool);
        assert_eq!(rig.device.doorbells(), 1, "round {round}: a bell for 64 buffers");
        rig.rx[0].replenish(&mut rig.pool);
        assert_eq!(rig.device.doorbells(), 0, "round {round}: and none for nothing");
    }
    rig.finish();
    Verdict::Kept
}
