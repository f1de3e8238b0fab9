//! Transmitting: pieces, contexts, reports, doorbells, rings that wrap.
use crate::frames::{Flow, TCP, UDP, frame, pseudo, sum, sum_field, without_sum};
use crate::rig::Rig;
use ix_abi::CoreId;
use ix_dataplane::device::{Gso, NicTx, TxChecksum, TxFrame, TxFull, TxQueue};
use ix_dataplane::steer::{MuxTx, RemoteTx};
use ix_model_ixgbe::{Faults, Options};

fn checksum(flow: Flow) -> TxChecksum {
    let start = 14 + flow.l3();
    TxChecksum { start: start as u16, offset: (sum_field(flow) - start) as u16 }
}

fn flow(number: u16) -> Flow {
    let protocol = if number & 1 == 0 { TCP } else { UDP };
    Flow { v6: number & 2 != 0, protocol, source: 7, ports: [11211, number] }
}

#[test]
fn the_chip_fills_in_checksums_and_contexts_are_written_only_when_they_change() {
    let mut rig = Rig::single();
    for round in 0..400 {
        let flow = flow(round % 4);
        let payload = vec![round as u8; usize::from(round)];
        let bytes = without_sum(flow, &payload);
        let headers = 14 + flow.l3() + flow.l4();
        let lens = [headers, payload.len()];
        let mut queued = rig.frame(&bytes, if payload.is_empty() { &lens[..1] } else { &lens });
        queued.checksum = Some(checksum(flow));
        rig.port.tx[0].push(&queued).expect("there is room");
        rig.port.tx[0].kick();
        assert_eq!(rig.sent(), [frame(flow, &payload)], "round {round}");
        assert_eq!(rig.port.tx[0].reclaim(), 1);
    }
    // Two kinds in turn: both contexts stay.
    let used = |rig: &Rig| rig.world.read(0x6010);
    let [a, b] = [flow(0), flow(1)].map(|flow| {
        let mut queued =
            rig.frame(&without_sum(flow, &[1; 30]), &[14 + flow.l3() + flow.l4() + 30]);
        queued.checksum = Some(checksum(flow));
        queued
    });
    for queued in [&a, &b, &a] {
        rig.port.tx[0].push(queued).unwrap();
        rig.port.tx[0].kick();
    }
    let before = used(&rig);
    for _ in 0..20 {
        rig.port.tx[0].push(&a).unwrap();
        rig.port.tx[0].push(&b).unwrap();
    }
    rig.port.tx[0].kick();
    assert_eq!((used(&rig) + 256 - before) % 256, 40, "one descriptor for each frame");
    assert_eq!(rig.sent().len(), 43);
    rig.assert_clean();
}

#[test]
fn one_register_write_shows_a_batch_and_none_shows_nothing() {
    let mut rig = Rig::single();
    rig.watch();
    let bytes = frame(Flow::tcp(1), &[]);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    rig.port.tx[0].kick();
    assert_eq!(rig.writes(), []);
    for _ in 0..64 {
        rig.port.tx[0].push(&queued).unwrap();
    }
    rig.port.tx[0].kick();
    rig.port.tx[0].kick();
    assert_eq!(rig.writes(), [(0x6018, 64)]);
    assert_eq!((rig.port.tx[0].reclaim(), rig.port.tx[0].reclaim()), (64, 0));
    assert_eq!(rig.sent().len(), 64);
}

#[test]
fn a_full_ring_says_so_and_takes_frames_again_when_some_are_complete() {
    let faults = Faults { write_back_delay_ns: 1_000, ..Faults::default() };
    let mut rig = Rig::new(Options { faults, ..Options::default() }, |c| {
        (c.queue_pairs, c.tx_ring) = (1, 64);
    });
    let bytes = frame(Flow::tcp(1), &[5; 10]);
    let queued = rig.frame(&bytes, &[30, bytes.len() - 30]);
    let mut pushed = 0;
    let mut completed = 0;
    for _ in 0..200 {
        while rig.port.tx[0].push(&queued) == Ok(()) {
            pushed += 1;
        }
        assert_eq!(rig.port.tx[0].push(&queued), Err(TxFull));
        rig.port.tx[0].kick();
        completed += rig.port.tx[0].reclaim();
        assert!(pushed - completed <= 31);
        rig.world.advance(5_000);
        completed += rig.port.tx[0].reclaim();
    }
    assert!(pushed > 200 * 30, "{pushed}");
    assert_eq!((rig.sent().len() as u32, completed), (pushed, pushed));
    rig.assert_clean();
}

#[test]
fn completion_is_counted_only_when_the_chip_says_so() {
    let faults = Faults { write_back_delay_ns: 1_000_000, seed: 5, ..Faults::default() };
    let mut rig = Rig::new(Options { faults, ..Options::default() }, |c| c.queue_pairs = 1);
    let bytes = frame(Flow::tcp(1), &[]);
    let queued = rig.frame(&bytes, &[bytes.len()]);
    let mut completed = 0;
    for batch in 1..=50_u32 {
        for _ in 0..batch {
            rig.port.tx[0].push(&queued).unwrap();
        }
        rig.port.tx[0].kick();
        let mut now = 0;
        while now < batch {
            let more = rig.port.tx[0].reclaim();
            now += more;
            assert_eq!(u32::from(rig.port.tx[0].in_flight()), batch - now);
            rig.world.advance(10_000);
        }
        completed += now;
    }
    assert_eq!(completed, rig.sent().len() as u32);
}

