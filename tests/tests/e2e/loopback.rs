//! A dataplane that talks to itself: the kernel's card without a wire, kv and its clients in one application, every byte verified.
use crate::cores::json;
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

fn kvcheck(cores: u32, args: &[&str]) -> Option<Config> {
    let config = Config::new(&need::built()?, "kvcheck").cores(cores).with("--nic", "loopback");
    Some(config.app_args(args))
}

/// The lines that the application has printed about its rounds: rounds, and errors in all.
fn rounds(vm: &Vm) -> Vec<(u64, u64)> {
    let number = |line: &str, before: &str| {
        let head = line.split(before).next()?;
        head.rsplit(' ').next()?.parse().ok()
    };
    let told = vm.stderr().into_iter().filter_map(|line| {
        let line = line.strip_prefix("ix: kvcheck: round ")?.to_owned();
        Some((number(&line, ":")?, number(&line, " errors")?))
    });
    told.collect()
}

/// Waits until the application has told of so many rounds more than before, without an error.
#[track_caller]
fn go_on(vm: &Vm, more: u64) {
    let last = |vm: &Vm| rounds(vm).last().map_or(0, |(round, _)| *round);
    let (from, start) = (last(vm), Instant::now());
    while last(vm) < from + more {
        assert!(start.elapsed() < PATIENCE, "it stands still:\n{}", vm.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(rounds(vm).iter().all(|(_, errors)| *errors == 0), "{}", vm.log());
}

#[test]
fn it_serves_itself_on_one_two_and_four_cores_and_every_byte_is_right() {
    let _machine = need::machine();
    for cores in [1, 2, 4] {
        let args = ["connections=64", "requests=40000", "rounds=2", "value=3000"];
        let Some(config) = kvcheck(cores, &args) else { return };
        let mut vm = config.with("--append", "onexit=stop").start();
        assert_eq!(vm.wait_end(PATIENCE), 0, "{}", vm.log());
        let log = vm.log();
        assert!(log.contains(&format!("loopback, {cores} queue pairs for {cores} cores")), "{log}");
        let line = log.lines().find(|line| line.contains("connections, 80000 requests"));
        let line = line.unwrap_or_else(|| panic!("no last line in\n{log}"));
        println!("{cores} cores: {line}");
        // A second connection for each round, and none more: no connection was lost.
        assert!(line.contains(" 0 errors") && line.contains(" 128 connects"), "{line}");
    }
}

/// The card takes the table of groups, cores are parked and come back, and everything is still right.
#[test]
fn groups_move_while_it_runs_and_nothing_is_lost() {
    let _machine = need::machine();
    let Some(config) = kvcheck(4, &["connections=100", "requests=5000", "rounds=0"]) else {
        return;
    };
    let vm = config.boot();
    go_on(&vm, 1);
    let before = vm.snapshot().total;
    let times = if need::prove() { 20 } else { 2 };
    for round in 0..times {
        for count in [1_u64, 4, 2, 3, 4] {
            let said = vm.ixcp_ok(&["cores", "set", &count.to_string()]);
            assert!(said.contains(&format!("{count} of 4 cores serve")), "{said}");
            go_on(&vm, 1);
        }
        let group = (round * 7).to_string();
        vm.ixcp_ok(&["flows", "move", &group, "3"]);
        assert_eq!(json(&vm, &["flows"])["groups"][round * 7], 3);
        go_on(&vm, 1);
    }
    let after = vm.snapshot().total;
    let more = |name: &str| after.counters.get(name) - before.counters.get(name);
    let dropped = |name: &str| after.drops.get(name) - before.drops.get(name);
    let twice = dropped("tcp_out_of_window") + dropped("tcp_timestamp");
    println!(
        "{:?}; {} groups moved, {} frames steered, {} segments sent again, {twice} there twice, {} out of order",
        rounds(&vm).last(),
        more("groups_in"),
        more("rx_steered_out"),
        more("tcp_retransmits"),
        more("tcp_out_of_order")
    );
    assert!(more("groups_in") >= times as u64 * 4 * 32 && more("rx_packets") > 10_000);
    // What a slow machine sends again for want of patience is there twice, and dropped as such.
    assert!(twice <= more("tcp_retransmits"), "{:?}", after.drops);
    for name in ["device_missed", "tcp_checksum", "tcp_no_port", "steer_full", "no_buffer"] {
        assert_eq!(dropped(name), 0, "{name}: {:?}", after.drops);
    }
    assert_eq!((more("tcp_out_of_order"), more("tcp_resets_sent")), (0, 0), "{}", vm.log());
    for core in vm.snapshot().cores {
        assert!(core.counters.get("rx_packets") > 0, "core {} has received nothing", core.core);
    }
}

/// The card is reset and its buffers are scrubbed between two lives of the application. One with a wire stays idle, and the log says so.
#[test]
fn the_application_starts_again_and_again() {
    let _machine = need::machine();
    let Some(config) = kvcheck(2, &["connections=20", "requests=2000", "rounds=0"]) else { return };
    let wire = ["-netdev", "user,id=idle", "-device", "virtio-net-pci,netdev=idle,romfile="];
    let vm = config.qemu_args(&wire).boot();
    let log = vm.log();
    assert_eq!(log.matches("left idle, as nic=loopback says").count(), 1, "{log}");
    go_on(&vm, 1);
    for _ in 0..3 {
        vm.ixcp_ok(&["restart-app"]);
        let told = rounds(&vm).len();
        let start = Instant::now();
        while rounds(&vm).len() < told + 2 {
            assert!(start.elapsed() < PATIENCE, "it stands still:\n{}", vm.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(rounds(&vm).iter().all(|(_, errors)| *errors == 0), "{}", vm.log());
    }
    assert_eq!(vm.snapshot().total.drops.get("device_error"), 0);
}

#[test]
fn a_card_without_a_wire_has_no_dhcp_server_and_no_vlan() {
    let _machine = need::machine();
    for (option, value, words) in [
        ("--ip", "dhcp", "ip=A.B.C.D/LEN is wanted"),
        ("--vlan", "5", "cannot tag frames (vlan=5)"),
        ("--ip6", "fd00::1/64", "there is no IPv6"),
    ] {
        let Some(config) = kvcheck(1, &[]) else { return };
        let mut vm = config.with(option, value).start();
        assert_eq!(vm.wait_end(PATIENCE), 8, "{}", vm.log());
        assert!(vm.log().contains(words), "{}", vm.log());
    }
}

/// Where the card has a wire, the own address is nobody's whom one could connect to, and the program says so.
#[test]
fn on_a_card_with_a_wire_it_says_what_is_wanted() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let config = Config::new(&built, "kvcheck").cores(1).with("--append", "onexit=stop");
    let mut vm = config.start();
    assert_eq!(vm.wait_end(PATIENCE), 6, "{}", vm.log());
    assert!(vm.log().contains("nic=loopback is wanted"), "{}", vm.log());
}

/// `line=com3`: the control page over the third serial port, beside the second, which stays silent.
#[test]
fn the_control_channel_is_on_the_serial_port_that_the_command_line_names() {
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let config = Config::new(&built, "echo").cores(2).with("--nic", "loopback");
    let dir = temp_dir::TempDir::new().expect("a directory");
    let mut waiting = Vec::new();
    for (word, name, index) in [("com3", "COM3", 2), ("com4", "COM4", 3)] {
        let path = dir.path().join(word);
        let path = path.to_str().expect("text");
        let chardev = format!("socket,id=third,server=on,wait=off,path={path}");
        let device = format!("isa-serial,chardev=third,index={index}");
        let vm = config
            .clone()
            .with("--control", "serial")
            .with("--append", format!("line={word}"))
            .qemu_args(&["-chardev", &chardev, "-device", &device])
            .boot();
        assert!(vm.log().contains(&format!("control page over {name}")), "{}", vm.log());
        assert!(vm.ixcp_ok(&["status", "--serial", path]).contains("ready"));
        assert!(vm.ixcp_ok(&["cores", "--serial", path, "set", "1"]).contains("1 of 2"));
        // It takes seconds to give a line up; the other machine is tried meanwhile.
        let silent = std::thread::spawn(move || (vm.ixcp(&["status"]), vm));
        waiting.push(silent);
    }
    for silent in waiting {
        let (silent, _vm) = silent.join().expect("no panic");
        assert!(!silent.status.success(), "COM2 is nobody's: {silent:?}");
    }
}
