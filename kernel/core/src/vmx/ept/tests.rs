//! The tables against a model that knows every single page, and every entry against the SDM's rules of
//! what is a misconfiguration.

use super::*;
use std::collections::BTreeMap;
use std::vec::Vec;

const BASE: u64 = 0x7_0000_0000;

/// Tables in a vector, at most `limit` of them.
struct Store {
    tables: Vec<[u64; 512]>,
    limit: usize,
}

impl Store {
    fn new(limit: usize) -> Self {
        Self { tables: Vec::new(), limit }
    }

    fn at(table: Phys) -> usize {
        ((table.0 - BASE) / PAGE) as usize
    }
}

impl Tables for Store {
    fn read(&self, table: Phys, index: usize) -> u64 {
        self.tables[Self::at(table)][index]
    }
    fn write(&mut self, table: Phys, index: usize, entry: u64) {
        self.tables[Self::at(table)][index] = entry;
    }
    fn new_table(&mut self) -> Option<Phys> {
        (self.tables.len() < self.limit).then(|| {
            self.tables.push([0; 512]);
            Phys(BASE + (self.tables.len() as u64 - 1) * PAGE)
        })
    }
}

struct Rng(u64);

impl Rng {
    fn next(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below
    }
}

fn range(gpa: u64, hpa: u64, len: u64) -> Range {
    let (rights, memory) = (Rights::All, MemoryType::WriteBack);
    Range { gpa: Gpa(gpa), hpa: Phys(hpa), len, rights, memory }
}

/// SDM 29.3.3.1 and tables 29-1 to 29-7, written down once more: panics on what the CPU would call a
/// misconfiguration. Counts leaves by level.
fn check_entries(t: &Store, root: Phys, bits: u32) -> [usize; 4] {
    fn down(t: &Store, table: Phys, level: u32, bits: u32, leaves: &mut [usize; 4]) {
        for i in 0..512 {
            let e = t.read(table, i);
            if e & 7 == 0 {
                assert_eq!(e, 0, "an absent entry says nothing");
                continue;
            }
            assert!(matches!(e & 7, 1 | 3 | 5 | 7), "{e:#x}: writable but not readable, or X only");
            assert_eq!(e >> bits & ((1 << (52 - bits)) - 1), 0, "{e:#x}: address bits reserved");
            assert_eq!(e >> 52, 0);
            let is_leaf = level == 0 || e & 0x80 != 0;
            if is_leaf {
                assert!(level < 3, "{e:#x}: a leaf at the top");
                assert!(matches!(e >> 3 & 7, 0 | 6), "{e:#x}: memory type");
                assert_eq!(e & 0x40, 0, "the guest's PAT counts");
                let low = (1u64 << (12 + 9 * level)) - 1;
                assert_eq!(e & low & !0xFFF, 0, "{e:#x}: low address bits of a large page");
                leaves[level as usize] += 1;
            } else {
                assert_eq!(e & 0xF8, 0, "{e:#x}: reserved in a table's entry");
                assert_eq!(e & 7, 7);
                down(t, Phys(e & ADDRESS), level - 1, bits, leaves);
            }
        }
    }
    let mut leaves = [0; 4];
    down(t, root, 3, bits, &mut leaves);
    leaves
}

