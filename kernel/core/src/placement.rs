//! Where everything lies when the kernel starts, and what of it must not be written over: the image, the
//! modules, the loader's information, firmware tables, the screen. All of it goes into the memory map
//! as something that is not usable, so that whoever looks for free memory (frames, the trampoline)
//! cannot come across it, wherever the loader put it.

use arrayvec::ArrayVec;

use crate::addr::{PAGE, Phys, align_down, align_up};
use crate::frames::{FrameAllocator, FrameError};
use crate::memory_map::{Kind, MemoryMap};

#[cfg(test)]
mod tests;

/// Areas that are remembered by name, for the boot report. More are kept all the same.
pub const AREAS_MAX: usize = 48;
/// Below it nothing is handed out: BIOS data, the trampoline of the other cores.
pub const LOW_END: u64 = 1 << 20;
/// Upper end of what a real-mode program can be started in.
const REAL_MODE_END: u64 = 0xA_0000;

/// Something that is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Area {
    pub name: &'static str,
    pub start: u64,
    pub len: u64,
}

impl Area {
    fn overlaps(&self, other: &Area) -> bool {
        self.start < other.start.saturating_add(other.len)
            && other.start < self.start.saturating_add(self.len)
    }
}

/// What the loader did that cannot be worked with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Misplaced {
    /// The kernel lies where the map has no RAM that may be used.
    Image(Area),
    /// Two things lie in the same place.
    Overlap(Area, Area),
}

impl core::fmt::Display for Misplaced {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Image(a) => write!(
                f,
                "the loader put the kernel at {:#x} to {:#x}, which the memory map does not call usable",
                a.start,
                a.start.saturating_add(a.len)
            ),
            Self::Overlap(a, b) => {
                write!(
                    f,
                    "the loader put the {} ({:#x}) over the {} ({:#x})",
                    b.name, b.start, a.name, a.start
                )
            }
        }
    }
}

/// The memory map with everything that is to be kept taken out of it.
#[derive(Debug, Default)]
pub struct Plan {
    map: MemoryMap,
    areas: ArrayVec<Area, AREAS_MAX>,
}

impl Plan {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A range of the firmware's map.
    pub fn range(&mut self, start: u64, len: u64, kind: Kind) {
        self.map.add(start, len, kind);
    }

    /// The kernel itself: refused where there is no usable RAM. After all of [`Plan::range`].
    pub fn image(&mut self, start: u64, len: u64) -> Result<(), Misplaced> {
        let area = Area { name: "kernel", start, len };
        if !self.map.is_all(align_down(start, PAGE), start.saturating_add(len), Kind::Usable) {
            return Err(Misplaced::Image(area));
        }
        self.keep("kernel", start, len, Kind::Loader);
        Ok(())
    }

    /// Something else, which must not lie where the kernel lies.
    pub fn apart(&mut self, name: &'static str, start: u64, len: u64) -> Result<(), Misplaced> {
        let area = Area { name, start, len };
        if let Some(image) = self.areas.iter().find(|a| a.name == "kernel" && a.overlaps(&area)) {
            return Err(Misplaced::Overlap(*image, area));
        }
        self.keep(name, start, len, Kind::Loader);
        Ok(())
    }

    /// Keeps a range from being used.
    pub fn keep(&mut self, name: &'static str, start: u64, len: u64, kind: Kind) {
        if len > 0 {
            self.map.add(start, len, kind);
            let _ = self.areas.try_push(Area { name, start, len });
        }
    }

    #[must_use]
    pub fn map(&self) -> &MemoryMap {
        &self.map
    }

    #[must_use]
    pub fn areas(&self) -> &[Area] {
        &self.areas
    }
}

/// Gives usable ranges (start and end) to an allocator.
pub fn fill(
    frames: &mut FrameAllocator,
    usable: impl Iterator<Item = (u64, u64)>,
) -> Result<(), FrameError> {
    for (start, end) in usable {
        let start = align_up(start.max(LOW_END), PAGE).unwrap_or(u64::MAX);
        let end = align_down(end, PAGE);
        if start < end {
            frames.free(Phys(start), end - start)?;
        }
    }
    Ok(())
}

/// The highest usable page that a core can be started in; never the first, where a null pointer of
/// real-mode firmware would hit it.
pub fn trampoline_page(usable: impl Iterator<Item = (u64, u64)>) -> Option<Phys> {
    let pages = usable.filter_map(|(start, end)| {
        let page = align_down(end.min(REAL_MODE_END), PAGE).checked_sub(PAGE)?;
        (page >= start.max(PAGE)).then_some(Phys(page))
    });
    pages.max()
}
