//! `ixcp` on a live machine: status, stop, restart-app, ls, and what it does when things go wrong.
use crate::{Kv, serves};
use ix_abi::control::{CORE_BASE, command, header};
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use nix::sys::signal::{Signal, kill};
use std::time::Duration;

fn kv() -> Option<(std::sync::MutexGuard<'static, ()>, Vm)> {
    let built = need::built()?;
    let machine = need::machine();
    let vm = Config::new(&built, "kv").cores(2).forward("11211").boot();
    Some((machine, vm))
}

fn json(vm: &Vm) -> serde_json::Value {
    serde_json::from_str(&vm.ixcp_ok(&["status", "--json"])).expect("JSON")
}

#[test]
fn standard_output_has_one_ready_line_and_says_how_to_go_on() {
    let Some((_machine, vm)) = kv() else { return };
    let out = vm.stdout();
    let ready = out.iter().filter(|line| line.starts_with("ix: ready")).count();
    assert_eq!((ready, out[0].starts_with("ix: ready")), (1, true), "{out:#?}");
    let address = vm.address(11211, "tcp").to_string();
    assert!(out.iter().any(|line| line.contains(&address)), "{out:#?}");
    assert!(out.iter().any(|line| line.contains("status --name test")), "{out:#?}");
}

#[test]
fn status_shows_the_packets_of_a_client() {
    let Some((_machine, vm)) = kv() else { return };
    let before = json(&vm);
    let mut client = Kv::connect(&vm);
    for i in 0..100 {
        client.set(&format!("key{i}"), b"value");
    }
    std::thread::sleep(Duration::from_millis(50));
    let after = json(&vm);
    let count = |v: &serde_json::Value, name: &str| v["total"]["counters"][name].as_u64().unwrap();
    for name in ["rx_packets", "tx_packets", "events", "syscalls", "rx_batches"] {
        let (b, a) = (count(&before, name), count(&after, name));
        assert!(a >= b + 100, "{name}: {b} then {a}");
    }
    assert!(count(&after, "tcp_connections") >= 1);
    assert_eq!(
        (&after["state"], &after["alive"], &after["app"]),
        (&"ready".into(), &true.into(), &"kv".into())
    );
    let batches: u64 =
        after["total"]["batches"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
    assert!(batches >= 100, "{batches} batches in the histogram");
    let text = vm.ixcp_ok(&["status"]);
    assert!(text.contains("heart beats") && text.contains('█'), "{text}");
}

#[test]
fn stop_ends_the_machine_in_order_and_leaves_no_files() {
    let Some((_machine, mut vm)) = kv() else { return };
    let said = vm.ixcp_ok(&["stop"]);
    assert_eq!(said.trim(), "test has stopped");
    assert_eq!(vm.wait_end(Duration::from_secs(5)), 0, "{}", vm.log());
    assert!(!vm.dir().exists());
    let again = vm.ixcp(&["stop"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("no dataplane runs"));
}

#[test]
fn ctrl_c_ends_the_machine_in_order() {
    let Some((_machine, mut vm)) = kv() else { return };
    assert_eq!(vm.interrupt(), 0, "{}", vm.log());
    assert!(vm.log().contains("stopped by command"), "{}", vm.log());
}

#[test]
fn restarts_that_are_asked_for_while_one_is_under_way_leave_it_serving() {
    let Some((_machine, vm)) = kv() else { return };
    for _ in 0..3 {
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| vm.ixcp_ok(&["restart-app"]));
            }
        });
        serves(&vm);
    }
}

#[test]
fn restart_app_gives_an_empty_store_on_the_same_kernel() {
    let Some((_machine, vm)) = kv() else { return };
    let epoch = json(&vm)["epoch"].clone();
    let mut old = Kv::connect(&vm);
    old.set("kept", b"no");
    for round in 2..5 {
        vm.ixcp_ok(&["restart-app"]);
        serves(&vm);
        assert_eq!(Kv::connect(&vm).get("kept"), None);
        let status = json(&vm);
        assert_eq!((&status["app_starts"], &status["epoch"]), (&round.into(), &epoch));
    }
}

#[test]
fn ls_lists_what_runs() {
    let Some((_machine, vm)) = kv() else { return };
    let text = vm.ixcp_ok(&["ls"]);
    assert!(text.contains("test") && text.contains("ready"), "{text}");
    let list: serde_json::Value = serde_json::from_str(&vm.ixcp_ok(&["ls", "--json"])).unwrap();
    assert_eq!(list[0]["name"], "test");
    assert_eq!(list.as_array().unwrap().len(), 1);
}

#[test]
fn a_taken_name_and_a_taken_port_are_errors_that_say_so() {
    let Some((_machine, vm)) = kv() else { return };
    let images = need::built().unwrap().images.display().to_string();
    let port = vm.address(11211, "tcp").port();
    let taken = vm.ixcp(&["run", "--images", &images, "--name", "test", "--forward", "0:11211"]);
    let text = String::from_utf8_lossy(&taken.stderr);
    assert!(taken.status.code() == Some(1) && text.contains("test runs already"), "{text}");
    let forward = format!("{port}:11211");
    let taken = vm.ixcp(&["run", "--images", &images, "--name", "other", "--forward", &forward]);
    let text = String::from_utf8_lossy(&taken.stderr);
    assert!(taken.status.code() == Some(1) && text.contains("choose another host port"), "{text}");
}

#[test]
fn a_dataplane_outlives_its_launcher_and_can_still_be_stopped() {
    let Some((_machine, mut vm)) = kv() else { return };
    vm.kill_launcher();
    serves(&vm);
    assert!(vm.ixcp_ok(&["ls"]).contains("test"));
    vm.ixcp_ok(&["stop"]);
    assert_eq!(vm.qemu_pid(), None);
}

#[test]
fn a_machine_that_does_not_answer_is_ended_only_by_force() {
    let Some((_machine, mut vm)) = kv() else { return };
    kill(vm.qemu_pid().expect("QEMU runs"), Signal::SIGSTOP).unwrap();
    let status = json(&vm);
    assert_eq!(status["alive"], false);
    assert!(vm.ixcp_ok(&["status"]).contains("HEART STANDS STILL"));
    let asked = vm.ixcp(&["stop", "--timeout", "1"]);
    let text = String::from_utf8_lossy(&asked.stderr);
    assert!(asked.status.code() == Some(1) && text.contains("stop --force"), "{text}");
    vm.ixcp_ok(&["stop", "--timeout", "1", "--force"]);
    assert_eq!(vm.wait_end(Duration::from_secs(10)), 5, "{}", vm.log());
}

#[test]
fn a_corrupted_page_is_refused_and_the_dataplane_goes_on_serving() {
    let Some((_machine, vm)) = kv() else { return };
    let page = vm.page();
    // A command from the future, for another boot, with nonsense in it.
    page.store(command::EPOCH, u64::MAX);
    page.store(command::CODE, u64::MAX);
    page.store_release(command::SEQUENCE, u64::MAX - 1);
    serves(&vm);
    let cores = page.load(header::CORES);
    page.store(header::CORES, u64::MAX);
    let refused = vm.ixcp(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("corrupted"));
    for offset in (0..CORE_BASE + 0x4000).step_by(8) {
        page.store(offset, 0x5a5a_5a5a_5a5a_5a5a);
    }
    serves(&vm);
    let refused = vm.ixcp(&["status"]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not an IX control page"));
    assert!(cores == 2, "the page was right before");
}
