//! The tap against the wire: what a capture shows is what the NIC received and sent, once each, with
//! whole checksums, whichever core took or sent it.
use crate::support::app::App;
use crate::support::apps::{Client, Echo};
use crate::support::net::{End, Net};
use crate::support::station::{Setup, Station};
use ix_abi::SocketAddress;
use ix_abi::capture::{Direction, Filter, Head, NO_GROUP, flag, ring};
use ix_abi::stats::Counter;
use ix_dataplane::checksum;
use ix_dataplane::device::Pseudo;
use ix_dataplane::tap::Ring;
use ix_dataplane::time::{Duration, Instant};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

const SERVER: SocketAddress = SocketAddress::v4([10, 0, 0, 1], 7);

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn clock() -> Instant {
    Instant(NOW.get())
}

fn line(args: std::fmt::Arguments<'_>) {
    LINES.with_borrow_mut(|lines| lines.push(args.to_string()));
}

/// A station with a ring for each core, and what went by on its wire.
struct Watched {
    station: Station,
    rings: Vec<&'static [AtomicU64]>,
    received: Vec<Vec<u8>>,
    sent: Vec<Vec<u8>>,
    captured: Vec<(Head, Vec<u8>)>,
}

impl Watched {
    fn new(mut station: Station, filter: Filter) -> Watched {
        let mut rings = Vec::new();
        for engine in &mut station.engines {
            let words = Vec::from_iter((0..65_536 / 8).map(|_| AtomicU64::new(0)));
            let words: &'static [AtomicU64] = Vec::leak(words);
            let ring = Ring::start(words, 1, 0).expect("large enough");
            engine.tap_mut().start_capture(filter, ring, clock);
            rings.push(words);
        }
        let (received, sent, captured) = (Vec::new(), Vec::new(), Vec::new());
        Watched { station, rings, received, sent, captured }
    }

    /// The client's part.
    fn read(&mut self) {
        for words in &self.rings {
            let get = |at: usize| words[at / 8].load(Ordering::Acquire);
            let capacity = words.len() * 8 - ring::DATA;
            let (mut at, end) = (get(ring::CONSUMED), get(ring::PRODUCED));
            while at < end {
                let place = (at % capacity as u64) as usize;
                let left = capacity - place;
                let word =
                    |i: usize| if i * 8 < left { get(ring::DATA + place + i * 8) } else { 0 };
                let head = Head::decode(std::array::from_fn(word), left).expect("a head");
                at += u64::from(head.bytes);
                if head.original > 0 {
                    let byte = |i: usize| word(4 + i / 8).to_le_bytes()[i % 8];
                    let bytes = (0..usize::from(head.captured)).map(byte).collect();
                    self.captured.push((head, bytes));
                }
            }
            words[ring::CONSUMED / 8].store(at, Ordering::Release);
            assert_eq!(get(ring::MISSED), 0);
        }
    }

    fn of(&self, out: bool) -> Vec<Vec<u8>> {
        let way = self.captured.iter().filter(|(head, _)| (head.flags & flag::OUT != 0) == out);
        way.map(|(_, bytes)| bytes.clone()).collect()
    }
}

impl End for Watched {
    fn step(&mut self, now: Instant) -> Instant {
        NOW.set(now.0);
        let next = End::step(&mut self.station, now);
        self.read();
        next
    }

    fn take(&mut self) -> Vec<Vec<u8>> {
        let frames = self.station.take();
        self.sent.extend(frames.iter().cloned());
        frames
    }

    fn give(&mut self, frame: Vec<u8>) {
        self.received.push(frame.clone());
        self.station.give(frame);
    }
}

fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

/// An echo of `bytes` bytes to a watched server.
fn exchange(seed: u64, cores: u16, offload: bool, bytes: u64, filter: Filter) -> Watched {
    exchange_with(seed, Setup { cores, offload, ..Setup::new(1) }, bytes, filter)
}

fn exchange_with(seed: u64, setup: Setup, bytes: u64, filter: Filter) -> Watched {
    let (cores, offload) = (setup.cores, setup.offload);
    let mut server = Station::new(setup);
    let echoes = (0..cores).map(|core| {
        let mut echo = Echo::new(7);
        if core > 0 {
            echo.listens_already();
        }
        Box::new(echo) as Box<dyn App>
    });
    server.start(echoes.collect());
    let mut server = Watched::new(server, filter);
    let mut client = Station::new(Setup { seed: seed * 1000, offload, ..Setup::new(2) });
    let mut net = Net::new(seed);
    net.run_for(&mut server, &mut client, Duration::from_ms(1));
    client.start(vec![Box::new(Client::new(SERVER, seed, bytes))]);
    net.run_until(&mut server, &mut client, Duration::from_s(20), |_, c| c.app::<Client>(0).done());
    assert_eq!(client.app::<Client>(0).received, bytes);
    server
}

#[test]
fn a_capture_has_every_frame_once_as_it_was_on_the_wire() {
    let mut steered = 0;
    for seed in 1..=6 {
        for (cores, offload) in [(1, false), (1, true), (2, false), (2, true)] {
            let server = exchange(seed, cores, offload, 100_000, Filter::default());
            assert!(server.sent.len() > 60 && server.received.len() > 60);
            assert_eq!(sorted(server.of(false)), sorted(server.received.clone()), "received");
            assert_eq!(sorted(server.of(true)), sorted(server.sent.clone()), "sent");
            let completed = server.captured.iter().any(|(h, _)| h.flags & flag::COMPLETED != 0);
            assert_eq!(completed, offload);
            // A connection's frames are sent by the owner of its group.
            for (head, bytes) in server.captured.iter().filter(|(h, _)| h.flags & flag::OUT != 0) {
                assert!(bytes[12..14] != [8, 0] || head.core == head.group % cores, "{head:?}");
            }
            let station = &server.station;
            steered += station.count(Counter::RxSteeredIn);
            let kept: usize = server.captured.iter().map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(station.count(Counter::CaptureBytes), kept as u64);
            assert_eq!(station.count(Counter::PayloadCopied), 0);
        }
    }
    assert!(steered > 0, "no connection was on the other core");
}

