//! `ixcp run --vfio` on machines made of files: each thing that can stand in the way, and the QEMU that is started when none does.
use ix_abi::control::{State, header};
use ixcp::page::Page;
use ixcp::vfio::{Host, check, kvm_trouble};
use made_host::{BRIDGE, CARD, GROUP, MadeHost, SECOND, config};
use nix::sys::signal::{Signal, kill};
use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

mod made_host;

/// What QEMU is given.
const MEMORY_MIB: u32 = 512;

/// Why the card cannot be passed.
#[track_caller]
fn refusal(host: &MadeHost) -> String {
    let card = CARD.parse().unwrap();
    format!("{:#}", check(&Host::at(host.root()), card, MEMORY_MIB).expect_err("refused"))
}

#[track_caller]
fn says(text: &str, wanted: &[&str]) {
    for words in wanted {
        assert!(text.contains(words), "no {words:?} in\n{text}");
    }
}

/// What is told of a card that can.
fn told(host: &MadeHost) -> String {
    let passed = check(&Host::at(host.root()), CARD.parse().unwrap(), MEMORY_MIB);
    passed.expect("can be passed").told.join("\n")
}

#[test]
fn a_card_that_is_ready_is_told_with_its_group_interrupts_and_reset() {
    let host = MadeHost::good();
    let text = told(&host);
    says(&text, &["0000:01:00.0 is an Intel 82599 (8086:10fb)", "IOMMU group 12, with"]);
    says(&text, &["0000:00:01.0 (a bridge)", "0000:01:00.1 (without a driver)"]);
    says(&text, &["MSI-X: 64 vectors", "(FLR)"]);
    // The other port may be lent, too.
    host.bind(SECOND, Some("vfio-pci"));
    says(&told(&host), &["0000:01:00.1 (vfio-pci)"]);
}

#[test]
fn what_the_card_lacks_is_told_and_does_not_stop_anybody() {
    let host = MadeHost::good();
    let file = host.path(&format!("sys/bus/pci/devices/{CARD}/config"));
    host.remove(&format!("sys/bus/pci/devices/{CARD}/reset_method"));
    says(&told(&host), &["(FLR)"]);
    std::fs::write(&file, &config(9, false)[..64]).unwrap();
    says(&told(&host), &["MSI-X: only root can see", "no FLR"]);
    host.remove(&format!("sys/bus/pci/devices/{CARD}/reset"));
    let mut without = config(9, false);
    without[0x41] = 0;
    std::fs::write(&file, &without).unwrap();
    says(&told(&host), &["MSI-X: none", "reset: NONE"]);
    // A list of capabilities that has no end.
    without[0x41] = 0x40;
    std::fs::write(&file, &without).unwrap();
    says(&told(&host), &["MSI-X: none"]);
}

#[test]
fn a_function_that_is_not_there_is_refused() {
    let host = MadeHost::good();
    host.remove(&format!("sys/bus/pci/devices/{CARD}"));
    says(&refusal(&host), &["has no PCI function 0000:01:00.0", "lspci -D"]);
}

#[test]
fn a_card_without_a_driver_in_the_kernel_is_refused_by_its_ids() {
    let host = MadeHost::good();
    host.function(CARD, "0x10de", "0x1eb8", "0x030200");
    says(&refusal(&host), &["10de:1eb8, class 030200", "no driver for it", "8086:10fb"]);
}

#[test]
fn without_an_iommu_it_is_said_how_to_switch_it_on() {
    let host = MadeHost::good();
    host.remove(&format!("sys/bus/pci/devices/{CARD}/iommu_group"));
    says(&refusal(&host), &["behind none", "another slot"]);
    host.remove("sys/class/iommu/dmar0");
    says(&refusal(&host), &["no IOMMU group", "intel_iommu=on", "VT-d", "update-grub"]);
    host.write("proc/cpuinfo", "vendor_id\t: AuthenticAMD\n");
    says(&refusal(&host), &["amd_iommu=on", "AMD-Vi"]);
    host.write("proc/cpuinfo", "");
    says(&refusal(&host), &["intel_iommu=on (Intel) or amd_iommu=on (AMD)"]);
}

#[test]
fn vfios_mode_without_an_iommu_is_none() {
    let host = MadeHost::good();
    host.write(&format!("sys/kernel/iommu_groups/{GROUP}/name"), "vfio-noiommu\n");
    says(&refusal(&host), &["without an IOMMU (VFIO", "QEMU does not take"]);
}

