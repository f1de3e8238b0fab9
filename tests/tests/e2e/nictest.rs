//! The card's self-test and its report: on virtio-net, on the model of the 82599, and on one that has something wrong with it.
use ix_tests::bare::Bare;
use ix_tests::ixgbe;
use ix_tests::need;
use ix_tests::vm::{Config, Vm};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// Under a busy machine's translation.
const PATIENCE: Duration = Duration::from_secs(180);
/// What `ixcp run` ends with when an item has failed.
const FAILED: i32 = 9;

/// The report of a machine that has ended.
struct Report {
    lines: Vec<String>,
    code: i32,
    log: String,
}

impl Report {
    fn of(mut vm: Vm) -> Report {
        let code = vm.wait_end(PATIENCE);
        let said = vm.stdout();
        let lines = said.iter().filter_map(|line| line.strip_prefix("ix: nictest: "));
        Report { lines: lines.map(str::to_owned).collect(), code, log: vm.log() }
    }

    /// An item's verdict and what was found.
    #[track_caller]
    fn item(&self, name: &str) -> (&str, &str) {
        let columns = |line: &'_ String| -> Option<[usize; 2]> {
            (line.len() > 24 && line.get(12..23)?.trim_end() == name).then_some([11, 24])
        };
        let mut found = self.lines.iter().filter_map(|line| columns(line).map(|at| (line, at)));
        let Some((line, [verdict, rest])) = found.next() else {
            panic!("no {name}:\n{}", self.log)
        };
        assert!(found.next().is_none(), "{name} stands there twice:\n{}", self.log);
        (line[..verdict].trim_end(), &line[rest..])
    }

    #[track_caller]
    fn has(&self, verdict: &str, names: &[&str], text: &str) {
        for name in names {
            let (found, rest) = self.item(name);
            assert_eq!(found, verdict, "{name}: {rest}");
            assert!(rest.contains(text), "{name}: no {text:?} in {rest:?}");
        }
    }

    /// How many lines have a verdict.
    fn count(&self, verdict: &str) -> usize {
        self.lines.iter().filter(|line| line.starts_with(&format!("{verdict} "))).count()
    }

    /// The end: what it says agrees with the lines, and with how the machine ended.
    #[track_caller]
    fn ends(&self, all_passed: bool) {
        let [.., tally, send] = &self.lines[..] else { panic!("no end:\n{}", self.log) };
        let counts = ["PASS", "FAIL", "NOT OFFERED"].map(|verdict| self.count(verdict));
        let head = if all_passed { "ALL PASSED" } else { "NOT ALL PASSED" };
        let [passed, failed, not_offered] = counts;
        let meant = format!("{head}: {passed} passed, {failed} failed, {not_offered} not offered");
        assert_eq!((tally, failed == 0), (&meant, all_passed), "{}", self.log);
        assert!(send.contains("the project's list of issues"), "{send}");
        assert_eq!(self.code, if all_passed { 0 } else { FAILED }, "{}", self.log);
    }
}

/// The model with something wrong, or with nothing; `None` after saying SKIPPED.
fn model(fault: &str, cores: u32) -> Option<Report> {
    let (vm, _program) = started(fault, cores)?;
    Some(Report::of(vm))
}

/// Such a machine, and the directory of its card's program.
fn started(fault: &str, cores: u32) -> Option<(Vm, temp_dir::TempDir)> {
    let built = need::built()?;
    let (qemu, player) = ixgbe::card()?;
    let dir = temp_dir::TempDir::new().expect("a directory");
    let program = dir.child("card");
    let fault = if fault.is_empty() { String::new() } else { format!("--fault {fault}") };
    let script = format!("#!/bin/sh\nexec {} {fault} \"$@\"\n", player.display());
    fs::write(&program, script).expect("written");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("made a program");
    let config = Config::new(&built, "nictest").cores(cores).with("--nic", "ixgbe");
    Some((config.with("--qemu", qemu).with("--nic-program", program).start(), dir))
}