#[test]
fn both_directions_of_a_connection_have_one_group_and_a_filter_for_it_finds_them() {
    let all = exchange(3, 2, true, 20_000, Filter::default());
    let is_tcp = |bytes: &[u8]| bytes[12..14] == [8, 0] && bytes[23] == 6;
    let tcp = all.captured.iter().filter(|(_, bytes)| is_tcp(bytes));
    let groups: std::collections::BTreeSet<u16> = tcp.map(|(head, _)| head.group).collect();
    let [group] = groups.iter().copied().collect::<Vec<_>>()[..] else { panic!("{groups:?}") };
    assert_ne!(group, NO_GROUP);
    let only = |group| Filter { group: Some(ix_abi::GroupId(group)), ..Filter::default() };
    let found = exchange(3, 2, true, 20_000, only(group));
    let frames = all.captured.iter().filter(|(_, bytes)| is_tcp(bytes)).count();
    assert_eq!(found.captured.len(), frames);
    assert!(exchange(3, 2, true, 20_000, only((group + 1) % 8)).captured.is_empty());
}

/// What the device wants of headers is not what others want to see.
#[test]
fn frames_for_the_device_to_cut_look_the_same_however_it_wants_their_headers() {
    let captured = |gso_pseudo| {
        let setup = Setup { offload: true, tso: 2000, gso_pseudo, mtu: 576, ..Setup::new(1) };
        let filter = Filter { direction: Direction::Out, ..Filter::default() };
        let server = exchange_with(5, setup, 40_000, filter);
        assert!(server.station.machines[0].tx.large > 5);
        server.of(true)
    };
    let [with, without] = [Pseudo::WithLength, Pseudo::WithoutLength].map(captured);
    assert!(with.iter().any(|bytes| bytes.len() > 590), "large ones");
    assert!(with == without);
    for bytes in with.iter().filter(|bytes| bytes[12..14] == [8, 0]) {
        assert!(checksum::is_good(checksum::sum(&bytes[14..34])));
    }
}

#[test]
fn direction_and_snaplen_are_obeyed() {
    let filter = Filter { direction: Direction::Out, snaplen: 60, ..Filter::default() };
    let server = exchange(4, 1, true, 20_000, filter);
    assert_eq!(server.captured.len(), server.sent.len());
    for ((head, bytes), sent) in server.captured.iter().zip(&server.sent) {
        assert_eq!((usize::from(head.original), bytes.len()), (sent.len(), sent.len().min(60)));
        assert_eq!(bytes[..], sent[..sent.len().min(60)], "the checksum is of the whole frame");
    }
}

#[test]
fn a_trace_says_a_line_for_each_frame_and_none_when_it_has_ended() {
    let mut server = Station::new(Setup::new(1));
    server.start(vec![Box::new(Echo::new(7))]);
    server.engines[0].tap_mut().start_trace(Filter::default(), line, clock);
    assert!(server.engines[0].tap_mut().is_on());
    let mut client = Station::new(Setup::new(2));
    let mut net = Net::new(1);
    net.run_for(&mut server, &mut client, Duration::from_ms(1));
    client.start(vec![Box::new(Client::new(SERVER, 1, 5000))]);
    net.run_until(&mut server, &mut client, Duration::from_s(9), |_, c| c.app::<Client>(0).done());
    let lines = LINES.take();
    let frames = server.count(Counter::RxPackets) + server.count(Counter::TxPackets);
    assert_eq!(lines.len() as u64, frames, "{lines:#?}");
    assert!(lines.iter().any(|l| l.contains("> 10.0.0.1.7 S ")), "{lines:#?}");
    assert!(lines.iter().any(|l| l.contains("tx c0 g") && l.contains(" S. ")), "{lines:#?}");
    server.engines[0].tap_mut().stop_trace();
    assert!(!server.engines[0].tap_mut().is_on());
    net.run_for(&mut server, &mut client, Duration::from_s(70));
    assert!(LINES.take().is_empty());
}

#[test]
fn a_client_that_reads_nothing_costs_packets_of_the_capture_and_no_others() {
    let mut server = Station::new(Setup::new(1));
    server.start(vec![Box::new(Echo::new(7))]);
    let words = Vec::leak(Vec::from_iter((0..65_536 / 8).map(|_| AtomicU64::new(0))));
    let ring = Ring::start(words, 1, 0).expect("large enough");
    server.engines[0].tap_mut().start_capture(Filter::default(), ring, clock);
    let mut client = Station::new(Setup::new(2));
    let mut net = Net::new(1);
    net.run_for(&mut server, &mut client, Duration::from_ms(1));
    client.start(vec![Box::new(Client::new(SERVER, 1, 500_000))]);
    net.run_until(&mut server, &mut client, Duration::from_s(9), |_, c| c.app::<Client>(0).done());
    assert_eq!(client.app::<Client>(0).received, 500_000);
    let missed = server.count(Counter::CaptureMissed);
    let get = |at: usize| words[at / 8].load(Ordering::Relaxed);
    assert!(missed > 100 && get(ring::MISSED) == missed, "{missed}");
    let frames = server.count(Counter::RxPackets) + server.count(Counter::TxPackets);
    assert_eq!((get(ring::SEEN), get(ring::CAPTURED) + missed), (frames, frames));
}
