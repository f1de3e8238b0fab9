//! What the device says of frames and fills in: verdicts, hashes, checksums.
use crate::frames::{
    ETHERNET, FRAME_MIN, Flow, TCP, UDP, frame, sum, transport_is_right, without_length,
    without_sum,
};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{Gso, Pseudo, RxChecksum, TxQueue};

/// `Good` covers IP's header and the transport, and is said of frames where both are right; of others it is not.
pub fn checksums_are_good_only_where_both_are_right<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    let offered = rig.capabilities.rx_checksum;
    let mut verdict = |bytes: &[u8]| {
        rig.replenish();
        assert!(rig.arrive(bytes));
        let got = rig.poll(0, 64);
        assert_eq!(got.len(), 1);
        let verdict = got[0].frame.checksum;
        rig.free(got);
        verdict
    };
    for (v6, protocol) in [(false, TCP), (false, UDP), (true, TCP), (true, UDP)] {
        let flow = Flow { v6, protocol, source: 9, ports: [5, 6] };
        for len in 10..80 {
            let good = frame(flow, &vec![len; usize::from(len)]);
            let expected = if offered { RxChecksum::Good } else { RxChecksum::Unknown };
            assert_eq!(verdict(&good), expected, "{flow:?} with {len} bytes");
            let mut padded = good.clone();
            padded.extend([0; 3]);
            assert_eq!(verdict(&padded), expected, "padding does not count");
            let mut spoiled = good.clone();
            let last = spoiled.len() - 1;
            spoiled[last] ^= 1;
            assert_eq!(verdict(&spoiled), RxChecksum::Unknown, "{flow:?}: a wrong payload");
            if !v6 {
                let mut header = good.clone();
                header[22] ^= 1;
                assert_eq!(verdict(&header), RxChecksum::Unknown, "a wrong header of IPv4");
                let fragment = fragment(&good);
                assert_eq!(verdict(&fragment), RxChecksum::Unknown, "a fragment");
            }
        }
    }
    assert_eq!(verdict(&arp()), RxChecksum::Unknown, "not IP");
    rig.finish();
    if offered { Verdict::Kept } else { Verdict::NotOffered("no verdicts") }
}

/// More fragments of an IPv4 frame follow; its header's sum is right.
fn fragment(whole: &[u8]) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[20] |= 0x20;
    bytes[24..26].fill(0);
    let value = !sum(&bytes[14..34], 0);
    bytes[24..26].copy_from_slice(&value.to_be_bytes());
    bytes
}

fn arp() -> Vec<u8> {
    let mut bytes = vec![0; FRAME_MIN];
    bytes[..6].fill(0xff);
    bytes[12..14].copy_from_slice(&[8, 6]);
    bytes
}

/// The hash that is reported is Toeplitz's over the port's key, for TCP and UDP over both families.
pub fn the_hash_is_the_engines<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes { pairs: 4, ..Wishes::default() });
    let offered = rig.capabilities.hash_report;
    for number in 0..1000_u16 {
        rig.replenish();
        let flow = Flow { source: (number >> 3) as u8, ..Flow::any(number) };
        assert!(rig.arrive(&frame(flow, &[7; 40])));
        let got = rig.poll_all();
        assert_eq!(got.len(), 1);
        let expected = offered.then(|| flow.hash(&rig.toeplitz));
        assert_eq!(got[0].frame.hash, expected, "{flow:?}");
        rig.free(got);
    }
    rig.finish();
    if offered { Verdict::Kept } else { Verdict::NotOffered("no hash is reported") }
}

/// Other protocols, fragments and what is not IP: queue 0, wherever group 0 is, and no hash.
pub fn what_has_no_ports_has_no_hash_and_comes_to_queue_0<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::ready(make, Wishes { pairs: 4, ..Wishes::default() });
    if let Some(verdict) = super::without_queues(&rig.capabilities) {
        return verdict;
    }
    rig.steer(0, 1);
    let whole = frame(Flow::tcp(1), &[1; 40]);
    let mut icmp = whole.clone();
    icmp[23] = 1;
    for bytes in [icmp, fragment(&whole), arp()] {
        assert!(rig.arrive(&bytes));
        let got = rig.poll(0, 64);
        assert_eq!(got.len(), 1, "it is in queue 0");
        assert_eq!(got[0].frame.hash, None);
        rig.free(got);
    }
    rig.finish();
    Verdict::Kept
}

