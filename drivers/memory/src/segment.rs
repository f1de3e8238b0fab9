//! Large frames of TCP, which a card cuts into segments.
use crate::packet::sum;
use ix_dataplane::device::{Gso, TxChecksum};

const ETHERNET: usize = 14;
const FIN_AND_PSH: u8 = 0x09;
const TCP: u64 = 6;

/// What a card makes of a frame (virtio 1.2 §5.1.6.2): segments of `gso.size` bytes of payload, each with the headers, its own
/// lengths, numbers and sums. FIN and PSH are the last one's. Panics where the headers are not in the frame.
pub fn segments(frame: &[u8], checksum: TxChecksum, gso: Gso) -> Vec<Vec<u8>> {
    let (headers, payload) = frame.split_at(usize::from(gso.header_len));
    let l4 = usize::from(checksum.start);
    let count = payload.chunks(usize::from(gso.size)).count();
    let cut = |(number, part): (usize, &[u8])| {
        let mut segment = [headers, part].concat();
        let len = segment.len() - l4;
        if gso.ipv6 {
            segment[18..20].copy_from_slice(&(len as u16).to_be_bytes());
        } else {
            let total = (segment.len() - ETHERNET) as u16;
            segment[16..18].copy_from_slice(&total.to_be_bytes());
            let id = u16::from_be_bytes([segment[18], segment[19]]).wrapping_add(number as u16);
            segment[18..20].copy_from_slice(&id.to_be_bytes());
            segment[24..26].fill(0);
            let header = !sum(&segment[ETHERNET..l4], 0);
            segment[24..26].copy_from_slice(&header.to_be_bytes());
        }
        let first = u32::from_be_bytes(segment[l4 + 4..l4 + 8].try_into().expect("four bytes"));
        let sequence = first.wrapping_add((number * usize::from(gso.size)) as u32);
        segment[l4 + 4..l4 + 8].copy_from_slice(&sequence.to_be_bytes());
        if number + 1 < count {
            segment[l4 + 13] &= !FIN_AND_PSH;
        }
        let addresses = if gso.ipv6 { &segment[22..54] } else { &segment[26..34] };
        let pseudo = u64::from(sum(addresses, TCP + len as u64));
        let at = l4 + usize::from(checksum.offset);
        segment[at..at + 2].fill(0);
        let value = !sum(&segment[l4..], pseudo);
        segment[at..at + 2].copy_from_slice(&value.to_be_bytes());
        segment
    };
    payload.chunks(usize::from(gso.size)).enumerate().map(cut).collect()
}
