//! Receiving, as conversations with an honest device.
use crate::fake::queue::scatter;
use crate::fake::{Model, Rng};
use crate::rig::{Rig, tcp_frame};
use ix_dataplane::device::{NicControl, NicRx, RxChecksum, RxQueue};
use ix_virtio_net::Features;

/// In one buffer.
const NO_FLAGS: [u8; 20] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn frames_arrive_in_order_with_their_bytes_behind_the_header() {
    for (declined, offset) in [(Features::empty(), 20), (Features::HASH_REPORT, 12)] {
        let mut rig = Rig::without(declined);
        rig.replenish();
        for len in [14, 60, 1514, 2028] {
            let frame = tcp_frame([10, 0, 2, 2], 4000, len)[..len].to_vec();
            assert!(rig.fake.with(|d| d.receive_at(0, &NO_FLAGS, &frame)));
            let got = rig.poll();
            assert_eq!(got.len(), 1);
            assert_eq!((got[0].0.offset, &got[0].1), (offset, &frame));
            assert_eq!(got[0].0.checksum, RxChecksum::Unknown);
            rig.assert_conserved(1);
            rig.free(got);
        }
        assert_eq!(rig.rx().device_errors(), 0);
    }
}

#[test]
fn buffers_completed_out_of_order_are_the_right_ones() {
    let mut rig = Rig::new(Model::default(), |c| c.rx_ring = 16);
    let mut rng = Rng(7);
    let memory = rig.buffers.memory.clone();
    for round in 0..500_u32 {
        rig.replenish();
        let mut chains = Vec::new();
        rig.fake.with(|d| {
            while let Some(chain) = d.queues[0].take(&memory) {
                chains.push(chain);
            }
        });
        assert_eq!(chains.len(), 16);
        let mut expected = Vec::new();
        while !chains.is_empty() {
            let chain = chains.swap_remove(rng.below(chains.len()));
            let mut frame = tcp_frame([1, 2, 3, 4], 5, 60);
            frame[50..54].copy_from_slice(&(round << 8 | u32::from(chain.head)).to_le_bytes());
            let bytes = [&NO_FLAGS[..], &frame].concat();
            let written = scatter(&memory, &chain, &bytes);
            rig.fake.with(|d| d.queues[0].complete(&memory, u32::from(chain.head), written));
            expected.push(frame);
        }
        let got = rig.poll();
        assert_eq!(got.iter().map(|(_, b)| b.clone()).collect::<Vec<_>>(), expected);
        rig.free(got);
        rig.assert_conserved(0);
    }
}

#[test]
fn the_device_is_told_once_per_replenish_and_only_if_it_wants_to_know() {
    let mut rig = Rig::without(Features::empty());
    let memory = rig.buffers.memory.clone();
    rig.replenish();
    assert_eq!(rig.fake.notifications(0), 1);
    rig.replenish();
    assert_eq!(rig.fake.notifications(0), 1, "nothing new");
    rig.fake.with(|d| {
        d.queues[0].want_notifications(&memory, false);
        for _ in 0..200 {
            d.receive_at(0, &NO_FLAGS, &tcp_frame([1, 1, 1, 1], 1, 60));
        }
    });
    let got = rig.poll();
    rig.free(got);
    rig.replenish();
    assert_eq!(rig.fake.notifications(0), 1, "not wanted");
    // The device goes to sleep after the driver looked: the next poll must wake it.
    rig.fake.with(|d| d.queues[0].want_notifications(&memory, true));
    let got = rig.poll();
    rig.free(got);
    assert_eq!(rig.fake.notifications(0), 2);
    let got = rig.poll();
    rig.free(got);
    assert_eq!(rig.fake.notifications(0), 2, "once");
}

#[test]
fn buffers_are_posted_by_sixteen_while_frames_come_and_all_when_none_does() {
    let mut rig = Rig::without(Features::empty());
    rig.replenish();
    let all = rig.rx().outstanding();
    let receive = |rig: &mut Rig| {
        rig.fake.with(|d| d.receive_at(0, &NO_FLAGS, &tcp_frame([1, 1, 1, 1], 1, 60)));
        let got = rig.poll();
        rig.free(got);
        rig.replenish();
    };
    for round in 0..3 {
        for missing in 1..16 {
            receive(&mut rig);
            assert_eq!(rig.rx().outstanding(), all - missing, "round {round}");
        }
        receive(&mut rig);
        assert_eq!(rig.rx().outstanding(), all, "the sixteenth");
    }
    receive(&mut rig);
    assert_eq!(rig.rx().outstanding(), all - 1);
    rig.replenish();
    assert_eq!(rig.rx().outstanding(), all, "no frame has come");
}

#[test]
fn checksums_that_the_device_vouches_for_are_good() {
    let mut rig = Rig::without(Features::empty());
    rig.replenish();
    let mut cases = vec![(NO_FLAGS, RxChecksum::Unknown)];
    let mut valid = NO_FLAGS;
    valid[0] = 2;
    cases.push((valid, RxChecksum::Good));
    let mut partial = NO_FLAGS;
    partial[..10].copy_from_slice(&[1, 0, 0, 0, 0, 0, 34, 0, 16, 0]);
    cases.push((partial, RxChecksum::Good));
    for (header, expected) in &cases {
        rig.fake.with(|d| d.receive_at(0, header, &tcp_frame([1, 1, 1, 1], 1, 60)));
        let got = rig.poll();
        assert_eq!(got[0].0.checksum, *expected, "{header:?}");
        rig.free(got);
    }
    partial[6] = 0xff;
    rig.fake.with(|d| d.receive_at(0, &partial, &tcp_frame([1, 1, 1, 1], 1, 60)));
    let got = rig.poll();
    assert_eq!(got[0].0.checksum, RxChecksum::Unknown);
    rig.free(got);
    assert_eq!(rig.rx().device_errors(), 1, "a checksum field outside the frame is counted");
}

