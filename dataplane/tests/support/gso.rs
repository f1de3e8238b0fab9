//! Segmentation as a device does it, and what it may rely on (virtio 1.2 §5.1.6.2).
use ix_dataplane::checksum::{add, finish, fold, pseudo_v4, sum};
use ix_dataplane::device::{Gso, TxChecksum, TxFrame};

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 128;

/// The frames that leave for a gathered one.
pub fn segments(frame: &TxFrame, f: &[u8], gso: Gso) -> Vec<Vec<u8>> {
    let header = usize::from(gso.header_len);
    let size = usize::from(gso.size);
    assert_eq!((f[12], f[13], f[14], f[23]), (8, 0, 0x45, 6), "TCP over IPv4");
    assert_eq!(header, 34 + usize::from(f[46] >> 4) * 4, "all headers");
    assert_eq!(usize::from(u16::from_be_bytes([f[16], f[17]])), f.len() - 14, "the whole");
    assert!(size > 0 && f.len() > header + size, "more than a segment");
    assert_eq!(f[47] & CWR, 0, "that needs HOST_ECN");
    assert_eq!(frame.checksum, Some(TxChecksum { start: 34, offset: 16 }), "a partial checksum");
    let (from, to) = (f[26..30].try_into().unwrap(), f[30..34].try_into().unwrap());
    let partial = fold(pseudo_v4(from, to, 6, (f.len() - 34) as u16));
    assert_eq!(f[50..52], partial.to_ne_bytes(), "of the pseudo-header alone");
    let seq = u32::from_be_bytes(f[38..42].try_into().unwrap());
    let pieces = f[header..].chunks(size);
    let count = pieces.len();
    let mut out = Vec::new();
    for (i, payload) in pieces.enumerate() {
        let mut s = f[..header].to_vec();
        s.extend(payload);
        let total = (s.len() - 14) as u16;
        s[16..18].copy_from_slice(&total.to_be_bytes());
        s[24..26].fill(0);
        let ip = finish(sum(&s[14..34]));
        s[24..26].copy_from_slice(&ip);
        s[38..42].copy_from_slice(&seq.wrapping_add((i * size) as u32).to_be_bytes());
        if i + 1 < count {
            s[47] &= !(FIN | PSH);
        }
        s[50..52].fill(0);
        let tcp = finish(add(pseudo_v4(from, to, 6, total - 20), sum(&s[34..])));
        s[50..52].copy_from_slice(&tcp);
        out.push(s);
    }
    out
}
