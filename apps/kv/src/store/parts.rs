//! Large items: a chain of chunks of one class, the first of which is the item.
//!
//! What memcached keeps in chunks (over 512 KiB) would take a page for itself otherwise, as much as
//! half of it for nothing. Here a page has 16 chunks for parts, and a chunk's header is followed by
//! [`PART_BYTES`] of the item's bytes. A part knows its item (in `hash`) and the part that follows;
//! its reference count is not used: it comes and goes with the item, under the one class lock.
use super::Store;
use super::arena::{ItemId, NewItem, get, set};
use super::slab::{PART, PART_BYTES};

impl Store {
    pub(super) fn is_large(&self, id: ItemId) -> bool {
        self.arena.header(id).class() == PART
    }

    /// Memory for a large item of `len` bytes behind the header: all parts or none.
    pub(super) fn allocate_parts(&self, len: usize, now: u32) -> Option<NewItem> {
        let head =
            self.slabs.allocate_class(&self.arena, &self.table, &self.tune, PART, None, now)?;
        let mut last = head.id();
        for _ in 1..len.div_ceil(PART_BYTES) {
            let of = Some(head.id());
            let part =
                self.slabs.allocate_class(&self.arena, &self.table, &self.tune, PART, of, now);
            let Some(part) = part else {
                self.discard(head);
                return None;
            };
            set(&self.arena.header(last).part, part.id().link());
            last = part.id();
        }
        Some(head)
    }

    /// The chunk that holds byte `at` of an item's bytes, and where in it.
    pub(super) fn locate(&self, id: ItemId, at: usize) -> (ItemId, usize) {
        if !self.is_large(id) {
            return (id, at);
        }
        let mut part = id;
        for _ in 0..at / PART_BYTES {
            let next = get(&self.arena.header(part).part);
            part = self.arena.id_from_link(next).unwrap_or(part);
        }
        (part, at % PART_BYTES)
    }

    /// Calls `f` for each piece of an item's bytes from `at` on, `len` in all, with its place in the
    /// item and its length.
    pub(super) fn for_pieces(
        &self,
        id: ItemId,
        at: usize,
        len: usize,
        mut f: impl FnMut(usize, usize),
    ) {
        if !self.is_large(id) {
            return f(at, len);
        }
        let (mut at, end) = (at, at + len);
        while at < end {
            let piece = (PART_BYTES - at % PART_BYTES).min(end - at);
            f(at, piece);
            at += piece;
        }
    }

    /// Writes bytes of an item that is not linked yet, at `at` of its bytes.
    pub(super) fn write_pieces(&self, item: &mut NewItem, at: usize, bytes: &[u8]) {
        let id = item.id();
        self.for_pieces(id, at, bytes.len(), |place, len| {
            let (part, offset) = self.locate(id, place);
            self.arena.fill(item, part, offset, &bytes[place - at..place - at + len]);
        });
    }

    /// Copies bytes `from` of an item to `to` of one that is not linked yet.
    pub(super) fn copy_pieces(
        &self,
        from: (ItemId, usize),
        item: &mut NewItem,
        to: usize,
        len: usize,
    ) {
        let (source, start) = from;
        self.for_pieces(source, start, len, |place, len| {
            let (part, offset) = self.locate(source, place);
            self.write_pieces(item, to + place - start, self.arena.bytes(part, offset, len));
        });
    }
}
