//! Receiving: lengths, order, bounds, several buffers, scarcity.
use crate::frames::{ETHERNET, FRAME_MIN, Flow, frame, number_of, numbered};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{NicControl, NicRx, RxBatch, RxChecksum, RxFrame, RxQueue};
use ix_dataplane::limits::RX_BATCH_MAX;
use ix_dataplane::mbuf::{Mbuf, NO_MBUF, Rest};
use ix_dataplane::rng::Rng;

/// From the smallest frame to the largest for the MTU, each as it was, in its buffer, with nothing behind it.
pub fn frames_of_all_lengths_arrive_as_they_were<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    let most = ETHERNET + usize::from(rig.capabilities.mtu);
    for len in FRAME_MIN..=most {
        rig.replenish();
        let sent = numbered(Flow::tcp(len as u16), len as u32, len);
        assert!(rig.arrive(&sent), "length {len}: there are buffers");
        let got = rig.poll(0, 64);
        assert_eq!(got.len(), 1, "length {len}");
        assert!(got[0].bytes == sent, "length {len}: {} bytes", got[0].bytes.len());
        assert_eq!(got[0].frame.merged, 0, "it was one frame");
        rig.assert_conserved(1 + got[0].frame.rest.pieces(rig.area).count());
        rig.free(got);
    }
    rig.finish();
    Verdict::Kept
}

/// More frames than any index has values, in order, through a small ring; no buffer is lost.
pub fn a_receive_ring_wraps_many_times_and_keeps_the_order<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes { rx_ring: 32, buffers: 256, ..Wishes::default() });
    let mut rng = Rng::from_seed(1);
    let (mut sent, mut seen) = (0_u32, 0_u32);
    let mut held = Vec::new();
    while seen < 70_000 {
        rig.replenish();
        for _ in 0..rng.below(40) {
            sent += u32::from(rig.device.deliver(&numbered(Flow::tcp(5), sent, 60)));
        }
        rig.device.settle();
        let max = rng.below(64) as usize;
        for got in rig.poll(0, max) {
            assert_eq!(number_of(&got.bytes), seen, "in the order of their coming");
            seen += 1;
            held.push(got);
        }
        rig.assert_conserved(held.len());
        // They come home in any order.
        while held.len() > 100 {
            let one = held.swap_remove(rng.below(held.len() as u64) as usize);
            rig.free([one]);
        }
    }
    while seen < sent {
        let got = rig.poll(0, 64);
        assert!(!got.is_empty(), "{} frames are lost", sent - seen);
        seen += got.len() as u32;
        held.extend(got);
    }
    rig.free(held);
    rig.finish();
    Verdict::Kept
}

/// A poll is bounded by what it may take and by the batch's room, and says what waits.
pub fn a_poll_takes_no_more_than_it_may_and_what_fits<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::ready(make, Wishes::default());
    for number in 0..100 {
        assert!(rig.device.deliver(&numbered(Flow::tcp(7), number, 60)));
    }
    rig.device.settle();
    assert!(rig.rx[0].has_frames());
    let mut all = Vec::new();
    for (max, expected) in [(10, 10), (0, 0), (1, 1), (25, 25)] {
        let waiting = rig.rx[0].waiting();
        assert_eq!(waiting, 100 - all.len(), "what waits");
        let got = rig.poll(0, max);
        assert_eq!(got.len(), expected, "of {waiting}, at most {max}");
        all.extend(got.iter().map(|got| number_of(&got.bytes)));
        rig.free(got);
    }
    // A batch with room for five, whose other frames stay.
    let mut batch = RxBatch::new();
    while batch.len() < RX_BATCH_MAX - 5 {
        let (mbuf, rest) = (Mbuf::from_raw(NO_MBUF), Rest::NONE);
        let checksum = RxChecksum::Unknown;
        batch.push(RxFrame { mbuf, offset: 1, len: 2, rest, merged: 0, checksum, hash: None });
    }
    assert_eq!(rig.rx[0].poll(1000, &mut batch), 5, "what fits");
    let polled: Vec<RxFrame> = batch.drain(RX_BATCH_MAX - 5..).collect();
    for frame in polled {
        let start = usize::from(frame.offset);
        all.push(number_of(&rig.area.data(&frame.mbuf)[start..]));
        rig.pool.free(frame.mbuf);
    }
    assert!(batch.iter().all(|frame| frame.mbuf.index() == NO_MBUF && frame.offset == 1));
    let got = rig.poll(0, 1000);
    all.extend(got.iter().map(|got| number_of(&got.bytes)));
    rig.free(got);
    assert!(all.iter().copied().eq(0..100), "in order: {all:?}");
    assert!(!rig.rx[0].has_frames() && rig.rx[0].waiting() == 0);
    rig.finish();
    Verdict::Kept
}