#[test]
fn each_neighbour_with_a_driver_is_named() {
    let host = MadeHost::good();
    host.bind(SECOND, Some("ixgbe"));
    host.function("0000:02:00.0", "0x144d", "0xa808", "0x010802");
    host.put_in_group("0000:02:00.0", GROUP);
    host.bind("0000:02:00.0", Some("nvme"));
    let text = refusal(&host);
    says(&text, &["0000:01:00.1 (8086:10fb) is in the same IOMMU group 12", "driver ixgbe"]);
    says(&text, &["0000:02:00.0 (144d:a808)", "driver nvme", "a group of its own"]);
    assert!(!text.contains(BRIDGE), "bridges stay: {text}");
    assert!(!text.contains("0000:01:00.0 belongs"), "the card itself is right: {text}");
}

#[test]
fn a_card_that_linux_has_is_refused_with_the_commands_that_lend_it_and_give_it_back() {
    let host = MadeHost::good();
    host.bind(CARD, Some("ixgbe"));
    let text = refusal(&host);
    says(&text, &["0000:01:00.0 belongs to Linux's driver ixgbe", "modprobe vfio-pci"]);
    let (lend, back) = text.split_once("To give it back").expect("both ways");
    let commands = |text: &str| -> Vec<String> {
        text.lines().filter(|l| l.starts_with("  echo")).map(|l| l.trim().to_owned()).collect()
    };
    let device = format!("/sys/bus/pci/devices/{CARD}");
    let (unbind, probe) = (
        format!("echo {CARD} > {device}/driver/unbind"),
        format!("echo {CARD} > /sys/bus/pci/drivers_probe"),
    );
    let lent = [format!("echo vfio-pci > {device}/driver_override"), unbind.clone(), probe.clone()];
    assert_eq!(commands(lend), lent);
    assert_eq!(commands(back), [format!("echo > {device}/driver_override"), unbind, probe]);
    // Without any driver there is nothing to be unbound from.
    host.bind(CARD, None);
    let text = refusal(&host);
    says(&text, &["0000:01:00.0 has no driver"]);
    assert_eq!(commands(text.split_once("To give it back").unwrap().0).len(), 2, "{text}");
}

