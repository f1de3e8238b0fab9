//! What must be true of every conversation: which bytes, how many, and how it may end.
use super::Time;
use super::asks::Asks;
use super::faults;
use super::letters::Datagrams;
use super::net::StationId;
use super::peer::PATIENCE;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// The two ends of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Connects, and sends the conversation's number first.
    Opener,
    /// Listens.
    Acceptor,
}

impl Side {
    /// The other end.
    pub fn other(self) -> Side {
        match self {
            Side::Opener => Side::Acceptor,
            Side::Acceptor => Side::Opener,
        }
    }
}

/// The plan of one conversation, known to both ends once the acceptor has read its number.
#[derive(Clone, Debug)]
pub struct Talk {
    /// The first eight bytes that the opener sends.
    pub id: u64,
    /// When it is opened, if not later.
    pub start: Time,
    /// Who connects.
    pub opener: StationId,
    /// To whom.
    pub acceptor: StationId,
    /// Bytes from the opener, at least 8, and from the acceptor.
    pub bytes: [u64; 2],
    /// The acceptor sends back what it receives.
    pub echo: bool,
    /// This side aborts when it has received so many bytes.
    pub abort: Option<(Side, u64)>,
    /// Who closes first, when it has sent everything; the other waits for that. Both at once if
    /// nobody (not with smoltcp, which never repeats a FIN that is lost in CLOSING).
    pub first: Option<Side>,
    /// Largest piece that is written at once.
    pub write_max: usize,
    /// Largest piece that is read, and how often (in 1/16) reading is put off.
    pub read_max: usize,
    /// See `read_max`.
    pub slowness: u64,
    /// It is one of requests and answers.
    pub asks: Option<Asks>,
}

impl Talk {
    /// Bytes that `side` sends.
    pub fn sends(&self, side: Side) -> u64 {
        self.bytes[side as usize]
    }

    /// Whether `side` may close when it has sent everything but has not seen its peer's end.
    pub fn closes_early(&self, side: Side) -> bool {
        self.first.is_none_or(|first| first == side)
    }

    /// The bytes of `side`'s stream from `offset`.
    pub fn fill(&self, side: Side, offset: u64, bytes: &mut [u8]) {
        let from = if self.echo { Side::Opener } else { side };
        let skip = (offset % 8) as usize;
        let (head, rest) = bytes.split_at_mut(bytes.len().min((8 - skip) % 8));
        head.copy_from_slice(&self.word(from, offset / 8)[skip..][..head.len()]);
        for (number, part) in (offset.div_ceil(8)..).zip(rest.chunks_mut(8)) {
            part.copy_from_slice(&self.word(from, number)[..part.len()]);
        }
    }

    /// Eight bytes of a stream: first the opener's number, then splitmix64 of the place.
    fn word(&self, from: Side, number: u64) -> [u8; 8] {
        if number == 0 && from == Side::Opener {
            return self.id.to_le_bytes();
        }
        let place = self.id ^ (from as u64) << 63;
        let z = place.wrapping_add((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31).to_le_bytes()
    }
}

/// What may go wrong in a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Clean,
    /// Frames are lost, so that it takes longer.
    Rough,
    /// So many that connections may fail to open.
    Harsh,
}

/// How a conversation ended for one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All bytes both ways, closed in order.
    Clean,
    /// Aborted by this side, as planned.
    Aborted,
    /// The peer reset it.
    Reset,
    /// Gave up.
    TimedOut,
    /// Was refused, or rejected, before it began.
    Refused,
    /// The peer's end had come long before (and is judged by itself): its RST was lost.
    Orphaned,
    /// smoltcp's FIN was lost, and it does not repeat one behind which no data is left: this side
    /// gave up, its peer is not to blame.
    Excused,
    /// This side's application was ended, and began again without it.
    Crashed,
}

/// One side's progress.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The connection is established for this side.
    pub opened: bool,
    /// When the acceptor's application read its number.
    pub opened_at: Time,
    /// Bytes read and found right.
    pub received: u64,
    /// Bytes that this side's stack has taken in order, where that can be seen.
    pub taken: Option<u64>,
    /// Bytes reported as acknowledged.
    pub sent: u64,
    /// The peer's end was seen.
    pub eof: bool,
    /// When the last byte was read.
    pub complete_at: Option<Time>,
    /// How it ended.
    pub end: Option<End>,
    /// When.
    pub ended_at: Time,
}

