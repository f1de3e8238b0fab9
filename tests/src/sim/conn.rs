//! One connection of a simulated application: what it holds, what it has in flight, what it does
//! next.
mod turn;

use self::turn::Turn;
use super::Time;
use super::app::{Outbox, Shared, Tag, is_before};
use super::book::{End, Side, Talk};
use super::heap::Chunk;
use super::peer::ANONYMOUS;
use ix_abi::call::{Call, Op, SgEntry};
use ix_abi::{Cookie, DeadReason, Handle, Status};
use ix_dataplane::limits::RECEIVE_WINDOW;
use std::collections::VecDeque;

/// A piece of received bytes.
#[derive(Debug)]
struct Held {
    addr: u64,
    len: u64,
    /// Of its first byte in the stream.
    offset: u64,
}

/// A `sendv`.
#[derive(Debug)]
struct Submission {
    tag: u64,
    offset: u64,
    len: u64,
    /// `None`: received buffers.
    chunk: Option<Chunk>,
    /// Known once its result is, or is known not to come.
    accepted: Option<u64>,
    sent: u64,
}

/// A connection.
pub struct Conn {
    handle: Handle,
    /// The application's name for it.
    pub cookie: Cookie,
    side: Side,
    talk: Option<Talk>,
    number: Vec<u8>,
    began: Time,
    received: u64,
    returned: u64,
    held: VecDeque<Held>,
    flying: VecDeque<Submission>,
    /// Submitted up to here, and what was accepted of it.
    written: u64,
    sent: u64,
    /// What may be under way, as far as it was told.
    window: u64,
    /// A `sendv` was cut short: wait for `sent`.
    blocked: bool,
    eof: bool,
    shut: bool,
    /// `close` or `abort` was called, and where that is in the ring.
    pub closing: bool,
    /// See `closing`.
    pub closed_index: Option<u32>,
    /// A call that failed, which only the connection's death explains.
    pub failed: Option<&'static str>,
    aborted: Option<End>,
    in_place: bool,
    restless: bool,
    turn: Turn,
}

impl std::fmt::Debug for Conn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let talk = self.talk.as_ref();
        write!(
            f,
            "{:x?} {:?} of {:x?} ({:?}): received {} returned {} in {} pieces, written {} sent {} \
             in {} pieces, first {:x?}; blocked {} eof {} shut {} closing {} {:?} in place {}",
            self.handle,
            self.side,
            talk.map(|talk| talk.id),
            talk.map(|talk| (talk.bytes, talk.echo, talk.first, talk.abort)),
            self.received,
            self.returned,
            self.held.len(),
            self.written,
            self.sent,
            self.flying.len(),
            self.flying.front(),
            self.blocked,
            self.eof,
            self.shut,
            self.closing,
            self.closed_index,
            self.in_place,
        )
    }
}

impl Conn {
    /// A connection of which nothing is known but its handle, or (an opener's) its plan.
    pub fn new(handle: Handle, cookie: Cookie, side: Side, talk: Option<Talk>, now: Time) -> Conn {
        Conn {
            handle,
            cookie,
            side,
            talk,
            number: Vec::new(),
            began: now,
            received: 0,
            returned: 0,
            held: VecDeque::new(),
            flying: VecDeque::new(),
            written: 0,
            sent: 0,
            window: u64::from(RECEIVE_WINDOW),
            blocked: false,
            eof: false,
            shut: false,
            closing: false,
            closed_index: None,
            failed: None,
            aborted: None,
            in_place: false,
            restless: true,
            turn: Turn::default(),
        }
    }

    /// The number of its conversation, once it is known.
    pub fn talk_id(&self) -> Option<u64> {
        self.talk.as_ref().map(|talk| talk.id)
    }

    /// Its group is in another context now, of whose calls so many are consumed. All that the old
    /// one called has been executed.
    pub fn moved(&mut self, consumed: u32) {
        self.restless = true;
        self.closed_index = self.closed_index.map(|_| consumed);
    }

    /// Its application is ended.
    pub fn crashed(self, shared: &mut Shared, now: Time) {
        if let Some(talk) = &self.talk {
            shared.book.borrow_mut().end(talk.id, self.side, End::Crashed, now);
        }
    }

    /// Nothing to do before the next event.
    pub fn is_waiting(&self) -> bool {
        !self.restless
    }

    /// An event that must not come once `close` was consumed, at the latest `consumed` ago.
    pub fn not_closed(&self, consumed: u32, what: &str) {
        let closed = self.closed_index.is_some_and(|index| is_before(index, consumed));
        assert!(!closed, "`{what}` after close: {self:x?}");
    }

