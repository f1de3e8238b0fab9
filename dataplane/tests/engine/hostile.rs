//! What a broken or hostile application, and scarcity, may not do to the engine or to others.
use crate::support::apps::{Client, Echo};
use crate::support::net::Net;
use crate::support::peer::Peer;
use crate::support::station::{Setup, Station};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::{EVENT_SLOTS, HEAP_BASE, INFO_BASE, PAGE_BYTES, RX_BASE};
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Cookie, Handle, Op, SocketAddress, Status};
use ix_dataplane::app::Drain;
use ix_dataplane::platform::AppFault;
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Duration;

const PORT: SocketAddress = SocketAddress::v4([0; 4], 7);

fn open(talk: &mut Talk) -> (Handle, u32) {
    talk.call(Call::listen(PORT, 8));
    talk.handshake(0, 60_000, &[])
}

#[test]
fn what_the_device_has_lost_is_counted_once() {
    let mut talk = Talk::new(|_| ());
    for (total, lost) in [(0, 0), (3, 3), (3, 3), (7, 7), (2, 7), (4, 9)] {
        talk.station.engines[0].count_missed(total);
        assert_eq!(talk.station.dropped(Reason::DeviceMissed), lost, "{total}");
    }
}

#[test]
fn nonsense_of_the_device_is_counted_as_drops() {
    let mut talk = Talk::new(|_| {});
    for errors in [0, 3, 3, 4] {
        talk.station.machines[0].rx[0].device_errors = errors;
        talk.pass(Duration::from_ms(2));
        assert_eq!(talk.station.dropped(Reason::DeviceError), errors);
    }
}

#[test]
fn every_malformed_call_fails_with_its_reason_and_changes_nothing() {
    let mut talk = Talk::new(|_| {});
    let (handle, _) = open(&mut talk);
    let good = SgEntry { addr: HEAP_BASE, len: 10 };
    let none = SgEntry::default();
    let send = |first, second| Call::sendv(handle, 2, first, second);
    let mut reserved = Call::new(Op::Nop, Handle::NONE);
    reserved.reserved = 1;
    let mut flags = Call::new(Op::Nop, Handle::NONE);
    flags.flags = 0x80;
    let other = |group: u16, generation: u32, index: u32| {
        Handle::new(ix_abi::GroupId(group), generation, index)
    };
    let beyond = HEAP_BASE + 4 * PAGE_BYTES;
    let cases = [
        (Call::new(Op(999), handle), Status::Invalid),
        (reserved, Status::Invalid),
        (flags, Status::Invalid),
        (Call::sendv(handle, 0, good, none), Status::Invalid),
        (Call::sendv(handle, 65, good, none), Status::Invalid),
        (send(good, SgEntry { addr: beyond, len: 1 }), Status::Fault),
        (send(good, SgEntry { addr: beyond - 5, len: 10 }), Status::Fault),
        (send(good, SgEntry { addr: u64::MAX - 5, len: 10 }), Status::Fault),
        (send(good, SgEntry { addr: 0, len: 1 << 40 }), Status::Fault),
        (send(good, SgEntry { addr: INFO_BASE, len: 8 }), Status::Fault),
        (send(good, SgEntry { addr: RX_BASE, len: 8 }), Status::Fault),
        (Call::new(Op::Close, Handle::NONE), Status::BadHandle),
        (Call::new(Op::Close, other(0, 1, 0xff_ffff)), Status::BadHandle),
        (Call::new(Op::Close, other(500, 1, 0)), Status::BadHandle),
        (Call::new(Op::Close, Handle(handle.0 ^ 1 << 24)), Status::BadHandle),
        (Call::new(Op::Close, Handle(u64::MAX)), Status::BadHandle),
        (Call::accept(handle, Cookie(2)), Status::State),
        (Call::new(Op::Reject, handle), Status::State),
        (Call::recv_done(handle, 1), Status::Invalid),
        (Call::recv_done(handle, u64::MAX), Status::Invalid),
        (Call::listen(PORT, 0), Status::Invalid),
        (Call::listen(PORT, 1), Status::InUse),
        (Call::listen(SocketAddress::v4([1, 2, 3, 4], 99), 1), Status::Unreachable),
        (Call::connect(Cookie(1), SocketAddress::v4([0; 4], 80)), Status::Invalid),
        (Call::connect(Cookie(1), SocketAddress::v4([8, 8, 8, 8], 80)), Status::Unreachable),
        (Call::new(Op::Unlisten, handle), Status::BadHandle),
        (Call::new(Op::UdpClose, handle), Status::BadHandle),
        (Call::udp_recv_done(handle, RX_BASE), Status::Invalid),
        (Call::udp_recv_done(handle, 5), Status::Fault),
        (Call::udp_sendv(handle, PORT, 1, good), Status::BadHandle),
        (Call::timer_set(Cookie(1), u64::MAX), Status::Invalid),
        (Call::new(Op::TimerCancel, handle), Status::BadHandle),
    ];
    let sent = talk.sent();
    assert!(sent.is_empty(), "{sent:?}");
    for (call, expected) in cases {
        talk.call(call);
        assert_eq!(talk.statuses(), [expected], "{call:?}");
        talk.nothing();
        assert_eq!(talk.station.memory.pins_total(), 0, "{call:?}");
    }
    talk.call(Call::sendv(handle, 1, good, none).with_result(1));
    assert_eq!(talk.statuses(), [Status::Ok], "the connection is as it was");
    talk.station.assert_buffers_conserved();
}

