//! Tables in a small memory.

use super::*;
use std::vec::Vec;

struct Bytes(Vec<u8>);

impl Memory for Bytes {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let Ok(at) = usize::try_from(at) else { return false };
        let Some(from) = self.0.get(at..).and_then(|m| m.get(..out.len())) else { return false };
        out.copy_from_slice(from);
        true
    }
}

impl Bytes {
    fn put(&mut self, at: usize, b: &[u8]) {
        self.0[at..at + b.len()].copy_from_slice(b);
    }

    fn table(&mut self, at: usize, name: &[u8; 4], body: &[u8]) {
        self.put(at, name);
        self.put(at + 4, &((HEADER + body.len()) as u32).to_le_bytes());
        self.put(at + HEADER, body);
    }

    fn rsdp(&mut self, at: usize, revision: u8, rsdt: u32, xsdt: u64) {
        let mut b = [0u8; 36];
        b[..8].copy_from_slice(b"RSD PTR ");
        b[15] = revision;
        b[16..20].copy_from_slice(&rsdt.to_le_bytes());
        b[24..32].copy_from_slice(&xsdt.to_le_bytes());
        b[8] = 0u8.wrapping_sub(b[..20].iter().fold(0, |s: u8, x| s.wrapping_add(*x)));
        self.put(at, &b);
    }
}

fn machine(revision: u8) -> Bytes {
    let mut m = Bytes(std::vec![0; 1 << 20]);
    m.rsdp(0xF_5A40, revision, 0x1_0000, 0x2_0000);
    m.table(0x1_0000, b"RSDT", &[0x3_0000u32.to_le_bytes(), 0x4_0000u32.to_le_bytes()].concat());
    m.table(0x2_0000, b"XSDT", &[0x3_0000u64.to_le_bytes(), 0x5_0000u64.to_le_bytes()].concat());
    m.table(0x3_0000, b"FACP", &[0; 112]);
    m.put(0x3_0000 + 36, &0x6_0000u32.to_le_bytes());
    m.put(0x3_0000 + 40, &0x7_0000u32.to_le_bytes());
    m.table(0x4_0000, b"APIC", &[0; 10]);
    m.table(0x5_0000, b"MCFG", &[0; 20]);
    m.put(0x6_0000, b"FACS");
    m.put(0x6_0004, &64u32.to_le_bytes());
    m.table(0x7_0000, b"DSDT", &[0; 5000]);
    m
}

fn all(m: &Bytes, rsdp: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    for_each(m, rsdp, |_, at, len| found.push((at, len)));
    found
}

#[test]
fn every_table_that_the_rsdp_leads_to_is_found() {
    let m = machine(2);
    let want = [
        (0xF_5A40, 36),
        (0x2_0000, 52),
        (0x3_0000, 148),
        (0x7_0000, 5036),
        (0x6_0000, 64),
        (0x5_0000, 56),
    ];
    assert_eq!(all(&m, 0xF_5A40), want);
    let old = all(&machine(0), 0xF_5A40);
    assert!(old.contains(&(0x1_0000, 44)) && old.contains(&(0x4_0000, 46)), "{old:x?}");
}

#[test]
fn tables_are_named() {
    let mut names = Vec::new();
    for_each(&machine(2), 0xF_5A40, |name, _, _| names.push(name));
    assert_eq!(names, [*b"RSDP", *b"XSDT", *b"FACP", *b"DSDT", *b"FACS", *b"MCFG"]);
}

#[test]
fn the_rsdp_is_found_where_a_bios_puts_it() {
    let mut m = machine(2);
    assert_eq!(find_rsdp(&m), Some(0xF_5A40));
    m.put(0x40E, &0x9FC0u16.to_le_bytes());
    m.rsdp(0x9_FC10, 2, 0, 0);
    assert_eq!(find_rsdp(&m), Some(0x9_FC10), "the EBDA comes first");
    m.put(0x9_FC18, &[0x55]);
    assert_eq!(find_rsdp(&m), Some(0xF_5A40), "a wrong checksum does not count");
    assert_eq!(find_rsdp(&Bytes(std::vec![0; 1 << 20])), None);
}

#[test]
fn tables_that_lie_do_no_harm() {
    let good = machine(2);
    for seed in 1..3000u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut m = Bytes(good.0.clone());
        for _ in 0..4 {
            let table = [0x2_0000, 0x3_0000, 0x5_0000, 0x7_0000][rnd(4) as usize];
            m.put(table + rnd(52) as usize, &[rnd(256) as u8]);
        }
        let found = all(&m, 0xF_5A40);
        assert!(found.len() <= 4 * TABLES_MAX);
        assert!(found.iter().all(|(at, len)| at.checked_add(*len).is_some()), "{found:x?}");
    }
    assert_eq!(all(&good, 0x123), []);
}
