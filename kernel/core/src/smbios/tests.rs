//! Tables in a small memory.

use super::*;
use std::vec::Vec;

struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let Some(from) = self.0.get(at as usize..).and_then(|m| m.get(..out.len())) else {
            return false;
        };
        out.copy_from_slice(from);
        true
    }
}

fn structures() -> Vec<u8> {
    let mut t = Vec::new();
    let mut add = |kind: u8, body: &[u8], strings: &[u8]| {
        t.extend([kind, body.len() as u8 + 4, 0, 0]);
        t.extend(body);
        t.extend(strings);
        t.extend([0, 0]);
    };
    add(0, &[1, 2, 0, 0xE8, 3, 0, 0, 0], b"SeaBIOS\0rel-1.16.3\0  04/01/2014 ");
    add(4, &[0; 30], b"CPU 0\0x");
    add(1, &[1, 2, 9], b"QEMU\0Standard PC\x01 (Q35)");
    add(2, &[1], b"only a maker");
    add(3, &[1], b"");
    add(127, &[], b"");
    t
}

fn machine(three: bool) -> Bytes {
    let mut m = Bytes(std::vec![0; 1 << 20]);
    let t = structures();
    m.0[0x8_0000..0x8_0000 + t.len()].copy_from_slice(&t);
    let mut e = Vec::new();
    if three {
        e.extend(b"_SM3_\0\x18\x03\x07\0\x01\0");
        e.extend((t.len() as u32).to_le_bytes());
        e.extend(0x8_0000u64.to_le_bytes());
    } else {
        e.extend(b"_SM_\0\x1F\x02\x08\0\0\0\0\0\0\0\0_DMI_\0");
        e.extend((t.len() as u16).to_le_bytes());
        e.extend(0x8_0000u32.to_le_bytes());
        e.extend([6, 0, 0x28]);
    }
    let sum = e.iter().fold(0u8, |s, x| s.wrapping_add(*x));
    e[if three { 5 } else { 4 }] = 0u8.wrapping_sub(sum);
    m.0[0xF_6000..0xF_6000 + e.len()].copy_from_slice(&e);
    m
}

#[test]
fn both_kinds_of_entry_point_lead_to_the_makers_names() {
    for three in [false, true] {
        let m = machine(three);
        let entry = find(&m).unwrap();
        assert_eq!(entry, 0xF_6000);
        let got = read(&m, entry).unwrap();
        assert_eq!(&got.firmware_vendor, "SeaBIOS");
        assert_eq!(&got.firmware_version, "rel-1.16.3");
        assert_eq!(&got.firmware_date, "04/01/2014");
        assert_eq!((&got.maker[..], &got.product[..]), ("QEMU", "Standard PC? (Q35)"));
        assert_eq!(&got.board, "", "the structure is too short to name one");
    }
    assert_eq!(find(&Bytes(std::vec![0; 1 << 20])), None);
}

#[test]
fn broken_tables_give_less_but_no_harm() {
    for seed in 1..5000u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut m = machine(seed % 2 == 0);
        for _ in 0..5 {
            let at = 0x8_0000 + rnd(220) as usize;
            m.0[at] = [0, 1, 4, 0xFF, rnd(256) as u8][rnd(5) as usize];
        }
        let _ = read(&m, 0xF_6000);
    }
}

#[test]
fn texts_are_cut_and_made_printable() {
    assert_eq!(&printable(b"  a\xFF\n b  ".iter().copied()), "a?? b");
    assert_eq!(printable(core::iter::repeat_n(b'x', 500)).len(), TEXT_MAX);
    assert_eq!(&printable(b"   ".iter().copied()), "");
}