#[test]
fn bytes_of_a_received_buffer_may_be_sent_only_while_they_are_held() {
    let mut talk = Talk::new(|_| {});
    let (handle, una) = open(&mut talk);
    talk.send(ACK, 1000, una, 60_000, b"0123456789");
    let events = talk.events();
    let [Condition::Recv { addr, .. }] = events[..] else { panic!("{events:?}") };
    let piece = |from: u64, len| {
        Call::sendv(handle, 1, SgEntry { addr: addr + from, len }, SgEntry::default())
    };
    talk.calls(&[piece(9, 2), piece(0, 0)]);
    assert_eq!(talk.statuses(), [Status::Fault], "the buffer's rest was not received");
    // Returned in the same batch: the reference keeps the buffer until the bytes are acknowledged.
    talk.calls(&[piece(2, 8), Call::recv_done(handle, 10), piece(2, 8)]);
    assert_eq!(talk.statuses(), [Status::Fault]);
    assert_eq!(talk.one().payload, b"23456789");
    talk.send(ACK, 1010, una + 8, 60_000, &[]);
    talk.call(Call::new(Op::Abort, handle));
    talk.station.assert_all_quiet();
}

#[test]
fn an_impossible_producer_index_condemns_the_application_and_nothing_else() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = open(&mut talk);
    let produced = talk.station.machines[0].context.produced();
    talk.station.machines[0].context.forge_produced(produced.wrapping_add(1 << 20));
    talk.send(ACK, 1000, una, 60_000, b"wake");
    assert_eq!(talk.station.machines[0].faults, [AppFault::BadRing]);
    talk.pass(Duration::from_ms(100));
    assert_eq!(talk.sent().last().map(|s| s.ack), Some(1004), "the network side goes on");
    talk.station.engines[0].detach_app();
    talk.pass(Duration::from_ms(1));
    assert_eq!(talk.station.engines[0].drain(), Drain::Done);
    assert_eq!(talk.sent().last().map(|s| s.flags & RST), Some(RST));
    talk.station.assert_all_quiet();
}

#[test]
fn a_record_that_claims_more_slots_than_there_are_is_invalid() {
    let mut talk = Talk::new(|_| {});
    let (handle, _) = open(&mut talk);
    let good = SgEntry { addr: HEAP_BASE, len: 10 };
    talk.call(Call::sendv(handle, 60, good, good).with_tag(1));
    assert_eq!(talk.statuses(), [Status::Invalid]);
    talk.call(Call::sendv(handle, 1, good, good).with_result(1));
    assert_eq!(talk.statuses(), [Status::Ok]);
}

