//! The map against an array with one kind per page.

use super::*;
use std::vec::Vec;

fn model_of(m: &MemoryMap, pages: u64) -> Vec<Option<Kind>> {
    let mut v = std::vec![None; pages as usize];
    for e in m.entries() {
        for p in e.start / PAGE..(e.end / PAGE).min(pages) {
            assert!(v[p as usize].is_none(), "overlap at page {p}");
            v[p as usize] = Some(e.kind);
        }
    }
    v
}

#[test]
fn any_order_of_overlapping_entries_leaves_the_worst_kind_of_each_page() {
    let kinds =
        [Kind::Usable, Kind::Loader, Kind::AcpiReclaim, Kind::AcpiNvs, Kind::Reserved, Kind::Bad];
    for seed in 1..200u64 {
        let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut rnd = |n: u64| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x % n
        };
        let mut m = MemoryMap::new();
        let mut model: Vec<Option<Kind>> = std::vec![None; 64];
        for _ in 0..12 {
            let (start, len) = (rnd(60), 1 + rnd(20));
            let kind = kinds[rnd(6) as usize];
            m.add(start * PAGE, len * PAGE, kind);
            for p in start..(start + len).min(64) {
                let old = model[p as usize];
                model[p as usize] = Some(old.map_or(kind, |o| o.max(kind)));
            }
            assert_eq!(model_of(&m, 64), model, "seed {seed}");
            assert!(m.entries().is_sorted_by_key(|e| e.start));
        }
    }
}

#[test]
fn usable_ranges_shrink_to_whole_pages_and_reserved_ones_grow() {
    let mut m = MemoryMap::new();
    m.add(0, 0x9_FC00, Kind::Usable);
    m.add(0x9_FC00, 0x400, Kind::Reserved);
    let e = m.entries();
    assert_eq!((e[0].start, e[0].end, e[0].kind), (0, 0x9_F000, Kind::Usable));
    assert_eq!((e[1].start, e[1].end, e[1].kind), (0x9_F000, 0xA_0000, Kind::Reserved));
}

#[test]
fn ranges_at_the_very_top_do_not_wrap() {
    let mut m = MemoryMap::new();
    m.add(u64::MAX - 10, u64::MAX, Kind::Reserved);
    m.add(u64::MAX - 10, 5, Kind::Usable);
    m.add(0, u64::MAX, Kind::Usable);
    assert!(m.entries().iter().all(|e| e.start < e.end));
}

#[test]
fn more_entries_than_fit_are_counted() {
    let mut m = MemoryMap::new();
    for i in 0..MAX_ENTRIES as u64 + 5 {
        m.add(i * 2 * PAGE, PAGE, Kind::Usable);
    }
    assert_eq!(m.entries().len(), MAX_ENTRIES);
    assert_eq!(m.dropped(), 5);
}
