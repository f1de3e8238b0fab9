//! A structure as GRUB writes it, and rubbish.

use super::*;
use std::vec::Vec;

fn tag(out: &mut Vec<u8>, kind: u32, body: &[u8]) {
    out.extend(kind.to_le_bytes());
    out.extend((body.len() as u32 + 8).to_le_bytes());
    out.extend(body);
    out.resize(out.len().next_multiple_of(8), 0xEE);
}

fn words(w: &[u32]) -> Vec<u8> {
    w.iter().flat_map(|w| w.to_le_bytes()).collect()
}

fn structure() -> Vec<u8> {
    let mut out = std::vec![0; 8];
    tag(&mut out, 1, b"app=kv -- -m 64\0");
    tag(&mut out, 2, b"GRUB 2.06-13\0");
    tag(&mut out, 10, &[0; 20]); // APM table: not known here
    tag(&mut out, 3, &[words(&[0x1000, 0x38120]), b"initrd\0".to_vec()].concat());
    tag(&mut out, 3, &[words(&[0x50000, 0x50001]), b"\0".to_vec()].concat());
    let record = |start: u64, len: u64, kind: u32| {
        [start.to_le_bytes(), len.to_le_bytes(), u64::from(kind).to_le_bytes()].concat()
    };
    let map = [
        words(&[24, 0]),
        record(0, 0x9FC00, 1),
        record(0x10_0000, 0x7F0_0000, 1),
        record(0xB000_0000, 0x1000_0000, 2),
    ];
    tag(&mut out, 6, &map.concat());
    let mut fb = 0xC000_0000u64.to_le_bytes().to_vec();
    fb.extend(words(&[4096, 1024, 768]));
    fb.extend([32, 1, 0, 0, 16, 8, 8, 8, 0, 8]);
    tag(&mut out, 8, &fb);
    tag(&mut out, 12, &0x7EE_E018u64.to_le_bytes());
    tag(&mut out, 15, &[b'2'; 36]);
    tag(&mut out, 14, &[b'1'; 20]);
    let efi = |kind: u32, start: u64, pages: u64| {
        let mut r = words(&[kind, 0]);
        for w in [start, 0, pages, 15] {
            r.extend(w.to_le_bytes());
        }
        r.resize(48, 0);
        r
    };
    let map = [
        words(&[48, 1]),
        efi(7, 0x10_0000, 0x700),
        efi(3, 0x80_0000, 1),
        efi(6, 0x7EE_0000, 16),
        efi(9, 0x7F0_0000, 2),
        efi(11, 0xFFC0_0000, 0x400),
    ];
    tag(&mut out, 17, &map.concat());
    tag(&mut out, 0, &[]);
    let len = out.len() as u32;
    out[..4].copy_from_slice(&len.to_le_bytes());
    out
}

#[test]
fn what_grub_writes_is_read() {
    let bytes = structure();
    let info = Info::parse(&bytes);
    assert_eq!(info.cmdline, b"app=kv -- -m 64");
    assert_eq!(info.loader, b"GRUB 2.06-13");
    assert_eq!(
        info.modules[..],
        [Module { start: 0x1000, end: 0x38120 }, Module { start: 0x50000, end: 0x50001 }]
    );
    let map: Vec<_> = info.memory().collect();
    assert_eq!(map[0], (0, 0x9FC00, Kind::Usable));
    assert_eq!(map[2], (0xB000_0000, 0x1000_0000, Kind::Reserved));
    let fb = info.framebuffer.unwrap();
    assert_eq!(
        (fb.addr, fb.pitch, fb.width, fb.height, fb.bits),
        (0xC000_0000, 4096, 1024, 768, 32)
    );
    assert_eq!(fb.kind, FramebufferKind::Rgb([(16, 8), (8, 8), (0, 8)]));
    assert_eq!(info.efi_system_table, Some(0x7EE_E018));
    assert_eq!(info.rsdp, Some(&[b'2'; 36][..]), "the newer one");
    let taken: Vec<_> = info.efi_taken().collect();
    assert_eq!(
        taken,
        [
            (0x7EE_0000, 16 << 12, Kind::Reserved),
            (0x7F0_0000, 2 << 12, Kind::AcpiReclaim),
            (0xFFC0_0000, 0x400 << 12, Kind::Reserved),
        ]
    );
}

#[test]
fn a_structure_cut_anywhere_is_read_up_to_there() {
    let bytes = structure();
    for len in 0..bytes.len() {
        let info = Info::parse(&bytes[..len]);
        assert!(info.memory().count() <= 3 && info.modules.len() <= 2);
    }
}

#[test]
fn rubbish_does_not_panic_and_does_not_hang() {
    let good = structure();
    for seed in 1..20_000u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut bytes = good.clone();
        for _ in 0..1 + rnd(8) {
            let at = rnd(bytes.len() as u64) as usize;
            bytes[at] = [0, 1, 0x7F, 0xFF, rnd(256) as u8][rnd(5) as usize];
        }
        let info = Info::parse(&bytes);
        let _ = info.memory().count() + info.efi_taken().count();
    }
}

#[test]
fn records_of_impossible_sizes_are_left_out() {
    for size in [0, 1, 19, 4096, u32::MAX] {
        let mut out = std::vec![0; 8];
        tag(&mut out, 6, &[words(&[size, 0]), std::vec![0; 96]].concat());
        tag(&mut out, 17, &[words(&[size, 0]), std::vec![0; 96]].concat());
        let info = Info::parse(&out);
        assert!(!info.has_memory_map(), "{size}");
        assert_eq!(info.efi_taken().count(), 0);
    }
}

#[test]
fn lengths_that_no_loader_writes_are_refused() {
    assert_eq!(total_bytes(15), None);
    assert_eq!(total_bytes(u32::MAX), None);
    assert_eq!(total_bytes(16), Some(16));
}
