//! IPv6 of the other end of the wire: routers, neighbours, pings, errors, segments, extension headers.
use super::wire::MAC;
use crate::input::Input;
use ix_dataplane::checksum;

/// In the Ethernet header.
pub const ETHERTYPE: [u8; 2] = [0x86, 0xdd];
const HEADERS: usize = 54;

/// `fe80::` and the like: the first bytes, the last ones.
fn address(first: &[u8], last: &[u8]) -> [u8; 16] {
    let mut address = [0; 16];
    address[..first.len()].copy_from_slice(first);
    address[16 - last.len()..].copy_from_slice(last);
    address
}

/// The station's identifier, made of its Ethernet address.
const OWN: [u8; 8] = [0, 0, 0, 0xff, 0xfe, 0, 0, 1];

fn host(input: &mut Input<'_>) -> [u8; 16] {
    match input.u8() & 15 {
        0..=5 => address(&[0xfe, 0x80], &OWN),
        6 | 7 => address(&[0x20, 1, 0xd, 0xb8], &OWN),
        8 => address(&[0xff, 2], &[1]),
        9 | 10 => address(&[0xff, 2], &[1, 0xff, 0, 0, 1]),
        11 => [0; 16],
        n => address(&[0xfe, 0x80], &[n]),
    }
}

/// A frame that the input makes up.
pub fn frame(input: &mut Input<'_>) -> Vec<u8> {
    let (from, to) = (host(input), host(input));
    let kind = input.u8();
    let (mut first, mut body) = match kind & 7 {
        0 => (58, router(input)),
        1 | 2 => (58, neighbor(input)),
        3 => (58, [&[128, 0, 0, 0, 0, 1, 0, 2][..], input.take(20)].concat()),
        4 => {
            let quote = [&[0x60, 0, 0, 0, 0, 20, 6, 64][..], &to, &from, input.take(20)].concat();
            (58, [&[input.u8() & 7, input.u8() & 7, 0, 0, 0, 0, 5, 0][..], &quote].concat())
        }
        5 => (17, [&[0x30, 0, 0, 9, 0, 12, 0, 0][..], input.take(4)].concat()),
        6 => {
            let ports = [&[0x0f, 0xa0, 0, 7][..], input.take(8)].concat();
            (6, [&ports[..], &[0x50, input.u8(), 0xff, 0xff, 0, 0, 0, 0], input.take(9)].concat())
        }
        _ => (input.u8(), input.take(40).to_vec()),
    };
    let mut f = [&MAC[..], &[2, 0, 0, 0, 0, 9], &ETHERTYPE, &[0x60, 0, 0, 0, 0, 0]].concat();
    if to[0] == 0xff {
        f[..6].copy_from_slice(&[0x33, 0x33, to[12], to[13], to[14], to[15]]);
    }
    for _ in 0..kind >> 6 {
        let number = input.one_of(&[0_u8, 43, 44, 60]);
        let mut header = input.take(8).to_vec();
        header.resize(8, 0);
        (header[0], header[1]) = (first, 0);
        body = [header, body].concat();
        first = number;
    }
    f.extend([first, if kind & 32 == 0 { 255 } else { 64 }]);
    f.extend(from);
    f.extend(to);
    f.extend(body);
    fix(&mut f);
    f
}

fn router(input: &mut Input<'_>) -> Vec<u8> {
    let mut icmp = vec![134, 0, 0, 0, input.u8(), 0];
    icmp.extend(input.u16().to_be_bytes());
    icmp.extend([0; 8]);
    icmp.extend([1, 1, 2, 0, 0, 0, 0, 9, 5, 1, 0, 0, 0, 0, 5, input.u8()]);
    icmp.extend([3, 4, 64, 0xc0]);
    icmp.extend(input.u32().to_be_bytes());
    icmp.extend(u32::from(input.u16()).to_be_bytes());
    icmp.extend([0; 4]);
    icmp.extend(address(&[0x20, 1, 0xd, 0xb8 + (input.u8() & 3)], &[]));
    icmp
}

fn neighbor(input: &mut Input<'_>) -> Vec<u8> {
    let mut icmp = vec![135 + (input.u8() & 1), 0, 0, 0, input.u8(), 0, 0, 0];
    icmp.extend(host(input));
    if input.flag() {
        icmp.extend([1 + (input.u8() & 1), 1, 2, 0, 0, 0, 0, input.u8()]);
    }
    icmp
}

/// Makes length and checksum right, as far as there is what they are of.
pub fn fix(f: &mut [u8]) {
    let Some(payload) = f.len().checked_sub(HEADERS) else { return };
    f[18..20].copy_from_slice(&(payload as u16).to_be_bytes());
    let (mut protocol, mut at) = (f[20], HEADERS);
    while matches!(protocol, 0 | 43 | 44 | 60) && at + 8 <= f.len() {
        let len = if protocol == 44 { 8 } else { (usize::from(f[at + 1]) + 1) * 8 };
        protocol = f[at];
        at += len;
    }
    let field = match protocol {
        58 => 2,
        17 => 6,
        6 => 16,
        _ => return,
    };
    if f.len() < at + field + 2 {
        return;
    }
    let end = |from: usize| -> [u8; 16] { std::array::from_fn(|i| f[from + i]) };
    let pseudo = checksum::pseudo_v6(&end(22), &end(38), protocol, (f.len() - at) as u16);
    f[at + field..at + field + 2].fill(0);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[at..])));
    f[at + field..at + field + 2].copy_from_slice(&sum);
}
