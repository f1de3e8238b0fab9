//! `mg` and `me`.
use super::super::Conn;
use super::super::command::Tokens;
use super::super::keys::send_part;
use super::{BAD_LINE, Flags, Line};
use crate::base64;
use crate::limits::{KEY_BYTES_MAX, UPDATE_ROUNDS};
use crate::out::{ChunkPool, Out};
use crate::store::{Miss, View};
use crate::worker::{Worker, count};

/// A hit of `mg`, as far as it does not depend on the item.
struct Hit<'a> {
    flags: &'a Flags,
    tokens: &'a Tokens<'a>,
    now: u32,
    out: &'a mut Out,
    pool: &'a mut ChunkPool,
}

impl Hit<'_> {
    /// Answers, in the order of the flags; what they change, they change in that order, too.
    fn show(&mut self, item: &View<'_>, created: bool) -> Result<(), &'static [u8]> {
        let flags = self.flags;
        if !flags.before_use && !flags.no_update {
            item.bump(self.now);
        }
        let mut line = Line::new();
        if flags.value {
            line.push(b"VA ");
            line.number(item.value_len() as u64);
        } else {
            line.push(b"HD");
        }
        let mut won = self.run_flags(&mut line, item, created)?;
        if item.token_sent() {
            line.push(b" Z");
        }
        if item.is_stale() {
            line.push(b" X");
            won |= !item.token_sent();
        }
        if won {
            line.push(b" W");
            item.send_token();
        }
        line.push(b"\r\n");
        self.out.text(self.pool, line.bytes());
        if flags.value {
            send_part(self.out, self.pool, item, item.value_at(), item.total_len());
        }
        if flags.before_use && !flags.no_update {
            item.bump(self.now);
        }
        Ok(())
    }

    /// Whether the client is to fetch the value anew.
    fn run_flags(
        &self,
        line: &mut Line,
        item: &View<'_>,
        created: bool,
    ) -> Result<bool, &'static [u8]> {
        let (flags, tokens) = (self.flags, self.tokens);
        let mut won = false;
        for n in 2..tokens.len() {
            match tokens.get(n)[0] {
                b'T' => item.touch(flags.ttl.unwrap_or(0)),
                b'N' if created => {
                    item.touch(flags.vivify.unwrap_or(0));
                    won = true;
                }
                b'R' => {
                    let expires = item.expires();
                    let soon = expires != 0 && expires < flags.recache;
                    won |= soon && !created && !item.token_sent();
                }
                b's' => line.flag(b's', item.value_len() as u64),
                b't' => line.ttl(item.expires(), self.now),
                b'c' => line.flag(b'c', item.cas()),
                b'f' => line.flag(b'f', u64::from(item.flags())),
                b'l' => line.flag(b'l', u64::from(self.now.wrapping_sub(item.time()))),
                b'h' => line.flag(b'h', u64::from(item.fetched())),
                b'O' => line.opaque(tokens.get(n))?,
                b'k' => line.key(item.key(), item.has_binary_key()),
                _ => {}
            }
        }
        Ok(won)
    }
}

impl Conn {
    pub(super) fn meta_get(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        const TOO_MANY: &[u8] = b"CLIENT_ERROR options flags are too long\r\n";
        if !self.meta_checked(worker, tokens, TOO_MANY) {
            return;
        }
        let mut key = [0; _];
        let flags = match Flags::parse(tokens, 2, worker, &mut key) {
            Ok(flags) => flags,
            Err(problem) => return self.reply(worker, false, problem),
        };
        let key = &key[..flags.key_len];
        match self.find_or_vivify(worker, tokens, &flags, key) {
            Ok(Ok(())) => count_hit(worker, flags.ttl.is_some()),
            Ok(Err(problem)) => self.reply(worker, false, problem),
            Err(miss) => {
                worker.count_miss(miss);
                count(&worker.counters.cmd_get, 1);
                count(&worker.counters.get_misses, 1);
                let mut line = Line::new();
                line.push(b"EN");
                match line.echo(tokens, key, flags.binary_key) {
                    Ok(()) => {
                        line.push(b"\r\n");
                        self.reply(worker, flags.quiet, line.bytes());
                    }
                    Err(problem) => self.reply(worker, false, problem),
                }
            }
        }
    }

