//! Command lines: tokens, and what each command does. Answers, and the order in which things are
//! checked, are those of memcached 1.6.18.
use super::keys::Keys;
use super::{Conn, State, Upload};
use crate::limits::{KEY_BYTES_MAX, TOKENS_MAX};
use crate::num::{parse_i32, parse_u32, parse_u64, write_u64};
use crate::scan::{find, find_low};
use crate::store::{Arithmetic, Delta, Update, stock_item_bytes};
use crate::worker::{Worker, count};
use core::ops::Range;

/// What `version` answers: compatible with this memcached, and not it.
pub const VERSION: &str = "1.6.18-ix";

pub(super) const ERROR: &[u8] = b"ERROR\r\n";
pub(super) const BAD_FORMAT: &[u8] = b"CLIENT_ERROR bad command line format\r\n";
pub(super) const BAD_EXPTIME: &[u8] = b"CLIENT_ERROR invalid exptime argument\r\n";
const BAD_DELTA: &[u8] = b"CLIENT_ERROR invalid numeric delta argument\r\n";
const BAD_DELETE: &[u8] =
    b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n";
pub(super) const NOT_NUMERIC: &[u8] =
    b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
pub(super) const TOO_LARGE: &[u8] = b"SERVER_ERROR object too large for cache\r\n";
pub(super) const NO_MEMORY_TO_STORE: &[u8] = b"SERVER_ERROR out of memory storing object\r\n";
const NO_MEMORY: &[u8] = b"SERVER_ERROR out of memory\r\n";

/// What comes after a command line.
pub(super) enum Next {
    /// What its state says, behind the line.
    Line,
    /// Keys, from this byte of the line on.
    KeysAt(usize),
}

/// The tokens of a line.
pub(super) struct Tokens<'a> {
    line: &'a [u8],
    at: [(u16, u16); TOKENS_MAX],
    len: usize,
}

impl<'a> Tokens<'a> {
    /// Splits at spaces. What follows the last token that is wanted is not looked at.
    fn new(line: &'a [u8]) -> Tokens<'a> {
        let mut tokens = Tokens { line, at: [(0, 0); TOKENS_MAX], len: 0 };
        let mut start = 0;
        let done = find_low(line, |n, byte| {
            if byte != b' ' {
                return None;
            }
            let wanted = start == n || tokens.push(start, n);
            start = n + 1;
            (!wanted).then_some(())
        });
        if done.is_some() {
            return tokens;
        }
        if start != line.len() {
            tokens.push(start, line.len());
        }
        tokens
    }

    /// False when no further token is wanted.
    fn push(&mut self, start: usize, end: usize) -> bool {
        self.at[self.len] = (start as u16, end as u16);
        self.len += 1;
        self.len < TOKENS_MAX - 1
    }

    fn range(&self, n: usize) -> Range<usize> {
        let (start, end) = self.at[n];
        usize::from(start)..usize::from(end)
    }

    /// Token `n`, or nothing.
    pub(super) fn get(&self, n: usize) -> &'a [u8] {
        if n < self.len { &self.line[self.range(n)] } else { b"" }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn last(&self) -> &'a [u8] {
        self.get(self.len.saturating_sub(1))
    }
}

