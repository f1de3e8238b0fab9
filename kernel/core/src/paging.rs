//! x86-64 four-level page tables: entry encoding, mapping, look-up. Generic over where tables live,
//! so that the host tests build the same tables in a hash map. Intel SDM vol. 3A, section 4.5.

use crate::addr::{HUGE_PAGE, LARGE_PAGE, PAGE, Phys, Virt, is_canonical};

#[cfg(test)]
mod tests;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const WRITE_THROUGH: u64 = 1 << 3;
const NO_CACHE: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;

/// What a mapping allows. Writable and executable at once cannot be said.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Who may use a mapping and how it is cached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Space {
    /// Kernel memory, write-back.
    Kernel,
    /// Device registers: kernel only, uncached.
    Device,
    /// Application memory, write-back.
    User,
}

/// One page-table entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Entry(pub u64);

impl Entry {
    #[must_use]
    pub fn leaf(pa: Phys, access: Access, space: Space, large: bool) -> Self {
        let mut bits = (pa.0 & ADDRESS) | PRESENT;
        bits |= match access {
            Access::Read => NO_EXECUTE,
            Access::Write => WRITE | NO_EXECUTE,
            Access::Execute => 0,
        };
        bits |= match space {
            Space::Kernel => GLOBAL,
            Space::Device => GLOBAL | NO_CACHE | WRITE_THROUGH,
            Space::User => USER,
        };
        if large {
            bits |= LARGE;
        }
        Self(bits)
    }

    /// A table entry: permissive itself, the leaves decide.
    #[must_use]
    pub fn table(pa: Phys, space: Space) -> Self {
        let user = if space == Space::User { USER } else { 0 };
        Self((pa.0 & ADDRESS) | PRESENT | WRITE | user)
    }

    #[must_use]
    pub fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    #[must_use]
    pub fn is_large(self) -> bool {
        self.0 & LARGE != 0
    }

    #[must_use]
    pub fn is_writable(self) -> bool {
        self.0 & WRITE != 0
    }

    #[must_use]
    pub fn is_executable(self) -> bool {
        self.0 & NO_EXECUTE == 0
    }

    #[must_use]
    pub fn is_user(self) -> bool {
        self.0 & USER != 0
    }

    #[must_use]
    pub fn address(self) -> Phys {
        Phys(self.0 & ADDRESS)
    }
}

/// Where page tables live: the direct map in the kernel, a hash map in the tests.
pub trait Tables {
    fn read(&self, table: Phys, index: usize) -> Entry;
    fn write(&mut self, table: Phys, index: usize, entry: Entry);
    /// A zeroed page for a table, or `None` if memory is out.
    fn new_table(&mut self) -> Option<Phys>;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// No memory for a table.
    NoMemory,
    /// The address or length is not a multiple of the page size, not canonical, or wraps.
    BadRange,
    /// Something is mapped there already.
    Occupied(Virt),
}

/// The largest page a mapping may use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MaxPage {
    Small,
    Large,
    Huge,
}

/// A range to map: `len` bytes at `va` to those at `pa`.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub va: Virt,
    pub pa: Phys,
    pub len: u64,
}

fn index(va: u64, level: u32) -> usize {
    ((va >> (12 + 9 * level)) & 511) as usize
}

/// Maps a range with the largest pages that fit and are allowed.
pub fn map<T: Tables>(
    t: &mut T,
    root: Phys,
    range: Range,
    access: Access,
    space: Space,
    max: MaxPage,
) -> Result<(), MapError> {
    let (mut va, mut pa, mut left) = (range.va.0, range.pa.0, range.len);
    if left == 0 {
        return Ok(());
    }
    let last = va.checked_add(left - 1).ok_or(MapError::BadRange)?;
    let aligned = (va | pa | left) & (PAGE - 1) == 0;
    let same_half = (va >> 47) == (last >> 47);
    if !aligned || !is_canonical(va) || !same_half || pa.checked_add(left).is_none() {
        return Err(MapError::BadRange);
    }
    while left > 0 {
        let fits = |size: u64| (va | pa) & (size - 1) == 0 && left >= size;
        let (level, size) = if max >= MaxPage::Huge && fits(HUGE_PAGE) {
            (2, HUGE_PAGE)
        } else if max >= MaxPage::Large && fits(LARGE_PAGE) {
            (1, LARGE_PAGE)
        } else {
            (0, PAGE)
        };
        let leaf = Entry::leaf(Phys(pa), access, space, level > 0);
        set_leaf(t, root, va, level, leaf, space)?;
        va = va.wrapping_add(size);
        pa += size;
        left -= size;
    }
    Ok(())
}

