//! Beginnings and ends of connections in a straight line against the code that is complete without it: as in
//! `fast.rs` two stations live through the same story, one of them watched by the tap.
use crate::support::station::Setup;
use crate::support::talk::*;
use ix_abi::call::{Op, SgEntry};
use ix_abi::capture::{Filter, ring};
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Counter;
use ix_abi::{Call, Condition, Cookie, Handle, SocketAddress};
use ix_dataplane::rng::Rng;
use ix_dataplane::tap::Ring;
use ix_dataplane::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

const PEERS: usize = 5;
const STEPS: usize = 500;
const FIRST_PORT: u16 = 4000;
/// Small, so that it is full now and then.
const BACKLOG: u32 = 3;

/// What the application was told of one connection, in however many records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    sent: u32,
    received: Vec<u8>,
    others: Vec<String>,
}

/// A connection as its peer knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Peer {
    open: bool,
    seq: u32,
    /// Next that is expected of the station.
    ack: u32,
    stamp: Option<u32>,
    handle: Handle,
    accepted: bool,
    held: u64,
}

struct Side {
    talk: Talk,
    peers: Vec<Peer>,
    told: BTreeMap<u64, Told>,
    segments: Vec<Segment>,
}

fn stamps(value: u32) -> Vec<u8> {
    [&[1, 1, 8, 10], &value.to_be_bytes()[..], &[0; 4]].concat()
}