#[test]
fn random_records_neither_panic_nor_leak() {
    for seed in 0..30 {
        let mut talk = Talk::new(|_| {});
        let (handle, una) = open(&mut talk);
        let mut rng = Rng::from_seed(seed);
        let mut seq = 1000;
        for _ in 0..40 {
            let calls: Vec<Call> =
                (0..1 + rng.below(20)).map(|_| random(&mut rng, handle)).collect();
            talk.calls(&calls);
            talk.send(ACK, seq, una, 60_000, b"some data");
            seq += 9;
            talk.station.assert_buffers_conserved();
        }
        talk.station.engines[0].detach_app();
        talk.pass(Duration::from_s(3));
        assert_eq!(talk.station.engines[0].drain(), Drain::Done, "seed {seed}");
        talk.pass(Duration::from_s(100));
        talk.station.assert_all_quiet();
    }
}

fn random(rng: &mut Rng, handle: Handle) -> Call {
    let mut call = Call::new(Op(rng.below(20) as u16), handle);
    let word = |rng: &mut Rng| match rng.below(8) {
        0 => rng.next_u64(),
        1 => rng.below(100),
        2 => HEAP_BASE + rng.below(5 * PAGE_BYTES),
        3 => RX_BASE + rng.below(1 << 22),
        4 => handle.0,
        5 => rng.below(1 << 31),
        _ => rng.below(3000),
    };
    if rng.chance(1, 3) {
        call.handle = if rng.chance(1, 2) { word(rng) } else { handle.0 ^ (1 << rng.below(64)) };
    }
    call.sg_count = rng.below(4) as u16;
    call.flags = rng.below(2) as u16;
    call.tag = rng.next_u64();
    for i in 0..5 {
        call.words[i] = word(rng);
    }
    call
}

#[test]
fn a_full_event_ring_delays_events_and_loses_none() {
    let mut talk = Talk::new(|s| {
        s.buffers = 256;
        s.rx_depth = 64;
    });
    let (_, una) = open(&mut talk);
    const ROUNDS: usize = 5;
    const EACH: usize = EVENT_SLOTS as usize / 4;
    let timers = vec![Call::timer_set(Cookie(5), 1_000); EACH];
    for _ in 0..ROUNDS {
        // More timers than one ring of events has room for, with results.
        talk.calls(&timers);
        talk.script().asleep = true;
        talk.pass(Duration::from_ms(20));
    }
    talk.send(ACK, 1000, una, 60_000, b"waits its turn");
    talk.pass(Duration::from_ms(100));
    talk.script().asleep = false;
    talk.send_udp(WAKE, b"");
    talk.pass(Duration::from_ms(100));
    let events = talk.events();
    let fired = events.iter().filter(|e| matches!(e, Condition::Timer { .. })).count();
    assert!((EACH..=ROUNDS * EACH).contains(&fired) && events.len() < 2 * EVENT_SLOTS as usize);
    let failed = events.iter().filter(|e| matches!(e, Condition::Result { .. })).count();
    assert_eq!(fired + failed, ROUNDS * EACH, "each call has had its timer or its failure");
    assert!(events.iter().any(|e| matches!(e, Condition::Recv { len: 14, .. })));
}