/// Large frames come whole, in as many buffers as they take, each counted; a poll is bounded in frames, not buffers.
pub fn frames_over_several_buffers_arrive_whole<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { mtu: 9000, ..Wishes::default() });
    if rig.capabilities.mtu < 4200 {
        return Verdict::NotOffered("one buffer a frame");
    }
    let most = ETHERNET + usize::from(rig.capabilities.mtu);
    let lens = (2000..2080).chain(4050..4120).chain([6144, 6145, most - 1, most]);
    for len in lens {
        rig.replenish();
        let sent = numbered(Flow::tcp(1), 1, len);
        assert!(rig.device.deliver(&sent), "length {len}: there are buffers");
        assert!(rig.device.deliver(&numbered(Flow::tcp(1), 2, 60)), "and one alone behind it");
        rig.device.settle();
        let got = rig.poll(0, 64);
        assert_eq!(got.len(), 2, "length {len}");
        assert!(got[0].bytes == sent, "length {len}");
        assert_eq!(number_of(&got[1].bytes), 2);
        let buffers = got[0].frame.rest.pieces(rig.area).count();
        assert_eq!(buffers == 0, got[0].frame.rest.is_none());
        assert!(len <= 2048 || buffers > 0, "length {len} in one buffer");
        assert!(got[1].frame.rest.is_none(), "60 bytes in several buffers");
        rig.assert_conserved(2 + buffers);
        rig.free(got);
    }
    rig.replenish();
    let sent: Vec<_> = (0..10).map(|number| numbered(Flow::tcp(1), number, 5000)).collect();
    assert!(sent.iter().all(|sent| rig.device.deliver(sent)));
    rig.device.settle();
    for (max, expected) in [(0, 0..0), (3, 0..3), (64, 3..10)] {
        let got = rig.poll(0, max);
        assert!(got.iter().map(|got| &got.bytes).eq(&sent[expected]), "at most {max} frames");
        rig.free(got);
    }
    rig.finish();
    Verdict::Kept
}

/// Scarcity of buffers costs frames and nothing else, and ends with it.
pub fn an_empty_pool_posts_what_there_is_and_goes_on_later<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    let mut aside = Vec::new();
    while rig.pool.available() > 5 {
        aside.extend(rig.pool.alloc());
    }
    rig.replenish();
    rig.assert_conserved(aside.len());
    assert_eq!(rig.pool.available(), 0, "the five that there are");
    let sent = numbered(Flow::tcp(1), 1, 60);
    let taken = (0..10).filter(|_| rig.arrive(&sent)).count();
    assert_eq!(taken, 5, "frames for five buffers");
    rig.replenish();
    let got = rig.poll(0, 64);
    assert_eq!(got.len(), 5);
    rig.assert_conserved(aside.len() + 5);
    aside.into_iter().for_each(|mbuf| rig.pool.free(mbuf));
    rig.replenish();
    assert!((0..20).all(|_| rig.arrive(&sent)), "it goes on");
    rig.assert_conserved(5);
    let more = rig.poll(0, 64);
    assert_eq!(more.len(), 20);
    rig.free(got);
    rig.free(more);
    rig.finish();
    Verdict::Kept
}

/// Asked so often, a control part knows all that was lost.
const ASKED: usize = 64;

/// A core that does not poll loses frames that it has no buffers for, and only those; a device that counts them is believed.
pub fn a_ring_without_buffers_drops_and_goes_on<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { rx_ring: 64, ..Wishes::default() });
    let mut lost = 0;
    for round in 0..20_u32 {
        rig.replenish();
        let posted = rig.rx[0].held();
        assert!(posted > 0, "buffers are posted");
        let mut taken = Vec::new();
        for number in 0..posted as u32 + 20 {
            if rig.device.deliver(&numbered(Flow::tcp(1), round << 16 | number, 60)) {
                taken.push(round << 16 | number);
            }
        }
        rig.device.settle();
        assert_eq!(taken.len(), posted, "a frame for each buffer");
        let got = rig.poll(0, 1024);
        let numbers: Vec<u32> = got.iter().map(|got| number_of(&got.bytes)).collect();
        assert_eq!(numbers, taken);
        assert_eq!(rig.rx[0].held(), 0);
        assert!(!rig.device.deliver(&frame(Flow::tcp(1), &[])), "there is no buffer");
        lost += 21;
        let told = (0..ASKED).map(|_| rig.control.poll_missed()).last().unwrap_or(0);
        assert!(told == 0 || told == lost, "{told} of {lost} lost frames are told");
        rig.free(got);
    }
    rig.finish();
    Verdict::Kept
}
