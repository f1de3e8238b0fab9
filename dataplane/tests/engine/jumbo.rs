//! Frames in several buffers: jumbo frames, and segments that the device has merged. The application gets the
//! stream that it would have got from one buffer.
use crate::support::apps::{Client, Echo, stream};
use crate::support::net::{Faults, Net};
use crate::support::peer::{Peer, SETTLE};
use crate::support::station::{Setup, Station};
use crate::support::talk::*;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{Call, Condition, Handle, SocketAddress, call::SgEntry};
use ix_dataplane::rng::Rng;
use ix_dataplane::time::Duration;

const WINDOW: u16 = 65_000;
/// What a buffer of 2048 bytes takes behind the header that the device puts before the frame.
const WHOLE: usize = 2036;

fn jumbo(setup: &mut Setup) {
    setup.mtu = 9000;
}

/// An accepted connection of a peer that takes segments of `mss` bytes.
fn accepted(mss: u16, change: impl Fn(&mut Setup)) -> (Talk, Handle, u32) {
    let mut talk = Talk::new(change);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    let [high, low] = mss.to_be_bytes();
    let (handle, una) = talk.handshake(0, WINDOW, &[2, 4, high, low, 1, 1, 4, 2]);
    talk.sent();
    (talk, handle, una)
}

fn rx(talk: &mut Talk) -> &mut crate::support::nic::Rx {
    &mut talk.station.machines[0].rx[0]
}

fn bytes(seed: u64, at: usize, len: usize) -> Vec<u8> {
    (at..at + len).map(|i| stream(seed, i as u64)).collect()
}

/// What the application was told of since the last look, piece by piece.
fn received(talk: &mut Talk) -> Vec<Vec<u8>> {
    let events = talk.events();
    let context = &talk.station.machines[0].context;
    let piece = |event: &Condition| match *event {
        Condition::Recv { addr, len, .. } => Some(context.bytes(addr, u64::from(len)).to_vec()),
        _ => None,
    };
    events.iter().filter_map(piece).collect()
}

#[test]
fn the_mtu_is_what_peers_are_told_and_what_leaves() {
    let (mut talk, handle, una) = accepted(8960, jumbo);
    let mut other = talk.frame(SYN, 5, 0, WINDOW, &[2, 4, 0x23, 0], &[]);
    other[34..36].copy_from_slice(&4001_u16.to_be_bytes());
    let sum = [other[50], other[51]];
    let fixed = u16::from_be_bytes(sum).wrapping_sub(1);
    other[50..52].copy_from_slice(&fixed.to_be_bytes());
    talk.give(other);
    talk.step();
    assert_eq!(talk.one().options[..4], [2, 4, 0x23, 0], "8,960 bytes");
    let sent = bytes(1, 0, 30_000);
    talk.station.machines[0].context.fill(HEAP_BASE, &sent);
    let pieces: Vec<_> = (0..15)
        .map(|i| {
            let entry = SgEntry { addr: HEAP_BASE + 2000 * i, len: 2000 };
            Call::sendv(handle, 1, entry, SgEntry::default())
        })
        .collect();
    talk.calls(&pieces);
    let frames = talk.sent();
    let sizes: Vec<_> = frames.iter().map(|s| s.payload.len()).collect();
    assert_eq!(sizes[0], 8960, "gathered from the application's memory: {sizes:?}");
    talk.send(
        ACK,
        1000,
        una + frames.iter().map(|s| s.payload.len() as u32).sum::<u32>(),
        WINDOW,
        &[],
    );
    let more = talk.sent();
    let all: Vec<u8> = frames.iter().chain(&more).flat_map(|s| s.payload.clone()).collect();
    assert!(all == sent[..16_000], "{} bytes: what two segments' window takes", all.len());
    assert!(more.iter().all(|s| s.payload.len() <= 8960));
    assert_eq!(talk.station.count(Counter::PayloadCopied), 0);
}