    /// A `recv` event.
    pub fn received(&mut self, addr: u64, len: u32, shared: &mut Shared) {
        assert!(len > 0 && !self.eof, "`recv` of {len} bytes, eof {}", self.eof);
        let mut bytes = vec![0; len as usize];
        shared.received(addr, &mut bytes);
        self.held.push_back(Held { addr, len: u64::from(len), offset: self.received });
        self.received += u64::from(len);
        let held = self.received - self.returned;
        assert!(held <= u64::from(RECEIVE_WINDOW), "{held} bytes held, more than any window");
        let mut book = shared.book.borrow_mut();
        let mut rest = &bytes[..];
        if self.talk.is_none() {
            let (number, after) = rest.split_at(rest.len().min(8 - self.number.len()));
            self.number.extend_from_slice(number);
            rest = after;
            if let Ok(number) = <[u8; 8]>::try_from(&self.number[..]) {
                let talk = book.claim(u64::from_le_bytes(number), shared.station);
                self.in_place = talk.echo && talk.asks.is_none() && shared.rng.chance(1, 2);
                self.talk = Some(talk);
            }
        }
        if let Some(talk) = &self.talk {
            book.read(talk.id, self.side, rest);
        }
    }

    /// An `eof` event.
    pub fn eof(&mut self, shared: &mut Shared) {
        assert!(!self.eof, "`eof` twice");
        self.eof = true;
        if let Some(talk) = &self.talk {
            shared.book.borrow_mut().eof(talk.id, self.side);
        }
    }

    /// A `sent` event.
    pub fn sent(&mut self, bytes: u64, window: u32, shared: &mut Shared) {
        let submitted: u64 = self.flying.iter().map(|s| s.accepted.unwrap_or(s.len) - s.sent).sum();
        assert!(bytes <= submitted, "{bytes} `sent` of {submitted}: {self:x?}");
        self.sent += bytes;
        let mut left = bytes;
        for submission in &mut self.flying {
            let part = left.min(submission.accepted.unwrap_or(submission.len) - submission.sent);
            if let Some(chunk) = &submission.chunk {
                shared.heap.scribble(chunk.addr + submission.sent, part as usize);
            }
            submission.sent += part;
            left -= part;
        }
        self.forget_done(shared);
        if window > 0 {
            self.window = u64::from(window);
            self.blocked = false;
        }
        if let Some(talk) = &self.talk {
            shared.book.borrow_mut().sent(talk.id, self.side, bytes);
        }
    }

    /// The result of a `sendv`.
    pub fn send_result(&mut self, tag: u64, status: Status, value: u64, shared: &mut Shared) {
        let at = self.flying.iter().position(|s| s.tag == tag).expect("a `sendv` in flight");
        let submission = &mut self.flying[at];
        match status {
            Status::Ok => assert_eq!(value, submission.len, "not all, and yet Ok"),
            Status::Again => assert!(value < submission.len, "all of it, and yet Again"),
            // It has died; `dead` will say so.
            Status::State | Status::BadHandle => assert_eq!(value, 0),
            other => panic!("sendv: {other:?}"),
        }
        submission.accepted = Some(value);
        if status == Status::Ok {
            return self.forget_done(shared);
        }
        assert!(submission.sent <= value);
        if let Some(chunk) = &submission.chunk {
            shared.heap.scribble(chunk.addr + value, (submission.len - value) as usize);
        }
        let end = submission.offset + value;
        assert!(
            value == 0 || submission.offset <= self.written,
            "a hole: accepted after a refusal"
        );
        self.written = self.written.min(end);
        self.blocked = true;
        self.forget_done(shared);
    }

    /// A `sendv` was consumed and has no result: all of it was accepted.
    pub fn send_accepted(&mut self, tag: u64, shared: &mut Shared) {
        let written = self.written;
        if let Some(submission) = self.flying.iter_mut().find(|s| s.tag == tag) {
            assert!(submission.offset < written, "a hole: accepted after a refusal");
            submission.accepted = Some(submission.len);
        }
        self.forget_done(shared);
    }

    fn forget_done(&mut self, shared: &mut Shared) {
        self.flying.retain(|s| {
            let done = s.accepted == Some(s.sent);
            if let (true, Some(chunk)) = (done, &s.chunk) {
                shared.heap.free(chunk);
            }
            !done
        });
    }

