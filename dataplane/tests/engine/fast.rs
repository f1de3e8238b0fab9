//! Header prediction against the code that is complete without it: two stations live through the same story,
//! one of them watched by the tap, so that it predicts nothing. They must send the same segments, tell their
//! applications the same and count the same.
use crate::support::station::Setup;
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::capture::{Filter, ring};
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};
use ix_dataplane::rng::Rng;
use ix_dataplane::tap::Ring;
use ix_dataplane::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicU64;

const PEERS: usize = 4;
const STEPS: usize = 400;
/// The connection without any options but a segment size.
const PLAIN: usize = 1;

/// What the application was told of one connection, in however many records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    sent: u32,
    received: Vec<u8>,
    others: Vec<String>,
}

/// A connection as its peer knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Peer {
    handle: Handle,
    seq: u32,
    /// Next that is expected of the station.
    ack: u32,
    stamp: Option<u32>,
    /// Received pieces that the application has not returned.
    held: VecDeque<(u64, u32)>,
}

struct Side {
    talk: Talk,
    peers: Vec<Peer>,
    told: BTreeMap<u64, Told>,
    /// What may be sent, as was told last. Not always the same: records differ, and the moments at which they are written.
    window: u32,
    segments: Vec<Segment>,
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    ix_dataplane::checksum::finish(ix_dataplane::checksum::sum(bytes))
}

fn stamps(value: u32) -> Vec<u8> {
    let mut options = vec![1, 1, 8, 10];
    options.extend(value.to_be_bytes());
    options.extend([0; 4]);
    options
}

impl Side {
    fn new(offload: bool, watched: bool) -> Side {
        let mut talk = Talk::new(|setup: &mut Setup| setup.offload = offload);
        if watched {
            let words = Vec::from_iter((0..ring::DATA / 8 + 8192).map(|_| AtomicU64::new(0)));
            let ring = Ring::start(Vec::leak(words), 1, 0).expect("large enough");
            let engine = &mut talk.station.engines[0];
            engine.tap_mut().start_capture(Filter::default(), ring, || Instant(0));
        }
        talk.call(Call::listen(SocketAddress::v4([0; 4], talk.local_port), 64));
        let (peers, told, segments) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut side = Side { talk, peers, told, window: 0, segments };
        (0..PEERS).for_each(|i| side.open(i));
        side
    }

    /// Opens a connection; every second one has timestamps, and one of the others no scaled windows either.
    fn open(&mut self, i: usize) {
        let talk = &mut self.talk;
        talk.port = 4000 + i as u16;
        let stamp = i.is_multiple_of(2).then_some(100);
        let options = stamp.map_or(Vec::new(), stamps);
        let scaling = if i == PLAIN { &[][..] } else { &[1, 3, 3, 5] };
        let offered = [&[2, 4, 0x05, 0xb4], scaling, &options[..]].concat();
        talk.send_options(SYN, (999, 0), 60_000, &offered, &[]);
        let ack = talk.one().seq + 1;
        talk.send_options(ACK, (1000, ack), 2_000, &options, &[]);
        let [Condition::Knock { handle, .. }] = talk.events()[..] else { panic!("no knock") };
        talk.call(Call::accept(handle, Cookie(7 + i as u64)));
        self.peers.push(Peer { handle, seq: 1000, ack, stamp, held: VecDeque::new() });
        self.note();
    }

    /// A segment of peer `i`, to be received with the next step.
    fn give(&mut self, i: usize, seq: u32, ack: u32, window: u16, payload: &[u8]) {
        let options = self.peers[i].stamp.map_or(Vec::new(), stamps);
        self.talk.port = 4000 + i as u16;
        let frame = self.talk.frame(ACK | PSH, seq, ack, window, &options, payload);
        self.talk.give(frame);
    }

