//! The keys of `get`, `gets`, `gat` and `gats`, looked up one after the other.
use super::{Conn, State};
use crate::limits::{COPY_BYTES_MAX, KEY_BYTES_MAX, LINE_BYTES_MAX};
use crate::out::{ChunkPool, Mark, Out};
use crate::scan::{find, find_low};
use crate::store::View;
use crate::worker::{Worker, count};

/// A retrieval command whose keys are being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keys {
    /// With version numbers.
    cas: bool,
    /// New expiry of what is found: `gat` and `gats`.
    touch: Option<u32>,
    /// At least one key has been seen, or none is needed.
    any: bool,
    /// Where this command's reply begins.
    mark: Mark,
}

/// How a token ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// More may follow.
    Space,
    /// The line is over.
    Line,
    /// A zero byte: the rest of the line does not count.
    Zero,
}

impl Keys {
    pub(super) fn new(cas: bool, touch: Option<u32>, out: &Out) -> Keys {
        Keys { cas, touch, any: touch.is_some(), mark: out.mark() }
    }
}

/// Whether the line that `data` begins with ends in it, or is too long to be kept.
#[inline]
pub(super) fn is_whole_or_long(data: &[u8]) -> bool {
    data.len() > LINE_BYTES_MAX || find(data, b'\n').is_some()
}

/// The first token of `bytes`, if its end is there: length and kind of end.
#[inline]
fn token(bytes: &[u8]) -> Option<(usize, End)> {
    find_low(bytes, |at, byte| Some((at, end_of(byte)?)))
}

/// Whether this byte ends a token. Other control characters may be part of a key.
#[inline]
fn end_of(byte: u8) -> Option<End> {
    match byte {
        b' ' => Some(End::Space),
        b'\n' => Some(End::Line),
        0 => Some(End::Zero),
        _ => None,
    }
}

/// Answers with an item's bytes from `from` to `to`: copied if they are few.
#[inline(always)]
pub(super) fn send_part(
    out: &mut Out,
    pool: &mut ChunkPool,
    item: &View<'_>,
    from: usize,
    to: usize,
) {
    let len = to - from;
    if len <= COPY_BYTES_MAX {
        out.text(pool, item.whole(from, len));
    } else {
        item.pieces(from, len, |at, len| out.item(item.share(), at, len));
    }
}

impl Conn {
    /// The usual request, all of `get <key>\r\n` at the start of `data`: answers it.
    #[inline]
    pub(super) fn get_one(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> Option<usize> {
        let rest = data.strip_prefix(b"get ")?;
        let (len, End::Line) = token(rest)? else { return None };
        let key = rest[..len].strip_suffix(b"\r").unwrap_or(&rest[..len]);
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return None;
        }
        if !self.look_up(worker, Keys::new(false, None, &self.out), key, true) {
            self.out.text(&mut worker.pool, b"END\r\n");
        }
        Some(4 + len + 1)
    }

    /// Reads keys from what was buffered of the line, then from `data`.
    pub(super) fn on_keys(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> usize {
        let State::Keys(keys) = self.state else { return 0 };
        if self.line.is_empty() {
            return self.run_keys(worker, keys, data);
        }
        let mut line = core::mem::take(&mut self.line);
        if self.line_used < line.len() {
            let used = self.line_used;
            self.line_used = 0;
            let used = used + self.run_keys(worker, keys, &line[used..]);
            if used == line.len() {
                // `run_keys` may have kept a cut key in `self.line`.
                line.clear();
                if self.line.is_empty() {
                    self.line = line;
                } else {
                    self.line_used = self.line.len();
                }
            } else {
                self.line = line;
                self.line_used = used;
            }
            return 0;
        }
        // A cut key: its end is in `data`.
        let Some((len, end)) = token(data) else {
            let room = (KEY_BYTES_MAX + 2).saturating_sub(line.len());
            line.extend_from_slice(&data[..data.len().min(room)]);
            self.line_used = line.len();
            self.line = line;
            return data.len();
        };
        let room = (KEY_BYTES_MAX + 2).saturating_sub(line.len());
        line.extend_from_slice(&data[..len.min(room)]);
        self.on_key(worker, keys, &line, end);
        line.clear();
        self.line = line;
        self.line_used = 0;
        len + 1
    }

    #[inline]
    fn run_keys(&mut self, worker: &mut Worker<'_>, keys: Keys, data: &[u8]) -> usize {
        let mut at = 0;
        let mut keys = keys;
        loop {
            let rest = &data[at..];
            let Some((len, end)) = token(rest) else {
                let skip = rest.iter().position(|&b| b != b' ').unwrap_or(rest.len());
                let cut = &rest[skip..];
                // One byte more than a key and its `\r` is enough to know that it is too long.
                self.line.extend_from_slice(&cut[..cut.len().min(KEY_BYTES_MAX + 2)]);
                self.line_used = self.line.len();
                return data.len();
            };
            at += len + 1;
            if !self.on_key(worker, keys, &rest[..len], end) {
                return at;
            }
            let State::Keys(now) = self.state else { return at };
            keys = now;
            if self.out.is_full() {
                return at;
            }
        }
    }

    /// One token of the line; false if the line is done with.
    #[inline]
    fn on_key(&mut self, worker: &mut Worker<'_>, keys: Keys, token: &[u8], end: End) -> bool {
        let key = match end {
            End::Line => token.strip_suffix(b"\r").unwrap_or(token),
            End::Space | End::Zero => token,
        };
        let (mut any, mut ended) = (keys.any, false);
        if key.len() > KEY_BYTES_MAX {
            // memcached drops what it has found for this command so far.
            self.out.rewind(worker.store(), keys.mark);
            self.out.text(&mut worker.pool, b"CLIENT_ERROR bad command line format\r\n");
            self.state = if end == End::Line { State::Line } else { State::Skip };
            return false;
        }
        if !key.is_empty() {
            any = true;
            ended = self.look_up(worker, keys, key, end != End::Space);
        }
        if end == End::Space {
            if !keys.any {
                self.state = State::Keys(Keys { any, ..keys });
            }
            return true;
        }
        if !ended {
            let answer: &[u8] = if any { b"END\r\n" } else { b"ERROR\r\n" };
            self.out.text(&mut worker.pool, answer);
        }
        self.state = if end == End::Line { State::Line } else { State::Skip };
        false
    }

    /// Answers with what is stored under the key, if anything; if it is the `last`, with the last line, which is stored
    /// behind it. Whether that was said.
    #[inline]
    fn look_up(&mut self, worker: &mut Worker<'_>, keys: Keys, key: &[u8], last: bool) -> bool {
        let store = worker.store();
        let counters = worker.counters;
        let hash = store.hash(key);
        let found = store.get(hash, key, worker.now, |item| {
            if let Some(expires) = keys.touch {
                item.touch(expires);
            }
            let mut from = 0;
            if keys.cas {
                let mut line = [0; 320];
                self.out.text(&mut worker.pool, item.line_with_cas(&mut line));
                from = item.value_at();
            }
            let to = if last { item.len_to_end() } else { item.total_len() };
            send_part(&mut self.out, &mut worker.pool, item, from, to);
        });
        let touch = keys.touch.is_some();
        count(if touch { &counters.cmd_touch } else { &counters.cmd_get }, 1);
        match found {
            Ok(()) => {
                count(&counters.get_hits, 1);
                if touch {
                    count(&counters.touch_hits, 1);
                }
            }
            Err(miss) => {
                worker.count_miss(miss);
                count(if touch { &counters.touch_misses } else { &counters.get_misses }, 1);
            }
        }
        last && found.is_ok()
    }
}
