//! IX on an Intel 82599: the kernel's driver against the model of the chip, through QEMU and vfio-user.
use crate::{Kv, serves};
use ix_tests::ixgbe;
use ix_tests::need;
use ix_tests::peer::faults::Faults;
use ix_tests::peer::{GUEST_IP, Host, Listener};
use ix_tests::vm::{Config, Vm};
use nix::sys::signal::{Signal, kill};
use std::time::{Duration, Instant};

const CORES: u32 = 4;

fn boot() -> Option<Vm> {
    let built = need::built()?;
    let config = Config::new(&built, "kv").cores(CORES).forward("11211");
    Some(ixgbe::with_card(config)?.boot())
}

fn clients(vm: &Vm) -> Vec<Kv> {
    (0..32).map(|_| Kv::connect(vm)).collect()
}

fn exchange(clients: &mut [Kv], round: usize) {
    for (i, client) in clients.iter_mut().enumerate() {
        let value = round.to_string();
        client.set(&format!("key{i}"), value.as_bytes());
        assert_eq!(client.get(&format!("key{i}")).as_deref(), Some(value.as_bytes()));
    }
}

#[test]
fn four_queues_carry_flows_by_rss_and_nothing_is_lost_when_groups_move() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    assert!(vm.log().contains("ixgbe, 4 queue pairs for 4 cores"), "{}", vm.log());
    let mut clients = clients(&vm);
    exchange(&mut clients, 0);
    let before = vm.snapshot();
    for core in &before.cores {
        assert!(core.counters.get("rx_packets") > 0, "{:?}", core.counters);
    }
    assert_eq!(before.total.counters.get("rx_steered_out"), 0, "the card finds the cores itself");
    for round in 1..=3 {
        for group in 0..32 {
            let to = (group + round) % CORES as usize;
            vm.ixcp_ok(&["flows", "move", &group.to_string(), &to.to_string()]);
            let at = group % 32;
            exchange(&mut clients[at..=at], round);
        }
        exchange(&mut clients, round);
    }
    let steered = vm.snapshot().total.counters.get("rx_steered_out");
    exchange(&mut clients, 4);
    let after = vm.snapshot().total.counters;
    assert_eq!(after.get("rx_steered_out"), steered, "the table follows the groups");
    for name in ["tcp_retransmits", "tcp_out_of_order", "tcp_resets_sent"] {
        assert_eq!(after.get(name), before.total.counters.get(name), "{name}");
    }
}

#[test]
fn cores_and_applications_come_and_go_on_it() {
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let mut clients = clients(&vm);
    for (round, count) in ["1", "4", "2", "4"].iter().enumerate() {
        vm.ixcp_ok(&["cores", "set", count]);
        exchange(&mut clients, round);
    }
    drop(clients);
    // The card is reset, and its buffers are scrubbed, before the next application has them.
    for _ in 0..2 {
        vm.ixcp_ok(&["restart-app"]);
        serves(&vm);
    }
    let total = vm.snapshot().total;
    assert_eq!(total.drops.get("device_error"), 0, "{:?}", total.drops);
}

/// Large sends are frames that the card cuts: fewer than the segments that arrive, and larger than the wire takes.
#[test]
fn large_answers_are_cut_into_segments_by_the_card() {
    const VALUE_BYTES: usize = 200_000;
    let _machine = need::machine();
    let Some(vm) = boot() else { return };
    let mut kv = Kv::connect(&vm);
    let value = crate::bytes(1, VALUE_BYTES);
    kv.set("large", &value);
    let before = vm.snapshot().total.counters;
    for _ in 0..10 {
        assert!(kv.get("large").as_deref() == Some(&value[..]), "another value");
    }
    let after = vm.snapshot().total.counters;
    let told = |name| after.get(name) - before.get(name);
    let (frames, bytes) = (told("tx_packets"), told("tx_bytes"));
    println!("card: {bytes} bytes in {frames} frames");
    // Acknowledgements and ends of windows count, too.
    assert!(bytes > 10 * VALUE_BYTES as u64 && bytes / frames > 2 * 1514, "{bytes} in {frames}");
    assert_eq!(told("tcp_retransmits"), 0);
}

