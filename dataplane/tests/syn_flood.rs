//! A flood of SYNs from forged addresses (RFC 4987): those who are connected talk on, new clients still
//! connect, and memory does not grow.
mod support;

use ix_abi::stats::{Counter, Drop as Reason};
use ix_dataplane::checksum;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::{Duration, Instant};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;
use support::apps::Echo;
use support::station::{Setup, Station};

/// Counts the bytes that a thread has allocated.
struct Counting;

thread_local! {
    static LIVE: Cell<i64> = const { Cell::new(0) };
}

// SAFETY: passes everything on; the cell needs no allocation and no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.set(LIVE.get() + layout.size() as i64);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        LIVE.set(LIVE.get() - layout.size() as i64);
        // SAFETY: passed on.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const SEED: u64 = 4987;
const FLOOD: u64 = 150_000;
const PEERS: u16 = 1000;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;

type Ends = ([u8; 4], u16);

/// A segment to port 7 of the station; the sender's Ethernet address is that of the router.
fn segment(from: Ends, flags: u8, seq: u32, ack: u32, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = 40 + options.len() + payload.len();
    let mut f = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 254, 8, 0, 0x45, 0];
    f.extend((total as u16).to_be_bytes());
    f.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
    f.extend(from.0);
    f.extend([10, 0, 0, 1]);
    let sum = checksum::finish(checksum::sum(&f[14..34]));
    f[24..26].copy_from_slice(&sum);
    f.extend(from.1.to_be_bytes());
    f.extend([0, 7]);
    f.extend(seq.to_be_bytes());
    f.extend(ack.to_be_bytes());
    f.extend([((20 + options.len()) as u8 / 4) << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    f.extend(options);
    f.extend(payload);
    let pseudo = checksum::pseudo_v4(from.0, [10, 0, 0, 1], 6, (total - 20) as u16);
    let sum = checksum::finish(checksum::add(pseudo, checksum::sum(&f[34..])));
    f[50..52].copy_from_slice(&sum);
    f
}

/// A client that keeps to the rules.
#[derive(Default)]
struct Peer {
    established: bool,
    timestamps: bool,
    seq: u32,
    ack: u32,
    their_stamp: u32,
    asked: u32,
    answered: u32,
    reset: bool,
}

struct Scene {
    station: Station,
    now: Instant,
    peers: HashMap<Ends, Peer>,
    /// Answers to those who never asked.
    backscatter: u64,
}

impl Scene {
    fn new() -> Scene {
        let mut setup = Setup::new(1);
        setup.gateway = Some([10, 0, 0, 254]);
        setup.buffers = 4096;
        setup.rx_depth = 512;
        setup.connections = 512;
        let mut station = Station::new(setup);
        station.start(vec![Box::new(Echo::new(7))]);
        let mut scene =
            Scene { station, now: Instant(1_000_000), peers: HashMap::new(), backscatter: 0 };
        scene.run();
        scene
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.station.machines[0].rx[0].inbox.push_back(frame);
    }

    /// One iteration, and what the peers answer to it.
    fn step(&mut self) -> bool {
        self.now = self.now + Duration::from_us(20);
        let busy = self.station.step(self.now).busy;
        let frames: Vec<_> = self.station.machines[0].tx.outbox.drain(..).collect();
        for frame in &frames {
            self.take(frame);
        }
        busy || !frames.is_empty()
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn take(&mut self, f: &[u8]) {
        if f[12..14] == [8, 6] && f[20..22] == [0, 1] {
            // The router knows everybody's way.
            let mut answer =
                vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 254, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
            answer.extend([2, 0, 0, 0, 0, 254]);
            answer.extend(&f[38..42]);
            answer.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 1]);
            return self.give(answer);
        }
        let word = |at: usize| u32::from_be_bytes(f[at..at + 4].try_into().unwrap());
        let to = (f[30..34].try_into().unwrap(), u16::from_be_bytes([f[36], f[37]]));
        let Some(peer) = self.peers.get_mut(&to) else {
            self.backscatter += 1;
            return;
        };
        let header = usize::from(f[46] >> 4) * 4;
        let total = 14 + usize::from(u16::from_be_bytes([f[16], f[17]]));
        let (flags, seq, len) = (f[47], word(38), (total - 34 - header) as u32);
        let options = &f[54..34 + header];
        if peer.timestamps {
            let at = options.windows(2).position(|w| w == [8, 10]).expect("timestamps");
            peer.their_stamp = word(54 + at + 2);
        }
        peer.reset |= flags & RST != 0;
        if flags & SYN != 0 {
            peer.established = true;
            peer.ack = seq + 1;
        } else if len > 0 && seq == peer.ack {
            peer.ack += len;
            peer.answered += len;
        }
        if flags & SYN != 0 || len > 0 {
            let frame = say(to, peer, ACK, &[]);
            self.give(frame);
        }
    }

    fn connect(&mut self, from: Ends, timestamps: bool) {
        let peer = Peer { timestamps, seq: from.1.into(), ..Peer::default() };
        let syn = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let options = if timestamps { &syn[..] } else { &syn[..4] };
        let frame = segment(from, SYN, peer.seq.wrapping_sub(1), 0, options, &[]);
        self.peers.insert(from, peer);
        self.give(frame);
    }

    fn ask(&mut self, from: Ends) {
        let peer = self.peers.get_mut(&from).unwrap();
        assert!(peer.established, "{from:?}");
        let frame = say(from, peer, ACK | PSH, b"0123456789abcdef");
        peer.seq += 16;
        peer.asked += 16;
        self.give(frame);
    }
}