#[test]
fn a_frame_may_be_split_anywhere_behind_its_headers() {
    for offload in [false, true] {
        let (mut talk, handle, una) = accepted(8960, |s| {
            jumbo(s);
            s.offload = offload;
        });
        let mut seq = 1000;
        for split in 54..54 + 300 {
            let payload = bytes(2, seq as usize, 299);
            rx(&mut talk).pieces = vec![split.min(352), 1 + split % 97];
            talk.send(ACK, seq, una, WINDOW, &payload);
            let got = received(&mut talk);
            assert!(got.len() > 1, "split at {split}");
            assert_eq!(got.concat(), payload, "split at {split}");
            seq += 299;
            rx(&mut talk).pieces = vec![WHOLE];
            talk.call(Call::recv_done(handle, 299));
        }
        assert_eq!(talk.station.count(Counter::RxChains), 300);
        assert_eq!(talk.station.dropped(Reason::TcpChecksum), 0);
        talk.station.assert_buffers_conserved();
    }
}

#[test]
fn damage_anywhere_in_a_chain_is_seen_and_costs_no_buffer() {
    let (mut talk, _, una) = accepted(8960, jumbo);
    let good = talk.frame(ACK, 1000, una, WINDOW, &[], &bytes(3, 0, 700));
    rx(&mut talk).pieces = vec![61, 33, 128];
    for at in 34..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        talk.give(bad);
        talk.step();
    }
    assert_eq!(received(&mut talk).len(), 0);
    assert!(talk.station.dropped(Reason::TcpChecksum) > 690);
    talk.station.assert_buffers_conserved();
    // And longer frames than the packet are no harm: padding.
    let mut padded = good.clone();
    padded.extend([0x55; 300]);
    talk.give(padded);
    talk.step();
    assert_eq!(received(&mut talk).concat(), bytes(3, 0, 700));
    talk.station.assert_buffers_conserved();
    let mut cut = talk.frame(ACK, 1700, una, WINDOW, &[], &bytes(3, 700, 700));
    cut.truncate(700);
    talk.give(cut);
    talk.step();
    assert_eq!(talk.station.dropped(Reason::Truncated), 1);
    talk.station.assert_buffers_conserved();
}

#[test]
fn headers_that_are_not_in_the_first_buffer_and_other_protocols_are_counted() {
    let (mut talk, _, una) = accepted(8960, jumbo);
    for first in [1, 13, 14, 33, 34, 53] {
        let frame = talk.frame(ACK, 1000, una, WINDOW, &[], &[7; 100]);
        rx(&mut talk).pieces = vec![first, 1000];
        talk.give(frame);
        talk.step();
        assert_eq!(received(&mut talk).len(), 0, "{first} bytes");
        talk.station.assert_buffers_conserved();
    }
    let drops = [Reason::SpansBuffers, Reason::Truncated, Reason::TcpMalformed];
    assert_eq!(drops.map(|reason| talk.station.dropped(reason)), [2, 2, 2]);
    rx(&mut talk).pieces = vec![WHOLE];
    talk.send_udp(WAKE, &[1; 3000]);
    assert_eq!(talk.station.dropped(Reason::SpansBuffers), 3);
    talk.station.assert_buffers_conserved();
}

#[test]
fn the_application_returns_a_chain_byte_by_byte() {
    let (mut talk, handle, una) = accepted(8960, jumbo);
    let free = talk.station.engines[0].conservation().free;
    talk.send(ACK | PSH, 1000, una, WINDOW, &bytes(4, 0, 8960));
    let got = received(&mut talk);
    assert_eq!(got.concat(), bytes(4, 0, 8960));
    assert_eq!(got.len(), 5);
    let held = |talk: &Talk| talk.station.engines[0].conservation().received;
    assert_eq!(held(&talk), 5);
    let first = got[0].len() as u64;
    talk.call(Call::recv_done(handle, first - 1));
    assert_eq!(held(&talk), 5);
    talk.call(Call::recv_done(handle, 1));
    assert_eq!(held(&talk), 4);
    talk.call(Call::recv_done(handle, 8960 - first));
    assert_eq!(held(&talk), 0);
    talk.step();
    assert!(talk.station.engines[0].conservation().free >= free);
    talk.station.assert_buffers_conserved();
}