#[test]
fn nothing_is_vouched_for_that_was_not_negotiated() {
    let mut rig = Rig::without(Features::GUEST_CSUM);
    assert!(!rig.port.capabilities.rx_checksum);
    rig.replenish();
    let mut valid = NO_FLAGS;
    valid[0] = 2;
    rig.fake.with(|d| d.receive_at(0, &valid, &tcp_frame([1, 1, 1, 1], 1, 60)));
    let got = rig.poll();
    assert_eq!(got[0].0.checksum, RxChecksum::Unknown);
    rig.free(got);
}

#[test]
fn a_reset_port_gives_all_buffers_back() {
    let mut rig = Rig::without(Features::empty());
    rig.replenish();
    rig.fake.with(|d| d.receive_at(0, &NO_FLAGS, &[0; 5]));
    let got = rig.poll();
    assert!(got.is_empty(), "5 bytes are no frame");
    assert_eq!((rig.rx().device_errors(), rig.rx().held()), (1, 256));
    let clock = crate::rig::ticking();
    let stopped = rig.port.control.reset(&clock).expect("it resets");
    for queue in rig.port.rx {
        queue.release(&stopped, &mut rig.pool);
    }
    assert_eq!(rig.pool.available(), rig.pool.capacity());
}

#[test]
fn frames_of_several_buffers_arrive_whole() {
    for (declined, first) in [(Features::empty(), 2028), (Features::HASH_REPORT, 2036)] {
        let mut rig = Rig::without(declined);
        for len in [first, first + 1, 4096, 9014, first + 32 * 2048_usize] {
            rig.replenish();
            let frame: Vec<u8> = (0..len).map(|i| (i * 7 + i / 256) as u8).collect();
            assert!(rig.fake.with(|d| d.receive_at(0, &NO_FLAGS, &frame)));
            // One behind it, which is alone.
            assert!(rig.fake.with(|d| d.receive_at(0, &NO_FLAGS, &frame[..60])));
            let got = rig.poll();
            assert_eq!((got.len(), &got[0].1, &got[1].1[..]), (2, &frame, &frame[..60]));
            let buffers = 1 + (len - first).div_ceil(2048);
            assert_eq!(got[0].0.rest.is_none(), buffers == 1);
            rig.assert_conserved(buffers + 1);
            rig.free(got);
        }
        assert_eq!(rig.rx().device_errors(), 0);
    }
}

#[test]
fn the_size_of_merged_segments_is_told_if_it_makes_sense() {
    let mut rig = Rig::without(Features::empty());
    let mut frame = tcp_frame([1, 1, 1, 1], 1, 60);
    frame.resize(5000, 3);
    let cases =
        [(0, 1448, 0, 0), (1, 1448, 1448, 0), (4, 1428, 1428, 0), (1, 0, 0, 1), (3, 9, 0, 1)];
    for (kind, size, told, errors) in cases {
        rig.replenish();
        let before = rig.rx().device_errors();
        let mut header = NO_FLAGS;
        header[..2].copy_from_slice(&[1, kind]);
        header[4..6].copy_from_slice(&u16::to_le_bytes(size));
        header[6..10].copy_from_slice(&[34, 0, 16, 0]);
        rig.fake.with(|d| d.receive_at(0, &header, &frame));
        let got = rig.poll();
        assert_eq!((got[0].0.merged, got[0].0.checksum), (told, RxChecksum::Good), "kind {kind}");
        assert_eq!(rig.rx().device_errors() - before, errors);
        rig.free(got);
    }
}

#[test]
fn lies_about_the_number_of_buffers_cost_the_frame_or_the_queue() {
    // Posted are 256: none; more than a frame may have; more than are complete.
    for (count, complete, quarantined) in [(0, 1, false), (34, 40, false), (3, 2, true)] {
        let mut rig = Rig::without(Features::empty());
        let memory = rig.buffers.memory.clone();
        rig.replenish();
        rig.fake.with(|d| {
            for _ in 0..complete {
                let chain = d.queues[0].take(&memory).unwrap();
                let mut bytes = [NO_FLAGS.to_vec(), tcp_frame([1, 1, 1, 1], 1, 60)].concat();
                bytes[10..12].copy_from_slice(&u16::to_le_bytes(count));
                let written = scatter(&memory, &chain, &bytes);
                let position = d.queues[0].used().wrapping_add(0);
                d.queues[0].write_used(&memory, position, u32::from(chain.head), written);
                d.queues[0].jump(&memory, 1);
            }
        });
        let got = rig.poll();
        assert!(got.is_empty());
        let queue = &rig.port.rx[0];
        assert_eq!(queue.is_quarantined(), quarantined || complete > 34, "{count}");
        assert!(queue.device_errors() >= 1);
        rig.assert_conserved(0);
        let clock = crate::rig::ticking();
        let stopped = rig.port.control.reset(&clock).expect("it resets");
        for queue in rig.port.rx {
            queue.release(&stopped, &mut rig.pool);
        }
        assert_eq!(rig.pool.available(), rig.pool.capacity());
    }
}
