//! Segmentation as a device does it, and what it may rely on (virtio 1.2 §5.1.6.2).
use ix_dataplane::checksum::{add, finish, fold, pseudo_v4, pseudo_v6, sum};
use ix_dataplane::device::{Gso, TxChecksum, TxFrame};

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 128;

/// The frames that leave for a gathered one.
pub fn segments(frame: &TxFrame, f: &[u8], gso: Gso) -> Vec<Vec<u8>> {
    let header = usize::from(gso.header_len);
    let size = usize::from(gso.size);
    // Where TCP begins, where the length is, and what it counts besides.
    let (at, len_at, counted) = if gso.ipv6 {
        assert_eq!((f[12], f[13], f[14] >> 4, f[20]), (0x86, 0xdd, 6, 6), "TCP over IPv6");
        (54, 18, 0)
    } else {
        assert_eq!((f[12], f[13], f[14], f[23]), (8, 0, 0x45, 6), "TCP over IPv4");
        (34, 16, 20)
    };
    let pseudo = |f: &[u8]| {
        let len = (f.len() - at) as u16;
        if gso.ipv6 {
            let (from, to) = (f[22..38].try_into().unwrap(), f[38..54].try_into().unwrap());
            pseudo_v6(&from, &to, 6, len)
        } else {
            pseudo_v4(f[26..30].try_into().unwrap(), f[30..34].try_into().unwrap(), 6, len)
        }
    };
    let total = u16::from_be_bytes([f[len_at], f[len_at + 1]]);
    assert_eq!(header, at + usize::from(f[at + 12] >> 4) * 4, "all headers");
    assert_eq!(usize::from(total), f.len() - at + counted, "the whole");
    assert!(size > 0 && f.len() > header + size, "more than a segment");
    assert_eq!(f[at + 13] & CWR, 0, "that needs HOST_ECN");
    let wish = TxChecksum { start: at as u16, offset: 16 };
    assert_eq!(frame.checksum, Some(wish), "a partial checksum");
    let partial = fold(pseudo(f));
    assert_eq!(f[at + 16..at + 18], partial.to_ne_bytes(), "of the pseudo-header alone");
    let seq = u32::from_be_bytes(f[at + 4..at + 8].try_into().unwrap());
    let pieces = f[header..].chunks(size);
    let count = pieces.len();
    let mut out = Vec::new();
    for (i, payload) in pieces.enumerate() {
        let mut s = f[..header].to_vec();
        s.extend(payload);
        let total = (s.len() - at + counted) as u16;
        s[len_at..len_at + 2].copy_from_slice(&total.to_be_bytes());
        if !gso.ipv6 {
            s[24..26].fill(0);
            let ip = finish(sum(&s[14..34]));
            s[24..26].copy_from_slice(&ip);
        }
        s[at + 4..at + 8].copy_from_slice(&seq.wrapping_add((i * size) as u32).to_be_bytes());
        if i + 1 < count {
            s[at + 13] &= !(FIN | PSH);
        }
        s[at + 16..at + 18].fill(0);
        let tcp = finish(add(pseudo(&s), sum(&s[at..])));
        s[at + 16..at + 18].copy_from_slice(&tcp);
        out.push(s);
    }
    out
}