    /// A `dead` event; what it refers to is the application's again.
    pub fn dead(mut self, reason: DeadReason, shared: &mut Shared, now: Time) {
        let nothing_flies = self.flying.iter().all(|s| s.accepted.is_none_or(|a| a == s.sent));
        for submission in std::mem::take(&mut self.flying) {
            submission.chunk.iter().for_each(|chunk| shared.heap.free(chunk));
        }
        let Some(talk) = &self.talk else { return };
        let end = match (self.aborted, reason) {
            (Some(end), _) => end,
            (None, DeadReason::Closed) => {
                let total = talk.sends(self.side);
                assert!(self.closing, "closed, but not by us: {self:x?}");
                assert_eq!(self.failed, None, "failed on a living connection: {self:x?}");
                assert!(self.sent == total && nothing_flies, "closed too early: {self:x?}");
                End::Clean
            }
            (None, DeadReason::Reset) => End::Reset,
            (None, DeadReason::TimedOut | DeadReason::Unreachable) => End::TimedOut,
            (None, other) => panic!("dead: {other:?} {self:x?}"),
        };
        shared.book.borrow_mut().end(talk.id, self.side, end, now);
    }

    /// What is held still reads as it did.
    pub fn check_held(&self, shared: &Shared) {
        for held in &self.held {
            self.check(held, held.len, shared);
        }
    }

    fn check(&self, held: &Held, len: u64, shared: &Shared) {
        let Some(talk) = &self.talk else { return };
        let mut bytes = vec![0; len as usize];
        shared.received(held.addr, &mut bytes);
        shared.book.borrow_mut().reread(talk.id, self.side, held.offset, &bytes);
    }

    /// The application's turn.
    pub fn drive(&mut self, outbox: &mut Outbox, shared: &mut Shared, now: Time) {
        self.restless = false;
        if self.closing {
            return;
        }
        let Some(talk) = self.talk.clone() else {
            self.restless = true;
            if now > self.began + ANONYMOUS || self.eof {
                self.end(Op::Abort, outbox);
            }
            return;
        };
        let aborts = talk.abort.is_some_and(|(side, at)| side == self.side && self.received >= at);
        let hopeless = shared.book.borrow().given_up(talk.id, self.side.other(), now);
        if aborts || hopeless {
            self.aborted = Some(if aborts { End::Aborted } else { End::Orphaned });
            return self.end(Op::Abort, outbox);
        }
        if let Some(asks) = &talk.asks {
            self.converse((&talk, asks), outbox, shared, now);
            return self.close(&talk, outbox, shared);
        }
        let times = if shared.draw.eager { 64 } else { shared.rng.below(3) };
        for nth in 0..=times {
            // One more than there is room for may be refused, not all that there ever will be.
            if nth > 0 && shared.draw.eager && self.written - self.sent >= self.window {
                break;
            }
            self.send(&talk, outbox, shared);
        }
        self.give_back(&talk, outbox, shared);
        self.close(&talk, outbox, shared);
    }

    fn end(&mut self, op: Op, outbox: &mut Outbox) {
        self.closing = true;
        outbox.push(Call::new(op, self.handle), Vec::new(), Tag::Plain("the end"));
    }

    fn send(&mut self, talk: &Talk, outbox: &mut Outbox, shared: &mut Shared) {
        let echo = talk.echo && self.side == Side::Acceptor;
        let ready = if echo { self.received } else { talk.sends(self.side) };
        if self.blocked || self.written >= ready || outbox.calls.len() > 1000 {
            return;
        }
        let max = (ready - self.written).min(talk.write_max as u64);
        let mut len = if shared.draw.eager || shared.rng.chance(1, 2) {
            max
        } else {
            1 + shared.rng.below(max)
        };
        let (chunk, pieces) = if self.in_place && echo {
            let pieces = self.held_pieces(self.written, len);
            len = pieces.iter().map(|piece| piece.len).sum();
            if len == 0 {
                return;
            }
            (None, pieces)
        } else {
            let Some(chunk) = self.compose(talk, len, shared) else { return };
            let pieces = split(&chunk, shared);
            (Some(chunk), pieces)
        };
        self.submit((&pieces, 0), chunk, outbox, shared);
    }

    /// The next `len` bytes in the application's own memory, if it has room.
    fn compose(&mut self, talk: &Talk, len: u64, shared: &mut Shared) -> Option<Chunk> {
        let Some(chunk) = shared.heap.alloc(len as usize) else {
            self.restless = true;
            return None;
        };
        let mut bytes = vec![0; len as usize];
        talk.fill(self.side, self.written, &mut bytes);
        shared.heap.write(chunk.addr, &bytes);
        Some(chunk)
    }

