//! One core: frames arrive, wait in its queue, and are processed in batches to completion.
use super::hist::Hist;
use super::rng::Rng;
use super::service::Service;
use crate::policy::CoreLoad;
use std::collections::VecDeque;

/// A request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    /// When it arrived, ns.
    pub arrived: u64,
    /// Its flow group, if that matters already; `UNDRAWN` otherwise.
    pub group: u16,
}

/// Arrivals of a Poisson process belong to its groups independently: whose a request is need not be drawn before a
/// group moves.
const UNDRAWN: u16 = u16::MAX;

/// A core.
#[derive(Clone, Debug)]
pub struct Node {
    /// Whether it serves.
    pub serves: bool,
    /// When it can poll again, ns: it processes a batch, a move, or wakes up.
    pub free_at: u64,
    /// What waits, in the order of arrival.
    pub queue: VecDeque<Waiting>,
    /// Requests per ns.
    rate: f64,
    /// Share of the load that its groups have.
    share: f64,
    next: u64,
    /// Time in iterations that had something to do since the last look, ns.
    pub busy_ns: u64,
    /// Queueing delays since the last look, ns.
    pub window: Hist,
    /// The most frames that a poll has found since the last look.
    pub depth_max: usize,
    /// Since when the oldest request had waited too long at each poll, ns.
    pub congested_since: Option<u64>,
    /// Requests that found the receive ring full.
    pub dropped: u64,
    rng: Rng,
}

/// What holds for all cores while a slice of time is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// Its end, ns.
    pub until: u64,
    /// Share of the highest frequency.
    pub frequency: f64,
    /// Frames in a batch at most.
    pub batch: usize,
    /// Frames in a receive ring at most.
    pub ring: usize,
    /// A core whose frames have waited for longer than this is congested, µs.
    pub congested: f64,
}

impl Node {
    /// A core, with its own random numbers.
    pub fn new(seed: u64) -> Node {
        Node {
            serves: true,
            free_at: 0,
            queue: VecDeque::new(),
            rate: 0.0,
            share: 0.0,
            next: u64::MAX,
            busy_ns: 0,
            window: Hist::default(),
            depth_max: 0,
            congested_since: None,
            dropped: 0,
            rng: Rng::new(seed),
        }
    }

    /// From `now` on its groups have this share of a load of `rps` requests per second. A Poisson process forgets: what was
    /// to arrive next is drawn anew.
    pub fn load(&mut self, now: u64, rps: f64, share: f64) {
        self.share = share;
        self.scale(now, rps);
    }

    /// The load has changed, the groups have not.
    pub fn scale(&mut self, now: u64, rps: f64) {
        self.rate = rps * self.share / 1e9;
        self.next = now;
        self.arrive();
    }

    fn arrive(&mut self) {
        self.next = if self.rate > 0.0 {
            self.next.saturating_add((self.rng.exponential() / self.rate).ceil() as u64)
        } else {
            u64::MAX
        };
    }

    /// Takes into the queue what has arrived by `now`.
    fn admit(&mut self, now: u64, ring: usize) {
        while self.next <= now {
            if self.queue.len() < ring {
                self.queue.push_back(Waiting { arrived: self.next, group: UNDRAWN });
            } else {
                self.dropped += 1;
            }
            self.arrive();
        }
    }

    /// Runs up to the end of a slice. A delay goes from the arrival to the beginning of the request's own processing: the
    /// iteration and those before it in the batch are part of it.
    pub fn run(&mut self, now: &Now, service: &Service) {
        loop {
            let start = match self.queue.front() {
                Some(_) => self.free_at,
                None => self.free_at.max(self.next),
            };
            if start >= now.until {
                break;
            }
            self.admit(start, now.ring);
            self.depth_max = self.depth_max.max(self.queue.len());
            let count = self.queue.len().min(now.batch);
            let waited = self.queue.front().map_or(0, |w| start - w.arrived.min(start));
            self.congested_since = match self.congested_since {
                _ if (waited as f64) < now.congested * 1e3 => None,
                None => Some(start),
                since => since,
            };
            let mut t = start as f64 + service.iteration_ns / now.frequency;
            for waiting in self.queue.drain(..count) {
                let delay = (t as u64).saturating_sub(waiting.arrived);
                self.window.record(delay);
                t += service.draw(&mut self.rng) / now.frequency;
            }
            self.free_at = t.ceil() as u64;
            self.busy_ns += self.free_at - start;
        }
        self.admit(now.until, now.ring);
    }

    /// What the control page says of it, for the time of `window_ns` since the last look.
    pub fn look(&mut self, window_ns: f64, all: &mut Hist) -> CoreLoad {
        let load = CoreLoad {
            serves: self.serves,
            busy: (self.busy_ns as f64 / window_ns).min(1.0),
            delay_p99_us: self.window.quantile(0.99) as f64 / 1e3,
            queue: self.depth_max as f64,
        };
        self.depth_max = 0;
        self.busy_ns = 0;
        all.add(&self.window);
        self.window.clear();
        load
    }

    /// Something else keeps it busy for so long, from `now` on.
    pub fn occupy(&mut self, now: u64, ns: f64) {
        let from = self.free_at.max(now);
        self.free_at = from + ns as u64;
        self.busy_ns += ns as u64;
    }

    /// Takes those out that wait for a group, which has this share of the load and leaves.
    pub fn take(&mut self, group: u16, share: f64, out: &mut Vec<Waiting>) {
        let part = if self.share > 0.0 { share / self.share } else { 0.0 };
        self.share = (self.share - share).max(0.0);
        let rng = &mut self.rng;
        self.queue.retain(|w| {
            let ours = if w.group == UNDRAWN { rng.unit() < part } else { w.group == group };
            if ours {
                out.push(Waiting { group, ..*w });
            }
            !ours
        });
    }

    /// Takes those in, in the order of arrival.
    pub fn give(&mut self, waiting: &[Waiting]) {
        if waiting.is_empty() {
            return;
        }
        self.queue.extend(waiting.iter().copied());
        self.queue.make_contiguous().sort_by_key(|w| w.arrived);
    }
}
