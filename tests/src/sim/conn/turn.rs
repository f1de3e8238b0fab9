//! The turns of a conversation of request and answer ([`super::super::asks`]): mostly one call answers a request and returns
//! it, and one call asks and returns the answer before; what else an application may do is done now and then.
use super::super::MS;
use super::super::Time;
use super::super::app::{Outbox, Shared};
use super::super::asks::Asks;
use super::super::book::{Side, Talk};
use super::Conn;
use ix_abi::call::SgEntry;
use ix_dataplane::rng::Rng;

/// How long after the last of its doings the application looks again soon.
const AWAKE: Time = 500 * MS;

/// How a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whim {
    /// By one call that returns it.
    Plain,
    /// By one call that returns a part of it.
    Part,
    /// It is returned first.
    Early,
    /// In two calls.
    Two,
}

/// Where the conversation is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// The end of what was asked.
    asked: u64,
    /// When the next request, or the answer, is due.
    due: Option<Time>,
    whim: Option<Whim>,
    awake_until: Time,
}

impl Turn {
    /// Draws how the request that has just been seen is answered, and when.
    fn take_up(&mut self, asks: &Asks, rng: &mut Rng, now: Time) -> Whim {
        if let Some(whim) = self.whim {
            return whim;
        }
        let odd = rng.chance(asks.whims, 64);
        let whims = [Whim::Plain, Whim::Part, Whim::Part, Whim::Early, Whim::Two];
        let whim = if odd { whims[rng.below(5) as usize] } else { Whim::Plain };
        // Late: after the request has been acknowledged without it.
        let late = odd && (whim == Whim::Plain || rng.chance(1, 4));
        self.due = late.then(|| now + rng.below(300 * MS));
        self.whim = Some(whim);
        whim
    }

    fn is_due(&mut self, now: Time) -> bool {
        self.due.is_none_or(|due| due <= now)
    }
}

impl Conn {
    /// Its turn, if it is one.
    pub(super) fn converse(
        &mut self,
        (talk, asks): (&Talk, &Asks),
        outbox: &mut Outbox,
        shared: &mut Shared,
        now: Time,
    ) {
        let before = self.written + self.received + self.returned;
        match self.side {
            Side::Opener => self.ask((talk, asks), outbox, shared, now),
            Side::Acceptor => self.answer((talk, asks), outbox, shared, now),
        }
        if self.written + self.received + self.returned != before || self.turn.due.is_some() {
            self.turn.awake_until = now + AWAKE;
        }
        self.restless |= now < self.turn.awake_until;
    }

    fn ask(
        &mut self,
        (talk, asks): (&Talk, &Asks),
        outbox: &mut Outbox,
        shared: &mut Shared,
        now: Time,
    ) {
        let total = talk.sends(self.side);
        let turn = &mut self.turn;
        if self.received >= turn.asked && turn.asked < total {
            turn.due.get_or_insert_with(|| now + asks.wait(&mut shared.rng));
            if turn.is_due(now) {
                turn.due = None;
                turn.asked = asks.next(turn.asked, total, &mut shared.rng);
            }
        }
        let held = self.received - self.returned;
        // Every other opener returns an answer with the next request, the others at once.
        let keeps = talk.id & 1 == 0 && self.turn.asked < total;
        if self.written < self.turn.asked {
            self.say(talk, (self.turn.asked, held), outbox, shared);
        } else if held > 0 && !keeps {
            self.hand_back(held, outbox, shared);
        }
    }

    fn answer(
        &mut self,
        (talk, asks): (&Talk, &Asks),
        outbox: &mut Outbox,
        shared: &mut Shared,
        now: Time,
    ) {
        let total = talk.sends(self.side);
        let whole = asks.whole(self.received, total);
        let held = whole.saturating_sub(self.returned);
        if self.written >= whole {
            return self.rest((talk, asks), held, outbox, shared);
        }
        let whim = self.turn.take_up(asks, &mut shared.rng, now);
        if self.blocked || !self.turn.is_due(now) {
            return;
        }
        let part = 1 + shared.rng.below(held.max(1));
        let said = match whim {
            Whim::Early if held > 0 => {
                self.hand_back(held, outbox, shared);
                self.turn.due = shared.rng.chance(1, 2).then(|| now + shared.rng.below(100 * MS));
                // (What is answered now is no longer there to be answered from.)
                self.turn.due.is_none() && self.say(talk, (whole, 0), outbox, shared)
            }
            Whim::Two => {
                let middle = self.written + 1 + shared.rng.below(whole - self.written);
                let said = self.say(talk, (middle, 0), outbox, shared);
                self.turn.whim = Some(Whim::Plain);
                said && shared.rng.chance(1, 2) && self.say(talk, (whole, held), outbox, shared)
            }
            Whim::Part => self.say(talk, (whole, part.min(held)), outbox, shared),
            Whim::Plain | Whim::Early => self.say(talk, (whole, held), outbox, shared),
        };
        if said || self.written >= whole {
            (self.turn.whim, self.turn.due) = (None, None);
        }
    }

    /// Nothing is asked: what is still held of requests goes back, and now and then an answer comes before its request.
    fn rest(
        &mut self,
        (talk, asks): (&Talk, &Asks),
        held: u64,
        outbox: &mut Outbox,
        shared: &mut Shared,
    ) {
        let total = talk.sends(self.side);
        if held > 0 {
            let part = 1 + shared.rng.below(held);
            let bytes = if shared.rng.chance(1, 2) { held } else { part };
            self.hand_back(bytes, outbox, shared);
        } else if self.written < total && shared.rng.chance(asks.whims, 2048) {
            let end = total.min(self.written + 1 + shared.rng.below(64));
            self.say(talk, (end, 0), outbox, shared);
        }
    }

    /// Sends up to `end` by one call and in one piece, out of what is held if that is possible, and returns `done` bytes by
    /// it. Whether there was room.
    fn say(
        &mut self,
        talk: &Talk,
        (end, done): (u64, u64),
        outbox: &mut Outbox,
        shared: &mut Shared,
    ) -> bool {
        let len = end.saturating_sub(self.written);
        if self.blocked || len == 0 || outbox.calls.len() > 1000 {
            return false;
        }
        let held = self.held_pieces(self.written, len);
        let whole = held.len() == 1 && held[0].len == len;
        let (chunk, piece) = if whole && self.side == Side::Acceptor && shared.rng.chance(1, 2) {
            (None, held[0])
        } else {
            let Some(chunk) = self.compose(talk, len, shared) else { return false };
            let piece = SgEntry { addr: chunk.addr, len };
            (Some(chunk), piece)
        };
        self.submit((&[piece], done), chunk, outbox, shared);
        self.take_back(done, shared);
        shared.answers += 1;
        true
    }
}
