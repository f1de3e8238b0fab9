//! What a device reaches: root and context tables, and second-level tables where a page has its own address or none (§3.4, §3.7, §9).
use crate::SourceId;

/// Memory where tables lie: pages of 512 words, which the unit reads.
pub trait Memory {
    /// A word of a table.
    fn read(&self, table: u64, index: usize) -> u64;
    /// Writes a word, so that the unit sees it.
    fn write(&mut self, table: u64, index: usize, value: u64);
    /// A zeroed page for a table, which the unit sees as such; `None` if memory is out.
    fn new_table(&mut self) -> Option<u64>;
}

/// What a device may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Read.
    Read,
    /// Read and write.
    Write,
}

/// Why memory is not given or not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table.
    NoMemory,
    /// Not whole pages, or beyond what the unit addresses.
    BadRange,
    /// Some of it is given already; what was before it in the range stays given.
    Occupied {
        /// The page.
        page: u64,
    },
    /// Some of it is not given, or within a larger page; what was before it in the range was taken.
    Missing {
        /// The page.
        page: u64,
    },
}

const PAGE: u64 = 4096;
const LARGE_PAGE: u64 = 2 << 20;
const READ: u64 = 1;
const WRITE: u64 = 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Root and context entries (§9.1, §9.3).
const PRESENT: u64 = 1;
/// The only domain. 0 is a unit's own where it caches absence (§6.2.1).
const DOMAIN: u64 = 1;

/// What one or several devices reach.
#[derive(Debug)]
pub struct Domain {
    table: u64,
    levels: u32,
    bits: u32,
    large: bool,
    bytes: u64,
}

impl Domain {
    /// A domain without memory, with tables of three or four levels for addresses of so many bits.
    pub(crate) fn new(
        memory: &mut impl Memory,
        levels: u32,
        bits: u32,
        large: bool,
    ) -> Option<Domain> {
        let bits = bits.min(12 + 9 * levels);
        Some(Domain { table: memory.new_table()?, levels, bits, large, bytes: 0 })
    }

    /// Bytes that are given.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn check(&self, start: u64, len: u64) -> Result<u64, MapError> {
        let end = start.checked_add(len).ok_or(MapError::BadRange)?;
        let fits = end <= 1 << self.bits && (start | len).is_multiple_of(PAGE);
        if fits { Ok(end) } else { Err(MapError::BadRange) }
    }

    /// Gives `len` bytes from `start`, under their own address.
    pub fn give(
        &mut self,
        memory: &mut impl Memory,
        start: u64,
        len: u64,
        rights: Rights,
    ) -> Result<(), MapError> {
        let end = self.check(start, len)?;
        let rights = if rights == Rights::Write { READ | WRITE } else { READ };
        let mut at = start;
        while at < end {
            let large = self.large && at.is_multiple_of(LARGE_PAGE) && end - at >= LARGE_PAGE;
            let size = if large { LARGE_PAGE } else { PAGE };
            let (mut table, mut index) = self.make(memory, at, u32::from(large))?;
            // A table from when smaller pages were given there stays.
            let (large, size) = match memory.read(table, index) {
                entry if large && entry & (READ | WRITE) != 0 && entry & LARGE == 0 => {
                    (table, index) = self.make(memory, at, 0)?;
                    (false, PAGE)
                }
                _ => (large, size),
            };
            if memory.read(table, index) & (READ | WRITE) != 0 {
                return Err(MapError::Occupied { page: at });
            }
            memory.write(table, index, at | rights | if large { LARGE } else { 0 });
            self.bytes += size;
            at += size;
        }
        Ok(())
    }

    /// Takes it back. The unit's caches know it still: flush them before the memory is another's.
    pub fn take(&mut self, memory: &mut impl Memory, start: u64, len: u64) -> Result<(), MapError> {
        let end = self.check(start, len)?;
        let mut at = start;
        while at < end {
            let missing = MapError::Missing { page: at };
            let (table, index, size) = self.find(memory, at).ok_or(missing)?;
            if !at.is_multiple_of(size) || end - at < size {
                return Err(missing);
            }
            memory.write(table, index, 0);
            self.bytes -= size;
            at += size;
        }
        Ok(())
    }

    /// What the device may do with an address.
    #[must_use]
    pub fn rights(&self, memory: &impl Memory, at: u64) -> Option<Rights> {
        self.check(at & !(PAGE - 1), PAGE).ok()?;
        let (table, index, _) = self.find(memory, at)?;
        let write = memory.read(table, index) & WRITE != 0;
        Some(if write { Rights::Write } else { Rights::Read })
    }

    /// Table and index of the entry of a page at `leaf` (0: 4 KiB, 1: 2 MiB), with all tables above it.
    fn make(&self, memory: &mut impl Memory, at: u64, leaf: u32) -> Result<(u64, usize), MapError> {
        let mut table = self.table;
        for level in (leaf + 1..self.levels).rev() {
            let entry = memory.read(table, index(at, level));
            if entry & (READ | WRITE) == 0 {
                let new = memory.new_table().ok_or(MapError::NoMemory)?;
                memory.write(table, index(at, level), new | READ | WRITE);
                table = new;
            } else if entry & LARGE != 0 {
                return Err(MapError::Occupied { page: at });
            } else {
                table = entry & ADDRESS;
            }
        }
        Ok((table, index(at, leaf)))
    }

    /// Table, index and size of the page that an address is in.
    fn find(&self, memory: &impl Memory, at: u64) -> Option<(u64, usize, u64)> {
        let mut table = self.table;
        for level in (0..self.levels).rev() {
            let entry = memory.read(table, index(at, level));
            if entry & (READ | WRITE) == 0 {
                return None;
            }
            if level == 0 || entry & LARGE != 0 {
                return Some((table, index(at, level), PAGE << (9 * level)));
            }
            table = entry & ADDRESS;
        }
        None
    }

    /// Makes a function one of those that the domain is for. `root` is the unit's root table.
    pub fn attach(
        &self,
        memory: &mut impl Memory,
        root: u64,
        who: SourceId,
    ) -> Result<(), MapError> {
        let bus = usize::from(who.bus()) * 2;
        let mut context = memory.read(root, bus);
        if context & PRESENT == 0 {
            context = memory.new_table().ok_or(MapError::NoMemory)? | PRESENT;
            memory.write(root, bus, context);
        }
        let (table, entry) = (context & ADDRESS, who.entry() * 2);
        // The upper half first: with the lower one the entry is there (§9.3).
        let width = u64::from(self.levels) - 2;
        memory.write(table, entry + 1, DOMAIN << 8 | width);
        memory.write(table, entry, self.table | PRESENT);
        Ok(())
    }
}

fn index(at: u64, level: u32) -> usize {
    (at >> (12 + 9 * level) & 511) as usize
}
