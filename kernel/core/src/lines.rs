//! Memory in whole cache lines: what one core allocates shares no line with what another does, so that neither
//! waits for the other's stores.
use core::alloc::Layout;

#[cfg(test)]
mod tests;

/// Bytes of a cache line of all processors that this runs on.
pub const LINE_BYTES: usize = 64;

/// The layout to allocate in place of `layout`: at a line's start, up to a line's end. `None` if there is no such size.
pub fn whole_lines(layout: Layout) -> Option<Layout> {
    let aligned = layout.align_to(LINE_BYTES).ok()?;
    let size = layout.size().checked_next_multiple_of(LINE_BYTES)?;
    Layout::from_size_align(size, aligned.align()).ok()
}
