//! `ms`, `md` and `ma`.
use super::super::command::{NO_MEMORY_TO_STORE, NOT_NUMERIC, TOO_LARGE, Tokens};
use super::super::{Conn, State, Upload};
use super::{BAD_FLAG, BAD_LINE, Flags, Line, OPAQUE_TOO_LONG, TOO_MANY_FLAGS};
use crate::limits::{KEY_BYTES_MAX, META_OPAQUE_MAX, UPDATE_ROUNDS};
use crate::num::{parse_i32, write_u64};
use crate::store::{
    Arithmetic, Delta, NewItem, Removed, Stored, Terms, Update, View, stock_item_bytes,
};
use crate::worker::{Worker, count};

/// What the answer to an `ms` repeats, and in which order, until its data block is there.
#[derive(Clone, Copy, Debug, Default)]
pub(in super::super) struct MetaSet {
    /// `O`, `k` and `c`.
    order: [u8; 3],
    opaque: [u8; META_OPAQUE_MAX],
    opaque_len: u8,
}

impl MetaSet {
    fn new(tokens: &Tokens<'_>) -> Result<MetaSet, &'static [u8]> {
        let mut set = MetaSet::default();
        let mut len = 0;
        let mut result = Ok(());
        for n in 3..tokens.len() {
            let token = tokens.get(n);
            match token[0] {
                b'O' if token.len() > META_OPAQUE_MAX => {
                    result = Err(OPAQUE_TOO_LONG);
                    continue;
                }
                b'O' => {
                    set.opaque[..token.len()].copy_from_slice(token);
                    set.opaque_len = token.len() as u8;
                }
                b'k' | b'c' => {}
                _ => continue,
            }
            set.order[len] = token[0];
            len += 1;
        }
        result.map(|()| set)
    }
}

/// What an `ms` with these flags does.
fn terms(flags: &Flags) -> Option<Terms> {
    let update = match flags.mode {
        0 | b'S' => Update::Set,
        b'E' => Update::Add,
        b'A' => Update::Append,
        b'P' => Update::Prepend,
        b'R' => Update::Replace,
        _ => return None,
    };
    Some(match (update, flags.expected) {
        (Update::Set | Update::Replace, Some(version)) => {
            Terms { update: Update::Cas(version), expected: 0, stale: flags.invalidate }
        }
        (_, expected) => Terms { update, expected: expected.unwrap_or(0), stale: false },
    })
}

impl Conn {
    pub(super) fn meta_set(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        if !self.meta_checked(worker, tokens, TOO_MANY_FLAGS) {
            return;
        }
        let len = parse_i32(tokens.get(2)).filter(|len| (0..=i32::MAX - 2).contains(len));
        let Some(len) = len else { return self.reply(worker, false, BAD_LINE) };
        if let Err(problem) = self.start_meta_set(worker, tokens, len as usize) {
            self.reply(worker, false, problem);
            self.state = State::Swallow(len as u64 + 2);
        }
    }

    /// The data block comes next; if there is a problem, it is to be thrown away.
    fn start_meta_set(
        &mut self,
        worker: &mut Worker<'_>,
        tokens: &Tokens<'_>,
        len: usize,
    ) -> Result<(), &'static [u8]> {
        let mut key = [0; _];
        let flags = Flags::parse(tokens, 3, worker, &mut key)?;
        let key = &key[..flags.key_len];
        let set = MetaSet::new(tokens);
        let wrong_mode = &b"CLIENT_ERROR invalid mode for ms M token\r\n"[..];
        let terms = terms(&flags).ok_or(wrong_mode)?;
        let set = set?;

        let (store, now) = (worker.store(), worker.now);
        let hash = store.hash(key);
        let expires = flags.ttl.unwrap_or(0);
        let Some(mut item) = store.allocate(hash, key, flags.client_flags, expires, len, now)
        else {
            // A value that was to be replaced must not be found any more.
            store.delete(hash, key, now);
            let too_large = stock_item_bytes(key.len(), flags.client_flags, len) > store.item_max();
            let counters = worker.counters;
            count(if too_large { &counters.store_too_large } else { &counters.store_no_memory }, 1);
            return Err(if too_large { TOO_LARGE } else { NO_MEMORY_TO_STORE });
        };
        if flags.binary_key {
            store.mark_binary_key(&mut item);
        }
        let (expected, noreply, meta) = (len + 2, flags.quiet, Some(set));
        self.state = State::Value(Upload { item, terms, filled: 0, expected, noreply, meta });
        Ok(())
    }

    /// The data block of an `ms` is there: stores and answers.
    pub(in super::super) fn finish_meta_set(
        &mut self,
        worker: &mut Worker<'_>,
        upload: (NewItem, Terms, MetaSet, bool),
    ) -> Stored {
        let (item, terms, set, quiet) = upload;
        let store = worker.store();
        let mut key = [0; KEY_BYTES_MAX];
        let (shown, binary) = store.key(&item);
        let key_len = shown.len();
        key[..key_len].copy_from_slice(shown);
        let (stored, version) = store.store_on(item, terms, worker.now);

        let mut line = Line::new();
        line.push(match stored {
            Stored::Stored => b"HD",
            Stored::Exists => b"EX",
            Stored::NotFound => b"NF",
            Stored::NotStored => b"NS",
        });
        for letter in set.order {
            match letter {
                b'O' => {
                    line.push(b" ");
                    line.push(&set.opaque[..usize::from(set.opaque_len)]);
                }
                b'k' => line.key(&key[..key_len], binary),
                b'c' => line.flag(b'c', version),
                _ => {}
            }
        }
        line.push(b"\r\n");
        self.reply(worker, quiet && stored == Stored::Stored, line.bytes());
        stored
    }

