//! Dataplanes under the monitor, in Bochs, which executes VT-x (`docs/vtx.md`): each core behind EPT, misdeeds that are
//! named and contained, neighbours that do not notice, and what a CPU without all of it is told.
use ix_tests::monitor::{self, Live};
use std::collections::BTreeMap;
use std::time::Duration;

/// The verified workload: kv and its clients in one dataplane.
const CHECK: &str = "app=kvcheck nic=loopback onexit=stop";

#[test]
fn all_cores_run_behind_ept_and_the_workload_verifies() {
    let words = format!("{CHECK} ip=10.0.0.1/24 -- connections=16 requests=3000 rounds=1");
    let Some(run) = monitor::run("--cores 4 --memory 256 --time 180", None, &words) else { return };
    run.ended(33);
    run.said(&[
        "ix: ix: cores [0, 1, 2, 3]",
        "ix: ix: cores: 4 of 4, x2APIC, TSC",
        "kHz by the monitor (confirmed)",
        "this is a dataplane under IX's monitor, life 1",
        "KiB of them for each of 4 cores",
        "us of them to make and load them",
        "3000 requests, 0 errors",
        "ix: ix: ended with status 33: in order",
    ]);
    // Every core was in its guest, and nothing brought one out that a boot does not.
    let exits: Vec<&str> = run.lines("exits of its core").collect();
    assert_eq!(exits.len(), 4, "{}", run.log);
    for line in exits {
        let (_, list) =
            line.split_once("core ").and_then(|(_, l)| l.split_once(": ")).expect("a list");
        for exit in list.split(", ") {
            let known = [
                "CPUID ",
                "RDMSR ",
                "WRMSR ",
                "VMCALL ",
                "I/O instruction ",
                "preemption timer ",
                "exception or NMI ",
            ];
            assert!(known.iter().any(|name| exit.starts_with(name)), "{exit:?}:\n{}", run.log);
        }
        assert!(line.contains("preemption timer"), "{line}");
    }
}

/// One life for each misdeed, and one in which it serves: what each is called, and where its backtrace begins.
const MISDEEDS: [(&str, &str, &str); 13] = [
    ("secret", "a port that is not listed", "selftest::"),
    ("monitor-memory", "an access to memory that is not its own: write to 0x", "vmx::write_at"),
    ("msr", "an MSR that is not listed: WRMSR of 0x0 to 0x10 ", "selftest::"),
    ("port", "a port that is not listed: OUT of 0xfe (1 bytes) to port 0x64", "selftest::"),
    ("bar", "an access to memory that is not its own: write to 0xc0000000", "vmx::write_at"),
    ("triple", "a triple fault", "selftest::"),
    ("hang", "a hang: its heartbeat has stood still for 10 looks", "vmx::hang"),
    ("entry", "a VM-entry failure: GUEST_RFLAGS is 0x0", "selftest::"),
    ("icr", "an interrupt command that is not allowed: a core of somebody else", "apic::send"),
    ("xsetbv", "a value for XCR0 that is not allowed: XSETBV of 0x4 to XCR0", "selftest::"),
    ("misconfiguration", "an EPT misconfiguration: at 0x7fc0000000", "vmx::read_misconfigured"),
    ("cr4", "a control-register value that is not allowed", "selftest::"),
    ("panic", "its own end: its kernel has crashed (status 35)", "exit::exit"),
];

