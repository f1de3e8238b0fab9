//! Against smoltcp's stack over `-netdev stream`: every frame is the test's to lose, double or delay.
use crate::bytes;
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{GUEST_IP, Host, Listener};
use ix_tests::vm::{Config, Vm};
use ixcp::snapshot::Snapshot;
use smoltcp::socket::tcp::State;
use std::sync::MutexGuard;
use std::time::Duration;

const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);

fn echo(cores: u32, faults: Faults) -> Option<(MutexGuard<'static, ()>, Vm, Host)> {
    let built = need::built()?;
    let machine = need::machine();
    let listener = Listener::bind();
    let vm = Config::new(&built, "echo").cores(cores).stream(listener.path()).boot();
    let host = Host::new(listener.accept(), faults);
    Some((machine, vm, host))
}

#[test]
fn pings_are_answered() {
    let Some((_machine, vm, mut host)) = echo(1, Faults::NONE) else { return };
    for len in [0, 1, 56, 1000, 1472] {
        host.ping(GUEST_IP, &bytes(1, len), PATIENCE).unwrap();
    }
    assert_eq!(vm.snapshot().total.counters.get("icmp_echoes"), 5);
}

#[test]
fn a_tcp_stream_comes_back_and_ends_in_order() {
    let Some((_machine, vm, mut host)) = echo(2, Faults::NONE) else { return };
    for len in [1, 1459, 1460, 1461, 100_000, 4_000_000] {
        let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
        let data = bytes(len as u64, len);
        assert!(host.exchange(conn, &data, PATIENCE).unwrap() == data, "{len} bytes");
        host.close(conn, PATIENCE).unwrap();
    }
    let total = vm.snapshot().total.counters;
    assert_eq!((total.get("tcp_accepted"), total.get("tcp_resets_sent")), (6, 0));
}

#[test]
fn a_tcp_stream_survives_loss_duplication_and_reordering() {
    let seeds = if need::prove() { 1..51 } else { 1..4 };
    for seed in seeds {
        let faults = Faults { seed, loss: 10, duplication: 10, reordering: 20 };
        let Some((_machine, _vm, mut host)) = echo(2, faults) else { return };
        let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
        let data = bytes(seed, 500_000);
        let got = host.exchange(conn, &data, Duration::from_secs(120));
        assert!(got.unwrap_or_else(|e| panic!("seed {seed}: {e}")) == data, "seed {seed}");
        host.close(conn, PATIENCE).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        let counts = host.faults();
        assert!(counts.lost > 0 && counts.doubled > 0 && counts.delayed > 0, "{counts:?}");
    }
}

#[test]
fn two_hundred_connections_are_served_at_the_same_time() {
    let Some((_machine, vm, mut host)) = echo(2, Faults::NONE) else { return };
    let conns: Vec<_> = (0..200).map(|_| host.start_connect(GUEST_IP, ECHO)).collect();
    for &conn in &conns {
        host.established(conn, PATIENCE).unwrap();
    }
    for (i, &conn) in conns.iter().enumerate() {
        host.send(conn, &bytes(i as u64, 300), PATIENCE).unwrap();
    }
    for (i, &conn) in conns.iter().enumerate() {
        assert!(host.recv(conn, 300, PATIENCE).unwrap() == bytes(i as u64, 300), "connection {i}");
    }
    for core in vm.snapshot().cores {
        assert!(core.counters.get("tcp_connections") > 20, "core {} has too few", core.core);
    }
    for conn in conns {
        host.close(conn, PATIENCE).unwrap();
    }
}

#[test]
fn a_port_without_listener_refuses() {
    let Some((_machine, vm, mut host)) = echo(1, Faults::NONE) else { return };
    let error = host.connect(GUEST_IP, 9, PATIENCE).unwrap_err();
    assert!(error.contains("refused"), "{error}");
    assert_eq!(vm.snapshot().total.drops.get("tcp_no_port"), 1);
}

#[test]
fn a_half_closed_connection_still_delivers() {
    let Some((_machine, _vm, mut host)) = echo(1, Faults::NONE) else { return };
    let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    let data = bytes(1, 50_000);
    host.send(conn, &data, PATIENCE).unwrap();
    host.shutdown(conn);
    assert!(host.recv(conn, data.len(), PATIENCE).unwrap() == data);
    host.until(PATIENCE, "the end", |h| {
        matches!(h.state(conn), State::TimeWait | State::Closed).then_some(Ok(()))
    })
    .unwrap();
}

#[test]
fn a_peer_that_resets_leaves_nothing_behind() {
    let Some((_machine, vm, mut host)) = echo(1, Faults::NONE) else { return };
    for _ in 0..20 {
        let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
        host.send(conn, &bytes(1, 10_000), PATIENCE).unwrap();
        host.abort(conn);
        host.run(Duration::from_millis(5));
        host.forget(conn);
    }
    host.run(Duration::from_millis(100));
    let all_came = |now: &Snapshot| now.total.counters.get("tcp_resets_received") >= 20;
    let total = vm.snapshot_when(all_came).total.counters;
    assert_eq!(total.get("tcp_connections"), 0);
    assert_eq!(total.get("tcp_resets_received"), 20);
    let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    assert!(host.exchange(conn, b"still here", PATIENCE).unwrap() == b"still here");
}

#[test]
fn datagrams_come_back_over_ethernet() {
    let Some((_machine, vm, mut host)) = echo(2, Faults::NONE) else { return };
    for port in 5000..5016 {
        let socket = host.udp(port);
        for len in [1, 1472] {
            let data = bytes(u64::from(port), len);
            host.udp_send(socket, GUEST_IP, ECHO, &data).unwrap();
            let (got, from) = host.udp_recv(socket, PATIENCE).unwrap();
            assert!(got == data && from.port == ECHO, "port {port}, {len} bytes");
        }
    }
    let total = vm.snapshot().total.counters;
    assert_eq!((total.get("udp_in"), total.get("udp_out")), (32, 32));
}

#[test]
fn frames_of_noise_are_dropped_with_a_reason_and_harm_nothing() {
    let Some((_machine, vm, mut host)) = echo(2, Faults::NONE) else { return };
    host.ping(GUEST_IP, b"first", PATIENCE).unwrap();
    let guest = vm.mac();
    let rounds = if need::prove() { 100_000 } else { 3000 };
    for round in 0..rounds {
        let len = 14 + (round * 7919) as usize % 200;
        let mut frame = bytes(round, len);
        frame[..6].copy_from_slice(&guest);
        // Half of them claim to be IPv4 with a header that begins well.
        if round % 2 == 0 && len >= 34 {
            frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
            frame[16..18].copy_from_slice(&((len - 14) as u16).to_be_bytes());
        }
        host.inject(&frame);
    }
    host.run(Duration::from_millis(200));
    let conn = host.connect(GUEST_IP, ECHO, PATIENCE).unwrap();
    assert!(host.exchange(conn, b"still here", PATIENCE).unwrap() == b"still here");
    let snapshot = vm.snapshot();
    let dropped: u64 = snapshot.total.drops.0.iter().map(|(_, n)| n).sum();
    assert!(dropped >= rounds * 9 / 10, "{dropped} of {rounds} counted as dropped");
}
