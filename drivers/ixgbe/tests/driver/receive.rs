//! Receiving: lengths, rings that wrap, verdicts, several buffers, filters, interrupts.
use crate::frames::{Flow, MAC, frame};
use crate::rig::Rig;
use ix_dataplane::device::{NicControl, NicRx, RxChecksum, RxQueue};
use ix_dataplane::mbuf::NO_MBUF;
use ix_model_ixgbe::{Faults, Options};

#[test]
fn one_register_write_posts_a_batch_and_few_missing_buffers_none() {
    let mut rig = Rig::single();
    rig.watch();
    rig.replenish();
    assert_eq!(rig.writes(), [(0x1018, 255)], "one less than the ring");
    for round in 0..3 {
        for i in 0..64 {
            assert!(rig.world.receive(&frame(Flow::tcp(i), &[])));
        }
        let got = rig.poll(0);
        assert_eq!((got.len(), rig.writes().len()), (64, 0));
        rig.free(got);
        rig.replenish();
        assert_eq!(rig.writes(), [(0x1018, (255 + 64 * (round + 1)) % 256)]);
    }
    assert!(rig.world.receive(&frame(Flow::tcp(1), &[])));
    let got = rig.poll(0);
    rig.free(got);
    rig.replenish();
    assert_eq!(rig.writes(), []);
}

#[test]
fn a_ring_without_buffers_drops_and_counts_and_goes_on() {
    let mut rig = Rig::single();
    rig.replenish();
    let taken = (0..300).filter(|i| rig.world.receive(&frame(Flow::tcp(*i), &[]))).count();
    assert_eq!(taken, 255);
    // One counter after the other, each of which a look clears.
    let told: Vec<u64> = (0..6).map(|_| rig.port.control.poll_missed()).collect();
    assert_eq!((told[0], told[5]), (0, 45), "{told:?}");
    assert_eq!(rig.port.control.read_statistics().rx_no_descriptor, 45);
    assert_eq!(rig.port.control.poll_missed(), 45);
    for _ in 0..4 {
        let got = rig.poll(0);
        rig.free(got);
    }
    rig.replenish();
    assert!(rig.world.receive(&frame(Flow::tcp(1), &[])));
    rig.assert_conserved(0);
}

#[test]
fn a_jumbo_frame_comes_in_several_buffers() {
    let mut rig = Rig::new(Options::default(), |c| (c.queue_pairs, c.mtu) = (1, Some(9000)));
    for len in [1986, 1994, 1995, 4000, 4042, 8946] {
        rig.replenish();
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let sent = frame(Flow::tcp(len as u16), &payload);
        assert!(rig.world.receive(&sent), "length {}", sent.len());
        assert!(rig.world.receive(&frame(Flow::tcp(1), &[1])), "a small one behind it");
        let got = rig.poll(0);
        assert_eq!((got.len(), &got[0].1), (2, &sent), "length {}", sent.len());
        assert_eq!(got[0].0.checksum, RxChecksum::Good);
        assert!(got[0].0.hash.is_some() && got[0].0.len.min(2048) == got[0].0.len);
        rig.free(got);
    }
    rig.assert_conserved(0);
    assert!(!rig.world.receive(&vec![2; 9100]), "longer than was asked for");
    assert_eq!(rig.port.control.read_statistics().rx_oversize, 1);
    rig.assert_clean();
}

#[test]
fn a_frame_whose_end_is_still_to_come_waits() {
    let faults = Faults { write_back_delay_ns: 100_000, seed: 3, ..Faults::default() };
    let options = Options { faults, ..Options::default() };
    let mut rig = Rig::new(options, |c| (c.queue_pairs, c.mtu) = (1, Some(9000)));
    for round in 0..200 {
        rig.replenish();
        let sent = frame(Flow::tcp(round), &[round as u8; 8000]);
        assert!(rig.world.receive(&sent));
        let mut got = Vec::new();
        for _ in 0..100 {
            rig.world.advance(3_000);
            got.extend(rig.poll(0));
        }
        assert_eq!(got.len(), 1, "round {round}");
        assert_eq!(got[0].1, sent);
        rig.free(got);
    }
    rig.assert_conserved(0);
}

#[test]
fn filters_take_what_is_for_this_host_and_groups() {
    let mut rig = Rig::single();
    rig.replenish();
    let to = |destination: [u8; 6]| {
        let mut bytes = frame(Flow::tcp(1), &[]);
        bytes[..6].copy_from_slice(&destination);
        bytes
    };
    let other = [2, 3, 4, 5, 6, 7];
    let group = [0x33, 0x33, 0, 0, 0x12, 0x34];
    let takes = |rig: &Rig, destination| rig.world.receive(&to(destination));
    assert!(takes(&rig, MAC) && takes(&rig, [0xff; 6]) && takes(&rig, group));
    assert!(!takes(&rig, other));
    rig.port.control.set_promiscuous(true);
    assert!(takes(&rig, other));
    rig.port.control.set_promiscuous(false);
    assert!(!takes(&rig, other));
    rig.port.control.set_multicast(&[group]);
    assert!(takes(&rig, group) && takes(&rig, [0xff; 6]));
    assert!(!takes(&rig, [0x33, 0x33, 0, 0, 0x56, 0x78]));
    let statistics = *rig.port.control.read_statistics();
    assert_eq!((statistics.rx_all, statistics.rx_good), (9, 6));
    assert_eq!((statistics.rx_multicast, statistics.rx_broadcast), (2, 2));
}

