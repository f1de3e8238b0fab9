//! One client: a parser fed with received bytes, and the replies that wait to be sent.
//!
//! [`Conn::on_data`] may be given a stream cut anywhere. A command line that lies whole in what is
//! given is parsed in place; only one that is cut is put together in a buffer. The keys of a `get`
//! that is longer than any other line may be are looked up as they come, so that a request with any
//! number of them is bounded in memory. A data block goes straight into its item.
mod admin;
mod command;
mod keys;
mod meta;
mod stats;
mod udp;

use crate::clients::Client;
use crate::limits::{LEADING_SPACES_MAX, LINE_BYTES_MAX};
use crate::out::Out;
use crate::scan::find;
use crate::store::{NewItem, Stored, Terms, Update};
use crate::worker::{Worker, count};
use alloc::sync::Arc;
use alloc::vec::Vec;
use command::Next;
use keys::Keys;
use libix::SocketAddress;
use meta::MetaSet;

pub use udp::on_datagram;

/// What the next received byte belongs to.
#[derive(Debug, Default)]
enum State {
    /// A command line.
    #[default]
    Line,
    /// The keys of a retrieval command.
    Keys(Keys),
    /// The rest of a line that has been answered.
    Skip,
    /// A data block.
    Value(Upload),
    /// A data block that is thrown away: how much of it is left.
    Swallow(u64),
}

/// A data block on its way into its item.
#[derive(Debug)]
struct Upload {
    item: NewItem,
    terms: Terms,
    /// Bytes received, and expected with the line end.
    filled: usize,
    expected: usize,
    noreply: bool,
    /// If it came with `ms`.
    meta: Option<MetaSet>,
}

/// One client.
#[derive(Debug, Default)]
pub struct Conn {
    state: State,
    /// A line, or a key, of which the end has not come yet.
    line: Vec<u8>,
    /// How much of `line` has been used.
    line_used: usize,
    /// To be closed when the replies are out; what comes in is ignored.
    closing: bool,
    /// The last `on_data` stopped because too much waits to be sent.
    stalled: bool,
    /// Who it is, if that is known.
    client: Option<Arc<Client>>,
    /// The replies.
    pub out: Out,
}

impl Conn {
    /// A new client.
    pub fn new(worker: &Worker<'_>) -> Conn {
        count(&worker.counters.opened, 1);
        Conn::default()
    }

    /// A new client from `remote`.
    pub fn of(worker: &Worker<'_>, remote: SocketAddress) -> Conn {
        let client = worker.shared.clients.join(worker.index, remote, worker.now);
        Conn { client: Some(client), ..Conn::new(worker) }
    }

    /// Something has come from it.
    #[inline]
    pub fn note(&self, now: u32) {
        if let Some(client) = &self.client {
            client.note(now);
        }
    }

    /// For how many seconds nothing has come from it.
    pub fn idle(&self, now: u32) -> Option<u32> {
        self.client.as_ref().map(|client| client.idle(now))
    }

    /// A client too many: told so, and closed.
    pub fn new_refused(worker: &mut Worker<'_>) -> Conn {
        let mut conn = Conn::new(worker);
        count(&worker.counters.rejected, 1);
        conn.out.text(&mut worker.pool, b"ERROR Too many open connections\r\n");
        conn.closing = true;
        conn
    }

