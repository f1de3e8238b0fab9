//! EPT tables: what guest-physical addresses of a dataplane mean (SDM 29.3). Built once by the monitor;
//! what is not mapped is absent. A misconfiguration (29.3.3.1) cannot be said: rights and memory types
//! are enums of what the CPU takes, addresses are checked against its width.
//! Generic over where tables live, so that the host tests build the same tables in a vector.

use crate::addr::{HUGE_PAGE, LARGE_PAGE, PAGE, Phys};

#[cfg(test)]
mod tests;

const READ: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const EXECUTE: u64 = 1 << 2;
const RIGHTS: u64 = READ | WRITE | EXECUTE;
const TYPE_SHIFT: u32 = 3;
const LEAF: u64 = 1 << 7;
/// Where an entry says what it refers to.
pub const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Four levels translate this many bits.
const GUEST_BITS: u32 = 48;
const TOP_LEVEL: u32 = 3;

/// A guest-physical address: what a dataplane takes for a physical one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[repr(transparent)]
pub struct Gpa(pub u64);

/// What a dataplane may do with a range. Writable but not readable, a misconfiguration, cannot be said,
/// nor can execute-only, which not every CPU has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rights {
    Read,
    ReadWrite,
    ReadExecute,
    All,
}

impl Rights {
    const fn bits(self) -> u64 {
        match self {
            Self::Read => READ,
            Self::ReadWrite => READ | WRITE,
            Self::ReadExecute => READ | EXECUTE,
            Self::All => READ | WRITE | EXECUTE,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        match (bits & WRITE != 0, bits & EXECUTE != 0) {
            (false, false) => Self::Read,
            (true, false) => Self::ReadWrite,
            (false, true) => Self::ReadExecute,
            (true, true) => Self::All,
        }
    }
}

/// How a range is cached; the guest's PAT can only make it stricter or combine writes (29.3.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryType {
    /// Device registers.
    Uncacheable,
    /// RAM.
    WriteBack,
}

impl MemoryType {
    const fn bits(self) -> u64 {
        match self {
            Self::Uncacheable => 0,
            Self::WriteBack => 6,
        }
    }

    const fn from_bits(bits: u64) -> Self {
        if bits & 7 == 6 { Self::WriteBack } else { Self::Uncacheable }
    }
}

/// The largest page that the CPU's EPT takes (`capability::EptVpid`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MaxPage {
    Small,
    Large,
    Huge,
}

/// Where tables live: in RAM in the kernel, in a vector in the tests.
pub trait Tables {
    fn read(&self, table: Phys, index: usize) -> u64;
    fn write(&mut self, table: Phys, index: usize, entry: u64);
    /// A zeroed page for a table; `None` if memory is out.
    fn new_table(&mut self) -> Option<Phys>;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EptError {
    /// No memory for a table.
    NoMemory,
    /// Not whole pages, or empty, or it wraps, or is beyond what the CPU addresses.
    BadRange,
    /// The guest has something there already.
    Occupied(Gpa),
}

/// A mapped range: `len` bytes, a multiple of 4096.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub gpa: Gpa,
    pub hpa: Phys,
    pub len: u64,
    pub rights: Rights,
    pub memory: MemoryType,
}

/// The tables of one dataplane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ept {
    root: Phys,
    max: MaxPage,
    /// One past the last host-physical address.
    host_end: u64,
}

const fn index(gpa: u64, level: u32) -> usize {
    (gpa >> (12 + 9 * level) & 511) as usize
}

const fn size_at(level: u32) -> u64 {
    PAGE << (9 * level)
}

impl Ept {
    /// Empty tables: nothing is mapped. `physical_bits`: MAXPHYADDR, CPUID 80000008h EAX bits 7:0.
    pub fn new<T: Tables>(t: &mut T, max: MaxPage, physical_bits: u32) -> Result<Self, EptError> {
        let root = t.new_table().ok_or(EptError::NoMemory)?;
        Ok(Self { root, max, host_end: 1 << physical_bits.clamp(32, 52) })
    }

    #[must_use]
    pub const fn root(&self) -> Phys {
        self.root
    }

    /// The VMCS's EPT pointer (25.6.11): write-back tables of four levels, no accessed and dirty bits.
    #[must_use]
    pub const fn pointer(&self) -> u64 {
        const WRITE_BACK: u64 = 6;
        const LEVELS_LESS_ONE: u64 = 3 << 3;
        self.root.0 | WRITE_BACK | LEVELS_LESS_ONE
    }

    /// Maps a range with the largest pages that fit. All of it, or (on an error) nothing.
    pub fn map<T: Tables>(&self, t: &mut T, range: Range) -> Result<(), EptError> {
        self.check(range)?;
        if let Some(gpa) = self.first_mapped(t, range.gpa.0, range.gpa.0 + range.len) {
            return Err(EptError::Occupied(gpa));
        }
        let mut done = 0;
        while done < range.len {
            let (gpa, hpa, left) = (range.gpa.0 + done, range.hpa.0 + done, range.len - done);
            let level = self.level_for(gpa, hpa, left);
            let bits = range.rights.bits() | range.memory.bits() << TYPE_SHIFT;
            let leaf = hpa | bits | if level > 0 { LEAF } else { 0 };
            match self.slot(t, gpa, level) {
                Some((table, i)) => t.write(table, i, leaf),
                None => {
                    self.clear(t, range.gpa.0, range.gpa.0 + done);
                    return Err(EptError::NoMemory);
                }
            }
            done += size_at(level);
        }
        Ok(())
    }