#[test]
fn each_misdeed_is_named_contained_and_followed_by_another_life() {
    // Seven in one machine at most: the eighth life of a minute is the last.
    for part in MISDEEDS.chunks(7) {
        let names: Vec<String> = part.iter().map(|(name, ..)| format!("vmx-{name}")).collect();
        let words = format!(
            "vmx=on selftest={} {CHECK} ip=10.0.0.1/24 -- connections=2 requests=200 rounds=1",
            names.join(",")
        );
        let Some(run) = monitor::run("--cores 2 --memory 192 --time 180", None, &words) else {
            return;
        };
        for (i, (name, cause, place)) in part.iter().enumerate() {
            let life = i + 1;
            let head = format!("ix: contained in life {life} on its core 0 (core 0): {cause}");
            run.said(&[&format!("selftest vmx-{name}: in life {life}"), &head]);
            let (_, after) = run.log.split_once(&head).expect("was said");
            let (report, _) =
                after.split_once(&format!("started again, life {}", life + 1)).expect("again");
            for text in ["rip 0xffffffff8", "rsp 0x", "rax 0x", "cr3 0x", "#0  0xffffffff8", place]
            {
                assert!(report.contains(text), "{name}: no {text:?}:\n{}", run.log);
            }
        }
        // Nothing of the memory of one life was there in the next.
        assert_eq!(run.lines("nothing of an earlier life").count(), part.len(), "{}", run.log);
        // The last life serves as if nothing had been.
        run.said(&[&format!("monitor, life {}", part.len() + 1), "200 requests, 0 errors"]);
        run.ended(33);
    }
}

#[test]
fn a_dataplane_that_always_fails_stays_down_after_its_eighth_life() {
    let names = ["vmx-port"; 12].join(",");
    let words = format!("vmx=on selftest={names}");
    let Some(run) = monitor::run("--cores 1 --memory 96 --time 180", None, &words) else { return };
    run.said(&["contained in life 8", "not started again: it has had 8 lives"]);
    assert!(!run.log.contains("life 9"), "{}", run.log);
    run.ended(35);
}

#[test]
fn a_neighbour_never_notices() {
    let configuration = format!(
        "# One that misbehaves, one that serves.\n\
         bad cores=0,1 memory=64M : selftest=vmx-neighbour-memory,vmx-icr,vmx-hang,vmx-triple,vmx-nothing-more\n\
         kv cores=2,3 memory=128M : {CHECK} ip=10.0.0.1/24 -- connections=8 requests=12000 rounds=1\n"
    );
    let options = "--cores 4 --memory 256 --time 240";
    let Some(run) = monitor::run(options, Some(&configuration), "vmx=on") else { return };
    run.said(&[
        "ix: bad: cores [0, 1], 64 MiB",
        "ix: kv: cores [2, 3], 128 MiB",
        "bad: contained in life 1 on its core 0 (core 0): an access to memory that is not its own: write to 0x",
        "bad: contained in life 2",
        "bad: contained in life 3 on its core 0 (core 0): a hang",
        "bad: contained in life 4",
        "kv: ix: VT-x: this is a dataplane under IX's monitor, life 1",
        "12000 requests, 0 errors",
        "kv: ended with status 33: in order",
    ]);
    assert_eq!(run.lines("kv: contained").count(), 0, "{}", run.log);
}

#[test]
fn a_cpu_without_what_it_takes_is_told_what_is_missing() {
    let old = "--cores 1 --memory 96 --time 180 --model core2_penryn_t9600";
    let Some(run) = monitor::run(old, None, "vmx=on selftest=boot") else { return };
    run.ended(43);
    run.said(&["ix: error: vmx=on: this CPU has no x2APIC"]);
    // And otherwise runs as ever.
    let Some(run) = monitor::run(old, None, "app=echo selftest=vmx-nothing") else { return };
    run.said(&["ix: VT-x: not used: this CPU has no x2APIC"]);
}

#[test]
fn a_boot_configuration_with_a_mistake_starts_nothing() {
    for (line, why) in [
        ("a cores=0,9 : app=echo\n", "dataplanes: line 1: `cores=0,9`"),
        ("a cores=0 memory=64M : app=echo nonsense=1\n", "dataplanes: line 1: `nonsense=1`"),
        ("a cores=0 memory=900M : app=echo\n", "a: not so much memory"),
    ] {
        let options = "--cores 1 --memory 96 --time 180";
        let Some(run) = monitor::run(options, Some(line), "vmx=on") else { return };
        run.said(&[why]);
        run.ended(43);
    }
}