#[test]
fn virtio_is_tested_as_far_as_it_can_be() {
    if need::usual_card("the other one has a test of its own").is_none() {
        return;
    }
    let _machine = need::machine();
    let Some(built) = need::built() else { return };
    let report = Report::of(Config::new(&built, "nictest").start());
    assert!(report.lines[0].starts_with("report 1 of IX "), "{}", report.log);
    report.has("PASS", &["pci"], "[1af4:1041]");
    report.has("PASS", &["mac"], "52:54:00:xx:xx:xx");
    report.has("PASS", &["transmit"], "1455 frames of 60 to 1514 bytes");
    report.has("PASS", &["wire"], "10.0.2.2 answers within");
    report.has("PASS", &["open", "link", "wake"], "");
    let rest = [
        "eeprom",
        "module",
        "registers",
        "loopback",
        "rss",
        "checksum",
        "speed",
        "statistics",
        "events",
    ];
    report.has("NOT OFFERED", &rest, "virtio-net has none");
    report.ends(true);
    // Without an address nobody is asked.
    let report = Report::of(Config::new(&built, "nictest").with("--ip", "dhcp").start());
    report.has("NOT OFFERED", &["wire"], "no ip= and gw=");
    report.ends(true);
}

#[test]
fn the_model_passes_all_items_on_four_queues() {
    let _machine = need::machine();
    let Some(report) = model("", 4) else { return };
    report.has("PASS", &["pci"], "[8086:10fb]");
    report.has("PASS", &["open"], "4 queue pairs, 128 flow groups");
    report.has("PASS", &["eeprom"], "0xbaba");
    report.has("PASS", &["module"], "10GBASE-SR, 35 degrees Celsius");
    report.has("PASS", &["registers"], "356 keep what is written");
    report.has("PASS", &["link"], "up at 10000 Mb/s");
    let queues = ["loopback 0", "loopback 1", "loopback 2", "loopback 3"];
    report.has("PASS", &queues, "1455 frames of 60 to 1514 bytes came back as they were sent");
    report.has("PASS", &["rss", "checksum tx", "checksum rx"], "");
    report.has("PASS", &["interrupts"], "4 vectors");
    report.has("PASS", &["speed 64", "speed 1518"], "frames a second");
    report.has("PASS", &["statistics"], "each way, as sent");
    report.has("PASS", &["restart"], "its link is up");
    report.has("PASS", &["wire", "wake", "events"], "");
    assert_eq!(report.count("NOT OFFERED"), 0, "{}", report.log);
    report.ends(true);
    // What the card's program would complain of: memory that it was led to and may not reach.
    assert!(!report.log.contains("ixgbe-vfio-user:"), "{}", report.log);
}

/// As on a real machine: a firmware, GRUB and a stick, and a card whose cable leads nowhere.
#[test]
fn the_iso_tests_the_model_without_ixcp() {
    let _machine = need::machine();
    let (Some(iso), Some((qemu, player))) = (need::iso(), ixgbe::card()) else { return };
    let dir = temp_dir::TempDir::new().expect("a directory");
    let socket = dir.child("nic");
    let mut card = Command::new(player).arg("--socket").arg(&socket).spawn().expect("a card");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !socket.exists() {
        assert!(Instant::now() < deadline, "no card");
        std::thread::sleep(Duration::from_millis(5));
    }
    let address = serde_json::json!({"type": "unix", "path": socket.to_str()});
    let device = serde_json::json!({"driver": "vfio-user-pci", "socket": address}).to_string();
    let disc = format!("if=none,id=ix,format=raw,readonly=on,file={}", iso.display());
    let memory = "memory-backend-memfd,id=ram,size=512M,share=on";
    let args = ["-machine", "q35,memory-backend=ram", "-object", memory, "-m", "512"];
    let more = ["-cpu", "max", "-smp", "2", "-drive", &disc, "-device", "ide-cd,drive=ix"];
    let all = [&args[..], &more, &["-device", &device]].concat();
    let mut vm = Bare::start(&qemu, &all, 11211);
    vm.wait_for_pressing("ix: IX ", Some('n'), PATIENCE);
    assert_eq!(vm.wait_end(PATIENCE), Some(33), "{}", vm.log());
    let log = vm.log();
    for text in ["started by GRUB 2", "PASS        loopback 1", "nictest: ALL PASSED"] {
        assert!(log.contains(text), "no {text:?}:\n{log}");
    }
    // It ends with QEMU.
    card.wait().expect("ended");
}

