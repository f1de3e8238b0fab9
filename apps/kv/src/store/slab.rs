//! Memory for items: pages cut into chunks of one size class each.
//!
//! Four classes per doubling (at most a fifth of a chunk is wasted), and one for the parts of large
//! items. A full class evicts from the cold end of its own lists ([`super::lists`]). A class that
//! starves, or that evicts much younger items than another class keeps, takes over a page of it
//! ([`super::steal`]).
//!
//! Lock order: shard, then class. Evicting goes the other way and therefore only tries the shard.
use super::arena::{Arena, HEADER_BYTES, ItemId, NIL, NewItem, State, get, set};
use super::lists::{HOT, LISTS, List, WARM};
use super::steal::Drain;
use super::table::Table;
use super::tune::Tune;
use crate::limits::{ALLOC_ROUNDS, PAGE_BYTES, REBALANCE_EVICTIONS, STARVED_ROUNDS};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering, Ordering::Relaxed, fence};

/// Number of size classes: the last but one has half pages, the last the parts of large items.
pub const CLASSES: usize = 55;
const HALF_PAGE: usize = CLASSES - 2;
/// The class of the parts of large items.
pub(super) const PART: usize = CLASSES - 1;
/// Chunks of that class in a page.
const PARTS_PER_PAGE: usize = 16;
/// Bytes of an item in one part.
pub(super) const PART_BYTES: usize = PAGE_BYTES / PARTS_PER_PAGE - HEADER_BYTES;
const _: () = assert!(PAGE_BYTES.is_multiple_of(8 * PARTS_PER_PAGE));
const NO_CLASS: u8 = u8::MAX;
const SMALLEST: usize = 64;
const LARGEST: usize = 512 << 10;

/// The class of items of `bytes` in all.
pub(super) fn class_of(bytes: usize) -> usize {
    if bytes <= SMALLEST {
        return 0;
    }
    if bytes > LARGEST {
        debug_assert!(bytes <= PAGE_BYTES / 2, "larger ones are kept in parts");
        return HALF_PAGE;
    }
    let last = bytes - 1;
    let octave = last.ilog2();
    let quarter = (last >> (octave - 2)) & 3;
    (octave as usize - 6) * 4 + quarter + 1
}

/// Bytes of a chunk of `class`.
pub(super) const fn chunk_bytes(class: usize) -> usize {
    if class == 0 {
        return SMALLEST;
    }
    if class == HALF_PAGE {
        return PAGE_BYTES / 2;
    }
    if class == PART {
        return PAGE_BYTES / PARTS_PER_PAGE;
    }
    let octave = 6 + (class - 1) / 4;
    (1 << octave) + ((class - 1) % 4 + 1) * (1 << (octave - 2))
}

/// Figures of a class, for `stats`.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct ClassFigures {
    pub chunk_bytes: usize,
    pub pages: u64,
    pub number: u64,
    pub mem_requested: u64,
    pub total_items: u64,
    pub age: u32,
    pub evicted: u64,
    pub evicted_nonzero: u64,
    pub evicted_time: u32,
    pub evicted_unfetched: u64,
    pub outofmemory: u64,
    pub reclaimed: u64,
    pub expired_unfetched: u64,
    pub lrutail_reflocked: u64,
    pub moves_within_lru: u64,
    pub moves_to_cold: u64,
    pub moves_to_warm: u64,
    pub crawler_reclaimed: u64,
    pub crawler_items_checked: u64,
    pub age_hot: u32,
    pub age_warm: u32,
    /// In HOT, WARM, COLD and TEMP.
    pub number_of: [u64; 4],
    pub used_chunks: u64,
}

/// What a class's lock guards.
#[derive(Debug)]
pub(super) struct Class {
    index: usize,
    /// First free chunk, linked through `older` and back through `newer`.
    pub(super) free: u32,
    /// The page that is being cut, and how much of it is.
    pub(super) cutting: Option<(usize, usize)>,
    pub(super) lists: [List; LISTS],
    /// The page that is being taken away.
    pub(super) drain: Option<Drain>,
    pub(super) figures: ClassFigures,
}