#[test]
fn a_transmit_ring_of_two_and_few_buffers_slow_a_stream_down_and_do_not_stop_it() {
    for (tx_depth, buffers, rx_depth) in [(2, 1024, 256), (256, 64, 16), (3, 72, 8)] {
        let change = |last| Setup { tx_depth, buffers, rx_depth, ..Setup::new(last) };
        let (mut server, mut client) = (Station::new(change(1)), Station::new(change(2)));
        server.start(vec![Box::new(Echo::new(7))]);
        let mut net = Net::new(9);
        net.run_for(&mut server, &mut client, Duration::from_ms(1));
        let to = SocketAddress::v4([10, 0, 0, 1], 7);
        client.start(vec![Box::new(Client::new(to, 9, 200_000))]);
        net.run_until(&mut server, &mut client, Duration::from_s(300), |s, c| {
            c.app::<Client>(0).done() && s.app::<Echo>(0).open() == 0
        });
        assert_eq!(client.app::<Client>(0).received, 200_000);
        net.run_for(&mut server, &mut client, Duration::from_s(70));
        server.assert_all_quiet();
        client.assert_all_quiet();
    }
}

#[test]
fn an_application_that_returns_nothing_does_not_starve_other_connections() {
    let mut talk = Talk::new(|s| s.buffers = 400);
    let (_greedy, una) = open(&mut talk);
    for seq in 1000..2000 {
        // Single bytes: the window would admit tens of thousands.
        talk.send(ACK, seq, una, 60_000, b"x");
    }
    let books = talk.station.engines[0].conservation();
    assert!(books.received < 50, "{books:?}");
    for seq in (2000..62_000).step_by(1000) {
        // No two of them go in one buffer.
        talk.send(ACK, seq, una, 60_000, &[b'y'; 1000]);
    }
    assert!(talk.station.dropped(Reason::TcpReceiveShare) > 0);
    let books = talk.station.engines[0].conservation();
    assert!(books.received < 100, "{books:?}");
    let _ = (talk.sent(), talk.events());
    talk.port = 4001;
    talk.send(SYN, 1, 0, 60_000, &[]);
    let una = talk.one().seq + 1;
    talk.send(ACK, 2, una, 60_000, b"me too");
    let events = talk.events();
    let [Condition::Knock { handle, .. }] = events[..] else { panic!("{events:?}") };
    talk.call(Call::accept(handle, Cookie(4)));
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 6, .. }]));
}

#[test]
fn the_end_of_an_application_in_the_middle_resets_its_peers_and_a_new_one_can_start() {
    for stalled in [false, true] {
        let mut station = Station::new(Setup::new(1));
        station.start(vec![Box::new(Echo::new(7))]);
        let mut net = Net::new(3);
        let mut peer = Peer::new(2, net.now);
        let sockets: Vec<_> = (0..20).map(|_| peer.socket(30_000)).collect();
        net.run_for(&mut station, &mut peer, Duration::from_ms(1));
        for (i, socket) in sockets.iter().enumerate() {
            peer.connect(*socket, [10, 0, 0, 1], 7, 40_000 + i as u16);
        }
        net.run_until(&mut station, &mut peer, Duration::from_s(3), |s, _| {
            s.app::<Echo>(0).accepted == 20
        });
        for socket in &sockets {
            peer.tcp(*socket).send_slice(&[1; 20_000]).unwrap();
        }
        for _ in 0..12 {
            net.step(&mut station, &mut peer);
        }
        station.machines[0].tx.stalled = stalled;
        for _ in 0..12 {
            net.step(&mut station, &mut peer);
        }
        station.machines[0].app = None;
        station.engines[0].detach_app();
        if stalled {
            assert_eq!(station.engines[0].drain(), Drain::Pending);
            net.run_for(&mut station, &mut peer, Duration::from_s(1));
            assert_eq!(station.engines[0].drain(), Drain::Pending);
            net.run_for(&mut station, &mut peer, Duration::from_s(2));
            assert_eq!(station.engines[0].drain(), Drain::TimedOut);
            station.machines[0].tx.stalled = false;
        }
        net.run_for(&mut station, &mut peer, Duration::from_ms(100));
        assert_eq!(station.engines[0].drain(), Drain::Done);
        for socket in &sockets {
            assert!(!peer.tcp(*socket).is_open(), "{}", peer.tcp(*socket).state());
        }
        station.assert_all_quiet();
        station.start(vec![Box::new(Echo::new(7))]);
        peer.connect(sockets[0], [10, 0, 0, 1], 7, 50_000);
        net.run_until(&mut station, &mut peer, Duration::from_s(3), |s, _| {
            s.app::<Echo>(0).accepted == 1
        });
    }
}

