//! Transmitting: pieces, kicks, full rings, completion.
use crate::frames::{ETHERNET, FRAME_MIN, Flow, TCP, number_of, numbered, without_sum};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{NicTx, TxFrame, TxFull, TxQueue};
use ix_dataplane::limits::TX_FRAGS_MAX;
use ix_dataplane::rng::Rng;

/// Shows what was pushed and lets it leave and complete; the frames that left.
fn run<B: Bench>(rig: &mut Rig<B>) -> Vec<Vec<u8>> {
    rig.tx[0].kick();
    rig.device.settle();
    rig.device.sent()
}

fn numbers(sent: &[Vec<u8>]) -> Vec<u32> {
    sent.iter().map(|bytes| number_of(bytes)).collect()
}

/// 1 to [`TX_FRAGS_MAX`] pieces of any length.
pub fn frames_of_any_number_of_pieces_leave_as_they_are<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { tx_ring: 64, ..Wishes::default() });
    let mut rng = Rng::from_seed(2);
    for round in 0..600_usize {
        let pieces = round % TX_FRAGS_MAX + 1;
        // The first holds all headers.
        let lens: Vec<usize> =
            (0..pieces).map(|i| if i == 0 { 60 } else { 1 + rng.below(70) as usize }).collect();
        let bytes = numbered(Flow::tcp(9), round as u32, lens.iter().sum());
        let frame = rig.frame(&bytes, &lens);
        rig.push(0, &frame);
        assert!(run(&mut rig) == [bytes], "round {round}: {lens:?}");
        assert_eq!((rig.tx[0].reclaim(), rig.tx[0].in_flight()), (1, 0));
    }
    rig.finish();
    Verdict::Kept
}

/// The smallest on a wire, the largest for the MTU, and the headers of a frame without payload.
pub fn the_smallest_and_the_largest_frame_leave_as_they_are<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    for mtu in [1500, 9000] {
        let mut rig = Rig::new(make, Wishes { mtu, ..Wishes::default() });
        let most = ETHERNET + usize::from(rig.capabilities.mtu.min(mtu));
        for len in [58, FRAME_MIN, FRAME_MIN + 1, most - 1, most] {
            for first in [len, 54] {
                let bytes = numbered(Flow::tcp(9), 1, len);
                let pieces = [first, len - first];
                let frame = rig.frame(&bytes, &pieces[..1 + usize::from(first < len)]);
                rig.push(0, &frame);
                assert!(run(&mut rig) == [bytes], "{len} bytes, {first} in the first piece");
                assert_eq!(rig.tx[0].reclaim(), 1);
            }
        }
        rig.finish();
    }
    Verdict::Kept
}

/// However many are pushed and however long it takes: the device sees nothing before the kick, and all after it.
pub fn nothing_leaves_before_a_kick<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    for count in [1, 2, 15, 16, 17, 31, 32, 33, 64] {
        for number in 0..count {
            let frame = numbered(Flow::tcp(1), number, 100);
            let frame = rig.frame(&frame, &[54, 46]);
            rig.push(0, &frame);
        }
        rig.device.settle();
        assert!(rig.device.sent().is_empty(), "of {count}: frames left before the kick");
        assert_eq!(rig.tx[0].reclaim(), 0, "of {count}: complete before the kick");
        assert_eq!(u32::from(rig.tx[0].in_flight()), count);
        let sent = run(&mut rig);
        assert!(numbers(&sent).into_iter().eq(0..count), "all {count} after it, in order");
        assert_eq!(rig.tx[0].reclaim(), count);
    }
    rig.finish();
    Verdict::Kept
}

/// `push_pair` is `push` of a frame of two pieces, with and without a checksum, and at a full ring.
pub fn a_pair_is_a_frame_of_two_pieces<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { tx_ring: 64, ..Wishes::default() });
    for round in 0..300_u16 {
        let flow = Flow::any(round);
        let bytes = without_sum(flow, &vec![round as u8; 1 + usize::from(round)]);
        let mut frame = rig.frame(&bytes, &[flow.headers(), 1 + usize::from(round)]);
        let asks = rig.capabilities.tx_checksum && round % 3 > 0;
        frame.checksum = asks.then(|| flow.checksum());
        let [headers, payload] = [frame.fragments[0], frame.fragments[1]];
        let mut pushed = 0;
        if round % 50 == 0 {
            while rig.tx[0].push_pair(headers, payload, frame.checksum) == Ok(()) {
                pushed += 1;
                assert!(pushed < 10_000, "a ring ends");
            }
            assert_eq!(rig.tx[0].push(&frame), Err(TxFull), "full for a pair, full for a frame");
        } else {
            rig.tx[0].push_pair(headers, payload, frame.checksum).expect("there is room");
            rig.push(0, &frame);
            pushed = 2;
        }
        let sent = run(&mut rig);
        assert_eq!((sent.len() as u32, rig.tx[0].reclaim()), (pushed, pushed), "round {round}");
        let expected =
            if asks { crate::frames::frame(flow, &bytes[flow.headers()..]) } else { bytes };
        assert!(sent.iter().all(|sent| *sent == expected), "round {round}");
    }
    rig.finish();
    Verdict::Kept
}