fn say(from: Ends, peer: &Peer, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut options = vec![1, 1, 8, 10, 0, 0, 0, 9];
    options.extend(peer.their_stamp.to_be_bytes());
    let options = if peer.timestamps { &options[..] } else { &[] };
    segment(from, flags, peer.seq, peer.ack, options, payload)
}

fn client(i: u16) -> Ends {
    ([10, 1, (i >> 8) as u8, i as u8], 10_000 + i)
}

#[test]
fn a_flood_loses_nobody_admits_new_clients_and_takes_no_memory() {
    let mut scene = Scene::new();
    for i in 0..PEERS {
        scene.connect(client(i), i % 2 == 0);
        scene.run();
        scene.ask(client(i));
        scene.run();
    }
    assert_eq!(scene.station.app::<Echo>(0).open(), usize::from(PEERS));
    let mut rng = Rng::from_seed(SEED);
    let mut warm = None;
    let mut newcomers = Vec::new();
    for sent in 0..FLOOD {
        let from = (rng.next_u32().to_be_bytes(), rng.next_u32() as u16);
        // Nobody that the station drops before it looks at TCP.
        let from = ([20 + from.0[0] % 100, from.0[1], from.0[2], from.0[3]], from.1);
        let options = [2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7];
        let options = if rng.chance(1, 2) { &options[..] } else { &[] };
        scene.give(segment(from, SYN, rng.next_u32(), 0, options, &[]));
        if sent % 16 == 0 {
            scene.ask(client((sent / 16 % u64::from(PEERS)) as u16));
        }
        if sent % 3000 == 2999 {
            let from = client(PEERS + (sent / 3000) as u16);
            newcomers.push(from);
            scene.connect(from, sent % 2000 < 1000);
        }
        if sent % 64 == 63 {
            for _ in 0..4 {
                scene.step();
            }
        }
        if sent == FLOOD / 10 {
            scene.run();
            let slots = scene.station.engines[0].conservation().slots;
            warm = Some((slots, LIVE.get()));
        }
    }
    scene.run();
    let live = LIVE.get();
    let (slots, before) = warm.unwrap();
    let station = &scene.station;
    assert_eq!(station.engines[0].conservation().slots, slots, "slots do not grow");
    // What the application and the test keep of 45 newcomers; a slot for each SYN would be 60 MB.
    assert!(live - before < 50_000, "{before} bytes, then {live}");
    assert!(station.count(Counter::SynCookiesSent) > FLOOD * 9 / 10);
    assert!(scene.backscatter > FLOOD * 9 / 10, "every SYN is answered: {}", scene.backscatter);
    assert_eq!(station.dropped(Reason::TxRingFull), 0);
    assert_eq!(station.dropped(Reason::TcpTableFull), 0);
    for from in newcomers.iter().copied() {
        scene.ask(from);
        scene.run();
    }
    assert_eq!(newcomers.len(), 50);
    for (from, peer) in &scene.peers {
        assert!(peer.established && !peer.reset && peer.asked >= 16, "{from:?}");
        assert_eq!(peer.asked, peer.answered, "{from:?}");
    }
    let accepted = scene.station.count(Counter::SynCookiesAccepted);
    assert!(accepted >= 40, "{accepted} newcomers by cookie");
    assert_eq!(scene.station.app::<Echo>(0).open(), usize::from(PEERS) + 50);
    assert_eq!(scene.station.app::<Echo>(0).dead, []);
}

#[test]
fn a_flood_of_forged_acknowledgements_makes_no_connection() {
    let mut scene = Scene::new();
    let mut rng = Rng::from_seed(SEED + 1);
    // Cookies are out in every group.
    for i in 0..4000_u16 {
        scene.give(segment(([30, 0, (i >> 8) as u8, i as u8], i), SYN, 5, 0, &[], &[]));
        if i % 64 == 63 {
            scene.step();
        }
    }
    scene.run();
    let before = scene.station.engines[0].conservation();
    for i in 0..100_000 {
        let from = (rng.next_u32().to_be_bytes(), rng.next_u32() as u16);
        let from = ([20 + from.0[0] % 100, from.0[1], from.0[2], from.0[3]], from.1);
        scene.give(segment(from, ACK, rng.next_u32(), rng.next_u32(), &[], b"GET /"));
        if i % 64 == 63 {
            scene.step();
        }
    }
    scene.run();
    let station = &scene.station;
    assert_eq!(station.count(Counter::SynCookiesAccepted), 0);
    assert!(station.dropped(Reason::TcpCookie) > 99_000, "each was looked at");
    let after = station.engines[0].conservation();
    assert_eq!((after.connections, after.slots), (before.connections, before.slots));
}
