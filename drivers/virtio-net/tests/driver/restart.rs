//! A port that is stopped and started again, with its queues rewound: after anything that went before.
use crate::fake::Model;
use crate::rig::{Rig, tcp_frame, ticking};
use ix_dataplane::device::{NicControl, NicRx, NicTx, TxQueue};
use ix_virtio_net::Features;

/// Stops it, rewinds all queues, starts it.
fn restart(rig: &mut Rig) {
    let stopped = rig.port.control.reset(&ticking()).expect("it resets");
    for queue in &mut rig.port.rx {
        queue.rewind(&stopped, &mut rig.pool);
    }
    rig.port.tx.iter_mut().for_each(|queue| queue.rewind(&stopped));
    rig.port.control.restart(stopped, &ticking()).expect("it starts again");
    rig.port.rx.iter_mut().for_each(ix_virtio_net::VirtioRx::restarted);
    rig.port.tx.iter_mut().for_each(ix_virtio_net::VirtioTx::restarted);
}

fn works(rig: &mut Rig) {
    rig.replenish();
    for round in 0..1000u16 {
        let sent = tcp_frame([1, 1, 1, 1], round, 60 + usize::from(round % 500));
        assert!(rig.fake.with(|d| d.receive_at(0, &[0; 20], &sent)));
        let got = rig.poll();
        assert_eq!((got.len(), &got[0].1), (1, &sent), "round {round}");
        rig.free(got);
        rig.replenish();
        let (frame, bytes) = rig.frame(&[54, 10]);
        rig.tx().push(&frame).expect("room");
        rig.tx().kick();
        assert_eq!(rig.fake.with(|d| d.transmit(0)).expect("it is told").1, bytes);
        assert_eq!(rig.tx().reclaim(), 1);
    }
    rig.assert_conserved(0);
}

#[test]
fn a_quarantined_port_is_of_use_again_after_a_restart() {
    let mut rig = Rig::without(Features::empty());
    rig.replenish();
    let (frame, _) = rig.frame(&[60]);
    rig.tx().push(&frame).expect("room");
    rig.tx().kick();
    let memory = rig.buffers.memory.clone();
    for queue in [0, 1] {
        rig.fake.with(|d| d.queues[queue].jump(&memory, 1000));
    }
    assert!(rig.poll().is_empty() && rig.tx().reclaim() == 0);
    assert!(rig.rx().is_quarantined() && rig.tx().is_quarantined());
    restart(&mut rig);
    assert!(!rig.rx().is_quarantined() && !rig.tx().is_quarantined());
    assert_eq!(rig.tx().reclaim(), 1);
    works(&mut rig);
}

#[test]
fn a_device_that_offers_less_than_before_is_left_stopped() {
    let mut rig = Rig::new(Model::default(), |_| ());
    let stopped = rig.port.control.reset(&ticking()).expect("it resets");
    rig.fake.with(|d| d.model.offered = Features::VERSION_1.bits());
    let error = rig.port.control.restart(stopped, &ticking()).expect_err("it lacks features");
    assert!(error.to_string().contains("does not offer"), "{error}");
}