    /// Answers a hit, if need be of an empty item made for it.
    fn find_or_vivify(
        &mut self,
        worker: &mut Worker<'_>,
        tokens: &Tokens<'_>,
        flags: &Flags,
        key: &[u8],
    ) -> Result<Result<(), &'static [u8]>, Miss> {
        let (store, now) = (worker.store(), worker.now);
        let hash = store.hash(key);
        let (out, pool) = (&mut self.out, &mut worker.pool);
        let mut hit = Hit { flags, tokens, now, out, pool };
        let mut first_miss = None;
        for _ in 0..UPDATE_ROUNDS {
            let miss = match store.peek(hash, key, now, |item| hit.show(item, false)) {
                Ok(shown) => return Ok(shown),
                Err(miss) => *first_miss.get_or_insert(miss),
            };
            if flags.vivify.is_none() {
                return Err(miss);
            }
            let Some(mut item) = store.allocate(hash, key, 0, 0, 0, now) else { return Err(miss) };
            store.fill(&mut item, 0, b"\r\n");
            match store.insert(item, now, |item| hit.show(item, true)) {
                Ok(shown) => return Ok(shown),
                // Somebody was faster: there should be one now.
                Err(item) => store.discard(item),
            }
        }
        Err(Miss::Absent)
    }

    /// `me`: what is known of an item, for people.
    pub(super) fn meta_debug(&mut self, worker: &mut Worker<'_>, tokens: &Tokens<'_>) {
        let given = tokens.get(1);
        if tokens.len() < 2 || given.len() > KEY_BYTES_MAX {
            return self.reply(worker, false, BAD_LINE);
        }
        let mut decoded: [u8; base64::ENCODED_MAX] = [0; _];
        let mut key = given;
        if tokens.get(2) == b"b" {
            let Some(len) = base64::decode(given, &mut decoded) else {
                return self.reply(worker, false, BAD_LINE);
            };
            key = &decoded[..len];
        }
        let (store, now) = (worker.store(), worker.now);
        let mut line = Line::new();
        let found = store.peek(store.hash(key), key, now, |item| {
            line.push(b"ME ");
            if item.has_binary_key() {
                line.base64(item.key());
            } else {
                line.push(item.key());
            }
            line.push(b" exp=");
            match item.expires() {
                0 => line.push(b"-1"),
                expires => {
                    // memcached's sign: what is to come is negative.
                    let passed = i64::from(now) - i64::from(expires);
                    line.push(if passed < 0 { b"-" } else { b"" });
                    line.number(passed.unsigned_abs());
                }
            }
            line.push(b" la=");
            line.number(u64::from(now.wrapping_sub(item.time())));
            line.push(b" cas=");
            line.number(item.cas());
            line.push(if item.fetched() { b" fetch=yes cls=" } else { b" fetch=no cls=" });
            line.number(item.class() as u64);
            line.push(b" size=");
            line.number(item.stock_bytes() as u64);
            line.push(b"\r\n");
        });
        count(&worker.counters.cmd_meta, 1);
        if let Err(miss) = found {
            worker.count_miss(miss);
            line.push(b"EN\r\n");
        }
        self.reply(worker, false, line.bytes());
    }
}

fn count_hit(worker: &Worker<'_>, touch: bool) {
    let counters = worker.counters;
    if touch {
        count(&counters.cmd_touch, 1);
        count(&counters.touch_hits, 1);
    } else {
        count(&counters.cmd_get, 1);
    }
    count(&counters.get_hits, 1);
}
