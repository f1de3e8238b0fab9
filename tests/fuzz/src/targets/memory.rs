//! The kernel's memory against simple models, with allocations that fail when the input says so.
use crate::input::Input;
use ix_kernel_core::addr::{LARGE_PAGE, PAGE, Phys, Virt};
use ix_kernel_core::frames::{FrameAllocator, FrameError};
use ix_kernel_core::paging::{self, Access, Entry, MapError, MaxPage, Range, Space, Tables};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Frames of the model.
const FRAMES: u64 = 4096;

/// The frame allocator against a set of free frames.
pub fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut frames = FrameAllocator::new();
    let mut free = BTreeSet::new();
    while !input.is_empty() {
        let what = input.u8();
        let count = 1 + u64::from(input.u8());
        let start = u64::from(input.u16()) % FRAMES;
        let range = start..(start + count).min(FRAMES);
        let (at, len) = (Phys(range.start * PAGE), (range.end - range.start) * PAGE);
        match what % 6 {
            0 | 1 => match frames.free(at, len) {
                Ok(()) => range.for_each(|f| assert!(free.insert(f), "frame {f} was free")),
                Err(FrameError::DoubleFree) => assert!(range.clone().any(|f| free.contains(&f))),
                // What the list has no room for stays out of use.
                Err(FrameError::TooFragmented) => {}
                Err(FrameError::BadRange) => panic!("a good range is called bad"),
            },
            2 => {
                // Cut off its page: refused.
                assert_eq!(frames.free(Phys(at.0 + 1), len), Err(FrameError::BadRange));
            }
            3 => {
                if frames.reserve(at, len).is_ok() {
                    range.for_each(|f| {
                        free.remove(&f);
                    });
                }
            }
            n => {
                let align = PAGE << input.below(10);
                let got = if n == 4 {
                    frames.alloc_low(count * PAGE, align)
                } else {
                    frames.alloc_high(count * PAGE, align)
                };
                let Some(got) = got else { continue };
                assert!(got.0.is_multiple_of(align));
                for f in got.0 / PAGE..got.0 / PAGE + count {
                    assert!(free.remove(&f), "frame {f} was not free");
                }
            }
        }
        assert_eq!(frames.free_bytes(), free.len() as u64 * PAGE);
    }
}

/// Page tables in a map, of which there may be no more.
struct Fake {
    tables: HashMap<u64, Box<[Entry; 512]>>,
    next: u64,
    left: usize,
}

impl Tables for Fake {
    fn read(&self, table: Phys, index: usize) -> Entry {
        self.tables[&table.0][index]
    }

    fn write(&mut self, table: Phys, index: usize, entry: Entry) {
        self.tables.get_mut(&table.0).expect("a table")[index] = entry;
    }

    fn new_table(&mut self) -> Option<Phys> {
        self.left = self.left.checked_sub(1)?;
        self.next += PAGE;
        self.tables.insert(self.next, Box::new([Entry(0); 512]));
        Some(Phys(self.next))
    }
}

/// The user half, where the ranges are.
const BASE: u64 = 0x10_0000_0000;

/// Page tables against a map of pages, out of memory at any moment: what was mapped stays as it was,
/// what failed may be there in part and can be taken away, and every table is given back.
pub fn page_tables(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut t = Fake { tables: HashMap::new(), next: 0, left: 1 };
    let root = t.new_table().expect("the first");
    let mut model: BTreeMap<u64, (u64, bool)> = BTreeMap::new();
    while !input.is_empty() {
        t.left = input.below(8);
        let large = input.flag();
        let size = if large { LARGE_PAGE } else { PAGE };
        // Two areas, in one of which pages of both sizes meet.
        let page = u64::from(input.u16()) % 2048;
        let far = u64::from(input.u8() & 3) << 39;
        let va = BASE + far + page * size;
        let access = input.one_of(&[Access::Read, Access::Write, Access::Execute]);
        if input.flag() {
            let found = paging::unmap(&mut t, root, Virt(va));
            let known = covering(&model, va);
            assert_eq!(found.map(|m| (m.va.0, m.pa.0)), known);
            if let Some((at, _)) = known {
                model.remove(&at);
            }
            continue;
        }
        let pa = (1 + u64::from(input.u16())) * LARGE_PAGE;
        let range = Range { va: Virt(va), pa: Phys(pa), len: size };
        let max = if large { MaxPage::Large } else { MaxPage::Small };
        match paging::map(&mut t, root, range, access, Space::User, max) {
            Ok(()) => {
                assert!(covering(&model, va).is_none(), "mapped over another");
                model.insert(va, (pa, large));
            }
            Err(MapError::NoMemory) => assert_eq!(t.left, 0),
            // A large page over a table that is there, even an empty one, is refused, too.
            Err(MapError::Occupied(at)) => assert_eq!(at.0 & !(size - 1), va),
            Err(MapError::BadRange) => panic!("a good range is called bad"),
        }
        for (at, (pa, large)) in model.iter().take(4) {
            let found = paging::lookup(&t, root, Virt(*at)).expect("still mapped");
            assert_eq!((found.pa.0, found.entry.is_large()), (*pa, *large));
            assert!(!(found.entry.is_writable() && found.entry.is_executable()));
        }
    }
    let mut leaves = 0;
    paging::for_each_leaf(&t, root, 0..256, &mut |_| leaves += 1);
    assert_eq!(leaves, model.len());
    let mut given_back = BTreeSet::from([root.0]);
    paging::for_each_table(&mut t, root, 0..256, &mut |_, table| {
        assert!(given_back.insert(table.0), "a table is given back twice");
    });
    assert_eq!(given_back.len(), t.tables.len(), "tables are lost");
}

/// The page of the model that an address is in.
fn covering(model: &BTreeMap<u64, (u64, bool)>, va: u64) -> Option<(u64, u64)> {
    let (at, (pa, large)) = model.range(..=va).next_back()?;
    let size = if *large { LARGE_PAGE } else { PAGE };
    (va < at + size).then_some((*at, *pa))
}