/// The exits of all cores by name, the time on the dataplane's clock, and its requests so far.
fn exits(machine: &Live) -> (BTreeMap<String, u64>, u64) {
    let status: serde_json::Value =
        serde_json::from_str(&machine.ixcp(&["status", "--json"])).expect("JSON");
    let mut sums = BTreeMap::new();
    for core in status["cores"].as_array().expect("cores") {
        for (name, n) in core["exits"].as_object().expect("exits of each core") {
            *sums.entry(name.clone()).or_insert(0) += n.as_u64().expect("a number");
        }
    }
    assert_eq!(
        (&status["monitor"]["lives"], &status["monitor"]["containments"]),
        (&1.into(), &0.into())
    );
    (sums, status["now_ns"].as_u64().expect("a time"))
}

/// While it serves, nothing but the watchdog brings a core out, at most 10 times a second, and the interrupts that the cores
/// send one another; with `idle=poll` not even those.
#[test]
fn in_the_steady_state_only_the_watchdog_brings_a_core_out() {
    let cores = 2;
    let words =
        "app=kvcheck nic=loopback idle=poll ip=10.0.0.1/24 -- connections=8 requests=100000000";
    let options = format!("--cores {cores} --memory 256 --time 300");
    let Some(mut machine) = Live::start(&options, None, words) else { return };
    machine.wait_for("ready: kvcheck", Duration::from_secs(150));
    std::thread::sleep(Duration::from_secs(2));
    let (before, began) = exits(&machine);
    std::thread::sleep(Duration::from_secs(5));
    let (after, ended) = exits(&machine);
    let seconds = (ended - began) as f64 / 1e9;
    assert!(seconds > 0.2, "the clock went on by {seconds} s");
    let mut grown: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, n) in &after {
        let more = n - before.get(name).copied().unwrap_or(0);
        if more > 0 {
            grown.insert(name, more);
        }
    }
    println!("{seconds:.2} s: {grown:?}");
    let looks = grown.remove("preemption timer").unwrap_or(0);
    // The clock and the counters are read over a serial line, not at one moment.
    let most = f64::from(cores) * (10.0 * seconds + 5.0);
    assert!(looks > 0 && looks as f64 <= most, "{looks} in {seconds} s");
    assert!(grown.is_empty(), "{grown:?} in {seconds} s:\n{}", machine.log());
}

/// The machine has a display adapter at 00:02.0, which one of them is given, and the other is not.
#[test]
fn a_dataplane_sees_its_own_functions_only() {
    let configuration = "a cores=0 memory=48M functions=00:02.0 : selftest=report report=1\n\
                         b cores=1 memory=48M : selftest=report report=1\n";
    let options = "--cores 2 --memory 160 --time 180";
    let Some(run) = monitor::run(options, Some(configuration), "vmx=on") else { return };
    run.ended(33);
    run.said(&["a: ix: report: PCI 00:02.0 [1234:1111]", "ix: b: ended with status 33: in order"]);
    let seen = |name: &str| run.lines("report: PCI ").filter(|l| l.starts_with(name)).count();
    assert_eq!((seen("a: "), seen("b: ")), (1, 0), "{}", run.log);
}

/// The reason outlives the life that it ended, and comes to whoever asks the next one.
#[test]
fn the_control_page_tells_why_the_last_life_ended() {
    let words = "vmx=on selftest=vmx-msr app=kvcheck nic=loopback ip=10.0.0.1/24 \
                 -- connections=2 requests=100000000";
    let options = "--cores 1 --memory 192 --time 240";
    let Some(mut machine) = Live::start(options, None, words) else { return };
    machine.wait_for("ready: kvcheck", Duration::from_secs(150));
    let status = machine.ixcp(&["status"]);
    let told = status.lines().find(|line| line.starts_with("under IX's monitor: life 2, "));
    let told = told.unwrap_or_else(|| panic!("nothing of the monitor:\n{status}"));
    assert!(
        told.ends_with(", stopped 1 time, last on core 0 for an MSR that is not listed"),
        "{told}"
    );
}
