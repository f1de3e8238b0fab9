//! Pause frames, both ways.
use crate::frames::{Flow, frame};
use crate::rig::Rig;
use ix_dataplane::device::TxQueue;
use ix_model_ixgbe::Options;

fn rig(flow_control: bool) -> Rig {
    Rig::new(Options::default(), |c| {
        (c.queue_pairs, c.flow_control, c.rx_ring) = (1, flow_control, 64);
    })
}

fn pause(quanta: u16) -> Vec<u8> {
    let mut frame = vec![1, 0x80, 0xc2, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 8, 0, 1];
    frame.extend(quanta.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// The times that pause frames among these ask for.
fn pauses(sent: &[Vec<u8>]) -> Vec<u16> {
    let pauses = sent.iter().filter(|f| f[12..16] == [0x88, 8, 0, 1]);
    pauses.map(|f| u16::from_be_bytes([f[16], f[17]])).collect()
}

fn send(rig: &mut Rig) -> usize {
    let bytes = frame(Flow::tcp(1), &[1; 10]);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    rig.port.tx[0].push(&queued).expect("there is room");
    rig.port.tx[0].kick();
    rig.sent().len()
}

#[test]
fn frames_wait_as_long_as_the_partner_says_and_leave_when_it_says() {
    let mut rig = rig(true);
    assert_eq!(send(&mut rig), 1);
    rig.world.receive(&pause(1000));
    assert_eq!((send(&mut rig), send(&mut rig)), (0, 0));
    // 1,000 times 512 bits.
    rig.world.advance(51_100);
    assert_eq!((rig.sent().len(), rig.port.tx[0].reclaim()), (0, 1));
    rig.world.advance(200);
    assert_eq!((rig.sent().len(), rig.port.tx[0].reclaim()), (2, 2));
    rig.world.receive(&pause(u16::MAX));
    assert_eq!(send(&mut rig), 0);
    rig.world.receive(&pause(0));
    assert_eq!(rig.sent().len(), 1);
    let statistics = *rig.port.control.read_statistics();
    assert_eq!((statistics.rx_xoff, statistics.rx_xon), (2, 1));
    rig.replenish();
    assert!(rig.poll(0).is_empty(), "they are the chip's alone");
}

#[test]
fn off_it_obeys_nobody_and_tells_nobody_and_a_slow_core_loses_frames() {
    let mut rig = rig(false);
    rig.world.receive(&pause(u16::MAX));
    assert_eq!(send(&mut rig), 1);
    let bytes = frame(Flow::tcp(1), &[1; 1000]);
    assert!((0..1000).all(|_| !rig.world.receive(&bytes)));
    assert!(pauses(&rig.sent()).is_empty());
    // The pause frame is one like any other then.
    assert_eq!(rig.port.control.read_statistics().rx_no_descriptor, 1001);
}

/// A partner that hears a pause only when a maximum of bytes more has been sent.
#[test]
fn the_partner_is_told_to_stop_in_time_and_nothing_is_lost() {
    let mut rig = rig(true);
    let bytes = frame(Flow::tcp(1), &[1; 1446]);
    let mut sent = 0;
    while pauses(&rig.sent()).is_empty() {
        assert!(rig.world.receive(&bytes), "lost before the partner was told: {sent}");
        sent += 1;
    }
    assert!((250..400).contains(&sent), "most of the buffer is used: {sent}");
    // What is on its way: 11.5 KB and a frame.
    for _ in 0..9 {
        assert!(rig.world.receive(&bytes));
        sent += 1;
    }
    // As long as it is full, the partner is told again before its time is over.
    rig.world.advance(2_000_000);
    assert_eq!(pauses(&rig.sent()), [u16::MAX]);
    let mut received = 0;
    let mut told = Vec::new();
    while received < sent {
        rig.replenish();
        let frames = rig.poll(0);
        assert!(frames.iter().all(|(_, got)| *got == bytes));
        received += frames.len();
        rig.free(frames);
        let pauses = pauses(&rig.sent());
        assert!(pauses.is_empty() || (sent / 3..sent).contains(&received), "{received}");
        told.extend(pauses);
    }
    assert_eq!(told, [0], "go on, once");
    let statistics = *rig.port.control.read_statistics();
    assert_eq!((statistics.tx_xoff, statistics.tx_xon), (2, 1));
    assert_eq!((statistics.rx_missed, statistics.rx_no_descriptor), (0, 0));
    rig.assert_clean();
}

#[test]
fn it_is_on_again_after_a_restart_and_what_waited_is_forgotten() {
    let mut rig = rig(true);
    rig.world.receive(&pause(u16::MAX));
    assert_eq!(send(&mut rig), 0);
    rig.restart();
    assert_eq!(rig.port.tx[0].reclaim(), 1);
    assert_eq!(send(&mut rig), 1);
    rig.world.receive(&pause(u16::MAX));
    assert_eq!(send(&mut rig), 0);
}
