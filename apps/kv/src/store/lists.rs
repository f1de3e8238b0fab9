//! The LRU lists of a size class, after memcached's since 1.5: HOT, WARM, COLD and TEMP.
//!
//! What is stored enters HOT. A `get` only marks the item; it is looked at again at the cold end of
//! a list: active items go to WARM (there, back to its warm end), the others to COLD, and off the
//! cold end of COLD things are evicted. HOT and WARM are kept to shares of the class, and to ages
//! in proportion to COLD's. So one look at each of a million keys (a scan) runs through HOT and COLD
//! and out again, and leaves what is used again and again in WARM alone. Items with a short time to
//! live may have TEMP to themselves: they are worth no room in the others, and no eviction.
//!
//! There is no thread for it: each link of an item moves at most [`MOVES_PER_LINK`] others per list.
use super::arena::{ACTIVE, Arena, ItemId, NIL, State, get, set};
use super::slab::Class;
use super::table::{KeyHash, Table};
use super::tune::Tune;
use crate::limits::EVICT_TRIES;
use core::sync::atomic::{Ordering, Ordering::Relaxed};

/// List numbers, as in [`super::arena::Header::lru`].
pub(super) const HOT: usize = 0;
pub(super) const WARM: usize = 1;
pub(super) const COLD: usize = 2;
pub(super) const TEMP: usize = 3;
pub(super) const LISTS: usize = 4;

/// Items moved off the cold end of HOT, and of WARM, when one is linked: more than come in.
const MOVES_PER_LINK: usize = 2;

/// One list.
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub newest: u32,
    pub oldest: u32,
    pub number: u64,
}

impl List {
    pub const EMPTY: List = List { newest: NIL, oldest: NIL, number: 0 };
}

impl Class {
    fn push_newest(&mut self, arena: &Arena, id: ItemId, list: usize) {
        let header = arena.header(id);
        header.lru.store(list as u8, Relaxed);
        let list = &mut self.lists[list];
        set(&header.newer, NIL);
        set(&header.older, list.newest);
        match arena.id_from_link(list.newest) {
            Some(second) => set(&arena.header(second).newer, id.link()),
            None => list.oldest = id.link(),
        }
        list.newest = id.link();
        list.number += 1;
    }

    fn remove_lru(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        let (newer, older) = (get(&header.newer), get(&header.older));
        let list = &mut self.lists[usize::from(header.lru.load(Relaxed)) % LISTS];
        match arena.id_from_link(newer) {
            Some(newer) => set(&arena.header(newer).older, older),
            None => list.newest = older,
        }
        match arena.id_from_link(older) {
            Some(older) => set(&arena.header(older).newer, newer),
            None => list.oldest = newer,
        }
        list.number -= 1;
    }

    /// Puts an item into the list where it begins, and keeps the lists in their proportions.
    pub(super) fn link(&mut self, arena: &Arena, tune: &Tune, id: ItemId, now: u32) {
        let header = arena.header(id);
        header.set_state(self.index(), State::Linked);
        let segmented = tune.lru_segmented.load(Relaxed);
        let expires = get(&header.expires);
        let ttl = tune.temporary_ttl.load(Relaxed);
        let short = ttl >= 0 && expires != 0 && i64::from(expires) - i64::from(now) <= ttl.into();
        let list = match (segmented, short) {
            (false, _) => COLD,
            (true, true) => TEMP,
            (true, false) => HOT,
        };
        self.push_newest(arena, id, list);
        self.figures.number += 1;
        self.figures.total_items += 1;
        self.figures.mem_requested += header.chunk_len() as u64;
        if segmented {
            self.settle(arena, tune, now);
        }
    }

    pub(super) fn unlink(&mut self, arena: &Arena, id: ItemId) {
        let header = arena.header(id);
        self.remove_lru(arena, id);
        header.set_state(self.index(), State::Held);
        self.figures.number -= 1;
        self.figures.mem_requested -= header.chunk_len() as u64;
    }

    /// Age of the oldest item of a list.
    pub(super) fn list_age(&self, arena: &Arena, list: usize, now: u32) -> u32 {
        let tail = arena.id_from_link(self.lists[list].oldest);
        tail.map_or(0, |id| now.saturating_sub(get(&arena.header(id).time)))
    }

    /// Age of the item that would be evicted next.
    pub(super) fn tail_age(&self, arena: &Arena, now: u32) -> u32 {
        let list = [COLD, WARM, HOT, TEMP].into_iter().find(|&list| self.lists[list].number > 0);
        list.map_or(0, |list| self.list_age(arena, list, now))
    }

    /// Moves what is too much or too old in HOT and WARM.
    fn settle(&mut self, arena: &Arena, tune: &Tune, now: u32) {
        let cold_age = u64::from(self.list_age(arena, COLD, now));
        for (list, share, factor) in [
            (HOT, &tune.hot_lru_pct, &tune.hot_max_factor),
            (WARM, &tune.warm_lru_pct, &tune.warm_max_factor),
        ] {
            let most = self.figures.number * u64::from(Tune::get(share));
            let oldest = cold_age * u64::from(Tune::get(factor));
            for _ in 0..MOVES_PER_LINK {
                let Some(id) = arena.id_from_link(self.lists[list].oldest) else { break };
                let header = arena.header(id);
                let age = u64::from(now.saturating_sub(get(&header.time)));
                if self.lists[list].number * 100 <= most && age * 1000 <= oldest {
                    break;
                }
                let active = header.heat.load(Relaxed) == ACTIVE;
                self.move_to(arena, id, if active { WARM } else { COLD });
            }
        }
    }

    fn move_to(&mut self, arena: &Arena, id: ItemId, list: usize) {
        let header = arena.header(id);
        let within = usize::from(header.lru.load(Relaxed)) == list;
        header.cool();
        self.remove_lru(arena, id);
        self.push_newest(arena, id, list);
        let figures = &mut self.figures;
        let moves = match (within, list) {
            (true, _) => &mut figures.moves_within_lru,
            (false, WARM) => &mut figures.moves_to_warm,
            (false, _) => &mut figures.moves_to_cold,
        };
        *moves += 1;
    }

    /// Frees the chunk of an item from the cold end: of COLD; of another list if there is nothing.
    pub(super) fn evict(&mut self, arena: &Arena, table: &Table, now: u32) -> bool {
        for tries in 0..EVICT_TRIES {
            let mut lists = [COLD, WARM, HOT, TEMP].into_iter();
            let tail = lists
                .find_map(|list| arena.id_from_link(self.lists[list].oldest).map(|id| (list, id)));
            let Some((list, id)) = tail else { return false };
            let header = arena.header(id);
            let expires = get(&header.expires);
            let expired = expires != 0 && expires <= now;
            // The last quarter of the tries no longer spares what was used.
            let spare = tries < EVICT_TRIES * 3 / 4 && !expired;
            if header.refs.load(Relaxed) != 1 {
                self.figures.lrutail_reflocked += 1;
                self.move_to(arena, id, list);
            } else if spare && header.heat.load(Relaxed) == ACTIVE {
                self.move_to(arena, id, if list == COLD { WARM } else { list });
            } else if self.evict_item(arena, table, id, now) {
                return true;
            } else {
                // Its shard is busy.
                self.move_to(arena, id, list);
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