fn set_leaf<T: Tables>(
    t: &mut T,
    root: Phys,
    va: u64,
    leaf_level: u32,
    leaf: Entry,
    space: Space,
) -> Result<(), MapError> {
    let mut table = root;
    for level in (leaf_level + 1..=3).rev() {
        let i = index(va, level);
        let e = t.read(table, i);
        if !e.is_present() {
            let new = t.new_table().ok_or(MapError::NoMemory)?;
            t.write(table, i, Entry::table(new, space));
            table = new;
        } else if e.is_large() {
            return Err(MapError::Occupied(Virt(va)));
        } else {
            table = e.address();
        }
    }
    let i = index(va, leaf_level);
    if t.read(table, i).is_present() {
        return Err(MapError::Occupied(Virt(va)));
    }
    t.write(table, i, leaf);
    Ok(())
}

/// Makes sure the top-level entries of `[first, last]` exist, so that address spaces which copy the
/// top level later see every mapping made below them.
pub fn prepare_top<T: Tables>(
    t: &mut T,
    root: Phys,
    first: Virt,
    last: Virt,
) -> Result<(), MapError> {
    for i in index(first.0, 3)..=index(last.0, 3) {
        if !t.read(root, i).is_present() {
            let new = t.new_table().ok_or(MapError::NoMemory)?;
            t.write(root, i, Entry::table(new, Space::Kernel));
        }
    }
    Ok(())
}

/// What a virtual address is mapped to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    pub va: Virt,
    pub pa: Phys,
    pub size: u64,
    pub entry: Entry,
}

/// Looks one address up, as the CPU would.
#[must_use]
pub fn lookup<T: Tables>(t: &T, root: Phys, va: Virt) -> Option<Mapping> {
    if !is_canonical(va.0) {
        return None;
    }
    let mut table = root;
    for level in (0..=3).rev() {
        let e = t.read(table, index(va.0, level));
        if !e.is_present() {
            return None;
        }
        if level == 0 || (level < 3 && e.is_large()) {
            let size = PAGE << (9 * level);
            // Bit 12 of a large leaf is its PAT bit, not an address bit.
            let pa = Phys(e.address().0 & !(size - 1));
            return Some(Mapping { va: Virt(va.0 & !(size - 1)), pa, size, entry: e });
        }
        table = e.address();
    }
    None
}

/// Removes the leaf that maps `va` and returns it. The caller flushes TLBs.
pub fn unmap<T: Tables>(t: &mut T, root: Phys, va: Virt) -> Option<Mapping> {
    let found = lookup(t, root, va)?;
    let leaf_level = match found.size {
        HUGE_PAGE => 2,
        LARGE_PAGE => 1,
        _ => 0,
    };
    let mut table = root;
    for level in (leaf_level + 1..=3).rev() {
        table = t.read(table, index(va.0, level)).address();
    }
    t.write(table, index(va.0, leaf_level), Entry(0));
    Some(found)
}

/// Calls `f` for every leaf below top-level entries `top`, in address order.
pub fn for_each_leaf<T: Tables>(
    t: &T,
    root: Phys,
    top: core::ops::Range<usize>,
    f: &mut dyn FnMut(Mapping),
) {
    for i in top {
        let e = t.read(root, i);
        if e.is_present() {
            let va = ((i as u64) << 39).wrapping_shl(16).cast_signed() >> 16;
            walk(t, e.address(), va.cast_unsigned(), 2, f);
        }
    }
}

fn walk<T: Tables>(t: &T, table: Phys, va: u64, level: u32, f: &mut dyn FnMut(Mapping)) {
    let size = PAGE << (9 * level);
    for i in 0..512 {
        let e = t.read(table, i);
        let va = va + i as u64 * size;
        if !e.is_present() {
        } else if level == 0 || e.is_large() {
            let pa = Phys(e.address().0 & !(size - 1));
            f(Mapping { va: Virt(va), pa, size, entry: e });
        } else {
            walk(t, e.address(), va, level - 1, f);
        }
    }
}

/// Calls `f` for every table page below top-level entries `top` (the root itself excluded), children
/// before parents: what an address space gives back when it dies.
pub fn for_each_table<T: Tables>(
    t: &mut T,
    root: Phys,
    top: core::ops::Range<usize>,
    f: &mut dyn FnMut(&mut T, Phys),
) {
    for i in top {
        let e = t.read(root, i);
        if e.is_present() {
            tables_below(t, e.address(), 2, f);
        }
    }
}

fn tables_below<T: Tables>(t: &mut T, table: Phys, level: u32, f: &mut dyn FnMut(&mut T, Phys)) {
    if level > 0 {
        for i in 0..512 {
            let e = t.read(table, i);
            if e.is_present() && !e.is_large() {
                tables_below(t, e.address(), level - 1, f);
            }
        }
    }
    f(t, table);
}