    pub(super) fn meta_delete(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        if !self.meta_checked(worker, tokens, TOO_MANY_FLAGS) {
            return;
        }
        let mut key = [0; _];
        let Ok(flags) = Flags::parse(tokens, 2, worker, &mut key) else {
            return self.reply(worker, false, BAD_FLAG);
        };
        let key = &key[..flags.key_len];
        let mut line = Line::new();
        line.push(b"..");
        if let Err(problem) = line.echo(tokens, key, flags.binary_key) {
            return self.reply(worker, false, problem);
        }
        line.push(b"\r\n");
        let (store, counters) = (worker.store(), worker.counters);
        let invalidate = flags.invalidate.then_some(flags.ttl);
        let removed = store.remove(store.hash(key), key, flags.expected, invalidate, worker.now);
        let (code, counter) = match removed {
            Removed::Deleted => (b"HD", Some(&counters.delete_hits)),
            Removed::Invalidated => (b"HD", None),
            Removed::Exists => (b"EX", Some(&counters.delete_misses)),
            Removed::NotFound => (b"NF", Some(&counters.delete_misses)),
        };
        if let Some(counter) = counter {
            count(counter, 1);
        }
        line.bytes[..2].copy_from_slice(code);
        self.reply(worker, flags.quiet && code == b"HD", line.bytes());
    }

    pub(super) fn meta_arithmetic(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        if !self.meta_checked(worker, tokens, TOO_MANY_FLAGS) {
            return;
        }
        let mut key = [0; _];
        let Ok(flags) = Flags::parse(tokens, 2, worker, &mut key) else {
            return self.reply(worker, false, BAD_FLAG);
        };
        let incr = match flags.mode {
            0 | b'I' | b'+' => true,
            b'D' | b'-' => false,
            _ => return self.reply(worker, false, b"CLIENT_ERROR invalid mode for ma M token\r\n"),
        };
        let key = &key[..flags.key_len];
        let mut line = Line::new();
        match calculate(worker, tokens, &flags, key, incr, &mut line) {
            Ok(quiet) => {
                line.push(b"\r\n");
                self.reply(worker, quiet, line.bytes());
            }
            Err(problem) => self.reply(worker, false, problem),
        }
    }
}

/// Does an `ma`: whether the answer in `line` is left out, or the problem.
fn calculate(
    worker: &Worker<'_>,
    tokens: &Tokens<'_>,
    flags: &Flags,
    key: &[u8],
    incr: bool,
    line: &mut Line,
) -> Result<bool, &'static [u8]> {
    let (store, counters, now) = (worker.store(), worker.counters, worker.now);
    let hash = store.hash(key);
    let delta = Delta { incr, by: flags.delta, expected: flags.expected.unwrap_or(0) };
    for _ in 0..UPDATE_ROUNDS {
        let mut shown = Ok(());
        let result = store.arithmetic(hash, key, delta, now, &mut |item, value| {
            shown = show_number(item, value, tokens, flags, key, now, false, line);
        });
        match result {
            Arithmetic::Value(_) => {
                count(if incr { &counters.incr_hits } else { &counters.decr_hits }, 1);
                return shown.map(|()| flags.quiet);
            }
            Arithmetic::NotNumeric => return Err(NOT_NUMERIC),
            Arithmetic::NoMemory => return Err(b"SERVER_ERROR out of memory\r\n"),
            Arithmetic::Exists => {
                line.push(b"EX");
                return line.echo(tokens, key, flags.binary_key).map(|()| false);
            }
            Arithmetic::NotFound if flags.vivify.is_none() => {
                count(if incr { &counters.incr_misses } else { &counters.decr_misses }, 1);
                line.push(b"NF");
                return line.echo(tokens, key, flags.binary_key).map(|()| false);
            }
            Arithmetic::NotFound => {}
        }
        let mut digits = [0; 20];
        let len = write_u64(&mut digits, flags.initial);
        let Some(mut item) = store.allocate(hash, key, 0, 0, len, now) else {
            return Err(b"SERVER_ERROR Out of memory allocating new item\r\n");
        };
        store.fill(&mut item, 0, &digits[..len]);
        store.fill(&mut item, len, b"\r\n");
        let inserted = store.insert(item, now, |item| {
            show_number(item, flags.initial, tokens, flags, key, now, true, line)
        });
        match inserted {
            // That it is quiet does not count here.
            Ok(shown) => return shown.map(|()| false),
            Err(item) => store.discard(item),
        }
    }
    Err(b"SERVER_ERROR out of memory\r\n")
}

#[allow(clippy::too_many_arguments, reason = "what an answer is made of")]
fn show_number(
    item: &View<'_>,
    value: u64,
    tokens: &Tokens<'_>,
    flags: &Flags,
    key: &[u8],
    now: u32,
    created: bool,
    line: &mut Line,
) -> Result<(), &'static [u8]> {
    let mut digits = [0; 20];
    let len = write_u64(&mut digits, value);
    if flags.value {
        line.push(b"VA ");
        line.number(len as u64);
    } else {
        line.push(b"HD");
    }
    for n in 2..tokens.len() {
        match tokens.get(n)[0] {
            b'c' => line.flag(b'c', item.cas()),
            b't' => line.ttl(item.expires(), now),
            b'T' => item.touch(flags.ttl.unwrap_or(0)),
            b'N' if created => item.touch(flags.vivify.unwrap_or(0)),
            b'O' => line.opaque(tokens.get(n))?,
            b'k' => line.key(key, flags.binary_key),
            _ => {}
        }
    }
    if flags.value {
        line.push(b"\r\n");
        line.push(&digits[..len]);
    }
    Ok(())
}
