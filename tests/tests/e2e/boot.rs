//! Booting: cores, memory, time, addresses, and how a machine ends.
use crate::serves;
use ix_tests::need;
use ix_tests::vm::Config;
use std::net::Ipv4Addr;
use std::time::Duration;

fn boots_on(cores: u32) {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").cores(cores).forward("11211").boot();
    serves(&vm);
    let snapshot = vm.snapshot();
    assert_eq!(snapshot.cores.len(), cores as usize);
    for core in &snapshot.cores {
        assert!(core.published > 0, "core {} never published", core.core);
    }
    let mut apic: Vec<u64> = snapshot.cores.iter().map(|c| c.apic_id).collect();
    apic.dedup();
    assert_eq!(apic.len(), cores as usize, "every core is another processor");
}

#[test]
fn one_core_boots_and_serves() {
    boots_on(1);
}

#[test]
fn two_cores_boot_and_serve() {
    boots_on(2);
}

#[test]
fn four_cores_boot_and_serve() {
    boots_on(4);
}

#[test]
fn six_gib_of_memory_are_used_above_the_4_gib_line_too() {
    let Some(built) = need::built() else { return };
    let free = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let free =
        free.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.split_whitespace().next());
    if free.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) < 7 << 20 {
        return need::skip("needs 7 GiB of free memory");
    }
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").with("--memory", "6144").forward("11211").boot();
    serves(&vm);
    let gib = vm.snapshot().memory_bytes as f64 / f64::from(1 << 30);
    assert!(gib > 5.8, "the kernel manages {gib:.2} GiB of 6");
    drop(vm);
    // The kernel's own test writes to the highest frames and reads them back.
    let test = Config::new(&built, "kv").with("--memory", "6144").with("--append", "selftest=high");
    let mut vm = test.start();
    assert_eq!(vm.wait_end(Duration::from_secs(60)), 0, "{}", vm.log());
    vm.wait_for("selftest high: passed", Duration::ZERO);
}

#[test]
fn it_is_ready_in_less_than_two_seconds() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let vm = Config::new(&built, "kv").cores(2).forward("11211").boot();
            vm.ready_after().expect("ready")
        })
        .collect();
    times.sort();
    println!("QEMU start to ix: ready: {times:?}");
    assert!(times[2] < Duration::from_secs(2), "median {:?} of {times:?}", times[2]);
}

#[test]
fn an_address_comes_by_dhcp() {
    let Some(built) = need::built() else { return };
    let _machine = need::machine();
    let vm = Config::new(&built, "kv").with("--ip", "dhcp").forward("11211").boot();
    serves(&vm);
    let snapshot = vm.snapshot();
    assert_eq!(snapshot.ipv4, Some(Ipv4Addr::new(10, 0, 2, 15)));
    assert_eq!(snapshot.prefix, 24);
}

/// `ixcp run`'s exit code and log with these words on the kernel's command line.
fn ends_with(words: &str) -> Option<(i32, String)> {
    let built = need::built()?;
    let _machine = need::machine();
    let mut vm = Config::new(&built, "kv").with("--append", words).start();
    let code = vm.wait_end(Duration::from_secs(30));
    Some((code, vm.log()))
}

#[test]
fn a_panic_has_an_exit_code_of_its_own_and_a_backtrace_with_names() {
    let Some((code, log)) = ends_with("selftest=panic") else { return };
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("the kernel panicked") && log.contains("ix_kernel::"), "{log}");
}

#[test]
fn an_exception_has_an_exit_code_of_its_own_and_shows_registers() {
    let Some((code, log)) = ends_with("selftest=fault") else { return };
    assert_eq!(code, 4, "{log}");
    assert!(log.contains("page fault") && log.contains("rip 0x"), "{log}");
}

#[test]
fn a_mistake_on_the_command_line_is_named() {
    let Some((code, log)) = ends_with("corse=2") else { return };
    assert_eq!(code, 8, "{log}");
    assert!(log.contains("corse=2"), "{log}");
}
