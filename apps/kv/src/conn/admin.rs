//! Commands for operators: `flush_all`, `verbosity`, `slabs`, `lru`, `lru_crawler` and their like.
use super::Conn;
use super::command::{BAD_EXPTIME, BAD_FORMAT, ERROR, Tokens};
use crate::num::{parse_i32, parse_thousandths, parse_u32};
use crate::store::{Reassigned, Tune};
use crate::worker::{Worker, count};
use core::sync::atomic::Ordering::Relaxed;

const OK: &[u8] = b"OK\r\n";
const BAD_CLASS: &[u8] = b"BADCLASS invalid class id\r\n";
const CRAWLER_OFF: &[u8] = b"CLIENT_ERROR lru crawler disabled\r\n";

impl Conn {
    /// Whether the line was one of these commands; it has been answered then.
    pub(super) fn administer(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) -> bool {
        let count = tokens.len();
        let mut noreply = tokens.last() == b"noreply";
        let answer = match tokens.get(0) {
            b"flush_all" if matches!(count, 1..=3) => flush_all(worker, tokens, noreply),
            b"verbosity" if matches!(count, 2 | 3) => verbosity(worker, tokens),
            b"cache_memlimit" if matches!(count, 2 | 3) => cache_memlimit(tokens),
            b"lru" if count >= 2 => lru(&worker.store().tune, tokens),
            b"slabs" => {
                noreply &= tokens.get(1) == b"automove" && count >= 3;
                slabs(worker, tokens)
            }
            b"lru_crawler" => {
                noreply = false;
                lru_crawler(worker, tokens)
            }
            b"watch" => watch(tokens),
            b"shutdown" => {
                noreply = false;
                b"ERROR: shutdown not enabled\r\n"
            }
            b"flush_all" | b"verbosity" | b"cache_memlimit" | b"lru" => {
                noreply = false;
                ERROR
            }
            _ => return false,
        };
        self.reply(worker, noreply, answer);
        true
    }
}

fn flush_all(worker: &Worker<'_>, tokens: &Tokens<'_>, noreply: bool) -> &'static [u8] {
    count(&worker.counters.cmd_flush, 1);
    let mut exptime = 0;
    if tokens.len() != if noreply { 2 } else { 1 } {
        let Some(given) = parse_i32(tokens.get(1)) else { return BAD_EXPTIME };
        exptime = given;
    }
    let (store, now) = (worker.store(), worker.now);
    match if exptime > 0 { worker.deadline(exptime) } else { now } {
        // A date before the start: memcached's arithmetic makes that "never".
        1 => store.flush_at(1, now),
        at if at <= now + 1 => store.flush(now),
        at => store.flush_at(at, now),
    }
    OK
}

fn verbosity(worker: &Worker<'_>, tokens: &Tokens<'_>) -> &'static [u8] {
    let Some(level) = parse_u32(tokens.get(1)) else { return BAD_FORMAT };
    worker.shared.verbosity.store(u64::from(level.min(2)), Relaxed);
    OK
}

