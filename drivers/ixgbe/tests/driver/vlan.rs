//! A port in one VLAN: what is above it sees no tag, what is outside of it nothing else.
use crate::frames::{Flow, TCP, UDP, frame, sum_field, without_sum};
use crate::rig::Rig;
use ix_dataplane::device::{Gso, RxQueue, TxChecksum, TxQueue};
use ix_ixgbe::InitError;
use ix_model_ixgbe::Options;

const VLAN: u16 = 0x123;

fn rig() -> Rig {
    let mut rig = Rig::new(Options::default(), |c| {
        (c.queue_pairs, c.vlan, c.tso, c.mtu) = (1, Some(VLAN), true, Some(4000));
    });
    rig.replenish();
    rig
}

fn tagged(bytes: &[u8], tag: u16) -> Vec<u8> {
    [&bytes[..12], &[0x81, 0], &tag.to_be_bytes(), &bytes[12..]].concat()
}

fn checksum(flow: Flow) -> TxChecksum {
    let start = 14 + flow.l3();
    TxChecksum { start: start as u16, offset: (sum_field(flow) - start) as u16 }
}

#[test]
fn tags_are_taken_off_and_frames_of_other_vlans_do_not_come() {
    let mut rig = rig();
    let bytes = frame(Flow::tcp(7), &[1; 100]);
    // Whatever priority the tag has.
    for tag in [VLAN, VLAN | 0xe000, VLAN | 0x1000] {
        assert!(rig.world.receive(&tagged(&bytes, tag)));
        let frames = rig.poll(0);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].1, bytes);
        rig.free(frames);
    }
    for tag in [0, VLAN ^ 1, VLAN + 32, 0xfff] {
        assert!(!rig.world.receive(&tagged(&bytes, tag)), "{tag:#x}");
    }
    assert_eq!(rig.port.rx[0].other_vlan(), 0);
    rig.assert_clean();
}

#[test]
fn frames_without_the_tag_are_dropped_and_counted_whatever_the_chip_lets_through() {
    let mut rig = rig();
    let (short, long) = (frame(Flow::tcp(7), &[1; 100]), frame(Flow::tcp(8), &[2; 3000]));
    assert!(rig.world.receive(&short) && rig.world.receive(&long));
    // A chip that filters nothing.
    let mut chip = rig.world.chip.borrow_mut();
    chip.write32(0x5088, 0x8100, &*rig.world.memory, &mut *rig.world.wire.borrow_mut());
    drop(chip);
    assert!(rig.world.receive(&tagged(&short, VLAN + 1)));
    assert!(rig.world.receive(&tagged(&long, VLAN)));
    let frames = rig.poll(0);
    assert_eq!(frames.iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [&long]);
    assert_eq!((rig.port.rx[0].other_vlan(), rig.port.rx[0].device_errors()), (3, 0));
    rig.assert_conserved(2);
    rig.free(frames);
    rig.replenish();
    rig.assert_conserved(0);
}

#[test]
fn every_frame_that_leaves_has_the_tag() {
    let mut rig = rig();
    for round in 0..400_u16 {
        let protocol = if round % 3 == 0 { UDP } else { TCP };
        let flow = Flow { v6: round & 1 != 0, protocol, source: 7, ports: [11211, round] };
        let payload = vec![round as u8; usize::from(round) + 10];
        let headers = 14 + flow.l3() + flow.l4();
        let (bytes, wanted) = if round % 5 < 2 {
            // The sum is the chip's to fill in, or was filled in.
            (without_sum(flow, &payload), frame(flow, &payload))
        } else {
            (frame(flow, &payload), frame(flow, &payload))
        };
        let mut queued = rig.frame(&bytes, &[headers, payload.len()]);
        queued.checksum = (round % 5 < 2).then(|| checksum(flow));
        if round % 7 == 0 {
            let [headers, payload] = [queued.fragments[0], queued.fragments[1]];
            rig.port.tx[0].push_pair(headers, payload, queued.checksum).expect("there is room");
        } else {
            rig.port.tx[0].push(&queued).expect("there is room");
        }
        rig.port.tx[0].kick();
        assert_eq!(rig.sent(), [tagged(&wanted, VLAN)], "round {round}");
        assert_eq!(rig.port.tx[0].reclaim(), 1);
    }
    rig.assert_clean();
}

/// A checksum that the chip has not is left out, the tag never.
#[test]
fn segments_and_frames_that_cannot_be_as_they_shall_have_the_tag_too() {
    let mut rig = rig();
    let flow = Flow { v6: false, protocol: TCP, source: 7, ports: [1, 2] };
    let bytes = without_sum(flow, &[5; 3000]);
    let mut queued = rig.frame(&bytes, &[54, 3000]);
    queued.checksum = Some(checksum(flow));
    queued.gso = Some(Gso { size: 1000, header_len: 54, ipv6: false });
    rig.port.tx[0].push(&queued).expect("there is room");
    rig.port.tx[0].kick();
    let sent = rig.sent();
    assert_eq!(sent.len(), 3);
    for segment in sent {
        assert_eq!((segment.len(), &segment[12..16]), (1058, &[0x81, 0, 0x01, 0x23][..]));
    }
    let mut odd = rig.frame(&bytes[..1000], &[1000]);
    odd.checksum = Some(TxChecksum { start: 34, offset: 3 });
    rig.port.tx[0].push(&odd).expect("there is room");
    rig.port.tx[0].kick();
    assert_eq!(rig.sent(), [tagged(&bytes[..1000], VLAN)]);
    assert_eq!(rig.port.tx[0].device_errors(), 1);
    rig.assert_clean();
}

#[test]
fn the_vlan_stays_over_a_restart_and_one_context_serves_all() {
    let mut rig = rig();
    rig.restart();
    rig.replenish();
    let bytes = frame(Flow::tcp(7), &[1; 100]);
    assert!(!rig.world.receive(&tagged(&bytes, VLAN + 1)));
    assert!(rig.world.receive(&tagged(&bytes, VLAN)));
    let frames = rig.poll(0);
    assert_eq!(frames[0].1, bytes);
    rig.free(frames);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    for _ in 0..20 {
        rig.port.tx[0].push(&queued).expect("there is room");
    }
    rig.port.tx[0].kick();
    assert_eq!(rig.world.read(0x6010), 21, "a context and twenty frames");
    assert!(rig.sent().iter().all(|sent| *sent == tagged(&bytes, VLAN)));
}

#[test]
fn vlans_that_do_not_exist_are_refused() {
    for id in [0, 4095, u16::MAX] {
        let world = crate::rig::World::new(Options::default());
        let area = crate::memory::area(&world.memory, 1, 64);
        let error = crate::rig::open(&world, area, |c| c.vlan = Some(id)).err();
        assert!(matches!(error, Some(InitError::BadRequest { .. })), "{error:?}");
    }
}
