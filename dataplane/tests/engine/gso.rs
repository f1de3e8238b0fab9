//! Large frames: what the device is given to cut into segments, what leaves, and that a peer cannot
//! tell. The NIC of these tests checks all that a device may rely on.
use crate::support::apps::{Client, Echo};
use crate::support::net::{Faults, Net};
use crate::support::station::{Setup, Station};
use crate::support::talk::*;
use ix_abi::call::SgEntry;
use ix_abi::layout::HEAP_BASE;
use ix_abi::stats::Counter;
use ix_abi::{Call, DeadReason, Handle, SocketAddress};
use ix_dataplane::device::Pseudo;
use ix_dataplane::time::Duration;

const MSS: u32 = 1460;
const WINDOW: u16 = 65_000;

fn large(setup: &mut Setup) {
    setup.offload = true;
    setup.tso = 65_535;
}

fn accepted(change: impl Fn(&mut Setup)) -> (Talk, Handle, u32) {
    let mut talk = Talk::new(change);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    let (handle, una) = talk.handshake(ECE | CWR, WINDOW, &[2, 4, 0x05, 0xb4]);
    (talk, handle, una)
}

fn frames(talk: &Talk) -> (u64, u64) {
    (talk.station.count(Counter::TxPackets), talk.station.machines[0].tx.large)
}

#[test]
fn a_window_leaves_in_one_frame_and_arrives_in_segments() {
    let (mut talk, handle, una) = accepted(large);
    let bytes: Vec<u8> = (0..14_000).map(|i| (i * 31 + i / 251) as u8).collect();
    talk.station.machines[0].context.fill(HEAP_BASE, &bytes);
    let before = frames(&talk);
    talk.sendv(handle, 14_000);
    let sent = talk.sent();
    assert_eq!(frames(&talk).0 - before.0, 1, "one frame");
    assert_eq!(sent.len(), 10);
    let mut at = 0;
    for segment in &sent {
        assert_eq!(segment.seq, una + at as u32);
        assert_eq!(segment.payload, bytes[at..at + segment.payload.len()]);
        assert!(segment.payload.len() == 1460 || at + segment.payload.len() == 14_000);
        at += segment.payload.len();
    }
    assert_eq!(sent.iter().filter(|s| s.flags & PSH != 0).count(), 1);
    assert_eq!(sent.last().unwrap().flags & PSH, PSH);
    // A FIN rides on the last one.
    talk.send(ACK, 1000, una + 14_000, WINDOW, &[]);
    talk.calls(&[
        Call::sendv(handle, 1, SgEntry { addr: HEAP_BASE, len: 3000 }, SgEntry::default()),
        Call::new(ix_abi::Op::Close, handle),
    ]);
    let flags: Vec<_> = talk.sent().iter().map(|s| s.flags & FIN).collect();
    assert_eq!(flags, [0, 0, FIN]);
}

#[test]
fn a_device_that_adds_lengths_itself_gets_headers_without() {
    // The NIC of these tests looks at the headers of what it cuts; this one as the 82599 wants them.
    let (mut talk, handle, una) = accepted(|setup| {
        large(setup);
        setup.gso_pseudo = Pseudo::WithoutLength;
    });
    let before = frames(&talk);
    talk.sendv(handle, 3 * MSS + 1);
    let sent = talk.sent();
    assert_eq!(sent.iter().map(|s| s.payload.len()).collect::<Vec<_>>(), [1460, 1460, 1460, 1]);
    let after = frames(&talk);
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 1));
    // A frame that is not cut is as ever: with its sums.
    talk.send(ACK, 1000, una + 3 * MSS + 1, WINDOW, &[]);
    talk.sendv(handle, MSS);
    assert_eq!(talk.one().payload.len(), 1460);
    assert_eq!(frames(&talk).1, after.1);
    for seed in 1..=10 {
        let faults = Faults { loss: 20, duplicate: 20, reorder: 50, corrupt: 5 };
        let (_, client) = stream(seed, 200_000, faults, |setup| {
            large(setup);
            setup.gso_pseudo = Pseudo::WithoutLength;
        });
        assert!(client.machines[0].tx.large > 0);
    }
}

