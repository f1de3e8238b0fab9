//! Linux's own driver for the 82599 drives the model, through QEMU and vfio-user: whether it takes it for the chip. And
//! how `ixcp run --nic ixgbe` handles the program that plays it.
use ix_tests::ixgbe::{self, Cable, IP, MAC, Rig, Tools};
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{Host, Listener};
use ix_tests::tap::Tap;
use ix_tests::tools::run;
use ix_tests::vm::{Config, Vm};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What one command in the guest may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// QEMU's user network.
const HOST: &str = "10.0.2.2";

/// A line that says this.
#[track_caller]
fn has(lines: &[String], text: &str) {
    assert!(lines.iter().any(|line| line.contains(text)), "no {text:?} in\n{}", lines.join("\n"));
}

fn value(statistics: &[(String, u64)], name: &str) -> u64 {
    let found = statistics.iter().find(|(known, _)| known == name);
    found.unwrap_or_else(|| panic!("no {name} in {statistics:?}")).1
}

#[track_caller]
fn pings(rig: &mut Rig, times: u32) {
    let lines = rig.linux.run_ok(&format!("busybox ping -c {times} -W 5 {HOST}"), PATIENCE);
    has(&lines, &format!("{times} packets received"));
}

/// The link is there a moment after the card was switched on.
#[track_caller]
fn wait_for_link(rig: &mut Rig) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let lines = rig.linux.run_ok("ethtool eth0", PATIENCE);
        // The driver knows the speed a moment after its kernel knows the link.
        let said = |text: &str| lines.iter().any(|line| line.contains(text));
        if said("Link detected: yes") && said("Speed: 10000Mb/s") {
            return;
        }
        assert!(Instant::now() < deadline, "no link:\n{}", lines.join("\n"));
    }
}

/// What a driver of a chip must never lead it to: memory that it was not given.
#[track_caller]
fn card_is_content(rig: &mut Rig) {
    assert!(rig.card_lives(), "the card's program has ended:\n{}", rig.card_log());
    assert_eq!(rig.card_log(), "");
}

/// What takes longest is to boot: what two cores are enough for, one machine does.
#[test]
fn linux_takes_the_model_for_the_chip_and_has_streams_segmented_and_coalesced_by_it() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let mut rig = Rig::start(&tools, 2, Cable::User);
    takes_it_for_the_chip(&mut rig);
    is_served_by_iperf3(&mut rig);
    has_segments_coalesced(&mut rig);
}

/// And on one core.
#[test]
fn the_model_passes_the_self_test_of_linux_whose_module_comes_and_goes() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let mut rig = Rig::start(&tools, 1, Cable::User);
    tests_it(&mut rig);
    loads_its_driver_again_and_again(&mut rig);
}

#[track_caller]
fn takes_it_for_the_chip(rig: &mut Rig) {
    has(&rig.linux.run_ok("ethtool -i eth0", PATIENCE), "driver: ixgbe");
    wait_for_link(rig);
    pings(rig, 5);
    let statistics = rig.statistics();
    for name in ["rx_packets", "tx_packets", "rx_pkts_nic", "tx_pkts_nic"] {
        assert!(value(&statistics, name) >= 5, "{name} in {statistics:?}");
    }
    for name in ["rx_crc_errors", "rx_missed_errors", "rx_csum_offload_errors", "tx_timeout_count"]
    {
        assert_eq!(value(&statistics, name), 0, "{name}");
    }
    has(&rig.linux.run_ok("ethtool -m eth0", PATIENCE), "10G Base-SR");
    has(&rig.linux.run_ok("ethtool -l eth0", PATIENCE), "Combined:\t2");
    // One vector for each queue and one for the rest, and each was heard.
    let interrupts = rig.linux.run_ok("busybox grep eth0 /proc/interrupts", PATIENCE);
    assert_eq!(interrupts.len(), 3, "{interrupts:?}");
    card_is_content(rig);
}