#[test]
fn connections_whose_events_nobody_read_are_gone_with_the_application() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = open(&mut talk);
    let produced = talk.station.machines[0].context.produced();
    talk.station.machines[0].context.forge_produced(produced.wrapping_add(1 << 20));
    talk.send(ACK, 1000, una, 60_000, b"accused");
    assert_eq!(talk.station.machines[0].faults, [AppFault::BadRing]);
    // From now on nothing is posted: this waits for ever.
    talk.send(ACK, 1007, una, 60_000, b"not told");
    talk.station.engines[0].detach_app();
    talk.pass(Duration::from_ms(1));
    assert_eq!(talk.station.engines[0].drain(), Drain::Done);
    talk.station.assert_all_quiet();
}

#[test]
fn an_application_that_does_not_return_leaves_the_network_side_alive() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = open(&mut talk);
    talk.station.machines[0].hang = true;
    talk.send(ACK, 1000, una, 60_000, b"unheard");
    talk.pass(Duration::from_ms(60));
    assert_eq!(talk.one().ack, 1007);
    talk.station.machines[0].hang = false;
    talk.pass(Duration::from_ms(1));
    assert!(matches!(talk.events()[..], [Condition::Recv { len: 7, .. }]));
}

#[test]
fn random_frames_neither_panic_nor_leak() {
    let mut talk = Talk::new(|_| {});
    let (_, una) = open(&mut talk);
    let mut rng = Rng::from_seed(77);
    for round in 0..20_000u32 {
        let flags = rng.below(64) as u8;
        let near =
            |rng: &mut Rng, at: u32| at.wrapping_add(rng.below(200) as u32).wrapping_sub(100);
        let (seq, ack) = (near(&mut rng, 1000), near(&mut rng, una));
        let mut options = vec![0; rng.below(10) as usize * 4];
        rng.fill(&mut options);
        let mut payload = vec![0; rng.below(300) as usize];
        rng.fill(&mut payload);
        talk.port = 4000 + rng.below(3) as u16;
        let mut frame = talk.frame(flags, seq, ack, rng.next_u32() as u16, &options, &payload);
        if rng.chance(1, 2) {
            let at = rng.below(frame.len() as u64) as usize;
            frame[at] ^= 1 << rng.below(8);
        }
        if rng.chance(1, 20) {
            frame.truncate(rng.below(frame.len() as u64) as usize);
        }
        talk.give(frame);
        if round % 16 == 0 {
            talk.step();
            let (_, _) = (talk.sent(), talk.events());
        }
    }
    talk.step();
    talk.station.assert_buffers_conserved();
    talk.station.engines[0].detach_app();
    talk.pass(Duration::from_s(120));
    talk.station.assert_all_quiet();
}

