//! What one core brings along: its counters, its reply memory, the time; and what all cores share.
use crate::clients::Clients;
use crate::crawler::Crawler;
use crate::limits::WORKERS_MAX;
use crate::out::ChunkPool;
use crate::store::{Miss, Store};
use crate::time::Clock;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// One core's counters. Only that core writes them, with plain moves; others read.
        #[derive(Debug, Default)]
        #[repr(align(64))]
        pub struct Counters {
            $($(#[$doc])* pub $name: AtomicU64,)*
        }

        /// The same as plain numbers, summed over cores.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Totals {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            fn add_to(&self, totals: &mut Totals) {
                $(totals.$name = totals.$name.wrapping_add(self.$name.load(Relaxed));)*
            }
        }

        impl Totals {
            /// What was counted since `then`.
            fn since(&self, then: &Totals) -> Totals {
                Totals { $($name: self.$name.wrapping_sub(then.$name),)* }
            }
        }
    };
}

counters! {
    /// Keys looked up by `get` and `gets`.
    cmd_get,
    /// Data blocks received whole.
    cmd_set,
    /// `flush_all`.
    cmd_flush,
    /// Keys touched by `touch`, `gat` and `gats`.
    cmd_touch,
    /// `me`: what memcached calls a meta command here.
    cmd_meta,
    /// Keys found.
    get_hits,
    /// Keys not found.
    get_misses,
    /// Of them, found expired.
    get_expired,
    /// Of them, found flushed.
    get_flushed,
    /// `delete` of no key.
    delete_misses,
    /// `delete`.
    delete_hits,
    /// `incr` of no key.
    incr_misses,
    /// `incr`.
    incr_hits,
    /// `decr` of no key.
    decr_misses,
    /// `decr`.
    decr_hits,
    /// `cas` of no key.
    cas_misses,
    /// `cas` that stored.
    cas_hits,
    /// `cas` of another version.
    cas_badval,
    /// `touch` that found its key.
    touch_hits,
    /// `touch` of no key.
    touch_misses,
    /// Items refused for their size.
    store_too_large,
    /// Items refused for lack of memory.
    store_no_memory,
    /// Bytes received.
    bytes_read,
    /// Bytes given to `sendv`.
    bytes_written,
    /// Connections opened.
    opened,
    /// Connections closed.
    closed,
    /// Connections refused because there were too many.
    rejected,
    /// Connections closed because they said nothing.
    idle_kicks,
    /// Times that a connection's input waited for its output.
    conn_yields,
}

/// Adds to a counter of one's own core: no `lock` prefix.
#[inline]
pub fn count(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// What the operator chose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// TCP port.
    pub port: u16,
    /// UDP port; 0 = none.
    pub udp_port: u16,
    /// Connections at most.
    pub max_conns: u32,
    /// Seconds after which a connection that says nothing is closed; 0 = never.
    pub idle_timeout: u32,
    /// Cores that serve.
    pub threads: u32,
    /// The wall clock.
    pub clock: Clock,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            port: 11211,
            udp_port: 0,
            max_conns: 1024,
            threads: 1,
            idle_timeout: 0,
            clock: Clock::default(),
        }
    }
}

/// What all cores share.
#[derive(Debug)]
pub struct Shared {
    /// The items.
    pub store: Store,
    /// What the operator chose.
    pub settings: Settings,
    /// As set by the `verbosity` command; nothing depends on it.
    pub verbosity: AtomicU64,
    /// Who is connected.
    pub clients: Clients,
    /// Who reclaims what has expired.
    pub crawler: Crawler,
    counters: Box<[Counters]>,
    /// What the counters were at the last `stats reset`: nobody writes another core's counters.
    base: spin::Mutex<Totals>,
}

impl Shared {
    /// A store to be served as `settings` say.
    pub fn new(store: Store, settings: Settings) -> Shared {
        let counters = (0..WORKERS_MAX).map(|_| Counters::default()).collect();
        Shared {
            store,
            settings,
            verbosity: AtomicU64::new(0),
            clients: Clients::new(WORKERS_MAX),
            crawler: Crawler::default(),
            counters,
            base: spin::Mutex::default(),
        }
    }

    fn all_time(&self) -> Totals {
        let mut totals = Totals::default();
        for counters in &self.counters {
            counters.add_to(&mut totals);
        }
        totals
    }

    /// The counters of all cores together, since the last `stats reset`.
    pub fn totals(&self) -> Totals {
        let base = *self.base.lock();
        self.all_time().since(&base)
    }

    /// `stats reset`.
    pub fn reset(&self) {
        *self.base.lock() = self.all_time();
    }

    /// Connections that are open now.
    pub fn connections(&self) -> u64 {
        let of = |one: &Counters| one.opened.load(Relaxed).wrapping_sub(one.closed.load(Relaxed));
        self.counters.iter().fold(0, |sum, one| sum.wrapping_add(of(one)))
    }
}

/// One core's side of the store.
#[derive(Debug)]
pub struct Worker<'s> {
    /// What all cores share.
    pub shared: &'s Shared,
    /// The core's number.
    pub index: usize,
    /// This core's counters.
    pub counters: &'s Counters,
    /// Memory for rendered replies.
    pub pool: ChunkPool,
    /// Room for the answer to a datagram.
    pub(crate) udp_buffer: Vec<u8>,
    /// The current second.
    pub now: u32,
}

impl<'s> Worker<'s> {
    /// The worker of core `index`; no two may have the same.
    pub fn new(shared: &'s Shared, index: usize) -> Worker<'s> {
        let counters = &shared.counters[index];
        Worker {
            shared,
            index,
            counters,
            pool: ChunkPool::default(),
            udp_buffer: Vec::new(),
            now: Clock::second(0),
        }
    }

    /// To be told once per batch.
    pub fn set_time(&mut self, now_ns: u64) {
        self.now = Clock::second(now_ns);
    }

    /// The items.
    #[inline]
    pub fn store(&self) -> &'s Store {
        &self.shared.store
    }

    /// The second that a client's expiry time names.
    pub fn deadline(&self, exptime: i32) -> u32 {
        self.shared.settings.clock.deadline(exptime, self.now)
    }

    /// Counts why a look-up failed.
    pub fn count_miss(&self, miss: Miss) {
        match miss {
            Miss::Absent => {}
            Miss::Expired => count(&self.counters.get_expired, 1),
            Miss::Flushed => count(&self.counters.get_flushed, 1),
        }
    }
}