/// Intel's IOMMU shows the card only what the driver has given it: the descriptors of a ring, each buffer of a packet.
#[test]
fn linux_and_the_model_work_behind_an_iommu() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let mut rig = Rig::behind_iommu(&tools, 2, Cable::User);
    wait_for_link(&mut rig);
    has(&rig.linux.run_ok("busybox dmesg", PATIENCE), "DMAR: IOMMU enabled");
    pings(&mut rig, 5);
    passes(&mut rig);
    card_is_content(&mut rig);
}

/// Linux's own test. It gives the card 200 ms for 64 frames that it leads back, which a busy machine may need for other things: of
/// three times that may be too little twice, and nothing else may go wrong.
#[track_caller]
fn passes(rig: &mut Rig) {
    for left in (0..3).rev() {
        let (_, lines) = rig.linux.run("ethtool -t eth0 offline", PATIENCE);
        let code = |line: &String| line.split_once("line)")?.1.trim().parse::<u32>().ok();
        let failed: Vec<_> = lines.iter().filter(|l| code(l).is_some_and(|c| c != 0)).collect();
        let late =
            failed.len() == 1 && failed[0].starts_with("Loopback") && code(failed[0]) == Some(13);
        if late && left > 0 {
            println!("ixgbe: frames were led back late");
            continue;
        }
        return has(&lines, "The test result is PASS");
    }
}

/// Registers by patterns, EEPROM, interrupts, packets looped back in the chip, link.
#[track_caller]
fn tests_it(rig: &mut Rig) {
    wait_for_link(rig);
    passes(rig);
    wait_for_link(rig);
    pings(rig, 2);
    card_is_content(rig);
}

#[track_caller]
fn loads_its_driver_again_and_again(rig: &mut Rig) {
    let modules = rig.linux.run_ok("busybox ls /modules", PATIENCE);
    let module = modules.iter().find(|name| name.ends_with("-ixgbe.ko")).expect("its module");
    for _ in 0..if need::prove() { 20 } else { 5 } {
        rig.linux.run_ok("busybox rmmod ixgbe", PATIENCE);
        rig.linux.run_ok(&format!("busybox insmod /modules/{module}"), PATIENCE);
        rig.linux.run_ok(&format!("busybox ip address add {IP}/24 dev eth0"), PATIENCE);
        rig.linux.run_ok("busybox ip link set eth0 up", PATIENCE);
        wait_for_link(rig);
        pings(rig, 1);
    }
    card_is_content(rig);
}

/// Megabits in a second, of the lines that iperf3 ends with.
fn megabits(lines: &[String], side: &str) -> Option<f64> {
    let line = lines.iter().rev().find(|line| line.trim_end().ends_with(side))?;
    let (before, _) = line.split_once(" Mbits/sec")?;
    before.rsplit(' ').next()?.parse().ok()
}

/// Whether somebody listens on this port of 127.0.0.1. Without a connection, of which the server takes one only.
fn is_listening(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let listening = format!(" 0100007F:{port:04X} 00000000:0000 0A ");
    table.lines().any(|line| line.contains(&listening))
}

/// Megabits in a second of a transfer to or from a server on this machine.
#[track_caller]
fn iperf3(rig: &mut Rig, options: &str) -> f64 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("a port").port();
    drop(free);
    let mut server = ixgbe::iperf3();
    server.args(["-s", "-1", "-B", "127.0.0.1", "-p", &port.to_string()]);
    let server = std::thread::spawn(move || run(&mut server, PATIENCE));
    let deadline = Instant::now() + PATIENCE;
    while !is_listening(port) && !server.is_finished() {
        assert!(Instant::now() < deadline, "iperf3 does not listen");
        std::thread::sleep(Duration::from_millis(5));
    }
    let command = format!("iperf3 -c {HOST} -p {port} -f m {options}");
    let lines = rig.linux.run_ok(&command, PATIENCE);
    let rate = megabits(&lines, "receiver").unwrap_or(0.0);
    // Not a measurement, on a busy machine and translated: that it flows.
    assert!(rate > 1.0, "{}", lines.join("\n"));
    assert!(server.join().expect("a server").ok());
    rate
}