impl Conn {
    /// Runs a command line, given without its `\n`.
    pub(super) fn run_line(&mut self, worker: &mut Worker<'_>, line: &[u8]) -> Next {
        let mut text = line;
        if text.len() > 1
            && let Some(stripped) = text.strip_suffix(b"\r")
        {
            text = stripped;
        }
        // memcached's lines are C strings: a zero byte ends one.
        let text = &text[..find(text, 0).unwrap_or(text.len())];
        let tokens = Tokens::new(text);
        let count = tokens.len();
        let word = tokens.get(0);
        if word.len() < 2 {
            self.reply(worker, false, ERROR);
            return Next::Line;
        }
        let retrieves = match word {
            b"gat" | b"gats" | b"get" | b"gets" | b"bget" => count >= 2,
            _ => false,
        };
        if retrieves {
            return self.retrieve(worker, &tokens);
        }
        if let [b'm', _] = word {
            self.meta(worker, &tokens);
            return Next::Line;
        }
        match word {
            b"set" if matches!(count, 5 | 6) => self.upload(worker, &tokens, Update::Set),
            b"add" if matches!(count, 5 | 6) => self.upload(worker, &tokens, Update::Add),
            b"replace" if matches!(count, 5 | 6) => self.upload(worker, &tokens, Update::Replace),
            b"append" if matches!(count, 5 | 6) => self.upload(worker, &tokens, Update::Append),
            b"prepend" if matches!(count, 5 | 6) => self.upload(worker, &tokens, Update::Prepend),
            b"cas" if matches!(count, 6 | 7) => self.upload(worker, &tokens, Update::Cas(0)),
            b"incr" if matches!(count, 3 | 4) => self.arithmetic(worker, &tokens, true),
            b"decr" if matches!(count, 3 | 4) => self.arithmetic(worker, &tokens, false),
            b"touch" if matches!(count, 3 | 4) => self.touch(worker, &tokens),
            b"delete" if matches!(count, 2..=4) => self.delete(worker, &tokens),
            b"version" => {
                self.reply(worker, false, b"VERSION ");
                self.reply(worker, false, VERSION.as_bytes());
                self.reply(worker, false, b"\r\n");
            }
            b"stats" => self.stats(worker, &tokens),
            b"quit" => self.closing = true,
            _ if self.administer(worker, &tokens) => {}
            _ if looks_like_http(&tokens) => self.closing = true,
            _ => self.reply(worker, false, ERROR),
        }
        Next::Line
    }

    /// `gat`, `gats`, and retrievals that did not begin as they usually do.
    fn retrieve(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) -> Next {
        let word = tokens.get(0);
        let cas = word.ends_with(b"s");
        if word.starts_with(b"ga") {
            let Some(exptime) = parse_i32(tokens.get(1)) else {
                self.reply(worker, false, BAD_EXPTIME);
                return Next::Line;
            };
            let expires = worker.deadline(exptime);
            self.state = State::Keys(Keys::new(cas, Some(expires), &self.out));
            return Next::KeysAt(tokens.range(1).end);
        }
        self.state = State::Keys(Keys::new(cas, None, &self.out));
        Next::KeysAt(tokens.range(0).end)
    }

    /// The line of a storage command; its data block comes next.
    fn upload(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>, update: Update) {
        let noreply = tokens.last() == b"noreply";
        let key = tokens.get(1);
        if key.len() > KEY_BYTES_MAX {
            return self.reply(worker, noreply, BAD_FORMAT);
        }
        let flags = parse_u32(tokens.get(2));
        let exptime = parse_i32(tokens.get(3));
        let len = parse_i32(tokens.get(4));
        let (Some(flags), Some(exptime), Some(len)) = (flags, exptime, len) else {
            return self.reply(worker, noreply, BAD_FORMAT);
        };
        let mut update = update;
        if let Update::Cas(version) = &mut update {
            let Some(expected) = parse_u64(tokens.get(5)) else {
                return self.reply(worker, noreply, BAD_FORMAT);
            };
            *version = expected;
        }
        if !(0..=i32::MAX - 2).contains(&len) {
            return self.reply(worker, noreply, BAD_FORMAT);
        }
        let (len, store) = (len as usize, worker.store());
        let (hash, expires) = (store.hash(key), worker.deadline(exptime));
        if let Some(item) = store.allocate(hash, key, flags, expires, len, worker.now) {
            let (expected, terms) = (len + 2, update.into());
            let upload = Upload { item, terms, filled: 0, expected, noreply, meta: None };
            self.state = State::Value(upload);
            return;
        }
        let too_large = stock_item_bytes(key.len(), flags, len) > store.item_max();
        let counters = worker.counters;
        count(if too_large { &counters.store_too_large } else { &counters.store_no_memory }, 1);
        self.reply(worker, noreply, if too_large { TOO_LARGE } else { NO_MEMORY_TO_STORE });
        self.state = State::Swallow(len as u64 + 2);
        // A value that was to be replaced must not be found any more.
        if update == Update::Set {
            store.delete(hash, key, worker.now);
        }
    }

