//! Two engines against each other, over a network with faults by seed.
use crate::support::apps::{Client, Echo};
use crate::support::net::{Faults, Net};
use crate::support::station::{Setup, Station};
use ix_abi::stats::{Counter, Drop as Reason};
use ix_abi::{DeadReason, SocketAddress, Status};
use ix_dataplane::time::Duration;

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

/// A stream there and back, over a network of 2 ms: retransmissions, frames lost with payload, timeouts,
/// and the duplicates that were told of.
fn counted(seed: u64, bytes: u64, faults: Faults, late: Duration) -> (u64, u64, u64, u64) {
    let (mut server, mut client, mut net) = pair(seed, bytes, |s| s.buffers = 4096);
    net.delay = Duration::from_ms(1);
    net.late = late;
    net.run_until(&mut server, &mut client, Duration::from_s(5), |_, c| {
        c.app::<Client>(0).connected.is_some()
    });
    net.faults = faults;
    let mut steps = 0;
    net.run_until(&mut server, &mut client, Duration::from_s(900), |s, c| {
        steps += 1;
        if steps % 100 == 0 {
            let broken = |station: &Station| station.engines[0].conservation().broken;
            assert_eq!((broken(s), broken(c)), (0, 0));
        }
        c.app::<Client>(0).received == bytes
    });
    let of = |counter| server.count(counter) + client.count(counter);
    let counts = (
        of(Counter::TcpRetransmits),
        net.lost_data,
        of(Counter::TcpTimeouts),
        of(Counter::TcpDuplicatesTold),
    );
    finish(&mut server, &mut client, &mut net, Duration::from_s(100));
    counts
}

#[test]
fn what_is_lost_is_sent_again_and_little_else() {
    let faults = Faults { loss: 20, ..Faults::default() };
    let mut all = (0, 0, 0, 0);
    for seed in 1..=8 {
        let one = counted(seed, 1_500_000, faults, Duration(1));
        all = (all.0 + one.0, all.1 + one.1, all.2 + one.2, all.3 + one.3);
    }
    let (again, lost, timeouts, twice) = all;
    println!("{again} sent again for {lost} lost, {timeouts} timeouts, {twice} told twice");
    assert!(lost > 200);
    assert!(again >= lost && again <= lost + lost / 8, "{again} sent again for {lost} lost");
    assert!(timeouts * 20 <= lost, "{timeouts} timeouts for {lost} lost");
}

#[test]
fn what_is_late_is_soon_not_taken_for_lost() {
    // RFC 8985 §6.2 step 4: the reordering window follows what duplicates tell.
    let faults = Faults { reorder: 100, ..Faults::default() };
    let (again, lost, timeouts, twice) = counted(1, 6_000_000, faults, Duration::from_us(1500));
    println!("{again} sent again for {lost} lost, {timeouts} timeouts, {twice} told twice");
    assert_eq!((lost, timeouts), (0, 0));
    // About 900 of 9000 segments come late.
    assert!(again < 90, "{again} sent again");
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
