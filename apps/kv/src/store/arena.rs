//! The memory that items live in: headers and bytes at item numbers.
//!
//! # Safety
//! An [`ItemId`] is only made by [`Arena::id_at`], which checks that a header fits there, 8-byte
//! aligned, so a header reference is always valid; all its fields are atomics (plain moves on x86), so
//! that no access is a data race, whoever holds which lock. The bytes behind a header are plain
//! memory: they are written only through [`Arena::fill`] by the one owner of an item that is not
//! linked yet, and through [`Arena::rewrite`] under the item's shard lock while no reference is
//! out; everyone else only reads them, under the shard lock or holding a reference. The rest of
//! [`crate::store`] keeps to that; a chunk is not reused before its last reference is gone.
#![allow(unsafe_code, reason = "the one place that turns item numbers into memory")]

use alloc::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed};

/// An item's place in the arena: its offset in units of 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemId(u32);

impl ItemId {
    /// As it is kept in links.
    pub(super) fn link(self) -> u32 {
        self.0
    }
}

/// An item that is allocated and not in the table; whoever has this is its only owner.
#[derive(Debug)]
#[must_use = "an item that is neither stored nor discarded is lost"]
pub struct NewItem(ItemId);

impl NewItem {
    /// For the allocator: `id` has just left a free list.
    pub(super) fn from_free(id: ItemId) -> NewItem {
        NewItem(id)
    }

    pub(super) fn id(&self) -> ItemId {
        self.0
    }
}

/// No item, in links. No header lies there: the last header of the largest arena starts earlier.
pub(super) const NIL: u32 = u32::MAX;

/// States of an item, in the upper two bits of `class_state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// On a free list.
    Free,
    /// Allocated and not in the table: being filled, or unlinked with references out.
    Held,
    /// In the table and in its class's LRU list.
    Linked,
    /// A part of a large item: see [`super::parts`].
    Part,
}

/// What precedes an item's bytes. Who may change a field: (s) holder of the shard lock, (c) holder
/// of the class lock, (o) the owner before linking; `refs` is the one field that is truly shared.
///
/// The bytes are `VALUE <key> <flags> <length>\r\n<value>\r\nEND\r\n`: the reply of a `get`, whole, so that it is sent in one
/// piece from here. Without its last line, [`END`], they are what it says of one of several keys.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Header {
    /// (s) Next in the hash bucket.
    pub next: AtomicU32,
    /// (c) Neighbours in the LRU list; `older` also links the free list, `newer` back.
    pub newer: AtomicU32,
    pub older: AtomicU32,
    /// (o) Hash of the key: shard and bucket.
    pub hash: AtomicU32,
    /// One for the table, one for each reply that points into the item, one for its owner.
    pub refs: AtomicU32,
    /// (s) Second from which it is expired; 0 = never.
    pub expires: AtomicU32,
    /// (s) Second of the link, or of the fetch that made it active: see [`Header::heat`].
    pub time: AtomicU32,
    /// (o) Client flags.
    pub flags: AtomicU32,
    /// (s) Unique number of this version.
    pub cas: AtomicU64,
    /// (o) Bytes of the value, without its `\r\n`.
    pub value_len: AtomicU32,
    /// (o) Key length.
    pub key_len: AtomicU8,
    /// (o) Bytes between key and value.
    pub suffix_len: AtomicU8,
    /// (c) [`State`] and slab class.
    pub class_state: AtomicU8,
    /// How often it was fetched, up to two: [`FETCHED`], then [`ACTIVE`]. Raised by (s), lowered by (c)
    /// from active to fetched and never further; that one of two changes may be lost does no harm.
    pub heat: AtomicU8,
    /// (s) [`STALE`] and its neighbours.
    pub marks: AtomicU8,
    /// (c) The LRU list that it is in.
    pub lru: AtomicU8,
    spare: [AtomicU8; 2],
    /// (o) A large item's next part: see [`super::parts`].
    pub part: AtomicU32,
}

/// Heat of an item that has been fetched once.
pub(super) const FETCHED: u8 = 1;
/// Heat of an item that has been fetched again since it last was cooled.
pub(super) const ACTIVE: u8 = 2;

/// Mark: invalidated by `md I`, or stored over such an item by an older `ms I`.
pub(super) const STALE: u8 = 1;
/// Mark: one client has been told to fetch the value anew.
pub(super) const TOKEN_SENT: u8 = 2;
/// Mark: the key was given in base64.
pub(super) const BINARY_KEY: u8 = 4;

pub(super) const HEADER_BYTES: usize = size_of::<Header>();
const _: () = assert!(HEADER_BYTES == 56 && align_of::<Header>() == 8);

/// What the item's bytes begin with.
pub(super) const PREFIX: &[u8; 6] = b"VALUE ";

/// What follows an item's bytes in the same memory.
pub(super) const END: &[u8; 5] = b"END\r\n";

impl Header {
    pub fn state(&self) -> State {
        match self.class_state.load(Relaxed) >> 6 {
            0 => State::Free,
            1 => State::Held,
            2 => State::Linked,
            _ => State::Part,
        }
    }

    pub fn class(&self) -> usize {
        usize::from(self.class_state.load(Relaxed) & 0x3f)
    }

    /// (c)
    pub fn set_state(&self, class: usize, state: State) {
        let state = match state {
            State::Free => 0,
            State::Held => 1,
            State::Linked => 2,
            State::Part => 3,
        };
        self.class_state.store(class as u8 | state << 6, Relaxed);
    }

