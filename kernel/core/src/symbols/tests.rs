//! Look-ups in a hand-made table and in this test's own ELF file.

use super::*;
use std::vec::Vec;

fn table(symbols: &[(u64, u32, &str)]) -> Vec<u8> {
    let mut out = Vec::from(&MAGIC[..]);
    out.extend_from_slice(&(symbols.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    let mut names = Vec::new();
    for (a, s, n) in symbols {
        out.extend_from_slice(&a.to_le_bytes());
        out.extend_from_slice(&s.to_le_bytes());
        out.extend_from_slice(&(names.len() as u32).to_le_bytes());
        names.extend_from_slice(&(n.len() as u16).to_le_bytes());
        names.extend_from_slice(n.as_bytes());
    }
    out.extend_from_slice(&names);
    out
}

#[test]
fn an_address_finds_the_function_around_it() {
    let bytes = table(&[(0x1000, 0x10, "first"), (0x1020, 0, "label"), (0x2000, 8, "last")]);
    let s = Symbols::parse(&bytes).unwrap();
    assert_eq!(s.find(0xFFF), None);
    assert_eq!(s.find(0x1000), Some(("first", 0)));
    assert_eq!(s.find(0x100F), Some(("first", 0xF)));
    assert_eq!(s.find(0x1018), None, "between two functions");
    assert_eq!(s.find(0x1021), Some(("label", 1)), "labels have no size");
    assert_eq!(s.find(0x3000), None);
}

#[test]
fn a_lying_table_never_panics() {
    let good = table(&[(0x1000, 0x10, "first"), (0x1020, 0, "label")]);
    for at in 0..good.len() {
        for v in [0, 0x80, 0xFF] {
            let mut bad = good.clone();
            bad[at] = v;
            if let Some(s) = Symbols::parse(&bad) {
                let _ = (s.find(0x1001), s.find(u64::MAX), s.find(0));
            }
            let _ = Symbols::parse(&good[..at]).map(|s| s.find(0x1021));
        }
    }
}

/// Has a symbol: a test itself may have none of its own once it is inlined.
#[inline(never)]
fn a_function_that_is_called(value: usize) -> usize {
    std::hint::black_box(value)
}

#[test]
fn a_real_elf_file_yields_demangled_names() {
    assert_eq!(a_function_that_is_called(1), 1);
    let exe = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let bytes = build(&exe).expect("test binaries have symbols");
    let s = Symbols::parse(&bytes).unwrap();
    assert!(s.len() > 100);
    let wanted = "symbols::tests::a_function_that_is_called";
    let found = (0..s.len()).filter_map(|i| s.find(s.address(i))).any(|(n, _)| n.contains(wanted));
    assert!(found);
    assert!(build(b"not an ELF file").is_none());
}
