//! What an operator may change while the store serves: memcached's knobs, with its defaults.
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering::Relaxed};

/// The knobs. Factors are in thousandths.
#[derive(Debug)]
#[allow(missing_docs, reason = "memcached's names")]
pub struct Tune {
    pub lru_segmented: AtomicBool,
    pub hot_lru_pct: AtomicU32,
    pub warm_lru_pct: AtomicU32,
    pub hot_max_factor: AtomicU32,
    pub warm_max_factor: AtomicU32,
    /// Items that live no longer than this have a list of their own; negative = they have not.
    pub temporary_ttl: AtomicI32,
    pub slab_automove: AtomicU32,
    pub slab_automove_ratio: AtomicU32,
    pub lru_crawler: AtomicBool,
    /// Microseconds between two steps of the crawler.
    pub lru_crawler_sleep: AtomicU32,
    /// Items that a crawl looks at in each list; 0 = all.
    pub lru_crawler_tocrawl: AtomicU32,
}

impl Default for Tune {
    fn default() -> Tune {
        Tune {
            lru_segmented: AtomicBool::new(true),
            hot_lru_pct: AtomicU32::new(20),
            warm_lru_pct: AtomicU32::new(40),
            hot_max_factor: AtomicU32::new(200),
            warm_max_factor: AtomicU32::new(2000),
            temporary_ttl: AtomicI32::new(-1),
            slab_automove: AtomicU32::new(1),
            slab_automove_ratio: AtomicU32::new(800),
            lru_crawler: AtomicBool::new(true),
            lru_crawler_sleep: AtomicU32::new(100),
            lru_crawler_tocrawl: AtomicU32::new(0),
        }
    }
}

impl Tune {
    /// Sets a knob.
    pub fn set(knob: &AtomicU32, value: u32) {
        knob.store(value, Relaxed);
    }

    /// Reads a knob.
    pub fn get(knob: &AtomicU32) -> u32 {
        knob.load(Relaxed)
    }
}