#[test]
fn random_maps_agree_with_a_model_page_by_page() {
    let rights = [Rights::Read, Rights::ReadWrite, Rights::ReadExecute, Rights::All];
    let mut refused = 0;
    for seed in 1..60u64 {
        let mut rng = Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let max = [MaxPage::Small, MaxPage::Large, MaxPage::Huge][rng.next(3) as usize];
        let limit = if rng.next(4) == 0 { 6 } else { 1000 };
        let mut t = Store::new(limit);
        let ept = Ept::new(&mut t, max, 39).unwrap();
        let mut model = BTreeMap::new();
        for _ in 0..40 {
            let align = [PAGE, PAGE, 64 * PAGE, LARGE_PAGE][rng.next(4) as usize];
            let window = 3 * LARGE_PAGE / align;
            let gpa = HUGE_PAGE - LARGE_PAGE + rng.next(window) * align;
            let hpa = match rng.next(3) {
                0 => gpa,
                1 => gpa + LARGE_PAGE * (1 + rng.next(50)),
                _ => rng.next(100_000) * PAGE,
            };
            let len = align * (1 + rng.next(if align == LARGE_PAGE { 2 } else { 80 }));
            let memory = [MemoryType::WriteBack, MemoryType::Uncacheable][rng.next(2) as usize];
            let r = Range { rights: rights[rng.next(4) as usize], memory, ..range(gpa, hpa, len) };
            let pages = (0..len / PAGE).map(|i| (gpa / PAGE + i, hpa / PAGE + i));
            let taken = pages.clone().find(|(g, _)| model.contains_key(g)).map(|(g, _)| g);
            match ept.map(&mut t, r) {
                Ok(()) => {
                    assert_eq!(taken, None, "seed {seed}: mapped over something");
                    model.extend(pages.map(|(g, h)| (g, (h, r.rights, r.memory))));
                }
                Err(EptError::Occupied(at)) => {
                    assert_eq!(Some(at.0 / PAGE), taken, "seed {seed}");
                    refused += 1;
                }
                Err(EptError::NoMemory) => assert!(t.tables.len() == limit),
                Err(e) => panic!("seed {seed}: {e:?}"),
            }
        }
        compare(&t, &ept, &model, seed);
    }
    assert!(refused > 100, "{refused}");
}

type Model = BTreeMap<u64, (u64, Rights, MemoryType)>;

fn compare(t: &Store, ept: &Ept, model: &Model, seed: u64) {
    for page in HUGE_PAGE / PAGE - 600..HUGE_PAGE / PAGE + 3000 {
        let got = ept.translate(t, Gpa(page * PAGE + 0x123));
        let got = got.map(|r| (r.hpa.0, r.rights, r.memory));
        let want = model.get(&page).map(|&(h, r, m)| (h * PAGE + 0x123, r, m));
        assert_eq!(got, want, "seed {seed}, page {page:#x}");
    }
    let mut listed = Model::new();
    let mut before: Option<Range> = None;
    ept.for_each_range(t, &mut |r| {
        assert!(before.is_none_or(|b| b.gpa.0 + b.len <= r.gpa.0 && !continues(&b, &r)));
        before = Some(r);
        let pages = (0..r.len / PAGE).map(|i| (r.gpa.0 / PAGE + i, r.hpa.0 / PAGE + i));
        listed.extend(pages.map(|(g, h)| (g, (h, r.rights, r.memory))));
    });
    assert_eq!(&listed, model, "seed {seed}");
    check_entries(t, ept.root(), 39);
}

#[test]
fn the_largest_pages_that_fit_are_used() {
    let mut t = Store::new(100);
    let ept = Ept::new(&mut t, MaxPage::Huge, 46).unwrap();
    ept.map(&mut t, range(0x20_0000, 0x20_0000, 3 * HUGE_PAGE)).unwrap();
    // 511 large pages, two huge ones, one large.
    assert_eq!(check_entries(&t, ept.root(), 46), [0, 512, 2, 0]);
    assert_eq!(t.tables.len(), 4, "root, one of the next level, two page directories");
    let mut t = Store::new(100);
    let ept = Ept::new(&mut t, MaxPage::Large, 46).unwrap();
    ept.map(&mut t, range(HUGE_PAGE, HUGE_PAGE, HUGE_PAGE)).unwrap();
    assert_eq!(check_entries(&t, ept.root(), 46), [0, 512, 0, 0]);
    // Aligned for the guest but not for the host: small ones.
    let mut t = Store::new(100);
    let ept = Ept::new(&mut t, MaxPage::Huge, 46).unwrap();
    ept.map(&mut t, range(LARGE_PAGE, LARGE_PAGE + PAGE, LARGE_PAGE)).unwrap();
    assert_eq!(check_entries(&t, ept.root(), 46), [512, 0, 0, 0]);
}

#[test]
fn entries_have_the_bits_of_the_manual() {
    let mut t = Store::new(9);
    let ept = Ept::new(&mut t, MaxPage::Huge, 46).unwrap();
    ept.map(&mut t, range(0, 0x4000_0000, PAGE)).unwrap();
    let rw = Range { rights: Rights::ReadWrite, memory: MemoryType::Uncacheable, ..range(0, 0, 1) };
    let bar = Range { gpa: Gpa(0xFEBC_0000), hpa: Phys(0xFEBC_0000), len: PAGE, ..rw };
    ept.map(&mut t, bar).unwrap();
    ept.map(&mut t, range(0xC000_0000 - LARGE_PAGE, 0x8000_0000, LARGE_PAGE)).unwrap();
    let entries: Vec<u64> = t.tables.iter().flatten().copied().filter(|e| *e != 0).collect();
    for want in [0x4000_0037, 0xFEBC_0003, 0x8000_00B7, BASE + PAGE + 7] {
        assert!(entries.contains(&want), "{want:#x}: {entries:x?}");
    }
    assert_eq!(ept.pointer(), BASE | 0x1E);
}