/// The card makes large frames of segments, and the driver follows from descriptor to descriptor; the driver's counters say how many.
#[track_caller]
fn has_segments_coalesced(rig: &mut Rig) {
    wait_for_link(rig);
    let count = |rig: &mut Rig| {
        let statistics = rig.statistics();
        ["hw_rsc_aggregated", "hw_rsc_flushed"].map(|name| value(&statistics, name))
    };
    for on in [false, true] {
        rig.linux
            .run_ok(&format!("ethtool -K eth0 lro {}", if on { "on" } else { "off" }), PATIENCE);
        wait_for_link(rig);
        let told = rig.linux.run_ok("ethtool -k eth0", PATIENCE);
        has(&told, &format!("large-receive-offload: {}", if on { "on" } else { "off" }));
        let before = count(rig);
        let rate = iperf3(rig, "-t 3 -R");
        let [segments, frames] = count(rig);
        println!("ixgbe: RSC {on}: {segments} segments in {frames} frames, {rate} Mbit/s");
        assert_eq!(on, segments > before[0] + 100 && frames > before[1], "{before:?}");
    }
    for name in ["rx_csum_offload_errors", "rx_length_errors", "rx_missed_errors"] {
        assert_eq!(value(&rig.statistics(), name), 0, "{name}");
    }
    card_is_content(rig);
}

/// TCP with segmentation and checksums by the card, both ways, through QEMU's user network.
#[track_caller]
fn is_served_by_iperf3(rig: &mut Rig) {
    wait_for_link(rig);
    for (way, reverse) in [("sending", ""), ("receiving", " -R")] {
        println!("ixgbe: {way}: {} Mbit/s", iperf3(rig, &format!("-t 4{reverse}")));
    }
    let statistics = rig.statistics();
    for name in ["rx_csum_offload_errors", "tx_timeout_count", "rx_length_errors"] {
        assert_eq!(value(&statistics, name), 0, "{name}");
    }
    card_is_content(rig);
}