    /// Spared once: it must be fetched again to be spared again.
    pub fn cool(&self) {
        if self.heat.load(Relaxed) == ACTIVE {
            self.heat.store(FETCHED, Relaxed);
        }
    }

    pub fn marked(&self, mark: u8) -> bool {
        self.marks.load(Relaxed) & mark != 0
    }

    /// (s)
    pub fn set_mark(&self, mark: u8, on: bool) {
        let marks = self.marks.load(Relaxed);
        self.marks.store(if on { marks | mark } else { marks & !mark }, Relaxed);
    }

    pub fn key_len(&self) -> usize {
        usize::from(self.key_len.load(Relaxed))
    }

    pub fn value_len(&self) -> usize {
        get(&self.value_len) as usize
    }

    /// Where the value starts in the item's bytes.
    pub fn value_at(&self) -> usize {
        PREFIX.len() + self.key_len() + usize::from(self.suffix_len.load(Relaxed))
    }

    /// All bytes but [`END`]: first line, value, `\r\n`.
    pub fn total_len(&self) -> usize {
        self.value_at() + self.value_len() + 2
    }

    /// Bytes of memory for all of it.
    pub fn chunk_len(&self) -> usize {
        HEADER_BYTES + self.total_len() + END.len()
    }
}

/// The store's memory.
#[derive(Debug)]
pub(super) struct Arena {
    base: NonNull<u8>,
    len: usize,
    /// Whether `base` came from the global allocator and goes back there.
    owned: bool,
}

// SAFETY: the arena is plain memory that it owns for its whole life; see the module's text for who
// may touch what.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Over memory that the caller gives away for good.
    pub fn from_static(memory: &'static mut [u8]) -> Arena {
        let skip = memory.as_ptr().align_offset(64).min(memory.len());
        let memory = &mut memory[skip..];
        let len = memory.len() & !63;
        Arena { base: NonNull::from(memory).cast(), len, owned: false }
    }

    /// Over zeroed memory of the global allocator.
    pub fn from_heap(len: usize) -> Arena {
        let len = len.max(64) & !63;
        let layout = Self::layout(len);
        // SAFETY: the layout is not of size 0.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        Arena { base, len, owned: true }
    }

    /// Aligned no further than any allocation is: then zeroed memory costs nothing until it is used.
    fn layout(len: usize) -> Layout {
        Layout::from_size_align(len, 16).expect("an arena is at most 32 GiB")
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The item whose header starts at byte `offset`.
    pub fn id_at(&self, offset: usize) -> ItemId {
        assert!(offset.is_multiple_of(8) && offset + HEADER_BYTES <= self.len);
        ItemId((offset / 8) as u32)
    }

    /// An item from a link. Links are only ever written from ids, so no check is repeated here
    /// beyond the one that keeps a header access inside the arena.
    pub fn id_from_link(&self, link: u32) -> Option<ItemId> {
        if link == NIL {
            return None;
        }
        debug_assert!(link as usize * 8 + HEADER_BYTES <= self.len);
        Some(ItemId(link))
    }

    pub fn offset(id: ItemId) -> usize {
        id.0 as usize * 8
    }

    #[inline]
    pub fn header(&self, id: ItemId) -> &Header {
        // SAFETY: `id_at` made the id, so the header is inside the arena and aligned; the memory is
        // initialised (zeroed, or a `[u8]`) and every bit pattern is a valid `Header`, which is only
        // atomics, so that shared references are sound.
        unsafe { self.base.add(Self::offset(id)).cast::<Header>().as_ref() }
    }

    /// `len` bytes of the item, from `at` behind its header.
    #[inline]
    pub fn bytes(&self, id: ItemId, at: usize, len: usize) -> &[u8] {
        let start = Self::offset(id) + HEADER_BYTES + at;
        assert!(start + len <= self.len);
        // SAFETY: inside the arena by the check, initialised memory; nobody writes these bytes while
        // this reader holds the shard lock or a reference (module text).
        unsafe { core::slice::from_raw_parts(self.base.add(start).as_ptr(), len) }
    }

    /// Writes bytes of an item that is not linked yet, or of a part of it: its owner is the only one
    /// who can reach them.
    pub fn fill(&self, _item: &mut NewItem, part: ItemId, at: usize, bytes: &[u8]) {
        self.write(part, at, bytes);
    }

    /// Writes bytes of a linked item, unless a reference is out. The caller holds its shard's lock
    /// (`_shard`), without which no new reference can be taken.
    pub fn rewrite<T>(&self, _shard: &mut T, id: ItemId, at: usize, bytes: &[u8]) -> bool {
        if self.header(id).refs.load(Acquire) != 1 {
            return false;
        }
        self.write(id, at, bytes);
        true
    }

    fn write(&self, id: ItemId, at: usize, bytes: &[u8]) {
        let start = Self::offset(id) + HEADER_BYTES + at;
        assert!(start + bytes.len() <= self.len);
        // SAFETY: inside the arena by the check; the two callers have exclusive access. `bytes` is
        // not part of it: a caller could only have got such a slice by the access that it lacks.
        unsafe { core::ptr::copy(bytes.as_ptr(), self.base.add(start).as_ptr(), bytes.len()) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if self.owned {
            // SAFETY: allocated in `from_heap` with this layout.
            unsafe { dealloc(self.base.as_ptr(), Self::layout(self.len)) }
        }
    }
}

/// Reads of fields whose order no one relies on.
pub(super) fn get(field: &AtomicU32) -> u32 {
    field.load(Relaxed)
}

/// Writes of fields that a lock or ownership guards.
pub(super) fn set(field: &AtomicU32, value: u32) {
    field.store(value, Relaxed);
}
