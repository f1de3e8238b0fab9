//! The mapper against a hash map of tables, and against the definition of what it should map.

use super::*;
use std::collections::HashMap;
use std::vec::Vec;

#[derive(Default)]
struct Mem {
    tables: HashMap<u64, Vec<Entry>>,
    limit: usize,
}

impl Mem {
    fn new(limit: usize) -> (Self, Phys) {
        let mut m = Self { tables: HashMap::new(), limit };
        let root = m.new_table().unwrap();
        (m, root)
    }
}

impl Tables for Mem {
    fn read(&self, table: Phys, index: usize) -> Entry {
        self.tables[&table.0][index]
    }
    fn write(&mut self, table: Phys, index: usize, entry: Entry) {
        self.tables.get_mut(&table.0).unwrap()[index] = entry;
    }
    fn new_table(&mut self) -> Option<Phys> {
        if self.tables.len() >= self.limit {
            return None;
        }
        let pa = 0x10_0000 + self.tables.len() as u64 * PAGE;
        self.tables.insert(pa, std::vec![Entry(0); 512]);
        Some(Phys(pa))
    }
}

fn range(va: u64, pa: u64, len: u64) -> Range {
    Range { va: Virt(va), pa: Phys(pa), len }
}

#[test]
fn a_range_maps_with_the_largest_pages_that_fit() {
    let (mut m, root) = Mem::new(100);
    let va = 0xFFFF_8000_3FE0_0000;
    let r = range(va, 0x3FE0_0000, HUGE_PAGE + LARGE_PAGE + PAGE);
    map(&mut m, root, r, Access::Write, Space::Kernel, MaxPage::Huge).unwrap();
    let sizes = |va: u64| lookup(&m, root, Virt(va)).map(|x| x.size);
    assert_eq!(sizes(va), Some(LARGE_PAGE));
    assert_eq!(sizes(va + LARGE_PAGE), Some(HUGE_PAGE));
    assert_eq!(sizes(va + LARGE_PAGE + HUGE_PAGE), Some(PAGE));
    assert_eq!(sizes(va + LARGE_PAGE + HUGE_PAGE + PAGE), None);
    assert_eq!(sizes(va - 1), None);
}

#[test]
fn every_address_of_a_mapped_range_leads_to_its_own_frame() {
    let (mut m, root) = Mem::new(1000);
    let r = range(0x4000_1000, 0x1234_5000, 3 * LARGE_PAGE + 5 * PAGE);
    map(&mut m, root, r, Access::Read, Space::User, MaxPage::Large).unwrap();
    for off in (0..r.len).step_by(PAGE as usize) {
        let hit = lookup(&m, root, Virt(r.va.0 + off)).unwrap();
        assert_eq!(hit.pa.0 + (r.va.0 + off - hit.va.0), r.pa.0 + off);
        assert!(hit.entry.is_user() && !hit.entry.is_writable() && !hit.entry.is_executable());
    }
}

#[test]
fn no_access_is_both_writable_and_executable() {
    for a in [Access::Read, Access::Write, Access::Execute] {
        let e = Entry::leaf(Phys(0x20_0000), a, Space::Kernel, true);
        assert!(!(e.is_writable() && e.is_executable()));
        assert_eq!(e.is_writable(), a == Access::Write);
        assert_eq!(e.is_executable(), a == Access::Execute);
        assert!(!e.is_user());
    }
}

#[test]
fn mapping_twice_is_refused() {
    let (mut m, root) = Mem::new(100);
    let r = range(0x4000_0000, 0, LARGE_PAGE);
    map(&mut m, root, r, Access::Read, Space::User, MaxPage::Large).unwrap();
    let small = range(0x4000_1000, 0, PAGE);
    let again = map(&mut m, root, small, Access::Read, Space::User, MaxPage::Large);
    assert_eq!(again, Err(MapError::Occupied(Virt(0x4000_1000))));
    let again = map(&mut m, root, r, Access::Read, Space::User, MaxPage::Large);
    assert_eq!(again, Err(MapError::Occupied(Virt(0x4000_0000))));
}

#[test]
fn ranges_that_wrap_or_leave_their_half_are_refused() {
    let (mut m, root) = Mem::new(100);
    for r in [
        range(0x7FFF_FFFF_F000, 0, 2 * PAGE),
        range(0x8000_0000_0000, 0, PAGE),
        range(0x4000_0001, 0, PAGE),
        range(0x4000_0000, 1, PAGE),
        range(0x4000_0000, 0, 5),
        range(0xFFFF_FFFF_FFFF_F000, 0, 2 * PAGE),
        range(0x4000_0000, u64::MAX - PAGE + 1, PAGE),
    ] {
        let got = map(&mut m, root, r, Access::Read, Space::User, MaxPage::Huge);
        assert_eq!(got, Err(MapError::BadRange), "{r:?}");
    }
}

#[test]
fn running_out_of_tables_is_an_error_and_not_a_panic() {
    let (mut m, root) = Mem::new(3);
    let r = range(0x4000_0000, 0, PAGE);
    let got = map(&mut m, root, r, Access::Read, Space::User, MaxPage::Small);
    assert_eq!(got, Err(MapError::NoMemory));
}

#[test]
fn unmapping_removes_exactly_one_leaf() {
    let (mut m, root) = Mem::new(100);
    let r = range(0x4000_0000, 0x20_0000, 2 * LARGE_PAGE);
    map(&mut m, root, r, Access::Write, Space::User, MaxPage::Large).unwrap();
    assert_eq!(unmap(&mut m, root, Virt(0x4000_1234)).unwrap().pa, Phys(0x20_0000));
    assert!(lookup(&m, root, Virt(0x4000_0000)).is_none());
    assert!(lookup(&m, root, Virt(0x4020_0000)).is_some());
    assert!(unmap(&mut m, root, Virt(0x4000_0000)).is_none());
}

#[test]
fn walking_visits_leaves_in_order_and_tables_once() {
    let (mut m, root) = Mem::new(100);
    for r in [range(0xFFFF_8000_0000_0000, 0, LARGE_PAGE), range(0xFFFF_8000_0040_0000, 0, PAGE)] {
        map(&mut m, root, r, Access::Write, Space::Kernel, MaxPage::Large).unwrap();
    }
    let mut seen = Vec::new();
    for_each_leaf(&m, root, 256..512, &mut |l| seen.push((l.va.0, l.size)));
    assert_eq!(seen, [(0xFFFF_8000_0000_0000, LARGE_PAGE), (0xFFFF_8000_0040_0000, PAGE)]);
    let all = m.tables.len();
    let mut n = 0;
    for_each_table(&mut m, root, 0..512, &mut |_, _| n += 1);
    assert_eq!(n, all - 1, "every table but the root");
}