    fn arithmetic(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>, incr: bool) {
        let noreply = tokens.last() == b"noreply";
        let key = tokens.get(1);
        if key.len() > KEY_BYTES_MAX {
            return self.reply(worker, noreply, BAD_FORMAT);
        }
        let Some(delta) = parse_u64(tokens.get(2)) else {
            return self.reply(worker, noreply, BAD_DELTA);
        };
        let (store, counters) = (worker.store(), worker.counters);
        let result = store.arithmetic(
            store.hash(key),
            key,
            Delta { incr, by: delta, expected: 0 },
            worker.now,
            &mut |_, _| {},
        );
        match result {
            Arithmetic::Value(value) => {
                count(if incr { &counters.incr_hits } else { &counters.decr_hits }, 1);
                let mut line = [0; 22];
                let len = write_u64(&mut line, value);
                line[len..len + 2].copy_from_slice(b"\r\n");
                self.reply(worker, noreply, &line[..len + 2]);
            }
            Arithmetic::NotFound => {
                count(if incr { &counters.incr_misses } else { &counters.decr_misses }, 1);
                self.reply(worker, noreply, b"NOT_FOUND\r\n");
            }
            Arithmetic::NotNumeric => self.reply(worker, noreply, NOT_NUMERIC),
            Arithmetic::Exists => {}
            Arithmetic::NoMemory => self.reply(worker, noreply, NO_MEMORY),
        }
    }

    fn touch(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        let noreply = tokens.last() == b"noreply";
        let key = tokens.get(1);
        if key.len() > KEY_BYTES_MAX {
            return self.reply(worker, noreply, BAD_FORMAT);
        }
        let Some(exptime) = parse_i32(tokens.get(2)) else {
            return self.reply(worker, noreply, BAD_EXPTIME);
        };
        let (store, counters) = (worker.store(), worker.counters);
        let expires = worker.deadline(exptime);
        let found = store.get(store.hash(key), key, worker.now, |item| item.touch(expires));
        count(&counters.cmd_touch, 1);
        match found {
            Ok(()) => {
                count(&counters.touch_hits, 1);
                self.reply(worker, noreply, b"TOUCHED\r\n");
            }
            Err(miss) => {
                worker.count_miss(miss);
                count(&counters.touch_misses, 1);
                self.reply(worker, noreply, b"NOT_FOUND\r\n");
            }
        }
    }

    /// `delete <key> [0] [noreply]`: the 0 is from days when a delay could be given.
    fn delete(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        let mut noreply = false;
        if tokens.len() > 2 {
            let zero = tokens.get(2) == b"0";
            noreply = tokens.last() == b"noreply";
            let valid = if tokens.len() == 3 { zero || noreply } else { zero && noreply };
            if !valid {
                return self.reply(worker, noreply, BAD_DELETE);
            }
        }
        let key = tokens.get(1);
        if key.len() > KEY_BYTES_MAX {
            return self.reply(worker, noreply, BAD_FORMAT);
        }
        let (store, counters) = (worker.store(), worker.counters);
        if store.delete(store.hash(key), key, worker.now) {
            count(&counters.delete_hits, 1);
            self.reply(worker, noreply, b"DELETED\r\n");
        } else {
            count(&counters.delete_misses, 1);
            self.reply(worker, noreply, b"NOT_FOUND\r\n");
        }
    }
}

/// A web browser: memcached hangs up on it, unless its first letter is one that it looks at.
fn looks_like_http(tokens: &Tokens<'_>) -> bool {
    let looked_at = matches!(tokens.get(0)[0], b'g' | b's' | b'a' | b'c' | b'i' | b'd' | b't');
    // These are refused for the number of their words first.
    let refused = matches!(tokens.get(0), b"replace" | b"prepend" | b"bget");
    !looked_at && !refused && tokens.last().starts_with(b"HTTP/")
}
