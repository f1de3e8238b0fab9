//! The control page over a serial line, on machines that share no memory with `ixcp`.
use crate::{Kv, serves};
use ix_tests::monitor::Live;
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use ixcp::page::Page;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

fn kv(cores: u32) -> Option<Vm> {
    let config = Config::new(&need::built()?, "kv").cores(cores).forward("11211");
    Some(config.with("--control", "serial").boot())
}

fn json(vm: &Vm, args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&vm.ixcp_ok(&[args, &["--json"]].concat())).expect("JSON")
}

#[track_caller]
fn refused(vm: &Vm, args: &[&str], words: &str) {
    let out = vm.ixcp(args);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains(words), "{args:?}: {said}");
}

#[test]
fn every_command_that_needs_no_shared_rings_works_over_a_serial_line() {
    let _machine = need::machine();
    let Some(mut vm) = kv(4) else { return };
    assert!(vm.log().contains("control page over COM2"), "{}", vm.log());
    serves(&vm);
    let mut clients: Vec<_> = (0..16).map(|_| Kv::connect(&vm)).collect();
    clients.iter_mut().enumerate().for_each(|(i, c)| c.set(&format!("k{i}"), b"1"));
    let status = json(&vm, &["status"]);
    assert_eq!((&status["state"], &status["alive"]), (&"ready".into(), &true.into()), "{status:#}");
    assert!(vm.ixcp_ok(&["status"]).contains("kv"), "for people, too");
    assert!(vm.ixcp_ok(&["ls"]).contains("ready"));
    for cores in ["2", "1", "4"] {
        let said = vm.ixcp_ok(&["cores", "set", cores]);
        assert!(said.contains(&format!("{cores} of 4 cores serve")), "{said}");
        clients.iter_mut().for_each(|c| assert_eq!(c.get("k3"), Some(b"1".to_vec())));
    }
    vm.ixcp_ok(&["flows", "move", "5", "3"]);
    assert_eq!(json(&vm, &["flows"])["groups"][5], 3);
    vm.ixcp_ok(&["batch", "17"]);
    assert!(vm.ixcp_ok(&["top", "--once"]).contains("test"), "a frame");
    assert!(vm.ixcp_ok(&["events"]).contains("command"), "what happened last");
    vm.ixcp_ok(&["trace", "on"]);
    vm.ixcp_ok(&["trace", "off"]);
    let rules = vm.dir().join("rules.toml");
    std::fs::write(&rules, "[default]\nin = \"allow\"\nout = \"allow\"\n").expect("written");
    vm.ixcp_ok(&["acl", "set", rules.to_str().expect("text")]);
    vm.ixcp_ok(&["acl", "show"]);
    refused(&vm, &["pcap", "-w", "/dev/null"], "serial line only");
    vm.ixcp_ok(&["restart-app"]);
    serves(&vm);
    // The same by its path, without the instance's name.
    let line = vm.dir().join("control");
    let line = line.to_str().expect("text");
    assert!(vm.ixcp_ok(&["status", "--serial", line]).contains("ready"));
    assert!(vm.ixcp_ok(&["cores", "--serial", line, "set", "3"]).contains("3 of 4"));
    assert!(vm.ixcp_ok(&["stop", "--serial", line]).contains("stopped"));
    assert_eq!(vm.wait_end(Duration::from_secs(10)), 0, "{}", vm.log());
}

#[test]
fn ctrl_c_ends_a_machine_that_has_a_serial_line_only() {
    let _machine = need::machine();
    let Some(mut vm) = kv(2) else { return };
    assert_eq!(vm.interrupt(), 0, "{}", vm.log());
    assert!(vm.log().contains("the dataplane has stopped"), "{}", vm.log());
}

/// Nonsense on the line costs nothing but itself, and the network is served meanwhile.
#[test]
fn nonsense_on_the_line_hurts_nobody() {
    let _machine = need::machine();
    let Some(vm) = kv(2) else { return };
    let mut client = Kv::connect(&vm);
    client.set("a", b"1");
    let path = vm.dir().join("control");
    for seed in 0..3 {
        let mut line = UnixStream::connect(&path).expect("the line");
        line.set_write_timeout(Some(Duration::from_secs(2))).expect("a limit");
        let mut noise = crate::bytes(seed, 20_000);
        // Beginnings of frames, lengths that lie, frames that write where they must not.
        for (i, at) in (0..noise.len() - 8).step_by(40).enumerate() {
            noise[at..at + 4].copy_from_slice(&[0x5a, 0xa5, (i % 140) as u8, 0]);
            noise[at + 7] = 1;
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) {
            let _ = line.write(&noise);
            assert_eq!(client.get("a"), Some(b"1".to_vec()));
        }
        drop(line);
        let status = json(&vm, &["status"]);
        assert_eq!((&status["state"], &status["alive"]), (&"ready".into(), &true.into()));
    }
    // One client at a time; the second is told so.
    let page = Page::open(&path).expect("a page");
    refused(&vm, &["status"], "no other program use the line");
    drop(page);
    vm.ixcp_ok(&["status"]);
}

#[test]
fn a_machine_in_bochs_is_watched_and_steered_over_its_second_serial_port() {
    let Some(mut machine) = Live::start_iso("corei7_skylake_x") else { return };
    machine.wait_for("ix: ready", Duration::from_secs(120));
    assert!(machine.log().contains("control page over COM2"), "{}", machine.log());
    let status: serde_json::Value =
        serde_json::from_str(&machine.ixcp(&["status", "--json"])).expect("JSON");
    assert_eq!(
        (&status["state"], &status["cores"].as_array().map(Vec::len)),
        (&"ready".into(), &Some(2))
    );
    assert!(machine.ixcp(&["cores", "set", "1"]).contains("1 of 2 cores serve"));
    assert!(machine.ixcp(&["cores"]).contains("parked"));
    assert!(machine.ixcp(&["cores", "set", "2"]).contains("2 of 2 cores serve"));
    machine.ixcp(&["restart-app"]);
}
