//! The crawler as a background thread, where cores are reserved for such. Where none is, or it stands still because its
//! core has been taken back, core 0 does the same in small pieces beside its requests ([`crate::app`]).
use crate::limits::{CRAWLER_SILENT_NS, MAINTAIN_STEPS, TICK_IDLE_US};
use crate::store::Tune;
use crate::time::Clock;
use crate::worker::Shared;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use core::time::Duration;
use libix::{Status, thread};

/// How a crawler is started. A function of the program, so that the store's tests need no kernel.
pub type Start = fn(&'static Shared) -> Result<(), Status>;

/// What the cores know of it.
#[derive(Debug, Default)]
pub struct Crawler {
    start: spin::Once<Start>,
    started: AtomicBool,
    /// When it has last been at work.
    beat_ns: AtomicU64,
}

impl Crawler {
    /// Crawlers can be had like this.
    pub fn offer(&self, start: Start) {
        self.start.call_once(|| start);
    }

    /// Whether it does what is to be done beside requests.
    pub fn is_at_work(&self, now_ns: u64) -> bool {
        let beat = self.beat_ns.load(Relaxed);
        beat != 0 && now_ns.saturating_sub(beat) < CRAWLER_SILENT_NS
    }

    /// Starts it, if it was not and there is a core for it. For one core to call.
    pub fn try_start(&self, shared: &'static Shared) {
        if let Some(start) = self.start.get()
            && !self.started.load(Relaxed)
            && start(shared).is_ok()
        {
            self.started.store(true, Relaxed);
        }
    }
}

/// As a background thread: [`Crawler::offer`] takes it.
pub fn spawn(shared: &'static Shared) -> Result<(), Status> {
    let thread = thread::spawn(move || run(shared))?;
    log::info!("background thread {} reclaims what has expired", thread.number());
    Ok(())
}

fn run(shared: &'static Shared) {
    let store = &shared.store;
    loop {
        let now_ns = libix::syscall::clock_ns();
        shared.crawler.beat_ns.store(now_ns, Relaxed);
        let now = Clock::second(now_ns);
        let more = (0..MAINTAIN_STEPS).all(|_| {
            // A step takes a lock that requests may wait for.
            let _hold = thread::hold();
            store.maintain(now)
        });
        let pause =
            if more { Tune::get(&store.tune.lru_crawler_sleep).into() } else { TICK_IDLE_US };
        thread::sleep(Duration::from_micros(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::worker::Settings;
    use alloc::boxed::Box;

    static TRIED: AtomicU64 = AtomicU64::new(0);

    fn shared() -> &'static Shared {
        Box::leak(Box::new(Shared::new(Store::with_capacity(4 << 20, 1), Settings::default())))
    }

    #[test]
    fn it_is_started_once_as_soon_as_there_is_a_core_for_it() {
        let shared = shared();
        shared.crawler.try_start(shared);
        shared.crawler.offer(|_| match TRIED.fetch_add(1, Relaxed) {
            0 => Err(Status::State),
            _ => Ok(()),
        });
        for _ in 0..4 {
            shared.crawler.try_start(shared);
        }
        assert_eq!(TRIED.load(Relaxed), 2);
    }

    #[test]
    fn one_that_says_nothing_for_long_is_stood_in_for() {
        let crawler = Crawler::default();
        assert!(!crawler.is_at_work(1));
        crawler.beat_ns.store(1_000, Relaxed);
        assert!(crawler.is_at_work(CRAWLER_SILENT_NS));
        assert!(!crawler.is_at_work(CRAWLER_SILENT_NS + 1_000));
    }
}
