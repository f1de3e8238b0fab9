//! The physical frame allocator: a sorted list of free ranges. Used at boot and by control actions
//! only, so linear search is fine; the fast path never allocates.
//!
//! Small requests are served from the bottom, large ones (2 MiB) from the top, so that page tables do
//! not break up the memory that buffers want.

use crate::addr::{LARGE_PAGE, PAGE, Phys, align_down, align_up};

#[cfg(test)]
mod tests;

/// How many separate free ranges can exist.
pub const MAX_RANGES: usize = 256;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Free {
    start: u64,
    end: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The range list is full: the range was not taken in.
    TooFragmented,
    /// The range is free already (in part).
    DoubleFree,
    /// Not page-aligned, empty or wrapping.
    BadRange,
}

#[derive(Debug)]
pub struct FrameAllocator {
    ranges: [Free; MAX_RANGES],
    len: usize,
    free_bytes: u64,
}

impl Default for FrameAllocator {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameAllocator {
    #[must_use]
    pub const fn new() -> Self {
        Self { ranges: [Free { start: 0, end: 0 }; MAX_RANGES], len: 0, free_bytes: 0 }
    }

    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.free_bytes
    }

    /// Gives `[start, start + len)` to the allocator.
    pub fn free(&mut self, start: Phys, len: u64) -> Result<(), FrameError> {
        let start = start.0;
        let end = start.checked_add(len).ok_or(FrameError::BadRange)?;
        if len == 0 || (start | end) & (PAGE - 1) != 0 {
            return Err(FrameError::BadRange);
        }
        let i = self.ranges[..self.len].partition_point(|r| r.end < start);
        let overlaps = |r: &Free| r.start < end && start < r.end;
        if self.ranges[i..self.len].iter().take(2).any(overlaps) {
            return Err(FrameError::DoubleFree);
        }
        let joins_low = i < self.len && self.ranges[i].end == start;
        let next = if joins_low { i + 1 } else { i };
        let joins_high = next < self.len && self.ranges[next].start == end;
        match (joins_low, joins_high) {
            (true, true) => {
                self.ranges[i].end = self.ranges[next].end;
                self.remove(next);
            }
            (true, false) => self.ranges[i].end = end,
            (false, true) => self.ranges[i].start = start,
            (false, false) => self.insert(i, Free { start, end })?,
        }
        self.free_bytes += len;
        Ok(())
    }

    /// The lowest `len` bytes that are free and aligned.
    pub fn alloc_low(&mut self, len: u64, align: u64) -> Option<Phys> {
        for i in 0..self.len {
            let r = self.ranges[i];
            let Some(start) = align_up(r.start, align) else { continue };
            if start.checked_add(len).is_some_and(|end| end <= r.end) {
                return self.take(i, start, len);
            }
        }
        None
    }

    /// The highest `len` bytes that are free and aligned.
    pub fn alloc_high(&mut self, len: u64, align: u64) -> Option<Phys> {
        for i in (0..self.len).rev() {
            let r = self.ranges[i];
            if r.end - r.start < len {
                continue;
            }
            let start = align_down(r.end - len, align);
            if start >= r.start {
                return self.take(i, start, len);
            }
        }
        None
    }

    /// One 4 KiB frame.
    pub fn alloc_page(&mut self) -> Option<Phys> {
        self.alloc_low(PAGE, PAGE)
    }

    /// One 2 MiB frame.
    pub fn alloc_large(&mut self) -> Option<Phys> {
        self.alloc_high(LARGE_PAGE, LARGE_PAGE)
    }

    /// Takes `[start, start + len)` out wherever it is free; parts that are not free are ignored.
    pub fn reserve(&mut self, start: Phys, len: u64) -> Result<(), FrameError> {
        let from = align_down(start.0, PAGE);
        let to = start.0.checked_add(len).and_then(|e| align_up(e, PAGE));
        let to = to.ok_or(FrameError::BadRange)?;
        let mut i = 0;
        while i < self.len {
            let r = self.ranges[i];
            let (a, b) = (r.start.max(from), r.end.min(to));
            if a >= b {
                i += 1;
                continue;
            }
            if a > r.start && b < r.end && self.len == MAX_RANGES {
                return Err(FrameError::TooFragmented);
            }
            let split = a > r.start;
            self.take(i, a, b - a).ok_or(FrameError::TooFragmented)?;
            i += usize::from(split);
        }
        Ok(())
    }

    fn take(&mut self, i: usize, start: u64, len: u64) -> Option<Phys> {
        let Free { start: lo, end: hi } = self.ranges[i];
        let end = start + len;
        match (start > lo, end < hi) {
            (false, false) => self.remove(i),
            (true, false) => self.ranges[i].end = start,
            (false, true) => self.ranges[i].start = end,
            (true, true) => {
                if self.len == MAX_RANGES {
                    return None;
                }
                self.ranges[i].end = start;
                self.insert(i + 1, Free { start: end, end: hi }).ok()?;
            }
        }
        self.free_bytes -= len;
        Some(Phys(start))
    }

    fn insert(&mut self, i: usize, r: Free) -> Result<(), FrameError> {
        if self.len == MAX_RANGES {
            return Err(FrameError::TooFragmented);
        }
        self.ranges.copy_within(i..self.len, i + 1);
        self.ranges[i] = r;
        self.len += 1;
        Ok(())
    }

    fn remove(&mut self, i: usize) {
        self.ranges.copy_within(i + 1..self.len, i);
        self.len -= 1;
    }
}