/// More frames than any index has values, through a small ring.
pub fn a_transmit_ring_wraps_many_times_and_keeps_the_order<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes { tx_ring: 64, ..Wishes::default() });
    let mut rng = Rng::from_seed(3);
    // Each of which is used again only when the frame is complete.
    let places: Vec<TxFrame> =
        (0..1024).map(|_| rig.frame(&numbered(Flow::tcp(1), 0, 100), &[54, 46])).collect();
    let single = |frame: &TxFrame, number: u32| {
        let mut frame = frame.clone();
        frame.fragments.truncate(1 + number as usize % 2);
        frame
    };
    let (mut pushed, mut left, mut completed) = (0_u32, 0_u32, 0_u32);
    while completed < 70_000 {
        for _ in 0..rng.below(40) {
            let place = &places[pushed as usize % places.len()];
            let bytes = numbered(Flow { protocol: TCP, ..Flow::tcp(1) }, pushed, 100);
            rig.device.write(place.fragments[0].bus, &bytes[..54]);
            rig.device.write(place.fragments[1].bus, &bytes[54..]);
            // Every other one is headers only, so that the ring is used up in odd steps.
            if rig.tx[0].push(&single(place, pushed)).is_err() {
                break;
            }
            pushed += 1;
        }
        if rng.below(4) > 0 {
            for bytes in run(&mut rig) {
                if left % 2 == 1 {
                    assert_eq!(number_of(&bytes), left, "in the order of the pushes");
                } else {
                    assert_eq!(bytes.len(), 54);
                }
                left += 1;
            }
        }
        completed += rig.tx[0].reclaim();
        assert!(completed <= left, "complete before it has left");
        assert_eq!(u32::from(rig.tx[0].in_flight()), pushed - completed);
    }
    left += run(&mut rig).len() as u32;
    completed += rig.tx[0].reclaim();
    assert_eq!((pushed, pushed), (left, completed));
    rig.finish();
    Verdict::Kept
}

/// `TxFull` leaves no trace, also of a frame of many pieces, and ends when frames are complete.
pub fn a_full_ring_says_so_and_loses_nothing<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { tx_ring: 64, ..Wishes::default() });
    let lens: Vec<usize> = std::iter::once(60).chain([3; TX_FRAGS_MAX - 1]).collect();
    for round in 0..60_u32 {
        let mut number = 0;
        let mut pushed = Vec::new();
        let mut fill = |rig: &mut Rig<B>, lens: &[usize], most: u32| {
            for _ in 0..most {
                let bytes = numbered(Flow::tcp(1), round << 16 | number, lens.iter().sum());
                let frame = rig.frame(&bytes, lens);
                if rig.tx[0].push(&frame).is_err() {
                    assert_eq!(rig.tx[0].push(&frame), Err(TxFull), "still");
                    return true;
                }
                number += 1;
                pushed.push(bytes);
            }
            false
        };
        assert!(!fill(&mut rig, &[60], round % 8), "an empty ring has room for a few");
        assert!(fill(&mut rig, &lens, 10_000), "a ring ends: of large frames");
        assert!(fill(&mut rig, &[54, 6], 10_000), "of pairs");
        assert!(fill(&mut rig, &[60], 10_000), "of small ones");
        rig.device.settle();
        assert_eq!(rig.tx[0].reclaim(), 0, "nobody has kicked");
        let sent = run(&mut rig);
        assert!(sent == pushed, "round {round}: {} of {} frames left", sent.len(), pushed.len());
        assert_eq!(rig.tx[0].reclaim() as usize, pushed.len());
        assert_eq!(rig.tx[0].in_flight(), 0);
    }
    rig.finish();
    Verdict::Kept
}

/// The memory of a frame is the sender's again when the device says so: not when it is kicked, not when it has left.
pub fn frames_are_complete_when_the_device_says_so_and_not_before<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    for count in [1_u32, 2, 16, 17, 40, 100] {
        rig.device.hold(true);
        for number in 0..count {
            let frame = rig.frame(&numbered(Flow::tcp(1), number, 60), &[60]);
            rig.push(0, &frame);
        }
        rig.tx[0].kick();
        let mut left = rig.device.sent().len();
        for _ in 0..5 {
            assert_eq!(rig.tx[0].reclaim(), 0, "of {count}: the device has said nothing");
            assert_eq!(u32::from(rig.tx[0].in_flight()), count);
        }
        rig.device.hold(false);
        rig.device.settle();
        left += rig.device.sent().len();
        assert_eq!((left as u32, rig.tx[0].reclaim()), (count, count));
        assert_eq!((rig.tx[0].reclaim(), rig.tx[0].in_flight()), (0, 0), "once");
    }
    rig.finish();
    Verdict::Kept
}

/// Frame `n` is counted only when all before it are complete too.
pub fn frames_complete_in_the_order_of_pushes_whatever_order_the_device_has<B: Bench>(
    make: &Make<'_, B>,
) -> Verdict {
    let mut rig = Rig::new(make, Wishes { tx_ring: 64, ..Wishes::default() });
    let mut rng = Rng::from_seed(4);
    for round in 0..200_u32 {
        rig.device.hold(true);
        for number in 0..16 {
            let frame = rig.frame(&numbered(Flow::tcp(1), number, 60), &[60]);
            rig.push(0, &frame);
        }
        assert_eq!(run(&mut rig).len(), 16);
        let mut held: Vec<usize> = (0..16).collect();
        let mut counted = 0;
        while !held.is_empty() {
            let nth = rng.below(held.len() as u64) as usize;
            if !rig.device.complete_out_of_turn(0, nth) {
                assert_eq!(held.len(), 16, "round {round}");
                return Verdict::NotOffered("the device completes in order");
            }
            held.remove(nth);
            let before = held.first().copied().unwrap_or(16);
            counted += rig.tx[0].reclaim() as usize;
            assert_eq!(counted, before, "round {round}: {held:?} are not complete");
        }
        rig.device.hold(false);
    }
    rig.finish();
    Verdict::Kept
}