    /// Takes down what the station has said.
    fn note(&mut self) {
        for segment in self.talk.sent() {
            let peer = &mut self.peers[usize::from(segment.to) - 4000];
            let end = segment.seq.wrapping_add(segment.payload.len() as u32);
            if end.wrapping_sub(peer.ack) as i32 > 0 {
                peer.ack = end;
            }
            // As much of the payload as a person would read.
            let sum = format!("{} bytes, {:?}", segment.payload.len(), checksum(&segment.payload));
            self.segments.push(Segment { payload: sum.into_bytes(), ..segment });
        }
        // Connections of one batch are served in no order that is promised.
        self.segments.sort_by_key(|segment| segment.to);
        for event in self.talk.events() {
            match event {
                Condition::Sent { handle, bytes, window, .. } => {
                    self.told.entry(handle.0).or_default().sent += bytes;
                    self.window = window;
                }
                Condition::Recv { handle, addr, len, .. } => {
                    let bytes = self.talk.station.machines[0].context.bytes(addr, u64::from(len));
                    self.told.entry(handle.0).or_default().received.extend(bytes);
                    let peer = self.peers.iter_mut().find(|peer| peer.handle == handle);
                    peer.expect("a connection of ours").held.push_back((addr, len));
                }
                Condition::Result { handle, .. } => {
                    self.told.entry(handle.0).or_default().others.push(format!("{event:?}"));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// The application answers with some of what it holds, and returns some.
    fn answer(&mut self, i: usize, kind: u64, size: u64) {
        let peer = &mut self.peers[i];
        let heap = SgEntry { addr: HEAP_BASE + 64 * i as u64, len: size };
        let one = |entry| Call::sendv(peer.handle, 1, entry, SgEntry::default());
        let calls = match (kind, peer.held.pop_front()) {
            (0..=2, Some((addr, len))) => {
                let entry = SgEntry { addr, len: u64::from(len) };
                vec![one(entry).with_recv_done(u64::from(len))]
            }
            (3, Some((_, len))) => vec![one(heap).with_recv_done(u64::from(len))],
            (9, Some((addr, len))) => {
                // Two pieces, of which one is in what is returned with them.
                let received = SgEntry { addr, len: u64::from(len) };
                let call = Call::sendv(peer.handle, 2, heap, received);
                vec![call.with_recv_done(u64::from(len))]
            }
            (10, Some((_, len))) => {
                let rest = SgEntry { addr: heap.addr + 4099, len: size / 2 };
                let call = Call::sendv(peer.handle, 2, heap, rest);
                vec![call.with_recv_done(u64::from(len))]
            }
            (8, Some((addr, len))) => {
                let half = len / 2;
                peer.held.push_front((addr + u64::from(half), len - half));
                vec![one(heap).with_recv_done(u64::from(half))]
            }
            (4, Some((_, len))) => vec![Call::recv_done(peer.handle, u64::from(len))],
            (5, held) => {
                peer.held.extend(held);
                vec![Call::sendv(peer.handle, 2, heap, SgEntry { addr: heap.addr + 7, ..heap })]
            }
            (6, held) => {
                peer.held.extend(held);
                vec![one(heap), one(SgEntry { addr: heap.addr + 9, ..heap })]
            }
            (_, held) => {
                peer.held.extend(held);
                vec![one(heap)]
            }
        };
        self.talk.calls(&calls);
    }

    fn counters(&self) -> Vec<u64> {
        let stats = self.talk.station.engines[0].stats();
        let same = [Counter::PayloadIn, Counter::PayloadOut, Counter::TcpRetransmits];
        let counters = same.iter().map(|counter| stats.get(*counter));
        counters.chain(stats.drops.iter().copied()).collect()
    }
}

/// A request, and what the application does with it.
struct Exchange {
    payload: Vec<u8>,
    window: u16,
    /// Sent back in the iteration in which it came. Else `kind` and `size` are what [`Side::answer`] takes.
    at_once: Option<Echo>,
    kind: u64,
    size: u64,
    /// The answer is acknowledged by itself, with this window; if it says so in an iteration of its own, else with the next
    /// request.
    apart: Option<(u16, bool)>,
}

impl Exchange {
    /// Fifty bytes, and nothing else.
    fn plain(at_once: Option<Echo>) -> Exchange {
        Exchange { payload: vec![7; 50], window: 2_000, at_once, kind: 0, size: 0, apart: None }
    }

    fn random(rng: &mut Rng) -> Exchange {
        Exchange {
            payload: (0..1 + rng.below(200)).map(|_| rng.below(256) as u8).collect(),
            // Now and then it is smaller than the answer.
            window: rng.below(40) as u16 * 50,
            at_once: [
                None,
                None,
                None,
                Some(Echo::Whole),
                Some(Echo::Whole),
                Some(Echo::Last),
                Some(Echo::Heap),
                Some(Echo::Foreign),
                Some(Echo::Twice),
            ][rng.below(9) as usize],
            kind: [0, 0, 0, 3, 3, 8, 9, 10][rng.below(8) as usize],
            size: 1 + rng.below(300),
            apart: (rng.below(2) == 0).then(|| (rng.below(40) as u16 * 50, rng.below(2) == 0)),
        }
    }
}

impl Side {
    /// Peer `i` asks; its acknowledgement covers all that it was sent.
    fn ask(&mut self, i: usize, window: u16, payload: &[u8]) {
        if let Some(stamp) = &mut self.peers[i].stamp {
            *stamp += 1;
        }
        let Peer { seq, ack, .. } = self.peers[i];
        self.give(i, seq, ack, window, payload);
        self.peers[i].seq += payload.len() as u32;
        self.talk.step();
        self.note();
    }

    fn exchange(&mut self, i: usize, what: &Exchange) {
        self.talk.script().echo = what.at_once;
        self.ask(i, what.window, &what.payload);
        self.talk.script().echo = None;
        if what.at_once.is_some() {
            self.peers[i].held.clear();
        } else {
            self.answer(i, what.kind, what.size);
        }
        self.talk.step();
        self.note();
        if let Some((window, by_itself)) = what.apart {
            self.give(i, self.peers[i].seq, self.peers[i].ack, window, &[]);
            if by_itself {
                self.talk.step();
                self.note();
            }
        }
    }

    fn folded(&self) -> usize {
        self.talk.station.engines[0].conservation().folded
    }
}

/// Request and answer, whole and at once, the same for both: what folds a connection, and keeps it folded.
fn round(sides: &mut [Side; 2], i: usize, rng: &mut Rng) {
    let what = Exchange::random(rng);
    for side in sides {
        while !side.peers[i].held.is_empty() {
            side.answer(i, 4, 0);
        }
        side.exchange(i, &what);
    }
}

/// Two sides, of which one predicts, whose first connections have exchanged a few messages.
fn talking(at_once: Option<Echo>) -> [Side; 2] {
    let mut sides = [Side::new(true, false), Side::new(true, true)];
    let what = Exchange::plain(at_once);
    for side in &mut sides {
        for _ in 0..4 {
            side.exchange(0, &what);
            side.exchange(2, &what);
        }
    }
    assert_eq!(sides.each_ref().map(Side::folded), [2, 0]);
    sides
}

/// One step of the story, the same for both.
fn step(sides: &mut [Side; 2], rng: &mut Rng) {
    let i = rng.below(PEERS as u64) as usize;
    let kind = rng.below(20);
    let large = rng.below(8) == 0;
    let size = 1 + rng.below(if large { 1400 } else { 100 });
    let payload: Vec<u8> = (0..size).map(|_| rng.below(256) as u8).collect();
    let window = if rng.below(10) == 0 { rng.below(3) as u16 } else { 2_000 };
    let (answer, delay) = (rng.below(11), Duration::from_us(rng.below(400_000)));
    for side in sides {
        let Peer { seq, ack, .. } = side.peers[i];
        if let Some(stamp) = &mut side.peers[i].stamp {
            *stamp += 1;
        }
        match kind {
            0..=5 => {
                side.give(i, seq, ack, window, &payload);
                side.peers[i].seq += size as u32;
            }
            6 => side.give(i, seq, ack, window, &[]),
            7 => {
                // Two in one batch.
                side.give(i, seq, ack, window, &payload);
                side.give(i, seq + size as u32, ack, window, &payload);
                side.peers[i].seq += 2 * size as u32;
            }
            8 => side.give(i, seq + 10, ack, window, &payload),
            9 => side.give(i, seq - 3, ack, window, &payload[..1]),
            10 => side.give(i, seq, ack.wrapping_sub(1), window, &[]),
            11 => {
                if let Some(stamp) = &mut side.peers[i].stamp {
                    *stamp -= 50;
                }
                side.give(i, seq, ack, window, &payload);
                match &mut side.peers[i].stamp {
                    Some(stamp) => *stamp += 50,
                    None => side.peers[i].seq += size as u32,
                }
            }
            12 | 13 => side.talk.pass(delay),
            _ => side.answer(i, answer, size),
        }
        side.talk.step();
        side.note();
    }
}

/// How often it was seen that a connection was folded.
fn story(seed: u64, offload: bool, rounds: u64) -> usize {
    let mut folded = 0;
    let mut rng = Rng::from_seed(seed);
    let mut sides = [Side::new(offload, false), Side::new(offload, true)];
    for number in 0..STEPS {
        let i = rng.below(PEERS as u64) as usize;
        (0..rng.below(rounds + 1)).for_each(|_| round(&mut sides, i, &mut rng));
        folded += sides[0].talk.station.engines[0].conservation().folded;
        step(&mut sides, &mut rng);
        let [fast, slow] = &mut sides;
        let (a, b) = (std::mem::take(&mut fast.segments), std::mem::take(&mut slow.segments));
        assert_eq!(a, b, "segments, seed {seed}, step {number}");
        assert_eq!(fast.told, slow.told, "events, seed {seed}, step {number}");
        assert_eq!(fast.counters(), slow.counters(), "counters, seed {seed}, step {number}");
        fast.talk.now = fast.talk.now.max(slow.talk.now);
        slow.talk.now = fast.talk.now;
    }
    for side in &sides {
        assert_eq!(side.talk.station.engines[0].conservation().broken, 0);
    }
    assert_eq!(sides[1].talk.station.engines[0].conservation().folded, 0, "it is watched");
    folded
}

#[test]
fn predicted_or_not_the_same_is_said_to_peers_and_application() {
    for seed in 0..40 {
        story(seed, seed % 2 == 0, 0);
    }
}

/// What each side has sent in so many milliseconds, which is the same.
fn passes(sides: &mut [Side; 2], ms: u64) -> Vec<Segment> {
    let sent = sides.each_mut().map(|side| {
        side.segments.clear();
        side.talk.pass(Duration::from_ms(ms));
        side.note();
        std::mem::take(&mut side.segments)
    });
    assert_eq!(sent[0], sent[1], "in {ms} ms");
    let [sent, _] = sent;
    sent
}

#[test]
fn a_timer_that_fires_in_vain_leaves_a_connection_folded_and_one_that_is_due_does_not() {
    for at_once in [None, Some(Echo::Whole)] {
        let mut sides = talking(at_once);
        // The peers do not acknowledge the last answers: nothing is due for the least retransmission timeout.
        assert!(passes(&mut sides, 150).is_empty());
        assert_eq!(sides[0].folded(), 2);
        assert!(!passes(&mut sides, 100).is_empty(), "sent again, or a probe");
        assert_eq!(sides[0].folded(), 0);
    }
}

#[test]
fn an_acknowledgement_apart_and_the_request_after_it_leave_a_connection_folded() {
    // With timestamps and scaled windows, with neither, and with one of them, which is never folded.
    for (i, expected) in [(0, 1), (PLAIN, 1), (3, 0)] {
        let mut side = Side::new(true, false);
        let folded = Side::folded;
        for turn in 0..4 {
            let Peer { seq, ack, .. } = side.peers[i];
            side.give(i, seq, ack, 2_000, b"request");
            side.peers[i].seq += 7;
            side.talk.step();
            side.note();
            // The first answer may be the only one.
            assert_eq!(folded(&side), if turn > 1 { expected } else { 0 }, "{i}, asked");
            side.answer(i, 3, 30);
            side.talk.step();
            side.note();
            let expected = if turn > 0 { expected } else { 0 };
            assert_eq!(folded(&side), expected, "{i}, answered");
            side.give(i, side.peers[i].seq, side.peers[i].ack, 2_000, &[]);
            side.talk.step();
            side.note();
            assert_eq!(folded(&side), expected, "{i}, acknowledged");
            let told = &side.told[&side.peers[i].handle.0];
            assert_eq!(
                (told.sent, told.received.len()),
                (30 * (turn + 1), 7 * (turn as usize + 1))
            );
        }
        // Two more that say nothing new, and time: nothing is sent, and no memory is kept.
        for _ in 0..2 {
            side.give(i, side.peers[i].seq, side.peers[i].ack, 2_000, &[]);
            side.talk.step();
            assert_eq!(side.talk.events(), []);
        }
        side.segments.clear();
        side.talk.pass(Duration::from_ms(10_000));
        side.note();
        assert!(side.segments.is_empty(), "{:?}", side.segments);
        assert_eq!(folded(&side), 0);
        assert_eq!(side.talk.station.memory.pins_total(), 0);
    }
}

#[test]
fn a_request_after_an_acknowledgement_apart_is_acknowledged_in_time_if_it_is_not_answered() {
    for i in [0, PLAIN] {
        let mut side = Side::new(true, false);
        for answered in [true, true, true, false] {
            if !answered {
                // What was armed for the first requests has fired in vain by then.
                side.talk.pass(Duration::from_ms(100));
            }
            let Peer { seq, ack, .. } = side.peers[i];
            side.give(i, seq, ack, 2_000, b"request");
            side.peers[i].seq += 7;
            side.talk.step();
            side.note();
            if answered {
                side.answer(i, 3, 30);
                side.talk.step();
                side.note();
                side.give(i, side.peers[i].seq, side.peers[i].ack, 2_000, &[]);
                side.talk.step();
                side.note();
            }
        }
        assert_eq!(side.talk.station.engines[0].conservation().folded, 1);
        side.segments.clear();
        side.talk.pass(Duration::from_ms(60));
        side.note();
        let [ack] = &side.segments[..] else { panic!("{:?}", side.segments) };
        assert_eq!(ack.ack, side.peers[i].seq);
    }
}

#[test]
fn who_owes_an_answer_at_the_end_of_an_iteration_acknowledges_in_time() {
    let mut sides = talking(Some(Echo::Whole));
    // The timers of how they began have fired.
    assert!(passes(&mut sides, 100).is_empty());
    sides.iter_mut().for_each(|side| side.ask(0, 2_000, b"first"));
    assert!(passes(&mut sides, 30).is_empty());
    // In one iteration the first is answered, and the second owes.
    for side in &mut sides {
        let (addr, len) = side.peers[0].held.pop_front().expect("it is held");
        let entry = SgEntry { addr, len: u64::from(len) };
        let call = Call::sendv(side.peers[0].handle, 1, entry, SgEntry::default());
        side.talk.script().calls.push(call.with_recv_done(u64::from(len)));
        side.segments.clear();
        side.ask(2, 2_000, b"second");
        assert_eq!(side.segments.len(), 1, "the answer");
    }
    assert!(passes(&mut sides, 30).is_empty());
    let sent = passes(&mut sides, 20);
    let [Segment { to: 4002, flags: ACK, .. }] = sent[..] else { panic!("{sent:?}") };
}

#[test]
fn who_is_made_whole_for_nothing_in_the_iteration_of_its_request_acknowledges_in_time() {
    let mut sides = talking(Some(Echo::Whole));
    assert!(passes(&mut sides, 100).is_empty());
    for side in &mut sides {
        // More than it holds: refused.
        let call = Call::recv_done(side.peers[0].handle, 10_000);
        side.talk.script().calls.push(call);
        side.ask(0, 2_000, b"request");
    }
    assert!(passes(&mut sides, 30).is_empty());
    let sent = passes(&mut sides, 20);
    let [Segment { to: 4000, flags: ACK, .. }] = sent[..] else { panic!("{sent:?}") };
}

#[test]
fn answers_at_once_lose_no_buffer() {
    for echo in [Echo::Whole, Echo::Last, Echo::Heap] {
        let mut sides = talking(Some(Echo::Whole));
        for side in &mut sides {
            // Acknowledged by itself, so that no answer has a buffer.
            let apart = Some((2_000, true));
            let what = Exchange { apart, ..Exchange::plain(Some(echo)) };
            for _ in 0..20 {
                side.exchange(0, &what);
                side.exchange(2, &what);
                side.talk.station.assert_buffers_conserved();
            }
        }
        assert_eq!(sides[0].folded(), 2);
    }
}

#[test]
fn an_answer_at_once_that_reaches_beyond_its_request_is_refused() {
    let mut sides = talking(Some(Echo::Whole));
    for side in &mut sides {
        side.segments.clear();
        side.talk.script().echo = Some(Echo::Beyond);
        side.ask(0, 2_000, b"request");
        side.talk.script().echo = None;
        assert!(side.segments.iter().all(|segment| segment.payload.starts_with(b"0 bytes")));
        let handle = side.peers[0].handle;
        let [refused] = &side.told[&handle.0].others[..] else { panic!("not refused once") };
        assert!(refused.contains("Fault"), "{refused}");
        // It still holds the request.
        side.talk.call(Call::recv_done(handle, 7));
        side.talk.call(Call::recv_done(handle, 1));
        for i in [0, 2] {
            side.give(i, side.peers[i].seq, side.peers[i].ack, 2_000, &[]);
        }
        side.talk.step();
        assert_eq!(side.talk.statuses(), [ix_abi::Status::Invalid]);
        side.talk.station.assert_buffers_conserved();
    }
}

#[test]
fn who_is_not_folded_and_owes_an_answer_acknowledges_in_time_whatever_timer_it_has() {
    let what = Exchange::plain(Some(Echo::Whole));
    // After a silence, after the first answer, when the next was to fold it; one that is never folded.
    for (i, before) in [PLAIN, 3].into_iter().flat_map(|i| (0..3).map(move |before| (i, before))) {
        let mut sides = talking(Some(Echo::Whole));
        assert!(passes(&mut sides, 100).is_empty());
        for side in &mut sides {
            (0..before).for_each(|_| side.exchange(i, &what));
            side.ask(i, 2_000, b"request");
        }
        assert!(passes(&mut sides, 30).is_empty());
        let sent = passes(&mut sides, 20);
        let [Segment { to, flags: ACK, .. }] = sent[..] else { panic!("{sent:?}") };
        assert_eq!(usize::from(to), 4000 + i);
    }
}

/// After a timeout the window is one segment. Small answers do not use it in full, and fold the connection; one that does is
/// sent by who is complete: the window grows, and the application is told.
#[test]
fn the_window_of_a_connection_grows_by_an_answer_that_folds_it_no_more() {
    let mut sides = talking(None);
    assert!(!passes(&mut sides, 1_000).is_empty(), "sent again");
    let (mut windows, mut folded) = (Vec::new(), Vec::new());
    for size in [1, 1, 1, 1_300, 1] {
        windows.push(sides[0].window);
        for side in &mut sides {
            side.ask(0, 2_000, b"request");
            while side.peers[0].held.len() > 1 {
                side.answer(0, 4, 0);
            }
            side.answer(0, 3, size);
            side.talk.step();
            side.note();
        }
        assert_eq!(sides[0].told, sides[1].told);
        assert_eq!(sides[0].window, sides[1].window);
        folded.push(sides[0].folded());
    }
    assert_eq!(folded[2..], [1, 0, 1]);
    assert_eq!(sides[0].window, windows[3] + 1_300, "{windows:?}");
}

/// The timeout is not kept up while a connection is folded: who makes it whole finds what its measurements come to.
#[test]
fn the_timeout_of_a_connection_follows_what_was_measured_while_it_was_folded() {
    let mut sides = talking(Some(Echo::Whole));
    let what = Exchange::plain(Some(Echo::Whole));
    for _ in 0..12 {
        passes(&mut sides, 150);
        sides.iter_mut().for_each(|side| side.exchange(0, &what));
        assert!(sides[0].folded() > 0);
    }
    for side in &mut sides {
        // More than it holds: refused, but it is whole then.
        let call = Call::recv_done(side.peers[0].handle, 10_000);
        side.talk.call(call);
        side.note();
    }
    assert_eq!(sides[0].folded(), 0);
    let sent: Vec<_> = (0..50).map(|_| passes(&mut sides, 20).len()).collect();
    assert!(sent[..11].iter().all(|n| *n == 0) && sent.iter().any(|n| *n > 0), "{sent:?}");
}

#[test]
fn accept_of_a_connection_that_is_folded_is_refused() {
    let mut sides = talking(Some(Echo::Whole));
    for side in &mut sides {
        let call = Call::accept(side.peers[0].handle, Cookie(1));
        side.talk.call(call);
        side.note();
    }
    let refused = &sides[1].told[&sides[1].peers[0].handle.0].others;
    assert!(refused.len() == 1 && refused[0].contains("status: State"), "{refused:?}");
    assert_eq!(sides[0].told, sides[1].told);
}

#[test]
fn folded_or_not_the_same_is_said_whatever_comes_between_requests() {
    let folded: usize = (0..40).map(|seed| story(seed, seed % 2 == 0, 5)).sum();
    assert!(folded > 1_000, "seen {folded} times");
}