/// Options of a SYN: the usual ones, in another order, few, none.
fn offer(kind: u64, stamp: Option<u32>) -> Vec<u8> {
    let Some(stamp) = stamp else {
        return if kind == 0 { Vec::new() } else { vec![2, 4, 5, 0xb4, 1, 3, 3, 5] };
    };
    let value = stamp.to_be_bytes();
    match kind {
        0 => [&[1, 3, 3, 7, 2, 4, 5, 0xb4, 1, 1, 8, 10], &value[..], &[0; 4]].concat(),
        _ => [&[2, 4, 5, 0xb4, 4, 2, 8, 10], &value[..], &[0, 0, 0, 0, 1, 3, 3, 7]].concat(),
    }
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
        talk.call(Call::listen(SocketAddress::v4([0; 4], talk.local_port), BACKLOG));
        let (told, segments) = (BTreeMap::new(), Vec::new());
        let mut side = Side { talk, peers: vec![Peer::default(); PEERS], told, segments };
        side.note();
        side.told.clear();
        side
    }

    /// A segment of peer `i`.
    fn give(&mut self, i: usize, flags: u8, (seq, ack): (u32, u32), window: u16, payload: &[u8]) {
        let options = self.peers[i].stamp.map_or(Vec::new(), stamps);
        self.give_options(i, flags, (seq, ack), window, &options, payload);
    }

    fn give_options(
        &mut self,
        i: usize,
        flags: u8,
        (seq, ack): (u32, u32),
        window: u16,
        options: &[u8],
        payload: &[u8],
    ) {
        self.talk.port = FIRST_PORT + i as u16;
        let frame = self.talk.frame(flags, seq, ack, window, options, payload);
        self.talk.give(frame);
    }

    /// Takes down what the station has said.
    fn note(&mut self) {
        for segment in self.talk.sent() {
            let peer = &mut self.peers[usize::from(segment.to - FIRST_PORT)];
            let len = segment.payload.len() as u32 + u32::from(segment.flags & (SYN | FIN) != 0);
            let end = segment.seq.wrapping_add(len);
            if segment.flags & SYN != 0 || end.wrapping_sub(peer.ack) as i32 > 0 {
                peer.ack = end;
            }
            self.segments.push(segment);
        }
        // Connections of one batch are served in no order that is promised.
        self.segments.sort_by_key(|segment| segment.to);
        for event in self.talk.events() {
            self.event(&event);
        }
    }

    fn event(&mut self, event: &Condition) {
        let peers = &mut self.peers;
        match *event {
            Condition::Sent { handle, bytes, .. } => {
                self.told.entry(handle.0).or_default().sent += bytes;
            }
            Condition::Recv { handle, addr, len, .. } => {
                if let Some(peer) = peers.iter_mut().find(|peer| peer.handle == handle) {
                    peer.held += u64::from(len);
                }
                let bytes = self.talk.station.machines[0].context.bytes(addr, u64::from(len));
                self.told.entry(handle.0).or_default().received.extend(bytes);
            }
            Condition::Knock { handle, remote, .. } => {
                let peer = &mut peers[usize::from(remote.port - FIRST_PORT)];
                (peer.handle, peer.accepted, peer.held) = (handle, false, 0);
                self.told.entry(handle.0).or_default().others.push(format!("{event:?}"));
            }
            Condition::Dead { handle, .. } => {
                if let Some(peer) = peers.iter_mut().find(|peer| peer.handle == handle) {
                    peer.handle = Handle::NONE;
                }
                self.told.entry(handle.0).or_default().others.push(format!("{event:?}"));
            }
            Condition::Eof { handle, .. } | Condition::Result { handle, .. } => {
                self.told.entry(handle.0).or_default().others.push(format!("{event:?}"));
            }
            ref other => panic!("unexpected: {other:?}"),
        }
    }

    /// The application does something with the connection of peer `i`.
    fn act(&mut self, i: usize, kind: u64, size: u64) {
        let peer = &mut self.peers[i];
        let handle = peer.handle;
        if handle == Handle::NONE {
            return;
        }
        let entry = SgEntry { addr: HEAP_BASE + 64 * i as u64, len: size };
        let answer = Call::sendv(handle, 1, entry, SgEntry::default());
        let close = Call::new(Op::Close, handle);
        let calls = if peer.accepted {
            let done = std::mem::take(&mut peer.held);
            match kind {
                0 => vec![Call::new(Op::Abort, handle)],
                1 => vec![Call::new(Op::Shutdown, handle)],
                2..=4 => vec![close],
                5 => vec![answer.with_recv_done(done), close],
                _ => vec![answer.with_recv_done(done)],
            }
        } else {
            peer.accepted = true;
            let accept = Call::accept(handle, Cookie(7 + i as u64));
            match kind {
                0 => vec![Call::new(Op::Reject, handle)],
                1 => vec![accept, close],
                _ => vec![accept],
            }
        };
        self.talk.calls(&calls);
    }

    fn counters(&self) -> Vec<u64> {
        let stats = self.talk.station.engines[0].stats();
        let same = [
            Counter::PayloadIn,
            Counter::PayloadOut,
            Counter::TcpRetransmits,
            Counter::TcpAccepted,
            Counter::TcpClosed,
            Counter::TcpConnections,
            Counter::TcpResetsSent,
            Counter::TcpResetsReceived,
            Counter::TcpTimeouts,
            Counter::SynCookiesSent,
        ];
        let counters = same.iter().map(|counter| stats.get(*counter));
        counters.chain(stats.drops.iter().copied()).collect()
    }
}

/// What happens in one step, drawn once for both.
struct Draw {
    i: usize,
    kind: u64,
    payload: Vec<u8>,
    window: u16,
    number: u32,
    act: u64,
    delay: Duration,
}

impl Draw {
    fn new(rng: &mut Rng) -> Draw {
        let size = 1 + rng.below(100);
        let long = if rng.below(12) == 0 { 3_000_000 } else { 60_000 };
        Draw {
            i: rng.below(PEERS as u64) as usize,
            kind: rng.below(24),
            payload: (0..size).map(|_| rng.below(256) as u8).collect(),
            window: if rng.below(12) == 0 { rng.below(3) as u16 } else { 2_000 },
            number: rng.next_u32(),
            act: rng.below(10),
            delay: Duration::from_us(rng.below(long)),
        }
    }
}

