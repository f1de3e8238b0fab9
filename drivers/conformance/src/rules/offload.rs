//! What the device says of frames and fills in: verdicts, hashes, checksums.
use crate::frames::{FRAME_MIN, Flow, TCP, UDP, frame, without_sum};
use crate::{Bench, Make, Rig, Verdict, Wishes};
use ix_dataplane::device::{RxChecksum, TxQueue};

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
    let sum = !crate::frames::sum(&bytes[14..34], 0);
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
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
