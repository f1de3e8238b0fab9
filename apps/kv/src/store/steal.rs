//! Moving pages between size classes, so that yesterday's item sizes do not starve today's.
//!
//! A page is emptied in steps of [`DRAIN_CHUNKS`] chunks, each under the class's lock for itself, so
//! that nobody waits for a whole page. Chunks before the cursor that are free have left the free list
//! for good; what becomes free behind the cursor, or is still held when it comes by, is met by the
//! next round. Meanwhile the class goes on with its other pages.
use super::arena::{Arena, ItemId, NIL, State, get};
use super::slab::{CLASSES, Class, Slabs, chunk_bytes};
use super::table::Table;
use crate::limits::{DRAIN_CHUNKS, DRAIN_ROUNDS, PAGE_BYTES};
use core::sync::atomic::{Ordering::Acquire, Ordering::Relaxed};

/// Seconds by which another class's oldest item must be older before it loses a page.
const AGE_MARGIN: u32 = 10;

/// A page on its way out of a class.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    pub page: usize,
    /// Chunks of it that had been cut, how many the cursor has passed, and how many are out.
    pub chunks: usize,
    pub cursor: usize,
    pub out: usize,
    rounds: usize,
}

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drained {
    /// The page is empty and has left its class.
    Page(usize),
    /// There is more to do.
    More,
    /// There is nothing to take, or too much of it is in use for now.
    Stuck,
}

impl Slabs {
    /// Takes a page for `wanting`, which evicts items of age `cold`, if another class keeps items
    /// that are more than twice as old: begins, or goes on with it. A step for each call.
    pub(super) fn rebalance(
        &self,
        arena: &Arena,
        table: &Table,
        wanting: usize,
        cold: u32,
        now: u32,
    ) {
        let mut donor = self.donor.load(Relaxed);
        if donor >= CLASSES {
            let Some((oldest, age)) = self.oldest_class(arena, wanting, now) else { return };
            if age / 2 <= cold.saturating_add(AGE_MARGIN) {
                return;
            }
            donor = oldest;
        }
        let more = self.drain_step(arena, table, donor, now) == Drained::More;
        self.donor.store(if more { donor } else { CLASSES }, Relaxed);
    }

    /// One step of emptying a page of the class with the oldest items; `true` if one has got free.
    pub(super) fn reserve(&self, arena: &Arena, table: &Table, now: u32) -> bool {
        let Some((donor, _)) = self.oldest_class(arena, CLASSES, now) else { return false };
        matches!(self.drain_step(arena, table, donor, now), Drained::Page(_))
    }

    /// Gets a page free for `wanting`, which has nothing left to evict: from the class with the
    /// oldest items, or from any. Step by step, with others in between.
    pub(super) fn steal(&self, arena: &Arena, table: &Table, wanting: usize, now: u32) -> bool {
        let oldest = self.oldest_class(arena, wanting, now).map(|(donor, _)| donor);
        let others = (0..CLASSES).filter(|&donor| donor != wanting);
        oldest.into_iter().chain(others).any(|donor| self.drain(arena, table, donor, now))
    }

    /// Empties one page of `donor`.
    pub(super) fn drain(&self, arena: &Arena, table: &Table, donor: usize, now: u32) -> bool {
        loop {
            match self.drain_step(arena, table, donor, now) {
                Drained::Page(_) => return true,
                Drained::More => {}
                Drained::Stuck => return false,
            }
        }
    }

    fn oldest_class(&self, arena: &Arena, wanting: usize, now: u32) -> Option<(usize, u32)> {
        (0..CLASSES)
            .filter(|&index| index != wanting)
            .filter_map(|index| {
                let class = self.classes[index].lock();
                // What holds nothing gives first.
                let age = if class.figures.used_chunks == 0 {
                    u32::MAX
                } else {
                    class.tail_age(arena, now)
                };
                (class.figures.pages > 0).then_some((index, age))
            })
            .max_by_key(|&(_, age)| age)
    }

    /// A step of emptying a page of `donor`; the page is with the free ones then.
    pub(super) fn drain_step(
        &self,
        arena: &Arena,
        table: &Table,
        donor: usize,
        now: u32,
    ) -> Drained {
        let mut class = self.classes[donor].lock();
        if class.drain.is_none() {
            let Some(page) = self.page_to_drain(arena, &class) else { return Drained::Stuck };
            let chunks = class.chunks_cut(page);
            class.drain = Some(Drain { page, chunks, cursor: 0, out: 0, rounds: 0 });
            // No more is cut from it.
            if class.cutting.is_some_and(|(cutting, _)| cutting == page) {
                class.cutting = None;
            }
        }
        let drained = class.drain_chunks(arena, table, now);
        if let Drained::Page(page) = drained {
            self.disown_page(&mut class, page);
            drop(class);
            self.moved.fetch_add(1, Relaxed);
            self.free_pages.lock().push(page as u32);
        }
        drained
    }