    /// A `sendv` of these pieces, which returns `done` bytes.
    fn submit(
        &mut self,
        (pieces, done): (&[SgEntry], u64),
        chunk: Option<Chunk>,
        outbox: &mut Outbox,
        shared: &mut Shared,
    ) {
        let len = pieces.iter().map(|piece| piece.len).sum();
        let second = pieces.get(1).copied().unwrap_or_default();
        let call = Call::sendv(self.handle, pieces.len() as u16, pieces[0], second);
        let mut call = call.with_recv_done(done);
        if shared.rng.chance(1, 8) {
            call.flags |= Call::WANT_RESULT;
        }
        let more = pieces.get(2..).unwrap_or_default().to_vec();
        let tag = outbox.push(call, more, Tag::Send(self.handle.0));
        let offset = self.written;
        self.flying.push_back(Submission { tag, offset, len, chunk, accepted: None, sent: 0 });
        self.written += len;
    }

    /// The received buffers that hold the bytes from `offset`.
    fn held_pieces(&self, offset: u64, len: u64) -> Vec<SgEntry> {
        let mut pieces = Vec::new();
        for held in &self.held {
            let from = offset.max(held.offset);
            let to = (offset + len).min(held.offset + held.len);
            if from < to && pieces.len() < 64 {
                pieces.push(SgEntry { addr: held.addr + (from - held.offset), len: to - from });
            }
        }
        pieces
    }

    /// `recv_done`, of as many bytes as it pleases.
    fn give_back(&mut self, talk: &Talk, outbox: &mut Outbox, shared: &mut Shared) {
        let mut limit = self.received - self.returned;
        if self.in_place && self.side == Side::Acceptor {
            // Not before the kernel has its own reference.
            let unresolved = self.flying.iter().find(|s| s.accepted.is_none());
            let accepted = unresolved.map_or(self.written, |s| s.offset);
            limit = limit.min(accepted.saturating_sub(self.returned));
        }
        if limit == 0 {
            return;
        }
        if shared.rng.chance(talk.slowness, 16) {
            self.restless = true;
            return;
        }
        let max = limit.min(talk.read_max as u64);
        let bytes = if shared.draw.eager || shared.rng.chance(1, 2) {
            max
        } else {
            1 + shared.rng.below(max)
        };
        self.restless |= bytes < limit;
        self.hand_back(bytes, outbox, shared);
    }

    fn hand_back(&mut self, bytes: u64, outbox: &mut Outbox, shared: &Shared) {
        self.take_back(bytes, shared);
        outbox.push(Call::recv_done(self.handle, bytes), Vec::new(), Tag::Plain("recv_done"));
    }

    /// The oldest `bytes` are not held any more.
    fn take_back(&mut self, bytes: u64, shared: &Shared) {
        self.returned += bytes;
        let mut left = bytes;
        while left > 0 {
            let Some(mut held) = self.held.pop_front() else { break };
            let part = left.min(held.len);
            self.check(&held, part, shared);
            left -= part;
            if part < held.len {
                held.addr += part;
                held.offset += part;
                held.len -= part;
                self.held.push_front(held);
            }
        }
    }

    fn close(&mut self, talk: &Talk, outbox: &mut Outbox, shared: &mut Shared) {
        let resolved = self.flying.iter().all(|s| s.accepted.is_some());
        let all_out = self.written == talk.sends(self.side) && resolved;
        if !all_out || !(self.eof || talk.closes_early(self.side)) {
            return;
        }
        let all_in = self.received == talk.sends(self.side.other());
        if self.eof || all_in && shared.rng.chance(1, 2) {
            self.check_held(shared);
            self.end(Op::Close, outbox);
        } else if !self.shut {
            self.shut = true;
            let call = Call::new(Op::Shutdown, self.handle);
            outbox.push(call, Vec::new(), Tag::Plain("shutdown"));
        }
    }
}

/// Entries for a chunk, cut at random places.
fn split(chunk: &Chunk, shared: &mut Shared) -> Vec<SgEntry> {
    let most = if shared.rng.chance(1, 20) { 64 } else { 4 };
    let count = 1 + shared.rng.below(most.min(chunk.len as u64));
    let mut pieces = Vec::new();
    let (mut addr, mut left) = (chunk.addr, chunk.len as u64);
    for i in (0..count).rev() {
        let len = if i == 0 { left } else { 1 + shared.rng.below(left - i) };
        pieces.push(SgEntry { addr, len });
        addr += len;
        left -= len;
    }
    pieces
}
