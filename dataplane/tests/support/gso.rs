//! Segmentation as a device does it, and what it may rely on (virtio 1.2 §5.1.6.2).
use ix_dataplane::checksum::{add, finish, fold, is_good, sum};
use ix_dataplane::device::{Gso, Pseudo, TxChecksum, TxFrame};

const FIN: u8 = 1;
const PSH: u8 = 8;
const CWR: u8 = 128;

/// The frames that leave for a gathered one.
pub fn segments(frame: &TxFrame, f: &[u8], gso: Gso, wanted: Pseudo) -> Vec<Vec<u8>> {
    let header = usize::from(gso.header_len);
    let size = usize::from(gso.size);
    let tcp = if gso.ipv6 { 54 } else { 34 };
    if gso.ipv6 {
        assert_eq!((f[12], f[13], f[14] >> 4, f[20]), (0x86, 0xdd, 6, 6), "TCP over IPv6");
        assert_eq!(usize::from(u16::from_be_bytes([f[18], f[19]])), f.len() - 54, "the whole");
    } else {
        assert_eq!((f[12], f[13], f[14], f[23]), (8, 0, 0x45, 6), "TCP over IPv4");
        assert_eq!(usize::from(u16::from_be_bytes([f[16], f[17]])), f.len() - 14, "the whole");
    }
    assert_eq!(header, tcp + usize::from(f[tcp + 12] >> 4) * 4, "all headers");
    assert!(size > 0 && f.len() > header + size, "more than a segment");
    assert_eq!(f[tcp + 13] & CWR, 0, "that needs HOST_ECN");
    let wish = TxChecksum { start: tcp as u16, offset: 16 };
    assert_eq!(frame.checksum, Some(wish), "a partial checksum");
    let counted = if wanted == Pseudo::WithLength { f.len() - tcp } else { 0 };
    let partial = fold(pseudo(f, tcp, counted));
    if !gso.ipv6 {
        // Of 0 the 82599 makes the sum of each segment (§7.2.4.7.1); others take it as it is.
        let right = wanted == Pseudo::WithLength && is_good(sum(&f[14..34]));
        assert!(right || wanted == Pseudo::WithoutLength && f[24..26] == [0, 0], "IPv4's sum");
    }
    assert_eq!(f[tcp + 16..tcp + 18], partial.to_ne_bytes(), "of the pseudo-header alone");
    let seq = u32::from_be_bytes(f[tcp + 4..tcp + 8].try_into().unwrap());
    let pieces = f[header..].chunks(size);
    let count = pieces.len();
    let mut out = Vec::new();
    for (i, payload) in pieces.enumerate() {
        let mut s = f[..header].to_vec();
        s.extend(payload);
        if gso.ipv6 {
            let len = (s.len() - tcp) as u16;
            s[18..20].copy_from_slice(&len.to_be_bytes());
        } else {
            let len = (s.len() - 14) as u16;
            s[16..18].copy_from_slice(&len.to_be_bytes());
            s[24..26].fill(0);
            let ip = finish(sum(&s[14..34]));
            s[24..26].copy_from_slice(&ip);
        }
        s[tcp + 4..tcp + 8].copy_from_slice(&seq.wrapping_add((i * size) as u32).to_be_bytes());
        if i + 1 < count {
            s[tcp + 13] &= !(FIN | PSH);
        }
        s[tcp + 16..tcp + 18].fill(0);
        let whole = finish(add(pseudo(&s, tcp, s.len() - tcp), sum(&s[tcp..])));
        s[tcp + 16..tcp + 18].copy_from_slice(&whole);
        out.push(s);
    }
    out
}

/// The pseudo-header's sum of a frame whose TCP header is at `tcp`.
fn pseudo(f: &[u8], tcp: usize, len: usize) -> u64 {
    let addresses = if tcp == 54 { &f[22..54] } else { &f[26..34] };
    let rest = [[0, 6], (len as u16).to_be_bytes()].concat();
    add(sum(addresses), sum(&rest))
}
