//! Memory for items: pages cut into chunks of one size class each, and an LRU list per class.
//!
//! Four classes per doubling (at most a fifth of a chunk is wasted); large items have a page to
//! themselves. A full class evicts from the cold end of its own list, with a second chance for
//! what was used meanwhile (the mark costs a `get` one plain store and no lock). A class that
//! starves, or that evicts much younger items than another class keeps, takes over a page of it.
//!
//! Lock order: shard, then class. Evicting goes the other way and therefore only tries the shard.
use super::arena::{ACTIVE, Arena, HEADER_BYTES, ItemId, NIL, NewItem, State, get, set};
use super::table::{KeyHash, Table};
use crate::limits::{ALLOC_ROUNDS, EVICT_TRIES, PAGE_BYTES};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, Ordering::Relaxed, fence};

/// Number of size classes; the last has whole pages.
pub const CLASSES: usize = 54;
const WHOLE_PAGE: usize = CLASSES - 1;
const NO_CLASS: u8 = u8::MAX;
const SMALLEST: usize = 64;

/// The class of items of `bytes` in all.
pub(super) fn class_of(bytes: usize) -> usize {
    if bytes <= SMALLEST {
        return 0;
    }
    if bytes > PAGE_BYTES / 2 {
        return WHOLE_PAGE;
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
    if class == WHOLE_PAGE {
        return PAGE_BYTES;
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
    pub(super) newest: u32,
    pub(super) oldest: u32,
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
}

impl Slabs {
    pub fn new(arena: &Arena) -> Slabs {
        let pages = arena.len() / PAGE_BYTES;
        let class = |index| {
            let figures =
                ClassFigures { chunk_bytes: chunk_bytes(index), ..ClassFigures::default() };
            let (free, newest, oldest) = (NIL, NIL, NIL);
            spin::Mutex::new(Class { index, free, cutting: None, newest, oldest, figures })
        };
        Slabs {
            classes: (0..CLASSES).map(class).collect(),
            page_class: (0..pages).map(|_| AtomicU8::new(NO_CLASS)).collect(),
            free_pages: spin::Mutex::new((0..pages as u32).rev().collect()),
            moved: AtomicU64::new(0),
        }
    }

    /// Memory for an item whose header and bytes take `bytes`, evicting others if it must.
    pub fn allocate(
        &self,
        arena: &Arena,
        table: &Table,
        bytes: usize,
        now: u32,
    ) -> Option<NewItem> {
        let index = class_of(bytes);
        for _ in 0..ALLOC_ROUNDS {
            let mut class = self.classes[index].lock();
            if let Some(id) = class.take_free(arena) {
                return Some(class.hand_out(arena, id));
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
                if turn.is_multiple_of(256) {
                    self.rebalance(arena, table, index, cold, now);
                }
                continue;
            }
            drop(class);
            if let Some(page) = self.steal(arena, table, index, now) {
                self.give_page(&mut self.classes[index].lock(), page);
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

    /// Puts an item into its class's list, newest. The caller holds its shard.
    pub fn link(&self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let mut class = self.classes[header.class()].lock();
        header.set_state(class.index, State::Linked);
        class.push_newest(arena, id);
        class.figures.number += 1;
        class.figures.total_items += 1;
        class.figures.mem_requested += (HEADER_BYTES + header.total_len()) as u64;
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
        ClassFigures { age: class.tail_age(arena, now), ..class.figures }
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

    fn hand_out(&mut self, arena: &Arena, id: ItemId) -> NewItem {
        let header = arena.header(id);
        header.set_state(self.index, State::Held);
        set(&header.refs, 1);
        header.heat.store(0, Relaxed);
        header.marks.store(0, Relaxed);
        self.figures.used_chunks += 1;
        NewItem::from_free(id)
    }

    pub(super) fn put_free(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        header.set_state(self.index, State::Free);
        set(&header.newer, NIL);
        set(&header.older, self.free);
        if let Some(first) = arena.id_from_link(self.free) {
            set(&arena.header(first).newer, id.link());
        }
        self.free = id.link();
        self.figures.used_chunks -= 1;
    }

    fn push_newest(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        set(&header.newer, NIL);
        set(&header.older, self.newest);
        match arena.id_from_link(self.newest) {
            Some(second) => set(&arena.header(second).newer, id.link()),
            None => self.oldest = id.link(),
        }
        self.newest = id.link();
    }

    fn remove_lru(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let (newer, older) = (get(&header.newer), get(&header.older));
        match arena.id_from_link(newer) {
            Some(newer) => set(&arena.header(newer).older, older),
            None => self.newest = older,
        }
        match arena.id_from_link(older) {
            Some(older) => set(&arena.header(older).newer, newer),
            None => self.oldest = newer,
        }
    }

    pub(super) fn unlink(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        self.remove_lru(arena, id);
        header.set_state(self.index, State::Held);
        self.figures.number -= 1;
        self.figures.mem_requested -= (HEADER_BYTES + header.total_len()) as u64;
    }

    pub(super) fn tail_age(&self, arena: &Arena, now: u32) -> u32 {
        let tail = arena.id_from_link(self.oldest);
        tail.map_or(0, |id| now.saturating_sub(get(&arena.header(id).time)))
    }

    /// Frees the chunk of an item from the cold end of the list.
    fn evict(&mut self, arena: &Arena, table: &Table, now: u32) -> bool {
        let mut link = self.oldest;
        for tries in 0..EVICT_TRIES {
            // At the newest: all were spared, and no longer have the mark. Again from the oldest.
            let at = arena.id_from_link(link).or_else(|| arena.id_from_link(self.oldest));
            let Some(id) = at else { return false };
            let header = arena.header(id);
            link = get(&header.newer);
            let expires = get(&header.expires);
            let expired = expires != 0 && expires <= now;
            // The last quarter of the tries no longer spares what was used.
            let spare = tries < EVICT_TRIES * 3 / 4 && !expired;
            let pinned = header.refs.load(Relaxed) != 1;
            if pinned || (spare && header.heat.load(Relaxed) == ACTIVE) {
                header.cool();
                self.remove_lru(arena, id);
                self.push_newest(arena, id);
                self.figures.moves_within_lru += 1;
                self.figures.lrutail_reflocked += u64::from(pinned);
                continue;
            }
            if self.evict_item(arena, table, id, now) {
                return true;
            }
        }
        false
    }

    /// Unlinks and frees one linked item, unless its shard is busy or a reference is out.
    pub(super) fn evict_item(
        &mut self,
        arena: &Arena,
        table: &Table,
        id: ItemId,
        now: u32,
    ) -> bool {
        let header = arena.header(id);
        let Some(mut shard) = table.try_lock(KeyHash(get(&header.hash))) else { return false };
        if header.refs.load(Ordering::Acquire) != 1 {
            return false;
        }
        let expires = get(&header.expires);
        let fetched = header.heat.load(Relaxed) != 0;
        if expires != 0 && expires <= now {
            self.figures.reclaimed += 1;
            self.figures.expired_unfetched += u64::from(!fetched);
        } else {
            self.figures.evicted += 1;
            self.figures.evicted_nonzero += u64::from(expires != 0);
            self.figures.evicted_unfetched += u64::from(!fetched);
            self.figures.evicted_time = now.saturating_sub(get(&header.time));
        }
        shard.remove(arena, id);
        self.unlink(arena, id);
        set(&header.refs, 0);
        self.put_free(arena, id);
        true
    }
}
