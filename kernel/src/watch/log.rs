//! Each core's last events (`ix_abi::event_log`): in kernel memory, where a crash report finds them, and
//! in the control page, where they outlive the machine. Written by the core itself, without waiting.

use core::sync::atomic::{AtomicU64, Ordering};

use ix_abi::control::log_offset;
use ix_abi::event_log::{EventKind, NEWEST, Record, record_offset};
use ix_abi::limits::CORES_MAX;
use ix_abi::stats::{CoreStats, Counter, Drop};

use crate::cpu::percore;
use crate::{control, time};

/// Records of each core that are kept in kernel memory; a power of two.
const KEPT: usize = 64;
/// At most one record in this time for each reason of drops, and for overruns.
const EVERY_NS: u64 = 1_000_000_000;

struct Log {
    newest: AtomicU64,
    records: [[AtomicU64; 4]; KEPT],
}

static LOGS: [Log; CORES_MAX] = [const {
    Log { newest: AtomicU64::new(0), records: [const { [const { AtomicU64::new(0) }; 4] }; KEPT] }
}; CORES_MAX];

/// Writes down what happened on this core.
#[cold]
pub fn record(kind: EventKind, small: u16, a: u64, b: u64) {
    let core = percore::id();
    let Some(log) = LOGS.get(core) else { return };
    let number = log.newest.load(Ordering::Relaxed) + 1;
    let words = Record { number, kind, small, time_ns: time::now_ns(), a, b }.encode();
    let slot = &log.records[number as usize % KEPT];
    slot[0].store(0, Ordering::Relaxed);
    for i in [1, 2, 3, 0] {
        // Release: in this order, to whoever looks meanwhile.
        slot[i].store(words[i], Ordering::Release);
    }
    log.newest.store(number, Ordering::Release);
    to_page(core, number, words);
}

fn to_page(core: usize, number: u64, words: [u64; 4]) {
    let at = log_offset(core);
    let slot = at + record_offset(number);
    control::set(slot, 0);
    for i in [1, 2, 3, 0] {
        control::set(slot + i * 8, words[i]);
    }
    control::set(at + NEWEST, number);
}

/// Record `number` of a core, if it is still there.
pub fn kept(core: usize, number: u64) -> Option<Record> {
    let slot = &LOGS.get(core)?.records[number as usize % KEPT];
    let words = [0, 1, 2, 3].map(|i| slot[i].load(Ordering::Acquire));
    let again = slot[0].load(Ordering::Acquire);
    Record::decode(words, number).filter(|_| again == words[0])
}

/// The number of a core's newest record; 0: none.
pub fn newest(core: usize) -> u64 {
    LOGS.get(core).map_or(0, |log| log.newest.load(Ordering::Acquire))
}

/// The page has come: what was recorded before goes there too. The boot core, before others run.
pub fn attach() {
    for core in 0..CORES_MAX {
        control::set(log_offset(core) + NEWEST, 0);
        let newest = newest(core);
        for number in newest.saturating_sub(KEPT as u64 - 1).max(1)..=newest {
            if let Some(record) = kept(core, number) {
                to_page(core, number, record.encode());
            }
        }
    }
}

/// Makes events of what counters say, at most one a second for each: a flood must not fill the log.
#[derive(Debug)]
pub struct Follower {
    /// Drops by reason, then overruns: what was told, and when.
    told: [(u64, u64); Drop::COUNT + 1],
    low: bool,
}

impl Follower {
    pub fn new() -> Self {
        Self { told: [(0, 0); Drop::COUNT + 1], low: false }
    }

    pub fn look(&mut self, core: usize, stats: &CoreStats, now: u64) {
        debug_assert_eq!(core, percore::id());
        let overruns = stats.get(Counter::AppOverruns);
        let counts = stats.drops.iter().chain([&overruns]);
        for (i, (count, told)) in counts.zip(&mut self.told).enumerate() {
            if *count == told.0 || (told.1 != 0 && now.wrapping_sub(told.1) < EVERY_NS) {
                continue;
            }
            let more = count.wrapping_sub(told.0);
            *told = (*count, now);
            if i < Drop::COUNT {
                record(EventKind::Drops, i as u16, more, *count);
            } else {
                record(EventKind::Overrun, 0, more, *count);
            }
        }
        self.look_at_buffers(stats);
    }

    /// Low is below a sixteenth, recovered above an eighth of the pool.
    fn look_at_buffers(&mut self, stats: &CoreStats) {
        let (free, all) = (stats.get(Counter::BuffersFree), stats.get(Counter::BuffersTotal));
        if !self.low && free < all / 16 {
            self.low = true;
            record(EventKind::BuffersLow, 0, free, all);
        } else if self.low && free > all / 8 {
            self.low = false;
            record(EventKind::BuffersBack, 0, free, all);
        }
    }
}