/// A conversation with both sides' progress.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The plan.
    pub talk: Talk,
    /// By [`Side`].
    pub sides: [Progress; 2],
}

/// All conversations of a run. Every method panics at what must not be.
#[derive(Debug, Default)]
pub struct Book {
    entries: BTreeMap<u64, Entry>,
    /// One that was not over when somebody asked.
    pending: Cell<u64>,
    /// Knocks that were rejected, by acceptor.
    pub rejected: BTreeMap<StationId, u64>,
    /// From when to when a station's application was not there.
    pub restarts: Vec<(StationId, Time, Time)>,
    /// When cores of stations were stopped.
    pub taken: Vec<(StationId, Time)>,
    /// Conversations that such a core may have had.
    pub forced: BTreeSet<u64>,
    /// Stations below are dataplanes, for which nothing is excused.
    pub machines: u8,
    /// All stations.
    pub stations: u8,
    /// Virtual time.
    pub now: Time,
    /// Datagrams by number.
    pub datagrams: Datagrams,
    /// When a station's application had its port for datagrams.
    pub bound: BTreeMap<StationId, Time>,
}

/// The book that all stations share.
pub type SharedBook = Rc<RefCell<Book>>;

impl Book {
    /// Enters a plan.
    pub fn plan(&mut self, talk: Talk) {
        let sides = [Progress::default(), Progress::default()];
        let old = self.entries.insert(talk.id, Entry { talk, sides });
        assert!(old.is_none(), "two conversations with one number");
    }

    /// All of them.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// The acceptor has read the first eight bytes.
    pub fn claim(&mut self, id: u64, acceptor: StationId) -> Talk {
        let now = self.now;
        let Some(entry) = self.entries.get_mut(&id) else {
            panic!("invented: {acceptor:?} reads the number {id:#x} that nobody sent")
        };
        assert_eq!(entry.talk.acceptor, acceptor, "conversation {id:#x} at the wrong station");
        let progress = &mut entry.sides[Side::Acceptor as usize];
        assert!(!progress.opened, "conversation {id:#x} came twice");
        progress.opened = true;
        progress.opened_at = now;
        progress.received = 8;
        entry.talk.clone()
    }

    /// The opener's connection is established.
    pub fn opened(&mut self, id: u64) {
        self.side(id, Side::Opener).opened = true;
    }

    /// `side` reads `bytes`, the next of its peer's stream.
    pub fn read(&mut self, id: u64, side: Side, bytes: &[u8]) {
        let now = self.now;
        let entry = self.entry(id);
        let at = entry.sides[side as usize].received;
        check(&entry.talk, side, at, bytes);
        assert!(!entry.sides[side as usize].eof, "{id:#x}: {side:?} reads data after the end");
        let progress = &mut entry.sides[side as usize];
        progress.received += bytes.len() as u64;
        if progress.received == entry.talk.sends(side.other()) {
            progress.complete_at = Some(now);
        }
    }

    /// The bytes at `offset` of what `side` received are still what they were.
    pub fn reread(&mut self, id: u64, side: Side, offset: u64, bytes: &[u8]) {
        check(&self.entry(id).talk, side, offset, bytes);
    }

    /// `side`'s stack has taken `total` bytes in order.
    pub fn taken(&mut self, id: u64, side: Side, total: u64) {
        self.side(id, side).taken = Some(total);
    }

    /// `side` is told that `bytes` more are acknowledged: its peer must have them.
    pub fn sent(&mut self, id: u64, side: Side, bytes: u64) {
        let entry = self.entry(id);
        entry.sides[side as usize].sent += bytes;
        let sent = entry.sides[side as usize].sent;
        if let Some(taken) = entry.sides[side.other() as usize].taken {
            assert!(sent <= taken, "{id:#x}: {sent} bytes `sent`, the peer has {taken}");
        }
    }

    /// `side` has seen its peer's end.
    pub fn eof(&mut self, id: u64, side: Side) {
        let entry = self.entry(id);
        let progress = &mut entry.sides[side as usize];
        assert!(!progress.eof, "{id:#x}: {side:?} sees the end twice");
        progress.eof = true;
        let expected = entry.talk.sends(side.other());
        let received = progress.received;
        let cut = entry.talk.abort.is_some_and(|(who, _)| who == side.other());
        assert!(
            received == expected || cut,
            "{id:#x}: {side:?} sees the end after {received} of {expected} bytes"
        );
    }