#[test]
fn chains_out_of_order_overlapping_and_beyond_the_window_are_trimmed_as_segments_are() {
    let (mut talk, handle, una) = accepted(8960, jumbo);
    rx(&mut talk).pieces = vec![200, 77, 500];
    let all = bytes(5, 0, 70_000);
    let give = |talk: &mut Talk, from: usize, to: usize| {
        talk.send(ACK, 1000 + from as u32, una, WINDOW, &all[from..to]);
    };
    give(&mut talk, 3000, 6000);
    give(&mut talk, 1000, 3500);
    assert_eq!(received(&mut talk).len(), 0, "behind a hole");
    give(&mut talk, 0, 2000);
    assert_eq!(received(&mut talk).concat(), all[..6000]);
    give(&mut talk, 5000, 7000);
    assert_eq!(received(&mut talk).concat(), all[6000..7000], "the old part is cut off");
    give(&mut talk, 2000, 7000);
    assert_eq!(received(&mut talk).len(), 0, "nothing new");
    talk.station.assert_buffers_conserved();
    talk.call(Call::recv_done(handle, 7000));
    talk.sent();
    // Up to the window's edge and beyond it.
    let mut at = 7000;
    while at < 62_000 {
        give(&mut talk, at, at + 5000);
        at += 5000;
    }
    give(&mut talk, at, 70_000);
    let last = talk.sent().last().unwrap().clone();
    assert!(last.window == 0 || last.ack < 1000 + 70_000);
    let got: usize = received(&mut talk).iter().map(Vec::len).sum();
    assert_eq!(1000 + 7000 + got as u32, last.ack);
    talk.station.assert_buffers_conserved();
}

#[test]
fn fin_counts_when_the_last_piece_has_come() {
    let (mut talk, _, una) = accepted(8960, jumbo);
    talk.send(ACK | FIN, 1000, una, WINDOW, &bytes(6, 0, 5000));
    let events = talk.events();
    let pieces = events.iter().filter(|e| matches!(e, Condition::Recv { .. })).count();
    assert_eq!(pieces, 3);
    assert!(matches!(events.last(), Some(Condition::Eof { .. })), "{events:?}");
    assert_eq!(talk.one().ack, 1000 + 5000 + 1);
}

/// Random segments of a stream of `len` bytes, old and new, in any order, through buffers of these sizes; the
/// stream as the application got it, and the acknowledgements.
fn delivered(seed: u64, pieces: Vec<usize>) -> (Vec<u8>, u32) {
    let (mut talk, handle, una) = accepted(8960, |s| {
        jumbo(s);
        s.offload = seed % 2 == 1;
    });
    let mut rng = Rng::from_seed(seed);
    let all = bytes(seed, 0, 40_000);
    let mut got = Vec::new();
    for _ in 0..60 {
        let from = (got.len() + rng.below(9000) as usize).saturating_sub(rng.below(9000) as usize);
        let from = from.min(39_999);
        let to = (from + 1 + rng.below(8959) as usize).min(40_000);
        let frame = talk.frame(ACK, 1000 + from as u32, una, WINDOW, &[], &all[from..to]);
        rx(&mut talk).pieces = pieces.clone();
        talk.give(frame);
        talk.step();
        rx(&mut talk).pieces = vec![WHOLE];
        let new = received(&mut talk).concat();
        got.extend(&new);
        assert_eq!(got[..], all[..got.len()], "seed {seed}, pieces {pieces:?}");
        talk.station.assert_buffers_conserved();
        if rng.chance(1, 2) && !new.is_empty() {
            talk.call(Call::recv_done(handle, new.len() as u64));
        }
    }
    talk.pass(Duration::from_ms(100));
    let acked = talk.sent().iter().map(|s| s.ack).max().unwrap();
    assert_eq!(acked, 1000 + got.len() as u32);
    (got, acked)
}