/// The allocator.
#[derive(Debug)]
pub(super) struct Slabs {
    pub(super) classes: Box<[spin::Mutex<Class>]>,
    /// Class of each page.
    pub(super) page_class: Box<[AtomicU8]>,
    pub(super) free_pages: spin::Mutex<Vec<u32>>,
    /// Pages that changed class.
    pub(super) moved: AtomicU64,
    /// The class that is giving a page to a needier one, or [`CLASSES`].
    pub(super) donor: AtomicUsize,
}

impl Slabs {
    pub fn new(arena: &Arena) -> Slabs {
        let pages = arena.len() / PAGE_BYTES;
        let class = |index| {
            let figures =
                ClassFigures { chunk_bytes: chunk_bytes(index), ..ClassFigures::default() };
            let (free, lists) = (NIL, [List::EMPTY; LISTS]);
            spin::Mutex::new(Class { index, free, cutting: None, lists, drain: None, figures })
        };
        Slabs {
            classes: (0..CLASSES).map(class).collect(),
            page_class: (0..pages).map(|_| AtomicU8::new(NO_CLASS)).collect(),
            free_pages: spin::Mutex::new((0..pages as u32).rev().collect()),
            moved: AtomicU64::new(0),
            donor: AtomicUsize::new(CLASSES),
        }
    }

    /// Memory for an item whose header and bytes take `bytes`, evicting others if it must.
    pub fn allocate(
        &self,
        arena: &Arena,
        table: &Table,
        tune: &Tune,
        bytes: usize,
        now: u32,
    ) -> Option<NewItem> {
        self.allocate_class(arena, table, tune, class_of(bytes), None, now)
    }

    /// A chunk of a class, for an item or for a part of one.
    pub fn allocate_class(
        &self,
        arena: &Arena,
        table: &Table,
        tune: &Tune,
        index: usize,
        part_of: Option<ItemId>,
        now: u32,
    ) -> Option<NewItem> {
        let mut starved = 0;
        for _ in 0..ALLOC_ROUNDS {
            let mut class = self.classes[index].lock();
            if let Some(id) = class.take_free(arena) {
                return Some(class.hand_out(arena, id, part_of));
            }
            if let Some(page) = self.free_pages.lock().pop() {
                self.give_page(&mut class, page as usize);
                continue;
            }
            if class.evict(arena, table, now) {
                let turn = class.figures.evicted;
                let cold = class.tail_age(arena, now);
                drop(class);
                // Now and then: does another class keep much older items than this one evicts?
                let moves = Tune::get(&tune.slab_automove) != 0;
                if moves && turn.is_multiple_of(REBALANCE_EVICTIONS) {
                    self.rebalance(arena, table, index, cold, now);
                }
                continue;
            }
            if starved > 0 {
                // Rather have what was on its way out than nothing.
                class.give_up_drain(arena);
            }
            drop(class);
            if !self.steal(arena, table, index, now) {
                starved += 1;
                if starved == STARVED_ROUNDS {
                    break;
                }
            }
        }
        self.classes[index].lock().figures.outofmemory += 1;
        None
    }

    /// `page` is cut into chunks of `class` from now on.
    pub(super) fn give_page(&self, class: &mut Class, page: usize) {
        if class.cutting.is_some() {
            // The rest of the page that was being cut is still there: keep the new one for later.
            self.free_pages.lock().push(page as u32);
            return;
        }
        self.page_class[page].store(class.index as u8, Relaxed);
        class.figures.pages += 1;
        class.cutting = Some((page, 0));
    }

