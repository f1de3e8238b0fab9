//! A unit in software: registers as §11.4 has them, tables walked as §3 says, with a cache that remembers until it is told
//! to forget.
use ix_dataplane::device::Mmio;
use ix_dataplane::time::Instant;
use ix_vtd::{Memory, SourceId};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Tables, by address.
#[derive(Debug, Default)]
pub struct Ram {
    pub tables: BTreeMap<u64, Box<[u64; 512]>>,
    /// So many more can be had.
    pub left: usize,
}

impl Memory for Ram {
    fn read(&self, table: u64, index: usize) -> u64 {
        self.tables[&table][index]
    }
    fn write(&mut self, table: u64, index: usize, value: u64) {
        self.tables.get_mut(&table).expect("a table")[index] = value;
    }
    fn new_table(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        let at = 0x10_0000 + self.tables.len() as u64 * 4096;
        self.tables.insert(at, Box::new([0; 512]));
        Some(at)
    }
}

pub fn ram() -> Ram {
    Ram { tables: BTreeMap::new(), left: 1000 }
}

/// Three levels, 2 MiB pages, four fault records at 0x220, invalidation at 0xf8.
pub const CAP: u64 = 2 << 8 | 38 << 16 | 0x22 << 24 | 1 << 34 | 3 << 40;
pub const FOUR_LEVELS: u64 = 4 << 8 | 47 << 16 | 0x22 << 24 | 1 << 34 | 3 << 40;
const ECAP: u64 = 0xf << 8;
const FAULTS: usize = 0x220;
const IOTLB: usize = 0xf8;
const ONE_SHOT: u32 = !0x96ff_ffff;

#[derive(Debug, Default)]
pub struct State {
    pub cap: u64,
    pub version: u32,
    pub status: u32,
    pub root: u64,
    /// The root table that was taken.
    pub taken: u64,
    pub protected: u32,
    pub faults: [[u32; 4]; 4],
    pub overflow: bool,
    pub next: usize,
    /// Pages that were translated, and whether for writing.
    pub cache: BTreeMap<(u16, u64), bool>,
    /// It does nothing of what it is told.
    pub stuck: bool,
    low: u32,
    /// What it was told, in order.
    pub told: Vec<&'static str>,
}

/// The unit; clones are the same.
#[derive(Clone, Debug)]
pub struct Model(pub Rc<RefCell<State>>);

pub fn model(cap: u64) -> Model {
    Model(Rc::new(RefCell::new(State { cap, version: 0x10, ..State::default() })))
}

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Time passes with each look.
pub fn clock() -> Instant {
    NOW.set(NOW.get() + 1_000_000);
    Instant(NOW.get())
}

impl Mmio for Model {
    fn read8(&self, _: usize) -> u8 {
        panic!("registers are read as 32 bits or more")
    }
    fn read16(&self, _: usize) -> u16 {
        panic!("registers are read as 32 bits or more")
    }
    fn read32(&self, offset: usize) -> u32 {
        let s = self.0.borrow();
        match offset {
            0x00 => s.version,
            0x08 => s.cap as u32,
            0x0c => (s.cap >> 32) as u32,
            0x10 => ECAP as u32,
            0x14 => 0,
            0x1c => s.status,
            // Commands are done at once, unless it is stuck.
            0x28 | IOTLB => 0,
            0x2c | 0xfc => u32::from(s.stuck) << 31,
            0x34 => {
                let pending = s.faults.iter().any(|f| f[3] >> 31 != 0);
                u32::from(s.overflow) | u32::from(pending) << 1
            }
            0x64 => s.protected,
            FAULTS..0x260 => s.faults[(offset - FAULTS) / 16][offset / 4 % 4],
            _ => panic!("register {offset:#x} is read"),
        }
    }
    fn write8(&self, _: usize, _: u8) {
        panic!("registers are written as 32 bits")
    }
    fn write16(&self, _: usize, _: u16) {
        panic!("registers are written as 32 bits")
    }
    fn write32(&self, offset: usize, value: u32) {
        let s = &mut *self.0.borrow_mut();
        match offset {
            0x18 if s.stuck => {}
            0x18 => s.command(value),
            0x20 | 0x28 | IOTLB => s.low = value,
            0x24 => s.root = u64::from(value) << 32 | u64::from(s.low),
            0x2c => {
                assert_eq!(value >> 29, 0b101, "globally");
                s.told.push("forget functions");
            }
            0xfc => {
                assert_eq!(value >> 28 & 0b1011, 0b1001, "globally");
                s.told.push("forget translations");
                if !s.stuck {
                    s.cache.clear();
                }
            }
            0x34 => s.overflow &= value & 1 == 0,
            0x38 => assert_eq!(value, 1 << 31, "no interrupt"),
            0x64 => s.protected = value & 1 << 31 | value >> 31,
            FAULTS..0x260 => {
                assert_eq!((offset % 16, value), (12, 1 << 31), "a record is only cleared");
                s.faults[(offset - FAULTS) / 16][3] &= !value;
            }
            _ => panic!("register {offset:#x} is written"),
        }
    }
}

