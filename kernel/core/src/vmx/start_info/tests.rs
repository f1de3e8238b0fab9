//! Read back by the kernel's own reader of ACPI tables and by the layout that pvh.rs expects.

use super::*;
use crate::acpi_tables::{self, Memory};
use std::vec::Vec;

const BASE: u64 = 0x9_0000;

/// The buffer as the guest's memory.
struct Guest<'a>(&'a [u8]);

impl Memory for Guest<'_> {
    fn read(&self, at: u64, out: &mut [u8]) -> bool {
        let from = at.checked_sub(BASE).and_then(|i| self.0.get(i as usize..)?.get(..out.len()));
        from.map(|f| out.copy_from_slice(f)).is_some()
    }
}

impl Guest<'_> {
    fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        let mut b = std::vec![0; len];
        assert!(self.read(at, &mut b), "{at:#x}");
        b
    }
    fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
    }
    fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }
}

const MEMORY: [MemoryRange; 3] = [
    MemoryRange { start: 0x1000, len: 0x9_E000, kind: RAM },
    MemoryRange { start: 0xF_0000, len: 0x1_0000, kind: RESERVED },
    MemoryRange { start: 0x1_4000_0000, len: 96 << 20, kind: RAM },
];

fn told(apic_ids: &[u32]) -> Told<'_> {
    Told {
        command_line: "app=kvloop ip=10.0.0.1/24 -- -p 1",
        memory: &MEMORY,
        module: Some((0x1_4100_0000, 12345)),
        apic_ids,
    }
}

#[test]
fn the_kernel_finds_what_pvh_promises() {
    let mut b = std::vec![0xAA; 4096];
    let built = build(&mut b, BASE, &told(&[0, 2])).unwrap();
    assert!(b[built.used..].iter().all(|x| *x == 0xAA), "nothing beyond what was used");
    let g = Guest(&b);
    let at = built.start_info;
    assert_eq!((g.u32(at), g.u32(at + 4), g.u32(at + 8)), (0x336E_C578, 1, 0));
    assert_eq!((g.u32(at + 12), g.u64(at + 32)), (1, built.rsdp));
    let line = g.u64(at + 24);
    assert_eq!(g.bytes(line, 34), b"app=kvloop ip=10.0.0.1/24 -- -p 1\0");
    let module = g.u64(at + 16);
    assert_eq!((g.u64(module), g.u64(module + 8)), (0x1_4100_0000, 12345));
    assert_eq!((g.u64(module + 16), g.u64(module + 24)), (0, 0));
    let (map, n) = (g.u64(at + 40), g.u32(at + 48));
    let found: Vec<MemoryRange> = (0..u64::from(n))
        .map(|i| map + i * 24)
        .map(|e| MemoryRange { start: g.u64(e), len: g.u64(e + 8), kind: g.u32(e + 16) })
        .collect();
    assert_eq!(found, MEMORY);
    let mut b = std::vec![0xAA; 4096];
    let built = build(&mut b, BASE, &Told { module: None, ..told(&[0]) }).unwrap();
    let g = Guest(&b);
    assert_eq!((g.u32(built.start_info + 12), g.u64(built.start_info + 16)), (0, 0));
}

/// The tables by the kernel's reader; the MADT's entries by the specification.
#[test]
fn the_tables_tell_the_cores() {
    for ids in [&[0u32, 1, 2, 3][..], &[5], &[254, 255, 256, 0x1_0000], &[]] {
        let mut b = std::vec![0xAA; 4096];
        let built = build(&mut b, BASE, &told(ids)).unwrap();
        let g = Guest(&b);
        let mut tables = Vec::new();
        acpi_tables::for_each(&g, built.rsdp, |name, at, len| tables.push((name, at, len)));
        let names: Vec<_> = tables.iter().map(|t| t.0).collect();
        assert_eq!(names, [*b"RSDP", *b"XSDT", *b"APIC"]);
        for (name, at, len) in &tables {
            let sum = g.bytes(*at, *len as usize).iter().fold(0u8, |s, b| s.wrapping_add(*b));
            assert_eq!(sum, 0, "{name:?}");
            assert_eq!(at % 16, 0);
        }
        let first = g.bytes(built.rsdp, 20).iter().fold(0u8, |s, b| s.wrapping_add(*b));
        assert_eq!((first, g.bytes(built.rsdp + 15, 1)[0]), (0, 2), "ACPI 1.0's part");
        let (_, madt, len) = tables[2];
        assert_eq!((g.u32(madt + 36), g.u32(madt + 40)), (0xFEE0_0000, 0));
        assert_eq!(cores(&g, madt, len), ids);
    }
}

fn cores(g: &Guest<'_>, madt: u64, len: u64) -> Vec<u32> {
    let (mut at, mut found) = (madt + 44, Vec::new());
    while at < madt + len {
        let (kind, entry_len) = (g.bytes(at, 1)[0], g.bytes(at + 1, 1)[0]);
        let (id, flags) = match (kind, entry_len) {
            (0, 8) => (u32::from(g.bytes(at + 3, 1)[0]), g.u32(at + 4)),
            (9, 16) => (g.u32(at + 4), g.u32(at + 8)),
            other => panic!("{other:?}"),
        };
        assert_eq!(flags, 1);
        assert!((kind == 9) == (id >= 255));
        found.push(id);
        at += u64::from(entry_len);
    }
    assert_eq!(at, madt + len);
    found
}

#[test]
fn whatever_does_not_fit_is_refused() {
    let ids: Vec<u32> = (0..64).collect();
    let mut whole = std::vec![0; 8192];
    let used = build(&mut whole, BASE, &told(&ids)).unwrap().used;
    for len in 0..used {
        assert_eq!(build(&mut whole[..len], BASE, &told(&ids)), Err(DoesNotFit), "{len}");
    }
    assert!(build(&mut whole[..used], BASE, &told(&ids)).is_ok());
    assert_eq!(build(&mut whole, BASE + 8, &told(&ids)), Err(DoesNotFit));
    assert_eq!(build(&mut whole, u64::MAX - 15, &told(&ids)), Err(DoesNotFit));
    let zero = Told { command_line: "a\0b", ..told(&ids) };
    assert_eq!(build(&mut whole, BASE, &zero), Err(DoesNotFit));
}