    /// Takes received bytes: how many of them are done with. If not all, too much waits to be sent;
    /// give the rest (or nothing, see [`Conn::is_stalled`]) again when some has been.
    pub fn on_data(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> usize {
        let mut at = 0;
        self.stalled = false;
        while !self.closing {
            if self.out.is_full() {
                self.stalled = true;
                count(&worker.counters.conn_yields, 1);
                break;
            }
            let rest = &data[at..];
            if rest.is_empty() && self.line_used == self.line.len() {
                break;
            }
            let before = (at, self.line_used);
            at += self.step(worker, rest);
            if rest.is_empty() && (at, self.line_used) == before {
                break;
            }
        }
        if self.closing {
            at = data.len();
        }
        count(&worker.counters.bytes_read, at as u64);
        at
    }

    /// One state's work on the bytes at hand: how many are used.
    #[inline]
    fn step(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> usize {
        match &self.state {
            State::Line => self.on_line(worker, data),
            State::Keys(_) => self.on_keys(worker, data),
            State::Value(_) => self.on_value(worker, data),
            State::Skip => self.on_skip(data),
            State::Swallow(left) => {
                let used = (data.len() as u64).min(*left);
                let left = left - used;
                self.state = if left == 0 { State::Line } else { State::Swallow(left) };
                used as usize
            }
        }
    }

    /// Throws the rest of a line away.
    fn on_skip(&mut self, data: &[u8]) -> usize {
        if self.line_used < self.line.len() {
            let whole = self.line[self.line_used..].contains(&b'\n');
            self.line.clear();
            self.line_used = 0;
            if whole {
                self.state = State::Line;
                return 0;
            }
        }
        let Some(end) = find(data, b'\n') else { return data.len() };
        self.state = State::Line;
        end + 1
    }

    /// Whether input waits for output; then call [`Conn::on_data`] after bytes have been sent, even
    /// if no unused bytes are at hand.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// Whether the connection is to be closed when the replies are out.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    /// The connection is gone: gives back all it held.
    pub fn close(&mut self, worker: &mut Worker<'_>) {
        self.release(worker);
        if let Some(client) = self.client.take() {
            worker.shared.clients.leave(&client);
        }
        count(&worker.counters.closed, 1);
    }

    fn release(&mut self, worker: &mut Worker<'_>) {
        if let State::Value(upload) = core::mem::take(&mut self.state) {
            worker.store().discard(upload.item);
        }
        self.out.clear(worker.store(), &mut worker.pool);
    }

    #[inline]
    fn on_line(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> usize {
        if self.line.is_empty() {
            if let Some(used) = self.get_one(worker, data) {
                return used;
            }
            // A line that is not whole is kept, unless it is too long for that: if one of its
            // keys turns out to be too long, nothing of its reply must have been sent.
            if keys::is_whole_or_long(data)
                && let Some(used) = self.start_get(data)
            {
                return used;
            }
            let Some(end) = find(data, b'\n') else {
                return self.buffer_line(data);
            };
            if end > LINE_BYTES_MAX {
                self.closing = true;
                return 0;
            }
            return match self.run_line(worker, &data[..end]) {
                Next::Line => end + 1,
                Next::KeysAt(at) => at,
            };
        }
        let Some(end) = find(data, b'\n') else {
            return self.buffer_line(data);
        };
        if self.line.len() + end > LINE_BYTES_MAX {
            return self.buffer_line(data);
        }
        let mut line = core::mem::take(&mut self.line);
        line.extend_from_slice(&data[..end]);
        let next = match self.start_get(&line) {
            Some(used) => Next::KeysAt(used),
            None => self.run_line(worker, &line),
        };
        match next {
            Next::Line => line.clear(),
            Next::KeysAt(at) => {
                line.push(b'\n');
                self.line_used = at;
            }
        }
        self.line = line;
        end + 1
    }

    /// Keeps the beginning of a line. Longer than a line may be, it must be a `get`.
    fn buffer_line(&mut self, data: &[u8]) -> usize {
        let used = data.len().min(LINE_BYTES_MAX + 1 - self.line.len());
        self.line.extend_from_slice(&data[..used]);
        if self.line.len() > LINE_BYTES_MAX {
            let line = core::mem::take(&mut self.line);
            match self.start_get(&line) {
                Some(at) => self.line_used = at,
                None => self.closing = true,
            }
            self.line = line;
        }
        used
    }

    /// If `line` begins with `get ` or `gets `, its keys come next: where they begin.
    #[inline]
    fn start_get(&mut self, line: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at <= LEADING_SPACES_MAX && line.get(at) == Some(&b' ') {
            at += 1;
        }
        if at > LEADING_SPACES_MAX {
            return None;
        }
        let word = &line[at..];
        let (cas, len) = if word.starts_with(b"get ") {
            (false, 4)
        } else if word.starts_with(b"gets ") {
            (true, 5)
        } else {
            return None;
        };
        self.state = State::Keys(Keys::new(cas, None, &self.out));
        Some(at + len)
    }

    fn on_value(&mut self, worker: &mut Worker<'_>, data: &[u8]) -> usize {
        let State::Value(upload) = &mut self.state else { return 0 };
        let used = data.len().min(upload.expected - upload.filled);
        worker.store().fill(&mut upload.item, upload.filled, &data[..used]);
        upload.filled += used;
        if upload.filled == upload.expected
            && let State::Value(upload) = core::mem::take(&mut self.state)
        {
            self.finish_value(worker, upload);
        }
        used
    }

    fn finish_value(&mut self, worker: &mut Worker<'_>, upload: Upload) {
        let counters = worker.counters;
        count(&counters.cmd_set, 1);
        let store = worker.store();
        if !store.is_terminated(&upload.item) {
            store.discard(upload.item);
            // A quiet `ms` is loud about errors.
            let noreply = upload.noreply && upload.meta.is_none();
            self.reply(worker, noreply, b"CLIENT_ERROR bad data chunk\r\n");
            return;
        }
        let (terms, noreply) = (upload.terms, upload.noreply);
        let stored = match upload.meta {
            None => store.store_on(upload.item, terms, worker.now).0,
            Some(meta) => self.finish_meta_set(worker, (upload.item, terms, meta, noreply)),
        };
        if let Update::Cas(_) = terms.update {
            match stored {
                Stored::Stored => count(&counters.cas_hits, 1),
                Stored::NotFound => count(&counters.cas_misses, 1),
                _ => count(&counters.cas_badval, 1),
            }
        }
        if upload.meta.is_some() {
            return;
        }
        let answer: &[u8] = match stored {
            Stored::Stored => b"STORED\r\n",
            Stored::NotStored => b"NOT_STORED\r\n",
            Stored::Exists => b"EXISTS\r\n",
            Stored::NotFound => b"NOT_FOUND\r\n",
        };
        self.reply(worker, noreply, answer);
    }

    #[inline]
    fn reply(&mut self, worker: &mut Worker<'_>, noreply: bool, answer: &[u8]) {
        if !noreply {
            self.out.text(&mut worker.pool, answer);
        }
    }
}