/// Checksums of both protocols over both families, asked for in any order, next to frames that ask for none.
pub fn checksums_that_are_asked_for_are_filled_in<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    if !rig.capabilities.tx_checksum {
        return Verdict::NotOffered("the stack sums itself");
    }
    for round in 0..400_u16 {
        let mut expected = Vec::new();
        for number in [round, round / 4, round / 3] {
            let flow = Flow::any(number);
            let payload = vec![round as u8; usize::from(round)];
            let bytes = without_sum(flow, &payload);
            let pieces = [flow.headers(), payload.len()];
            let pieces = if payload.is_empty() { &pieces[..1] } else { &pieces };
            let mut asking = rig.frame(&bytes, pieces);
            asking.checksum = Some(flow.checksum());
            rig.push(0, &asking);
            asking.checksum = None;
            rig.push(0, &asking);
            expected.extend([frame(flow, &payload), bytes]);
        }
        rig.tx[0].kick();
        rig.device.settle();
        assert!(rig.device.sent() == expected, "round {round}");
        assert_eq!(rig.tx[0].reclaim(), 6);
    }
    rig.finish();
    Verdict::Kept
}

/// FIN, PSH and ACK.
const LAST: u8 = 0x19;
const ACK: u8 = 0x10;

/// Frames of up to what is offered become segments of the size asked for, each whole in itself; ordinary ones between them stay
/// what they are.
pub fn large_frames_leave_as_segments<B: Bench>(make: &Make<'_, B>) -> Verdict {
    let mut rig = Rig::new(make, Wishes::default());
    let most = usize::from(rig.capabilities.tso);
    if most == 0 {
        return Verdict::NotOffered("the stack cuts itself");
    }
    assert!(rig.capabilities.tx_checksum, "segments without checksums are of no use");
    for round in 0..300_usize {
        let flow = Flow { v6: round % 2 == 1, protocol: TCP, source: 4, ports: [80, 81] };
        let size = [1000, 1440, 536][round % 3];
        let (headers, l4) = (flow.headers(), ETHERNET + flow.l3());
        let len = if round == 299 { most + ETHERNET - headers } else { 1 + round * 211 };
        let payload: Vec<u8> = (0..len).map(|i| (i * 13 + round) as u8).collect();
        let mut bytes = without_sum(flow, &payload);
        let first = (round as u32).wrapping_mul(0x5555_5555);
        bytes[l4 + 4..l4 + 8].copy_from_slice(&first.to_be_bytes());
        bytes[l4 + 13] = LAST;
        if rig.capabilities.gso_pseudo == Pseudo::WithoutLength {
            without_length(flow, &mut bytes);
        }
        let some = payload.len().min(77);
        let pieces: Vec<usize> =
            [headers, some, len - some].into_iter().filter(|len| *len > 0).collect();
        let mut large = rig.frame(&bytes, &pieces);
        large.checksum = Some(flow.checksum());
        large.gso = Some(Gso { size, header_len: headers as u16, ipv6: flow.v6 });
        rig.push(0, &large);
        let small = without_sum(flow, &[1]);
        let mut ordinary = rig.frame(&small, &[small.len()]);
        ordinary.checksum = Some(flow.checksum());
        rig.push(0, &ordinary);
        rig.tx[0].kick();
        rig.device.settle();
        let mut sent = rig.device.sent();
        assert!(sent.pop() == Some(frame(flow, &[1])), "round {round}: the ordinary one");
        assert_eq!(rig.tx[0].reclaim(), 2, "two frames were pushed");
        assert_eq!(sent.len(), len.div_ceil(usize::from(size)), "round {round}: segments");
        let mut joined: Vec<u8> = Vec::new();
        for (number, segment) in sent.iter().enumerate() {
            let sequence = u32::from_be_bytes(segment[l4 + 4..l4 + 8].try_into().expect("four"));
            assert_eq!(sequence, first.wrapping_add(joined.len() as u32), "round {round}");
            assert_eq!(transport_is_right(segment), Some(true), "round {round}: {number}");
            assert!(flow.v6 || sum(&segment[14..34], 0) == 0xffff, "round {round}: {number}");
            let flags = if number + 1 == sent.len() { LAST } else { ACK };
            assert_eq!(segment[l4 + 13], flags, "round {round}: {number} of {}", sent.len());
            assert!(segment.len() - headers <= usize::from(size));
            joined.extend(&segment[headers..]);
        }
        assert!(joined == payload, "round {round}");
    }
    rig.finish();
    Verdict::Kept
}