    /// It is over for `side`.
    pub fn end(&mut self, id: u64, side: Side, end: End, now: Time) {
        let progress = self.side(id, side);
        assert!(progress.end.is_none(), "{id:#x}: {side:?} ends twice: {progress:?} {end:?}");
        progress.end = Some(end);
        progress.ended_at = now;
    }

    /// `side` has aborted, or given up, long ago: its RST was lost, and its peer must not wait. Or a core that may have had
    /// it was stopped before anybody there knew its number, and who has nothing more to send hears nothing of that. Or it was
    /// rejected before, and that RST was lost.
    pub fn given_up(&self, id: u64, side: Side, now: Time) -> bool {
        let entry = &self.entries[&id];
        let progress = &entry.sides[side as usize];
        let forgotten = |(who, at): &(StationId, Time)| {
            *who == entry.talk.acceptor && entry.talk.start <= *at && now > *at + PATIENCE
        };
        let unknown = side == Side::Acceptor && !progress.opened;
        let rejected = self.rejected.contains_key(&entry.talk.acceptor)
            && now > entry.talk.start + 3 * PATIENCE;
        progress.end.is_some_and(|end| end != End::Clean) && now > progress.ended_at + PATIENCE
            || unknown && (rejected || self.taken.iter().any(forgotten))
    }

    /// A station's application ends.
    pub fn crash_begins(&mut self, station: StationId, now: Time) {
        self.restarts.push((station, now, Time::MAX));
    }

    /// A station's application listens again.
    pub fn crash_ends(&mut self, station: StationId, now: Time) {
        let open =
            |(who, _, to): &&mut (StationId, Time, Time)| *who == station && *to == Time::MAX;
        self.restarts.iter_mut().filter(open).for_each(|(_, _, to)| *to = now);
    }

    /// Whether a restart at either end lay within a conversation.
    fn crossed(&self, entry: &Entry) -> bool {
        let ends = entry.sides.iter().map(|side| side.ended_at).max().unwrap_or(0);
        self.restarts.iter().any(|(who, from, to)| {
            let theirs = *who == entry.talk.opener || *who == entry.talk.acceptor;
            theirs && *from <= ends && entry.talk.start <= *to
        })
    }

    /// Whether a core that was stopped had it, or may have had it before anybody knew its number, or after one side was done
    /// with it and its FIN was still to arrive.
    fn cut_short(&self, entry: &Entry) -> bool {
        let [opener, acceptor] = &entry.sides;
        // (Its own FIN may be on its way then, or it waits for the other's.)
        let lingered = |who: StationId, side: &Progress, other: &Progress| {
            let on_its_way = |at: Time| side.ended_at <= at && at <= other.ended_at;
            side.end == Some(End::Clean)
                && self.taken.iter().any(|(station, at)| *station == who && on_its_way(*at))
        };
        let ends = entry.sides.iter().map(|side| side.ended_at).max().unwrap_or(0);
        let unknown_until = if acceptor.opened { acceptor.opened_at } else { ends };
        let stopped = |(who, at): &(StationId, Time)| {
            *who == entry.talk.acceptor && entry.talk.start <= *at && *at <= unknown_until
        };
        self.forced.contains(&entry.talk.id)
            || self.taken.iter().any(stopped)
            || lingered(entry.talk.opener, opener, acceptor)
            || lingered(entry.talk.acceptor, acceptor, opener)
    }

    /// A number that grows with everything that happens.
    pub fn progress(&self) -> u64 {
        let of = |side: &Progress| {
            let marks =
                u64::from(side.opened) + u64::from(side.eof) + u64::from(side.end.is_some());
            side.received + side.sent + side.taken.unwrap_or(0) + marks
        };
        self.entries.values().flat_map(|entry| &entry.sides).map(of).sum()
    }

    /// Whether nothing is going on.
    pub fn is_done(&self) -> bool {
        // The one that was not over the last time mostly is not now.
        let last = self.pending.get();
        if self.entries.get(&last).is_some_and(|entry| !is_over(entry)) {
            return false;
        }
        let other = self.entries.iter().find(|(_, entry)| !is_over(entry));
        other.inspect(|(id, _)| self.pending.set(**id)).is_none()
    }

    /// What is not over, for the message of a liveness failure.
    pub fn unfinished(&self) -> Vec<&Entry> {
        self.entries.values().filter(|entry| !is_over(entry)).collect()
    }

