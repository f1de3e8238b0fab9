//! TCP against Linux's own stack, over a TAP interface. Needs root.
use crate::{Kv, bytes};
use ix_tests::need::{self, Built};
use ix_tests::spread::Spread;
use ix_tests::tap::Tap;
use ix_tests::vm::{Config, Vm};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn connect(tap: &Tap, port: u16) -> TcpStream {
    let address = SocketAddr::from((tap.guest_ip(), port));
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10)).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Connections that are spread over cores.
fn connect_all(tap: &Tap, port: u16, count: usize) -> Vec<TcpStream> {
    let address = SocketAddrV4::new(tap.guest_ip(), port);
    let mut spread = Spread::default();
    let connect = |_| {
        let stream = spread.connect(address).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

fn boot(app: &str, cores: u32, tap: &Tap) -> Option<Vm> {
    Some(on_tap(&need::built()?, app, cores, tap).boot())
}

fn on_tap(built: &Built, app: &str, cores: u32, tap: &Tap) -> Config {
    let net = format!("tap={}", tap.name);
    Config::new(built, app).cores(cores).with("--net", net).with("--ip", tap.guest.as_str())
}

/// 20 MB to the guest's echo, and back while they are on their way.
#[track_caller]
fn echoes(tap: &Tap, seed: u64) {
    let data = bytes(seed, 20_000_000);
    let mut reader = connect(tap, 7);
    let mut writer = reader.try_clone().unwrap();
    let sent = data.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sent).expect("the guest takes it");
        writer.shutdown(Shutdown::Write).expect("an end");
    });
    let mut got = Vec::new();
    reader.read_to_end(&mut got).expect("data in time");
    sending.join().unwrap();
    assert!(got == data, "{} of {} bytes, or others", got.len(), data.len());
}

#[test]
fn linux_and_ix_exchange_streams() {
    let _machine = need::machine();
    let Some(tap) = Tap::make(false) else { return };
    let Some(vm) = boot("echo", 2, &tap) else { return };
    echoes(&tap, 5);
    sends_no_reset(&vm);
}

/// But in answer to a FIN that a probe has sent again, since the machine was slow: it is acknowledged twice, and the second time
/// nobody is there.
#[track_caller]
pub fn sends_no_reset(vm: &Vm) {
    let counters = vm.snapshot().total.counters;
    let again = counters.get("tcp_loss_probes") + counters.get("tcp_timeouts");
    assert!(counters.get("tcp_resets_sent") <= again, "{counters:?}\n{}", vm.log());
}

/// A stream to the guest's echo and back; the guest's counters.
fn large(tap: &Tap, mtu: Option<u16>) -> Option<(u64, u64, u64)> {
    let built = need::built()?;
    let mut config = on_tap(&built, "echo", 1, tap);
    if let Some(mtu) = mtu {
        tap.set_mtu(mtu);
        config = config.with("--mtu", mtu.to_string());
    }
    let vm = config.boot();
    echoes(tap, 6);
    let counters = vm.snapshot().total.counters;
    assert_eq!(counters.get("payload_copied"), 0);
    let count = |name| counters.get(name);
    Some((count("rx_chains"), count("rx_merged"), count("rx_packets")))
}

#[test]
fn what_linux_never_cut_arrives_in_large_frames() {
    if need::usual_card("the driver of the 82599 has nothing coalesced").is_none() {
        return;
    }
    let _machine = need::machine();
    let Some(tap) = Tap::make(false) else { return };
    let Some((chains, merged, packets)) = large(&tap, None) else { return };
    println!("{packets} frames, {chains} in several buffers, made of {merged} segments");
    assert!(chains > 100, "{chains} of {packets}");
    assert!(merged > 4 * chains, "{merged} segments in {chains} frames");
    assert!(packets < 20_000_000 / 1448, "{packets}");
}

#[test]
fn jumbo_frames_go_both_ways() {
    let _machine = need::machine();
    let Some(tap) = Tap::make(false) else { return };
    let Some((chains, _, packets)) = large(&tap, Some(9000)) else { return };
    println!("{packets} frames, {chains} in several buffers");
    assert!(chains > 100, "{chains} of {packets}");
}

#[test]
fn with_a_multi_queue_tap_both_cores_carry_connections() {
    both_cores_carry_connections(None);
}