#[test]
fn what_windows_cut_short_is_whole_segments() {
    let (mut talk, handle, una) = accepted(large);
    // The window holds six segments and a half; more is accepted than that as it opens.
    talk.send(ACK, 1000, una, 9500, &[]);
    talk.sendv(handle, 9500);
    let sizes = |talk: &mut Talk| talk.sent().iter().map(|s| s.payload.len()).collect::<Vec<_>>();
    assert_eq!(sizes(&mut talk), [1460, 1460, 1460, 1460, 1460, 1460, 740], "all that there is");
    talk.send(ACK, 1000, una + 9500, WINDOW, &[]);
    talk.sendv(handle, 14_600);
    assert_eq!(sizes(&mut talk), [1460; 10]);
    // The peer shrinks its window; what was sent again by time is one segment, as ever.
    talk.pass(Duration::from_ms(1200));
    assert!(sizes(&mut talk).iter().all(|size| *size == 1460));
}

#[test]
fn pieces_that_do_not_all_fit_a_frame_make_whole_segments_all_the_same() {
    let (mut talk, handle, una) = accepted(large);
    let before = frames(&talk);
    let calls: Vec<_> = (0..70)
        .map(|i| {
            let entry = SgEntry { addr: HEAP_BASE + 1000 * i, len: 200 };
            Call::sendv(handle, 1, entry, SgEntry::default())
        })
        .collect();
    talk.calls(&calls);
    let sent = talk.sent();
    let (last, others) = sent.split_last().unwrap();
    // 17 pieces of 200 bytes are 3,400: two segments to a frame.
    assert!(others.iter().all(|s| s.payload.len() == 1460), "{sent:?}");
    assert_eq!(last.seq + last.payload.len() as u32, una + 14_000);
    let after = frames(&talk);
    assert_eq!((after.0 - before.0, after.1 - before.1), (5, 5));
}

#[test]
fn without_the_device_s_help_and_without_checksums_every_segment_is_a_frame() {
    for (offload, tso) in [(true, 0), (false, 65_535)] {
        let change = |setup: &mut Setup| (setup.offload, setup.tso) = (offload, tso);
        let (mut talk, handle, _) = accepted(change);
        let before = frames(&talk);
        talk.sendv(handle, 10 * MSS);
        assert_eq!(talk.sent().len(), 10);
        let after = frames(&talk);
        assert_eq!((after.0 - before.0, after.1), (10, 0));
    }
}

#[test]
fn a_frame_is_no_larger_than_the_device_takes() {
    let (mut talk, handle, _) = accepted(|setup| {
        large(setup);
        setup.tso = 5000;
    });
    let before = frames(&talk);
    talk.sendv(handle, 10 * MSS);
    assert_eq!(talk.sent().len(), 10);
    assert_eq!(frames(&talk).0 - before.0, 4, "three segments to a frame");
}

#[test]
fn cwr_is_on_one_segment_alone() {
    // RFC 3168 §6.1.2; virtio 1.2 §5.1.6.2.1.
    let (mut talk, handle, una) = accepted(large);
    talk.sendv(handle, 10 * MSS);
    let _ = talk.sent();
    talk.send(ACK | ECE, 1000, una + 10 * MSS, WINDOW, &[]);
    let before = frames(&talk);
    talk.sendv(handle, 7 * MSS);
    let told: Vec<_> = talk.sent().iter().map(|s| s.flags & CWR).collect();
    assert_eq!(told, [CWR, 0, 0, 0, 0, 0, 0]);
    let after = frames(&talk);
    assert_eq!((after.0 - before.0, after.1 - before.1), (2, 1));
}

/// A connection with selective acknowledgements.
fn selective() -> (Talk, Handle, u32) {
    let mut talk = Talk::new(large);
    talk.call(Call::listen(SocketAddress::v4([0; 4], 7), 4));
    let (handle, una) = talk.handshake(0, WINDOW, &[2, 4, 0x05, 0xb4, 1, 1, 4, 2]);
    (talk, handle, una)
}