    /// The page of the item that would be evicted next, or of a free chunk, or any.
    fn page_to_drain(&self, arena: &Arena, class: &Class) -> Option<usize> {
        if class.figures.pages == 0 {
            return None;
        }
        let coldest = if class.figures.used_chunks == 0 { NIL } else { class.next_out() };
        let link = if coldest == NIL { class.free } else { coldest };
        let of = |page: usize| usize::from(self.page_class[page].load(Relaxed)) == class.index();
        let page = arena.id_from_link(link).map(|id| Arena::offset(id) / PAGE_BYTES);
        page.filter(|&page| of(page)).or_else(|| (0..self.pages()).find(|&page| of(page)))
    }
}

impl Class {
    /// The item that would be evicted next.
    fn next_out(&self) -> u32 {
        use super::lists::{COLD, HOT, TEMP, WARM};
        let tails = [COLD, WARM, HOT, TEMP].map(|list| self.lists[list].oldest);
        tails.into_iter().find(|&tail| tail != NIL).unwrap_or(NIL)
    }

    /// Whether a chunk that has just become free has left the class with its page.
    pub(super) fn is_out(&mut self, id: ItemId) -> bool {
        let index = self.index();
        let Some(drain) = &mut self.drain else { return false };
        let offset = Arena::offset(id);
        let passed = offset / PAGE_BYTES == drain.page
            && offset % PAGE_BYTES / chunk_bytes(index) < drain.cursor;
        drain.out += usize::from(passed);
        passed
    }

    fn drain_chunks(&mut self, arena: &Arena, table: &Table, now: u32) -> Drained {
        let size = chunk_bytes(self.index());
        for _ in 0..DRAIN_CHUNKS {
            let Some(drain) = &mut self.drain else { return Drained::Stuck };
            if drain.out == drain.chunks {
                let page = drain.page;
                self.drain = None;
                return Drained::Page(page);
            }
            // The first round takes the free chunks out; the others see to what was in use then.
            let (page, first) = (drain.page, drain.rounds == 0);
            let at = if first { drain.cursor } else { drain.rounds % drain.chunks };
            let id = arena.id_at(page * PAGE_BYTES + at * size);
            if first {
                drain.cursor += 1;
                drain.rounds += usize::from(drain.cursor == drain.chunks);
            } else {
                drain.rounds += 1;
                if drain.rounds > drain.chunks * (1 + DRAIN_ROUNDS) {
                    drain.rounds = 1;
                    return Drained::Stuck;
                }
            }
            match arena.header(id).state() {
                State::Free if first => {
                    self.remove_free(arena, id);
                    self.drain_mut(|drain| drain.out += 1);
                }
                State::Free => {}
                State::Linked => {
                    self.evict_unpinned(arena, table, id, now);
                }
                State::Part => {
                    let head = arena.id_from_link(get(&arena.header(id).hash));
                    if let Some(head) = head
                        && arena.header(head).state() == State::Linked
                    {
                        self.evict_unpinned(arena, table, head, now);
                    }
                }
                State::Held => {}
            }
        }
        Drained::More
    }

    fn drain_mut(&mut self, f: impl FnOnce(&mut Drain)) {
        if let Some(drain) = &mut self.drain {
            f(drain);
        }
    }

    fn evict_unpinned(&mut self, arena: &Arena, table: &Table, id: ItemId, now: u32) {
        if arena.header(id).refs.load(Acquire) == 1 {
            self.evict_item(arena, table, id, now);
        }
    }

    /// The page stays: what had left comes back.
    pub(super) fn give_up_drain(&mut self, arena: &Arena) {
        let Some(drain) = self.drain else { return };
        let size = chunk_bytes(self.index());
        // Of a page that was still being cut, the rest is cut later; one page at a time.
        if drain.chunks < PAGE_BYTES / size {
            if self.cutting.is_some() {
                return;
            }
            self.cutting = Some((drain.page, drain.chunks * size));
        }
        self.drain = None;
        for at in 0..drain.cursor {
            let id = arena.id_at(drain.page * PAGE_BYTES + at * size);
            if arena.header(id).state() == State::Free {
                self.push_free(arena, id);
            }
        }
    }

    /// How many chunks of `page` have been cut so far.
    pub(super) fn chunks_cut(&self, page: usize) -> usize {
        let size = chunk_bytes(self.index());
        if let Some(drain) = self.drain.filter(|drain| drain.page == page) {
            return drain.chunks;
        }
        match self.cutting {
            Some((cutting, cut)) if cutting == page => cut / size,
            _ => PAGE_BYTES / size,
        }
    }
}