#[test]
fn a_halted_core_is_woken_by_its_queues_vector_only_and_only_when_it_is_armed() {
    let mut rig = Rig::plain();
    rig.replenish();
    let flows: Vec<Vec<u8>> = (0..400).map(|port| frame(Flow::tcp(port), &[])).collect();
    assert!(rig.interrupts().is_empty());
    assert!(flows[..100].iter().all(|f| rig.world.receive(f)));
    assert!(rig.interrupts().is_empty(), "polled: no interrupts");
    for queue in 0..4 {
        let got = rig.poll(queue);
        rig.free(got);
    }
    rig.replenish();
    for queue in &mut rig.port.rx {
        assert!(!queue.arm_interrupt(), "nothing waits");
    }
    // The causes of what was polled are still there: one message each, at once.
    let mut stale = rig.interrupts();
    stale.sort_unstable();
    assert_eq!(stale, [1, 2, 3, 4]);
    for queue in &mut rig.port.rx {
        queue.disarm_interrupt();
        assert!(!queue.arm_interrupt());
    }
    assert!(rig.interrupts().is_empty());
    let mut seen = [false; 4];
    for bytes in &flows[100..] {
        assert!(rig.world.receive(bytes));
        let woken = rig.interrupts();
        let queue = (0..4).find(|q| rig.port.rx[*q].has_frames()).expect("it is in a queue");
        assert_eq!(woken, [queue as u16 + 1]);
        seen[queue] = true;
        // Its message has masked it: no second one before it is armed again.
        let got = rig.poll(queue);
        rig.free(got);
        rig.port.rx[queue].replenish(&mut rig.pool);
        assert!(!rig.port.rx[queue].arm_interrupt());
    }
    assert_eq!(seen, [true; 4]);
    assert!(rig.world.receive(&flows[0]));
    let queue = (0..4).find(|q| rig.port.rx[*q].has_frames()).unwrap();
    assert!(rig.port.rx[queue].arm_interrupt(), "what waits is said");
}

#[test]
fn a_frame_is_one_buffer_and_no_more() {
    let mut rig = Rig::single();
    rig.replenish();
    assert!(rig.world.receive(&frame(Flow::tcp(1), &[1; 1000])));
    let got = rig.poll(0);
    assert_eq!((got[0].0.rest.first(), got[0].0.merged, got[0].0.offset), (NO_MBUF, 0, 0));
    rig.assert_conserved(1);
    rig.free(got);
    rig.assert_conserved(0);
}

/// §8.2.3.8.7: one buffer, and a header of none; whatever PSRTYPE says then.
#[test]
fn headers_are_not_split_off_and_nothing_is_coalesced() {
    let mut rig = Rig::plain();
    for queue in 0..4 {
        assert_eq!(rig.world.read(0x1014 + 0x40 * queue) >> 25 & 7, 1, "SRRCTL.DESCTYPE");
        assert_eq!(rig.world.read(0x102c + 0x40 * queue), 0, "RSCCTL");
    }
    assert_eq!(rig.world.read(0x5008) & 1 << 5, 1 << 5, "RFCTL.RSC_DIS");
    rig.replenish();
    // Headers and payload, and segments in a row, stay as they came.
    let segments: Vec<Vec<u8>> = (0..4).map(|i| frame(Flow::tcp(9), &[i; 700])).collect();
    assert!(segments.iter().all(|bytes| rig.world.receive(bytes)));
    let got: Vec<_> = (0..4).flat_map(|queue| rig.poll(queue)).collect();
    assert_eq!(got.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), Vec::from_iter(&segments));
    rig.free(got);
}

#[test]
fn promiscuous_mode_stays_over_a_restart_and_a_list_of_groups_does_not() {
    let mut rig = Rig::single();
    let to = |destination: [u8; 6]| {
        let mut bytes = frame(Flow::tcp(1), &[]);
        bytes[..6].copy_from_slice(&destination);
        bytes
    };
    let (other, group) = ([2, 3, 4, 5, 6, 7], [0x33, 0x33, 0, 0, 0x56, 0x78]);
    rig.port.control.set_promiscuous(true);
    rig.port.control.set_multicast(&[]);
    rig.replenish();
    assert!(rig.world.receive(&to(other)) && !rig.world.receive(&to(group)));
    rig.restart();
    rig.replenish();
    assert!(rig.world.receive(&to(other)) && rig.world.receive(&to(group)));
}