#[test]
fn holes_in_a_large_frame_are_found_and_sent_again_alone() {
    // RFC 2018, RFC 8985: what is known of a frame's segments is known of each.
    let (mut talk, handle, una) = selective();
    talk.sendv(handle, 10 * MSS);
    assert_eq!(talk.sent().len(), 10);
    let mut options = vec![1, 1, 5, 18];
    for (from, to) in [(6, 10), (3, 5)] {
        options.extend((una + from * MSS).to_be_bytes());
        options.extend((una + to * MSS).to_be_bytes());
    }
    let ack = talk.frame(ACK, 1000, una + 2 * MSS, WINDOW, &options, &[]);
    talk.give(ack);
    talk.step();
    talk.pass(Duration::from_ms(5));
    let again: Vec<_> =
        talk.sent().iter().map(|s| ((s.seq - una) / MSS, s.payload.len())).collect();
    assert_eq!(again, [(2, 1460), (5, 1460)], "the third and the sixth segment");
}

#[test]
fn a_lost_end_of_a_large_frame_is_asked_for_by_its_last_segment() {
    // RFC 8985 §7.3.
    let (mut talk, handle, una) = selective();
    // A round trip to know.
    talk.sendv(handle, 1000);
    talk.pass(Duration::from_ms(1));
    talk.send(ACK, 1000, una + 1000, WINDOW, &[]);
    let _ = talk.sent();
    let una = una + 1000;
    talk.sendv(handle, 10 * MSS);
    assert_eq!(talk.sent().len(), 10);
    talk.pass(Duration::from_ms(50));
    let probe = talk.one();
    assert_eq!((probe.seq, probe.payload.len()), (una + 9 * MSS, 1460));
    assert_eq!(talk.station.count(Counter::TcpTimeouts), 0);
}

#[test]
fn without_selective_acknowledgements_one_segment_is_sent_again_not_the_frame() {
    let (mut talk, handle, una) = accepted(large);
    talk.sendv(handle, 10 * MSS);
    let _ = talk.sent();
    for _ in 0..4 {
        talk.send(ACK, 1000, una + 2 * MSS, WINDOW, &[]);
    }
    talk.pass(Duration::from_ms(1));
    let again: Vec<_> = talk.sent().iter().map(|s| (s.seq - una) / MSS).collect();
    assert_eq!(again, [2]);
}

const SERVER: SocketAddress = SocketAddress::v4([10, 0, 0, 1], 7);

/// A stream to an echo server and back, both with large frames.
fn stream(
    seed: u64,
    bytes: u64,
    faults: Faults,
    change: impl Fn(&mut Setup),
) -> (Station, Station) {
    let mut setups = [Setup::new(1), Setup::new(2)];
    for setup in &mut setups {
        setup.seed += seed * 1000;
        change(setup);
    }
    let [server, client] = setups;
    let (mut server, mut client) = (Station::new(server), Station::new(client));
    server.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(seed);
    net.run_for(&mut server, &mut client, Duration::from_ms(1));
    client.start(vec![Box::new(Client::new(SERVER, seed, bytes))]);
    net.faults = faults;
    net.run_until(&mut server, &mut client, Duration::from_s(600), |s, c| {
        c.app::<Client>(0).done() && s.app::<Echo>(0).open() == 0
    });
    net.faults = Faults::default();
    net.run_for(&mut server, &mut client, Duration::from_s(70));
    let app = client.app::<Client>(0);
    assert_eq!((app.received, app.sent), (bytes, bytes), "seed {seed}");
    assert_eq!(app.dead, Some(DeadReason::Closed));
    server.assert_all_quiet();
    client.assert_all_quiet();
    (server, client)
}

#[test]
fn a_stream_in_large_frames_is_intact_and_copies_nothing() {
    let (server, client) = stream(1, 3_000_000, Faults::default(), large);
    for station in [&server, &client] {
        assert_eq!(station.count(Counter::TcpRetransmits), 0);
        assert_eq!(station.count(Counter::PayloadCopied), 0);
        assert!(station.machines[0].tx.large > 0);
    }
    // What the client sends lies in one piece, what the server sends in buffers of a segment each.
    let frames = client.machines[0].tx.large;
    assert!(frames < 3_000_000 / 1460 / 2, "{frames} large frames");
}

#[test]
fn streams_in_large_frames_survive_faults_by_seed() {
    let faults = Faults { loss: 20, duplicate: 20, reorder: 50, corrupt: 5 };
    for seed in 1..=30 {
        stream(seed, 200_000, faults, |setup| {
            large(setup);
            setup.tso = [65_535, 9000, 4000][(seed % 3) as usize];
            setup.mtu = [1500, 1400, 2014][(seed / 3 % 3) as usize];
        });
    }
}
