//! Transmission: legacy descriptors, segmentation, VLAN tags, head write-back, nonsense.
use crate::rig::{BASE, Rig, TX_RING, is_right, sum, tcp};

const EOP: u64 = 1 << 24;
const RS: u64 = 1 << 27;
const DEXT: u64 = 1 << 29;
const VLE: u64 = 1 << 30;
const TSE: u64 = 1 << 31;
const DATA: u64 = 3 << 20 | DEXT;
/// IPv4 and TCP sums.
const SUMS: u64 = 3 << 40;

/// A context for frames of `rig::tcp`'s kind.
fn context(mss: u64, vlan: u64) -> [u64; 2] {
    [vlan << 16 | 14 << 9 | 20, 2 << 20 | DEXT | 1 << 10 | 1 << 11 | 20 << 40 | mss << 48]
}

#[test]
fn a_legacy_descriptor_sends_and_reports() {
    let mut rig = Rig::running();
    let bytes = tcp(b"legacy");
    let at = rig.place(&bytes);
    assert_eq!(rig.send(&[[at, bytes.len() as u64 | EOP | RS]]), [bytes]);
    assert_eq!(rig.load(TX_RING + 8) >> 32 & 1, 1, "DD");
    assert_eq!(rig.read(0x6010), 1, "TDH");
}

#[test]
fn a_legacy_checksum_goes_where_it_shall() {
    let mut rig = Rig::running();
    let bytes = tcp(b"sum of this");
    let at = rig.place(&bytes);
    let sent = rig.send(&[[at, bytes.len() as u64 | 50 << 16 | EOP | 1 << 26 | 34 << 40]]);
    assert_eq!(sum(&sent[0][34..]), 0xffff);
}

#[test]
fn a_large_frame_is_cut_into_segments_with_headers_of_their_own() {
    let mut rig = Rig::running();
    let payload: Vec<u8> = (0..3500).map(|i| i as u8).collect();
    let mut bytes = tcp(&payload);
    // What software leaves to the chip: no length, no sums but the pseudo-header's without length.
    bytes[16..18].fill(0);
    let mut pseudo = bytes[26..34].to_vec();
    pseudo.extend([0, 6]);
    let pseudo = sum(&pseudo);
    bytes[50..52].copy_from_slice(&pseudo.to_be_bytes());
    let at = rig.place(&bytes);
    let total = payload.len() as u64;
    let sent = rig.send(&[
        context(1000, 0),
        [at, 54 | DATA | TSE | 1 << 39 | SUMS | total << 46],
        [at + 54, total | DATA | TSE | EOP | RS | total << 46],
    ]);
    assert_eq!(sent.iter().map(Vec::len).collect::<Vec<_>>(), [1054, 1054, 1054, 554]);
    assert!(sent.iter().all(|frame| is_right(frame)));
    let mut joined: Vec<u8> = Vec::new();
    for (number, frame) in (0_u32..).zip(&sent) {
        let sequence = u32::from_be_bytes(frame[38..42].try_into().unwrap());
        let id = u16::from_be_bytes([frame[18], frame[19]]);
        assert_eq!((sequence, id), (1000 + 1000 * number, 0x1234 + number as u16));
        // FIN and PSH are the last one's (DTXTCPFLGL, DTXTCPFLGH).
        assert_eq!(frame[47], if number == 3 { 0x19 } else { 0x10 });
        joined.extend(&frame[54..]);
    }
    assert_eq!(joined, payload);
    assert_eq!(rig.read(0x4080), 4, "GPTC");
}

#[test]
fn a_vlan_tag_is_inserted() {
    let mut rig = Rig::running();
    let bytes = tcp(b"tagged");
    let at = rig.place(&bytes);
    let len = bytes.len() as u64;
    let legacy = rig.send(&[[at, len | EOP | VLE | 0x0123 << 48]]);
    let advanced = rig.send(&[context(0, 0x0123), [at, len | DATA | EOP | VLE | len << 46]]);
    assert_eq!(legacy[0][12..18], [0x81, 0, 1, 0x23, 8, 0]);
    assert_eq!(legacy, advanced);
    assert_eq!([&legacy[0][..12], &legacy[0][16..]].concat(), bytes);
}

#[test]
fn the_head_is_written_back_where_that_is_wanted() {
    let mut rig = Rig::running();
    let bytes = tcp(b"head");
    let at = rig.place(&bytes);
    rig.write(0x6038, (BASE as u32 + 0x2000) | 1);
    rig.write(0x603c, (BASE >> 32) as u32);
    rig.send(&[[at, bytes.len() as u64 | EOP | RS], [at, bytes.len() as u64 | EOP | RS]]);
    assert_eq!(rig.load(BASE + 0x2000), 2);
    assert_eq!(rig.load(TX_RING + 8) >> 32 & 1, 0, "no DD then");
}

#[test]
fn what_makes_no_sense_is_counted_and_the_ring_goes_on() {
    let mut rig = Rig::running();
    let bytes = tcp(b"good");
    let at = rig.place(&bytes);
    let good = [at, bytes.len() as u64 | EOP | RS];
    let nonsense = [
        [at, EOP],
        [at, 60 | 7 << 20 | DEXT | EOP],
        // Segments of nothing.
        [at, 60 | DATA | TSE | EOP],
    ];
    for descriptor in nonsense {
        let before = rig.chip.counts.bad_descriptors;
        assert_eq!(rig.send(&[descriptor, good]), std::slice::from_ref(&bytes));
        assert_eq!(rig.chip.counts.bad_descriptors, before + 1);
    }
    assert_eq!(rig.chip.counts.refused, 0);
    assert_eq!(rig.send(&[[0x1000, 60 | EOP | RS], good]), [bytes]);
    assert_eq!((rig.chip.counts.refused, rig.chip.counts.last_refused), (1, (0x1000, 60)));
    assert_eq!(rig.chip.counts.dropped_tx, 3);
}

#[test]
fn a_tail_outside_of_the_ring_is_counted_and_nothing_is_read() {
    let mut rig = Rig::running();
    rig.write(0x6018, 0xffff);
    assert_eq!((rig.chip.counts.bad_rings, rig.chip.counts.refused), (1, 0));
    assert!(rig.wire.sent.is_empty());
}
