//! A port that is stopped and started again, with its queues rewound: after anything that went before.
use crate::frames::{Flow, frame};
use crate::rig::Rig;
use ix_dataplane::device::{NicControl, NicRx, NicTx, RxQueue, TxQueue};
use ix_dataplane::time::Instant;
use ix_ixgbe::InitError;

fn works(rig: &mut Rig) {
    for round in 0..300_u16 {
        rig.replenish();
        let bytes = frame(Flow::tcp(round), &vec![1; usize::from(round)]);
        assert!(rig.world.receive(&bytes), "round {round}");
        let got: Vec<_> = (0..4).flat_map(|queue| rig.poll(queue)).collect();
        assert_eq!(got.len(), 1);
        rig.free(got);
        let queued = rig.frame(&bytes, &[54, bytes.len() - 54][..1 + usize::from(round > 0)]);
        rig.port.tx[1].push(&queued).expect("room");
        rig.port.tx[1].kick();
        assert_eq!((rig.sent(), rig.port.tx[1].reclaim()), (vec![bytes], 1));
    }
    rig.assert_conserved(0);
    rig.assert_clean();
}

#[test]
fn a_port_works_on_after_a_restart_with_all_buffers_and_frames_accounted_for() {
    let mut rig = Rig::plain();
    rig.port.control.set_reta(9, 3).unwrap();
    rig.port.control.commit(Instant(0)).unwrap();
    works(&mut rig);
    for flying in [0_u32, 1, 7, 40] {
        let bytes = frame(Flow::tcp(1), &[]);
        let queued = rig.frame(&bytes, &[54]);
        // Without a link they stay in flight.
        rig.world.chip.borrow_mut().flap_link(1_000_000);
        rig.world.advance(1);
        for _ in 0..flying {
            rig.port.tx[1].push(&queued).expect("room");
        }
        rig.port.tx[1].kick();
        rig.restart();
        assert_eq!(rig.pool.available(), rig.pool.capacity(), "all buffers are home");
        assert_eq!(rig.port.tx[1].reclaim(), flying, "what was in flight is the sender's again");
        assert_eq!(rig.port.tx[1].reclaim(), 0);
        assert!(rig.sent().is_empty());
        assert_eq!(rig.world.read(0xeb08), 0x0302_0300, "the table is as it was");
        works(&mut rig);
    }
}

#[test]
fn frames_that_were_there_are_polled_after_the_chip_was_stopped() {
    let mut rig = Rig::single();
    rig.replenish();
    assert!((0..10).all(|i| rig.world.receive(&frame(Flow::tcp(i), &[]))));
    let stopped = rig.port.control.reset(&rig.world.clock()).expect("it resets");
    assert!(!rig.world.receive(&frame(Flow::tcp(1), &[])), "it takes none any more");
    assert!(rig.port.rx[0].has_frames());
    let got = rig.poll(0);
    assert_eq!(got.len(), 10);
    rig.free(got);
    rig.port.rx.remove(0).release(&stopped, &mut rig.pool);
    assert_eq!(rig.pool.available(), rig.pool.capacity());
    assert_eq!(rig.port.tx.remove(0).abandon(&stopped), 0);
}

#[test]
fn statistics_go_on_over_a_restart() {
    let mut rig = Rig::single();
    for round in 1..4 {
        rig.replenish();
        assert!(rig.world.receive(&frame(Flow::tcp(1), &[])));
        rig.restart();
        assert_eq!(rig.port.control.read_statistics().rx_good, round);
    }
}

#[test]
fn a_chip_that_does_not_start_again_is_left_stopped_and_may_be_tried_again() {
    let mut rig = Rig::plain();
    let clock = rig.world.clock();
    for tries in 0..3 {
        let stopped = rig.port.control.reset(&clock).expect("it resets");
        rig.world.chip.borrow_mut().faults.stuck_rx_enable = tries < 2;
        for queue in 0..4 {
            rig.port.rx[queue].rewind(&stopped, &mut rig.pool);
            rig.port.tx[queue].rewind(&stopped);
        }
        let started = rig.port.control.restart(stopped, &clock);
        let expected = InitError::QueueTimeout { what: "receive", queue: 0 };
        assert_eq!(started, if tries < 2 { Err(expected) } else { Ok(()) });
    }
    rig.port.control.wait_for_link(&clock).expect("the link comes up");
    rig.port.rx[0].disarm_interrupt();
    works(&mut rig);
}

/// Nothing tells it but that nothing leaves; a reset is the cure.
#[test]
fn a_chip_that_sends_nothing_more_sends_again_after_a_restart() {
    let mut rig = Rig::single();
    rig.world.chip.borrow_mut().faults.stuck_tx = true;
    let bytes = frame(Flow::tcp(1), &[1; 10]);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    for _ in 0..20 {
        rig.port.tx[0].push(&queued).expect("there is room");
        rig.port.tx[0].kick();
    }
    rig.world.advance(1_000_000_000);
    assert_eq!((rig.sent().len(), rig.port.tx[0].reclaim()), (0, 0));
    rig.restart();
    assert_eq!((rig.sent().len(), rig.port.tx[0].reclaim()), (0, 20));
    rig.port.tx[0].push(&queued).expect("there is room");
    rig.port.tx[0].kick();
    assert_eq!((rig.sent(), rig.port.tx[0].reclaim()), (vec![bytes], 1));
    rig.assert_clean();
}