    fn check(&self, range: Range) -> Result<(), EptError> {
        let guest_end = 1u64 << GUEST_BITS;
        let whole = (range.gpa.0 | range.hpa.0 | range.len) & (PAGE - 1) == 0 && range.len > 0;
        let fits = |start: u64, end: u64| start.checked_add(range.len).is_some_and(|e| e <= end);
        if whole
            && fits(range.gpa.0, guest_end.min(self.host_end))
            && fits(range.hpa.0, self.host_end)
        {
            Ok(())
        } else {
            Err(EptError::BadRange)
        }
    }

    fn level_for(&self, gpa: u64, hpa: u64, left: u64) -> u32 {
        let fits = |size: u64| (gpa | hpa) & (size - 1) == 0 && left >= size;
        if self.max >= MaxPage::Huge && fits(HUGE_PAGE) {
            2
        } else if self.max >= MaxPage::Large && fits(LARGE_PAGE) {
            1
        } else {
            0
        }
    }

    /// Where the leaf of `gpa` at `level` belongs, making tables on the way. The range is free, so no
    /// leaf is met; a table may be in the leaf's place, left over from a mapping that was undone.
    fn slot<T: Tables>(&self, t: &mut T, gpa: u64, level: u32) -> Option<(Phys, usize)> {
        let mut table = self.root;
        for l in (level + 1..=TOP_LEVEL).rev() {
            let entry = t.read(table, index(gpa, l));
            table = if entry & RIGHTS == 0 {
                let new = t.new_table()?;
                t.write(table, index(gpa, l), new.0 | RIGHTS);
                new
            } else {
                Phys(entry & ADDRESS)
            };
        }
        Some((table, index(gpa, level)))
    }

    /// The first mapped address in `[from, to)`.
    fn first_mapped<T: Tables>(&self, t: &T, from: u64, to: u64) -> Option<Gpa> {
        let mut at = from;
        while at < to {
            let (entry, level) = self.look(t, at);
            if entry & RIGHTS != 0 {
                return Some(Gpa(at));
            }
            // Nothing below this entry: on to the next of its level.
            at = (at | (size_at(level) - 1)) + 1;
        }
        None
    }

    /// The entry that decides about `gpa`, and its level: a leaf, or one that is empty.
    fn look<T: Tables>(&self, t: &T, gpa: u64) -> (u64, u32) {
        let mut table = self.root;
        let mut level = TOP_LEVEL;
        loop {
            let entry = t.read(table, index(gpa, level));
            if level == 0 || entry & RIGHTS == 0 || entry & LEAF != 0 {
                return (entry, level);
            }
            table = Phys(entry & ADDRESS);
            level -= 1;
        }
    }

    /// Empties the leaves of `[from, to)`, which are whole.
    fn clear<T: Tables>(&self, t: &mut T, from: u64, to: u64) {
        let mut at = from;
        while at < to {
            let (entry, level) = self.look(t, at);
            if entry & RIGHTS != 0
                && let Some((table, i)) = self.slot(t, at, level)
            {
                t.write(table, i, 0);
            }
            at = (at | (size_at(level) - 1)) + 1;
        }
    }

    /// What an address means: the host's, and how it may be used. As the CPU would look it up.
    #[must_use]
    pub fn translate<T: Tables>(&self, t: &T, gpa: Gpa) -> Option<Range> {
        if gpa.0 >> GUEST_BITS != 0 {
            return None;
        }
        let (entry, level) = self.look(t, gpa.0);
        if entry & RIGHTS == 0 {
            return None;
        }
        let offset = gpa.0 & (size_at(level) - 1);
        Some(Range { gpa, hpa: Phys((entry & ADDRESS) + offset), ..leaf(0, entry, level, offset) })
    }

    /// Calls `f` for every mapped range in the guest's order, as long as pages follow one another on both
    /// sides with the same rights and type.
    pub fn for_each_range<T: Tables>(&self, t: &T, f: &mut dyn FnMut(Range)) {
        let mut pending: Option<Range> = None;
        walk(t, self.root, 0, TOP_LEVEL, &mut |next| match &mut pending {
            Some(p) if continues(p, &next) => p.len += next.len,
            _ => {
                if let Some(done) = pending.replace(next) {
                    f(done);
                }
            }
        });
        if let Some(last) = pending {
            f(last);
        }
    }
}

fn continues(a: &Range, b: &Range) -> bool {
    a.gpa.0 + a.len == b.gpa.0
        && a.hpa.0 + a.len == b.hpa.0
        && a.rights == b.rights
        && a.memory == b.memory
}

/// A leaf as a range, without its first `skipped` bytes.
fn leaf(gpa: u64, entry: u64, level: u32, skipped: u64) -> Range {
    Range {
        gpa: Gpa(gpa + skipped),
        hpa: Phys((entry & ADDRESS) + skipped),
        len: size_at(level) - skipped,
        rights: Rights::from_bits(entry),
        memory: MemoryType::from_bits(entry >> TYPE_SHIFT),
    }
}

fn walk<T: Tables>(t: &T, table: Phys, gpa: u64, level: u32, f: &mut dyn FnMut(Range)) {
    for i in 0..512 {
        let entry = t.read(table, i);
        let gpa = gpa + i as u64 * size_at(level);
        if entry & RIGHTS == 0 {
        } else if level == 0 || entry & LEAF != 0 {
            f(leaf(gpa, entry, level, 0));
        } else {
            walk(t, Phys(entry & ADDRESS), gpa, level - 1, f);
        }
    }
}
