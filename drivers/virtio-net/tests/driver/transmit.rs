//! Transmitting, as conversations with an honest device.
use crate::fake::{Model, Rng};
use crate::rig::Rig;
use ix_dataplane::device::{Gso, NicControl, NicTx, TxChecksum, TxFull, TxQueue};
use ix_dataplane::limits::TX_FRAGS_MAX;
use ix_virtio_net::Features;
use std::collections::VecDeque;

/// With indirect tables, and with chains of descriptors.
fn both() -> [Rig; 2] {
    [Rig::without(Features::empty()), Rig::without(Features::INDIRECT_DESC)]
}

#[test]
fn a_frame_of_any_number_of_pieces_leaves_as_one() {
    for mut rig in both() {
        for pieces in 1..=TX_FRAGS_MAX {
            let (frame, bytes) = rig.frame(&vec![17; pieces]);
            assert_eq!(rig.tx().push(&frame), Ok(()));
            rig.tx().kick();
            let (header, sent) = rig.fake.with(|d| d.transmit(0)).expect("the device sees it");
            assert_eq!(sent, bytes);
            assert!(header.iter().all(|b| *b == 0) && header.len() == 20);
            assert_eq!(rig.tx().reclaim(), 1);
            assert_eq!(rig.tx().reclaim(), 0);
        }
    }
}

#[test]
fn the_device_sees_nothing_before_the_kick_and_one_doorbell_for_all() {
    for mut rig in both() {
        let (frame, _) = rig.frame(&[54, 100]);
        for _ in 0..10 {
            rig.tx().push(&frame).unwrap();
        }
        assert!(rig.fake.with(|d| d.take_transmit(0)).is_none());
        rig.tx().kick();
        rig.tx().kick();
        assert_eq!(rig.fake.notifications(1), 1);
        while rig.fake.with(|d| d.transmit(0)).is_some() {}
        assert_eq!(rig.tx().reclaim(), 10);
    }
}

#[test]
fn a_doorbell_that_was_not_wanted_is_made_up_for_by_reclaim() {
    let mut rig = Rig::without(Features::empty());
    let memory = rig.buffers.memory.clone();
    rig.fake.with(|d| d.queues[1].want_notifications(&memory, false));
    let (frame, _) = rig.frame(&[60]);
    rig.tx().push(&frame).unwrap();
    rig.tx().kick();
    rig.tx().reclaim();
    assert_eq!(rig.fake.notifications(1), 0);
    rig.fake.with(|d| d.queues[1].want_notifications(&memory, true));
    rig.tx().reclaim();
    rig.tx().reclaim();
    assert_eq!(rig.fake.notifications(1), 1);
}

#[test]
fn a_checksum_wish_goes_into_the_header_and_out_of_it_again() {
    let wish = Some(TxChecksum { start: 34, offset: 16 });
    for mut rig in both() {
        for round in 0..600 {
            let (mut frame, _) = rig.frame(&[60]);
            frame.checksum = wish.filter(|_| round % 3 != 0);
            rig.tx().push(&frame).unwrap();
            rig.tx().kick();
            let (header, _) = rig.fake.with(|d| d.transmit(0)).unwrap();
            let with = [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0];
            assert_eq!(header[..12], if round % 3 == 0 { [0; 12] } else { with });
            assert_eq!(rig.tx().reclaim(), 1);
        }
    }
}

#[test]
fn a_checksum_wish_without_the_feature_is_not_passed_on() {
    let mut rig = Rig::without(Features::CSUM);
    assert!(!rig.port.capabilities.tx_checksum);
    let (mut frame, _) = rig.frame(&[60]);
    frame.checksum = Some(TxChecksum { start: 34, offset: 16 });
    rig.tx().push(&frame).unwrap();
    rig.tx().kick();
    let (header, _) = rig.fake.with(|d| d.transmit(0)).unwrap();
    assert!(header.iter().all(|b| *b == 0));
}

#[test]
fn a_wish_for_segments_goes_into_the_header_and_out_of_it_again() {
    let checksum = Some(TxChecksum { start: 54, offset: 16 });
    for mut rig in both() {
        assert_eq!(rig.port.capabilities.tso, 65_535);
        let (mut frame, _) = rig.frame(&[66, 40_000]);
        for round in 0..600 {
            frame.checksum = checksum;
            let gso = Gso { size: 1448, header_len: 86, ipv6: round % 2 == 1 };
            frame.gso = Some(gso).filter(|_| round % 3 != 0);
            rig.tx().push(&frame).unwrap();
            rig.tx().kick();
            let (header, _) = rig.fake.with(|d| d.transmit(0)).unwrap();
            // virtio 1.2 §5.1.6: flags, gso_type, hdr_len, gso_size, csum_start, csum_offset.
            let kind = if round % 2 == 1 { 4 } else { 1 };
            let with = [1, kind, 86, 0, 0xa8, 5, 54, 0, 16, 0, 0, 0];
            let without = [1, 0, 0, 0, 0, 0, 54, 0, 16, 0, 0, 0];
            assert_eq!(header[..12], if round % 3 == 0 { without } else { with });
            assert_eq!(rig.tx().reclaim(), 1);
        }
    }
}