#[test]
fn who_would_cut_himself_off_is_warned() {
    let host = MadeHost::good();
    host.bind(CARD, Some("ixgbe"));
    host.interface(CARD, "enp1s0f0", "0x1002\n");
    let text = refusal(&host);
    says(&text, &["interface enp1s0f0, which is not in use"]);
    assert!(!text.contains("WARNING"), "{text}");
    host.interface(CARD, "enp1s0f0", "0x1003\n");
    says(&refusal(&host), &["WARNING: its interface enp1s0f0 is up"]);
    host.write("proc/net/if_inet6", "fe800000000000000000000000000001 02 40 20 80 enp1s0f0\n");
    says(&refusal(&host), &["enp1s0f0 is up"]);
    host.write("proc/net/if_inet6", "20010db8000000000000000000000001 02 40 00 80 enp1s0f0\n");
    says(&refusal(&host), &["enp1s0f0 has addresses"]);
    host.write("proc/net/if_inet6", "");
    let route = |lines: &str| host.write("proc/net/route", &format!("Iface\tDestination\n{lines}"));
    route("enp1s0f0\t0002000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n");
    says(&refusal(&host), &["enp1s0f0 has addresses"]);
    route("enp1s0f0\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    says(&refusal(&host), &["WARNING: its interface enp1s0f0 carries the default route"]);
    route("enp1s0f1\t00000000\t0102000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n");
    says(&refusal(&host), &["enp1s0f0 is up"]);
}

#[test]
fn a_group_that_cannot_be_opened_is_refused() {
    let host = MadeHost::good();
    host.remove(&format!("dev/vfio/{GROUP}"));
    says(&refusal(&host), &["dev/vfio/12 cannot be opened", "modprobe vfio-pci"]);
    host.remove("dev/vfio/vfio");
    says(&refusal(&host), &["dev/vfio/vfio cannot be opened"]);
}

#[test]
fn a_limit_that_is_too_low_is_refused_with_the_one_that_is_wanted() {
    let host = MadeHost::good();
    host.lock_limit("8388608");
    let text = refusal(&host);
    let wanted = (u64::from(MEMORY_MIB) + 8 + 16) << 20;
    says(&text, &["may keep 8 MiB", "536 MiB for --memory 512", &format!("--memlock={wanted}")]);
    says(&text, &[&format!("memlock {}", wanted >> 10), "limits.d"]);
    host.lock_limit(&(wanted - 1).to_string());
    refusal(&host);
    host.lock_limit(&wanted.to_string());
    told(&host);
    // Root is not bounded.
    host.lock_limit("8388608");
    host.write("proc/self/status", "CapEff:\t000001ffffffffff\n");
    told(&host);
}

#[test]
fn a_kvm_that_is_not_the_processors_is_not_taken_for_one() {
    let host = MadeHost::good();
    let trouble = |host: &MadeHost| kvm_trouble(&Host::at(host.root())).unwrap_or_default();
    assert_eq!(trouble(&host), "");
    host.remove("sys/module/kvm_intel");
    host.write("sys/module/kvm_pvm/refcnt", "0");
    says(&trouble(&host), &["neither kvm_intel's nor kvm_amd's", "PVM"]);
    host.write("sys/module/kvm_amd/refcnt", "0");
    assert_eq!(trouble(&host), "");
    host.remove("dev/kvm");
    says(&trouble(&host), &["no /dev/kvm", "modprobe kvm_intel"]);
}

/// `ixcp run` in such a machine, with a QEMU that writes down its arguments and then does what `script` says.
fn ixcp(host: &MadeHost, script: &str, args: &[&str]) -> Command {
    std::fs::create_dir_all(host.path("images")).unwrap();
    for name in ["kernel", "initrd"] {
        host.write(&format!("images/{name}"), name);
    }
    let qemu = host.path("qemu");
    let arguments = host.path("arguments");
    let text = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\n{script}\n", arguments.display());
    std::fs::write(&qemu, text).unwrap();
    std::fs::set_permissions(&qemu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ixcp"));
    command.env("IX_HOST_ROOT", host.root()).args(args);
    command.env("IX_RUNTIME_DIR", host.path("run"));
    if args[0] == "run" {
        command.arg("--qemu").arg(qemu).arg("--images").arg(host.path("images"));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(host: &MadeHost, args: &[&str]) -> (Output, String, Vec<String>) {
    let all = [&["run", "--vfio", "01:00.0"], args].concat();
    let done = ixcp(host, "exit 33", &all).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let arguments = std::fs::read_to_string(host.path("arguments")).unwrap_or_default();
    (done, said, arguments.lines().map(str::to_owned).collect())
}

const ADDRESS: [&str; 4] = ["--ip", "192.0.2.7/24", "--gw", "192.0.2.1"];

#[track_caller]
fn follows(arguments: &[String], flag: &str, value: &str) {
    let found = arguments.windows(2).any(|w| w[0] == flag && w[1].starts_with(value));
    assert!(found, "no {flag} {value} in {arguments:?}");
}

#[test]
fn qemu_gets_the_card_kvm_and_no_network_of_its_own() {
    let host = MadeHost::good();
    let (done, said, arguments) = run(&host, &ADDRESS);
    assert_eq!(done.status.code(), Some(0), "{said}");
    says(
        &said,
        &["ixcp: 0000:01:00.0 is an Intel 82599", "ixcp: IOMMU group 12", "ixcp: MSI-X: 64"],
    );
    follows(&arguments, "-device", "vfio-pci,host=0000:01:00.0");
    follows(&arguments, "-accel", "kvm");
    follows(&arguments, "-cpu", "host");
    follows(&arguments, "-object", "memory-backend-file,id=control,");
    follows(&arguments, "-device", "ivshmem-plain,memdev=control");
    follows(&arguments, "-append", "app=kv cores=2 ip=192.0.2.7/24 gw=192.0.2.1");
    assert!(!arguments.iter().any(|a| a == "-netdev" || a.contains("virtio-net")), "{arguments:?}");
    assert!(!said.contains("KVM"), "{said}");
}

#[test]
fn the_control_page_reaches_it_as_it_does_others() {
    let host = MadeHost::good();
    let args = [&["run", "--vfio", "01:00.0"], &ADDRESS[..]].concat();
    let mut child = ixcp(&host, "exec sleep 60", &args).spawn().unwrap();
    let control = host.path("run/kv/control");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !host.path("run/kv/instance.json").exists() {
        assert!(Instant::now() < deadline, "no instance appears");
        std::thread::sleep(Duration::from_millis(10));
    }
    let described = std::fs::read_to_string(host.path("run/kv/instance.json")).unwrap();
    says(&described, &["vfio=0000:01:00.0", "192.0.2.7/24"]);
    let page = Page::open(&control).unwrap();
    page.store(header::APP_EXIT, 3);
    page.store(header::STATE, State::AppEnded.0.into());
    // It tells so at once.
    let err = BufReader::new(child.stderr.take().unwrap());
    let told = err.lines().map_while(Result::ok).find(|line| line.contains("has ended before"));
    says(&told.unwrap_or_default(), &["has ended before it was ready (exit code 3)"]);
    kill(ixcp::pid_of(&child), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

#[test]
fn an_address_has_to_be_given() {
    let host = MadeHost::good();
    let (done, said, arguments) = run(&host, &[]);
    assert_eq!(done.status.code(), Some(1), "{said}");
    says(&said, &["--ip A.B.C.D/LENGTH and --gw A.B.C.D", "--ip dhcp"]);
    assert!(arguments.is_empty(), "{arguments:?}");
    let (done, said, _) = run(&host, &["--ip", "192.0.2.7/24"]);
    assert_eq!(done.status.code(), Some(0), "{said}");
    says(&said, &["without --gw"]);
    // The card's self-test needs none.
    let (done, said, arguments) = run(&host, &["--app", "nictest"]);
    assert_eq!(done.status.code(), Some(0), "{said}");
    follows(&arguments, "-append", "app=nictest cores=2 ip=dhcp");
    let (done, said, arguments) = run(&host, &["--ip", "dhcp"]);
    assert_eq!(done.status.code(), Some(0), "{said}");
    follows(&arguments, "-append", "app=kv cores=2 ip=dhcp");
}

#[test]
fn a_refused_card_starts_nothing_and_leaves_nothing() {
    let host = MadeHost::good();
    host.bind(CARD, Some("ixgbe"));
    let (done, said, arguments) = run(&host, &ADDRESS);
    assert_eq!(done.status.code(), Some(1), "{said}");
    says(&said, &["driver_override"]);
    assert!(arguments.is_empty() && !host.path("run/kv").exists(), "{arguments:?}");
}

#[test]
fn a_kvm_of_another_kind_is_said_and_refused_if_it_was_asked_for() {
    let host = MadeHost::good();
    host.remove("sys/module/kvm_intel");
    let (done, said, arguments) = run(&host, &ADDRESS);
    assert_eq!(done.status.code(), Some(0), "{said}");
    says(&said, &["WITHOUT KVM", "PVM"]);
    follows(&arguments, "-accel", "tcg");
    let asked = [&ADDRESS[..], &["--accel", "kvm"]].concat();
    let (done, said, _) = run(&host, &asked);
    assert_eq!(done.status.code(), Some(1), "{said}");
    says(&said, &["--accel kvm: /dev/kvm is there", "--accel tcg"]);
}

#[test]
fn a_control_page_on_a_disk_is_refused_before_qemu_starts() {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    // Where tests are built is a disk nearly everywhere.
    let disk = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    if statfs(disk).unwrap().filesystem_type() == TMPFS_MAGIC {
        return;
    }
    let host = MadeHost::good();
    let runtime = disk.join("run-on-disk");
    let args = [&["run", "--vfio", "01:00.0"], &ADDRESS[..]].concat();
    let mut command = ixcp(&host, "exit 33", &args);
    let done = command.env("IX_RUNTIME_DIR", &runtime).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(1), "{said}");
    says(&said, &["is on a disk", "IX_RUNTIME_DIR=/dev/shm/ix", "--control serial"]);
    assert!(!host.path("arguments").exists() && !runtime.join("kv").exists());
    let serial = [&args[..], &["--control", "serial"]].concat();
    let done = ixcp(&host, "exit 33", &serial).env("IX_RUNTIME_DIR", &runtime).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn a_dry_run_looks_and_prints_the_command() {
    let host = MadeHost::good();
    let (done, said, arguments) = run(&host, &[&ADDRESS[..], &["--dry-run"]].concat());
    assert_eq!(done.status.code(), Some(0), "{said}");
    says(&String::from_utf8_lossy(&done.stdout), &["vfio-pci,host=0000:01:00.0", "-accel kvm"]);
    assert!(arguments.is_empty(), "{arguments:?}");
}

#[test]
fn it_stands_in_place_of_other_cards_and_networks() {
    let host = MadeHost::good();
    for other in [["--nic", "ixgbe"], ["--net", "tap=t0"], ["--forward", "1:2"]] {
        let (done, said, _) = run(&host, &other);
        assert_eq!(done.status.code(), Some(2), "{said}");
        says(&said, &["cannot be used with"]);
    }
    let done = ixcp(&host, "exit 33", &["run", "--vfio", "eth0"]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    says(&String::from_utf8_lossy(&done.stderr), &["a PCI function like 01:00.0"]);
}