#[test]
fn with_software_steering_every_core_serves_its_groups() {
    let mut station = Station::new(Setup { cores: 3, ..Setup::new(1) });
    station.start(vec![
        Box::new(Echo::new(7)),
        Box::new(Follower::default()),
        Box::new(Follower::default()),
    ]);
    let mut net = Net::new(3);
    let mut peer = Peer::new(2, net.now);
    let sockets: Vec<_> = (0..40).map(|_| peer.socket(8_000)).collect();
    net.run_for(&mut station, &mut peer, Duration::from_ms(2));
    for (i, socket) in sockets.iter().enumerate() {
        peer.connect(*socket, [10, 0, 0, 1], 7, 40_000 + i as u16);
    }
    net.run_until(&mut station, &mut peer, Duration::from_s(5), |_, p| {
        sockets.iter().all(|s| p.tcp(*s).may_send())
    });
    for socket in &sockets {
        peer.tcp(*socket).send_slice(&[5; 3_000]).unwrap();
    }
    net.run_until(&mut station, &mut peer, Duration::from_s(20), |_, p| {
        sockets.iter().all(|s| p.tcp(*s).recv_queue() == 3_000)
    });
    let served: Vec<u64> =
        station.engines.iter().map(|e| e.stats().get(Counter::TcpAccepted)).collect();
    assert!(served.iter().all(|n| *n > 0) && served.iter().sum::<u64>() == 40, "{served:?}");
    assert!(station.engines[0].stats().get(Counter::RxSteeredOut) > 0);
    for socket in &sockets {
        peer.tcp(*socket).abort();
    }
    net.run_for(&mut station, &mut peer, Duration::from_ms(100));
    station.assert_buffers_conserved();
    let books: usize = station.engines.iter().map(|e| e.conservation().connections).sum();
    assert_eq!(books, 0);
}

/// An echo server that does not listen: another core does.
#[derive(Default)]
struct Follower {
    echo: Option<Echo>,
}

impl crate::support::app::App for Follower {
    fn run(&mut self, context: &mut crate::support::app::Context) {
        let echo = self.echo.get_or_insert_with(|| {
            let mut echo = Echo::new(7);
            echo.listens_already();
            echo
        });
        echo.run(context);
    }

    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

#[test]
fn buffers_that_find_the_ring_to_their_home_full_have_a_deadline() {
    let mut talk = Talk::new(|s| {
        s.cores = 2;
        s.buffers = 2048;
    });
    let at = SocketAddress { port: 11, ..SocketAddress::default() };
    talk.script().calls.push(Call::udp_bind(at, Cookie(6)));
    for port in 4000..4020 {
        // Some of them wake core 0.
        talk.port = port;
        talk.send_udp(WAKE, b"");
    }
    for port in 0..2000 {
        // About half of them are of flow groups of core 1, whose application keeps them.
        talk.port = 10_000 + port;
        talk.send_udp(11, b"kept");
    }
    talk.station.engines.iter_mut().for_each(ix_dataplane::engine::Engine::detach_app);
    // Core 1 runs, core 0 does not.
    let now = talk.now + Duration::from_ms(1);
    let machine = &mut talk.station.machines[1];
    machine.now = now;
    let mut work = ix_dataplane::core_loop::run_once(&mut talk.station.engines[1], machine);
    while work.busy {
        work = ix_dataplane::core_loop::run_once(&mut talk.station.engines[1], machine);
    }
    assert!(talk.station.engines[1].conservation().away > 100);
    assert!(work.deadline <= now + Duration::from_ms(1), "core 1 would halt for good");
    talk.pass(Duration::from_ms(20));
    assert_eq!(talk.station.engines[1].conservation().away, 0);
    talk.station.assert_all_quiet();
}

#[test]
fn every_request_of_a_core_to_the_first_has_its_result_however_many_there_are() {
    let mut talk = Talk::new(|s| s.cores = 2);
    // More than the ring between the cores has room to answer at once.
    let calls = (0..64).map(|n| {
        let at = SocketAddress { port: 100 + n, ..SocketAddress::default() };
        Call::listen(at, 1).with_result(1000 + u64::from(n))
    });
    let calls: Vec<Call> = calls.collect();
    let script: &mut Script = talk.station.app(1);
    script.calls.extend(calls);
    for port in 4000..4020 {
        talk.port = port;
        talk.send_udp(WAKE, b"");
    }
    talk.pass(Duration::from_ms(5));
    let script: &mut Script = talk.station.app(1);
    let results = script.events.iter().filter_map(|event| match event {
        Condition::Result { tag: tag @ 1000.., .. } => Some(*tag),
        _ => None,
    });
    let mut results: Vec<u64> = results.collect();
    results.sort_unstable();
    assert_eq!(results, (1000..1064).collect::<Vec<_>>());
}
