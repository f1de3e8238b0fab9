//! The ISO image: GRUB on a BIOS and on UEFI, the console on the screen, the boot report. What a person
//! with a USB stick gets, as far as QEMU can show it.
use crate::Kv;
use ix_tests::bare::Bare;
use ix_tests::monitor;
use ix_tests::need;
use std::path::PathBuf;
use std::time::Duration;

/// A firmware's start, GRUB and ours, on a busy machine.
const BOOT_MAX: Duration = Duration::from_secs(90);
const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Firmware {
    Bios,
    Uefi,
}

struct Boot<'a> {
    firmware: Firmware,
    machine: &'a str,
    memory: &'a str,
    /// From a USB stick, else from a disc.
    stick: bool,
    /// The menu entry.
    key: char,
    more: &'a [&'a str],
}

impl Boot<'_> {
    /// `None` after saying SKIPPED.
    fn start(&self) -> Option<Bare> {
        let iso = need::iso()?;
        let program = need::program("qemu-system-x86_64").expect("need::iso looked for it");
        let disc = format!("if=none,id=ix,format=raw,readonly=on,file={}", iso.display());
        let mut args =
            vec!["-machine", self.machine, "-cpu", "max", "-smp", "2", "-m", self.memory];
        args.extend(["-vga", "std", "-drive", &disc]);
        if self.stick {
            args.extend(["-device", "qemu-xhci", "-device", "usb-storage,drive=ix"]);
        } else {
            args.extend(["-device", "ide-cd,drive=ix"]);
        }
        args.extend(["-device", "virtio-net-pci,netdev=net,romfile="]);
        if self.firmware == Firmware::Uefi {
            if !PathBuf::from(OVMF).is_file() {
                need::skip("no UEFI firmware (Debian package ovmf)");
                return None;
            }
            args.extend(["-bios", OVMF]);
        }
        args.extend(self.more);
        let mut vm = Bare::start(&program, &args, 11211);
        vm.wait_for_pressing("ix: IX ", Some(self.key), BOOT_MAX);
        Some(vm)
    }
}

#[track_caller]
fn serves(vm: &mut Bare) {
    vm.wait_for("ix: ready: kv at 10.0.2.15", BOOT_MAX);
    let mut kv = Kv::to(vm.address());
    kv.set("served", b"by an ISO");
    assert_eq!(kv.get("served").as_deref(), Some(&b"by an ISO"[..]));
}

#[track_caller]
fn boots(firmware: Firmware, machine: &str, stick: bool, says: &[&str]) {
    let _machine = need::machine();
    let boot = Boot { firmware, machine, memory: "512", stick, key: 'k', more: &[] };
    let Some(mut vm) = boot.start() else { return };
    serves(&mut vm);
    let log = vm.log();
    for text in ["started by GRUB 2", "cores: 2 of 2"].iter().chain(says) {
        assert!(log.contains(text), "no {text:?}:\n{log}");
    }
    // What is on the serial port is on the screen, too.
    let shown = match firmware {
        Firmware::Bios => vm.vga_text(),
        Firmware::Uefi => vm.framebuffer_text(),
    };
    let ready = log.lines().find(|l| l.contains("ix: ready")).expect("checked above");
    let ready = &ready[ready.find("ix: ready").expect("found")..];
    for line in [ready.trim(), "ix: protection: W^X NX SMEP SMAP UMIP"] {
        assert!(shown.iter().any(|l| l == line), "{line:?} is not on the screen:\n{shown:#?}");
    }
}

#[test]
fn the_iso_serves_under_seabios_from_a_stick_on_an_old_pc() {
    boots(Firmware::Bios, "pc", true, &["BIOS SeaBIOS", "VGA text 80x25"]);
}

#[test]
fn the_iso_serves_under_seabios_from_a_disc_on_a_pcie_machine() {
    boots(Firmware::Bios, "q35", false, &["BIOS SeaBIOS", "VGA text 80x25"]);
}

#[test]
fn the_iso_serves_under_ovmf_from_a_disc_on_an_old_pc() {
    boots(Firmware::Uefi, "pc", false, &["UEFI EFI Development Kit II", "framebuffer "]);
}

#[test]
fn the_iso_serves_under_ovmf_from_a_stick_on_a_pcie_machine() {
    boots(Firmware::Uefi, "q35", true, &["UEFI EFI Development Kit II", "framebuffer "]);
}