/// The memory is taken at the start: as for a memcached that was told to do that, too (`-L`).
fn cache_memlimit(tokens: &Tokens<'_>) -> &'static [u8] {
    match parse_u32(tokens.get(1)) {
        None => ERROR,
        Some(..8) => b"MEMLIMIT_TOO_SMALL cannot set maxbytes to less than 8m\r\n",
        Some(1_000_000_001..) => b"MEMLIMIT_ADJUST_FAILED input value is megabytes not bytes\r\n",
        Some(_) => b"MEMLIMIT_ADJUST_FAILED out of bounds or unable to adjust\r\n",
    }
}

fn lru(tune: &Tune, tokens: &Tokens<'_>) -> &'static [u8] {
    match (tokens.get(1), tokens.len()) {
        (b"tune", 6..) => {
            let numbers = (parse_u32(tokens.get(2)), parse_u32(tokens.get(3)));
            let factors = (parse_thousandths(tokens.get(4)), parse_thousandths(tokens.get(5)));
            let ((Some(hot), Some(warm)), (Some(hot_factor), Some(warm_factor))) =
                (numbers, factors)
            else {
                return ERROR;
            };
            if hot.wrapping_add(warm) > 80 {
                return b"ERROR hot and warm pcts must not exceed 80\r\n";
            }
            let (Some(hot_factor @ 1..), Some(warm_factor @ 1..)) =
                (u32::try_from(hot_factor).ok(), u32::try_from(warm_factor).ok())
            else {
                return b"ERROR hot/warm age factors must be greater than 0\r\n";
            };
            Tune::set(&tune.hot_lru_pct, hot);
            Tune::set(&tune.warm_lru_pct, warm);
            Tune::set(&tune.hot_max_factor, hot_factor);
            Tune::set(&tune.warm_max_factor, warm_factor);
        }
        (b"mode", 3..) => match tokens.get(2) {
            b"flat" => tune.lru_segmented.store(false, Relaxed),
            b"segmented" => tune.lru_segmented.store(true, Relaxed),
            _ => return ERROR,
        },
        (b"temp_ttl", 3..) => match parse_i32(tokens.get(2)) {
            Some(seconds) => tune.temporary_ttl.store(seconds.max(-1), Relaxed),
            None => return ERROR,
        },
        _ => return ERROR,
    }
    OK
}

fn slabs(worker: &Worker<'_>, tokens: &Tokens<'_>) -> &'static [u8] {
    let tune = &worker.store().tune;
    match (tokens.get(1), tokens.len()) {
        (b"reassign", 4) => {
            let (from, to) = (parse_i32(tokens.get(2)), parse_i32(tokens.get(3)));
            let (Some(from), Some(to)) = (from, to) else { return BAD_FORMAT };
            return match worker.store().reassign(from, to, worker.now) {
                Reassigned::Ok => OK,
                Reassigned::Busy => b"BUSY currently processing reassign request\r\n",
                Reassigned::BadClass => b"BADCLASS invalid src or dst class id\r\n",
                Reassigned::NoSpare => b"NOSPARE source class has no spare pages\r\n",
                Reassigned::Same => b"SAME src and dst class are identical\r\n",
            };
        }
        (b"automove", 3..) if tokens.get(2) == b"ratio" => {
            let ratio = parse_thousandths(tokens.get(3)).and_then(|n| u32::try_from(n).ok());
            let Some(ratio) = ratio else { return ERROR };
            Tune::set(&tune.slab_automove_ratio, ratio);
        }
        (b"automove", 3..) => match parse_u32(tokens.get(2)) {
            None => return BAD_FORMAT,
            Some(level @ 0..=2) => Tune::set(&tune.slab_automove, level),
            Some(_) => return ERROR,
        },
        _ => return ERROR,
    }
    OK
}

fn lru_crawler(worker: &Worker<'_>, tokens: &Tokens<'_>) -> &'static [u8] {
    let tune = &worker.store().tune;
    match (tokens.get(1), tokens.len()) {
        (b"crawl", 3) => {
            if !tune.lru_crawler.load(Relaxed) {
                return CRAWLER_OFF;
            }
            match crawl(worker, tokens.get(2)) {
                Some(()) => OK,
                None => BAD_CLASS,
            }
        }
        (b"metadump", 3) if !tune.lru_crawler.load(Relaxed) => CRAWLER_OFF,
        (b"metadump", 3) => b"ERROR metadump not allowed\r\n",
        (b"tocrawl", 3) => match parse_u32(tokens.get(2)) {
            None => BAD_FORMAT,
            Some(items) => {
                Tune::set(&tune.lru_crawler_tocrawl, items);
                OK
            }
        },
        (b"sleep", 3) => match parse_u32(tokens.get(2)) {
            None => BAD_FORMAT,
            Some(1_000_001..) => b"CLIENT_ERROR sleep must be one second or less\r\n",
            Some(microseconds) => {
                Tune::set(&tune.lru_crawler_sleep, microseconds);
                OK
            }
        },
        (b"enable", 2) if tune.lru_crawler.swap(true, Relaxed) => {
            b"ERROR failed to start lru crawler thread\r\n"
        }
        (b"enable", 2) => OK,
        (b"disable", 2) => {
            tune.lru_crawler.store(false, Relaxed);
            OK
        }
        _ => ERROR,
    }
}

/// Starts a crawl of the classes in a list of numbers, or of `all`.
fn crawl(worker: &Worker<'_>, list: &[u8]) -> Option<()> {
    let mut classes = 0u64;
    if list == b"all" {
        classes = u64::MAX;
    } else {
        for word in list.split(|&b| b == b',').filter(|word| !word.is_empty()) {
            let class = parse_u32(word).filter(|class| (1..=63).contains(class))?;
            classes |= 1 << (class - 1);
        }
    }
    worker.store().start_crawl(classes);
    Some(())
}

/// There is nothing to watch here: as a memcached says whose watchers fail.
fn watch(tokens: &Tokens<'_>) -> &'static [u8] {
    const STREAMS: [&[u8]; 9] = [
        b"rawcmds",
        b"evictions",
        b"fetchers",
        b"mutations",
        b"sysevents",
        b"connevents",
        b"proxyreqs",
        b"proxyevents",
        b"proxyuser",
    ];
    if (1..tokens.len()).all(|n| STREAMS.contains(&tokens.get(n))) {
        b"WATCHER_FAILED failed to add log watcher\r\n"
    } else {
        ERROR
    }
}