impl State {
    fn command(&mut self, value: u32) {
        let kept = self.status & !ONE_SHOT;
        let changed = (kept ^ value & !ONE_SHOT) | value & ONE_SHOT;
        assert!(changed.count_ones() <= 1, "one bit at a time: {value:#x} over {kept:#x}");
        if value & 1 << 30 != 0 {
            assert_eq!(kept >> 31, 0, "a root table is taken while nothing is translated");
            (self.taken, self.status) = (self.root, self.status | 1 << 30);
            self.told.push("root");
        }
        self.status = self.status & ONE_SHOT & !(1 << 27) | value & !ONE_SHOT;
    }
}

impl Model {
    /// A request of a device: whether it gets through.
    pub fn request(&self, ram: &Ram, who: SourceId, at: u64, write: bool) -> bool {
        let s = &mut *self.0.borrow_mut();
        if s.status >> 31 == 0 {
            return true;
        }
        let page = at >> 12;
        if let Some(writable) = s.cache.get(&(who.0, page))
            && (*writable || !write)
        {
            return true;
        }
        match walk(ram, s.taken, who, at, write) {
            Ok(writable) => {
                s.cache.insert((who.0, page), writable);
                true
            }
            Err(reason) => {
                let record = &mut s.faults[s.next];
                if record[3] >> 31 != 0 {
                    s.overflow = true;
                    return false;
                }
                let kind = u32::from(!write) << 30;
                let at = at & !0xfff;
                *record = [at as u32, (at >> 32) as u32, u32::from(who.0), 1 << 31 | kind | reason];
                s.next = (s.next + 1) % s.faults.len();
                false
            }
        }
    }
}

/// Whether the page may be written, or the fault's reason.
fn walk(ram: &Ram, root: u64, who: SourceId, at: u64, write: bool) -> Result<bool, u32> {
    let address = |entry: u64| entry & 0x000f_ffff_ffff_f000;
    let entry = ram.read(root, usize::from(who.bus()) * 2);
    if entry & 1 == 0 {
        return Err(1);
    }
    let (context, i) = (address(entry), who.entry() * 2);
    let (low, high) = (ram.read(context, i), ram.read(context, i + 1));
    if low & 1 == 0 {
        return Err(2);
    }
    assert_eq!((low >> 1 & 7, high >> 8), (0, 1), "translated, domain 1, faults are told");
    let levels = (high & 7) + 2;
    if at >> (12 + 9 * levels) != 0 {
        return Err(4);
    }
    let mut table = address(low);
    for level in (0..levels).rev() {
        let entry = ram.read(table, (at >> (12 + 9 * level) & 511) as usize);
        let wanted = if write { 2 } else { 1 };
        if entry & wanted == 0 {
            return Err(if write { 5 } else { 6 });
        }
        if level == 0 || entry & 1 << 7 != 0 {
            let size = 4096u64 << (9 * level);
            assert_eq!(
                address(entry) & !(size - 1),
                at & !(size - 1),
                "a page has its own address"
            );
            return Ok(entry & 2 != 0);
        }
        table = address(entry);
    }
    unreachable!("the last level is a page")
}