#[test]
fn a_bios_can_give_a_framebuffer_too() {
    let _machine = need::machine();
    let boot = Boot {
        firmware: Firmware::Bios,
        machine: "pc",
        memory: "256",
        stick: false,
        key: 'g',
        more: &[],
    };
    let Some(mut vm) = boot.start() else { return };
    serves(&mut vm);
    assert!(vm.log().contains("framebuffer "), "{}", vm.log());
    let shown = vm.framebuffer_text();
    assert!(shown.iter().any(|l| l.starts_with("ix: ready: kv at")), "{shown:#?}");
}

/// What a person with a card starts from a stick.
#[test]
fn the_iso_tests_the_network_card() {
    let _machine = need::machine();
    let (firmware, machine, memory) = (Firmware::Bios, "q35", "256");
    let boot = Boot { firmware, machine, memory, stick: true, key: 'n', more: &[] };
    let Some(mut vm) = boot.start() else { return };
    assert_eq!(vm.wait_end(BOOT_MAX), Some(33), "{}", vm.log());
    all_said(
        &vm.log(),
        &["started by GRUB 2", "nictest: PASS        transmit", "nictest: ALL PASSED"],
    );
    all_said(&vm.log(), &["report: PCI"]);
}

/// Reports and ends; gives the log.
fn report(firmware: Firmware, memory: &str, more: &[&str]) -> Option<String> {
    let _machine = need::machine();
    let mut vm = Boot { firmware, machine: "q35", memory, stick: false, key: 'r', more }.start()?;
    assert_eq!(vm.wait_end(BOOT_MAX), Some(33), "{}", vm.log());
    Some(vm.log())
}

#[track_caller]
fn all_said(log: &str, texts: &[&str]) {
    for text in texts {
        assert!(log.contains(text), "no {text:?}:\n{log}");
    }
}

#[test]
fn the_report_names_firmware_memory_tables_and_devices() {
    for (firmware, own) in [
        (Firmware::Bios, ["firmware: SeaBIOS", "no UEFI system table"]),
        (Firmware::Uefi, ["report: UEFI 2.", "firmware: EFI Development Kit II"]),
    ] {
        let more = [
            "-device",
            "intel-iommu",
            "-netdev",
            "user,id=other",
            "-device",
            "e1000e,netdev=other,romfile=",
        ];
        let Some(log) = report(firmware, "300", &more) else { return };
        all_said(&log, &own);
        all_said(
            &log,
            &[
                "report: loader: GRUB 2.",
                "report: machine: QEMU Standard PC (Q35",
                "report: CPU has: SMEP SMAP",
                "(confirmed); PM timer there",
                "KiB usable",
                "report: kernel at 0x200000",
                "report: module at 0x",
                "report: boot information at 0x",
                "report: IOMMU: Intel VT-d; PCI configuration by ECAM: there",
                "[8086:10d3] 0200 network: no driver",
                "network: virtio-net",
                "selftest report: passed",
            ],
        );
    }
}

#[test]
fn memory_of_any_size_can_be_written_to_without_harm_to_what_grub_left() {
    // The memory's end, and with it the place of almost everything, is another each time.
    for (firmware, memory) in
        [(Firmware::Bios, "96"), (Firmware::Bios, "1000"), (Firmware::Uefi, "200")]
    {
        let _machine = need::machine();
        let boot = Boot { firmware, machine: "q35", memory, stick: true, key: 't', more: &[] };
        let Some(mut vm) = boot.start() else { return };
        assert_eq!(vm.wait_end(BOOT_MAX), Some(33), "{firmware:?} {memory}: {}", vm.log());
        all_said(&vm.log(), &["archive hash 0x", "selftest placement: passed"]);
    }
}

#[test]
fn cpus_as_their_makers_sold_them_boot_the_iso_in_bochs() {
    let mut models = vec![
        ("corei7_skylake_x", ["family 0x6 model 0x55", "x2APIC, TSC", "(confirmed)"]),
        ("core2_penryn_t9600", ["family 0x6 model 0x17", "not invariant", "no RDRAND"]),
    ];
    if need::prove() {
        models.push(("ryzen", ["family 0x17", "xAPIC, TSC", "(confirmed)"]));
        models.push(("corei5_lynnfield_750", ["model 0x1e", "xAPIC, TSC", "no RDRAND"]));
    }
    for (model, says) in models {
        let run = monitor::run_iso(model, &["without an address", "ix: error"], BOOT_MAX);
        let Some(run) = run else { return };
        run.said(&["started by GRUB 2", "cores: 2 of 2", "ix: ready: kv without an address"]);
        run.said(&says);
    }
    let Some(run) = monitor::run_iso("atom_n270", &["all of these"], BOOT_MAX) else { return };
    run.said(&["ix: error: this CPU lacks: 64-bit mode, no-execute pages. IX needs"]);
}