/// UDP of a flow to a port of the guest where nobody listens. Sources differ in all bits that a network has: of flows that
/// differ in a few bits of a port only, one random key of a hundred sends all to one half of the queues.
fn datagram(flow: u16, to: u16) -> Vec<u8> {
    let mixed = u64::from(flow + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let source = [10, mixed[0], mixed[1], mixed[2] | 1];
    let from = u16::from_be_bytes([mixed[3] | 0x80, mixed[4]]);
    let payload = [0x5a; 26];
    let udp_len = 8 + payload.len() as u16;
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
    ip.extend(source);
    ip.extend(IP.octets());
    let sum: u32 = ip.as_chunks::<2>().0.iter().map(|w| u32::from(u16::from_be_bytes(*w))).sum();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [&MAC[..], &[0x52, 0x54, 0, 0, 0, 0xfe], &[8, 0], &ip].concat();
    frame.extend([from, to, udp_len, 0].map(u16::to_be_bytes).concat());
    frame.extend(payload);
    frame
}

fn send(peer: &mut UnixStream, frame: &[u8]) {
    peer.write_all(&[&(frame.len() as u32).to_be_bytes()[..], frame].concat()).expect("sent");
}

#[test]
fn flows_are_spread_over_four_queues() {
    const FLOWS: u16 = 64;
    const EACH: u64 = 10;
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let mut rig = Rig::start(&tools, 4, Cable::Peer(listener.path()));
    let mut peer = listener.accept();
    // What the guest says to the world is not read: the card's program has to live with that.
    wait_for_link(&mut rig);
    has(&rig.linux.run_ok("ethtool -x eth0", PATIENCE), "toeplitz: on");
    // By default Linux hashes UDP by its addresses only.
    rig.linux.run_ok("ethtool -N eth0 rx-flow-hash udp4 sdfn", PATIENCE);
    let queues = |rig: &mut Rig| -> [u64; 4] {
        let statistics = rig.statistics();
        std::array::from_fn(|i| value(&statistics, &format!("rx_queue_{i}_packets")))
    };
    let before = queues(&mut rig);
    for _ in 0..EACH {
        for flow in 0..FLOWS {
            send(&mut peer, &datagram(flow, 4000));
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let counts = loop {
        let now = queues(&mut rig);
        let counts: [u64; 4] = std::array::from_fn(|i| now[i] - before[i]);
        if counts.iter().sum::<u64>() >= u64::from(FLOWS) * EACH || Instant::now() > deadline {
            break counts;
        }
    };
    println!("ixgbe: {FLOWS} flows of {EACH} frames on four queues: {counts:?}");
    assert_eq!(counts.iter().sum::<u64>(), u64::from(FLOWS) * EACH, "{counts:?}");
    // A flow stays on its queue, and no queue has more than half of them.
    for count in counts {
        assert!(
            count > 0 && count.is_multiple_of(EACH) && count <= u64::from(FLOWS) * EACH / 2,
            "{counts:?}"
        );
    }
    card_is_content(&mut rig);
}

/// The driver has the card put on and take off the tags, and filter by them; the peer sees what is on the cable.
#[test]
fn linux_lives_in_a_vlan_by_the_card() {
    const VLAN: u16 = 5;
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let mut rig = Rig::start(&tools, 2, Cable::Peer(listener.path()));
    let modules = rig.linux.run_ok("busybox ls /modules", PATIENCE);
    if !modules.iter().any(|name| name.ends_with("-8021q.ko")) {
        return need::skip("the guest is without 8021q: cargo xtask linux-guest --ixgbe adds it");
    }
    wait_for_link(&mut rig);
    let features = rig.linux.run_ok("ethtool -k eth0", PATIENCE);
    for name in ["rx-vlan-offload: on", "tx-vlan-offload: on", "rx-vlan-filter: on"] {
        has(&features, name);
    }
    for command in [
        &format!("ip link add link eth0 name eth0.{VLAN} type vlan id {VLAN}"),
        &format!("ip address add 10.0.5.15/24 dev eth0.{VLAN}"),
        &format!("ip link set eth0.{VLAN} up"),
    ] {
        rig.linux.run_ok(&format!("busybox {command}"), PATIENCE);
    }
    let outside = [10, 0, 5, 2].into();
    let mut host = Host::with_address(listener.accept(), Faults::NONE, outside, 0xfe);
    host.set_vlan(Some(VLAN));
    let guest = Ipv4Addr::new(10, 0, 5, 15);
    for len in [1, 1000, 1472] {
        host.ping(guest, &crate::bytes(3, len), PATIENCE).expect("tagged");
    }
    let short = Duration::from_millis(500);
    for vlan in [Some(VLAN + 1), None] {
        host.set_vlan(vlan);
        assert!(host.ping(guest, b"?", short).is_err(), "{vlan:?}");
    }
    card_is_content(&mut rig);
}

/// IEEE 802.3 annex 31B: so many times 512 bits.
fn pause(quanta: u16) -> Vec<u8> {
    let mut frame = vec![1, 0x80, 0xc2, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 0xfe, 0x88, 8, 0, 1];
    frame.extend(quanta.to_be_bytes());
    frame.resize(60, 0);
    frame
}

/// As long as a pause frame can ask for: 65,535 times 51.2 ns, and a little less.
const SILENCE: Duration = Duration::from_micros(3_300);

/// How long it takes, so many times, in order of length, until the guest refuses a SYN to a port without anybody, when it was asked
/// for silence just before.
fn refusals(host: &mut Host, times: usize) -> Vec<Duration> {
    let refusal = |_| {
        let start = Instant::now();
        host.inject(&pause(u16::MAX));
        let conn = host.start_connect(IP, 9);
        let refused = host.established(conn, PATIENCE).expect_err("nobody is there");
        assert!(refused.contains("refused"), "{refused}");
        host.forget(conn);
        start.elapsed()
    };
    let mut all: Vec<_> = (0..times).map(refusal).collect();
    all.sort_unstable();
    all
}

/// What the driver has set up obeys a pause frame, counts it, and obeys none when that is off.
#[test]
fn linux_has_pause_frames_obeyed_or_not() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let mut rig = Rig::start(&tools, 1, Cable::Peer(listener.path()));
    let mut host = Host::new(listener.accept(), Faults::NONE);
    wait_for_link(&mut rig);
    let guest = IP;
    host.ping(guest, b"first", PATIENCE).expect("an answer");
    let told = rig.linux.run_ok("ethtool -a eth0", PATIENCE);
    has(&told, "RX:\t\ton");
    has(&told, "TX:\t\ton");
    let count = |rig: &mut Rig| {
        let statistics = rig.statistics();
        ["rx_flow_control_xoff", "rx_flow_control_xon"].map(|name| value(&statistics, name))
    };
    let before = count(&mut rig);
    let silent = refusals(&mut host, 20);
    println!("ixgbe: refused {:?} after a pause frame", silent[0]);
    // The silence begins when the card's program has looked at the clock, and now and then it has to wait then.
    assert!(silent[2] >= SILENCE, "{silent:?}");
    host.inject(&pause(0));
    host.ping(guest, b"again", PATIENCE).expect("an answer");
    let after = count(&mut rig);
    assert!(after[0] > before[0] && after[1] == before[1] + 1, "{before:?} {after:?}");
    rig.linux.run_ok("ethtool -A eth0 rx off tx off", PATIENCE);
    wait_for_link(&mut rig);
    let told = rig.linux.run_ok("ethtool -a eth0", PATIENCE);
    has(&told, "RX:\t\toff");
    let heard = refusals(&mut host, 200);
    println!("ixgbe: refused {:?} after one that is not obeyed", heard[0]);
    assert!(heard[0] < SILENCE, "{heard:?}");
    card_is_content(&mut rig);
}

#[test]
fn a_tap_is_a_cable_too() {
    let Some(tools) = ixgbe::tools() else { return };
    let Some(tap) = Tap::make(false) else { return };
    let _machine = need::machine();
    let mut rig = Rig::start(&tools, 1, Cable::Tap(&tap.name));
    wait_for_link(&mut rig);
    rig.linux.run_ok(&format!("busybox ip address add {} dev eth0", tap.guest), PATIENCE);
    let host = Ipv4Addr::from_bits(tap.guest_ip().to_bits() - 1);
    let lines = rig.linux.run_ok(&format!("busybox ping -c 3 -W 5 -s 1400 {host}"), PATIENCE);
    has(&lines, "3 packets received");
    card_is_content(&mut rig);
}

/// A dataplane with that card, and its launcher's description.
fn dataplane(tools: &Tools) -> Option<(Vm, Pid)> {
    let built = need::built()?;
    let vm = Config::new(&built, "kv")
        .with("--nic", "ixgbe")
        .with("--qemu", &tools.qemu)
        .with("--nic-program", &tools.player)
        .forward("11211")
        .boot();
    let card = vm.card_pid().expect("described");
    Some((vm, card))
}

fn lives(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("ixgbe"))
}

#[test]
fn ixcp_starts_the_card_and_ends_it_with_the_machine() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let Some((mut vm, card)) = dataplane(&tools) else { return };
    assert!(lives(card));
    crate::serves(&vm);
    assert_eq!(vm.interrupt(), 0, "{}", vm.log());
    assert!(!lives(card));
    assert!(!vm.log().contains("ixgbe-vfio-user:"), "{}", vm.log());
}

#[test]
fn a_machine_that_loses_its_card_is_ended_and_it_is_said_why() {
    let Some(tools) = ixgbe::tools() else { return };
    let _machine = need::machine();
    let Some((mut vm, card)) = dataplane(&tools) else { return };
    assert!(lives(card));
    kill(card, Signal::SIGKILL).expect("killed");
    assert_eq!(vm.wait_end(PATIENCE), 5, "{}", vm.log());
    vm.wait_for("the network card's program has ended", PATIENCE);
}