#[test]
fn a_wish_for_segments_without_the_feature_is_not_passed_on() {
    for declined in [Features::CSUM, Features::HOST_TSO4, Features::HOST_TSO6] {
        let mut rig = Rig::without(declined);
        assert_eq!(rig.port.capabilities.tso, 0, "{declined:?}");
        let (mut frame, _) = rig.frame(&[54, 4000]);
        frame.gso = Some(Gso { size: 1448, header_len: 54, ipv6: false });
        rig.tx().push(&frame).unwrap();
        rig.tx().kick();
        let (header, _) = rig.fake.with(|d| d.transmit(0)).unwrap();
        assert!(header.iter().all(|b| *b == 0));
    }
}

#[test]
fn a_full_ring_says_so_and_takes_frames_again_after_a_reclaim() {
    for (mut rig, capacity) in both().into_iter().zip([256, 85]) {
        let (frame, _) = rig.frame(&[54, 1000]);
        for _ in 0..capacity {
            assert_eq!(rig.tx().push(&frame), Ok(()));
        }
        assert_eq!(rig.tx().push(&frame), Err(TxFull));
        rig.tx().kick();
        assert_eq!(rig.tx().reclaim(), 0);
        rig.fake.with(|d| d.transmit(0)).unwrap();
        assert_eq!(rig.tx().reclaim(), 1);
        assert_eq!(rig.tx().push(&frame), Ok(()));
        assert_eq!(rig.tx().push(&frame), Err(TxFull));
    }
}

#[test]
fn frames_completed_out_of_order_are_counted_in_push_order() {
    for mut rig in both() {
        let memory = rig.buffers.memory.clone();
        let mut rng = Rng(3);
        let frames: Vec<_> = (1..=TX_FRAGS_MAX).map(|n| rig.frame(&vec![9; n])).collect();
        // By frame, oldest first: done or not. The model that the driver is held against.
        let mut model: VecDeque<bool> = VecDeque::new();
        let mut taken: Vec<(u16, usize)> = Vec::new();
        let (mut reclaimed, mut number) = (0_usize, 0_usize);
        for _ in 0..20_000 {
            match rng.below(4) {
                0 => {
                    let (frame, _) = &frames[rng.below(frames.len())];
                    if rig.port.tx[0].push(frame).is_ok() {
                        model.push_back(false);
                    }
                    rig.tx().kick();
                }
                1 => {
                    if let Some((chain, ..)) = rig.fake.with(|d| d.take_transmit(0)) {
                        taken.push((chain.head, number));
                        number += 1;
                    }
                }
                2 if !taken.is_empty() => {
                    let (head, number) = taken.swap_remove(rng.below(taken.len()));
                    rig.fake.with(|d| d.queues[1].complete(&memory, u32::from(head), 0));
                    model[number - reclaimed] = true;
                }
                _ => {
                    let done = model.iter().take_while(|done| **done).count();
                    assert_eq!(rig.tx().reclaim() as usize, done);
                    model.drain(..done);
                    reclaimed += done;
                    assert_eq!(usize::from(rig.tx().in_flight()), model.len());
                }
            }
        }
        assert!(reclaimed > 3_000);
        assert_eq!(rig.tx().device_errors(), 0);
    }
}

#[test]
fn frames_in_flight_at_a_reset_are_given_up_by_number() {
    let mut rig = Rig::new(Model::default(), |_| ());
    let (frame, _) = rig.frame(&[60]);
    for _ in 0..7 {
        rig.tx().push(&frame).unwrap();
    }
    rig.tx().kick();
    rig.fake.with(|d| d.transmit(0)).unwrap();
    assert_eq!(rig.tx().reclaim(), 1);
    let stopped = rig.port.control.reset(&crate::rig::ticking()).expect("it resets");
    let abandoned: u32 = rig.port.tx.into_iter().map(|q| q.abandon(&stopped)).sum();
    assert_eq!(abandoned, 6);
}
