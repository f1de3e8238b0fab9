//! Through QEMU's user network: bulk data, many connections, datagrams. The host's side is QEMU's own
//! TCP, so it is another implementation than in `stream` and `tap`.
use crate::{bytes, fill};
use ix_tests::need;
use ix_tests::vm::Config;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{Read, Write};
use std::net::Shutdown;

/// The echo application's port.
const ECHO: u16 = 7;

#[test]
fn a_hundred_megabytes_come_back_byte_for_byte() {
    const BYTES: u64 = 100_000_000;
    const CHUNK: usize = 64 * 1024;
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "echo").cores(4).forward("7").boot();
    let mut reader = vm.connect(ECHO);
    let mut writer = reader.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let (mut at, mut chunk) = (0, vec![0; CHUNK]);
        while at < BYTES {
            let len = CHUNK.min((BYTES - at) as usize);
            fill(1, at, &mut chunk[..len]);
            writer.write_all(&chunk[..len]).expect("the guest takes it");
            at += len as u64;
        }
        writer.shutdown(Shutdown::Write).expect("an end");
    });
    let (mut at, mut got, mut want) = (0_u64, vec![0; CHUNK], vec![0; CHUNK]);
    loop {
        let n = reader.read(&mut got).expect("data in time");
        if n == 0 {
            break;
        }
        fill(1, at, &mut want[..n]);
        if got[..n] != want[..n] {
            let first = (0..n).find(|&i| got[i] != want[i]).unwrap();
            panic!("byte {} differs\n{}", at + first as u64, vm.log());
        }
        at += n as u64;
    }
    sending.join().unwrap();
    assert_eq!(at, BYTES, "the stream ends early");
    let total = vm.snapshot().total.counters;
    assert!(total.get("payload_in") >= BYTES && total.get("payload_out") >= BYTES);
    assert_eq!(total.get("payload_copied"), 0, "zero-copy both ways");
}

#[test]
fn a_thousand_connections_live_at_the_same_time() {
    const CONNECTIONS: u64 = 1000;
    let Some(built) = need::built() else { return };
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if most < 4096 || setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
        return need::skip("needs 4096 open files (ulimit -n)");
    }
    let _machine = need::machine();
    let vm = Config::new(&built, "echo").cores(4).forward("7").boot();
    // A byte each before the next: QEMU's user network has a backlog of one, and a host whose SYN
    // finds it full asks again only after a second.
    let mut connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut connection = vm.connect(ECHO);
            connection.write_all(b"?").expect("written");
            connection.read_exact(&mut [0]).expect("echoed");
            connection
        })
        .collect();
    for round in 0..3 {
        for (i, connection) in connections.iter_mut().enumerate() {
            connection.write_all(&bytes(round << 32 | i as u64, 100)).expect("written");
        }
        for (i, connection) in connections.iter_mut().enumerate() {
            let mut got = [0; 100];
            connection.read_exact(&mut got).unwrap_or_else(|e| panic!("connection {i}: {e}"));
            assert!(got == *bytes(round << 32 | i as u64, 100), "connection {i} got other data");
        }
        let now = vm.snapshot().total.counters.get("tcp_connections");
        assert!(now >= CONNECTIONS, "{now} connections at the same time");
    }
    // All cores share the work, by software steering: the user network has one queue.
    for core in vm.snapshot().cores {
        let n = core.counters.get("tcp_connections");
        assert!(n > CONNECTIONS / 10, "core {} has {n} connections", core.core);
    }
    for connection in &mut connections {
        connection.shutdown(Shutdown::Write).unwrap();
        assert_eq!(connection.read(&mut [0; 1]).unwrap(), 0, "an orderly end");
    }
}

#[test]
fn datagrams_are_echoed() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "echo").forward("7/udp").boot();
    let socket = vm.udp(ECHO);
    for len in [1, 64, 1000, 1472] {
        // Datagrams may be lost anywhere, so it is asked again.
        let answered = (0..5).any(|attempt| {
            let data = bytes(attempt, len);
            socket.send(&data).unwrap();
            let mut got = [0; 2000];
            socket.recv(&mut got).is_ok_and(|n| got[..n] == data)
        });
        assert!(answered, "{len} bytes\n{}", vm.log());
    }
}
