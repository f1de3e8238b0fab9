//! Moving pages between size classes, so that yesterday's item sizes do not starve today's.
use super::arena::{Arena, ItemId, State};
use super::slab::{CLASSES, Class, Slabs, chunk_bytes};
use super::table::Table;
use crate::limits::{PAGE_BYTES, STEAL_TRIES};
use core::sync::atomic::Ordering::{Acquire, Relaxed};

/// Seconds by which another class's oldest item must be older before it loses a page.
const AGE_MARGIN: u32 = 10;

impl Slabs {
    /// Takes a page for `wanting`, which evicts items of age `cold`, if another class keeps items
    /// that are more than twice as old.
    pub(super) fn rebalance(
        &self,
        arena: &Arena,
        table: &Table,
        wanting: usize,
        cold: u32,
        now: u32,
    ) {
        let Some((donor, age)) = self.oldest_class(arena, wanting, now) else { return };
        if age / 2 > cold.saturating_add(AGE_MARGIN)
            && let Some(page) = self.steal_from(arena, table, donor, now)
        {
            self.free_pages.lock().push(page as u32);
        }
    }

    /// A page for `wanting`, which has nothing left to evict: from the class with the oldest items,
    /// or from any.
    pub(super) fn steal(
        &self,
        arena: &Arena,
        table: &Table,
        wanting: usize,
        now: u32,
    ) -> Option<usize> {
        if let Some((donor, _)) = self.oldest_class(arena, wanting, now)
            && let Some(page) = self.steal_from(arena, table, donor, now)
        {
            return Some(page);
        }
        let others = (0..CLASSES).filter(|&donor| donor != wanting);
        others.into_iter().find_map(|donor| self.steal_from(arena, table, donor, now))
    }

    fn oldest_class(&self, arena: &Arena, wanting: usize, now: u32) -> Option<(usize, u32)> {
        (0..CLASSES)
            .filter(|&index| index != wanting)
            .filter_map(|index| {
                let class = self.classes[index].lock();
                (class.figures.pages > 0).then(|| (index, class.tail_age(arena, now)))
            })
            .max_by_key(|&(_, age)| age)
    }

    /// Empties a page of `donor` and takes it away.
    fn steal_from(&self, arena: &Arena, table: &Table, donor: usize, now: u32) -> Option<usize> {
        let mut class = self.classes[donor].lock();
        if class.figures.pages == 0 {
            return None;
        }
        let tail = arena.id_from_link(class.oldest);
        let coldest = tail.map(|id| Arena::offset(id) / PAGE_BYTES);
        let all = (0..self.pages())
            .filter(|&page| usize::from(self.page_class[page].load(Relaxed)) == donor);
        for page in coldest.into_iter().chain(all).take(STEAL_TRIES) {
            if class.empty_page(arena, table, page, now) {
                self.disown_page(&mut class, page);
                self.moved.fetch_add(1, Relaxed);
                return Some(page);
            }
        }
        None
    }
}

impl Class {
    /// Evicts everything in `page` and takes its chunks off the free list; false, with the page
    /// still in use, if something in it is held.
    fn empty_page(&mut self, arena: &Arena, table: &Table, page: usize, now: u32) -> bool {
        let held = |id: ItemId| {
            let header = arena.header(id);
            match header.state() {
                State::Free => false,
                State::Held => true,
                State::Linked => header.refs.load(Acquire) != 1,
            }
        };
        if self.chunks(arena, page).any(held) {
            return false;
        }
        for id in self.chunks(arena, page) {
            let linked = arena.header(id).state() == State::Linked;
            if linked && !self.evict_item(arena, table, id, now) {
                return false;
            }
        }
        for id in self.chunks(arena, page) {
            self.remove_free(arena, id);
        }
        true
    }

    /// The chunks of `page` that have been cut so far.
    fn chunks<'a>(&self, arena: &'a Arena, page: usize) -> impl Iterator<Item = ItemId> + use<'a> {
        let size = chunk_bytes(self.index());
        let cut = match self.cutting {
            Some((cutting, cut)) if cutting == page => cut / size,
            _ => PAGE_BYTES / size,
        };
        (0..cut).map(move |n| arena.id_at(page * PAGE_BYTES + n * size))
    }
}