#[test]
fn the_stream_is_the_same_whatever_buffers_it_comes_in() {
    let mut whole = 0;
    for seed in 0..60 {
        let mut rng = Rng::from_seed(!seed);
        let first = 54 + rng.below(1900) as usize;
        let other = |rng: &mut Rng| 200 + rng.below(1800) as usize;
        let pieces = vec![first, other(&mut rng), other(&mut rng), 1999];
        let (a, b) = (delivered(seed, vec![WHOLE]), delivered(seed, pieces));
        assert_eq!(a, b, "seed {seed}");
        whole += usize::from(a.0.len() == 40_000);
    }
    assert!(whole > 10, "{whole} came to their end");
}

fn pair(seed: u64, bytes: u64, change: impl Fn(&mut Setup)) -> (Station, Station, Net) {
    let mut setups = [Setup::new(1), Setup::new(2)];
    for setup in &mut setups {
        setup.seed += seed * 1000;
        setup.buffers = 2048;
        change(setup);
    }
    let [server, client] = setups;
    let (mut server, mut client) = (Station::new(server), Station::new(client));
    server.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(seed);
    net.run_for(&mut server, &mut client, SETTLE);
    client.start(vec![Box::new(Client::new(SocketAddress::v4([10, 0, 0, 1], 7), seed, bytes))]);
    (server, client, net)
}

fn finish(server: &mut Station, client: &mut Station, net: &mut Net, limit: Duration) {
    net.run_until(server, client, limit, |s, c| {
        c.app::<Client>(0).done() && s.app::<Echo>(0).open() == 0
    });
    net.faults = Faults::default();
    net.run_for(server, client, Duration::from_s(70));
    let app = client.app::<Client>(0);
    assert_eq!((app.received, app.sent), (app.bytes, app.bytes));
    server.assert_all_quiet();
    client.assert_all_quiet();
    assert_eq!(server.count(Counter::PayloadCopied) + client.count(Counter::PayloadCopied), 0);
}

#[test]
fn jumbo_streams_survive_faults_by_seed() {
    for seed in 0..24 {
        let (mut server, mut client, mut net) = pair(seed, 400_000, |s| {
            jumbo(s);
            s.offload = seed % 2 == 0;
        });
        net.faults = Faults {
            loss: seed % 4 * 10,
            duplicate: seed % 3 * 10,
            reorder: seed % 5 * 30,
            corrupt: seed % 2 * 5,
        };
        finish(&mut server, &mut client, &mut net, Duration::from_s(900));
        let chains = server.count(Counter::RxChains);
        assert!(chains >= 40, "seed {seed}: {chains} of {}", server.count(Counter::RxPackets));
    }
}

#[test]
fn merged_segments_survive_faults_by_seed() {
    let mut merged = 0;
    for seed in 0..24 {
        let (mut server, mut client, mut net) = pair(seed, 400_000, |s| {
            s.offload = true;
            s.tso = 65_535;
        });
        for station in [&mut server, &mut client] {
            station.machines[0].rx[0].merges = true;
        }
        net.faults = Faults {
            loss: seed % 4 * 10,
            duplicate: seed % 3 * 10,
            reorder: seed % 5 * 30,
            corrupt: seed % 2 * 5,
        };
        finish(&mut server, &mut client, &mut net, Duration::from_s(900));
        merged += server.count(Counter::RxMerged) + client.count(Counter::RxMerged);
    }
    assert!(merged > 1_000, "{merged} segments");
}