/// One step of the story, the same for both.
fn step(side: &mut Side, draw: &Draw) {
    let Draw { i, kind, ref payload, window, number, act, delay } = *draw;
    if !side.peers[i].open {
        let stamp = (number & 1 == 0).then_some(100 + (number >> 20));
        let before = std::mem::take(&mut side.peers[i]);
        side.peers[i] = Peer { open: true, seq: number, stamp, ..before };
        let options = offer(u64::from(number >> 1 & 3), stamp);
        side.give_options(i, SYN, (number, 0), window, &options, &[]);
        side.peers[i].seq = number.wrapping_add(1);
    } else {
        if let Some(stamp) = &mut side.peers[i].stamp {
            *stamp += 1;
        }
        segment(side, draw);
        match kind {
            16 => side.peers[i].open = number & 3 != 0,
            17 => side.talk.pass(delay),
            18.. => side.act(i, act, payload.len() as u64),
            _ => {}
        }
    }
    let _ = window;
    side.talk.step();
    side.note();
}

/// A segment of the peer, the expected one or another.
fn segment(side: &mut Side, draw: &Draw) {
    let Draw { i, kind, ref payload, window, number, .. } = *draw;
    let Peer { seq, ack, .. } = side.peers[i];
    let size = payload.len() as u32;
    let (grows, end) = (seq.wrapping_add(size), seq.wrapping_add(1));
    match kind {
        0..=4 => side.give(i, ACK, (seq, ack), window, &[]),
        5 => side.give(i, ACK, (seq, ack.wrapping_sub(number % 3)), window, &[]),
        6 => side.give(i, ACK, (seq, ack.wrapping_add(1)), window, &[]),
        7 | 8 => {
            side.give(i, ACK | PSH, (seq, ack), window, payload);
            side.peers[i].seq = grows;
        }
        9..=11 => {
            side.give(i, ACK | FIN, (seq, ack), window, &[]);
            side.peers[i].seq = end;
        }
        12 => {
            let seq = if number & 1 == 0 { seq } else { seq.wrapping_add(size) };
            side.give(i, ACK | FIN, (seq, ack.wrapping_sub(number >> 8 & 1)), window, payload);
            side.peers[i].seq = grows.wrapping_add(1);
        }
        13 => side.give(i, SYN, (seq.wrapping_sub(number & 1), 0), window, &[]),
        14 => side.give(i, RST | ACK, (seq.wrapping_add(number & 1), ack), window, &[]),
        15 => {
            // Of the past.
            let stamp = side.peers[i].stamp;
            side.peers[i].stamp = stamp.map(|stamp| stamp.wrapping_sub(50));
            let flags = if number & 1 == 0 { ACK } else { ACK | FIN };
            side.give(i, flags, (seq, ack), window, &[]);
            side.peers[i].stamp = stamp;
        }
        _ => {}
    }
}

fn story(seed: u64, offload: bool) {
    let mut rng = Rng::from_seed(seed);
    let mut sides = [Side::new(offload, false), Side::new(offload, true)];
    for number in 0..STEPS {
        let draw = Draw::new(&mut rng);
        for side in &mut sides {
            step(side, &draw);
        }
        let [fast, slow] = &mut sides;
        let (a, b) = (std::mem::take(&mut fast.segments), std::mem::take(&mut slow.segments));
        assert_eq!(a, b, "segments, seed {seed}, step {number}");
        assert_eq!(fast.told, slow.told, "events, seed {seed}, step {number}");
        assert_eq!(fast.counters(), slow.counters(), "counters, seed {seed}, step {number}");
        fast.talk.now = fast.talk.now.max(slow.talk.now);
        slow.talk.now = fast.talk.now;
    }
    let stats = sides[0].talk.station.engines[0].stats();
    assert!(stats.get(Counter::TcpClosed) > 5, "few have ended, seed {seed}");
    for side in &sides {
        assert_eq!(side.talk.station.engines[0].conservation().broken, 0);
    }
}

#[test]
fn in_a_straight_line_or_not_connections_begin_and_end_alike() {
    for seed in 0..60 {
        story(seed, seed % 2 == 0);
    }
}
