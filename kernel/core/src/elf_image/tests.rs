//! ELF files made by hand, good ones and lies.

use super::*;
use std::vec::Vec;

struct Seg {
    kind: u32,
    flags: u32,
    addr: u64,
    offset: u64,
    file: u64,
    mem: u64,
}

const R: u32 = 4;
const RX: u32 = 5;
const RW: u32 = 6;

fn seg(flags: u32, addr: u64, mem: u64) -> Seg {
    Seg { kind: PT_LOAD, flags, addr, offset: 0, file: mem.min(16), mem }
}

fn elf(entry: u64, segs: &[Seg]) -> Vec<u8> {
    let mut f = Vec::new();
    f.extend_from_slice(&[0x7F, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    f.extend_from_slice(&2u16.to_le_bytes());
    f.extend_from_slice(&62u16.to_le_bytes());
    f.extend_from_slice(&1u32.to_le_bytes());
    f.extend_from_slice(&entry.to_le_bytes());
    f.extend_from_slice(&64u64.to_le_bytes());
    f.extend_from_slice(&0u64.to_le_bytes());
    f.extend_from_slice(&0u32.to_le_bytes());
    for half in [64u16, 56, segs.len() as u16, 64, 0, 0] {
        f.extend_from_slice(&half.to_le_bytes());
    }
    for s in segs {
        f.extend_from_slice(&s.kind.to_le_bytes());
        f.extend_from_slice(&s.flags.to_le_bytes());
        for w in [s.offset, s.addr, s.addr, s.file, s.mem, 4096] {
            f.extend_from_slice(&w.to_le_bytes());
        }
    }
    f
}

const BASE: u64 = IMAGE_BASE;

fn error(entry: u64, segs: &[Seg]) -> ElfError {
    Image::parse(&elf(entry, segs)).expect_err("must be refused")
}

#[test]
fn code_constants_and_data_load_on_their_own_pages() {
    let segs = [
        seg(RX, BASE, 0x5000),
        seg(R, BASE + 0x5000, 0x1000),
        seg(RW, BASE + PAGE_BYTES, PAGE_BYTES + 1),
    ];
    let file = elf(BASE + 0x10, &segs);
    let image = Image::parse(&file).unwrap();
    let pages: Vec<_> = image.pages().collect();
    assert_eq!(
        pages,
        [
            (BASE, Access::Execute),
            (BASE + PAGE_BYTES, Access::Write),
            (BASE + 2 * PAGE_BYTES, Access::Write)
        ]
    );
    assert_eq!(image.segments().count(), 3);
}

#[test]
fn segments_outside_the_image_area_are_refused() {
    for addr in [0, BASE - 1, IMAGE_END - 0xFFF, 0xFFFF_FFFF_8000_0000, u64::MAX - 5] {
        let got = error(BASE, &[seg(RX, BASE, 0x1000), seg(RW, addr, 0x1000)]);
        assert_eq!(got, ElfError::OutOfArea(addr));
    }
    let got = error(BASE, &[seg(RX, BASE, u64::MAX)]);
    assert_eq!(got, ElfError::OutOfArea(BASE));
}

#[test]
fn writable_code_is_refused() {
    assert_eq!(error(BASE, &[seg(7, BASE, 16)]), ElfError::WriteAndExecute(BASE));
    let got = error(BASE, &[seg(RX, BASE, 16), seg(RW, BASE + 0x1000, 16)]);
    assert_eq!(got, ElfError::Clash(BASE + 0x1000), "data on the page of code");
}

#[test]
fn overlapping_segments_are_refused() {
    let got = error(BASE, &[seg(RX, BASE, 0x2000), seg(RX, BASE + 0x1FFF, 0x1000)]);
    assert_eq!(got, ElfError::Clash(BASE + 0x1FFF));
}

#[test]
fn contents_must_be_in_the_file_and_fit_the_memory() {
    let mut s = seg(RX, BASE, 0x1000);
    s.offset = 1 << 40;
    assert_eq!(error(BASE, &[s]), ElfError::BadContents(BASE));
    let mut s = seg(RX, BASE, 0x1000);
    s.offset = u64::MAX;
    assert_eq!(error(BASE, &[s]), ElfError::BadContents(BASE));
    let mut s = seg(RX, BASE, 8);
    s.file = 16;
    assert_eq!(error(BASE, &[s]), ElfError::BadContents(BASE));
}

#[test]
fn the_entry_point_must_be_in_code() {
    let segs = [seg(RX, BASE, 0x1000), seg(RW, BASE + PAGE_BYTES, 0x1000)];
    for entry in [0, BASE + 0x1000, BASE + PAGE_BYTES, u64::MAX] {
        assert_eq!(error(entry, &segs), ElfError::BadEntry(entry));
    }
}

#[test]
fn dynamic_files_other_machines_and_rubbish_are_refused() {
    let mut s = seg(R, BASE, 16);
    s.kind = PT_INTERP;
    assert_eq!(error(BASE, &[seg(RX, BASE, 16), s]), ElfError::Dynamic);
    let mut f = elf(BASE, &[seg(RX, BASE, 16)]);
    f[18] = 3;
    assert_eq!(Image::parse(&f).unwrap_err(), ElfError::WrongKind);
    assert_eq!(Image::parse(b"#!/bin/sh").unwrap_err(), ElfError::NotElf);
    assert_eq!(error(BASE, &[]), ElfError::NoSegments);
}

#[test]
fn flipping_bytes_and_cutting_never_panics() {
    let good = elf(BASE, &[seg(RX, BASE, 0x1000), seg(RW, BASE + PAGE_BYTES, 0x1000)]);
    for at in 0..good.len() {
        for v in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bad = good.clone();
            bad[at] = v;
            if let Ok(i) = Image::parse(&bad) {
                assert!(i.pages().all(|(p, _)| (IMAGE_BASE..IMAGE_END).contains(&p)));
            }
        }
        let _ = Image::parse(&good[..at]);
    }
}
