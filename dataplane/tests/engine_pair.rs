//! Two engines against each other, over a network with faults by seed.
mod support;

use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{DeadReason, SocketAddress, Status};
use ix_dataplane::time::Duration;
use support::apps::{Client, Echo};
use support::net::{Faults, Net};
use support::station::{Setup, Station};

const SERVER: SocketAddress = SocketAddress::v4([10, 0, 0, 1], 7);

fn pair(seed: u64, bytes: u64, change: impl Fn(&mut Setup)) -> (Station, Station, Net) {
    let mut setups = [Setup::new(1), Setup::new(2)];
    for setup in &mut setups {
        setup.seed += seed * 1000;
        change(setup);
    }
    let [server, client] = setups;
    let mut server = Station::new(server);
    let mut client = Station::new(client);
    server.start(vec![Box::new(Echo::new(7))]);
    let mut net = Net::new(seed);
    net.run_for(&mut server, &mut client, Duration::from_ms(1));
    client.start(vec![Box::new(Client::new(SERVER, seed, bytes))]);
    (server, client, net)
}

#[track_caller]
fn finish(server: &mut Station, client: &mut Station, net: &mut Net, limit: Duration) {
    net.run_until(server, client, limit, |s, c| {
        c.app::<Client>(0).done() && s.app::<Echo>(0).open() == 0
    });
    // TIME-WAIT, and everything in flight.
    net.faults = Faults::default();
    net.run_for(server, client, Duration::from_s(70));
    let app = client.app::<Client>(0);
    assert_eq!((app.received, app.sent), (app.bytes, app.bytes));
    assert_eq!(app.dead, Some(DeadReason::Closed));
    assert_eq!(server.app::<Echo>(0).dead, [DeadReason::Closed]);
    server.assert_all_quiet();
    client.assert_all_quiet();
}

#[test]
fn a_stream_goes_to_the_echo_server_and_back_without_retransmission() {
    for offload in [false, true] {
        let (mut server, mut client, mut net) = pair(1, 3_000_000, |s| s.offload = offload);
        finish(&mut server, &mut client, &mut net, Duration::from_s(20));
        for station in [&server, &client] {
            assert_eq!(station.count(Counter::TcpRetransmits), 0);
            assert_eq!(station.count(Counter::PayloadCopied), 0);
            assert_eq!(station.count(Counter::TcpConnections), 0);
        }
    }
}

#[test]
fn streams_survive_faults_by_seed() {
    for seed in 1..=60 {
        let faults = Faults {
            loss: seed % 5 * 10,
            duplicate: seed % 3 * 15,
            reorder: seed % 4 * 40,
            corrupt: seed % 2 * 5,
        };
        let (mut server, mut client, mut net) = pair(seed, 150_000, |s| s.offload = seed % 3 == 0);
        net.faults = faults;
        finish(&mut server, &mut client, &mut net, Duration::from_s(900));
    }
}

#[test]
fn a_connection_to_a_port_without_listener_is_refused() {
    let (mut server, mut client, mut net) = pair(1, 10, |_| {});
    client.app::<Client>(0).remote = SocketAddress::v4([10, 0, 0, 1], 8);
    net.run_until(&mut server, &mut client, Duration::from_s(5), |_, c| {
        c.app::<Client>(0).connected.is_some()
    });
    assert_eq!(client.app::<Client>(0).connected, Some(Status::Refused));
    net.run_for(&mut server, &mut client, Duration::from_ms(10));
    client.assert_all_quiet();
    assert_eq!(server.dropped(Reason::TcpNoPort), 1);
}

#[test]
fn a_connection_to_nobody_is_unreachable() {
    let (mut server, mut client, mut net) = pair(1, 10, |_| {});
    client.app::<Client>(0).remote = SocketAddress::v4([10, 0, 0, 99], 7);
    net.run_until(&mut server, &mut client, Duration::from_s(10), |_, c| {
        c.app::<Client>(0).connected.is_some()
    });
    assert_eq!(client.app::<Client>(0).connected, Some(Status::Unreachable));
    net.run_for(&mut server, &mut client, Duration::from_ms(10));
    client.assert_all_quiet();
}

#[test]
fn a_peer_that_falls_silent_ends_the_connection_by_time() {
    let (mut server, mut client, mut net) = pair(1, 1_000_000, |_| {});
    net.run_until(&mut server, &mut client, Duration::from_s(5), |_, c| {
        c.app::<Client>(0).received > 10_000
    });
    net.faults.loss = 1000;
    net.run_until(&mut server, &mut client, Duration::from_s(300), |s, c| {
        c.app::<Client>(0).done() && s.app::<Echo>(0).open() == 0
    });
    assert_eq!(client.app::<Client>(0).dead, Some(DeadReason::TimedOut));
    net.run_for(&mut server, &mut client, Duration::from_s(70));
    client.assert_all_quiet();
    server.assert_all_quiet();
}
