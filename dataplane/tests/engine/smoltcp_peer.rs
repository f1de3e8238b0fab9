//! The engine against smoltcp's sockets.
use crate::support::apps::{Echo, stream};
use crate::support::net::Net;
use crate::support::peer::{Peer, SETTLE};
use crate::support::station::{Setup, Station};
use ix_dataplane::time::Duration;
use smoltcp::socket::tcp::State;

#[test]
fn an_echo_server_answers_a_smoltcp_client_and_both_close() {
    let mut station = Station::new(Setup::new(1));
    station.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(1);
    let mut peer = Peer::new(2, net.now);
    let socket = peer.socket(65_535);
    net.run_for(&mut station, &mut peer, SETTLE);
    peer.connect(socket, [10, 0, 0, 1], 7, 40_000);
    net.run_until(&mut station, &mut peer, Duration::from_s(3), |_, p| p.tcp(socket).may_send());
    peer.tcp(socket).send_slice(b"hello, dataplane").unwrap();
    net.run_until(&mut station, &mut peer, Duration::from_s(3), |_, p| {
        p.tcp(socket).recv_queue() == 16
    });
    let mut answer = [0; 16];
    peer.tcp(socket).recv_slice(&mut answer).unwrap();
    assert_eq!(&answer, b"hello, dataplane");
    peer.tcp(socket).close();
    net.run_until(&mut station, &mut peer, Duration::from_s(20), |s, p| {
        p.tcp(socket).state() == State::TimeWait && s.app::<Echo>(0).open() == 0
    });
    net.run_for(&mut station, &mut peer, Duration::from_ms(50));
    station.assert_all_quiet();
}

fn bulk(seed: u64, bytes: u64, faults: crate::support::net::Faults, limit: Duration) -> Station {
    let mut station = Station::new(Setup { offload: seed % 2 == 1, ..Setup::new(1) });
    station.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(seed);
    let mut peer = Peer::new(2, net.now);
    let socket = peer.socket(65_535);
    net.run_for(&mut station, &mut peer, SETTLE);
    peer.connect(socket, [10, 0, 0, 1], 7, 40_000);
    net.run_until(&mut station, &mut peer, Duration::from_s(3), |_, p| p.tcp(socket).may_send());
    net.faults = faults;
    let (mut sent, mut received) = (0u64, 0u64);
    net.run_until(&mut station, &mut peer, limit, |_, p| {
        let socket = p.tcp(socket);
        let mut piece = [0; 5_000];
        while sent < bytes && socket.can_send() {
            let n = (bytes - sent).min(piece.len() as u64) as usize;
            for (i, byte) in piece[..n].iter_mut().enumerate() {
                *byte = stream(seed, sent + i as u64);
            }
            sent += socket.send_slice(&piece[..n]).unwrap() as u64;
        }
        while socket.can_recv() {
            let n = socket.recv_slice(&mut piece).unwrap();
            for (i, byte) in piece[..n].iter().enumerate() {
                assert_eq!(
                    *byte,
                    stream(seed, received + i as u64),
                    "seed {seed}: byte {received}+{i}"
                );
            }
            received += n as u64;
        }
        received == bytes
    });
    net.faults = crate::support::net::Faults::default();
    peer.tcp(socket).close();
    net.run_until(&mut station, &mut peer, Duration::from_s(120), |s, _| {
        s.app::<Echo>(0).open() == 0
    });
    net.run_for(&mut station, &mut peer, Duration::from_ms(100));
    station.assert_all_quiet();
    station
}

#[test]
fn a_megabyte_goes_through_the_echo_server_and_back() {
    let station = bulk(1, 1 << 20, crate::support::net::Faults::default(), Duration::from_s(30));
    assert_eq!(station.count(ix_abi::stats::Counter::TcpRetransmits), 0);
    assert_eq!(station.count(ix_abi::stats::Counter::PayloadCopied), 0);
}

#[test]
fn the_stream_survives_loss_duplication_and_reordering() {
    let faults = crate::support::net::Faults { loss: 20, duplicate: 20, reorder: 50, corrupt: 5 };
    for seed in 2..40 {
        bulk(seed, 300_000, faults, Duration::from_s(300));
    }
}