const PATIENCE: Duration = Duration::from_secs(20);
const VLAN: u16 = 0x105;

#[test]
fn a_dataplane_lives_in_one_vlan_and_hears_nothing_of_others() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let config = Config::new(&built, "echo").cores(2).stream(listener.path());
    let Some(config) = ixgbe::with_card(config.with("--vlan", VLAN.to_string())) else { return };
    let vm = config.boot();
    let mut host = Host::new(listener.accept(), Faults::NONE);
    host.set_vlan(Some(VLAN));
    host.ping(GUEST_IP, &crate::bytes(1, 1400), PATIENCE).expect("tagged");
    for _ in 0..3 {
        let conn = host.connect(GUEST_IP, 7, PATIENCE).expect("a connection");
        let data = crate::bytes(2, 1_000_000);
        assert!(host.exchange(conn, &data, PATIENCE).expect("an echo") == data);
        host.close(conn, PATIENCE).expect("an end");
    }
    let before = vm.snapshot_at_rest().total;
    assert_eq!(before.drops.get("other_vlan"), 0);
    let received = before.counters.get("rx_packets");
    for vlan in [Some(VLAN + 1), Some(0), None] {
        host.set_vlan(vlan);
        let answer = host.ping(GUEST_IP, b"?", Duration::from_millis(300));
        assert!(answer.is_err(), "{vlan:?}: {answer:?}");
    }
    let total = vm.snapshot_when(|now| now.total.drops.get("other_vlan") > 0).total;
    assert!(total.drops.get("other_vlan") > 0, "the chip lets untagged frames through");
    assert_eq!(total.counters.get("rx_packets"), received, "none came to the stack");
    host.set_vlan(Some(VLAN));
    host.ping(GUEST_IP, b"!", PATIENCE).expect("tagged");
}

#[test]
fn a_card_that_cannot_tag_frames_is_refused_in_a_vlan() {
    if need::usual_card("the 82599 can tag frames").is_none() {
        return;
    }
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let mut vm = Config::new(&built, "kv").with("--vlan", "5").start();
    assert_eq!(vm.wait_end(PATIENCE), 8, "{}", vm.log());
    assert!(vm.log().contains("cannot tag frames (vlan=5)"), "{}", vm.log());
}

/// While QEMU stands still its guest polls nothing, and the card's program goes on.
#[test]
fn frames_that_found_no_buffer_are_counted() {
    const FRAMES: u64 = 5000;
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let listener = Listener::bind();
    let config = Config::new(&built, "kv").cores(1).stream(listener.path());
    let Some(config) = ixgbe::with_card(config) else { return };
    let vm = config.boot();
    let mut host = Host::new(listener.accept(), Faults::NONE);
    host.ping(GUEST_IP, b"?", PATIENCE).expect("an answer");
    let pid = vm.qemu_pid().expect("it runs");
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let mut frame = [0xff; 60];
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    for _ in 0..FRAMES {
        host.inject(&frame);
    }
    host.run(Duration::from_secs(1));
    kill(pid, Signal::SIGCONT).expect("goes on");
    let deadline = Instant::now() + PATIENCE;
    let figures = loop {
        let drops = vm.snapshot().total.drops;
        let (missed, odd) = (drops.get("device_missed"), drops.get("ether_type"));
        if missed + odd >= FRAMES || Instant::now() > deadline {
            break (missed, odd);
        }
        host.run(Duration::from_millis(20));
    };
    println!("card: of {FRAMES} frames {} were lost and {} arrived", figures.0, figures.1);
    assert_eq!(figures.0 + figures.1, FRAMES, "{figures:?}");
    assert!(figures.0 > FRAMES / 2, "{figures:?}");
    host.ping(GUEST_IP, b"!", PATIENCE).expect("an answer");
}