/// A card with a fault fails in these items with these words, and in no others.
#[track_caller]
fn fails(fault: &str, items: &[(&str, &str)]) {
    if let Some(report) = model(fault, 2) {
        failed(fault, &report, items);
    }
}

#[track_caller]
fn failed(fault: &str, report: &Report, items: &[(&str, &str)]) {
    for (item, text) in items {
        report.has("FAIL", &[*item], text);
    }
    assert_eq!(report.count("FAIL"), items.len(), "{fault}:\n{}", report.log);
    report.ends(false);
}

#[test]
fn a_damaged_eeprom_and_a_stuck_queue_are_told() {
    let _machine = need::machine();
    fails("bad-eeprom", &[("open", "the EEPROM's checksum is wrong (0x")]);
    fails("stuck-tx-enable", &[("open", "transmit queue 0 did not change its state")]);
}

#[test]
fn a_link_that_is_down_is_told_and_the_rest_is_tried() {
    let _machine = need::machine();
    // Both wait for their link at once.
    let Some((partner, _one)) = started("no-partner", 2) else { return };
    let Some((module, _two)) = started("no-module", 2) else { return };
    let (wire, without) = (("wire", "does not answer"), "no SFP+ module is in the cage");
    failed("no-partner", &Report::of(partner), &[("link", "is the cable plugged in"), wire]);
    failed("no-module", &Report::of(module), &[("module", without), ("link", without), wire]);
}

#[test]
fn frames_that_come_back_changed_are_told_by_byte() {
    let _machine = need::machine();
    let byte = "bytes: byte ";
    fails(
        "flipped-bits",
        &[("loopback 0", byte), ("loopback 1", byte), ("checksum tx", byte), ("checksum rx", byte)],
    );
}

#[test]
fn frames_that_do_not_come_back_are_told_by_size() {
    let _machine = need::machine();
    let Some(report) = model("lost-frames", 2) else { return };
    let items = ["loopback 0", "loopback 1", "checksum tx", "checksum rx"];
    report.has("FAIL", &items, "1 of ");
    report.has("FAIL", &items, "frames did not come back, the first of ");
    report.has("FAIL", &["speed 64", "speed 1518"], "were lost");
    report.has("FAIL", &["statistics"], "frames received: the card counted ");
    // The rest is tried all the same.
    report.has("PASS", &["registers", "link", "rss", "restart", "events"], "");
    report.ends(false);
}

#[test]
fn silent_vectors_and_stuck_counters_are_told() {
    let _machine = need::machine();
    let silent = "without an interrupt";
    fails(
        "blind-checksums",
        &[("checksum rx", "its checksum is wrong, and the card says otherwise")],
    );
    fails("no-interrupts", &[("interrupts", silent), ("wake", silent)]);
    fails("stuck-statistics", &[("statistics", "frames received: the card counted 0, ")]);
}

/// The bit is the highest of each word of the key for hashes, and the key is drawn at boot. One key in sixteen has 0 in all of those
/// that matter to these frames, and then only the registers tell: the card is started again.
#[test]
fn a_stuck_bit_is_told_by_its_register_and_by_hashes() {
    const TIMES: usize = 8;
    let _machine = need::machine();
    let fault = "stuck-register-bit";
    let register = ("registers", "register 0x0eb80 reads 0x2aaaaaaa after 0xaaaaaaaa was written");
    let items = ["loopback 0", "loopback 1", "checksum tx", "checksum rx"];
    for _ in 0..TIMES {
        let Some(report) = model(fault, 2) else { return };
        if report.count("FAIL") > 1 {
            let hashes = items.map(|item| (item, "the hash is"));
            return failed(fault, &report, &[&[register][..], &hashes].concat());
        }
        failed(fault, &report, &[register]);
        println!("{fault}: this key has no bit there");
    }
    panic!("no hash was wrong in {TIMES} boots");
}
