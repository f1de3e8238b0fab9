//! What the card's self-test asks of the driver: the way round in the MAC, registers by patterns.
use crate::frames::{Flow, frame};
use crate::rig::Rig;
use ix_dataplane::device::{NicControl, NicRx, NicTx, TxQueue};
use ix_model_ixgbe::{Faults, Options};

fn with(fault: &str) -> Options {
    let mut faults = Faults::default();
    assert!(faults.add(fault), "{fault}");
    Options { faults, ..Options::default() }
}

/// Sends a frame from a queue; how many come back.
fn round(rig: &mut Rig, queue: usize, flow: u16) -> usize {
    rig.replenish();
    // To the card itself.
    let mut bytes = frame(Flow::tcp(flow), &[7; 50]);
    bytes[..6].copy_from_slice(&rig.port.mac);
    let queued = rig.frame(&bytes, &[54, bytes.len() - 54]);
    rig.port.tx[queue].push(&queued).expect("room");
    rig.port.tx[queue].kick();
    let got: Vec<_> = (0..4).flat_map(|queue| rig.poll(queue)).collect();
    assert!(got.iter().all(|(_, found)| *found == bytes));
    let count = got.len();
    rig.free(got);
    count
}

#[test]
fn in_loopback_frames_come_back_and_none_leaves() {
    let mut rig = Rig::plain();
    let clock = rig.world.clock();
    assert_eq!((round(&mut rig, 0, 1), rig.sent().len()), (0, 1));
    // Nobody at the other end is no matter.
    rig.world.chip.borrow_mut().set_partner(false);
    assert!(rig.port.control.set_loopback(true, &clock));
    for queue in 0..4 {
        assert_eq!(round(&mut rig, queue, 9 + queue as u16), 1, "queue {queue}");
    }
    assert!(rig.sent().is_empty());
    assert!(!rig.world.receive(&frame(Flow::tcp(1), &[])), "nothing comes from the wire");
    rig.world.chip.borrow_mut().set_partner(true);
    assert!(rig.port.control.set_loopback(false, &clock));
    rig.port.control.wait_for_link(&clock).expect("as before");
    assert_eq!((round(&mut rig, 0, 1), rig.sent().len()), (0, 1));
    rig.assert_conserved(0);
    rig.assert_clean();
}

#[test]
fn a_restart_ends_the_loopback() {
    let mut rig = Rig::plain();
    let clock = rig.world.clock();
    rig.port.control.set_loopback(true, &clock);
    assert_eq!(round(&mut rig, 0, 1), 1);
    rig.restart();
    assert_eq!((round(&mut rig, 0, 1), rig.sent().len()), (0, 1));
}

#[test]
fn an_x540_is_not_told_what_it_does_not_know() {
    let mut rig = Rig::new(Options { device_id: 0x1528, ..Options::default() }, |_| {});
    let clock = rig.world.clock();
    rig.watch();
    assert!(!rig.port.control.set_loopback(true, &clock));
    assert_eq!(rig.writes(), []);
}

#[test]
fn registers_keep_patterns_and_are_left_as_they_were() {
    let mut rig = Rig::plain();
    let clock = rig.world.clock();
    let stopped = rig.port.control.reset(&clock).expect("it resets");
    for queue in 0..4 {
        rig.port.rx[queue].rewind(&stopped, &mut rig.pool);
        rig.port.tx[queue].rewind(&stopped);
    }
    let before: Vec<u32> = (0..0x8000).map(|i| rig.world.read(4 * i)).collect();
    let count = rig.port.control.try_registers(&stopped).expect("all do");
    assert_eq!(count, 4 + 30 + 128 + 128 + 10 + 32 + 6 * 4);
    let after: Vec<u32> = (0..0x8000).map(|i| rig.world.read(4 * i)).collect();
    // EICR clears when it is read; SWSM: reading it takes the semaphore.
    let differ =
        (0..0x8000).filter(|i| before[*i] != after[*i] && ![0x800, 0x10140].contains(&(4 * i)));
    assert_eq!(differ.map(|i| format!("{:#x}", 4 * i)).collect::<Vec<_>>(), [""; 0]);
    rig.port.control.restart(stopped, &clock).expect("it starts again");
    rig.port.control.wait_for_link(&clock).expect("the link comes up");
    assert_eq!((round(&mut rig, 2, 1), rig.sent().len()), (0, 1));
}

#[test]
fn a_register_that_forgets_a_bit_is_named() {
    let mut rig = Rig::new(with("stuck-register-bit"), |_| {});
    let clock = rig.world.clock();
    let stopped = rig.port.control.reset(&clock).expect("it resets");
    let fault = rig.port.control.try_registers(&stopped).expect_err("one does not");
    let said = fault.to_string();
    assert_eq!(said, "register 0x0eb80 reads 0x2aaaaaaa after 0xaaaaaaaa was written");
}