#[test]
fn a_report_is_asked_for_once_in_40_descriptors_however_frames_are_cut() {
    let mut rig = Rig::single();
    for pieces in 1..=18 {
        let bytes = frame(Flow::tcp(1), &[9; 100]);
        let mut lens = vec![1; pieces];
        lens[0] = bytes.len() - (pieces - 1);
        let large = rig.frame(&bytes, &lens);
        let small = rig.frame(&bytes, &[bytes.len()]);
        for before in 0..40 {
            let frames = (0..before).map(|_| &small).chain([&large, &large]);
            let count = frames.map(|frame| rig.port.tx[0].push(frame).expect("room")).count();
            rig.port.tx[0].kick();
            assert_eq!(rig.port.tx[0].reclaim() as usize, count);
        }
    }
    rig.assert_clean();
}

#[test]
fn a_checksum_that_the_chip_has_not_is_left_out_and_counted() {
    let mut rig = Rig::single();
    let bytes = without_sum(Flow::tcp(1), &[1; 20]);
    let mut queued: TxFrame = rig.frame(&bytes, &[bytes.len()]);
    queued.checksum = Some(TxChecksum { start: 34, offset: 10 });
    rig.port.tx[0].push(&queued).unwrap();
    rig.port.tx[0].kick();
    assert_eq!((rig.sent(), rig.port.tx[0].device_errors()), (vec![bytes], 1));
    rig.assert_clean();
}

/// A frame for the chip to cut: its headers as the chip wants them.
fn large(flow: Flow, payload: &[u8]) -> Vec<u8> {
    let mut bytes = without_sum(flow, payload);
    if !flow.v6 {
        bytes[24..26].fill(0);
    }
    let at = sum_field(flow);
    bytes[at..at + 2].copy_from_slice(&pseudo(flow, 0).to_be_bytes());
    bytes[14 + flow.l3() + 13] = 0x18;
    bytes
}

#[test]
fn large_frames_leave_as_segments_whose_sums_and_numbers_are_right() {
    let mut rig = Rig::new(Options::default(), |c| (c.queue_pairs, c.tso) = (1, true));
    assert_eq!(rig.port.capabilities.tso, u16::MAX);
    for round in 0..300_usize {
        let flow = Flow { v6: round % 2 == 1, protocol: TCP, source: 4, ports: [80, 81] };
        let size = [1000, 1440, 536][round % 3];
        let payload: Vec<u8> = (0..1 + round * 211).map(|i| (i * 13 + round) as u8).collect();
        let bytes = large(flow, &payload);
        let headers = 34 + flow.l3();
        // Headers, a few bytes, and what may be more than a descriptor takes.
        let first = payload.len().min(77);
        let lens: Vec<usize> =
            [headers, first, payload.len() - first].into_iter().filter(|len| *len > 0).collect();
        let mut queued = rig.frame(&bytes, &lens);
        queued.checksum = Some(checksum(flow));
        queued.gso = Some(Gso { size, header_len: headers as u16, ipv6: flow.v6 });
        rig.port.tx[0].push(&queued).expect("there is room");
        // And one of the ordinary kind behind it, whose context is another.
        let small = without_sum(flow, &[1]);
        let mut ordinary = rig.frame(&small, &[small.len()]);
        ordinary.checksum = Some(checksum(flow));
        rig.port.tx[0].push(&ordinary).expect("there is room");
        rig.port.tx[0].kick();
        let mut sent = rig.sent();
        assert_eq!(sent.pop(), Some(frame(flow, &[1])));
        assert_eq!(sent.len(), payload.len().div_ceil(usize::from(size)), "round {round}");
        assert_eq!(joined(flow, &sent), payload);
        assert_eq!(rig.port.tx[0].reclaim(), 2);
    }
    rig.assert_clean();
}

/// The payload of segments, all of whose sums and numbers are right.
fn joined(flow: Flow, sent: &[Vec<u8>]) -> Vec<u8> {
    let mut joined: Vec<u8> = Vec::new();
    let last = sent.len() - 1;
    for (number, segment) in sent.iter().enumerate() {
        let l4 = 14 + flow.l3();
        let sequence = u32::from_be_bytes(segment[l4 + 4..l4 + 8].try_into().unwrap());
        assert_eq!(sequence as usize, joined.len());
        let sound = sum(&segment[l4..], u64::from(pseudo(flow, segment.len() - l4)));
        assert_eq!(sound, 0xffff, "segment {number}");
        assert!(flow.v6 || sum(&segment[14..34], 0) == 0xffff);
        assert_eq!(segment[l4 + 13] & 8 != 0, number == last, "PSH");
        joined.extend(&segment[l4 + 20..]);
    }
    joined
}

/// A core without a queue of its own sends by another's: what is copied there is all that the card needs.
#[test]
fn large_frames_of_other_cores_leave_as_segments_too() {
    let mut rig = Rig::new(Options::default(), |c| (c.queue_pairs, c.tso) = (1, true));
    let (mut remote, source) = RemoteTx::new(CoreId(0), 64, |_| ());
    let mut owner = MuxTx::new(rig.port.tx.remove(0), 64, vec![source]);
    for v6 in [false, true] {
        let flow = Flow { v6, protocol: TCP, source: 4, ports: [80, 81] };
        let payload: Vec<u8> = (0..50_000).map(|i: u32| (i * 7) as u8).collect();
        let headers = 34 + flow.l3();
        let mut queued = rig.frame(&large(flow, &payload), &[headers, payload.len()]);
        queued.checksum = Some(checksum(flow));
        queued.gso = Some(Gso { size: 1448, header_len: headers as u16, ipv6: v6 });
        remote.push(&queued).expect("there is room");
        remote.kick();
        owner.reclaim();
        owner.kick();
        assert_eq!(joined(flow, &rig.sent()), payload);
        owner.reclaim();
        assert_eq!(remote.reclaim(), 1);
    }
    rig.assert_clean();
}