#[test]
fn bad_ranges_are_refused_and_leave_nothing() {
    let mut t = Store::new(100);
    let ept = Ept::new(&mut t, MaxPage::Huge, 40).unwrap();
    for (gpa, hpa, len) in [
        (0, 0, 0),
        (1, 0, PAGE),
        (0, 0x800, PAGE),
        (0, 0, PAGE + 1),
        (1 << 48, 0, PAGE),
        ((1 << 40) - PAGE, 0, 2 * PAGE),
        (0, (1 << 40) - PAGE, 2 * PAGE),
        (0, 1 << 40, PAGE),
        (u64::MAX - PAGE + 1, 0, PAGE),
        (0, u64::MAX - PAGE + 1, 2 * PAGE),
        (PAGE, PAGE, u64::MAX - PAGE + 1),
    ] {
        assert_eq!(ept.map(&mut t, range(gpa, hpa, len)), Err(EptError::BadRange), "{gpa:#x}");
    }
    assert_eq!(check_entries(&t, ept.root(), 40), [0; 4]);
    ept.map(&mut t, range((1 << 40) - PAGE, (1 << 40) - PAGE, PAGE)).unwrap();
    assert_eq!(ept.translate(&t, Gpa(1 << 48 | ((1 << 40) - PAGE))), None, "no address wraps");
}

#[test]
fn a_mapping_for_which_tables_are_out_is_undone() {
    let mut t = Store::new(4);
    let ept = Ept::new(&mut t, MaxPage::Small, 40).unwrap();
    // One table holds 2 MiB; the second half needs a fifth table.
    let r = range(0, 0, 2 * LARGE_PAGE);
    assert_eq!(ept.map(&mut t, r), Err(EptError::NoMemory));
    assert_eq!(check_entries(&t, ept.root(), 40), [0; 4]);
    ept.map(&mut t, range(0, 0, LARGE_PAGE)).unwrap();
    assert_eq!(
        ept.map(&mut t, range(LARGE_PAGE - PAGE, 0, LARGE_PAGE)),
        Err(EptError::Occupied(Gpa(LARGE_PAGE - PAGE)))
    );
}

/// A table that is left over from a mapping that was undone must not be lost sight of, and a large page
/// may take its place.
#[test]
fn a_large_page_takes_the_place_of_an_empty_table() {
    let mut t = Store::new(4);
    let ept = Ept::new(&mut t, MaxPage::Large, 40).unwrap();
    let crooked = range(0, PAGE, LARGE_PAGE + PAGE);
    assert_eq!(ept.map(&mut t, crooked), Err(EptError::NoMemory));
    ept.map(&mut t, range(0, 0, LARGE_PAGE)).unwrap();
    assert_eq!(check_entries(&t, ept.root(), 40), [0, 1, 0, 0]);
}

#[test]
fn only_what_is_the_same_is_listed_as_one() {
    let mut t = Store::new(9);
    let ept = Ept::new(&mut t, MaxPage::Huge, 40).unwrap();
    let at = |page: u64, rights, memory| Range {
        rights,
        memory,
        ..range(page * PAGE, page * PAGE, PAGE)
    };
    let (ram, device) = (MemoryType::WriteBack, MemoryType::Uncacheable);
    for r in [
        at(0, Rights::All, ram),
        at(1, Rights::All, ram),
        at(2, Rights::All, device),
        at(3, Rights::ReadWrite, device),
        Range { hpa: Phys(9 * PAGE), ..at(4, Rights::ReadWrite, device) },
        at(6, Rights::ReadWrite, device),
    ] {
        ept.map(&mut t, r).unwrap();
    }
    let mut pages = Vec::new();
    ept.for_each_range(&t, &mut |r| pages.push((r.gpa.0 / PAGE, r.len / PAGE)));
    assert_eq!(pages, [(0, 2), (2, 1), (3, 1), (4, 1), (6, 1)]);
}