#[test]
fn merged_segments_are_acknowledged_at_once_though_they_are_small() {
    // Ours are of 1,460 bytes, the peer's of 500: by bytes alone the second would not do.
    let (mut talk, _, una) = accepted(1460, |s| s.offload = true);
    rx(&mut talk).merges = true;
    rx(&mut talk).pieces = vec![400];
    for i in 0..2 {
        let payload = bytes(8, 500 * i, 500);
        let frame = talk.frame(ACK, 1000 + 500 * i as u32, una, WINDOW, &[], &payload);
        talk.give(frame);
    }
    talk.step();
    assert_eq!(received(&mut talk).concat(), bytes(8, 0, 1000));
    assert_eq!(talk.one().ack, 2000);
    assert_eq!(talk.station.count(Counter::RxMerged), 2);
    // One alone waits.
    talk.send(ACK, 2000, una, WINDOW, &bytes(8, 1000, 500));
    talk.nothing();
}

#[test]
fn jumbo_frames_to_and_from_smoltcp() {
    let mut setup = Setup { mtu: 9000, buffers: 2048, ..Setup::new(1) };
    setup.offload = true;
    let mut station = Station::new(setup);
    station.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(1);
    let mut peer = Peer::with_mtu(2, net.now, 9000);
    let socket = peer.socket(65_535);
    net.run_for(&mut station, &mut peer, SETTLE);
    peer.connect(socket, [10, 0, 0, 1], 7, 40_000);
    net.run_until(&mut station, &mut peer, Duration::from_s(3), |_, p| p.tcp(socket).may_send());
    let (mut sent, mut back, total) = (0_u64, 0_u64, 1_000_000_u64);
    net.run_until(&mut station, &mut peer, Duration::from_s(60), |_, p| {
        let socket = p.tcp(socket);
        let mut piece = [0; 20_000];
        while sent < total && socket.can_send() {
            let n = (total - sent).min(piece.len() as u64) as usize;
            (0..n).for_each(|i| piece[i] = stream(9, sent + i as u64));
            sent += socket.send_slice(&piece[..n]).unwrap() as u64;
        }
        while socket.can_recv() {
            let n = socket.recv_slice(&mut piece).unwrap();
            (0..n).for_each(|i| assert_eq!(piece[i], stream(9, back + i as u64)));
            back += n as u64;
        }
        back == total
    });
    let packets = station.count(Counter::TxPackets);
    let chains = station.count(Counter::RxChains);
    assert!(chains > 100, "{chains} of {} frames", station.count(Counter::RxPackets));
    assert!(packets < 400, "{packets} frames for a megabyte");
    assert_eq!(station.count(Counter::TcpRetransmits), 0);
    peer.tcp(socket).close();
    net.run_for(&mut station, &mut peer, Duration::from_s(70));
    station.assert_all_quiet();
}

#[test]
fn chains_go_to_the_core_that_owns_their_group_whole() {
    for seed in 0..4 {
        let mut setup = Setup { mtu: 9000, cores: 2, buffers: 2048, ..Setup::new(1) };
        setup.seed = seed;
        let mut server = Station::new(setup);
        let mut second = Echo::new(7);
        second.listens_already();
        server.start(vec![Box::new(Echo::new(7)), Box::new(second)]);
        let mut client = Station::new(Setup { mtu: 9000, buffers: 2048, seed, ..Setup::new(2) });
        let mut net = Net::new(seed);
        net.run_for(&mut server, &mut client, SETTLE);
        let remote = SocketAddress::v4([10, 0, 0, 1], 7);
        client.start(vec![Box::new(Client::new(remote, seed, 200_000))]);
        net.run_until(&mut server, &mut client, Duration::from_s(60), |s, c| {
            let open = s.app::<Echo>(0).open() + s.app::<Echo>(1).open();
            c.app::<Client>(0).done() && open == 0
        });
        net.run_for(&mut server, &mut client, Duration::from_s(70));
        server.assert_all_quiet();
        client.assert_all_quiet();
    }
}