    /// A page leaves its class, everything in it being free.
    pub(super) fn disown_page(&self, class: &mut Class, page: usize) {
        self.page_class[page].store(NO_CLASS, Relaxed);
        class.figures.pages -= 1;
        if class.cutting.is_some_and(|(cut, _)| cut == page) {
            class.cutting = None;
        }
    }

    /// Puts an item into one of its class's lists. The caller holds its shard.
    pub fn link(&self, arena: &Arena, tune: &Tune, id: ItemId, now: u32) {
        self.classes[arena.header(id).class()].lock().link(arena, tune, id, now);
    }

    /// Takes an item, already out of the table, out of its class's list, and drops the table's
    /// reference. The caller holds its shard.
    pub fn unlink(&self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let mut class = self.classes[header.class()].lock();
        class.unlink(arena, id);
        if header.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            class.put_free(arena, id);
        }
    }

    /// Drops one reference.
    pub fn release(&self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        if header.refs.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            self.classes[header.class()].lock().put_free(arena, id);
        }
    }

    pub fn free_page_count(&self) -> usize {
        self.free_pages.lock().len()
    }

    pub fn pages(&self) -> usize {
        self.page_class.len()
    }

    /// Figures of one class.
    pub fn figures(&self, arena: &Arena, index: usize, now: u32) -> ClassFigures {
        let class = self.classes[index].lock();
        ClassFigures {
            age: class.tail_age(arena, now),
            age_hot: class.list_age(arena, HOT, now),
            age_warm: class.list_age(arena, WARM, now),
            number_of: class.lists.map(|list| list.number),
            ..class.figures
        }
    }
}

impl Class {
    pub(super) fn index(&self) -> usize {
        self.index
    }

    fn take_free(&mut self, arena: &Arena) -> Option<ItemId> {
        if let Some(id) = arena.id_from_link(self.free) {
            self.remove_free(arena, id);
            return Some(id);
        }
        let (page, cut) = self.cutting?;
        let size = chunk_bytes(self.index);
        if cut + size > PAGE_BYTES {
            self.cutting = None;
            return None;
        }
        self.cutting = Some((page, cut + size));
        Some(arena.id_at(page * PAGE_BYTES + cut))
    }

    pub(super) fn remove_free(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let (before, after) = (get(&header.newer), get(&header.older));
        match arena.id_from_link(before) {
            Some(before) => set(&arena.header(before).older, after),
            None => self.free = after,
        }
        if let Some(after) = arena.id_from_link(after) {
            set(&arena.header(after).newer, before);
        }
    }

    fn hand_out(&mut self, arena: &Arena, id: ItemId, part_of: Option<ItemId>) -> NewItem {
        let header = arena.header(id);
        match part_of {
            None => header.set_state(self.index, State::Held),
            Some(head) => {
                header.set_state(self.index, State::Part);
                set(&header.hash, head.link());
            }
        }
        set(&header.refs, 1);
        set(&header.part, NIL);
        header.heat.store(0, Relaxed);
        header.marks.store(0, Relaxed);
        self.figures.used_chunks += 1;
        NewItem::from_free(id)
    }

    /// Frees an item's chunk, or its chunks.
    pub(super) fn put_free(&mut self, arena: &Arena, id: ItemId) {
        if self.index == PART {
            let mut link = get(&arena.header(id).part);
            while let Some(part) = arena.id_from_link(link) {
                link = get(&arena.header(part).part);
                self.free_chunk(arena, part);
            }
        }
        self.free_chunk(arena, id);
    }

    fn free_chunk(&mut self, arena: &Arena, id: ItemId) {
        arena.header(id).set_state(self.index, State::Free);
        self.figures.used_chunks -= 1;
        if !self.is_out(id) {
            self.push_free(arena, id);
        }
    }

    pub(super) fn push_free(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        set(&header.newer, NIL);
        set(&header.older, self.free);
        if let Some(first) = arena.id_from_link(self.free) {
            set(&arena.header(first).newer, id.link());
        }
        self.free = id.link();
    }
}