    /// Checks how each conversation ended. Returns how many were excused.
    pub fn check_ends(&self, weather: Weather) -> usize {
        let harsh = weather == Weather::Harsh;
        let mut excused = 0;
        for entry in self.entries.values() {
            let [opener, acceptor] = &entry.sides;
            let unopened = !acceptor.opened;
            let rejected = self.rejected.contains_key(&entry.talk.acceptor);
            for (side, progress) in [(Side::Opener, opener), (Side::Acceptor, acceptor)] {
                let planned = entry.talk.abort.map(|(who, _)| who);
                let other = &entry.sides[side.other() as usize];
                let excuse = other.end == Some(End::Excused);
                // smoltcp takes no acknowledgement of what it sent before it went back to send it
                // again, and may never get there: it is deaf to what we have long received.
                let engines = entry.talk.opener.0.max(entry.talk.acceptor.0) < self.machines;
                let rough = (weather != Weather::Clean || faults::planned()) && !engines;
                let crossed = self.crossed(entry) || self.cut_short(entry);
                let deaf =
                    rough && progress.end == Some(End::TimedOut) && other.sent < progress.received;
                let was_deaf =
                    rough && other.end == Some(End::TimedOut) && progress.sent < other.received;
                // Scarcity loses frames, too, and there may be no room for the last of a connection.
                let scarce = faults::planned();
                let lossy = harsh || scarce;
                let heard_all = progress.received == entry.talk.sends(side.other());
                let heard = progress.eof || scarce && heard_all;
                // Of a connection that is no more than a cookie, data that overtakes the first acknowledgement is a
                // stranger's, and is reset.
                let overtaken = scarce && opener.received == 0 && other.end == Some(End::Reset);
                let fine = match progress.end {
                    Some(End::Clean) => {
                        let all = progress.received == entry.talk.sends(side.other());
                        all || planned.is_some()
                    }
                    Some(End::Aborted) => planned == Some(side),
                    Some(End::Reset) => {
                        // The last acknowledgement was lost, and so was its sender's TIME_WAIT.
                        let all = other.received == entry.talk.sends(side);
                        let late = lossy && heard && other.end == Some(End::Clean) && all;
                        planned == Some(side.other())
                            // Cookies complete handshakes for which there is then no room.
                            || unopened && (rejected || lossy)
                            || late
                            || overtaken
                            || was_deaf
                            || excuse
                            || crossed
                    }
                    Some(End::Refused | End::TimedOut) => {
                        excused += usize::from(deaf);
                        unopened && (rejected || lossy || planned.is_some())
                            || planned == Some(side.other())
                            || deaf
                            || crossed
                    }
                    Some(End::Orphaned) => {
                        let forgotten =
                            side == Side::Opener && unopened && (crossed || rejected && lossy);
                        forgotten || other.end.is_some_and(|end| end != End::Clean)
                    }
                    Some(End::Excused) => {
                        excused += 1;
                        rough
                    }
                    Some(End::Crashed) => self.crossed(entry),
                    None => unopened && side == Side::Acceptor,
                };
                assert!(
                    fine,
                    "{side:?} must not end so: {entry:#x?}; cores stopped: {:x?}",
                    self.taken
                );
            }
        }
        excused
    }

    fn entry(&mut self, id: u64) -> &mut Entry {
        self.entries.get_mut(&id).expect("a planned conversation")
    }

    fn side(&mut self, id: u64, side: Side) -> &mut Progress {
        &mut self.entry(id).sides[side as usize]
    }
}

fn is_over(entry: &Entry) -> bool {
    let [opener, acceptor] = &entry.sides;
    opener.end.is_some() && (acceptor.end.is_some() || !acceptor.opened)
}

fn check(talk: &Talk, reader: Side, at: u64, bytes: &[u8]) {
    let writer = reader.other();
    let total = talk.sends(writer);
    let id = talk.id;
    assert!(
        at + bytes.len() as u64 <= total,
        "{id:#x}: {reader:?} has {} bytes at {at} of {total}",
        bytes.len()
    );
    let mut expected = vec![0; bytes.len()];
    talk.fill(writer, at, &mut expected);
    if let Some(wrong) = bytes.iter().zip(&expected).position(|(a, b)| a != b) {
        panic!(
            "{id:#x}: {reader:?} has a wrong byte at {} of {total}: {:02x?} for {:02x?}",
            at + wrong as u64,
            &bytes[wrong..bytes.len().min(wrong + 16)],
            &expected[wrong..bytes.len().min(wrong + 16)],
        );
    }
}