/// A QEMU whose card spreads flows; `None` after saying SKIPPED.
fn qemu_10() -> Option<PathBuf> {
    need::usual_card("this is virtio-net's spreading of flows")?;
    let fetched = need::workspace().join("build/qemu-10/qemu-system-x86_64");
    if !fetched.is_file() {
        need::skip("no QEMU 10: cargo xtask qemu --version 10 fetches it");
        return None;
    }
    Some(fetched)
}

#[test]
fn with_the_receive_side_scaling_of_qemu_10_too() {
    let Some(fetched) = qemu_10() else { return };
    both_cores_carry_connections(Some(&fetched));
}

fn both_cores_carry_connections(qemu: Option<&Path>) {
    if need::usual_card("the card's program opens one queue of a TAP").is_none() {
        return;
    }
    let _machine = need::machine();
    let Some(tap) = Tap::make(true) else { return };
    let Some(built) = need::built() else { return };
    let mut config = on_tap(&built, "kv", 2, &tap);
    if let Some(qemu) = qemu {
        config = config.with("--qemu", qemu);
    }
    let vm = config.boot();
    let streams = connect_all(&tap, 11211, 64).into_iter();
    let mut clients: Vec<Kv> = streams.map(|stream| Kv(std::io::BufReader::new(stream))).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        for round in 0..20 {
            let value = bytes(round, 100);
            client.set(&format!("{i}"), &value);
            assert!(client.get(&format!("{i}")).as_ref() == Some(&value));
        }
    }
    // The command that a user would type.
    std::thread::sleep(Duration::from_millis(50));
    let status: serde_json::Value =
        serde_json::from_str(&vm.ixcp_ok(&["status", "--json"])).unwrap();
    assert_eq!(status["queues"], 2, "{}", vm.log());
    for core in status["cores"].as_array().unwrap() {
        let count = |name: &str| core["counters"][name].as_u64().unwrap();
        assert!(count("tcp_connections") >= 8 && count("rx_packets") > 100, "{core:#}");
    }
}

#[test]
fn linux_opens_and_closes_a_thousand_connections_one_after_the_other() {
    let _machine = need::machine();
    let Some(tap) = Tap::make(false) else { return };
    let Some(vm) = boot("echo", 2, &tap) else { return };
    let start = Instant::now();
    for i in 0..1000_u64 {
        let mut stream = connect(&tap, 7);
        let data = bytes(i, 64);
        stream.write_all(&data).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap_or_else(|e| panic!("connection {i}: {e}"));
        assert!(got == data, "connection {i}");
    }
    println!("1,000 connections in {:?}", start.elapsed());
    assert_eq!(vm.snapshot().total.counters.get("tcp_accepted"), 1000);
    sends_no_reset(&vm);
}

#[test]
fn the_devices_table_follows_flow_groups_that_move() {
    let Some(fetched) = qemu_10() else { return };
    let _machine = need::machine();
    let Some(tap) = Tap::make(true) else { return };
    let Some(built) = need::built() else { return };
    let vm = on_tap(&built, "echo", 2, &tap).with("--qemu", &fetched).boot();
    let mut streams = connect_all(&tap, 7, 64);
    let mut talk = |rounds: u64| {
        for round in 0..rounds {
            for (i, stream) in streams.iter_mut().enumerate() {
                let data = bytes(round * 64 + i as u64, 1200);
                stream.write_all(&data).unwrap();
                let mut got = vec![0; data.len()];
                stream.read_exact(&mut got).expect("an answer");
                assert!(got == data, "connection {i}");
            }
        }
    };
    let received = |core: usize| {
        std::thread::sleep(Duration::from_millis(50));
        vm.snapshot().cores[core].counters.get("rx_packets")
    };
    talk(2);
    for _ in 0..5 {
        vm.ixcp_ok(&["cores", "set", "1"]);
        let before = received(1);
        talk(5);
        assert!(received(1) <= before + 4, "frames still come to the parked core's queue");
        vm.ixcp_ok(&["cores", "set", "2"]);
        let before = received(1);
        talk(5);
        assert!(received(1) >= before + 100, "no frames come to the core that serves again");
    }
    let total = vm.snapshot().total.counters;
    assert!(total.get("groups_in") >= 640, "{}", total.get("groups_in"));
    assert_eq!((total.get("tcp_out_of_order"), total.get("tcp_resets_sent")), (0, 0));
    println!("{} segments sent again", total.get("tcp_retransmits"));
}
