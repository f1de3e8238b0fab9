//! Looking for what has expired or was flushed, in steps: a chunk after the other, page by page.
//!
//! memcached's crawler walks the lists, with an item of its own in each as its bookmark. Here memory
//! itself is walked: a bookmark is two numbers, no list is touched, and a step holds one class's lock
//! for [`CRAWL_CHUNKS`] chunks. Between two steps others have their turn.
use super::Store;
use super::arena::{State, get};
use super::slab::chunk_bytes;
use super::tune::Tune;
use crate::limits::{CRAWL_CHUNKS, CRAWL_PAUSE, PAGE_BYTES};
use core::sync::atomic::Ordering::Relaxed;

/// Where the crawler is.
#[derive(Debug, Default)]
pub(super) struct Crawl {
    /// Classes to be crawled, by a bit for each; none: it rests.
    classes: u64,
    page: usize,
    chunk: usize,
    /// Items looked at, for the operator's limit.
    looked_at: u32,
    /// Found one that will expire: there will be something to do another time.
    promising: bool,
    /// When the next one begins by itself.
    next: u32,
}

impl Store {
    /// Something has been given an expiry, or all a flush: worth a crawl some time.
    #[inline]
    pub(super) fn note_expiry(&self, expires: u32) {
        if expires != 0 && !self.may_expire.load(Relaxed) {
            self.may_expire.store(true, Relaxed);
        }
    }

    /// Starts looking for expired items in classes, by a bit for each.
    pub fn start_crawl(&self, classes: u64) {
        let mut crawl = self.crawl.lock();
        *crawl = Crawl { classes, next: crawl.next, ..Crawl::default() };
    }

    /// What is to be done beside requests, for one core to call now and then: a step of the crawler,
    /// and of getting a page free in advance. `true` if there is more to do soon.
    pub fn maintain(&self, now: u32) -> bool {
        let crawling = self.crawl_step(now);
        let full = self.slabs.free_page_count() == 0;
        let keeps_reserve = Tune::get(&self.tune.slab_automove) != 0;
        let reserving = full
            && keeps_reserve
            && self.slabs.pages() >= crate::limits::RESERVE_PAGES_MIN
            && !self.slabs.reserve(&self.arena, &self.table, now);
        crawling || reserving
    }

    fn crawl_step(&self, now: u32) -> bool {
        // Another core's crawl is as good.
        let Some(mut crawl) = self.crawl.try_lock() else { return false };
        if crawl.classes == 0 {
            let due = now >= crawl.next && self.may_expire.swap(false, Relaxed);
            if !due || !self.tune.lru_crawler.load(Relaxed) {
                return false;
            }
            *crawl = Crawl { classes: u64::MAX, ..Crawl::default() };
        }
        let (page, most) = (crawl.page, Tune::get(&self.tune.lru_crawler_tocrawl));
        if page >= self.slabs.pages() || (most != 0 && crawl.looked_at >= most) {
            crawl.classes = 0;
            crawl.next = now + CRAWL_PAUSE;
            if crawl.promising {
                self.may_expire.store(true, Relaxed);
            }
            return false;
        }
        let class = usize::from(self.slabs.page_class[page].load(Relaxed));
        let wanted = crawl.classes.checked_shr(class as u32).is_some_and(|bits| bits & 1 != 0);
        if !wanted || !self.crawl_page(&mut crawl, class, now) {
            crawl.page += 1;
            crawl.chunk = 0;
        }
        true
    }

    /// A step within a page; `false` if the page is through.
    fn crawl_page(&self, crawl: &mut Crawl, index: usize, now: u32) -> bool {
        let mut class = self.slabs.classes[index].lock();
        if usize::from(self.slabs.page_class[crawl.page].load(Relaxed)) != index {
            return false;
        }
        let (size, chunks) = (chunk_bytes(index), class.chunks_cut(crawl.page));
        let end = (crawl.chunk + CRAWL_CHUNKS).min(chunks);
        for chunk in crawl.chunk..end {
            let id = self.arena.id_at(crawl.page * PAGE_BYTES + chunk * size);
            let header = self.arena.header(id);
            if header.state() != State::Linked {
                continue;
            }
            crawl.looked_at += 1;
            let (expires, time) = (get(&header.expires), get(&header.time));
            let expired = expires != 0 && expires <= now;
            if expired || self.flushed_by_time(time, now) {
                let freed = class.evict_item(&self.arena, &self.table, id, now);
                class.figures.crawler_reclaimed += u64::from(freed);
            } else {
                crawl.promising |= expires != 0;
            }
        }
        class.figures.crawler_items_checked += (end - crawl.chunk) as u64;
        crawl.chunk = end;
        end < chunks
    }

    /// Whether something of this time went with a flush whose time has come.
    pub(super) fn flushed_by_time(&self, time: u32, now: u32) -> bool {
        let flush_at = get(&self.flush_at);
        time <= get(&self.flushed_to) || (flush_at != 0 && flush_at <= now && time <= flush_at)
    }

    /// Moves a page from one size class to another, counted from 1; 0 are the free pages, and -1 any.
    pub fn reassign(&self, from: i32, to: i32, now: u32) -> super::Reassigned {
        use super::Reassigned::{BadClass, NoSpare, Ok, Same};
        let classes = super::CLASSES as i32;
        if from == to {
            return Same;
        }
        let any = |class: &usize| self.slabs.classes[*class].lock().figures.pages > 1;
        let from = match from {
            -1 => (0..super::CLASSES).find(any).map_or(-1, |class| class as i32 + 1),
            from => from,
        };
        if !(0..=classes).contains(&from) || !(0..=classes).contains(&to) {
            return BadClass;
        }
        if from > 0 {
            let donor = (from - 1) as usize;
            if !any(&donor) || !self.slabs.drain(&self.arena, &self.table, donor, now) {
                return NoSpare;
            }
        }
        if to > 0 {
            let Some(page) = self.slabs.free_pages.lock().pop() else { return NoSpare };
            let mut class = self.slabs.classes[(to - 1) as usize].lock();
            self.slabs.give_page(&mut class, page as usize);
        }
        Ok
    }
}
