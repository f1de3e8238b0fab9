//! The heap area, in pages of 2 MiB: the allocator's heap grows up from its start, pages for the
//! application's own use are handed out from its end down.
#![allow(unsafe_code, reason = "makes memory out of addresses that the kernel has mapped")]

use crate::lock::SpinLock;
use crate::syscall::{Door, outcome, syscall};
use ix_abi::Status;
use ix_abi::call::Direct;
use ix_abi::layout::{HEAP_BASE, INFO_BASE, InfoPage, PAGE_BYTES};

/// What of the heap area is used: `base..low` by the heap, `high..` by pages.
#[derive(Debug)]
pub(crate) struct Area {
    low: u64,
    high: u64,
    /// What the kernel mapped before the program started ends here; 0 before the first use.
    mapped_end: u64,
    door: Door,
}

impl Area {
    pub(crate) const fn new(door: Door) -> Area {
        Area { low: 0, high: 0, mapped_end: 0, door }
    }

    /// Sets the bounds at the first use.
    pub(crate) fn open(&mut self, heap_bytes: u64, heap_max_bytes: u64) {
        if self.mapped_end == 0 {
            self.low = HEAP_BASE;
            self.mapped_end = HEAP_BASE + heap_bytes / PAGE_BYTES * PAGE_BYTES;
            self.high = (HEAP_BASE + heap_max_bytes / PAGE_BYTES * PAGE_BYTES).max(self.mapped_end);
        }
    }

    /// Takes pages from the start: always just after those taken before.
    pub(crate) fn take_low(&mut self, pages: u64) -> Result<u64, Status> {
        let end = self.end_of(self.low, pages)?;
        self.back(self.low, end)?;
        Ok(core::mem::replace(&mut self.low, end))
    }

    /// Takes pages from the end.
    pub(crate) fn take_high(&mut self, pages: u64) -> Result<u64, Status> {
        self.end_of(self.low, pages)?;
        let start = self.high - pages * PAGE_BYTES;
        self.back(start, self.high)?;
        self.high = start;
        Ok(start)
    }

    /// A page from the end, and below it one that nobody gets: where nothing is mapped, unless it was at start.
    pub(crate) fn take_guarded(&mut self) -> Result<u64, Status> {
        self.end_of(self.low, 2)?;
        let start = self.high - PAGE_BYTES;
        self.back(start, self.high)?;
        self.high = start - PAGE_BYTES;
        Ok(start)
    }

    fn end_of(&self, start: u64, pages: u64) -> Result<u64, Status> {
        let bytes = pages.checked_mul(PAGE_BYTES).ok_or(Status::NoMemory)?;
        let end = start.checked_add(bytes).ok_or(Status::NoMemory)?;
        if end > self.high { Err(Status::NoMemory) } else { Ok(end) }
    }

    /// Maps what of the range was not mapped at start.
    fn back(&self, start: u64, end: u64) -> Result<(), Status> {
        let start = start.max(self.mapped_end);
        if start >= end {
            return Ok(());
        }
        outcome((self.door)(Direct::Map, start, (end - start) / PAGE_BYTES, 0)).map(|_| ())
    }
}

static AREA: SpinLock<Area> = SpinLock::new(Area::new(syscall));

/// Pages at the start of the area, for the allocator.
pub(crate) fn take_low(pages: u64) -> Result<u64, Status> {
    let mut area = AREA.lock();
    open(&mut area);
    area.take_low(pages)
}

/// A page for a stack.
pub(crate) fn take_guarded() -> Result<u64, Status> {
    let mut area = AREA.lock();
    open(&mut area);
    area.take_guarded()
}

/// `count` zeroed pages of 2 MiB, for an application that manages memory itself. They are its own for
/// good; sending from them needs nothing more.
pub fn pages(count: usize) -> Result<&'static mut [u8], Status> {
    let mut area = AREA.lock();
    open(&mut area);
    let start = area.take_high(count as u64)?;
    let bytes = count * PAGE_BYTES as usize;
    // SAFETY: the range lies in the heap area, is mapped, readable and writable from now on, is
    // zero, and is handed out once.
    Ok(unsafe {
        core::slice::from_raw_parts_mut(
            core::ptr::with_exposed_provenance_mut(start as usize),
            bytes,
        )
    })
}

/// Gives pages back to the kernel. Their addresses are not used again.
///
/// # Safety
/// `start..start + count * 2 MiB` came from [`pages`], and nothing refers to it any more.
pub unsafe fn unmap(start: *mut u8, count: usize) -> Result<(), Status> {
    outcome(syscall(Direct::Unmap, start as u64, count as u64, 0)).map(|_| ())
}

fn open(area: &mut Area) {
    let info: *const InfoPage = core::ptr::with_exposed_provenance(INFO_BASE as usize);
    // SAFETY: this is reached in ring 3 only (the program's allocator, or a program's own call),
    // where the kernel has mapped the information page before the program started.
    let info = unsafe { &*info };
    area.open(info.heap_bytes, info.heap_max_bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = PAGE_BYTES;

    fn area(mapped: u64, max: u64) -> Area {
        let mut area = Area::new(|_, addr, _, _| {
            assert!(addr >= HEAP_BASE + 4 * PAGE, "only what is not mapped yet is mapped");
            0
        });
        area.open(mapped * PAGE, max * PAGE);
        area
    }

    #[test]
    fn the_heap_grows_up_and_pages_come_down_until_they_meet() {
        let mut area = area(4, 8);
        assert_eq!(area.take_low(3), Ok(HEAP_BASE));
        assert_eq!(area.take_high(2), Ok(HEAP_BASE + 6 * PAGE));
        assert_eq!(area.take_low(2), Ok(HEAP_BASE + 3 * PAGE));
        assert_eq!(area.take_high(2), Err(Status::NoMemory));
        assert_eq!(area.take_high(1), Ok(HEAP_BASE + 5 * PAGE));
        assert_eq!(area.take_low(1), Err(Status::NoMemory));
    }

    #[test]
    fn a_guarded_page_has_nothing_below() {
        let mut area = Area::new(|_, addr, pages, _| {
            assert_eq!((addr, pages), (HEAP_BASE + 7 * PAGE, 1), "the guard is not mapped");
            0
        });
        area.open(4 * PAGE, 8 * PAGE);
        assert_eq!(area.take_guarded(), Ok(HEAP_BASE + 7 * PAGE));
        assert_eq!(area.take_low(4), Ok(HEAP_BASE));
        assert_eq!(area.take_low(3), Err(Status::NoMemory));
        assert_eq!(area.take_high(3), Err(Status::NoMemory));
    }

    #[test]
    fn absurd_counts_are_refused() {
        let mut area = area(4, 8);
        assert_eq!(area.take_low(u64::MAX), Err(Status::NoMemory));
        assert_eq!(area.take_high(u64::MAX / PAGE), Err(Status::NoMemory));
    }

    #[test]
    fn a_refused_mapping_takes_nothing() {
        let mut area = Area::new(|_, _, _, _| (-i64::from(Status::NoMemory.0)).cast_unsigned());
        area.open(PAGE, 4 * PAGE);
        assert_eq!(area.take_low(2), Err(Status::NoMemory));
        assert_eq!(area.take_low(1), Ok(HEAP_BASE));
    }
}
