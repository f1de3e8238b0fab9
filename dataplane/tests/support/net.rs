//! A network between two ends, with faults by seed, and the virtual clock.
use super::station::Station;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};

/// What goes wrong, in parts of 1000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub loss: u64,
    pub duplicate: u64,
    pub reorder: u64,
    pub corrupt: u64,
}

/// Anything at an end of the wire.
pub trait End {
    fn step(&mut self, now: Instant) -> Instant;
    fn take(&mut self) -> Vec<Vec<u8>>;
    fn give(&mut self, frame: Vec<u8>);
}

impl End for Station {
    fn step(&mut self, now: Instant) -> Instant {
        let work = Station::step(self, now);
        if work.busy { now } else { work.deadline }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        self.machines.iter_mut().flat_map(|m| m.tx.outbox.drain(..)).collect()
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.machines[0].rx[0].inbox.push_back(frame);
    }
}

pub struct Net {
    pub now: Instant,
    pub faults: Faults,
    pub delay: Duration,
    pub rng: Rng,
    /// Frames under way: when, to which end, what. Sorted by time, then by order of sending.
    under_way: Vec<(Instant, u64, usize, Vec<u8>)>,
    sent: u64,
    /// Frames that were lost and had TCP payload.
    pub lost_data: u64,
    /// By how much a frame that is reordered is late, at most.
    pub late: Duration,
    pub trace: bool,
}

impl Net {
    pub fn new(seed: u64) -> Net {
        Net {
            now: Instant(1_000_000),
            faults: Faults::default(),
            delay: Duration::from_us(50),
            rng: Rng::from_seed(seed),
            under_way: Vec::new(),
            sent: 0,
            lost_data: 0,
            late: Duration::from_us(300),
            trace: false,
        }
    }

    fn send(&mut self, to: usize, mut frame: Vec<u8>) {
        if self.trace {
            eprintln!("{:>12} -> {to}: {}", self.now.0 / 1000, describe(&frame));
        }
        let Faults { loss, duplicate, reorder, corrupt } = self.faults;
        if self.rng.chance(loss, 1000) {
            self.lost_data += u64::from(has_payload(&frame));
            return;
        }
        if self.rng.chance(corrupt, 1000) {
            let at = self.rng.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << self.rng.below(8);
        }
        let copies = 1 + usize::from(self.rng.chance(duplicate, 1000));
        for _ in 0..copies {
            let late = if self.rng.chance(reorder, 1000) { self.rng.below(self.late.0) } else { 0 };
            let at = self.now + self.delay + Duration(late);
            self.sent += 1;
            self.under_way.push((at, self.sent, to, frame.clone()));
        }
    }

    /// Lets both ends run once at the present time and moves on to what is next. `false`: nothing
    /// will ever happen again.
    pub fn step(&mut self, a: &mut dyn End, b: &mut dyn End) -> bool {
        self.under_way.sort_by_key(|(at, order, ..)| (*at, *order));
        while self.under_way.first().is_some_and(|(at, ..)| *at <= self.now) {
            let (_, _, to, frame) = self.under_way.remove(0);
            if to == 0 { a.give(frame) } else { b.give(frame) }
        }
        let mut next = a.step(self.now).min(b.step(self.now));
        for frame in a.take() {
            self.send(1, frame);
        }
        for frame in b.take() {
            self.send(0, frame);
        }
        let arrival = self.under_way.iter().map(|(at, ..)| *at).min();
        next = next.min(arrival.unwrap_or(Instant::NEVER));
        if next == Instant::NEVER {
            return false;
        }
        self.now = if next > self.now { next } else { self.now + Duration(1_000) };
        true
    }

    /// Runs until `done`, or fails after `limit` of virtual time.
    #[track_caller]
    pub fn run_until<A: End, B: End>(
        &mut self,
        a: &mut A,
        b: &mut B,
        limit: Duration,
        mut done: impl FnMut(&mut A, &mut B) -> bool,
    ) {
        let end = self.now + limit;
        while !done(a, b) {
            assert!(self.now < end, "not done after {} ms", limit.0 / 1_000_000);
            assert!(self.step(a, b), "nothing will ever happen again");
        }
    }

    /// Runs for a length of time.
    pub fn run_for(&mut self, a: &mut dyn End, b: &mut dyn End, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            if !self.step(a, b) {
                self.now = end;
            }
        }
    }
}

/// An end at which nothing is.
#[derive(Default)]
pub struct Void {
    pub frames: Vec<Vec<u8>>,
    pub to_send: Vec<Vec<u8>>,
}

impl End for Void {
    fn step(&mut self, now: Instant) -> Instant {
        if self.to_send.is_empty() { Instant::NEVER } else { now }
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.to_send)
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.frames.push(frame);
    }
}

fn has_payload(f: &[u8]) -> bool {
    let tcp = f.len() > 54 && f[12..14] == [8, 0] && f[23] == 6;
    tcp && usize::from(u16::from_be_bytes([f[16], f[17]])) > 20 + usize::from(f[46] >> 4) * 4
}

/// A frame in one line.
pub fn describe(f: &[u8]) -> String {
    if f.len() < 54 || f[12..14] != [8, 0] || f[23] != 6 {
        return format!("{} bytes, type {:02x?}", f.len(), f.get(12..14));
    }
    let word = |at: usize| u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
    let half = |at: usize| u16::from_be_bytes(f[at..at + 2].try_into().unwrap());
    let names = ["F", "S", "R", "P", "A", "U"];
    let flags: String = (0..6).filter(|bit| f[47] >> bit & 1 == 1).map(|bit| names[bit]).collect();
    let header = usize::from(f[46] >> 4) * 4;
    let len = usize::from(half(16)) - 20 - header;
    format!(
        "tcp {}>{} {flags} seq {} ack {} win {} len {len}",
        half(34),
        half(36),
        word(38),
        word(42),
        half(48)
    )
}
